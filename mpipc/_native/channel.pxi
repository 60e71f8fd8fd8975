# The message queue: one robust lock, linked chunks of records, extents for large messages.
#
# A put writes its record and commits by storing `tail`; a take commits by storing `head`. Nothing
# is logged. Three rules make recovery a mark and sweep:
#   1. an extent is LINKED before the commit that makes it reachable;
#   2. it is freed only after the commit that makes it unreachable;
#   3. so, under the lock, whatever is LINKED and not reachable is garbage.
#
# Who waits takes a ticket under the lock; who commits calls one ticket under the lock and wakes
# after it. A sleeper that nobody called counts its ticket as called, if no other is left; one that
# was woken must not, or another's wake-up is lost. A ticket too many costs a wake-up that finds
# nobody, after which all tickets given before that commit count as called: whoever holds one of
# them is not asleep, and will find the word changed if it tries to be. For this no number may be
# given twice.

ctypedef struct Bell:
    int read_fd         # -1: this process has closed, or never had, that end
    int write_fd


cdef inline uint64_t place(uint64_t position, uint32_t count) noexcept nogil:
    return (position >> 4) << COUNT_BITS | (count & COUNT_MASK)


cdef inline uint64_t position_of(uint64_t word) noexcept nogil:
    return (word >> COUNT_BITS) << 4


cdef inline uint32_t count_between(uint64_t head, uint64_t tail) noexcept nogil:
    return (<uint32_t>tail - <uint32_t>head) & COUNT_MASK


cdef inline uint32_t number_of(uint64_t head) noexcept nogil:
    """The number of the message at `head`: 1 for the first, after 2^28 messages 1 again."""
    return (<uint32_t>head & COUNT_MASK) + 1


cdef inline uint64_t first_of(uint32_t page) noexcept nogil:
    """The position of a chunk's first record."""
    return (<uint64_t>page << PAGE_SHIFT) + sizeof(extent)


cdef inline uint64_t record_bytes(uint64_t size) noexcept nogil:
    """What an inline message takes up in its chunk."""
    return sizeof(record) + ((size + 15) & ~<uint64_t>15)


cdef inline uint32_t waiting(Chan* c) noexcept nogil:
    """How many messages are in the channel, exactly, without the lock."""
    cdef uint64_t head = load64_acquire(&c.h.head)
    cdef uint64_t tail = load64_acquire(&c.h.tail)
    cdef uint64_t again
    while True:     # head and tail of one instant
        again = load64_acquire(&c.h.head)
        if again == head:
            return count_between(head, tail)
        head = again
        tail = load64_acquire(&c.h.tail)


cdef int channel_format(Chan* c) noexcept nogil:
    """Lock held, memory zeroed. The magic comes last: killed before it, the next formats anew."""
    cdef channel* h = c.h
    cdef int i
    h.version = CHANNEL_VERSION
    h.flags = c.flags
    h.maxsize = c.maxsize
    h.maxpages = c.maxpages
    h.maxbytes = c.maxbytes
    h.npages = 1 + FIRST_CHUNK_PAGES
    h.swept = h.npages
    h.last = 1
    h.read_at = 1
    h.write_at = 1
    extent_at(c, 1).desc = describe(FIRST_CHUNK_PAGES, EXTENT_LINKED)
    h.head = place(PAGE_BYTES + sizeof(extent), 0)
    h.tail = h.head
    for i in range(FREE_LISTS):
        h.free_list[i] = 0
    h.empty_list = 0
    h.free_pages = 0
    kill_point("format: all but the magic")
    store64_release(&h.magic, CHANNEL_MAGIC)
    kill_point("format: done")
    return OK


cdef int channel_open(Chan* c) noexcept nogil:
    """Map the channel, and format it if we are the first. Once per process and channel."""
    cdef int got, r = OK
    cdef channel* h
    if back_pages(c.view.fd, c.view.origin, 0, 1 + FIRST_CHUNK_PAGES) != OK:
        return NO_MEMORY
    if view_reach(&c.view, (1 + FIRST_CHUNK_PAGES) * PAGE_BYTES) != OK:
        return NO_MEMORY
    h = <channel*>c.view.base
    c.h = h
    c.reached = 1 + FIRST_CHUNK_PAGES
    if load64_acquire(&h.magic) != CHANNEL_MAGIC:
        got = robust_lock(&h.lock, True)
        if got == LOCK_UNUSABLE:
            c.h = NULL
            return UNUSABLE
        if h.magic == 0:
            channel_format(c)
        if got == LOCKED:
            robust_unlock(&c.h.lock)
        else:                           # what else is to be repaired takes the doorbell
            robust_unlock_damaged(&c.h.lock)
    if h.magic != CHANNEL_MAGIC or h.version != CHANNEL_VERSION:
        r = CORRUPT
    if r != OK:
        c.h = NULL
    return r


cdef int reach_pages(Chan* c) noexcept nogil:
    """Lock held. Follow the channel's growth, once npages is known to lie within the file."""
    cdef stat_t st
    cdef uint32_t pages = load32_acquire(&c.h.npages)
    cdef uint64_t end = c.view.origin + (<uint64_t>pages << PAGE_SHIFT)
    if pages == c.reached:
        return OK
    if pages < c.reached or pages > c.maxpages:
        return CORRUPT
    if fstat(c.view.fd, &st) < 0:
        return NO_MEMORY
    if <uint64_t>st.st_size < end:
        return CORRUPT
    if view_reach(&c.view, <uint64_t>pages << PAGE_SHIFT) != OK:
        return NO_MEMORY
    c.reached = pages
    return OK


cdef inline void channel_unlock(Chan* c) noexcept nogil:
    robust_unlock(&c.h.lock)


