# cython: language_level=3, binding=False, embedsignature=True
# cython: auto_pickle=False, autotestdict=False
"""Calls of the kernel, and one of the processor, that Python's standard library lacks.

Nothing here decides anything. What fails is an OSError with the kernel's number.
"""
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, ERANGE, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport timespec
from posix.types cimport pid_t, uid_t

from ._native.atomics cimport cas64, monotonic_ns

from os import fsencode, strerror

cdef extern from "<sys/inotify.h>" nogil:
    const int _IN_CLOEXEC "IN_CLOEXEC", _IN_NONBLOCK "IN_NONBLOCK"
    const uint32_t _IN_ATTRIB "IN_ATTRIB", _IN_DELETE "IN_DELETE"
    const uint32_t _IN_DELETE_SELF "IN_DELETE_SELF", _IN_DONT_FOLLOW "IN_DONT_FOLLOW"
    const uint32_t _IN_MODIFY "IN_MODIFY", _IN_MOVED_TO "IN_MOVED_TO"
    int _inotify_init1 "inotify_init1"(int flags)
    int _inotify_add_watch "inotify_add_watch"(int fd, const char* path, uint32_t mask)
    int _inotify_rm_watch "inotify_rm_watch"(int fd, int watch)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <signal.h>
    #include <unistd.h>
    #include <sys/syscall.h>
    """
    const long SYS_rt_tgsigqueueinfo
    const int SI_QUEUE
    ctypedef void (*handler_t)(int) noexcept nogil
    const handler_t SIG_IGN, SIG_DFL
    union sigval_t "union sigval":
        int sival_int
    ctypedef struct siginfo_t:
        int si_signo
        int si_code
        pid_t si_pid
        uid_t si_uid
        sigval_t si_value
    struct sigaction_t "sigaction":
        handler_t sa_handler
    int sigaction(int signo, const sigaction_t* new, sigaction_t* old) nogil
    long syscall(long number, ...) nogil
    pid_t getpid() nogil
    uid_t getuid() nogil

cdef extern from *:
    """
    #include <sys/ipc.h>
    #include <sys/sem.h>
    static int semaphore_change(int semid, int by, int undo, const struct timespec *wait)
    {
        struct sembuf op = {0, (short)by, (short)(undo ? SEM_UNDO : 0)};
        return semtimedop(semid, &op, 1, wait);
    }
    static int semaphore_value(int semid)
    {
        return semctl(semid, 0, GETVAL);
    }
    """
    int semaphore_value(int semid) nogil
    int semaphore_change(int semid, int by, int undo, const timespec* wait) nogil

IN_ATTRIB = _IN_ATTRIB
IN_CLOEXEC = _IN_CLOEXEC
IN_DELETE = _IN_DELETE
IN_DELETE_SELF = _IN_DELETE_SELF
IN_DONT_FOLLOW = _IN_DONT_FOLLOW
IN_MODIFY = _IN_MODIFY
IN_MOVED_TO = _IN_MOVED_TO
IN_NONBLOCK = _IN_NONBLOCK


def inotify_init1(int flags):
    """A descriptor that reports events of files: inotify_init1(2)."""
    cdef int fd = _inotify_init1(flags)
    if fd < 0:
        raise OSError(errno, f"inotify_init1: {strerror(errno)}")
    return fd


def inotify_add_watch(int fd, path, uint32_t mask):
    """Report the events in `mask` of what stands at `path`; the watch's number."""
    cdef bytes encoded = fsencode(path)
    cdef const char* name = encoded
    cdef int watch
    with nogil:
        watch = _inotify_add_watch(fd, name, mask)
    if watch < 0:
        raise OSError(errno, f"inotify_add_watch: {strerror(errno)}", path)
    return watch


def inotify_rm_watch(int fd, int watch):
    """Report no more of a watch, after a last event that says so."""
    cdef int r
    with nogil:
        r = _inotify_rm_watch(fd, watch)
    if r < 0:
        raise OSError(errno, f"inotify_rm_watch: {strerror(errno)}")


def rt_tgsigqueueinfo(pid_t pid, int thread, int signo, int value):
    """Queue a signal with a value to one thread of a process."""
    cdef siginfo_t info
    memset(&info, 0, sizeof(info))
    info.si_signo = signo
    info.si_code = SI_QUEUE
    info.si_pid = getpid()
    info.si_uid = getuid()
    info.si_value.sival_int = value
    if syscall(SYS_rt_tgsigqueueinfo, pid, thread, signo, &info) < 0:
        raise OSError(errno, f"rt_tgsigqueueinfo: {strerror(errno)}")


def ignore_by_default(int signo):
    """Ignore a signal that would end the process; one with a handler is left alone.

    As signal.signal() with SIG_IGN, which only the main thread may call.
    """
    cdef sigaction_t action
    if sigaction(signo, NULL, &action) < 0:
        raise OSError(errno, f"sigaction: {strerror(errno)}")
    if action.sa_handler != SIG_DFL:
        return
    memset(&action, 0, sizeof(action))
    action.sa_handler = SIG_IGN
    if sigaction(signo, &action, NULL) < 0:
        raise OSError(errno, f"sigaction: {strerror(errno)}")


def compare_exchange(buffer, Py_ssize_t index, uint64_t expected, uint64_t new):
    """Write a 64-bit word of a buffer if it is as expected; whether it was. One atomic step.

    It is a full barrier as well: what was stored before is seen by others before what is loaded
    afterwards.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if not 0 <= index < view.len // 8:
            raise IndexError(f"word {index} of a buffer of {view.len // 8}")
        return bool(cas64(<uint64_t*>view.buf + index, expected, new))
    finally:
        PyBuffer_Release(&view)


def semctl_getval(int semid):
    """The value of the first semaphore of a set: semctl(2)."""
    cdef int value = semaphore_value(semid)
    if value < 0:
        raise OSError(errno, f"semctl: {strerror(errno)}")
    return value


# Longer than any machine runs; what is above overflows the kernel's types.
cdef double FOR_EVER = 1e9


def semtimedop(int semid, int by, timeout=None, bint undo=False):
    """Add `by`, which may be negative, to the first semaphore of a set once its value allows it.

    sysv_ipc is mostly built without semtimedop(2), and waits for ever where it is.

    Parameters
    ----------
    semid : int
        The set of semaphores.
    by : int
        What to add.
    timeout : float, optional
        Seconds to wait at most; None for ever. Signal handlers run meanwhile.
    undo : bool
        SEM_UNDO: take the change back when this process ends, however it does.

    Returns
    -------
    bool
        False if the time was over, or if the value would be above the kernel's maximum.
    """
    cdef double left = FOR_EVER if timeout is None else min(max(<double>timeout, 0.0), FOR_EVER)
    cdef double deadline = monotonic_ns() * 1e-9 + left
    cdef timespec wait
    cdef int result
    while True:
        wait.tv_sec = <long>left
        wait.tv_nsec = <long>((left - wait.tv_sec) * 1e9)
        with nogil:
            result = semaphore_change(semid, by, undo, &wait)
        if result == 0:
            return True
        if errno in (EAGAIN, ERANGE):
            return False
        if errno != EINTR:
            raise OSError(errno, f"semtimedop: {strerror(errno)}")
        PyErr_CheckSignals()
        left = max(deadline - monotonic_ns() * 1e-9, 0.0)
