# A memfd as one process sees it, and the extents that tile a channel's part of it.
#
# The kernel counts the references: the memory goes when the last process that maps it or holds its
# descriptor is gone, however it went. A memfd is sealed against shrinking, and every page is
# allocated with fallocate before its number is published, so a full machine is an error return and
# never SIGBUS.

cdef int OK = 0
cdef int WOULD_BLOCK = 1       # empty, or full
cdef int BUSY = 2              # somebody holds the lock: come back without the GIL
cdef int COPY = 3              # an extent is ours to fill; then call again
cdef int PAUSED = 4            # a slice is over or a signal came: see to signals, then go on
cdef int TIMED_OUT = 5
cdef int HUNG_UP = 6           # no process holds the other end any more
cdef int NOT_OURS = 7          # only the process that took a message can finish it
cdef int SHUT = 9              # shut down, and if it is about taking, empty
cdef int NO_MEMORY = -1
cdef int CORRUPT = -2
cdef int UNUSABLE = -3         # no robust list
cdef int OVERFLOW = -4         # 2^28 messages are waiting

cdef uint64_t FIRST_WINDOW = 64 << 20
cdef int WINDOWS = 20


# A window maps [origin, origin + size) of the memfd. It only ever grows, by a second, larger
# mapping elsewhere; the old one stays until the end, so pointers into it stay good.
ctypedef struct View:
    char* base
    uint64_t size
    uint64_t origin
    int fd
    int old_count
    char* old_base[20]
    uint64_t old_size[20]


cdef int view_reach(View* v, uint64_t size) noexcept nogil:
    """Make the first `size` bytes addressable."""
    cdef uint64_t want
    cdef void* at
    if size <= v.size:
        return OK
    if v.old_count == WINDOWS:
        return NO_MEMORY
    want = v.size * 2 if v.size else FIRST_WINDOW
    while want < size:
        want *= 2
    at = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, v.fd, v.origin)
    if at == MAP_FAILED:               # little address space is left (RLIMIT_AS): what is needed
        want = (size + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)
        at = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, v.fd, v.origin)
        if at == MAP_FAILED:
            return NO_MEMORY
    if v.base != NULL:
        v.old_base[v.old_count] = v.base
        v.old_size[v.old_count] = v.size
        v.old_count += 1
    store_own_pointer(&v.base, <char*>at)   # read without the lock by who fills an extent
    v.size = want
    return OK


cdef void view_close(View* v) noexcept nogil:
    cdef int i
    if v.base != NULL:
        munmap(v.base, v.size)
    for i in range(v.old_count):
        munmap(v.old_base[i], v.old_size[i])
    v.base = NULL
    v.size = 0
    v.old_count = 0


cdef int back_pages(int fd, uint64_t origin, uint64_t first, uint64_t count) noexcept nogil:
    """Give pages memory. ENOSPC, ENOMEM, EFBIG and the like all mean: there is none.

    In steps, since older kernels undo a call that a signal interrupts: a timer must not starve us.
    Where there is not enough, the steps already made are given back.
    """
    cdef uint64_t step, began = first
    while count:
        step = min(count, <uint64_t>256)
        if fallocate(fd, 0, origin + (first << PAGE_SHIFT), step << PAGE_SHIFT) == 0:
            first += step
            count -= step
        elif errno != EINTR:
            if first > began:
                fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          origin + (began << PAGE_SHIFT), (first - began) << PAGE_SHIFT)
            return NO_MEMORY
    return OK


# One process's handle on one channel.
ctypedef struct Chan:
    channel* h              # NULL until first use
    View view
    uint32_t flags
    uint32_t maxsize
    uint32_t maxpages
    uint64_t maxbytes
    uint32_t reached        # pages known to lie within the file and the window
    Spin get_spin
    Spin put_spin
    int64_t inline_max      # bytes of a message up to which it lies within its chunk
    uint64_t head_seen      # by the last put that found a long backlog
    bint quiet              # puts wake nobody for now
    uint64_t* claim         # where a take notes which message it is about to take, or NULL
    uint32_t taker          # where this process's tasks are noted, if it has any


cdef inline extent* extent_at(Chan* c, uint32_t page) noexcept nogil:
    return <extent*>(load_own_pointer(&c.view.base) + (<uint64_t>page << PAGE_SHIFT))


cdef inline uint64_t describe(uint32_t pages, uint32_t holder) noexcept nogil:
    return <uint64_t>pages << 32 | holder


cdef inline uint32_t pages_of(uint64_t desc) noexcept nogil:
    return <uint32_t>(desc >> 32)


cdef inline uint32_t pages_for(uint64_t size) noexcept nogil:
    return <uint32_t>((size + sizeof(extent) + PAGE_BYTES - 1) >> PAGE_SHIFT)


cdef inline int size_class(uint32_t pages) noexcept nogil:
    """The largest i with 2^i <= pages, as far as there are lists."""
    cdef int i = 0
    while pages > 1 and i < FREE_LISTS - 1:
        pages >>= 1
        i += 1
    return i


cdef inline void set_desc(extent* e, uint64_t desc) noexcept nogil:
    compiler_fence()
    store64(&e.desc, desc)
    kill_point("extent: described")
    compiler_fence()