cdef inline int channel_lock(Chan* c, Bell* bell, bint patient) noexcept nogil:
    """OK with the lock held; BUSY, NO_MEMORY, CORRUPT or UNUSABLE without it."""
    cdef int r = OK
    cdef int got = robust_lock(&c.h.lock, patient)
    if got == LOCK_BUSY:
        return BUSY
    if got == LOCK_UNUSABLE:
        return UNUSABLE
    if load32(&c.h.npages) != c.reached:
        r = reach_pages(c)
    if r == OK and got == LOCKED_RECOVER:
        r = recover(c, bell)
    if r != OK and got == LOCKED_RECOVER:
        robust_unlock_damaged(&c.h.lock)
    elif r != OK:
        channel_unlock(c)
    return r


# --- the doorbell -------------------------------------------------------------------------------
# A byte in a socket pair, which also proves that the other end is alive. `bells` counts bytes sent
# and not drained. All of it happens under the lock:
#
#   a put into a channel whose bells is 0 rings, before its commit;
#   a taker about to sleep on the descriptor drains, having seen the channel empty;
#   once somebody has asked for fileno() (`exposed`), so does the take that empties the channel.
#
# So a byte is there whenever messages wait, and, exposed, only then. Killed between ringing and
# committing, the descriptor is readable though nothing is there; whoever looks recovers.
# Only counted bytes are drained, for the socket may also carry descriptors (send_handle).

cdef inline int ring(int fd) noexcept nogil:
    """1, 0 where a byte is of no use or has no room, or NO_MEMORY."""
    cdef char byte = 0
    while fd >= 0 and send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
        if errno != EINTR:
            return 0 if errno == EPIPE or errno == EAGAIN else NO_MEMORY
    return fd >= 0


cdef void drain(Chan* c, int fd) noexcept nogil:
    """Lock held, channel empty. From here on the descriptor turns readable with the next put."""
    cdef char bytes_[64]
    cdef ssize_t n
    while c.h.bells and fd >= 0:
        n = recv(fd, bytes_, min(c.h.bells, <uint32_t>64), MSG_DONTWAIT)
        kill_point("doorbell: bytes read, not yet counted")
        if n <= 0:
            if n == 0 or errno == EAGAIN:
                c.h.bells = 0       # somebody else has read them
            elif errno == EINTR:
                continue
            break
        c.h.bells -= <uint32_t>n
        kill_point("doorbell: drained")


cdef inline void repair(Chan* c, Bell* bell) noexcept nogil:
    """Recover now if somebody died inside, so that the descriptor says what the channel holds."""
    if load32(&c.h.lock) & FUTEX_OWNER_DIED and channel_lock(c, bell, True) == OK:
        channel_unlock(c)


cdef int channel_expose(Chan* c, Bell* bell) noexcept nogil:
    """From now on the reading descriptor is readable exactly while messages wait."""
    cdef int r = channel_lock(c, bell, True)
    if r != OK:
        return r
    if not c.h.exposed:
        store32(&c.h.exposed, 1)
        kill_point("expose: said so, not yet drained")
        if count_between(c.h.head, c.h.tail) == 0:
            drain(c, bell.read_fd)
    channel_unlock(c)
    return OK


# --- recovery -----------------------------------------------------------------------------------

cdef int walk_lane(Chan* c, uint32_t epoch) noexcept nogil:
    """Mark every extent that a waiting message or a chunk of them needs; recount the backlog."""
    cdef channel* h = c.h
    cdef uint64_t position = position_of(h.head), backlog = 0
    cdef uint64_t end = <uint64_t>h.npages << PAGE_SHIFT
    cdef uint32_t left = count_between(h.head, h.tail), jumps = 0
    cdef record* rec
    while left:
        if position > end - sizeof(record):
            return CORRUPT
        rec = <record*>(c.view.base + position)
        if rec.kind == RECORD_JUMP or rec.kind == RECORD_EXTENT:
            if not tiles(c, rec.page):
                return CORRUPT
            extent_at(c, rec.page).epoch = epoch
            kill_point("recover: a message's extent marked")
            if rec.kind == RECORD_JUMP:
                position = rec.size
                jumps += 1
                if jumps > h.npages:
                    return CORRUPT          # the jumps lead in a circle
                continue
            position += sizeof(record)
            backlog += rec.size
        elif rec.kind == RECORD_INLINE and rec.size <= INLINE_MAX:
            position += record_bytes(rec.size)
            backlog += rec.size
        else:
            return CORRUPT
        left -= 1
    store64(&h.backlog, backlog)
    kill_point("recover: backlog counted")
    return OK


