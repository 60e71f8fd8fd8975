# A memfd as one process sees it, and the extents that tile a channel's part of it.
#
# The kernel counts the references: the memory goes when the last process that maps it or holds its
# descriptor is gone, however it went. A memfd is sealed against shrinking, and every page is
# allocated with fallocate before its number is published, and again before it is used after it was
# given back, so a full machine is an error return and never SIGBUS.

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


cdef inline bint is_free(uint32_t holder) noexcept nogil:
    return holder == EXTENT_FREE or holder == EXTENT_EMPTY


cdef inline uint32_t* free_list(Chan* c, uint32_t page) noexcept nogil:
    """The list that the extent at `page` is in while it is free: where its first one stands."""
    if <uint32_t>extent_at(c, page).desc == EXTENT_EMPTY:
        return &c.h.empty_list
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
    """Merge the extent at `next_`, which is in no list, into the FREE or EMPTY one before it."""
    cdef uint32_t pages = pages_of(extent_at(c, page).desc) + pages_of(extent_at(c, next_).desc)
    set_desc(extent_at(c, page), describe(pages, <uint32_t>extent_at(c, page).desc))
    if inside(c, page + pages):
        extent_at(c, page + pages).prev = page
        kill_point("join: the extent behind told")
    else:
        c.h.last = page
        kill_point("join: now the last")


cdef uint32_t extent_before(Chan* c, uint32_t page) noexcept nogil:
    """Lock held. The extent that ends where the one at `page` begins; 0 for none."""
    cdef uint32_t prev = extent_at(c, page).prev
    if prev < page and tiles(c, prev) and prev + pages_of(extent_at(c, prev).desc) == page:
        return prev
    return 0


cdef void extent_free(Chan* c, uint32_t page) noexcept nogil:
    """Lock held. The extent is ours, a dead process's or unlinked; joins it to FREE neighbours.

    Not to EMPTY ones: what was just used is used again first, and needs no system call then.
    """
    cdef extent* e = extent_at(c, page)
    cdef uint32_t after, prev
    if not tiles(c, page):
        return
    after = page + pages_of(e.desc)
    c.h.free_pages += pages_of(e.desc)
    set_desc(e, describe(pages_of(e.desc), EXTENT_FREE))
    if tiles(c, after) and <uint32_t>extent_at(c, after).desc == EXTENT_FREE:
        list_remove(c, free_list(c, after), after)
        join_next(c, page, after)
    prev = extent_before(c, page)
    if prev and <uint32_t>extent_at(c, prev).desc == EXTENT_FREE:
        list_remove(c, free_list(c, prev), prev)
        join_next(c, prev, page)
        page = prev
    list_push(c, free_list(c, page), page)


cdef inline void forget_free(Chan* c, uint32_t pages) noexcept nogil:
    """Lock held. So many pages are FREE no more."""
    c.h.free_pages -= min(pages, c.h.free_pages)
    c.h.fewest = min(c.h.fewest, c.h.free_pages)


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


cdef void extent_stand_back(Chan* c, uint32_t page, uint32_t owner) noexcept nogil:
    """Lock held. Let another heir hold an extent of ours, and be its heir."""
    cdef extent* e = extent_at(c, page)
    cdef uint32_t heir
    cdef int i
    if not tiles(c, page) or <uint32_t>e.desc != owner:
        return
    for i in range(HEIRS):
        heir = e.heir[i]
        if heir and heir != owner and not owner_dead(heir):
            set_desc(e, describe(pages_of(e.desc), heir))
            e.heir[i] = owner       # killed before: we need it no more, and it leaves both places
            kill_point("heir: changed places")
            return


cdef void extent_keep(extent* e) noexcept nogil:
    """Lock held. It is nobody's from now on, until the whole channel goes."""
    if <uint32_t>e.desc == EXTENT_LINKED:
        e.heir[0] = OWNER_ORPHAN        # who takes it leaves it to nobody
    else:
        set_desc(e, describe(pages_of(e.desc), OWNER_ORPHAN))


cdef bint extent_share(Chan* c, uint32_t page) noexcept nogil:
    """Lock held. Be an heir of an extent of ours that is about to be linked; False if we cannot."""
    cdef extent* e = extent_at(c, page)
    cdef int i, room = -1
    if c.flags & CHANNEL_REDELIVER or not tiles(c, page) or <uint32_t>e.desc != me():
        return False
    for i in range(HEIRS):
        if e.heir[i] == me():
            return True
        if e.heir[i] == 0 or owner_dead(e.heir[i]):
            room = i
    if room < 0:
        return False
    e.heir[room] = me()
    kill_point("put: the sender is an heir")
    return True


