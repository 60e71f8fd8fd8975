# Memfds as Python objects: Segment, the channels in one, and the arenas that small objects live in.
#
# An arena is filled by the process that made it, and what is free in it is that process's private
# knowledge: nobody can die holding it. A block is used again only if no other process can ever have
# seen it, that is, if it was never pickled and its process has not forked since. What has been seen
# stays; the kernel frees the arena when the last process that maps it is gone.

cdef unsigned int MFD_NOEXEC_SEAL = 8   # demanded where the sysctl vm.memfd_noexec is 2
cdef uint64_t ARENA_BYTES = 1 << 20
cdef uint64_t ARENA_STEP = 16 << 10
cdef uint64_t OWN_ARENA = 64 << 10      # blocks of this size and more get an arena to themselves
cdef uint64_t SPARE_ARENA = 4 << 20     # ... the last of which is kept, up to this size
cdef enum:
    LINE = 64
    ARENA_LINES = 1 << 14       # of ARENA_BYTES
    BLOCK_LINES = 1 << 10       # of OWN_ARENA

cdef object segments = WeakValueDictionary()    # (device, inode) -> Segment: each mapped once


cdef object out_of_memory(what, size):
    return MemoryError(f"{what}: no shared memory for {size} more bytes "
                       "(machine or cgroup full, a resource limit, or the context's max_bytes)")


@cython.no_gc
cdef class Segment:
    """A memfd that this process holds; closed when nothing here uses it any more."""

    cdef object __weakref__
    cdef readonly int fd
    cdef readonly tuple key

    def __cinit__(self):
        self.fd = -1

    cdef int make(self, const char* name) except -1:
        self.fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)
        if self.fd < 0 and errno == EINVAL:     # a kernel before 6.3
            self.fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
        if self.fd < 0:
            raise OSError(errno, os_strerror(errno))
        if fcntl(self.fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0:
            raise OSError(errno, os_strerror(errno))
        return 0

    cdef tuple identity(self):
        cdef stat_t st
        if self.key is None:
            if fstat(self.fd, &st) < 0:
                raise OSError(errno, os_strerror(errno))
            self.key = (st.st_dev, st.st_ino)
        return self.key

    def handle(self):
        """What to pickle in place of this segment; also makes it known here by its identity."""
        key = self.identity()
        segments[key] = self
        return dup_fd(self.fd), key

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)


cdef int inherit_no_further(int fd) except -1:
    """A descriptor that came with a pickle is closed when this process executes a program."""
    if fcntl(fd, F_SETFD, FD_CLOEXEC) < 0:
        raise OSError(errno, os_strerror(errno))
    return 0


cdef Segment known_segment(handle, int* fd):
    """The segment a handle means if this process has it; else None, and its descriptor."""
    cdef Segment known
    dup, key = handle
    fd[0] = dup.detach()
    known = segments.get(key)
    if known is not None:
        if known.fd != fd[0]:       # spawn hands the same number out once per pickle
            close(fd[0])
        return known
    return None