cdef int recover(Chan* c, Bell* bell) noexcept nogil:
    """Lock held, its last owner died inside. Idempotent: dying in here leaves it to the next."""
    cdef channel* h = c.h
    cdef uint32_t page = 1, pages, holder, epoch, before = 0, run = 0
    cdef uint32_t head_page, tail_page
    cdef int i, rung, unread = 0
    if h.magic == 0:
        channel_format(c)
    if h.magic != CHANNEL_MAGIC:
        return CORRUPT
    tasks_carry_out(c)
    h.epoch += 1
    if h.epoch == 0:
        h.epoch = 1                 # 0 stands for "not found reachable"
    kill_point("recover: a new epoch")
    epoch = h.epoch
    # Which chunks head and tail are in; where each extent's predecessor is.
    head_page = <uint32_t>(position_of(h.head) >> PAGE_SHIFT)
    tail_page = <uint32_t>(position_of(h.tail) >> PAGE_SHIFT)
    h.read_at = 0
    h.write_at = 0
    kill_point("recover: forgot where the chunks are")
    while page < h.npages:
        if not tiles(c, page):
            return CORRUPT
        pages = pages_of(extent_at(c, page).desc)
        extent_at(c, page).prev = before
        extent_at(c, page).epoch = 0        # a header may lie where a payload was
        kill_point("recover: an extent visited")
        if page <= head_page < page + pages:
            h.read_at = page
        if page <= tail_page < page + pages:
            h.write_at = page
        before = page
        page += pages
    h.last = before
    kill_point("recover: all visited")
    if h.read_at == 0 or h.write_at == 0:
        return CORRUPT
    if h.spare == h.write_at or not tiles(c, h.spare):
        h.spare = 0                 # it was linked in just before the owner died
        kill_point("recover: no spare")
    # Mark.
    extent_at(c, h.read_at).epoch = epoch
    extent_at(c, h.write_at).epoch = epoch
    kill_point("recover: chunks marked")
    if h.spare:
        extent_at(c, h.spare).epoch = epoch
    if walk_lane(c, epoch) != OK:
        return CORRUPT
    # Sweep, and make the free lists anew.
    for i in range(FREE_LISTS):
        h.free_list[i] = 0
        kill_point("recover: a free list emptied")
    h.empty_list = 0
    h.free_pages = 0
    h.fewest = 0                # who gives memory back waits for a period more
    h.surplus = 0
    kill_point("recover: free pages forgotten")
    store32(&h.hand, 0)
    kill_point("recover: the list of those in hand emptied")
    page = 1
    while page < h.npages:
        pages = pages_of(extent_at(c, page).desc)
        holder = <uint32_t>extent_at(c, page).desc
        if extent_at(c, page).epoch == epoch:
            if not holder & EXTENT_LINKED:
                set_desc(extent_at(c, page), describe(pages, EXTENT_LINKED))
            holder = EXTENT_LINKED
        elif c.flags & CHANNEL_REDELIVER and in_hand(c, page):
            list_push(c, &h.hand, page)
        elif is_free(holder):
            pass
        elif (holder & EXTENT_LINKED or owner_dead(holder)) and not has_heir(extent_at(c, page)):
            set_desc(extent_at(c, page), describe(pages, EXTENT_FREE))
            holder = EXTENT_FREE
        if holder == EXTENT_FREE:
            h.free_pages += pages
        if run and holder == <uint32_t>extent_at(c, run).desc:
            join_next(c, run, page)
        elif run:
            list_push(c, free_list(c, run), run)
            run = page if is_free(holder) else 0
        elif is_free(holder):
            run = page
        page += pages
    if run:
        list_push(c, free_list(c, run), run)
    # What the dead one did to the doorbell.
    if bell.read_fd >= 0 and ioctl(bell.read_fd, SIOCINQ, &unread) == 0:
        h.bells = <uint32_t>unread
        kill_point("recover: bells counted")
    elif bell.write_fd >= 0 and ioctl(bell.write_fd, SIOCOUTQ, &unread) == 0:
        h.bells = 1 if unread else 0
        kill_point("recover: bells guessed")
    elif bell.read_fd >= 0 or bell.write_fd >= 0:
        return NO_MEMORY
    if count_between(h.head, h.tail):
        if h.bells == 0 and bell.write_fd >= 0:
            rung = ring(bell.write_fd)
            if rung < 0:
                return rung
            kill_point("recover: rung, not yet counted")
            h.bells = <uint32_t>rung
    elif h.exposed:
        drain(c, bell.read_fd)
    return OK


cdef void call_all(Chan* c, Bell* bell, uint32_t* called, uint32_t given) noexcept nogil:
    """A wake-up found nobody: no holder of a ticket given before that commit is asleep."""
    if channel_lock(c, bell, True) == OK:
        if <int32_t>(given - called[0]) > 0:
            called[0] = given
            kill_point("wake-up: found nobody, all called")
        channel_unlock(c)


# --- put ----------------------------------------------------------------------------------------

ctypedef struct Piece:
    const char* data
    size_t size


ctypedef struct Message:        # one to be put
    const Piece* pieces
    int count
    uint16_t form               # FORM_...
    uint64_t size               # of all pieces
    uint32_t page               # 0, or the extent of ours in which it lies already, all but the
    Chan* of                    # first piece; of this channel


cdef inline void gather(char* to, const Message* message) noexcept nogil:
    cdef int i
    for i in range(message.count):
        memcpy(to, message.pieces[i].data, message.pieces[i].size)
        to += message.pieces[i].size


cdef inline bint is_full(Chan* c, uint64_t size) noexcept nogil:
    """Lock held. Every message counts with its record, so that empty ones are not for nothing."""
    cdef uint32_t present = count_between(c.h.head, c.h.tail)
    if c.maxsize and present >= c.maxsize:
        return True
    return (c.maxbytes != 0 and present != 0
            and c.h.backlog + size + sizeof(record) * present > c.maxbytes)


cdef inline uint64_t capacity(Chan* c, uint32_t page) noexcept nogil:
    """Bytes that the extent at `page` has for its payload."""
    return (<uint64_t>pages_of(extent_at(c, page).desc) << PAGE_SHIFT) - sizeof(extent)


cdef inline bint seems_full(Chan* c) noexcept nogil:
    """Whether a put would have to wait for items to be taken, at one instant, without the lock."""
    return c.maxsize != 0 and waiting(c) >= c.maxsize


cdef inline char* payload(Chan* c, uint32_t page) noexcept nogil:
    return <char*>extent_at(c, page) + sizeof(extent)


cdef inline int shut(Chan* c) noexcept nogil:
    """What `shut` in a header means: nobody can shut a pipe down."""
    return CORRUPT if c.flags & CHANNEL_WAITS_ON_FD else SHUT


