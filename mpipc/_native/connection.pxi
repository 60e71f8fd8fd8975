# The ends of channels: what Connection, Queue and SimpleQueue call.

cdef uint64_t LONG_COPY = 64 << 10      # copies from here on let other threads run


# In a pipe, a message above this holds its sender until somebody takes it, as each that overfills
# the kernel's buffers does with stock. Between a pipe's capacity and this, going on is faster.
cdef uint64_t HOLDING = 8 << 20


cdef int sleep_for_room(Chan* c, Door door, uint64_t size, int64_t deadline) except -100:
    """For a slice at most: OK (look again), PAUSED, TIMED_OUT or HUNG_UP."""
    cdef int r
    with nogil:
        r = wait_room(c, &door.bell, size, door.bell.read_fd < 0, deadline)
    if r == PAUSED:
        PyErr_CheckSignals()
    elif r == TIMED_OUT or r == HUNG_UP:
        return r
    elif r != OK:
        raise failure(r, size)
    return HUNG_UP if door.bell.write_fd < 0 else r


cdef int send_message(Chan* c, Door door, const Message* message, int64_t deadline) except -100:
    """OK, TIMED_OUT or HUNG_UP. `deadline` 0: do not wait."""
    cdef uint64_t size = message.size
    cdef uint32_t page = 0
    cdef int r
    cdef bint patient = False
    try:
        while True:
            if patient:
                with nogil:
                    r = put_message(c, &door.bell, message, &page, True)
            else:
                r = put_message(c, &door.bell, message, &page, False)
            if r == OK:
                page = 0
                if size > HOLDING and c.maxbytes and deadline:
                    r = PAUSED
                    while r == PAUSED:
                        r = sleep_for_room(c, door, 0, deadline)
                    return r
                if load64(&c.h.backlog) > LONG_BACKLOG:
                    with nogil:
                        let_takers_catch_up(c)
                return OK
            elif r == BUSY:
                patient = True
            elif r == COPY:
                if size < LONG_COPY:
                    gather(payload(c, page), message)
                    kill_point("put: extent filled, not yet linked")
                else:
                    with nogil:
                        gather(payload(c, page), message)
                        kill_point("put: large extent filled, not yet linked")
            elif r == WOULD_BLOCK:
                if deadline == 0:
                    return TIMED_OUT
                r = sleep_for_room(c, door, size, deadline)
                if r == TIMED_OUT or r == HUNG_UP:
                    return r
            else:
                raise failure(r, size)
    finally:
        if page:
            with nogil:
                put_abandon(c, &door.bell, page)


cdef bint last_look(Chan* c, Door door) noexcept:
    """Whether the dead have left a message where there seemed to be none."""
    cdef uint32_t found = 0
    if c.flags & CHANNEL_REDELIVER:
        with nogil:
            found = look_for_dead(c, &door.bell, True)
    return found != 0


cdef int receive(Chan* c, Door door, char* buffer, Taken* out, int64_t deadline) except -100:
    """OK, TIMED_OUT or HUNG_UP. `deadline` 0: do not wait."""
    cdef int r
    cdef bint patient = False, again = False
    while True:
        if c.flags & CHANNEL_REDELIVER:
            with nogil:
                look_for_dead(c, &door.bell, False)
        if patient:
            with nogil:
                r = take_message(c, &door.bell, buffer, out, True)
        else:
            r = take_message(c, &door.bell, buffer, out, False)
        if r == OK:
            return OK
        elif r == BUSY:
            patient = True
        elif r == WOULD_BLOCK:
            if deadline == 0:
                if last_look(c, door):
                    continue
                return TIMED_OUT
            if door.bell.read_fd < 0:       # closed by another thread or a signal handler
                return HUNG_UP
            with nogil:
                r = wait_message(c, &door.bell, deadline, again)
            again = r == PAUSED
            if again:
                PyErr_CheckSignals()
            elif r == TIMED_OUT or r == HUNG_UP:
                if not last_look(c, door):
                    return r
            elif r != OK:
                raise failure(r, 0)
        elif r != SHUT or not last_look(c, door):
            raise failure(r, 0)


