# Pickling with ForkingPickler's meaning and without its cost: one C pickler kept per nesting depth,
# its output handed on as pieces, so that a large buffer is copied once, straight into its message.

cdef size_t KEEP_MEMO = 64 << 10        # a pickler that made more than this is not used again


@cython.final
cdef class Dispatch:
    """ForkingPickler's dispatch table, looked at live: its own reducers first, then copyreg's."""

    def __getitem__(self, key):
        cdef PyObject* found = PyDict_GetItem(ForkingPickler._extra_reducers, key)
        if found == NULL:
            found = PyDict_GetItem(copyreg_table, key)
        if found != NULL:
            return <object>found
        if key.__name__ == "ndarray" and key.__module__ == "numpy":
            return reduce_ndarray
        raise KeyError(key)


def reduce_ndarray(array):
    """As one buffer, where the array that arrives is then the one that stock would deliver.

    Protocol 5 would keep a read-only array read-only and a foreign byte order foreign.
    """
    return array.__reduce_ex__(5 if array.flags.writeable and array.dtype.isnative else 4)


@cython.final
cdef class Sink:
    """The file that a pickler writes to: keeps what it is given, copies nothing."""

    cdef Piece* pieces
    cdef Py_buffer* views
    cdef int count
    cdef int room
    cdef size_t size

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self.pieces)
        PyMem_Free(self.views)

    cdef void clear(self) noexcept:
        while self.count:
            self.count -= 1
            PyBuffer_Release(&self.views[self.count])
        self.size = 0

    cdef int grow(self) except -1:
        cdef int room = self.room * 2 + 4
        cdef Piece* pieces = <Piece*>PyMem_Realloc(self.pieces, room * sizeof(Piece))
        if pieces == NULL:
            raise MemoryError(f"no memory to pickle {self.size} bytes in {room} pieces")
        self.pieces = pieces
        cdef Py_buffer* views = <Py_buffer*>PyMem_Realloc(self.views, room * sizeof(Py_buffer))
        if views == NULL:
            raise MemoryError(f"no memory to pickle {self.size} bytes in {room} pieces")
        self.views = views
        self.room = room
        return 0

    def write(self, data):
        if self.count == self.room:
            self.grow()
        PyObject_GetBuffer(data, &self.views[self.count], PyBUF_SIMPLE)
        self.pieces[self.count].data = <const char*>self.views[self.count].buf
        self.pieces[self.count].size = self.views[self.count].len
        self.size += self.views[self.count].len
        self.count += 1
        return self.views[self.count - 1].len


@cython.final
cdef class Codec:
    cdef Sink sink
    cdef object pickler

    def __cinit__(self):
        self.sink = Sink()
        self.pickler = Pickler(self.sink, 5)
        self.pickler.dispatch_table = dispatch


cdef list idle_codecs = []
cdef Dispatch dispatch = Dispatch()


cdef Codec encode(obj):
    """Pickle `obj`; the message is in the codec's sink until release()."""
    cdef Codec codec = idle_codecs.pop() if idle_codecs else Codec()
    codec.pickler.dump(obj)         # raising, it takes the codec with it
    return codec


cdef void release(Codec codec):
    cdef bint keep = codec.sink.size <= KEEP_MEMO
    codec.sink.clear()
    if keep and len(idle_codecs) < 8:
        codec.pickler.clear_memo()
        idle_codecs.append(codec)


@cython.no_gc_clear
@cython.final
cdef class Lease:
    """A taken message that still lies in its extent; the extent is free again when this goes."""

    cdef ChannelSegment segment
    cdef Chan* c
    cdef Door door
    cdef Taken taken
    cdef uint64_t process

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.taken.data, self.taken.size, 1, flags)

    def __dealloc__(self):
        if self.segment is not None and self.process == process_generation:
            with nogil:
                take_done(self.c, &self.door.bell, self.taken.page)


cdef Lease lease(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    cdef Lease self = Lease.__new__(Lease)
    self.segment = segment
    self.c = c
    self.door = door
    self.taken = taken[0]
    self.process = process_generation
    return self


cdef object as_bytes(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    """The message as bytes; frees its extent."""
    cdef bytes out
    cdef char* to
    cdef Lease hold = None
    if taken.page:
        hold = lease(segment, c, door, taken)
    out = PyBytes_FromStringAndSize(NULL, taken.size)
    to = PyBytes_AS_STRING(out)
    copy(to, taken.data, taken.size)
    return out


cdef object decode(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    if taken.page:
        return loads(lease(segment, c, door, taken))
    return loads(PyBytes_FromStringAndSize(taken.data, taken.size))


cdef int copy(char* to, const char* source, uint64_t size) except -1:
    if size < LONG_COPY:
        memcpy(to, source, size)
    else:
        with nogil:
            memcpy(to, source, size)
    return 0
