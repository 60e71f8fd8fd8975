# Messages without a pickle: numbers, strings, small containers of them, and arrays of numbers.
#
# What arrives is what a pickle would bring. The C pickler asks no reducer for exact ints, strings,
# tuples and so on, so none is passed over here; for arrays it does, and so does codec.pxi. Nor does
# it make two objects of one that occurs twice: such a message is left to it.
#
# A FORM_VALUE is a tag and what belongs to it; numbers are in native order and not aligned:
#
#   N T F   None, True, False
#   i d     8 bytes: an int, a float
#   b       length (4 bytes), content: bytes
#   1 2 4   length, characters of so many bytes: a str
#   ( [     count (4 bytes), values: a tuple, a list
#   {       count, keys and values by turns: a dict

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        const char* tp_name
    PyTypeObject PyLong_Type, PyFloat_Type, PyBool_Type, PyUnicode_Type, PyBytes_Type
    PyTypeObject PyTuple_Type, PyList_Type, PyDict_Type
    PyObject* Py_None
    PyObject* Py_True
    PyTypeObject* Py_TYPE(PyObject*)
    int64_t PyLong_AsLongLongAndOverflow(PyObject*, int* overflow) noexcept
    double PyFloat_AS_DOUBLE(PyObject*)
    char* PyBytes_AS_STRING_ "PyBytes_AS_STRING"(PyObject*)
    Py_ssize_t PyBytes_GET_SIZE(PyObject*)
    int PyUnicode_KIND(PyObject*)
    void* PyUnicode_DATA(PyObject*)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject*)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    Py_ssize_t PyTuple_GET_SIZE(PyObject*)
    PyObject* PyList_GET_ITEM(PyObject*, Py_ssize_t)
    Py_ssize_t PyList_GET_SIZE(PyObject*)
    Py_ssize_t PyDict_Size_ "PyDict_Size"(PyObject*) noexcept
    bint PyDict_Next(PyObject*, Py_ssize_t*, PyObject**, PyObject**)
    object PyLong_FromLongLong(int64_t)
    object PyFloat_FromDouble(double)
    object PyUnicode_FromKindAndData(int, const void*, Py_ssize_t)
    tuple PyTuple_New(Py_ssize_t)
    void PyTuple_SET_ITEM(tuple, Py_ssize_t, object)    # steals
    list PyList_New(Py_ssize_t)
    void PyList_SET_ITEM(list, Py_ssize_t, object)      # steals

cdef enum:
    VALUE_BYTES = 1024      # of a value at most; more is left to the pickler
    VALUE_OBJECTS = 32      # strings and containers in it
    VALUE_DEPTH = 8         # containers in each other

ctypedef struct Draft:              # a message on its way out, and memory for it
    Message message
    Piece piece[2]
    array_header header
    char room[VALUE_BYTES]

ctypedef struct Writer:
    char* at
    char* end
    int count
    PyObject* seen[VALUE_OBJECTS]

ctypedef struct Reader:
    const char* at
    const char* end


cdef inline bint draft_piece(Draft* draft, uint32_t form, const char* data, uint64_t size) noexcept:
    draft.piece[0].data = data
    draft.piece[0].size = size
    draft.message.pieces = draft.piece
    draft.message.count = 1
    draft.message.page = 0
    draft.message.form = form
    draft.message.size = size
    return True


cdef inline bint draft_value(Draft* draft, PyObject* obj) noexcept:
    """Make a message of `obj` if that takes no pickle; it must outlive the draft."""
    cdef Writer w
    if Py_TYPE(obj) == &PyBytes_Type:
        return draft_piece(draft, FORM_BYTES, PyBytes_AS_STRING_(obj), PyBytes_GET_SIZE(obj))
    w.at = draft.room
    w.end = draft.room + VALUE_BYTES
    w.count = 0
    return (write_value(&w, obj, VALUE_DEPTH)
            and draft_piece(draft, FORM_VALUE, draft.room, w.at - draft.room))


cdef inline bint write_tagged(Writer* w, char tag, const void* data, Py_ssize_t size) noexcept:
    if w.end - w.at < 1 + size:
        return False
    w.at[0] = tag
    memcpy(w.at + 1, data, size)
    w.at += 1 + size
    return True


cdef inline bint write_counted(Writer* w, PyObject* obj, char tag, Py_ssize_t count,
                               Py_ssize_t size) noexcept:
    """The head of something that `size` bytes follow; False also if it was there before."""
    cdef uint32_t count32 = <uint32_t>count
    cdef int i
    if size > VALUE_BYTES or w.end - w.at < 5 + size or w.count == VALUE_OBJECTS:
        return False
    for i in range(w.count):
        if w.seen[i] == obj:
            return False
    # There is only one of these in a process, and so in the one that receives it.
    if count > 1 or count and tag != c"b" and tag != c"1" or tag == c"[" or tag == c"{":
        w.seen[w.count] = obj
        w.count += 1
    return write_tagged(w, tag, &count32, 4)