cdef int put_message(Chan* c, Bell* bell, const Message* message, uint32_t* page,
                     bint patient) noexcept nogil:
    """Append one message. OK, WOULD_BLOCK, BUSY, COPY or an error.

    COPY: `page[0]` is now an extent of ours; copy the pieces to its payload and call again.
    """
    cdef channel* h = c.h
    cdef uint64_t size = message.size
    cdef uint64_t head, tail, position, end, start
    cdef uint32_t present, chunk, need, given, fresh = 0, filled = page[0]
    cdef bint call
    cdef record* rec
    cdef int r = channel_lock(c, bell, patient)
    if r != OK:
        return r
    h = c.h
    head = h.head
    tail = h.tail
    present = count_between(head, tail)
    if h.shut:
        channel_unlock(c)
        return shut(c)
    if is_full(c, size):
        channel_unlock(c)
        return WOULD_BLOCK
    if present == COUNT_MASK:
        channel_unlock(c)
        return OVERFLOW
    if not filled and message.page and message.of == c and extent_share(c, message.page):
        filled = message.page
        memcpy(payload(c, filled), message.pieces[0].data, message.pieces[0].size)
    elif <int64_t>size > c.inline_max and not filled:
        if size >> PAGE_SHIFT >= c.maxpages:
            r = NO_MEMORY
        else:
            r = extent_alloc(c, pages_for(size), me(), page)
        channel_unlock(c)
        return COPY if r == OK else r
    chunk = h.write_at
    if not tiles(c, chunk):
        channel_unlock(c)
        return CORRUPT
    start = first_of(chunk)
    end = (<uint64_t>chunk + pages_of(extent_at(c, chunk).desc)) << PAGE_SHIFT
    position = position_of(tail)
    if present == 0:
        # Killed between moving head and the commit: an empty channel's place is head's.
        position = position_of(head)
        if position - start > (end - start) // 2:
            position = start        # stay in warm memory
            store64(&h.head, place(position, <uint32_t>head))
            kill_point("put: rewound")
            compiler_fence()
            trim_some(c)
    need = sizeof(record) if filled else <uint32_t>record_bytes(size)
    if position < start or position + sizeof(record) > end:
        channel_unlock(c)
        return CORRUPT
    if position + need + sizeof(record) > end:
        trim_some(c)
        if tiles(c, h.spare) and pages_of(extent_at(c, h.spare).desc) >= FIRST_CHUNK_PAGES:
            fresh = h.spare
        else:
            r = extent_alloc(c, CHUNK_PAGES, EXTENT_LINKED, &fresh)
            if r != OK:
                channel_unlock(c)
                return r
        rec = <record*>(c.view.base + position)
        rec.size = first_of(fresh)
        rec.kind = RECORD_JUMP
        rec.page = fresh
        kill_point("put: jump written")
        position = rec.size
    call = h.get_given != h.get_called and not c.quiet
    if call or h.bells == 0:
        store64(&h.rung_at, monotonic_ns())
        store32(&h.rung_on, sched_getcpu())
        kill_point("put: time of the bell noted")
    if h.bells == 0:
        r = ring(bell.write_fd)
        if r < 0:
            if fresh and fresh != h.spare:
                extent_free(c, fresh)
            channel_unlock(c)
            return r
        kill_point("put: rung, not yet counted")
        h.bells = <uint32_t>r
        kill_point("put: rung, not yet committed")
    rec = <record*>(c.view.base + position)
    rec.size = size
    rec.form = message.form
    kill_point("put: record begun")
    if filled:
        rec.kind = RECORD_EXTENT
        rec.page = filled
        kill_point("put: record names its extent")
        set_desc(extent_at(c, filled),
                 describe(pages_of(extent_at(c, filled).desc), EXTENT_LINKED))
    else:
        rec.kind = RECORD_INLINE
        gather(<char*>(rec + 1), message)
        kill_point("put: message written")
    compiler_fence()
    store64_release(&h.tail, place(position + need, <uint32_t>tail + 1))      # COMMIT
    kill_point("put: committed")
    compiler_fence()
    if fresh:
        h.write_at = fresh
        kill_point("put: chunk entered")
        if h.spare == fresh:
            h.spare = 0
            kill_point("put: spare used")
    store64(&h.backlog, h.backlog + size)
    kill_point("put: backlog counted")
    if call:
        h.get_called += 1
        kill_point("put: a taker called")
    given = h.get_given
    channel_unlock(c)
    kill_point("put: unlocked, nobody woken")
    if call and futex_wake(low_half(&h.tail), 1) == 0:
        call_all(c, bell, &h.get_called, given)
    return OK


cdef uint64_t LONG_BACKLOG = 2 << 20
cdef int64_t CATCH_UP_NS = 50_000


cdef void let_takers_catch_up(Chan* c) noexcept nogil:
    """After a put to an unbounded queue: a moment's pause while takers are busy with a backlog.

    Memory that was used before costs a fifth of fresh pages, and a producer that runs ahead needs
    ever fresh ones. Nobody is waited for who has not taken anything since the last such pause.
    """
    cdef uint64_t head = load64(&c.h.head)
    cdef int64_t end
    if head == load_own64(&c.head_seen):
        return
    store_own64(&c.head_seen, head)
    end = monotonic_ns() + CATCH_UP_NS
    while load64(&c.h.backlog) > LONG_BACKLOG and monotonic_ns() < end:
        sched_yield()


cdef void put_abandon(Chan* c, Bell* bell, uint32_t page) noexcept nogil:
    """Give back an extent that was filled, or half filled, in vain."""
    if page and channel_lock(c, bell, True) == OK:
        extent_free(c, page)
        channel_unlock(c)