# The truth is the tiling: desc of each extent, valid between any two stores. The free lists, the
# links in them and `prev` serve only whoever holds the lock, and recovery makes them anew; a link
# that leads outside the pages is as good as the end of its list. Bounds are `reached` and the other
# fields of Chan, which are npages and what else the header says, but nobody else can write to them.

cdef inline bint inside(Chan* c, uint32_t page) noexcept nogil:
    return 0 < page < c.reached


cdef bint tiles(Chan* c, uint32_t page) noexcept nogil:
    """Whether the extent at `page` ends within the pages; all walks stop where it does not."""
    cdef uint32_t pages
    if not inside(c, page):
        return False
    pages = pages_of(extent_at(c, page).desc)
    return 0 < pages <= c.reached - page


cdef inline uint32_t* free_list(Chan* c, uint32_t page) noexcept nogil:
    """The list that the extent at `page` is in while it is free: where its first one stands."""
    return &c.h.free_list[size_class(pages_of(extent_at(c, page).desc))]


cdef void list_push(Chan* c, uint32_t* first, uint32_t page) noexcept nogil:
    cdef extent* e = extent_at(c, page)
    e.list_prev = 0
    e.list_next = first[0]
    if inside(c, first[0]):
        extent_at(c, first[0]).list_prev = page
        kill_point("list: the first one told of the new")
    store32(first, page)            # of `hand` others look at it without the lock
    kill_point("list: begins with the new")


cdef void list_remove(Chan* c, uint32_t* first, uint32_t page) noexcept nogil:
    cdef extent* e = extent_at(c, page)
    if inside(c, e.list_prev):
        extent_at(c, e.list_prev).list_next = e.list_next
        kill_point("list: the one before told")
    else:
        store32(first, e.list_next)
    if inside(c, e.list_next):
        extent_at(c, e.list_next).list_prev = e.list_prev
        kill_point("list: the one after told")


cdef void join_next(Chan* c, uint32_t page, uint32_t next_) noexcept nogil:
    """Merge the extent at `next_`, which is in no list, into the free one before it."""
    cdef uint32_t pages = pages_of(extent_at(c, page).desc) + pages_of(extent_at(c, next_).desc)
    set_desc(extent_at(c, page), describe(pages, EXTENT_FREE))
    if inside(c, page + pages):
        extent_at(c, page + pages).prev = page
        kill_point("join: the extent behind told")
    else:
        c.h.last = page
        kill_point("join: now the last")


cdef void extent_free(Chan* c, uint32_t page) noexcept nogil:
    """Lock held. The extent is ours, a dead process's or unlinked; joins it to free neighbours."""
    cdef extent* e = extent_at(c, page)
    cdef uint32_t after
    if not tiles(c, page):
        return
    after = page + pages_of(e.desc)
    set_desc(e, describe(pages_of(e.desc), EXTENT_FREE))
    if tiles(c, after) and <uint32_t>extent_at(c, after).desc == EXTENT_FREE:
        list_remove(c, free_list(c, after), after)
        join_next(c, page, after)
    if (e.prev < page and tiles(c, e.prev) and <uint32_t>extent_at(c, e.prev).desc == EXTENT_FREE
            and e.prev + pages_of(extent_at(c, e.prev).desc) == page):
        after = page
        page = e.prev
        list_remove(c, free_list(c, page), page)
        join_next(c, page, after)
    list_push(c, free_list(c, page), page)


# A process that forks while it reads an extent leaves that to its child too, as an heir: whoever is
# done strikes itself out, and the extent is free after the last.

cdef bint has_heir(extent* e) noexcept nogil:
    """Lock held, the holder is done or dead. Whether a living heir holds the extent from now on."""
    cdef int i
    for i in range(HEIRS):
        if e.heir[i] and not owner_dead(e.heir[i]):
            set_desc(e, describe(pages_of(e.desc), e.heir[i]))
            e.heir[i] = 0           # killed before: it is struck out when it is done
            kill_point("heir: holds what it inherited")
            return True
    return False


cdef bint extent_release(Chan* c, uint32_t page, uint32_t owner) noexcept nogil:
    """Lock held. `owner` is done with an extent or dead; whether it is free now."""
    cdef extent* e = extent_at(c, page)
    cdef int i
    if not tiles(c, page):
        return False
    for i in range(HEIRS):
        if e.heir[i] == owner:
            e.heir[i] = 0
            kill_point("heir: struck out")
    if <uint32_t>e.desc != owner or has_heir(e):
        return False
    extent_free(c, page)
    return True


cdef void extent_keep(extent* e) noexcept nogil:
    """Lock held. It is nobody's from now on, until the whole channel goes."""
    set_desc(e, describe(pages_of(e.desc), OWNER_ORPHAN))