cdef bint await_message(Chan* c, Door door, int64_t deadline) except -1:
    """Whether a message, or the end of all messages, is there by then."""
    cdef int r
    cdef bint again = False
    repair(c, &door.bell)
    while not waiting(c):
        if door.bell.read_fd < 0:
            raise OSError("handle is closed")
        if door.bell.write_fd < 0 and hung_up(door.bell.read_fd):
            return True
        if deadline == 0:
            return last_look(c, door)
        if c.flags & CHANNEL_REDELIVER:
            with nogil:
                look_for_dead(c, &door.bell, False)
        if c.h.shut:
            return True
        with nogil:
            r = wait_message(c, &door.bell, deadline, again)
        again = r == PAUSED
        if r == OK:
            with nogil:
                pass_on(c, &door.bell)
        elif r == HUNG_UP:
            return True
        elif r == TIMED_OUT:
            return waiting(c) != 0 or last_look(c, door)
        elif r == PAUSED:
            PyErr_CheckSignals()
        else:
            raise failure(r, 0)
    return True


cdef class ConnectionCore:
    """One end of a pipe, or the reading or writing end of a queue.

    Stands before ``multiprocessing.connection.Connection`` in the order of bases and answers all
    that does I/O there.
    """

    cdef readonly ChannelSegment segment
    cdef Chan* rx
    cdef Chan* tx
    cdef int rx_index
    cdef int tx_index
    cdef Door inward
    cdef Door outward
    cdef int fd
    cdef public bint _readable
    cdef public bint _writable
    cdef bint reset_told

    def __cinit__(self):
        self.fd = -1

    def __init__(self, *args, **kwargs):
        raise TypeError("connections are made by a context's Pipe()")

    cdef int attach(self, ChannelSegment segment, int rx, int tx, int fd) except -1:
        self.segment = segment
        self.rx_index = rx
        self.tx_index = tx
        self.fd = fd
        self._readable = rx >= 0
        self._writable = tx >= 0
        self.inward = Door()
        self.inward.bell.read_fd = fd
        self.outward = Door()
        self.outward.bell.write_fd = fd
        return 0

    def __del__(self):
        if self.fd >= 0:
            self.close()

    def __dealloc__(self):
        if self.fd >= 0:        # a subclass has a __del__ of its own
            close(self.fd)

    cdef Chan* reading(self) except NULL:
        if self.fd < 0:
            raise OSError("handle is closed")
        if not self._readable:
            raise OSError("connection is write-only")
        if self.rx == NULL:
            self.rx = self.segment.open(self.rx_index)
        return self.rx

    cdef Chan* writing(self) except NULL:
        if self.fd < 0:
            raise OSError("handle is closed")
        if not self._writable:
            raise OSError("connection is read-only")
        if self.tx == NULL:
            self.tx = self.segment.open(self.tx_index)
        return self.tx

    @property
    def _handle(self):
        return self.fd if self.fd >= 0 else None

    @property
    def closed(self):
        """True if the connection is closed"""
        return self.fd < 0

    def fileno(self):
        """The descriptor: readable for select() and its kind exactly while a message waits."""
        if self.fd < 0:
            raise OSError("handle is closed")
        cdef int r
        cdef Chan* c
        cdef ChannelSegment segment     # outlives a close() by another thread
        if self._readable:
            c = self.reading()
            segment = self.segment
            with nogil:
                r = channel_expose(c, &self.inward.bell)
            if r != OK:
                raise failure(r, 0)
        return self.fd

    def close(self):
        """Close the connection"""
        global closings
        cdef int fd = self.fd
        cdef ChannelSegment segment = self.segment
        if fd < 0:
            return
        self.fd = -1
        self.segment = None
        self.inward.bell.read_fd = -1
        self.outward.bell.write_fd = -1
        closings += 1
        close(fd)
        if self.rx != NULL:
            wake_all(self.rx)
        if self.tx != NULL:
            wake_all(self.tx)
        self.rx = NULL
        self.tx = NULL

    _close = close

    cdef int send_all(self, const Message* message) except -1:
        cdef Chan* c = self.writing()
        cdef ChannelSegment segment = self.segment      # outlives a close() by another thread
        if (self.outward.reader_gone()
                or send_message(c, self.outward, message, NEVER) == HUNG_UP):
            if self.fd < 0:
                raise OSError("handle is closed")
            raise BrokenPipeError(EPIPE, os_strerror(EPIPE))
        return 0

    cdef int take(self, Chan* c, ChannelSegment segment, char* buffer, Taken* out) except -1:
        if receive(c, self.inward, buffer, out, NEVER) == HUNG_UP:
            if self.fd < 0:
                raise OSError("handle is closed")
            if self._writable and not self.reset_told:
                if self.tx == NULL:
                    self.tx = segment.open(self.tx_index)
                if waiting(self.tx):
                    # A socket whose peer closed with data unread is reset, once.
                    self.reset_told = True
                    raise ConnectionResetError(ECONNRESET, os_strerror(ECONNRESET))
            raise EOFError
        return 0

    def send_bytes(self, buf, offset=0, size=None):
        """Send the bytes data from a bytes-like object"""
        cdef Py_buffer view
        cdef Piece piece
        cdef Message message
        cdef Py_ssize_t start, n
        self.writing()
        PyObject_GetBuffer(buf, &view, PyBUF_ANY_CONTIGUOUS)
        try:
            start = offset
            if start < 0:
                raise ValueError("offset is negative")
            if view.len < start:
                raise ValueError("buffer length < offset")
            if size is None:
                n = view.len - start
            else:
                n = size
                if n < 0:
                    raise ValueError("size is negative")
                if n > view.len - start:
                    raise ValueError("buffer length < offset + size")
            piece.data = <const char*>view.buf + start
            piece.size = n
            message.pieces = &piece
            message.count = 1
            message.form = FORM_PICKLE
            message.size = n
            message.page = 0
            self.send_all(&message)
        finally:
            PyBuffer_Release(&view)

    _send_bytes = send_bytes

    @cython.always_allow_keywords(True)
    def send(self, obj):
        """Send a (picklable) object"""
        cdef Chan* c = self.writing()
        cdef Draft draft
        cdef Codec codec = encode(obj, &draft, c.flags & CHANNEL_VIEWS)
        try:
            self.send_all(&draft.message)
        finally:
            release(codec)

    def recv(self):
        """Receive a (picklable) object"""
        cdef char buffer[4096]
        cdef Taken taken
        cdef Chan* c = self.reading()
        cdef ChannelSegment segment = self.segment      # outlives a close() by another thread
        self.take(c, segment, buffer, &taken)
        return decode(segment, c, self.inward, &taken)

    def recv_bytes(self, maxlength=None):
        """
        Receive bytes data as a bytes object.
        """
        cdef char buffer[4096]
        cdef Taken taken
        cdef Py_ssize_t most = -1
        cdef Chan* c = self.reading()
        cdef ChannelSegment segment = self.segment
        if maxlength is not None:
            most = maxlength
            if most < 0:
                raise ValueError("negative maxlength")
        self.take(c, segment, buffer, &taken)
        out = as_bytes(segment, c, self.inward, &taken)
        if most >= 0 and len(out) > most:
            # Stock cannot go on in mid-message: it gives up the reading side.
            if self._writable:
                self._readable = False
            else:
                self.close()
            raise OSError("bad message length")
        return out

    def recv_bytes_into(self, buf, offset=0):
        """
        Receive bytes data into a writeable bytes-like object.
        Return the number of bytes read.
        """
        cdef char buffer[4096]
        cdef Taken taken
        cdef Py_buffer view
        cdef Py_ssize_t start
        cdef Chan* c = self.reading()
        cdef ChannelSegment segment = self.segment
        cdef Lease hold = None
        cdef bytes message
        PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
        try:
            start = offset
            if start < 0:
                raise ValueError("negative offset")
            if start > view.len:
                raise ValueError("offset too large")
            self.take(c, segment, buffer, &taken)
            if taken.form != FORM_PICKLE or <uint64_t>(view.len - start) < taken.size:
                message = as_bytes(segment, c, self.inward, &taken)
                if view.len - start < len(message):
                    raise BufferTooShort(message)
                memcpy(<char*>view.buf + start, PyBytes_AS_STRING(message), len(message))
                return len(message)
            if taken.page:
                hold = lease(segment, c, self.inward, &taken)
            copy(<char*>view.buf + start, taken.data, taken.size)
            return taken.size
        finally:
            PyBuffer_Release(&view)

    def poll(self, timeout=0.0):
        """Whether there is any input available to be read"""
        cdef Chan* c = self.reading()
        cdef ChannelSegment segment = self.segment
        return await_message(c, self.inward, deadline_of(timeout))

    _poll = poll

    def __reduce__(self):
        if self.fd < 0:
            raise OSError("handle is closed")
        return _rebuild_connection, (type(self), self.segment, self.rx_index, self.tx_index,
                                     dup_fd(self.fd), self._readable, self._writable)