cdef bint write_value(Writer* w, PyObject* obj, int depth) noexcept:
    """Whether `obj` could be written; what is behind `w.at` if not does not matter."""
    cdef PyTypeObject* type_ = Py_TYPE(obj)
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t count, i = 0
    cdef int64_t number
    cdef double real
    cdef int kind = 0
    if type_ == &PyLong_Type:
        number = PyLong_AsLongLongAndOverflow(obj, &kind)
        return not kind and write_tagged(w, c"i", &number, 8)
    if type_ == &PyUnicode_Type:
        kind = PyUnicode_KIND(obj)
        count = PyUnicode_GET_LENGTH(obj) if kind else 0    # 0: of a kind that ended with 3.12
        if not kind or not write_counted(w, obj, c"0" + kind, count, count * kind):
            return False
        memcpy(w.at, PyUnicode_DATA(obj), count * kind)
        w.at += count * kind
        return True
    if type_ == &PyFloat_Type:
        real = PyFloat_AS_DOUBLE(obj)
        return write_tagged(w, c"d", &real, 8)
    if obj == Py_None:
        return write_tagged(w, c"N", &obj, 0)
    if type_ == &PyBool_Type:
        return write_tagged(w, c"T" if obj == Py_True else c"F", &obj, 0)
    if type_ == &PyBytes_Type:
        count = PyBytes_GET_SIZE(obj)
        if not write_counted(w, obj, c"b", count, count):
            return False
        memcpy(w.at, PyBytes_AS_STRING_(obj), count)
        w.at += count
        return True
    if depth == 0:
        return False
    if type_ == &PyTuple_Type:
        count = PyTuple_GET_SIZE(obj)
        if not write_counted(w, obj, c"(", count, count):
            return False
        while i < count and write_value(w, PyTuple_GET_ITEM(obj, i), depth - 1):
            i += 1
        return i == count
    if type_ == &PyDict_Type:
        count = PyDict_Size_(obj)
        if not write_counted(w, obj, c"{", count, count):
            return False
        while PyDict_Next(obj, &i, &key, &value):
            if not write_value(w, key, depth - 1) or not write_value(w, value, depth - 1):
                return False
        return True
    if type_ == &PyList_Type:
        count = PyList_GET_SIZE(obj)
        if not write_counted(w, obj, c"[", count, count):
            return False
        while i < count and write_value(w, PyList_GET_ITEM(obj, i), depth - 1):
            i += 1
        return i == count
    return False


cdef const char* read_raw(Reader* r, Py_ssize_t size) except NULL:
    cdef const char* at = r.at
    if r.end - at < size:
        raise failure(CORRUPT, 0)
    r.at += size
    return at


cdef object read_wide(Reader* r, int kind, Py_ssize_t count):
    """A str of characters that want to be aligned."""
    cdef uint32_t aligned[256]      # VALUE_BYTES
    if count > VALUE_BYTES // kind:
        raise failure(CORRUPT, 0)
    memcpy(aligned, read_raw(r, count * kind), count * kind)
    return PyUnicode_FromKindAndData(kind, aligned, count)


cdef object read_value(Reader* r, int depth):
    cdef char tag = read_raw(r, 1)[0]
    cdef Py_ssize_t i
    cdef int64_t number
    cdef double real
    cdef uint32_t count
    if tag == c"i":
        memcpy(&number, read_raw(r, 8), 8)
        return PyLong_FromLongLong(number)
    if tag == c"d":
        memcpy(&real, read_raw(r, 8), 8)
        return PyFloat_FromDouble(real)
    if tag == c"N":
        return None
    if tag == c"T":
        return True
    if tag == c"F":
        return False
    memcpy(&count, read_raw(r, 4), 4)
    if r.end - r.at < count:            # each item takes a byte at least
        raise failure(CORRUPT, 0)
    if tag == c"1":
        return PyUnicode_FromKindAndData(1, read_raw(r, count), count)
    if tag == c"b":
        return PyBytes_FromStringAndSize(read_raw(r, count), count)
    if tag == c"2" or tag == c"4":
        return read_wide(r, tag - c"0", count)
    if depth and tag == c"(":
        return read_tuple(r, count, depth - 1)
    if depth and tag == c"{":
        return read_dict(r, count, depth - 1)
    if depth and tag == c"[":
        return read_list(r, count, depth - 1)
    raise failure(CORRUPT, 0)


cdef tuple read_tuple(Reader* r, Py_ssize_t count, int depth):
    cdef tuple result = PyTuple_New(count)
    cdef Py_ssize_t i
    for i in range(count):
        item = read_value(r, depth)
        Py_INCREF(item)
        PyTuple_SET_ITEM(result, i, item)
    return result


cdef list read_list(Reader* r, Py_ssize_t count, int depth):
    cdef list result = PyList_New(count)
    cdef Py_ssize_t i
    for i in range(count):
        item = read_value(r, depth)
        Py_INCREF(item)
        PyList_SET_ITEM(result, i, item)
    return result


