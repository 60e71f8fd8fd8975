# Waiting: the futex calls, deadlines, and how long to spin before sleeping.
#
# Every sleep is cut into slices of at most TICK_NS, for two reasons. A process killed between its
# commit and its wake-up call, or after being woken and before taking what it was woken for, strands
# a sleeper that no protocol in user space can reach. And a signal that arrives while we are between
# two system calls interrupts nothing: its Python handler runs once the slice is over.

cdef int64_t TICK_NS = 200_000_000
cdef int64_t NEVER = <int64_t>0x7fffffffffffffff


cdef inline uint32_t* low_half(uint64_t* word) noexcept nogil:
    """The half of a 64-bit word that changes with every commit (both targets are little-endian)."""
    return <uint32_t*>word


cdef int futex_wait(uint32_t* word, uint32_t seen, int64_t ns) noexcept nogil:
    """Sleep while *word == seen, at most `ns`. 0 when woken, else the errno."""
    cdef timespec t
    t.tv_sec = ns // 1_000_000_000
    t.tv_nsec = ns % 1_000_000_000
    if sys_futex_wait(word, seen, &t) == 0:
        return 0
    return errno


cdef long futex_wake(uint32_t* word, int n) noexcept nogil:
    return sys_futex_wake(word, n)


cdef long futex_requeue(uint32_t* word, uint32_t seen, uint32_t* to) noexcept nogil:
    return sys_futex_requeue(word, seen, to)


cdef inline int64_t slice_until(int64_t deadline, int64_t tick) noexcept nogil:
    """How long to sleep now: the tick, or what is left; <= 0 once the deadline has passed."""
    cdef int64_t left
    if deadline == NEVER:
        return tick
    left = deadline - monotonic_ns()
    return left if left < tick else tick


# Spinning pays only against a peer that is running on another core right now, so each handle keeps
# credit: a spin that succeeds earns one, one that fails costs two; without credit there is none.
#
# Two processes that answer each other and both sleep would do so for ever: each one's answer takes
# as long as its waking, far longer than a spin. Two things get them out of it. After SHORT_SLEEPS
# sleeps that were short, a handle spins for BURST_NS a few times, long enough for a peer to wake
# and answer. And a sleeper learns from the time at which its waker rang whether a spin would have
# sufficed; so the peer of one that is in its burst gains credit while it still sleeps. On one
# processor a spin only delays the peer; a rare burst there makes the kernel move one of the two, if
# another processor is free. Threads that share a handle may lose one another's updates.
ctypedef struct Spin:
    int credit
    int burst               # long spins left
    int short_sleeps        # since the last burst
    int age                 # waits until affinity is looked at again
    int apart               # the last waker rang from another processor than ours
    int sleeps_first        # short sleeps until a yield, or a nap, is tried again
    int sleeps_next         # ... after the next that does not pay

cdef int64_t SPIN_NS = 10_000
cdef int64_t BURST_NS = 100_000
cdef int64_t SHORT_SLEEP_NS = 300_000
cdef int SHORT_SLEEPS = 32
cdef int BURST = 3
cdef int MOST_CREDIT = 8
cdef int cpus = 0


cdef inline void spin_start(Spin* s) noexcept nogil:
    s.credit = MOST_CREDIT // 2
    s.burst = BURST
    s.short_sleeps = 0
    s.age = 0
    s.apart = False
    s.sleeps_first = 0
    s.sleeps_next = FEWEST_SLEEPS


cdef int64_t spin_budget(Spin* s) noexcept nogil:
    """How long the next wait may spin, in ns; 0 for not at all."""
    cdef int age = load_own(&s.age), usable = load_own(&cpus), burst
    if age == 0 or usable == 0:     # affinity may change under a long-lived process
        usable = usable_cpus()
        store_own(&cpus, usable)
        age = 64
    store_own(&s.age, age - 1)
    if usable < 2 and not load_own(&s.apart):
        return 0
    burst = load_own(&s.burst)
    if burst > 0:
        store_own(&s.burst, burst - 1)
        return BURST_NS
    return SPIN_NS if load_own(&s.credit) > 0 else 0


