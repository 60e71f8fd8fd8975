# Pickling with ForkingPickler's meaning and without its cost: one C pickler kept per nesting depth,
# its output handed on as pieces, so that a large buffer is copied once, straight into its message.
#
# Where receivers take views (CHANNEL_VIEWS), buffers stay out of the pickle: FORM_ENCLOSED is
#
#   the pickle | the buffers, each from a multiple of 64 on | their sizes | the pickle's size |
#   how many buffers                         (the numbers: 8 bytes each, from a multiple of 8 on)

cdef char PADDING[64]

cdef size_t KEEP_MEMO = 64 << 10        # a pickler that made more than this is not used again


@cython.final
cdef class Dispatch:
    """ForkingPickler's dispatch table, looked at live: its own reducers first, then copyreg's."""

    cdef bint views

    def __getitem__(self, key):
        cdef PyObject* found = PyDict_GetItem(ForkingPickler._extra_reducers, key)
        if found == NULL:
            found = PyDict_GetItem(copyreg_table, key)
        if found != NULL:
            return <object>found
        if is_array_class(<PyTypeObject*>key):
            return reduce_for_view if self.views else reduce_ndarray
        if self.views and key is memoryview:
            return reduce_memoryview
        raise KeyError(key)


def reduce_ndarray(array):
    """As one buffer, where the array that arrives is then the one that stock would deliver.

    Protocol 5 would keep a read-only array read-only and a foreign byte order foreign.
    """
    return array.__reduce_ex__(5 if array.flags.writeable and array.dtype.isnative else 4)


def reduce_for_view(array):
    """As one buffer, in the order in which stock would deliver it; what is read-only stays so."""
    if not array.flags.forc and not array.dtype.hasobject:
        writeable = array.flags.writeable
        array = array.copy()
        array.flags.writeable = writeable
    return array.__reduce_ex__(5)


def reduce_memoryview(view):
    """As one buffer, which arrives as a memoryview of the same format and shape."""
    if not view.c_contiguous or len(view.format) > 1:
        raise TypeError(f"cannot send a memoryview that is not C-contiguous or whose format has "
                        f"more than one letter: {view.format!r}, strides {view.strides}")
    return _rebuild_memoryview, (PickleBuffer(view), view.format, view.shape)


def _rebuild_memoryview(view, format, shape):
    if 0 in shape:
        return view.cast(format)        # cast() knows no shape without elements
    return view.cast(format, shape)


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

    cdef int pad(self, size_t multiple) except -1:
        """Go on at a multiple of so many bytes, 64 at most."""
        cdef size_t size = -self.size % multiple
        if size == 0:
            return 0
        if self.count == self.room:
            self.grow()
        memset(&self.views[self.count], 0, sizeof(Py_buffer))
        self.pieces[self.count].data = PADDING
        self.pieces[self.count].size = size
        self.size += size
        self.count += 1
        return 0


@cython.final
cdef class Codec:
    cdef Sink sink
    cdef object pickler
    cdef list buffers               # out of band; None: all are in the pickle
    cdef size_t pickled

    cdef int enclose(self) except -1:
        """Let the buffers follow the pickle."""
        cdef Py_ssize_t count = len(self.buffers), i
        cdef bytes trailer = PyBytes_FromStringAndSize(NULL, (count + 2) * sizeof(uint64_t))
        cdef uint64_t* numbers = <uint64_t*>PyBytes_AS_STRING(trailer)
        for i in range(count):
            self.sink.pad(64)
            numbers[i] = self.sink.hold(self.buffers[i], PyBUF_ANY_CONTIGUOUS).len
        self.sink.pad(sizeof(uint64_t))
        numbers[count] = self.pickled
        numbers[count + 1] = count
        self.sink.write(trailer)
        return 0


cdef Codec new_codec(bint views):
    cdef Codec self = Codec.__new__(Codec)
    self.sink = Sink()
    if views:
        self.buffers = []
        self.pickler = Pickler(self.sink, 5, buffer_callback=self.buffers.append)
        self.pickler.dispatch_table = viewing_dispatch
    else:
        self.pickler = Pickler(self.sink, 5)
        self.pickler.dispatch_table = dispatch
    return self


