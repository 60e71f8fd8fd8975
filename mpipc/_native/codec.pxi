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
        if is_array_class(<PyTypeObject*>key):
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

    cdef Py_buffer* hold(self, data, int flags) except NULL:
        if self.count == self.room:
            self.grow()
        cdef Py_buffer* view = &self.views[self.count]
        PyObject_GetBuffer(data, view, flags)
        self.pieces[self.count].data = <const char*>view.buf
        self.pieces[self.count].size = view.len
        self.size += view.len
        self.count += 1
        return view

    def write(self, data):
        return self.hold(data, PyBUF_SIMPLE).len


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


cdef inline bint reduced(type_) except -1:
    """Whether the program has said how this type is to be pickled."""
    return type_ in <dict>ForkingPickler._extra_reducers or type_ in copyreg_table


cdef Codec encode(obj, Draft* draft):
    """Make a message of `obj`; what it consists of is there until release() of what is returned."""
    if draft_value(draft, <PyObject*>obj):
        return None
    cdef Codec codec = idle_codecs.pop() if idle_codecs else Codec()
    # What raises from here on takes the codec with it.
    if is_array_class(Py_TYPE(<PyObject*>obj)) and not reduced(type(obj)):
        if draft_array(draft, obj, codec.sink.hold(obj, PyBUF_STRIDES)):
            return codec
        codec.sink.clear()
    codec.pickler.dump(obj)
    draft.message.pieces = codec.sink.pieces
    draft.message.count = codec.sink.count
    draft.message.form = FORM_PICKLE
    draft.message.size = codec.sink.size
    return codec


cdef inline void release(Codec codec):
    if codec is not None:
        keep_codec(codec)


cdef void keep_codec(Codec codec):
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


cdef bytes new_bytes(const char* data, uint64_t size):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
    copy(PyBytes_AS_STRING(out), data, size)
    return out


cdef bytes as_bytes(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    """The message as recv_bytes() returns it, a pickle if an object was sent; frees its extent."""
    if taken.form != FORM_PICKLE:
        return bytes(ForkingPickler.dumps(decode(segment, c, door, taken)))
    cdef Lease hold = lease(segment, c, door, taken) if taken.page else None
    return new_bytes(taken.data, taken.size)


cdef object decode(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    """The object that was sent; frees the message's extent, at the latest with the object."""
    cdef Lease hold = lease(segment, c, door, taken) if taken.page else None
    if taken.form == FORM_VALUE:
        return value_of(taken.data, taken.size)
    if taken.form == FORM_PICKLE:
        return loads(hold if hold is not None
                     else PyBytes_FromStringAndSize(taken.data, taken.size))
    if taken.form == FORM_BYTES:
        return new_bytes(taken.data, taken.size)
    if taken.form == FORM_ARRAY:
        return array_of(taken.data, taken.size)
    raise failure(CORRUPT, 0)


cdef int copy(char* to, const char* source, uint64_t size) except -1:
    if size < LONG_COPY:
        memcpy(to, source, size)
    else:
        with nogil:
            memcpy(to, source, size)
    return 0