cdef bint extent_inherit(extent* e, uint32_t parent, uint32_t heir) noexcept nogil:
    """Lock held. What one process holds is another's too; False if it does not hold it any more."""
    cdef int i
    cdef bint held = <uint32_t>e.desc & ~EXTENT_LINKED == parent        # or has it in hand
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
        if not is_free(holder) and not holder & EXTENT_LINKED and holder != alive:
            if owner_dead(holder) and extent_release(c, page, holder):
                freed += 1
                page = 1                    # merging made the walk lose its place
                continue
            alive = <uint32_t>extent_at(c, page).desc   # likely the holder of the next one too
        page += pages_of(extent_at(c, page).desc)
    return freed


cdef int extent_grow(Chan* c, uint32_t pages) noexcept nogil:
    """Lock held. Append free pages, so that there are at least `pages` at the end.

    Killed before npages is published: the pages are backed, and nobody knows.
    """
    cdef channel* h = c.h
    cdef uint32_t old = h.npages, more = old // 4, last = h.last, at = h.last
    while tiles(c, at) and is_free(<uint32_t>extent_at(c, at).desc):
        pages -= min(pages_of(extent_at(c, at).desc), pages - 1)    # they will be joined
        at = extent_before(c, at)
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
    if tiles(c, last) and <uint32_t>extent_at(c, last).desc == EXTENT_EMPTY:
        list_remove(c, &h.empty_list, last)     # first in its list, to be found and joined
        list_push(c, &h.empty_list, last)
    return OK


cdef uint32_t extent_take(Chan* c, uint32_t page, uint32_t pages, uint32_t holder) noexcept nogil:
    """Lock held. Turn the first `pages` of a free extent into one of `holder`'s.

    The page, or 0 if there is no memory for an EMPTY one, which then stays as it is.
    """
    cdef extent* e = extent_at(c, page)
    cdef channel* h = c.h
    cdef uint32_t rest = pages_of(e.desc) - pages, after = page + pages, was = <uint32_t>e.desc
    if was == EXTENT_EMPTY:
        # ... and the first page of the rest. Killed after it: backed, and nobody knows.
        if back_pages(c.view.fd, c.view.origin, page + 1, pages if rest else pages - 1) != OK:
            return 0
        kill_point("take: pages backed again")
    list_remove(c, free_list(c, page), page)
    if was == EXTENT_FREE:
        forget_free(c, pages)
    if rest:
        set_desc(extent_at(c, after), describe(rest, was))
        extent_at(c, after).prev = page
        kill_point("take: the rest told")
        if inside(c, after + rest):
            extent_at(c, after + rest).prev = after
            kill_point("take: the one behind the rest told")
        else:
            h.last = after
            kill_point("take: the rest is the last")
    memset(e.heir, 0, HEIRS * sizeof(uint32_t))     # what lies there may be old payload
    set_desc(e, describe(pages, holder))
    if rest:
        list_push(c, free_list(c, after), after)
    return page


cdef uint32_t make_empty(Chan* c, uint32_t page, uint32_t pages) noexcept nogil:
    """Lock held. Join free extents around the one at `page`, some EMPTY, to at least `pages`.

    The page at which they begin, or 0 if there are not so many, which changes nothing.
    """
    cdef uint32_t first = page, at, prev = extent_before(c, page), total = 0
    while prev and is_free(<uint32_t>extent_at(c, prev).desc):
        first = prev
        prev = extent_before(c, prev)
    at = first
    while total < pages and tiles(c, at) and is_free(<uint32_t>extent_at(c, at).desc):
        total += pages_of(extent_at(c, at).desc)
        at += pages_of(extent_at(c, at).desc)
    if total < pages:
        return 0
    list_remove(c, free_list(c, first), first)
    if <uint32_t>extent_at(c, first).desc == EXTENT_FREE:
        forget_free(c, pages_of(extent_at(c, first).desc))
        set_desc(extent_at(c, first), describe(pages_of(extent_at(c, first).desc), EXTENT_EMPTY))
    while True:
        at = first + pages_of(extent_at(c, first).desc)
        if not tiles(c, at) or not is_free(<uint32_t>extent_at(c, at).desc):
            break
        if <uint32_t>extent_at(c, at).desc == EXTENT_FREE:
            if pages_of(extent_at(c, first).desc) >= pages:
                break
            forget_free(c, pages_of(extent_at(c, at).desc))
        list_remove(c, free_list(c, at), at)
        join_next(c, first, at)
    list_push(c, &c.h.empty_list, first)
    return first


