# Waiting: the futex calls, deadlines, and how long to spin before sleeping.
#
# Every sleep is cut into slices of at most TICK_NS, for two reasons. A process killed between its
# commit and its wake-up call, or after being woken and before taking what it was woken for, strands
# a sleeper that no protocol in user space can reach. And a signal that arrives while we are between
# two system calls interrupts nothing: its Python handler runs once the slice is over.

cdef int64_t TICK_NS = 100_000_000
cdef int64_t NEVER = <int64_t>0x7fffffffffffffff
cdef int64_t SPIN_NS = 10_000


cdef inline uint32_t* low_half(uint64_t* word) noexcept nogil:
    """The half of a 64-bit word that changes with every commit (both targets are little-endian)."""
    return <uint32_t*>word


cdef int futex_wait(uint32_t* word, uint32_t seen, int64_t ns) noexcept nogil:
    """Sleep while *word == seen, at most `ns`. 0 when woken, else the errno."""
    cdef timespec t
    t.tv_sec = ns // 1_000_000_000
    t.tv_nsec = ns % 1_000_000_000
    if syscall(SYS_futex, word, FUTEX_WAIT, seen, &t, NULL, 0) == 0:
        return 0
    return errno


cdef long futex_wake(uint32_t* word, int n) noexcept nogil:
    return syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0)


cdef inline int64_t slice_until(int64_t deadline, int64_t tick) noexcept nogil:
    """How long to sleep now: the tick, or what is left; <= 0 once the deadline has passed."""
    cdef int64_t left
    if deadline == NEVER:
        return tick
    left = deadline - monotonic_ns()
    return left if left < tick else tick


# Spinning pays only against a peer that is running on another core right now, so each handle keeps
# credit: success earns one, failure costs two, and without credit one wait in 32 probes again.
ctypedef struct Spin:
    int credit
    int probe
    int age

cdef int cpus = 0


cdef bint may_spin(Spin* s) noexcept nogil:
    global cpus
    if s.age == 0 or cpus == 0:     # affinity may change under a long-lived process
        cpus = usable_cpus()
        s.age = 64
    s.age -= 1
    if cpus < 2:
        return False
    if s.credit > 0:
        return True
    s.probe += 1
    if s.probe < 32:
        return False
    s.probe = 0
    return True


cdef inline void spin_paid(Spin* s, bint paid) noexcept nogil:
    if paid:
        if s.credit < 8:
            s.credit += 1
    else:
        s.credit = s.credit - 2 if s.credit > 2 else 0


cdef bint spin_while64(Spin* s, uint64_t* word, uint64_t seen) noexcept nogil:
    """Whether *word left `seen` within the time that spinning is worth."""
    cdef int64_t end
    cdef int i
    if not may_spin(s):
        return False
    end = monotonic_ns() + SPIN_NS
    while True:
        for i in range(16):
            if load64_acquire(word) != seen:
                spin_paid(s, True)
                return True
            cpu_relax()
        if monotonic_ns() >= end:
            spin_paid(s, False)
            return False
