# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, binding=False
# cython: auto_pickle=False, autotestdict=False
"""The core under a scheduler that decides at each shared access who goes on; see scheduler.h."""
include "../../mpipc/_core.pyx"

import time

from libc.string cimport memchr


cdef extern from "scheduler.h" nogil:
    ctypedef struct fiber:
        int state
        int victim
        int64_t deadline
    ctypedef struct model:
        int fibers, preemptions, kills, cpus, slices_end_early, mutation
        void (*body)(int) noexcept
        const char* (*invariant)() noexcept nogil
        fiber* fiber
        int running, killed, log, rescuing
        uint64_t steps, switches, progress, rescues
        const char* failure
        int random, known, depth, changes, lowest
        uint64_t seed, kill_at
        uint64_t* change_at
        int bells, readers, writers
        char* memory
        char* hole
    model S
    int READ_FD, WRITE_FD, MEMORY_FD, FIBERS, STACK, KILLED, CHOICES
    void violate(const char* what)
    void operation_done()
    void begin_run()
    void run_fibers(char* stacks) noexcept
    int advance()
    uint64_t next_random()
    int really_check_signals() except -1
    void poll_changed()

cdef extern from *:
    """
    static inline unsigned char *chosen_at(int i) { return &S.path[i].chosen; }
    static inline unsigned char *options_at(int i) { return &S.path[i].options; }
    static void run_on_this_stack(void)
    {
        char stacks[FIBERS * STACK] __attribute__((aligned(64)));
        run_fibers(stacks);
    }
    """
    unsigned char* chosen_at(int i) nogil
    unsigned char* options_at(int i) nogil
    void run_on_this_stack() noexcept


cdef inline void violation(const char* what) noexcept nogil:
    violate(what)


cdef inline void begins(int t, int64_t deadline) noexcept nogil:
    S.fiber[t].deadline = deadline


cdef inline void ends(int t) noexcept nogil:
    operation_done()


cdef inline void ends_late(int t) noexcept nogil:
    S.rescuing = 0


cdef void close_end(bint reading) noexcept nogil:
    if reading:
        S.readers -= 1
    else:
        S.writers -= 1
    poll_changed()


cdef bint hangs_up() noexcept nogil:
    return S.readers <= 1 or S.writers <= 1


cdef inline bint was_killed(int t) noexcept nogil:
    return S.fiber[t].state == KILLED


cdef bint backed(uint32_t page, uint32_t pages) noexcept nogil:
    return memchr(S.hole + page, 1, pages) == NULL


include "programs.pxi"


cdef const char* invariant() noexcept nogil:
    """What is so at any moment, or whenever nobody is inside the lock."""
    cdef Chan* c = w.chan[THREADS - 1]
    cdef channel* h = c.h
    cdef const char* wrong
    cdef uint32_t count
    if h == NULL or h.magic != CHANNEL_MAGIC:
        return NULL
    wrong = tiling(c)
    if wrong != NULL:
        return wrong
    if h.lock & (FUTEX_TID_MASK | FUTEX_OWNER_DIED):
        return NULL
    count = count_between(h.head, h.tail)
    if h.maxsize and count > h.maxsize:
        return b"more messages than maxsize"
    if S.readers and S.bells != <int>h.bells:
        return b"the bells are counted wrong"
    if S.readers and count and S.bells == 0:
        return b"messages wait, and the descriptor is not readable"
    if h.exposed and count == 0 and S.bells:
        return b"the descriptor is readable, and no message waits"
    if <int32_t>(h.get_given - h.get_called) < 0 or <int32_t>(h.put_given - h.put_called) < 0:
        return b"more tickets called than given"
    return NULL


cdef list doors = [Door() for _ in range(THREADS)]
cdef int door_number
for door_number in range(THREADS):
    w.door[door_number] = <PyObject*>doors[door_number]
    w.text[door_number] = <char*>PyMem_Realloc(NULL, BIGGEST)


cdef object setting = None


cdef int load(dict program, int preemptions, int kills, int mutation) except -1:
    """Everything that all runs of a program share."""
    global setting
    cdef int t
    load_program(program)
    setting = program
    S.fibers = w.threads
    S.preemptions = preemptions
    S.kills = kills
    S.mutation = mutation
    S.cpus = program.get("cpus", 1)
    S.slices_end_early = program.get("slices", False)
    S.body = thread_body
    S.invariant = invariant
    victims = program.get("victims", range(w.threads))
    for t in range(w.threads):
        S.fiber[t].victim = t in victims
    return 0