cdef bint extent_inherit(extent* e, uint32_t parent, uint32_t heir) noexcept nogil:
    """Lock held. What one process holds is another's too; False if it does not hold it any more."""
    cdef int i
    cdef bint held = <uint32_t>e.desc == parent
    if <uint32_t>e.desc == OWNER_ORPHAN:
        return True
    for i in range(HEIRS):
        held |= e.heir[i] == parent
    if not held:
        return False
    for i in range(HEIRS):
        if e.heir[i] == 0 or owner_dead(e.heir[i]):
            e.heir[i] = heir
            kill_point("heir: noted")
            return True
    extent_keep(e)              # more heirs than there is room for
    return True


cdef int sweep_dead(Chan* c) noexcept nogil:
    """Lock held. Free what processes hold that died outside the lock; how many, or CORRUPT."""
    cdef uint32_t page = 1, holder, alive = me()
    cdef int freed = 0
    while page < c.h.npages:
        if not tiles(c, page):
            return CORRUPT
        holder = <uint32_t>extent_at(c, page).desc
        if holder != EXTENT_FREE and not holder & EXTENT_LINKED and holder != alive:
            if owner_dead(holder) and extent_release(c, page, holder):
                freed += 1
                page = 1                    # merging made the walk lose its place
                continue
            alive = <uint32_t>extent_at(c, page).desc   # likely the holder of the next one too
        page += pages_of(extent_at(c, page).desc)
    return freed


cdef int extent_grow(Chan* c, uint32_t pages) noexcept nogil:
    """Lock held. Append free pages, so that the last extent is a free one of at least `pages`.

    Killed before npages is published: the pages are backed, and nobody knows.
    """
    cdef channel* h = c.h
    cdef uint32_t old = h.npages, more = old // 4, last = h.last
    if tiles(c, last) and <uint32_t>extent_at(c, last).desc == EXTENT_FREE:
        pages -= min(pages_of(extent_at(c, last).desc), pages - 1)  # they will be joined
    more = min(max(more, <uint32_t>16), <uint32_t>256)
    more = max(more, pages)
    if old >= c.maxpages or pages > c.maxpages - old:
        return NO_MEMORY
    more = min(more, c.maxpages - old)
    if view_reach(&c.view, <uint64_t>(old + more) << PAGE_SHIFT) != OK:
        return NO_MEMORY
    if back_pages(c.view.fd, c.view.origin, old, more) != OK:
        if back_pages(c.view.fd, c.view.origin, old, pages) != OK:
            return NO_MEMORY
        more = pages
    extent_at(c, old).prev = last if last < old else 0
    kill_point("grow: pages backed, not yet described")
    set_desc(extent_at(c, old), describe(more, EXTENT_FREE))
    store32_release(&h.npages, old + more)
    kill_point("grow: published")
    c.reached = old + more
    compiler_fence()
    h.last = old
    kill_point("grow: the last known")
    extent_free(c, old)
    return OK


cdef uint32_t extent_take(Chan* c, uint32_t page, uint32_t pages, uint32_t holder) noexcept nogil:
    """Lock held. Turn the first `pages` of a free extent into one of `holder`'s."""
    cdef extent* e = extent_at(c, page)
    cdef uint32_t rest = pages_of(e.desc) - pages, after = page + pages
    list_remove(c, free_list(c, page), page)
    if rest:
        set_desc(extent_at(c, after), describe(rest, EXTENT_FREE))
        extent_at(c, after).prev = page
        kill_point("take: the rest told")
        if inside(c, after + rest):
            extent_at(c, after + rest).prev = after
            kill_point("take: the one behind the rest told")
        else:
            c.h.last = after
            kill_point("take: the rest is the last")
    memset(e.heir, 0, HEIRS * sizeof(uint32_t))     # what lies there may be old payload
    set_desc(e, describe(pages, holder))
    if rest:
        list_push(c, free_list(c, after), after)
    return page


cdef uint32_t extent_find(Chan* c, uint32_t pages, uint32_t holder) noexcept nogil:
    """Lock held. The page of an extent from the free lists, last freed first; 0 if none."""
    cdef int k = size_class(pages), looked = 0
    cdef uint32_t page
    while k < FREE_LISTS:
        page = c.h.free_list[k]
        looked = 0
        while tiles(c, page) and looked < 64:
            if <uint32_t>extent_at(c, page).desc != EXTENT_FREE:
                break
            if pages_of(extent_at(c, page).desc) >= pages:
                return extent_take(c, page, pages, holder)
            page = extent_at(c, page).list_next
            looked += 1
        k += 1
    return 0


cdef int extent_alloc(Chan* c, uint32_t pages, uint32_t holder, uint32_t* found) noexcept nogil:
    """Lock held. OK, NO_MEMORY or CORRUPT."""
    cdef int r
    cdef channel* h = c.h
    found[0] = extent_find(c, pages, holder)
    if found[0]:
        return OK
    if h.npages >= 2 * h.swept or pages >= c.maxpages - h.npages:
        h.swept = h.npages      # looked at again once twice as large
        kill_point("alloc: about to look for the dead")
        r = sweep_dead(c)
        if r < 0:
            return r
        if r > 0:
            found[0] = extent_find(c, pages, holder)
            if found[0]:
                return OK
    r = extent_grow(c, pages)
    if r != OK:
        return r
    found[0] = extent_find(c, pages, holder)
    return OK if found[0] else CORRUPT