# --- take ---------------------------------------------------------------------------------------

ctypedef struct Taken:
    uint64_t size
    uint16_t form           # FORM_...
    uint32_t page           # 0: the message is in the caller's buffer; else an extent, now ours
    const char* data


cdef int take_message(Chan* c, Bell* bell, char* buffer, Taken* out,
                      bint patient) noexcept nogil:
    """Take the oldest message. `buffer` has INLINE_MAX bytes. OK, WOULD_BLOCK, BUSY or an error."""
    cdef channel* h
    cdef uint64_t head, tail, position, end, size
    cdef uint32_t old = 0, fresh = 0, given
    cdef bint call
    cdef record* rec
    cdef int r = channel_lock(c, bell, patient)
    if r != OK:
        return r
    h = c.h
    head = h.head
    tail = h.tail
    if count_between(head, tail) == 0:
        r = shut(c) if h.shut else WOULD_BLOCK
        channel_unlock(c)
        return r
    end = <uint64_t>h.npages << PAGE_SHIFT
    position = position_of(head)
    if position + sizeof(record) > end:
        channel_unlock(c)
        return CORRUPT
    rec = <record*>(c.view.base + position)
    if rec.kind == RECORD_JUMP:
        old = h.read_at
        fresh = rec.page
        position = rec.size
        if not tiles(c, old) or not tiles(c, fresh) or position != first_of(fresh):
            channel_unlock(c)
            return CORRUPT
        rec = <record*>(c.view.base + position)
    out.page = 0
    size = load64(&rec.size)        # once: another may write while we look
    if rec.kind == RECORD_EXTENT:
        out.page = rec.page
        if (not tiles(c, out.page) or <uint32_t>extent_at(c, out.page).desc != EXTENT_LINKED
                or size > capacity(c, out.page)):
            channel_unlock(c)
            return CORRUPT
        out.data = payload(c, out.page)
        position += sizeof(record)
        if rec == &extent_at(c, out.page).again:        # handed back: on to where head was
            fresh = extent_at(c, out.page).onward.page
            position = extent_at(c, out.page).onward.size
            if not leads_on(c, out.page):
                channel_unlock(c)
                return CORRUPT
    elif (rec.kind == RECORD_INLINE and size <= INLINE_MAX
            and position + sizeof(record) + size <= end):
        memcpy(buffer, rec + 1, size)
        kill_point("take: copied, not yet taken")
        out.data = buffer
        position += record_bytes(size)
    else:
        channel_unlock(c)
        return CORRUPT
    out.size = size
    out.form = rec.form
    if c.claim != NULL:
        store64(c.claim, number_of(head))
        kill_point("take: claimed, not yet taken")
    compiler_fence()
    if not c.flags & CHANNEL_JOINABLE:
        store64_release(&h.head, place(position, <uint32_t>head + 1))         # COMMIT
    elif not c.flags & CHANNEL_REDELIVER:
        task_taken(c, place(position, <uint32_t>head + 1))                    # COMMIT in there
    elif out.page:
        hand_take(c, out, buffer, place(position, <uint32_t>head + 1))        # COMMIT in there
    else:
        channel_unlock(c)
        return CORRUPT
    kill_point("take: committed")
    compiler_fence()
    if out.page and not c.flags & CHANNEL_REDELIVER:
        set_desc(extent_at(c, out.page), describe(pages_of(extent_at(c, out.page).desc), me()))
    if fresh:
        h.read_at = fresh
        kill_point("take: chunk entered")
    if old:
        if h.spare == 0:
            h.spare = old
            kill_point("take: chunk kept")
        else:
            extent_free(c, old)
    store64(&h.backlog, h.backlog - min(size, h.backlog))
    kill_point("take: backlog counted")
    if h.exposed and h.bells and count_between(h.head, tail) == 0:
        drain(c, bell.read_fd)
    call = h.put_given != h.put_called
    if call:
        h.put_called += 1
        kill_point("take: a putter called")
    given = h.put_given
    channel_unlock(c)
    kill_point("take: unlocked, nobody woken")
    if call and futex_wake(low_half(&h.head), 1) == 0:
        call_all(c, bell, &h.put_called, given)
    return OK


cdef void take_done(Chan* c, Bell* bell, uint32_t page) noexcept nogil:
    """Free the extent of a taken message. Killed before: a sweep finds it held by the dead."""
    kill_point("take: read, extent not yet freed")
    if c.flags & CHANNEL_REDELIVER and hand_of(c, page) == me() and in_hand(c, page):
        hand_read(c, page)
    elif channel_lock(c, bell, True) == OK:
        extent_release(c, page, me())
        channel_unlock(c)


cdef void take_back(Chan* c, Bell* bell, uint32_t page) noexcept nogil:
    """Of two that this process has of an extent, the taken message is done with, the array is not.

    Whoever sent it shall be its holder again, to send it once more.
    """
    if channel_lock(c, bell, True) == OK:
        extent_stand_back(c, page, me())
        channel_unlock(c)


# --- waiting ------------------------------------------------------------------------------------

cdef inline void give_back(uint32_t given, uint32_t* called, uint32_t ticket) noexcept nogil:
    """Lock held. The only ticket that is left, and its holder is awake: it counts as called."""
    if ticket == called[0] and ticket + 1 == given:
        called[0] = given
        kill_point("wait: ticket given back")


cdef inline bint hung_up(int fd) noexcept nogil:
    """Whether all descriptors of the other end are closed."""
    cdef pollfd p
    cdef timespec now
    p.fd = fd
    p.events = 0
    p.revents = 0
    now.tv_sec = 0
    now.tv_nsec = 0
    return ppoll(&p, 1, &now, NULL) > 0 and p.revents & (POLLHUP | POLLERR) != 0


