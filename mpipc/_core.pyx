# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, binding=False, embedsignature=True
# cython: auto_pickle=False, autotestdict=False, always_allow_keywords=False
"""The shared-memory core of mpipc. This file lists its parts; each says at its top what it does.

Order matters: a part uses those above it. All that touches shared memory is `noexcept nogil`;
Python objects begin with memory.pxi.
"""
cimport cython
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_FillInfo,
    PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EINVAL, ENOSYS, EPIPE, ESRCH, ETIMEDOUT, errno
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport strtoull
from libc.string cimport memcpy, memset, strchr, strcmp, strlen, strrchr
from posix.time cimport timespec
from posix.types cimport pid_t

from ._native.atomics cimport *
from ._native.layout cimport *
from ._native.linux cimport *

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object view)

import copyreg
import warnings
from _pickle import PickleBuffer, Pickler, loads
from multiprocessing import BufferTooShort
from multiprocessing.context import assert_spawning
from multiprocessing.reduction import ForkingPickler
from os import strerror as os_strerror
from queue import Empty, Full
from weakref import WeakValueDictionary

from ._handles import dup_fd
from ._shutdown import ShutDown
from .errors import OwnerDied, OwnerDiedWarning, SegmentCorrupt

cdef dict copyreg_table = copyreg.dispatch_table

include "_native/futex.pxi"
include "_native/process.pxi"
include "_native/lock.pxi"
include "_native/segment.pxi"
include "_native/channel.pxi"
include "_native/hand.pxi"
include "_native/memory.pxi"
include "_native/undo.pxi"
include "_native/sync.pxi"
include "_native/values.pxi"
include "_native/lease.pxi"
include "_native/typed.pxi"
include "_native/codec.pxi"
include "_native/connection.pxi"
include "_native/empty.pxi"
include "_native/killpoints.pxi"
include "_native/faults.pxi"