cdef class Arena(Segment):
    """Memory for locks, values and arrays."""

    cdef char* base
    cdef uint64_t size          # mapped
    cdef uint64_t backed
    cdef uint64_t used
    cdef uint64_t process       # whose arena it is
    cdef bint alone             # it is for one block
    # Free blocks, by their number of lines: the first of each length, and which comes after which.
    # They are known by 1 + the number of their first line; 0 ends a list.
    cdef uint16_t first[BLOCK_LINES]
    cdef uint16_t after[ARENA_LINES]

    cdef int map(self, uint64_t size) except -1:
        cdef void* at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                             self.fd, 0)
        if at == MAP_FAILED:
            raise out_of_memory("mmap", size)
        self.base = <char*>at
        self.size = size
        return 0

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)

    cdef Block take(self, uint64_t size):
        """A zeroed block, or None when the arena is full."""
        cdef uint64_t lines = (size + LINE - 1) // LINE, room = lines * LINE, offset, more
        cdef uint16_t again = 0 if self.alone else self.first[lines - 1]
        if again:
            self.first[lines - 1] = self.after[again - 1]
            offset = (again - 1) * <uint64_t>LINE
            memset(self.base + offset, 0, room)
        else:
            if room > self.size - self.used:
                return None
            offset = self.used
            if offset + room > self.backed:
                more = max(ARENA_STEP, self.backed, offset + room - self.backed)
                more = min((more + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1), self.size - self.backed)
                if back_pages(self.fd, 0, self.backed >> PAGE_SHIFT, more >> PAGE_SHIFT) != OK:
                    raise out_of_memory("fallocate", more)
                self.backed += more
            self.used = offset + room
        return block_in(self, offset, size)

    cdef void give(self, uint64_t offset, uint64_t size) noexcept:
        global spare_arena
        if self.alone:
            if self.size <= SPARE_ARENA:
                spare_arena = self
            return
        cdef uint64_t lines = (size + LINE - 1) // LINE, line = offset // LINE
        self.after[line] = self.first[lines - 1]
        self.first[lines - 1] = <uint16_t>(line + 1)


cdef Arena current_arena = None
cdef Arena spare_arena = None           # free, of one block


cdef Arena new_arena(uint64_t size):
    cdef Arena arena = Arena.__new__(Arena)
    arena.make(b"mpipc-arena")
    arena.map((size + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1))
    arena.process = process_generation
    return arena


cdef Arena arena_alone(uint64_t size):
    """For one block. Memory that was used before costs a fifth of fresh pages."""
    global spare_arena
    cdef Arena arena = spare_arena
    if arena is None or arena.process != process_generation or not size <= arena.size <= 2 * size:
        arena = new_arena(size)
        arena.alone = True
        return arena
    spare_arena = None
    memset(arena.base, 0, arena.used)
    arena.used = 0
    return arena


@cython.no_gc_clear
@cython.final
cdef class Block:
    """A piece of shared memory; exports a writable buffer of `size` bytes.

    Picklable while a process is being spawned, as stock's heap.BufferWrapper is.
    """

    cdef Arena arena
    cdef uint64_t offset
    cdef char* data
    cdef readonly Py_ssize_t size
    cdef uint64_t born          # forks_seen when it was made
    cdef bint seen              # another process may know it

    def __init__(self, *args):
        raise TypeError("use new_block(size)")

    def __dealloc__(self):
        if (self.arena is not None and self.arena.process == process_generation
                and self.born == forks_seen and not self.seen):
            self.arena.give(self.offset, self.size)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)

    def create_memoryview(self):
        """The name that stock's ``sharedctypes`` calls."""
        return memoryview(self)

    def __reduce__(self):
        assert_spawning(self)
        self.seen = True
        return _rebuild_block, (self.arena.handle(), self.arena.size, self.offset, self.size)


cdef Block block_in(Arena arena, uint64_t offset, uint64_t size):
    cdef Block block = Block.__new__(Block)
    block.arena = arena
    block.offset = offset
    block.data = arena.base + offset
    block.size = size
    block.born = forks_seen
    return block


cpdef Block new_block(Py_ssize_t size, uint64_t max_bytes=0):
    """Allocate `size` zeroed bytes of shared memory.

    Parameters
    ----------
    size : int
        In bytes. The block starts on a cache line.
    max_bytes : int
        Refuse a block larger than this; 0 for no cap.

    Raises
    ------
    MemoryError
        There is no memory left, or `size` is above `max_bytes`.
    """
    global current_arena
    cdef Block block
    if size < 0:
        raise ValueError(f"size must not be negative, got {size}")
    if max_bytes and <uint64_t>size > max_bytes:
        raise out_of_memory(f"a block above max_bytes={max_bytes}", size)
    if <uint64_t>size >= OWN_ARENA:
        return arena_alone(size).take(size)
    size = size or 1
    if current_arena is not None and current_arena.process == process_generation:
        block = current_arena.take(size)
        if block is not None:
            return block
    current_arena = new_arena(ARENA_BYTES)
    return current_arena.take(size)