cdef list idle_codecs = []
cdef list idle_viewing_codecs = []
cdef Dispatch dispatch = Dispatch()
cdef Dispatch viewing_dispatch = Dispatch()
viewing_dispatch.views = True


cdef inline bint reduced(type_) except -1:
    """Whether the program has said how this type is to be pickled."""
    return type_ in <dict>ForkingPickler._extra_reducers or type_ in copyreg_table


cdef Codec encode(obj, Draft* draft, bint views):
    """Make a message of `obj`; what it consists of is there until release() of what is returned."""
    if draft_value(draft, <PyObject*>obj):
        return None
    cdef list idle = idle_viewing_codecs if views else idle_codecs
    cdef Codec codec = idle.pop() if idle else new_codec(views)
    # What raises from here on takes the codec with it.
    if is_array_class(Py_TYPE(<PyObject*>obj)) and not reduced(type(obj)):
        if draft_array(draft, obj, codec.sink.hold(obj, PyBUF_STRIDES)):
            return codec
        codec.sink.clear()
    codec.pickler.dump(obj)
    codec.pickled = codec.sink.size
    draft.message.form = FORM_PICKLE
    if codec.buffers:
        codec.enclose()
        draft.message.form = FORM_ENCLOSED
    draft.message.pieces = codec.sink.pieces
    draft.message.count = codec.sink.count
    draft.message.page = 0
    draft.message.size = codec.sink.size
    return codec


cdef inline void release(Codec codec):
    if codec is not None:
        keep_codec(codec)


cdef void keep_codec(Codec codec):
    cdef list idle = idle_codecs if codec.buffers is None else idle_viewing_codecs
    codec.sink.clear()
    if codec.buffers:
        codec.buffers.clear()
    if codec.pickled <= KEEP_MEMO and len(idle) < 8:
        codec.pickled = 0
        codec.pickler.clear_memo()
        idle.append(codec)


cdef uint64_t IN_HUGE_PAGES = 4 << 20   # objects from here on; NumPy does the same with arrays


cdef bytes new_bytes(const char* data, uint64_t size):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
    cdef size_t first
    if size >= IN_HUGE_PAGES:
        # Touching fresh memory page by page costs more than the copy. Only a hint.
        first = (<size_t>PyBytes_AS_STRING(out) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)
        madvise(<void*>first, size - PAGE_BYTES, MADV_HUGEPAGE)
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
        return array_of(taken.data, taken.size, hold if c.flags & CHANNEL_VIEWS else None)
    if taken.form == FORM_ENCLOSED:
        # What is not in an extent is small, and copied as a whole.
        return loads_enclosed(memoryview(
            hold if hold is not None else PyByteArray_FromStringAndSize(taken.data, taken.size)))
    raise failure(CORRUPT, 0)


cdef object loads_enclosed(object message):
    """Unpickle; the buffers are views of the message, which lasts as long as they do."""
    cdef Py_buffer* whole = PyMemoryView_GET_BUFFER(message)
    cdef uint64_t size = whole.len, words = size // sizeof(uint64_t), count, at, i
    cdef const uint64_t* numbers = <const uint64_t*>whole.buf
    cdef list buffers = []
    if size % sizeof(uint64_t) or words < 2 or numbers[words - 1] > words - 2:
        raise failure(CORRUPT, 0)
    count = numbers[words - 1]
    at = numbers[words - 2]         # behind the pickle
    size -= (count + 2) * sizeof(uint64_t)
    if at > size:
        raise failure(CORRUPT, 0)
    numbers += words - 2 - count
    pickled = message[:at]
    for i in range(count):
        at = (at + 63) & ~<uint64_t>63
        if at > size or numbers[i] > size - at:
            raise failure(CORRUPT, 0)
        buffers.append(message[at:at + numbers[i]])
        at += numbers[i]
    return loads(pickled, buffers=buffers)


cdef int copy(char* to, const char* source, uint64_t size) except -1:
    if size < LONG_COPY:
        memcpy(to, source, size)
    else:
        with nogil:
            memcpy(to, source, size)
    return 0