cdef inline void spin_ended(Spin* s, bint paid) noexcept nogil:
    cdef int credit = load_own(&s.credit)
    store_own(&s.credit, min(credit + 1, MOST_CREDIT) if paid else max(credit - 2, 0))


cdef void sleep_ended(Spin* s, int64_t began, int64_t rung, int cpu) noexcept nogil:
    """Learn from a sleep that ended in a wake-up, rung at that time on that processor."""
    cdef bint apart = cpu != sched_getcpu()
    cdef int short_sleeps = 0
    store_own(&s.apart, apart)
    if not apart:
        store_own(&s.credit, 0)
    elif rung >= began and rung - began < SPIN_NS:
        store_own(&s.credit, min(load_own(&s.credit) + 3, MOST_CREDIT))
    if monotonic_ns() - began < SHORT_SLEEP_NS:
        if load_own(&s.sleeps_first) > 0:
            store_own(&s.sleeps_first, load_own(&s.sleeps_first) - 1)
        short_sleeps = load_own(&s.short_sleeps) + 1
        if short_sleeps >= (SHORT_SLEEPS if apart else 8 * SHORT_SLEEPS):
            short_sleeps = 0
            store_own(&s.burst, BURST)
    store_own(&s.short_sleeps, short_sleeps)


cdef bint spin_for(Spin* s, int64_t budget, uint32_t* word, uint32_t bits,
                   uint32_t seen) noexcept nogil:
    """Whether *word & bits left `seen` within `budget` ns."""
    cdef int64_t end
    cdef int i
    if budget == 0:
        return False
    end = monotonic_ns() + budget
    while True:
        for i in range(16):
            if load32_acquire(word) & bits != seen:
                spin_ended(s, True)
                return True
            cpu_relax()
        if monotonic_ns() >= end:
            spin_ended(s, False)
            return False


cdef uint32_t ANY = 0xffffffffu


cdef bint spin_while(Spin* s, uint32_t* word, uint32_t bits, uint32_t seen) noexcept nogil:
    """Whether *word & bits left `seen` within the time that spinning is worth."""
    return spin_for(s, spin_budget(s), word, bits, seen)


# On one processor, a peer that answers at once does so within a yield, which costs half of what
# sleeping and being woken do. With a third process there the yield may last that one's time slice;
# so a handle whose yield did not pay sleeps for a while, the longer the oftener that happens.

cdef int64_t YIELD_NS = 40_000
cdef int FEWEST_SLEEPS = 64
cdef int MOST_SLEEPS = 1 << 14


cdef bint yield_while(Spin* s, uint32_t* word, uint32_t bits, uint32_t seen) noexcept nogil:
    """Whether *word & bits left `seen` while the processor was lent to others."""
    cdef int64_t began
    cdef bint changed
    if load_own(&s.apart) or load_own(&s.sleeps_first) > 0:
        return False
    began = monotonic_ns()
    sched_yield()
    changed = load32_acquire(word) & bits != seen
    if changed and monotonic_ns() - began < YIELD_NS:
        store_own(&s.sleeps_next, FEWEST_SLEEPS)
    else:
        store_own(&s.sleeps_first, load_own(&s.sleeps_next))
        store_own(&s.sleeps_next, min(2 * load_own(&s.sleeps_next), MOST_SLEEPS))
    return changed


cdef bint linger(Spin* s, uint32_t* word, uint32_t bits, uint32_t seen) noexcept nogil:
    """Whether *word & bits left `seen` before it was time to sleep: spin or yield, if that pays."""
    cdef int64_t budget = spin_budget(s)
    if budget:
        return spin_for(s, budget, word, bits, seen)
    return yield_while(s, word, bits, seen)


# Whoever wakes others leaves in shared memory when and where that was: the time in ns, its last ten
# bits replaced by the processor's number.

cdef uint64_t RUNG_ON = 0x3ff


cdef inline uint64_t rung_now() noexcept nogil:
    return (<uint64_t>monotonic_ns() & ~RUNG_ON) | (<uint64_t>sched_getcpu() & RUNG_ON)


cdef inline void sleep_was_ended(Spin* s, int64_t began, uint64_t rung) noexcept nogil:
    """As sleep_ended(), by what the waker left."""
    sleep_ended(s, began, <int64_t>(rung | RUNG_ON), <int>(rung & RUNG_ON))