def _rebuild_block(handle, uint64_t arena_size, uint64_t offset, uint64_t size):
    cdef stat_t st
    cdef int fd = -1
    cdef Arena arena = known_segment(handle, &fd)
    cdef Block block
    if arena is None:
        arena = Arena.__new__(Arena)
        arena.fd = fd
        inherit_no_further(fd)
        arena.key = handle[1]
        arena.process = <uint64_t>-1
        arena.map(arena_size)
        segments[arena.key] = arena
    if fstat(arena.fd, &st) < 0:
        raise OSError(errno, os_strerror(errno))
    if offset + size > <uint64_t>st.st_size or offset + size > arena.size:
        raise SegmentCorrupt(f"block {offset}+{size} lies outside its arena")
    block = block_in(arena, offset, size)
    block.seen = True
    return block


cdef class ChannelSegment(Segment):
    """The memfd of a queue (one channel) or of a pipe (one for each direction)."""

    cdef Chan chan[2]
    cdef readonly tuple options     # (flags, maxsize, maxbytes, maxpages, stride)
    cdef object claimed             # what a channel's `claim` points into

    cdef void describe(self):
        cdef int i
        flags, maxsize, maxbytes, maxpages, stride = self.options
        for i in range(2):
            self.chan[i].view.fd = self.fd
            self.chan[i].view.origin = i * <uint64_t>stride
            self.chan[i].flags = flags
            self.chan[i].maxsize = maxsize
            self.chan[i].inline_max = -1 if flags & CHANNEL_REDELIVER else INLINE_MAX
            self.chan[i].maxbytes = maxbytes
            self.chan[i].maxpages = maxpages
            spin_start(&self.chan[i].get_spin)
            spin_start(&self.chan[i].put_spin)

    cdef Chan* open(self, int which) except NULL:
        cdef int r
        if self.chan[which].h == NULL:
            r = channel_open(&self.chan[which])
            if r != OK:
                raise failure(r, 0)
        return &self.chan[which]

    def inspect(self, int which=0):
        """What one channel holds, for tools and tests.

        Returns
        -------
        dict
            The header's fields by their names; ``takers``: how many tasks each process, by its
            pid, has taken and not done; ``extents``: a list of (page, pages, holder), holder being
            ``"free"``, ``"empty"`` (free, its memory given back), ``"linked"`` or the pid of the
            process that holds it.
        """
        cdef Chan* c = self.open(which)
        cdef Bell nobody
        cdef channel* h
        cdef uint32_t page = 1, holder, epoch
        cdef list extents = []
        cdef dict takers
        cdef int r
        cdef bytes settled = PyBytes_FromStringAndSize(NULL, sizeof(channel))
        h = <channel*>PyBytes_AS_STRING(settled)
        nobody.read_fd = -1
        nobody.write_fd = -1
        epoch = c.h.epoch
        with nogil:
            r = channel_lock(c, &nobody, True)
            if r == OK:
                memcpy(h, c.h, sizeof(channel))
                if h.epoch == epoch:
                    channel_unlock(c)
                else:                   # the doorbell is still to be repaired
                    robust_unlock_damaged(&c.h.lock)
        if r != OK:
            raise failure(r, 0)
        takers = {h.taker[i].owner & OWNER_PID: h.taker[i].tasks
                  for i in range(TAKERS) if h.taker[i].owner}
        while page < h.npages and tiles(c, page):
            holder = <uint32_t>extent_at(c, page).desc
            extents.append((page, pages_of(extent_at(c, page).desc),
                            "free" if holder == EXTENT_FREE else
                            "empty" if holder == EXTENT_EMPTY else
                            "linked" if holder & EXTENT_LINKED else holder & OWNER_PID))
            if c.flags & CHANNEL_REDELIVER and in_hand(c, page):
                takers[holder & OWNER_PID] = takers.get(holder & OWNER_PID, 0) + 1
            page += pages_of(extent_at(c, page).desc)
        return {
            "count": count_between(h.head, h.tail), "backlog": h.backlog, "npages": h.npages,
            "maxpages": h.maxpages, "maxsize": h.maxsize, "maxbytes": h.maxbytes,
            "exposed": bool(h.exposed), "bells": h.bells, "spare": h.spare, "epoch": h.epoch,
            "get_tickets": h.get_given - h.get_called, "put_tickets": h.put_given - h.put_called,
            "takers": takers,
            "extents": extents,
        }

    def __reduce__(self):
        return _rebuild_channels, (self.handle(), self.options)

    def __dealloc__(self):
        view_close(&self.chan[0].view)
        view_close(&self.chan[1].view)


