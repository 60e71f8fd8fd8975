# Semaphores made with undo=True: a table of who holds how many units, behind the word.
#
# To take or give a unit changes two words, the value and the slot of the process. Both change under
# a robust lock and by a log: what they shall be is written down first, and is carried out by
# whoever has the lock next if the writer is killed. So there is one instant at which the unit
# changes hands, the store of `log_slot`.
#
#   killed                                         the next to lock
#   before the lock, or in it before `log_slot`    finds nothing to do; a slot claimed has no units
#   after `log_slot`, and at each step after it    writes slot and value anew, which harms nothing
#   after `log_slot` is 0 again                    finds nothing to do
#   unlocked, nobody woken                         a sleeper looks for itself after its slice
#
# Units of the dead are given back in the same way, by those who find none to take: before they
# sleep no more than a slice, they look who of the holders has died. Nobody needs to tell a kill
# from a normal end, since an end gives back too, as System V's SEM_UNDO does.
#
# A unit may also be nobody's: taken, and in no slot. A message in a queue has such a one.


cdef inline void undo_set(undo_table* u, uint32_t value) noexcept nogil:
    """Lock held. Set the value; others may note that they sleep meanwhile."""
    cdef uint64_t seen = load64(&u.word)
    while not cas64(&u.word, seen, (seen & SLEEPERS) | value):
        seen = load64(&u.word)
    kill_point("undo: value written")


cdef void undo_carry_out(undo_table* u) noexcept nogil:
    """Lock held. Do what the log says; as often as one likes."""
    cdef uint64_t log = load64_acquire(&u.log_slot), seen
    cdef uint32_t i = <uint32_t>(log >> 32) - 1, units = <uint32_t>log
    if <uint32_t>(log >> 32) == 0:
        return
    if i < <uint32_t>UNDO_SLOTS:
        seen = load64(&u.slot[i])
        store64_release(&u.slot[i], (seen >> 32 << 32) | units if units else 0)
        kill_point("undo: slot written")
    undo_set(u, u.log_value)
    store64_release(&u.log_slot, 0)
    kill_point("undo: carried out")


cdef void undo_log(undo_table* u, int i, uint32_t units, uint32_t value) noexcept nogil:
    """Lock held. Slot `i` shall have so many units, and the semaphore this value."""
    u.log_value = value
    kill_point("undo: log begun")
    store64_release(&u.log_slot, <uint64_t>(i + 1) << 32 | units)              # COMMIT
    kill_point("undo: logged")
    undo_carry_out(u)


cdef int undo_lock(undo_table* u) noexcept nogil:
    """OK or UNUSABLE."""
    cdef int got = robust_lock(&u.lock, True)
    if got == LOCK_UNUSABLE:
        return UNUSABLE
    if got == LOCKED_RECOVER:
        undo_carry_out(u)
    return OK


cdef int undo_slot(undo_table* u) noexcept nogil:
    """Lock held. The slot of this process, else a free one, else -1."""
    cdef uint32_t mine = me()
    cdef int i, free = -1
    for i in range(UNDO_SLOTS):
        if <uint32_t>(u.slot[i] >> 32) == mine:
            return i
        if free < 0 and u.slot[i] == 0:
            free = i
    return free


cdef int undo_take(undo_table* u, bint slept) noexcept nogil:
    """OK, WOULD_BLOCK or UNUSABLE. Who has slept leaves word that others may."""
    cdef uint64_t seen
    cdef uint32_t value
    cdef int i
    if <uint32_t>load64(&u.word) & VALUE == 0:
        return WOULD_BLOCK
    if undo_lock(u) != OK:
        return UNUSABLE
    seen = load64(&u.word)
    while slept and not seen & SLEEPERS and not cas64(&u.word, seen, seen | SLEEPERS):
        seen = load64(&u.word)
    value = <uint32_t>seen & VALUE
    if value:
        i = undo_slot(u)
        if i < 0:                       # held by so many that nobody could give it back
            undo_set(u, value - 1)
        else:
            if u.slot[i] == 0:
                store64_release(&u.slot[i], <uint64_t>me() << 32)
                kill_point("undo: slot claimed")
            undo_log(u, i, <uint32_t>u.slot[i] + 1, value - 1)
    robust_unlock(&u.lock)
    return OK if value else WOULD_BLOCK