cdef void trim_waiting(Chan* c, Bell* bell, int64_t slept) noexcept nogil:
    """After a slice in vain: milliseconds of giving memory back, while no message comes."""
    cdef int steps = 32 if slept == TICK_NS else 1
    cdef bint more = True
    while more and steps and channel_lock(c, bell, True) == OK:
        more = count_between(c.h.head, c.h.tail) == 0 and trim(c, TRIM_STEP)
        channel_unlock(c)
        steps -= 1


cdef int64_t BRIEFLY_NS = 1_000_000


cdef int wait_message(Chan* c, Bell* bell, int64_t deadline, bint again) noexcept nogil:
    """Sleep until a message may be there: OK, TIMED_OUT, PAUSED, HUNG_UP or an error.

    Sleeps on `tail`, which is cheaper for both sides; where the channel says so, after a moment on
    the doorbell, since only a descriptor tells at once that the other side is gone. `again`: this
    wait goes on after a pause.
    """
    cdef uint64_t tail = load64_acquire(&c.h.tail)
    cdef bint on_bell = c.flags & CHANNEL_WAITS_ON_FD != 0
    cdef int64_t began
    cdef int r = PAUSED
    if waiting(c) or not again and linger(&c.get_spin, low_half(&c.h.tail), ANY, <uint32_t>tail):
        return OK
    began = monotonic_ns()
    if not on_bell:
        r = wait_on_tail(c, bell, deadline)
    else:
        if not again:
            if hung_up(bell.read_fd):
                return OK if waiting(c) else HUNG_UP
            r = wait_on_tail(c, bell, min(deadline, began + BRIEFLY_NS))
        if r == TIMED_OUT or r == PAUSED and monotonic_ns() - began >= BRIEFLY_NS or again:
            r = wait_on_bell(c, bell, deadline)
    if r == OK:
        sleep_ended(&c.get_spin, began, load64(&c.h.rung_at), load32(&c.h.rung_on))
    return r


cdef int wait_on_bell(Chan* c, Bell* bell, int64_t deadline) noexcept nogil:
    cdef pollfd p
    cdef timespec t
    cdef int64_t left
    cdef int r
    cdef bint rung = False, ours, large
    while True:
        left = slice_until(deadline, TICK_NS)
        if left <= 0:
            return TIMED_OUT
        r = channel_lock(c, bell, True)
        if r != OK:
            return r
        if count_between(c.h.head, c.h.tail):
            channel_unlock(c)
            return OK
        ours = c.h.bells != 0
        large = c.h.npages > TRIM_PAGES
        drain(c, bell.read_fd)
        channel_unlock(c)
        if rung and not ours:
            # The bytes are not ours (send_handle): polling again would spin.
            r = futex_wait(low_half(&c.h.tail), <uint32_t>load64(&c.h.tail), BRIEFLY_NS)
            if r == EINTR:
                return PAUSED
        p.fd = bell.read_fd
        p.events = POLLIN
        p.revents = 0
        t.tv_sec = left // 1_000_000_000
        t.tv_nsec = left % 1_000_000_000
        r = ppoll(&p, 1, &t, NULL)
        kill_point("wait: rung, nothing taken yet")
        if waiting(c):
            return OK
        if r < 0 and errno != EINTR:
            return NO_MEMORY
        if r == 0 and large:
            trim_waiting(c, bell, left)
        if r <= 0:
            return PAUSED
        if p.revents & (POLLHUP | POLLERR):
            return OK if waiting(c) else HUNG_UP
        rung = True         # a put that has yet to commit, or another taker was faster


cdef int wait_on_tail(Chan* c, Bell* bell, int64_t deadline) noexcept nogil:
    cdef uint64_t tail
    cdef uint32_t ticket
    cdef int64_t left
    cdef int r, n
    cdef bint large
    while True:
        left = slice_until(deadline, TICK_NS)
        if left <= 0:
            return TIMED_OUT
        r = channel_lock(c, bell, True)
        if r != OK:
            return r
        tail = c.h.tail
        if count_between(c.h.head, tail) or c.h.shut:
            channel_unlock(c)
            return OK
        ticket = c.h.get_given
        c.h.get_given += 1
        kill_point("wait: ticket taken, lock held")
        channel_unlock(c)
        kill_point("wait: ticket taken, not yet asleep")
        r = futex_wait(low_half(&c.h.tail), <uint32_t>tail, left)
        kill_point("wait: awake, nothing taken yet")
        if r == 0:
            return OK
        n = channel_lock(c, bell, True)
        if n != OK:
            return n
        give_back(c.h.get_given, &c.h.get_called, ticket)
        n = count_between(c.h.head, c.h.tail)
        large = c.h.npages > TRIM_PAGES
        channel_unlock(c)
        if n:
            return OK
        if bell.write_fd < 0 and hung_up(bell.read_fd):
            return OK if waiting(c) else HUNG_UP
        if r == ETIMEDOUT and large:
            trim_waiting(c, bell, left)
        if r != EAGAIN:
            return PAUSED


cdef void pass_on(Chan* c, Bell* bell) noexcept nogil:
    """Somebody who was woken leaves the message where it is: wake the next sleeper in its place."""
    wake_takers(c, bell, 1)