cdef ChannelSegment new_channels(const char* name, uint32_t flags, uint32_t maxsize,
                                 uint64_t maxbytes, uint64_t max_bytes):
    cdef ChannelSegment self = ChannelSegment.__new__(ChannelSegment)
    self.make(name)
    cdef rlimit_t limit
    cdef uint64_t stride = CHANNEL_STRIDE, maxpages
    if getrlimit(RLIMIT_FSIZE, &limit) == 0 and <uint64_t>limit.rlim_cur // 2 < stride:
        stride = limit.rlim_cur // 2 & ~(PAGE_BYTES - 1)        # ulimit -f counts memfds too
    maxpages = (max_bytes >> PAGE_SHIFT) + 1 if max_bytes else <uint64_t>1 << 28
    maxpages = max(min(maxpages, stride >> PAGE_SHIFT), <uint64_t>(1 + FIRST_CHUNK_PAGES))
    self.options = (flags, maxsize, maxbytes, maxpages, stride)
    self.describe()
    return self


def _rebuild_channels(handle, tuple options):
    cdef int fd = -1
    cdef ChannelSegment self = known_segment(handle, &fd)
    if self is None:
        self = ChannelSegment.__new__(ChannelSegment)
        self.fd = fd
        inherit_no_further(fd)
        self.key = handle[1]
        self.options = options
        self.describe()
        segments[self.key] = self
    return self


cdef object failure(int code, uint64_t size):
    """The exception for a core function's error code."""
    if code == NO_MEMORY:
        return out_of_memory("message", size)
    if code == CORRUPT:
        return SegmentCorrupt("shared memory of this queue or pipe is damaged: "
                              "some process wrote where it should not")
    if code == SHUT:
        return ShutDown("the queue was shut down")
    if code == OVERFLOW:
        return OverflowError("2**28 - 1 messages are waiting in this queue, the most it can count")
    return OSError(ENOSYS, "the kernel offers no robust futex list (blocked by a seccomp filter?)")


cdef int64_t PROBE_NS = 20_000          # how long a peer that was there is believed to be
cdef uint64_t closings = 0              # ends closed in this process: makes the next send look


@cython.final
cdef class Door:
    """The doorbell of one channel, as far as this process holds its ends open."""

    cdef Bell bell
    cdef int64_t probed             # when the reader was last seen to be there
    cdef uint64_t closings_seen

    def __cinit__(self):
        self.bell.read_fd = -1
        self.bell.write_fd = -1

    cdef bint reader_gone(self) noexcept:
        """Whether every process has closed the reading end; looks at most every PROBE_NS."""
        cdef int64_t now
        if self.bell.read_fd >= 0:
            return False
        now = monotonic_ns()
        if now - self.probed > PROBE_NS or self.closings_seen != closings:
            if hung_up(self.bell.write_fd):
                return True
            self.probed = now
            self.closings_seen = closings
        return False