def _rebuild_connection(cls, ChannelSegment segment, int rx, int tx, dup, readable, writable):
    cdef ConnectionCore self = <ConnectionCore?>cls.__new__(cls)
    cdef int fd = dup.detach()
    self.attach(segment, rx, tx, fd)
    inherit_no_further(fd)
    self._readable = readable
    self._writable = writable
    return self


cdef tuple connect(cls, ChannelSegment segment, tuple first, tuple second):
    """Two connections of class `cls` on the ends of a socket pair; each (rx, tx) or -1."""
    cdef int fds[2]
    cdef ConnectionCore a = <ConnectionCore?>cls.__new__(cls)
    cdef ConnectionCore b = <ConnectionCore?>cls.__new__(cls)
    if socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0:
        raise OSError(errno, os_strerror(errno))
    a.attach(segment, first[0], first[1], fds[0])
    b.attach(segment, second[0], second[1], fds[1])
    return a, b


def open_pipe(cls, bint duplex, uint64_t capacity, uint64_t max_bytes, bint views=False):
    """Make a pipe.

    Parameters
    ----------
    cls : type
        Of the connections; a subclass of ConnectionCore.
    duplex : bool
        Whether both ends read and write; else the first reads and the second writes.
    capacity : int
        Bytes that may wait in one direction before a sender blocks. A longer message waits alone.
    max_bytes : int
        Cap on the memory of one direction; 0 for none.
    views : bool
        Whether receivers look into large buffers where they lie, instead of copying them.

    Returns
    -------
    tuple
        The two connections.
    """
    cdef uint32_t flags = CHANNEL_WAITS_ON_FD | (CHANNEL_VIEWS if views else 0)
    cdef ChannelSegment segment = new_channels(b"mpipc-pipe", flags, 0, capacity, max_bytes)
    if duplex:
        return connect(cls, segment, (1, 0), (0, 1))
    return connect(cls, segment, (0, -1), (-1, 0))