cdef void undo_wake(undo_table* u, uint32_t n) noexcept nogil:
    """After the lock. Tell sleepers of n units, and note it if there are none."""
    cdef uint64_t seen = load64(&u.word)
    kill_point("undo: given, nobody woken")
    if n and seen & SLEEPERS and futex_wake(low_half(&u.word), <int>min(n, VALUE)) == 0:
        cas64(&u.word, seen, seen & VALUE)
        kill_point("undo: no sleepers noted")


cdef int undo_give(undo_table* u, uint32_t maxvalue) noexcept nogil:
    """OK, WOULD_BLOCK when nothing was taken, or UNUSABLE.

    A unit that this process does not hold is one more, and its taker's stays noted as taken.
    """
    cdef uint32_t value
    cdef int i
    if undo_lock(u) != OK:
        return UNUSABLE
    value = <uint32_t>load64(&u.word) & VALUE
    if value >= maxvalue:
        robust_unlock(&u.lock)
        return WOULD_BLOCK
    i = undo_slot(u)
    if i >= 0 and <uint32_t>u.slot[i]:
        undo_log(u, i, <uint32_t>u.slot[i] - 1, value + 1)
    else:
        undo_set(u, value + 1)
    robust_unlock(&u.lock)
    undo_wake(u, 1)
    return OK


cdef int undo_hand(undo_table* u, bint adopt) noexcept nogil:
    """Make a unit that is nobody's one of this process, or the other way round: OK or UNUSABLE.

    It may come to be of this process before another, at work on the same, has let go of it. Where
    the table is full this process has none, so that there is nothing to do.
    """
    cdef uint32_t units, value
    cdef int i
    if undo_lock(u) != OK:
        return UNUSABLE
    i = undo_slot(u)
    units = <uint32_t>u.slot[i] if i >= 0 else 0
    value = <uint32_t>load64(&u.word) & VALUE
    if i >= 0 and adopt:
        if u.slot[i] == 0:
            store64_release(&u.slot[i], <uint64_t>me() << 32)
            kill_point("undo: slot claimed to adopt")
        undo_log(u, i, units + 1, value)
    elif units:
        undo_log(u, i, units - 1, value)
    robust_unlock(&u.lock)
    return OK


cdef bint undo_reclaim(undo_table* u, uint32_t maxvalue) noexcept nogil:
    """Give back what the dead hold; whether there was anything. About 10 us for each holder.

    Not what the living hold or could take now: somebody gave that back in a dead one's stead.
    """
    cdef uint32_t owner, units, given = 0
    cdef uint64_t value, others
    cdef int i, k
    if load32(&u.lock) & FUTEX_OWNER_DIED and undo_lock(u) == OK:
        robust_unlock(&u.lock)
    for i in range(UNDO_SLOTS):
        owner = <uint32_t>(load64(&u.slot[i]) >> 32)
        if not owner or not owner_dead(owner) or undo_lock(u) != OK:
            continue
        if <uint32_t>(u.slot[i] >> 32) == owner:
            value = <uint32_t>load64(&u.word) & VALUE
            others = 0
            for k in range(UNDO_SLOTS):
                others += <uint32_t>u.slot[k] if k != i else 0
            units = <uint32_t>min(<uint64_t><uint32_t>u.slot[i],
                                  maxvalue - min(value + others, <uint64_t>maxvalue))
            undo_log(u, i, 0, <uint32_t>value + units)
            given += units
        robust_unlock(&u.lock)
    if given:
        undo_wake(u, given)
    return given != 0


cdef int undo_sleep(undo_table* u, int64_t* tick, int64_t deadline) noexcept nogil:
    """Sleep until there may be a unit: OK, TIMED_OUT or PAUSED. `tick` is 0 at first."""
    cdef uint64_t seen
    cdef int64_t left
    cdef int r
    tick[0] = NEXT_SLICE_NS if tick[0] else FIRST_SLICE_NS
    while True:
        seen = load64(&u.word)
        if <uint32_t>seen & VALUE:
            return OK
        if seen & SLEEPERS:
            break
        if cas64(&u.word, seen, seen | SLEEPERS):
            seen |= SLEEPERS
            kill_point("undo: sleeper noted")
            break
    left = slice_until(deadline, tick[0])
    if left <= 0:
        return TIMED_OUT
    r = futex_wait(low_half(&u.word), <uint32_t>seen, left)
    kill_point("undo: awake, nothing taken yet")
    return PAUSED if r == EINTR or r == ETIMEDOUT else OK