cdef uint32_t empty_find(Chan* c, uint32_t pages, uint32_t holder) noexcept nogil:
    """Lock held. The page of an extent from among those whose pages were given back; 0 if none."""
    cdef uint32_t page = c.h.empty_list, first
    cdef int looked = 0
    while tiles(c, page) and looked < 64 and <uint32_t>extent_at(c, page).desc == EXTENT_EMPTY:
        first = page
        if pages_of(extent_at(c, page).desc) < pages:
            first = make_empty(c, page, pages)
        if first:
            return extent_take(c, first, pages, holder)
        page = extent_at(c, page).list_next
        looked += 1
    return 0


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
    return empty_find(c, pages, holder)


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
    if found[0]:
        return OK
    # Even now none: what was given back could not be backed again.
    return NO_MEMORY if tiles(c, h.empty_list) else CORRUPT


# --- giving memory back -------------------------------------------------------------------------
# What was FREE all through a period is not needed: above a mark it goes back to the kernel, down to
# a reserve. A burst in every period so keeps its memory. Periods are counted, and memory is given
# back, by those who wait in vain, and by puts that come to an end of their chunk.
#
# A piece at the end of a FREE extent is EMPTY before its pages go. Killed in between, they stay,
# and nobody knows. Joined to the EMPTY extent behind it, it makes few of them.

cdef uint32_t WARM_PAGES = 512          # 2 MiB: the reserve
cdef uint32_t TRIM_PAGES = 1536         # 6 MiB: the mark
cdef uint32_t TRIM_STEP = 128          # at a time, with the lock held: a fifth of a millisecond
cdef uint64_t PERIOD_NS = 4_000_000_000


cdef uint32_t split_empty(Chan* c, uint32_t page, uint32_t pages) noexcept nogil:
    """Lock held. Make the last `pages` of a longer FREE extent EMPTY; how many to punch out."""
    cdef channel* h = c.h
    cdef uint32_t rest = pages_of(extent_at(c, page).desc) - pages, at = page + rest
    cdef uint32_t after = at + pages, punch = pages - 1
    cdef extent* e = extent_at(c, at)
    list_remove(c, free_list(c, page), page)
    if tiles(c, after) and <uint32_t>extent_at(c, after).desc == EXTENT_EMPTY:
        list_remove(c, free_list(c, after), after)
        pages += pages_of(extent_at(c, after).desc)
        after = at + pages
        punch += 1
    e.prev = page
    set_desc(e, describe(pages, EXTENT_EMPTY))
    set_desc(extent_at(c, page), describe(rest, EXTENT_FREE))
    if inside(c, after):
        extent_at(c, after).prev = at
        kill_point("trim: the extent behind told")
    else:
        h.last = at
        kill_point("trim: the empty one is the last")
    list_push(c, free_list(c, page), page)
    list_push(c, &h.empty_list, at)
    return punch


cdef bint trim(Chan* c, uint32_t most) noexcept nogil:
    """Lock held. If it is time, give at most so many pages back; whether there are more."""
    cdef channel* h = c.h
    cdef int64_t now
    cdef int k = FREE_LISTS - 1
    cdef uint32_t page, pages, punch
    if h.surplus == 0:
        now = monotonic_ns()
        if <uint64_t>now - h.period_at < PERIOD_NS:
            return False
        h.period_at = now
        if h.fewest > TRIM_PAGES:
            h.surplus = h.fewest - WARM_PAGES
        h.fewest = h.free_pages
        kill_point("trim: a new period")
        if h.surplus == 0:
            return False
    while k > size_class(CHUNK_PAGES) and not tiles(c, h.free_list[k]):
        k -= 1
    page = h.free_list[k]
    # Used meanwhile, or in pieces each of which is hardly a chunk.
    if (h.fewest <= WARM_PAGES or not tiles(c, page)
            or <uint32_t>extent_at(c, page).desc != EXTENT_FREE
            or pages_of(extent_at(c, page).desc) < 2 * CHUNK_PAGES):
        h.surplus = 0
        return False
    pages = min(min(most, h.surplus), h.fewest - WARM_PAGES)
    pages = min(pages, pages_of(extent_at(c, page).desc) - CHUNK_PAGES)
    punch = split_empty(c, page, pages)
    page += pages_of(extent_at(c, page).desc) + 1
    forget_free(c, pages)
    h.surplus -= pages
    kill_point("trim: empty, not yet given back")
    if punch and fallocate(c.view.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           c.view.origin + (<uint64_t>page << PAGE_SHIFT),
                           <uint64_t>punch << PAGE_SHIFT) < 0:
        h.surplus = 0           # they stay, and are found to be backed when they are used
    kill_point("trim: given back")
    return h.surplus != 0


cdef inline void trim_some(Chan* c) noexcept nogil:
    """Lock held. For rare occasions on the way of a message; cheap where there is little memory."""
    if c.h.npages > TRIM_PAGES:
        trim(c, TRIM_STEP // 2)