def open_queue(cls, uint32_t maxsize, uint64_t capacity, uint64_t max_bytes, bint joinable=False,
               bint redeliver=False, bint views=False):
    """Make the channel of a queue: its reading and its writing end, see open_pipe().

    `maxsize` is in messages, 0 for unbounded; `joinable` that it notes who takes them; `redeliver`
    that it keeps them until they are done, for others should their takers die.
    """
    if redeliver and views:
        raise ValueError("redeliver=True keeps a message until task_done(), and views=True until "
                         "its views are gone: a queue can have one of them")
    cdef uint32_t flags = ((CHANNEL_JOINABLE if joinable or redeliver else 0)
                           | (CHANNEL_REDELIVER if redeliver else 0)
                           | (CHANNEL_VIEWS if views else 0))
    cdef ChannelSegment segment = new_channels(b"mpipc-queue", flags, maxsize, capacity, max_bytes)
    return connect(cls, segment, (0, -1), (-1, 0))


# What Queue, JoinableQueue and SimpleQueue do with their channel.

cdef class QueueEnds:
    """Both ends of a queue's channel."""

    cdef readonly ChannelSegment segment
    cdef Chan* c
    cdef Door door
    cdef object failed          # what get_many() could not unpickle, if that is still to be told
    cdef readonly ConnectionCore _reader
    cdef readonly ConnectionCore _writer
    cdef bint views

    def _attach(self, ConnectionCore reader, ConnectionCore writer):
        """Both ends open here share one doorbell, so that each knows of the other."""
        self._reader = reader
        self._writer = writer
        self.door = reader.inward
        self.door.bell.write_fd = writer.fd
        writer.outward = self.door
        self.segment = writer.segment
        self.views = self.segment.chan[0].flags & CHANNEL_VIEWS

    cdef Chan* channel(self) except NULL:
        if self.c == NULL:
            self.c = self.segment.open(0)
        return self.c

    cdef int append(self, const Message* message, int64_t deadline) except -100:
        """OK or TIMED_OUT."""
        cdef Chan* c = self.channel()
        cdef int r = HUNG_UP
        if self.door.bell.write_fd < 0:
            raise OSError("handle is closed")
        if not self.door.reader_gone():
            r = send_message(c, self.door, message, deadline)
        if r == HUNG_UP:
            if self.door.bell.write_fd < 0:
                raise OSError("handle is closed")
            raise BrokenPipeError(EPIPE, os_strerror(EPIPE))
        return r

    cdef object take(self, int64_t deadline, uint64_t* size=NULL):
        """The oldest item; its bytes are added to `size`."""
        cdef char buffer[4096]
        cdef Taken taken
        cdef Chan* c = self.channel()
        cdef int r = HUNG_UP
        if self.door.bell.read_fd >= 0:
            r = receive(c, self.door, buffer, &taken, deadline)
        if r == OK:
            if size != NULL:
                size[0] += taken.size
            return decode(self.segment, c, self.door, &taken)
        if r == TIMED_OUT:
            raise Empty
        if self.door.bell.read_fd < 0:
            raise OSError("handle is closed")
        raise EOFError

    cdef list take_many(self, Py_ssize_t most, int64_t deadline):
        """Wait for an item, take what else is there."""
        if most < 1:
            raise ValueError(f"max must be at least 1, got {most}")
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed
        cdef list items = [self.take(deadline)]
        while len(items) < most and waiting(self.c):
            try:
                items.append(self.take(0))
            except Empty:
                break
            except Exception as error:
                self.failed = error
                break
        return items


