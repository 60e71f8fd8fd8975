# Messages in hand: what a JoinableQueue made with redeliver=True knows of its tasks.
#
# Each of its messages has an extent of its own, so that a take needs no memory. From the take until
# task_done() the extent stays, LINKED with the owner tag of its taker, in the list `hand`. If the
# taker dies the extent becomes a chunk of one record: `again`, its message, and `onward`, a jump to
# where head was. Storing head puts it before all that waits. The next take goes onward at once, so
# that head never rests at such a jump.
#
# Each step changes head or done, and whose the extent is; both by the log of tasks, which says what
# `head`, `done` and the tag (0: nobody's) are to become.
#
#   killed                               found by whoever locks next
#   before the commit of a take          the message waits as before
#   after it, or before that of          the message is in the dead one's hand, and is handed on
#     a task_done()
#   after that of a task_done()          LINKED, nobody's and unreachable: freed
#   before the commit of a redelivery    still in the dead one's hand: handed on by the next to look
#   after it                             the message waits; the tag is removed by the log
#   redelivered, nobody woken            a sleeper's slice ends
#
# What the dead have in hand is first disowned, each by a store, so that the messages of several of
# them are put in order. The list is a hint, which recovery makes anew.
#
# Who looks for dead takers: whoever takes a message or waits for one, or for all tasks, unless
# somebody has looked within a slice; and, at once, who would else answer that nothing is there.

cdef inline bint in_hand(Chan* c, uint32_t page) noexcept nogil:
    cdef uint32_t holder
    if not tiles(c, page):
        return False
    holder = <uint32_t>extent_at(c, page).desc
    return holder & EXTENT_LINKED and holder != EXTENT_LINKED


cdef inline uint32_t hand_of(Chan* c, uint32_t page) noexcept nogil:
    """The owner tag of who has the message in hand."""
    return <uint32_t>extent_at(c, page).desc & ~EXTENT_LINKED


cdef inline bint older(Chan* c, uint32_t page, uint32_t other) noexcept nogil:
    return <int32_t>(extent_at(c, page).taken - extent_at(c, other).taken) < 0


cdef inline uint64_t again_of(uint32_t page) noexcept nogil:
    """The position of the record that a message has in its own extent."""
    return (<uint64_t>page << PAGE_SHIFT) + AGAIN_OFFSET


cdef bint leads_on(Chan* c, uint32_t page) noexcept nogil:
    """Lock held. Whether what was handed back leads to a place in a chunk."""
    cdef record* rec = &extent_at(c, page).onward
    return (rec.kind == RECORD_JUMP and tiles(c, rec.page) and rec.page <= rec.size >> PAGE_SHIFT
            and rec.size <= (<uint64_t>c.h.npages << PAGE_SHIFT) - sizeof(record))


cdef void hand_take(Chan* c, Taken* out, char* buffer, uint64_t head) noexcept nogil:
    """Lock held. Commit a take. A message that does not fit into `buffer` is read where it lies."""
    cdef uint32_t page = out.page
    cdef extent* e = extent_at(c, page)
    c.h.takes += 1
    kill_point("hand: takes counted")
    e.taken = c.h.takes
    e.thread = robust_self()
    if out.size <= INLINE_MAX:
        memcpy(buffer, out.data, out.size)
        out.data = buffer
        out.page = 0
    else:
        e.thread |= BEING_READ
    e.again.size = out.size
    e.again.kind = RECORD_EXTENT
    e.again.form = out.form
    e.again.page = page
    kill_point("hand: extent knows its taker")
    task_log(c, page, me(), 0, head, c.h.done)
    list_push(c, &c.h.hand, page)


cdef void hand_read(Chan* c, uint32_t page) noexcept nogil:
    """The taker has read the message; from now on any of its threads may finish it."""
    cdef extent* e = extent_at(c, page)
    store32_release(&e.thread, e.thread & ~BEING_READ)
    kill_point("hand: message read")


cdef bint hand_done(Chan* c) noexcept nogil:
    """Lock held. Finish the oldest message of this thread, else of this process; False if none.

    A message that another thread is still reading is not finished.
    """
    cdef uint32_t page = c.h.hand, left = c.h.npages, found = 0, owner = me(), thread
    cdef bint own, found_own = False
    while left and in_hand(c, page):
        thread = load32(&extent_at(c, page).thread)
        if hand_of(c, page) == owner and not thread & BEING_READ:
            own = thread == robust_self()
            if not found or own and not found_own or own == found_own and older(c, page, found):
                found = page
                found_own = own
        page = extent_at(c, page).list_next
        left -= 1
    if not found:
        return False
    list_remove(c, &c.h.hand, found)
    task_log(c, found, 0, 0, c.h.head, c.h.done + 1)
    if not has_heir(extent_at(c, found)):       # a child forked while this was being unpickled
        extent_free(c, found)
    return True