cdef void wake_takers(Chan* c, Bell* bell, uint32_t most) noexcept nogil:
    """Wake sleepers, for as many messages as wait. Killed before: they look when a slice ends."""
    cdef uint32_t call, given
    if channel_lock(c, bell, True) != OK:
        return
    given = c.h.get_given
    call = min(count_between(c.h.head, c.h.tail), given - c.h.get_called)
    call = min(call, most)
    if call:
        c.h.get_called += call
        kill_point("pass on: the next called")
    channel_unlock(c)
    if call and futex_wake(low_half(&c.h.tail), call) < call:
        call_all(c, bell, &c.h.get_called, given)


# Who sleeps for room is woken by the next take, and puts one message: two system calls for each
# message, and on a busy machine two switches. So where takers have much to take, who finds no room
# first sleeps for a moment without a ticket; they call nobody meanwhile.

cdef int64_t NAP_NS = 100_000
cdef uint32_t MUCH_TO_TAKE = 64


cdef int nap(Chan* c, uint64_t head, int64_t deadline) noexcept nogil:
    """OK if takers have made room meanwhile; else PAUSED (a signal), or WOULD_BLOCK."""
    cdef Spin* s = &c.put_spin
    cdef uint32_t nothing = 0
    cdef int64_t left
    if load_own(&s.sleeps_first) > 0:
        store_own(&s.sleeps_first, load_own(&s.sleeps_first) - 1)
        return WOULD_BLOCK
    left = slice_until(deadline, NAP_NS)
    if left > 0 and futex_wait(&nothing, 0, left) == EINTR:
        return PAUSED
    if load64_acquire(&c.h.head) != head:
        store_own(&s.sleeps_next, FEWEST_SLEEPS)
        return OK
    store_own(&s.sleeps_first, load_own(&s.sleeps_next))
    store_own(&s.sleeps_next, min(2 * load_own(&s.sleeps_next), MOST_SLEEPS))
    return WOULD_BLOCK


cdef int wait_room(Chan* c, Bell* bell, uint64_t size, bint lonely,
                   int64_t deadline) noexcept nogil:
    """Sleep until there may be room: OK, TIMED_OUT, PAUSED, HUNG_UP or an error."""
    cdef channel* h = c.h
    cdef uint64_t head = load64_acquire(&h.head)
    cdef uint32_t ticket
    cdef int64_t left
    cdef int r, n
    cdef bint full
    if count_between(head, load64_acquire(&h.tail)) >= MUCH_TO_TAKE:
        r = nap(c, head, deadline)
        if r != WOULD_BLOCK:
            return r
    if spin_while(&c.put_spin, low_half(&h.head), ANY, <uint32_t>head):
        return OK
    while True:
        left = slice_until(deadline, TICK_NS)
        if left <= 0:
            return TIMED_OUT
        r = channel_lock(c, bell, True)
        if r != OK:
            return r
        h = c.h
        head = h.head
        if not is_full(c, size) or h.shut:
            channel_unlock(c)
            return OK
        ticket = h.put_given
        h.put_given += 1
        kill_point("wait for room: ticket taken, lock held")
        channel_unlock(c)
        kill_point("wait for room: ticket taken, not yet asleep")
        if lonely and hung_up(bell.write_fd):
            r = EPIPE
        else:
            r = futex_wait(low_half(&h.head), <uint32_t>head, left)
        if r == 0:
            return OK
        n = channel_lock(c, bell, True)
        if n != OK:
            return n
        h = c.h
        give_back(h.put_given, &h.put_called, ticket)
        full = is_full(c, size)
        channel_unlock(c)
        if r == EPIPE:
            return HUNG_UP
        if not full:
            return OK
        if r != EAGAIN:
            return PAUSED


cdef void wake_all(Chan* c) noexcept nogil:
    """An end was closed: let every sleeper look for itself."""
    if c.h != NULL:
        futex_wake(low_half(&c.h.tail), 0x7fffffff)
        futex_wake(low_half(&c.h.head), 0x7fffffff)


cdef int channel_shut(Chan* c, Bell* bell) noexcept nogil:
    """From now on nothing is put, and takers wait for nothing.

    Who is about to sleep at this moment, or sleeps when we are killed, sees it after its slice.
    """
    cdef int r = channel_lock(c, bell, True)
    if r != OK:
        return r
    store32(&c.h.shut, 1)
    kill_point("shutdown: said so, nobody woken")
    channel_unlock(c)
    wake_all(c)
    return OK


# --- tasks (JoinableQueue) ----------------------------------------------------------------------
# Tasks put so far are tail's count, so a put and its task are one commit; `done` counts the others.
#
# `taker` says how many tasks each process has taken and not done, so that join() can tell when it
# waits for the dead. A take changes `head` and a count there, a task_done() `done` and a count.
# What they are to become is logged first; recovery sees by `head` and `done` if it came to pass.
#
# A task has no name. task_done() is for the caller's own tasks, if it has any; else for those of a
# dead process that join() has named (TAKER_LOST); else nobody can say whose task it was, and one
# more is counted at the end of the table. Who died with more tasks than are counted there has
# certainly left one. Nobody is blamed whose tasks found no room.

cdef inline uint32_t unfinished(channel* h) noexcept nogil:
    return (<uint32_t>load64_acquire(&h.tail) - load32_acquire(&h.done)) & COUNT_MASK


cdef uint32_t TAKER_LOST = 0x80000000u


cdef void tasks_carry_out(Chan* c) noexcept nogil:
    """Lock held. Note what the log says, if it came to pass; as often as one likes."""
    cdef channel* h = c.h
    cdef uint32_t i = h.log - 1
    if h.log == 0:
        return
    if h.head == h.log_head and h.done == h.log_done:
        if c.flags & CHANNEL_REDELIVER:
            if tiles(c, h.log):
                set_desc(extent_at(c, h.log), describe(pages_of(extent_at(c, h.log).desc),
                                                       EXTENT_LINKED | h.log_owner))
        elif i <= <uint32_t>TAKERS:
            h.taker[i].tasks = h.log_tasks
            kill_point("task: noted, its taker not yet")
            store32(&h.taker[i].owner, h.log_owner if h.log_tasks else 0)
            kill_point("task: noted")
    store32_release(&h.log, 0)
    kill_point("task: log closed")