cdef uint32_t LONGEST_RUN = 32
cdef int AT_END = 100
cdef int UNPICKLABLE = 101


cdef class SimpleQueueCore(QueueEnds):

    cdef object held        # what _put_some() has drawn and not yet put
    cdef object error       # why it cannot

    @cython.always_allow_keywords(True)
    def put(self, obj):
        """Pickle `obj` and append it; waits while the queue holds as much as it may."""
        cdef Draft draft
        cdef Codec codec = encode(obj, &draft, self.views)
        try:
            self.append(&draft.message, NEVER)
        finally:
            release(codec)

    def get(self):
        """Take and return the oldest item; waits for one."""
        return self.take(NEVER)

    @cython.always_allow_keywords(True)
    def put_many(self, iterable):
        """put() each item, in order; those of other producers may come between."""
        for obj in iterable:
            self.put(obj)

    @cython.always_allow_keywords(True)
    def get_many(self, max):
        """Wait for an item, then take all that wait; see ``Queue.get_many``."""
        return self.take_many(max, NEVER)

    # What a pool needs so that any thread may put its tasks and take its answers. A signal handler
    # that raises comes before or after each of them, never between drawing an item and putting it,
    # or between taking one and keeping it.

    def _put_some(self, items, dict numbers, uint32_t most):
        """Put items of an iterator until `most` items wait, or there is no room; never waits.

        An item is a tuple; its second element is the key in `numbers` for the item's number, see
        _claim(). One that cannot be pickled stays the next, see _held(), until _drop(). One thread
        at a time.

        Returns
        -------
        bool or Exception
            Whether the iterator is at its end, and all is put; or why an item cannot be pickled.
        """
        cdef Chan* c = self.channel()
        cdef uint32_t run = 1
        cdef int r = OK
        while r == OK:
            # The first at once, then ever more before anybody is woken for them.
            c.quiet = True
            try:
                r = self.put_run(items, numbers, most, run)
            finally:
                c.quiet = False
                with nogil:
                    wake_takers(c, &self.door.bell, COUNT_MASK)
            run = min(2 * run, LONGEST_RUN)
        if r == UNPICKLABLE:
            error, self.error = self.error, None
            return error
        return r == AT_END

    cdef int put_run(self, items, dict numbers, uint32_t most, uint32_t run) except -100:
        """OK, AT_END of the iterator, WOULD_BLOCK or UNPICKLABLE."""
        cdef Chan* c = self.channel()
        cdef Draft draft
        cdef Codec codec
        cdef uint32_t i
        for i in range(run):
            if self.held is None:
                if waiting(c) >= most:
                    return WOULD_BLOCK
                self.held = next(items, None)
                if self.held is None:
                    return AT_END
            try:
                codec = encode(self.held, &draft, self.views)
            except Exception as error:
                self.error = error
                return UNPICKLABLE
            try:
                numbers[self.held[1]] = number_of(load64_acquire(&c.h.tail))
                if self.append(&draft.message, 0) != OK:
                    return WOULD_BLOCK
            finally:
                release(codec)
            self.held = None
        return OK

    def _held(self):
        """The item that _put_some() has drawn and not put, or None."""
        return self.held

    def _drop(self):
        """Forget that item."""
        self.held = None

    def _take_some(self, list items, Py_ssize_t most, timeout=None):
        """Append up to `most` items that are there to `items`; wait for the first.

        Returns
        -------
        int
            How many; 0 after the timeout.
        """
        cdef Chan* c = self.channel()
        cdef Py_ssize_t n = 0
        cdef uint64_t size = 0
        cdef int64_t deadline = deadline_of(timeout)
        try:
            # Large ones are best used while they are in the cache.
            while n == 0 or n < most and size < LONG_COPY and waiting(c):
                items.append(self.take(0 if n else deadline, &size))
                n += 1
        except Empty:
            pass                # there is nothing, or another was faster
        return n

    def _next_number(self):
        """The number of the item that is put next, see _claim()."""
        return number_of(load64_acquire(&self.channel().h.tail))

    # What it needs to know which task a killed worker had.

    def _put_at_once(self, obj):
        """As put(), but the queue may hold more than it should: nobody is waited for."""
        cdef Chan* c = self.channel()
        cdef uint64_t limit = c.maxbytes
        c.maxbytes = 0
        try:
            self.put(obj)
        finally:
            c.maxbytes = limit

    def _claim(self, word):
        """Have each get() of this process note the number of its item in `word`, shared memory.

        Items are numbered from 1 to 2^28, and again from 1, as they were put. The number is there
        before the item leaves the queue, so a killed process may have noted one that another took.
        """
        cdef object view = memoryview(word)
        cdef Py_buffer* buffer = PyMemoryView_GET_BUFFER(view)
        if buffer.readonly or buffer.len < 8 or <size_t>buffer.buf % 8:
            raise ValueError(f"word must be 8 bytes, aligned and writable, not {word!r}")
        self.channel().claim = <uint64_t*>buffer.buf
        self.segment.claimed = view

    def _has_left(self, uint32_t number):
        """Whether the item of that number, put within the last 2^27, has been taken."""
        cdef uint64_t head = load64_acquire(&self.channel().h.head)
        return (<uint32_t>head - number) & COUNT_MASK <= COUNT_MASK >> 1