cdef uint32_t next_taker(Chan* c, uint32_t after) noexcept nogil:
    """Lock held. Of the owner tags of all takers the least above `after`; 0 if there is none."""
    cdef uint32_t page = c.h.hand, left = c.h.npages, owner, found = 0
    while left and in_hand(c, page):
        owner = hand_of(c, page)
        if owner > after and (not found or owner < found):
            found = owner
        page = extent_at(c, page).list_next
        left -= 1
    return found


cdef void disown(Chan* c, uint32_t owner) noexcept nogil:
    """Lock held. Say of all that a process has in hand that nobody will finish it."""
    cdef uint32_t page = c.h.hand, left = c.h.npages
    while left and in_hand(c, page):
        if hand_of(c, page) == owner:
            set_desc(extent_at(c, page), describe(pages_of(extent_at(c, page).desc),
                                                  EXTENT_LINKED | OWNER_ORPHAN))
        page = extent_at(c, page).list_next
        left -= 1


cdef uint32_t newest_orphan(Chan* c) noexcept nogil:
    """Lock held. The extent of the disowned message that was taken last; 0 if there is none."""
    cdef uint32_t page = c.h.hand, left = c.h.npages, found = 0
    while left and in_hand(c, page):
        if hand_of(c, page) == OWNER_ORPHAN and (not found or older(c, found, page)):
            found = page
        page = extent_at(c, page).list_next
        left -= 1
    return found


cdef uint32_t hand_back(Chan* c, Bell* bell) noexcept nogil:
    """Lock held. Put what was disowned before all that waits, the oldest first; how many."""
    cdef channel* h = c.h
    cdef uint32_t page = newest_orphan(c), count = 0
    cdef bint none_waits
    cdef extent* e
    cdef int rung
    while page and count_between(h.head, h.tail) < COUNT_MASK:
        if h.bells == 0:
            rung = ring(bell.write_fd)
            if rung < 0:            # no memory for the byte: it stays in hand, disowned
                break
            kill_point("hand: rung, not yet counted")
            h.bells = <uint32_t>rung
            kill_point("hand: rung, not yet handed back")
        e = extent_at(c, page)
        list_remove(c, &h.hand, page)
        # Where nothing waits, head may stand where a put began to rewind and was killed.
        none_waits = count_between(h.head, h.tail) == 0
        e.onward.kind = RECORD_JUMP
        e.onward.page = h.write_at if none_waits else h.read_at
        e.onward.size = position_of(h.tail if none_waits else h.head)
        kill_point("hand: the way onward written")
        task_log(c, page, 0, 0, place(again_of(page), <uint32_t>h.head - 1), h.done)
        h.read_at = page
        kill_point("hand: handed back, its place not noted")
        store64(&h.backlog, h.backlog + e.again.size)
        kill_point("hand: backlog counted")
        count += 1
        page = newest_orphan(c)
    return count


cdef uint32_t look_for_dead(Chan* c, Bell* bell, bint now) noexcept nogil:
    """Hand back what the dead have taken and not done; how many messages.

    Unless `now`, only if nobody has looked for a slice, since to look costs 10 us for each taker.
    """
    cdef int64_t at
    cdef uint32_t owner = 0, count = 0
    cdef bint found = False
    if not c.flags & CHANNEL_REDELIVER or load32(&c.h.hand) == 0:
        return 0
    at = monotonic_ns()
    if not now and <uint64_t>at - load64(<uint64_t*>&c.h.looked_at) < <uint64_t>TICK_NS:
        return 0
    store64(<uint64_t*>&c.h.looked_at, at)
    kill_point("hand: about to look for the dead")
    while channel_lock(c, bell, True) == OK:
        owner = next_taker(c, owner)
        channel_unlock(c)
        if owner == 0:
            break
        if owner == OWNER_ORPHAN:       # disowned by one who was killed before he handed it back
            found = True
        elif owner_dead(owner) and channel_lock(c, bell, True) == OK:
            disown(c, owner)
            channel_unlock(c)
            found = True
    if found and channel_lock(c, bell, True) == OK:
        count = hand_back(c, bell)
        channel_unlock(c)
        kill_point("hand: handed back, nobody woken")
    if count:
        futex_wake(low_half(&c.h.tail), count)      # calls no tickets: a wake-up in vain
    return count
