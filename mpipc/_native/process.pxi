# Who holds something: owner tags, and whether the process behind one is still alive.
#
# Process and thread ids mean something within one PID namespace; all who share memory must live in
# the same one.
#
# owner tag: 9 bits of the process's start time << 22 | pid. Never 0; bit 31 is free for flags.
# The start time tells a process from a later one that was given the same pid. Its bits are 0 where
# it could not be learned (no /proc, no descriptor left), and never all set, as OWNER_ORPHAN's and
# EXTENT_EMPTY's are.

cdef uint32_t OWNER_PID = 0x3fffff
cdef uint32_t OWNER_START = 0x1ff << 22
cdef char ZOMBIE = b"Z"
cdef char DEAD = b"X"
cdef uint32_t OWNER_ORPHAN = 0x7fffffff   # held on purpose by a process that has ended normally


cdef int read_start_time(pid_t pid, uint64_t* start, char* state) noexcept nogil:
    """Fields 22 and 3 of /proc/<pid>/stat. 0, or -1 where it cannot be read."""
    cdef char path[32]
    cdef char text[512]
    cdef char* p
    cdef ssize_t n
    cdef int fd, field
    snprintf(path, sizeof(path), b"/proc/%d/stat", <int>pid)
    fd = open(path, O_RDONLY | O_CLOEXEC)
    if fd < 0:
        return -1
    n = read(fd, text, sizeof(text) - 1)
    close(fd)
    if n <= 0:
        return -1
    text[n] = 0
    p = strrchr(text, 41)               # ")": the name before it may hold anything
    if p == NULL or p[1] == 0:
        return -1
    p += 2
    state[0] = p[0]
    field = 3
    while field < 22 and p[0]:
        if p[0] == 32:
            field += 1
        p += 1
    if field < 22:
        return -1
    start[0] = strtoull(p, NULL, 10)
    return 0


cdef inline uint32_t owner_tag(pid_t pid, uint64_t start) noexcept nogil:
    cdef uint32_t bits = <uint32_t>(start * 0x9e3779b97f4a7c15ULL >> 55) % 510 + 1
    return bits << 22 | (<uint32_t>pid & OWNER_PID)


cdef uint32_t find_self_owner() noexcept nogil:
    cdef uint32_t owner
    cdef uint64_t start = 0
    cdef char state = 0
    cdef pid_t pid = getpid()
    if read_start_time(pid, &start, &state) < 0:
        owner = <uint32_t>pid & OWNER_PID
    else:
        owner = owner_tag(pid, start)
    store_own32(&self_owner, owner)
    return owner


cdef inline uint32_t me() noexcept nogil:
    cdef uint32_t owner = load_own32(&self_owner)
    return owner if owner else find_self_owner()


cdef bint thread_gone(uint32_t tid) noexcept nogil:
    """Whether no thread has this id, or only a zombie. In doubt it lives."""
    cdef uint64_t start = 0
    cdef char state = 0
    if kill(tid, 0) < 0:
        return errno == ESRCH
    return read_start_time(tid, &start, &state) == 0 and (state == ZOMBIE or state == DEAD)


cpdef bint owner_dead(uint32_t owner) noexcept nogil:
    """Whether the process is gone or a zombie. In doubt (no /proc) it lives. About 10 us."""
    cdef uint64_t start = 0
    cdef char state = 0
    cdef pid_t pid = owner & OWNER_PID
    if owner == OWNER_ORPHAN or owner == me():
        return False
    if kill(pid, 0) < 0:
        return errno == ESRCH
    if read_start_time(pid, &start, &state) < 0:
        return kill(pid, 0) < 0 and errno == ESRCH
    return (state == ZOMBIE or state == DEAD
            or owner & OWNER_START and owner_tag(pid, start) != owner)


def own_tag():
    """The owner tag of this process."""
    return me()