cdef class QueueCore(QueueEnds):

    cdef public bint _closed
    cdef public bint _ignore_epipe
    cdef readonly bint _used        # something was put from this process

    def put(self, obj, block=True, timeout=None):
        """Append `obj`.

        It is pickled here and now. What stock's feeder thread meets, pickling that fails or a
        reader that is gone, goes to ``_on_queue_feeder_error`` as it does there, and is not raised.

        Parameters
        ----------
        obj : object
            Anything picklable.
        block : bool
            Whether to wait for room in a bounded queue.
        timeout : float or None
            Seconds to wait at most; None for ever.

        Raises
        ------
        queue.Full
            There was no room in time.
        ValueError
            The queue is closed.
        MemoryError
            The machine has no memory left for the item.
        """
        self.put_until(obj, deadline_of(timeout) if block else 0)

    cdef int put_until(self, obj, int64_t deadline) except -1:
        cdef Draft draft
        cdef Codec codec
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        self._used = True
        if deadline == 0 and self.c != NULL and seems_full(self.c) and not self.c.h.shut:
            raise Full
        try:
            codec = encode(obj, &draft, self.views)
        except Exception as error:
            self._on_queue_feeder_error(error, obj)
            return 0
        try:
            if self.append(&draft.message, deadline) == TIMED_OUT:
                raise Full
        except OSError as error:
            if isinstance(error, SegmentCorrupt) or error.errno == ENOSYS:
                raise
            if not (self._ignore_epipe and error.errno == EPIPE):
                self._on_queue_feeder_error(error, obj)
        finally:
            release(codec)
        return 0

    def get(self, block=True, timeout=None):
        """Take and return the oldest item.

        Raises
        ------
        queue.Empty
            There was none in time.
        ValueError
            The queue is closed.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        return self.take(deadline_of(timeout) if block else 0)

    @cython.always_allow_keywords(True)
    def put_many(self, iterable):
        """put() each item, in order, waiting for room; those of other producers may come between.

        Each is in the queue by itself: who is killed has put the first of them, or all.
        """
        for obj in iterable:
            self.put_until(obj, NEVER)

    def get_many(self, max, timeout=None):
        """Wait for an item, then take all that wait, in order.

        Whoever is killed has lost those that it took. If one of them cannot be unpickled, it is the
        next call that raises, and those before it are returned.

        Parameters
        ----------
        max : int
            How many items to take at most.
        timeout : float or None
            Seconds to wait for the first at most; None for ever.

        Returns
        -------
        list
            One item at least.

        Raises
        ------
        queue.Empty
            There was none in time.
        ValueError
            The queue is closed, or `max` is below 1.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        return self.take_many(max, deadline_of(timeout))

    def shutdown(self, immediate=False):
        """Let nothing more be put, as ``queue.Queue.shutdown`` does from Python 3.13 on.

        ``put`` raises ShutDown from now on, ``get`` once the queue is empty; also in whoever waits
        there now, in all processes.

        Parameters
        ----------
        immediate : bool
            Throw away what waits; in a JoinableQueue these tasks are done.
        """
        cdef char buffer[4096]
        cdef Taken taken
        cdef Chan* c = self.channel()
        cdef int r
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        with nogil:
            r = channel_shut(c, &self.door.bell)
        if r != OK:
            raise failure(r, 0)
        while immediate:
            try:
                receive(c, self.door, buffer, &taken, 0)
            except ShutDown:
                return
            if taken.page:
                lease(self.segment, c, self.door, &taken)
            if c.flags & CHANNEL_JOINABLE:
                self._task_done()

    @property
    def is_shutdown(self):
        """Whether somebody has called shutdown()."""
        return self.channel().h.shut != 0

    @cython.always_allow_keywords(True)
    def put_nowait(self, obj):
        """put() without waiting"""
        self.put(obj, False)

    def get_nowait(self):
        """get() without waiting"""
        return self.get(False)

    def qsize(self):
        """How many items wait, exactly."""
        return waiting(self.channel())

    _qsize = qsize      # for a subclass that counts in its own way

    def full(self):
        """Whether a put would have to wait."""
        return seems_full(self.channel())

    def _task_done(self):
        """Count one task as done; False when there is none left to count."""
        cdef Chan* c = self.channel()
        cdef int r
        with nogil:
            r = task_finish(c, &self.door.bell)
        if r == OK or r == WOULD_BLOCK:
            return r == OK
        if r == NOT_OURS:
            raise ValueError("task_done() called too many times by this process: it has no "
                             "unfinished message from this queue; with redeliver=True only the "
                             "process that took a message can finish it")
        raise failure(r, 0)

    def _join_tasks(self):
        """Wait until every task that was put has been done.

        If a taker died, hands its messages to others, or raises OwnerDied.
        """
        cdef Chan* c = self.channel()
        cdef uint32_t dead = 0
        cdef uint64_t tasks = 0
        cdef int r
        while True:
            with nogil:
                r = wait_tasks(c)
            if r == OK:
                return
            PyErr_CheckSignals()
            if c.flags & CHANNEL_REDELIVER:
                with nogil:
                    look_for_dead(c, &self.door.bell, False)
                continue
            if not c.flags & CHANNEL_JOINABLE:
                continue
            with nogil:
                r = task_lost(c, &self.door.bell, &dead, &tasks)
            if r == OK:
                dead &= OWNER_PID
                raise OwnerDied(
                    f"process {dead} died with {tasks} task{'s' if tasks > 1 else ''} that it had "
                    "taken and not finished; put them again if they are to be done, and call "
                    "task_done() once for each that is lost", dead)
            if r != WOULD_BLOCK:
                raise failure(r, 0)

    def _leave_tasks(self):
        """At a normal end of the process: its tasks are no lost ones."""
        if self.c != NULL and self.c.flags & CHANNEL_JOINABLE:
            with nogil:
                tasks_leave(self.c, &self.door.bell)

    def _unfinished(self):
        """Tasks put and not yet done."""
        return unfinished(self.channel().h)
