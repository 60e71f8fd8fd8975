# Waiting: the futex calls, deadlines, and how long to spin before sleeping.
#
# Every sleep is cut into slices of at most TICK_NS, for two reasons. A process killed between its
# commit and its wake-up call, or after being woken and before taking what it was woken for, strands
# a sleeper that no protocol in user space can reach. And a signal that arrives while we are between
# two system calls interrupts nothing: its Python handler runs once the slice is over.

cdef int64_t TICK_NS = 100_000_000
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
        short_sleeps = load_own(&s.short_sleeps) + 1
        if short_sleeps >= (SHORT_SLEEPS if apart else 8 * SHORT_SLEEPS):
            short_sleeps = 0
            store_own(&s.burst, BURST)
    store_own(&s.short_sleeps, short_sleeps)


cdef bint spin_while64(Spin* s, uint64_t* word, uint64_t seen) noexcept nogil:
    """Whether *word left `seen` within the time that spinning is worth."""
    cdef int64_t budget = spin_budget(s), end
    cdef int i
    if budget == 0:
        return False
    end = monotonic_ns() + budget
    while True:
        for i in range(16):
            if load64_acquire(word) != seen:
                spin_ended(s, True)
                return True
            cpu_relax()
        if monotonic_ns() >= end:
            spin_ended(s, False)
            return False