cdef int run_once() except -1:
    """One schedule, from an empty world; its violation, if any, is in S.failure."""
    global cpus, LOCK_SPINS
    cdef int t, taking = 0
    cdef const char* wrong = NULL
    cdef Door door
    begin_run()
    reset_world()
    cpus = S.cpus
    LOCK_SPINS = 2
    ends_of = setting.get("ends", {})
    S.readers = S.writers = 1           # the last thread's
    for t in range(THREADS):
        door = doors[t]
        roles = ends_of.get(t, "rw")
        door.bell.read_fd = READ_FD if "r" in roles else -1
        door.bell.write_fd = WRITE_FD if "w" in roles else -1
        door.probed = 0
        if t < w.threads:
            S.readers += "r" in roles
            S.writers += "w" in roles
        w.chans[t].view.fd = MEMORY_FD
    if setting.get("ends"):             # the last thread must not keep anything open
        S.readers -= 1
        S.writers -= 1
    if w.opened:
        for t in range(THREADS):
            if channel_open(w.chan[t]) != OK:
                raise AssertionError("the channel could not be opened")
    if setting.get("exposed"):
        channel_expose(w.chan[THREADS - 1], &(<Door>w.door[THREADS - 1]).bell)
    for size in setting.get("before", ()):
        put_one(THREADS - 1, size, NEVER)
    for _ in range(setting.get("taken", 0)):
        get_one(THREADS - 1, 0)
    run_on_this_stack()
    S.readers += 1
    S.writers += 1
    for t in range(w.threads):
        if S.fiber[t].state == KILLED:
            taking += w.taking[t]
        elif S.failure == NULL and w.finished[t] < w.count[t]:
            violate(b"an operation raised an exception")
    if not w.opened:
        channel_open(w.chan[THREADS - 1])
    if S.failure == NULL:
        wrong = look_at_messages(S.killed, taking)
        if wrong == NULL:
            wrong = look_at_rest(S.killed)
        if wrong != NULL:
            violate(wrong)
    return 0


cdef str trace():
    """The choices of the last run that were not the first: what replay() needs."""
    cdef int i
    return " ".join(f"{i}:{chosen_at(i)[0]}" for i in range(S.known) if chosen_at(i)[0])


def explore(dict program, int preemptions, int kills=0, int mutation=0, double seconds=1e9,
            int most_violations=1):
    """Run all schedules of a program with so many preemptions at most.

    Returns
    -------
    dict
        schedules, steps; complete: whether these are all; violations: (what, trace) each; rescues:
        sleeps that only the end of a slice has ended, kills included.
    """
    cdef uint64_t schedules = 0, steps = 0, rescues = 0, longest = 0
    cdef bint complete = False
    load(program, preemptions, kills, mutation)
    S.random = 0
    S.known = 0
    found = []
    began = time.monotonic()
    while True:
        run_once()
        schedules += 1
        steps += S.steps
        rescues += S.rescues
        longest = max(longest, S.steps)
        if S.failure != NULL:
            found.append((S.failure.decode(), trace()))
            if len(found) >= most_violations:
                break
        if not advance():
            complete = True
            break
        if schedules % 256 == 0:
            really_check_signals()
            if time.monotonic() - began > seconds:
                break
    return {"schedules": schedules, "steps": steps, "longest": longest, "complete": complete,
            "rescues": rescues, "violations": found}


def sample(dict program, uint64_t seed, uint64_t count, int kills=0, int mutation=0,
           double seconds=1e9, int most_violations=1):
    """Run `count` schedules at random; the n-th is that of seed + n. As explore()."""
    cdef uint64_t schedules = 0, steps = 0, rescues = 0
    cdef int i
    load(program, 0, kills, mutation)
    S.random = 1
    found = []
    began = time.monotonic()
    while schedules < count:
        S.seed = (seed + schedules + 1) * 0x9e3779b97f4a7c15ULL | 1
        S.changes = next_random() % 8
        for i in range(S.changes):
            S.change_at[i] = next_random() % 600
        S.kill_at = next_random() % 400
        run_once()
        steps += S.steps
        rescues += S.rescues
        if S.failure != NULL:
            found.append((S.failure.decode(), f"seed {seed + schedules}"))
            if len(found) >= most_violations:
                schedules += 1
                break
        schedules += 1
        if schedules % 256 == 0:
            really_check_signals()
            if time.monotonic() - began > seconds:
                break
    S.random = 0
    return {"schedules": schedules, "steps": steps, "complete": False, "rescues": rescues,
            "violations": found}


def replay(dict program, int preemptions, str choices, int kills=0, int mutation=0):
    """Run one schedule that explore() has named, and tell on stderr what happens; what is wrong."""
    load(program, preemptions, kills, mutation)
    S.random = 0
    S.known = 0
    for part in choices.split():
        at, chosen = (int(number) for number in part.split(":"))
        if not 0 <= at < CHOICES:
            raise ValueError(f"choice {at} in {choices!r}")
        while S.known <= at:
            chosen_at(S.known)[0] = options_at(S.known)[0] = 0
            S.known += 1
        chosen_at(at)[0] = chosen
    S.log = 1
    try:
        run_once()
    finally:
        S.log = 0
    return S.failure.decode() if S.failure != NULL else None


def replay_seed(dict program, uint64_t seed, int kills=0, int mutation=0):
    """Run one schedule that sample() has named, and tell on stderr what happens."""
    S.log = 1
    try:
        found = sample(program, seed, 1, kills, mutation)["violations"]
    finally:
        S.log = 0
    return found[0][0] if found else None
