# Arrays that are allocated where they will be sent from, see lease.pxi for how they are held.


def empty_array(to, shape, dtype):
    """Allocate an array of numbers in the memory of a queue or pipe.

    Parameters
    ----------
    to : QueueEnds or ConnectionCore
        The queue, or the sending end, for which it is.
    shape : int or tuple of int
        See ``numpy.empty``.
    dtype : numpy.dtype or what makes one
        Numbers in native byte order.

    Returns
    -------
    numpy.ndarray
        In C order, with whatever lies there. Sent to where it is for, it is not copied.

    Raises
    ------
    TypeError
        Of another kind of elements, or for something that is no queue or connection.
    ValueError
        A negative or too many dimensions; a queue that redelivers.
    MemoryError
        There is no memory, or max_bytes does not allow it.
    """
    cdef Chan* c
    cdef Door door
    cdef ChannelSegment segment
    cdef Taken taken
    cdef int r
    if isinstance(to, QueueCore) and (<QueueCore>to)._closed:
        raise ValueError(f"Queue {to!r} is closed")
    if isinstance(to, QueueEnds):
        c = (<QueueEnds>to).channel()
        door = (<QueueEnds>to).door
        segment = (<QueueEnds>to).segment
    elif isinstance(to, ConnectionCore):
        c = (<ConnectionCore>to).writing()
        door = (<ConnectionCore>to).outward
        segment = (<ConnectionCore>to).segment
    else:
        raise TypeError(f"to must be a queue or connection of mpipc-shm, not {to!r}")
    if c.flags & CHANNEL_REDELIVER:
        raise ValueError("a queue with redeliver=True keeps each message apart until task_done(); "
                         "arrays for it are allocated with numpy.empty()")
    layout = array_layout(shape, dtype)
    taken.size = sizeof(array_header) + <uint64_t>layout.nbytes
    taken.form = FORM_ARRAY
    taken.page = 0
    if taken.size >> PAGE_SHIFT >= c.maxpages:
        raise failure(NO_MEMORY, taken.size)
    with nogil:
        r = channel_lock(c, &door.bell, True)
        if r == OK:
            r = extent_alloc(c, pages_for(taken.size), me(), &taken.page)
            channel_unlock(c)
    if r != OK:
        raise failure(r, taken.size)
    taken.data = payload(c, taken.page)
    return (<object>array_class)(layout.shape, layout.dtype, allotted(segment, c, door, &taken),
                                 sizeof(array_header))
