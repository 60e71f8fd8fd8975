# The robust lock: one 32-bit word, at most one per thread, held for well under a microsecond but
# while a channel grows.
#
# Whoever holds it touches neither the GIL nor another lock. See robust.h for what the kernel does
# when the holder dies; it also passes a wake-up on when the dying thread had released the word and
# not yet woken anybody.

cdef int LOCKED = 0
cdef int LOCKED_RECOVER = 1        # the previous owner died inside: recover before anything else
cdef int LOCK_BUSY = 2
cdef int LOCK_UNUSABLE = 3         # the kernel gives this thread no robust list (a seccomp filter?)
cdef int LOCK_SPINS = 40            # a microsecond or two: what an owner that runs needs at most


cdef int robust_lock_slow(uint32_t* word, bint patient) noexcept nogil:
    cdef uint32_t mine = robust_self(), seen
    cdef int i = 0
    while i < LOCK_SPINS and load_own(&cpus) != 1:
        seen = load32(word)
        if (seen & FUTEX_TID_MASK) == 0:
            if cas32(word, seen, mine | (seen & FUTEX_WAITERS)):
                return LOCKED_RECOVER if seen & FUTEX_OWNER_DIED else LOCKED
        cpu_relax()
        i += 1
    if not patient:
        return LOCK_BUSY
    while True:
        seen = load32(word)
        if (seen & FUTEX_TID_MASK) == 0:
            # Having slept, we cannot know whether others still do: keep WAITERS.
            if cas32(word, seen, mine | (seen & FUTEX_WAITERS)):
                return LOCKED_RECOVER if seen & FUTEX_OWNER_DIED else LOCKED
            continue
        if not seen & FUTEX_WAITERS:
            if not cas32(word, seen, seen | FUTEX_WAITERS):
                continue
            seen |= FUTEX_WAITERS
            kill_point("lock: marked that somebody sleeps")
        if futex_wait(word, seen, TICK_NS) == ETIMEDOUT and thread_gone(seen & FUTEX_TID_MASK):
            # The kernel did not come to mark the word: it had freed the dead one's memory first,
            # as it may after an out-of-memory kill.
            cas32(word, seen, FUTEX_WAITERS | FUTEX_OWNER_DIED)
            kill_point("lock: marked in the kernel's place")
        mine |= FUTEX_WAITERS


cdef inline int robust_lock(uint32_t* word, bint patient) noexcept nogil:
    """LOCKED, LOCKED_RECOVER, LOCK_UNUSABLE or, unless `patient`, LOCK_BUSY after a short spin."""
    cdef int got = LOCKED
    if robust_prepare() < 0:
        return LOCK_UNUSABLE
    robust_announce(word)
    kill_point("lock: announced, not yet tried")
    if not cas32(word, 0, robust_self()):
        got = robust_lock_slow(word, patient)
        if got == LOCK_BUSY:
            robust_withdraw()
    kill_point("lock: taken")
    return got


cdef inline void robust_leave(uint32_t* word, uint32_t state) noexcept nogil:
    compiler_fence()
    cdef uint32_t held = exchange32(word, state)
    kill_point("unlock: released, nobody woken")
    if held & FUTEX_WAITERS:
        futex_wake(word, 1)
        kill_point("unlock: woken, still announced")
    robust_withdraw()


cdef inline void robust_unlock(uint32_t* word) noexcept nogil:
    robust_leave(word, 0)


cdef inline void robust_unlock_damaged(uint32_t* word) noexcept nogil:
    """Unlock without having repaired what a dead owner left: the next one is told so too."""
    robust_leave(word, FUTEX_OWNER_DIED)