cdef void task_log(Chan* c, uint32_t log, uint32_t owner, uint64_t tasks, uint64_t head,
                   uint32_t done) noexcept nogil:
    """Lock held. Change `head` or `done`, and what is noted of a process or of a message."""
    cdef channel* h = c.h
    done &= COUNT_MASK
    h.log_owner = owner
    h.log_tasks = tasks
    h.log_head = head
    h.log_done = done
    kill_point("task: log begun")
    store32_release(&h.log, log)
    kill_point("task: logged")
    store64_release(&h.head, head)                              # COMMIT of a take or a redelivery
    kill_point("task: head written")
    store32_release(&h.done, done)                                           # COMMIT of task_done()
    kill_point("task: done written")
    tasks_carry_out(c)


cdef void task_taken(Chan* c, uint64_t head) noexcept nogil:
    """Lock held. Commit a take, and note who has the task now."""
    cdef channel* h = c.h
    cdef uint32_t i
    if h.taker[c.taker].owner != me():          # then we have none elsewhere
        i = 0
        while i < <uint32_t>TAKERS and h.taker[i].owner:
            i += 1
        if i == <uint32_t>TAKERS:
            store64_release(&h.head, head)
            return
        c.taker = i
        h.taker[i].tasks = 0
    task_log(c, c.taker + 1, me(), h.taker[c.taker].tasks + 1, head, h.done)


cdef void task_done(Chan* c) noexcept nogil:
    """Lock held. Count a task as done."""
    cdef channel* h = c.h
    cdef uint32_t i = c.taker, owner = me()
    if h.taker[i].owner == owner:
        task_log(c, i + 1, owner, h.taker[i].tasks - 1, h.head, h.done + 1)
    else:
        i = 0
        while i < <uint32_t>TAKERS and not h.taker[i].owner & TAKER_LOST:
            i += 1
        if i < <uint32_t>TAKERS:
            task_log(c, i + 1, h.taker[i].owner, h.taker[i].tasks - 1, h.head, h.done + 1)
        else:
            task_log(c, TAKERS + 1, 0, h.taker[TAKERS].tasks + 1, h.head, h.done + 1)


cdef void tasks_forget(channel* h) noexcept nogil:
    """Lock held, all tasks done: what is still noted was done by others than its takers."""
    cdef int i
    if h.taker[TAKERS].tasks == 0:
        return
    for i in range(TAKERS):
        if h.taker[i].owner and h.taker[i].tasks:
            store32(&h.taker[i].owner, 0)
            kill_point("task: a taker forgotten")
    h.taker[TAKERS].tasks = 0
    kill_point("task: all takers forgotten")


cdef int task_lost(Chan* c, Bell* bell, uint32_t* dead, uint64_t* tasks) noexcept nogil:
    """OK if a dead process has certainly left tasks, and how many at least; WOULD_BLOCK if not."""
    cdef uint32_t owner
    cdef uint64_t others
    cdef int i, r
    repair(c, bell)
    for i in range(TAKERS):
        owner = load32_acquire(&c.h.taker[i].owner)
        if not owner or not owner & TAKER_LOST and not owner_dead(owner):
            continue
        r = channel_lock(c, bell, True)
        if r != OK:
            return r
        others = c.h.taker[TAKERS].tasks
        dead[0] = c.h.taker[i].owner
        tasks[0] = c.h.taker[i].tasks
        if dead[0] == owner and tasks[0] > others:
            store32_release(&c.h.taker[i].owner, owner | TAKER_LOST)
            kill_point("task: the dead named")
            channel_unlock(c)
            tasks[0] -= others
            return OK
        channel_unlock(c)
    return WOULD_BLOCK


cdef void tasks_leave(Chan* c, Bell* bell) noexcept nogil:
    """At a normal end: another may be meant to finish what this process has taken."""
    if c.h.taker[c.taker].owner != me() or channel_lock(c, bell, True) != OK:
        return
    if c.h.taker[c.taker].owner == me():
        store32_release(&c.h.taker[c.taker].owner, OWNER_ORPHAN)
    channel_unlock(c)


cdef int task_finish(Chan* c, Bell* bell) noexcept nogil:
    """OK, WOULD_BLOCK when no task is unfinished, or NOT_OURS."""
    cdef bint last
    cdef int r = channel_lock(c, bell, True)
    if r != OK:
        return r
    if unfinished(c.h) == 0:
        channel_unlock(c)
        return WOULD_BLOCK
    if not c.flags & CHANNEL_REDELIVER:
        task_done(c)
    elif not hand_done(c):
        channel_unlock(c)
        return NOT_OURS
    last = unfinished(c.h) == 0
    if last:
        tasks_forget(c.h)
        store32_release(&c.h.joiners, c.h.joiners + 1)
        kill_point("task: the last, nobody woken")
    channel_unlock(c)
    if last:
        futex_wake(&c.h.joiners, 0x7fffffff)
    return OK


cdef int wait_tasks(Chan* c) noexcept nogil:
    """Sleep until no task is unfinished, or for a slice: OK or PAUSED."""
    cdef uint32_t seen = load32_acquire(&c.h.joiners)
    if unfinished(c.h) == 0:
        return OK
    futex_wait(&c.h.joiners, seen, TICK_NS)
    return OK if load32_acquire(&c.h.joiners) != seen else PAUSED