cdef dict read_dict(Reader* r, Py_ssize_t count, int depth):
    cdef dict result = {}
    cdef Py_ssize_t i
    for i in range(count):
        key = read_value(r, depth)
        result[key] = read_value(r, depth)
    return result


cdef object value_of(const char* data, uint64_t size):
    """What draft_value() wrote."""
    cdef Reader r
    r.at = data
    r.end = data + size
    result = read_value(&r, VALUE_DEPTH)
    if r.at != r.end:
        raise failure(CORRUPT, 0)
    return result


# --- arrays -------------------------------------------------------------------------------------
# Of NumPy's own types of numbers, in native byte order, contiguous and writable: then type, order
# and shape are all that there is to know. Who has no array in its hands does not import NumPy.

cdef PyObject* array_class = NULL       # numpy.ndarray
cdef object new_array                   # numpy.empty
cdef const char* ARRAY_TYPES = b"dfBliDbhHIL?eFgG"     # numpy.dtype()'s characters for them
cdef list array_dtypes                  # what that makes of them, in the same order


cdef int meet_numpy() except -1:
    global array_class, new_array, array_dtypes
    import numpy
    array_dtypes = [numpy.dtype(chr(character)) for character in ARRAY_TYPES]
    new_array = numpy.empty
    array_class = <PyObject*>numpy.ndarray      # NumPy cannot be unloaded
    return 0


cdef bint is_array_class(PyTypeObject* type_) except -1:
    if array_class == NULL:
        if strcmp(type_.tp_name, b"numpy.ndarray") != 0:
            return False
        meet_numpy()
    return <PyObject*>type_ == array_class


cdef object array_layout(shape, dtype):
    """An array that takes up no memory, of a shape and type of those that need no pickle."""
    import numpy
    if array_class == NULL:
        meet_numpy()
    dtype = numpy.dtype(dtype)
    if not any(dtype is known for known in array_dtypes):
        raise TypeError(f"an array that is sent without a copy has numbers in native byte order, "
                        f"not {dtype!r}")
    layout = numpy.broadcast_to(numpy.empty((), dtype), shape)
    if layout.ndim > ARRAY_DIMENSIONS:
        raise ValueError(f"an array that is sent without a copy has at most {ARRAY_DIMENSIONS} "
                         f"dimensions, not {layout.ndim}")
    return layout


cdef bint draft_array(Draft* draft, array, const Py_buffer* view) except -1:
    """Make a message of an array, if it is one of those that need no pickle."""
    cdef array_header* header = &draft.header
    cdef int i, character = 0
    dtype = array.dtype
    for i in range(len(array_dtypes)):
        if array_dtypes[i] is dtype:
            character = ARRAY_TYPES[i]
            break
    if not character or view.readonly or view.ndim > ARRAY_DIMENSIONS:
        return False
    if PyBuffer_IsContiguous(view, c"C"):
        header.order = c"C"
    elif PyBuffer_IsContiguous(view, c"F"):
        header.order = c"F"
    else:
        return False
    header.type = character
    header.dimensions = view.ndim
    header.pad = 0
    for i in range(ARRAY_DIMENSIONS):
        header.shape[i] = view.shape[i] if i < view.ndim else 0
    draft_piece(draft, FORM_ARRAY, <const char*>header, sizeof(array_header))
    draft.piece[1].data = <const char*>view.buf
    draft.piece[1].size = view.len
    draft.message.count = 2
    draft.message.size += view.len
    lies_in(array.base, &draft.message)
    return True


cdef object array_of(const char* data, uint64_t size, Lease hold):
    """What draft_array() described: an array that looks into `hold`, or a new one."""
    cdef const array_header* header = <const array_header*>data
    cdef const char* known
    cdef Py_buffer view
    cdef int i
    if array_class == NULL:
        meet_numpy()
    if size < sizeof(array_header) or header.dimensions > ARRAY_DIMENSIONS:
        raise failure(CORRUPT, 0)
    known = strchr(ARRAY_TYPES, header.type)
    if not header.type or known == NULL or header.order != c"C" and header.order != c"F":
        raise failure(CORRUPT, 0)
    dtype = array_dtypes[known - ARRAY_TYPES]
    cdef tuple shape = PyTuple_New(header.dimensions)
    cdef object items = dtype.itemsize
    for i in range(header.dimensions):
        length = PyLong_FromLongLong(header.shape[i])
        items *= length
        Py_INCREF(length)
        PyTuple_SET_ITEM(shape, i, length)
    size -= sizeof(array_header)
    if items != size:
        raise failure(CORRUPT, 0)
    if hold is not None:
        return (<object>array_class)(shape, dtype, hold, sizeof(array_header), None,
                                     "C" if header.order == c"C" else "F")
    array = new_array(shape, dtype, "C" if header.order == c"C" else "F")
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES | PyBUF_WRITABLE)
    try:
        copy(<char*>view.buf, data + sizeof(array_header), size)
    finally:
        PyBuffer_Release(&view)
    return array
