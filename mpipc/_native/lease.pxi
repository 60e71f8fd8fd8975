# Taken messages that are still read where they lie, and what a fork makes of them.
#
# A process holds such an extent by its owner tag, so that it is found and freed should the process
# be killed. A forked child has the same memory before its eyes, and may look at it when its parent
# is done: it must hold the extent too, before its parent can be. So a process that forks meanwhile
# waits, inside fork(), until its child has written itself down as an heir; or has died, which is
# seen by the end of a pipe.

# One extent that this process reads. Walked by fork handlers, which may touch no Python object.
ctypedef struct Hold:
    Chan* c
    Bell* bell
    uint32_t page
    bint for_ever           # we could not hold it properly: never freed by us
    bint allotted           # the extent was allotted here, to be filled and sent
    Hold* before
    Hold* after

cdef Hold* holds = NULL     # all there are; changed under the GIL
cdef int allotments = 0     # ... of them, of allotted extents
cdef int birth[2]           # the pipe, while we fork and hold something
birth[0] = birth[1] = -1


cdef void hold_for_ever(Hold* hold) noexcept nogil:
    hold.for_ever = True
    if channel_lock(hold.c, hold.bell, True) == OK:
        if tiles(hold.c, hold.page):
            extent_keep(extent_at(hold.c, hold.page))
        channel_unlock(hold.c)


cdef void before_fork() noexcept nogil:
    cdef Hold* hold = holds
    fork_begins()
    if hold == NULL or pipe2(birth, O_CLOEXEC) == 0:
        return
    birth[0] = birth[1] = -1            # no descriptor left: their memory goes with the channel
    while hold != NULL:
        if not hold.for_ever:
            hold_for_ever(hold)
        hold = hold.after


cdef void after_fork_in_parent() noexcept nogil:
    cdef char byte
    if birth[0] < 0:
        return
    close(birth[1])
    while read(birth[0], &byte, 1) < 0 and errno == EINTR:
        pass
    close(birth[0])
    birth[0] = birth[1] = -1


cdef void after_fork_in_child() noexcept nogil:
    cdef uint32_t parent = self_owner
    cdef Hold* hold = holds
    fork_made()
    if birth[0] < 0:
        return
    close(birth[0])
    while hold != NULL:
        if not hold.for_ever:
            inherit(hold, parent)
        hold = hold.after
    close(birth[1])
    birth[0] = birth[1] = -1


cdef char* LOST = b"mpipc: killed while being forked, for shared memory in use could not be kept\n"


cdef void inherit(Hold* hold, uint32_t parent) noexcept nogil:
    """Hold what the parent holds, which waits for us. Killed before: it was never more than his."""
    cdef int r
    kill_point("fork: about to inherit")
    r = channel_lock(hold.c, hold.bell, True)
    if r == OK:
        if not tiles(hold.c, hold.page):
            r = CORRUPT
        elif not extent_inherit(extent_at(hold.c, hold.page), parent, me()):
            r = UNUSABLE
        channel_unlock(hold.c)
    if r == CORRUPT:
        hold.for_ever = True
    elif r != OK:
        # The parent was killed meanwhile, and others already write what we would read; or there is
        # no memory to map the channel. Either way there is no child that could go on.
        write(2, LOST, strlen(LOST))
        kill(getpid(), SIGKILL)
        _exit(128 + SIGKILL)        # where a filter forbids even that


cdef bint held_elsewhere(const Hold* hold) noexcept:
    """Whether this process looks into the extent twice: as who sent it, and as who took it."""
    cdef const Hold* other = holds
    while other != NULL:
        if other != hold and other.c == hold.c and other.page == hold.page:
            return True
        other = other.after
    return False


@cython.no_gc_clear
@cython.final
cdef class Lease:
    """A message that lies in its extent, taken or yet to be sent.

    The extent is free again when this is gone, and who else looks into it. Exports the message as a
    writable buffer.
    """

    cdef ChannelSegment segment
    cdef Door door
    cdef Taken taken
    cdef Hold hold

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.taken.data, self.taken.size, 0, flags)

    def __dealloc__(self):
        global holds, allotments
        cdef Hold* hold = &self.hold
        cdef bint last
        if self.segment is None:
            return
        last = allotments == 0 or not held_elsewhere(hold)
        if hold.before != NULL:
            hold.before.after = hold.after
        else:
            holds = hold.after
        if hold.after != NULL:
            hold.after.before = hold.before
        allotments -= hold.allotted
        if not hold.for_ever:
            with nogil:
                if last:
                    take_done(hold.c, hold.bell, hold.page)
                else:
                    take_back(hold.c, hold.bell, hold.page)


cdef Lease lease(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    global holds, allotments
    cdef Lease self = Lease.__new__(Lease)
    self.segment = segment
    self.door = door
    self.taken = taken[0]
    self.hold.c = c
    self.hold.bell = &door.bell
    self.hold.page = taken.page
    self.hold.after = holds
    if holds != NULL:
        holds.before = &self.hold
    holds = &self.hold
    if allotments and held_elsewhere(&self.hold):
        self.hold.allotted = True
        allotments += 1
    return self


cdef Lease allotted(ChannelSegment segment, Chan* c, Door door, Taken* taken):
    """A lease of an extent of ours that is to be filled."""
    global allotments
    cdef Lease self = lease(segment, c, door, taken)
    self.hold.allotted = True
    allotments += 1
    return self


cdef int lies_in(base, Message* message) except -1:
    """Note where the array of a message lies, if that is an allotted one. `base`: the array's."""
    cdef Lease lease_
    while is_array_class(Py_TYPE(<PyObject*>base)):     # as of a transposed one
        base = base.base
    if type(base) is not Lease:
        return 0
    lease_ = <Lease>base
    # What this process has already received from itself must not change with the next message.
    if (lease_.hold.allotted and not held_elsewhere(&lease_.hold)
            and message.size == lease_.taken.size
            and message.pieces[1].data == lease_.taken.data + sizeof(array_header)):
        message.page = lease_.hold.page
        message.of = lease_.hold.c
    return 0


if watch_forks(before_fork, after_fork_in_parent, after_fork_in_child) != 0:
    raise MemoryError("pthread_atfork: no memory to register the fork handlers")
