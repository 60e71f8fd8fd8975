# Programs for several threads: each a list of operations of the core, and what must be true.
#
# The operations are what the classes of the core do around its functions, but for signals. The same
# programs run under the scheduler (_interleavings.pyx) and on real threads (_stress.pyx). Whichever
# includes this defines violation(), begins(), ends(), ends_late(), close_end(), hangs_up(),
# was_killed() and backed().

cdef enum:
    THREADS = 6                 # the last stands for whoever prepares, and looks afterwards
    MOST_OPS = 16
    MOST_MESSAGES = 1 << 17
    BIGGEST = 70000

cdef enum Code:
    PUT, GET, GET_ALL, POLL, EXPOSE, SELECT, TASK_DONE, JOIN, CLOSE_READ, CLOSE_WRITE,
    SECTION, ACQUIRE, RELEASE, UNDO_ACQUIRE, UNDO_RELEASE, WAIT, NOTIFY, NOTIFY_ALL,
    DO_EVENT_WAIT, DO_EVENT_SET, DO_EVENT_CLEAR, SIZE, RACE, PUT_QUIETLY, SHUT_DOWN,
    PUT_ALLOTTED

CODES = {"put": PUT, "get": GET, "get_all": GET_ALL, "poll": POLL, "expose": EXPOSE,
         "select": SELECT, "task_done": TASK_DONE, "join": JOIN, "close_read": CLOSE_READ,
         "close_write": CLOSE_WRITE, "section": SECTION, "acquire": ACQUIRE, "release": RELEASE,
         "undo_acquire": UNDO_ACQUIRE, "undo_release": UNDO_RELEASE, "wait": WAIT,
         "notify": NOTIFY, "notify_all": NOTIFY_ALL, "event_wait": DO_EVENT_WAIT,
         "event_set": DO_EVENT_SET, "event_clear": DO_EVENT_CLEAR,
         "size": SIZE, "race": RACE, "put_quietly": PUT_QUIETLY, "shut_down": SHUT_DOWN,
         "put_allotted": PUT_ALLOTTED}

ctypedef struct Op:
    int code
    int64_t arg
    int64_t timeout             # ns; negative: none

ctypedef struct World:
    # The program.
    int threads, rounds, crowd
    int count[THREADS]
    Op ops[THREADS][MOST_OPS]
    uint32_t flags, maxsize, units, most_units
    uint64_t maxbytes
    bint yields                 # takers yield the processor before they sleep
    int shared                  # of the threads, the first so many are one process
    bint owned, opened
    # The handles of each thread; threads of one process may share theirs.
    Chan chans[THREADS]
    Chan* chan[THREADS]
    PyObject* door[THREADS]
    Spin spin[THREADS]
    char* text[THREADS]
    # Other shared memory.
    uint32_t lock
    semaphore sem
    event event
    undo_table undo
    condition room
    semaphore room_lock
    # What is so only as long as locks exclude.
    int inside, sections
    int holders, tokens
    # What has come to pass.
    int finished[THREADS]       # operations
    int put_begun[THREADS]
    int ended[THREADS]
    int taking[THREADS]         # may have taken a message, and not yet noted it
    int last_seen[THREADS][THREADS]

cdef World w
cdef unsigned char put_done[THREADS][MOST_MESSAGES]
cdef unsigned char got[THREADS][MOST_MESSAGES]
cdef unsigned char taker_of[THREADS][MOST_MESSAGES]


cdef inline int64_t until(int64_t timeout) noexcept nogil:
    return NEVER if timeout < 0 else 0 if timeout == 0 else monotonic_ns() + timeout


cdef inline unsigned char fill_of(int t, int number) noexcept nogil:
    return <unsigned char>(t * 37 + number * 11 + 1)


cdef int put_one(int t, int64_t size, int64_t deadline):
    """A message of at least 8 bytes, that says who put it as which."""
    cdef Piece piece
    cdef Message message
    cdef int number = w.put_begun[t], r
    cdef char* text = w.text[t]
    size = min(max(size, 8), BIGGEST)
    memset(text, fill_of(t, number), size)
    (<uint32_t*>text)[0] = t
    (<uint32_t*>text)[1] = number
    piece.data = text
    piece.size = size
    message.pieces = &piece
    message.count = 1
    message.form = FORM_BYTES
    message.page = 0
    message.size = size
    w.put_begun[t] += 1
    r = send_message(w.chan[t], <Door>w.door[t], &message, deadline)
    if r == OK:
        put_done[t][number] = 1
    elif r == HUNG_UP:
        put_done[t][number] = 2             # may be there, nobody can read it
    return r


cdef int put_allotted(int t, uint64_t size, int64_t deadline):
    """As an array that is filled where it lies, sent from there, and looked at a little longer."""
    cdef Piece pieces[2]
    cdef Message message
    cdef uint32_t head[4]
    cdef Chan* c = w.chan[t]
    cdef Bell* bell = &(<Door>w.door[t]).bell
    cdef int number = w.put_begun[t], r
    cdef uint64_t i
    cdef char* text
    message.page = 0
    r = channel_lock(c, bell, True)
    if r == OK:
        r = extent_alloc(c, pages_for(size), me(), &message.page)
        channel_unlock(c)
    if r != OK:
        return r
    text = payload(c, message.page)
    memset(head, fill_of(t, number), sizeof(head))
    memset(text, fill_of(t, number), size)
    head[0] = t
    head[1] = number
    pieces[0].data = <char*>head
    pieces[0].size = sizeof(head)
    pieces[1].data = text + sizeof(head)
    pieces[1].size = size - sizeof(head)
    message.pieces = pieces
    message.count = 2
    message.form = FORM_BYTES
    message.of = c
    message.size = size
    w.put_begun[t] += 1
    r = send_message(c, <Door>w.door[t], &message, deadline)
    if r == OK:
        put_done[t][number] = 1
    for i in range(sizeof(head), size):
        if <unsigned char>text[i] != fill_of(t, number):
            violation(b"memory that is looked at was used again")
            break
    take_done(c, bell, message.page)
    return r


cdef void note(int t, const char* text, uint64_t size) noexcept nogil:
    """A message was taken: is it whole, the only one, and in order?

    Only one that is redelivered may come again, and late: its taker was killed.
    """
    cdef uint32_t sender = (<uint32_t*>text)[0], number = (<uint32_t*>text)[1]
    cdef uint64_t i
    cdef unsigned char fill = fill_of(sender, number)
    if size < 8 or sender >= <uint32_t>THREADS or number >= <uint32_t>MOST_MESSAGES:
        violation(b"a message is damaged")
        return
    for i in range(8, size):
        if <unsigned char>text[i] != fill:
            violation(b"a message is damaged")
            return
    got[sender][number] += 1
    if got[sender][number] > 1:
        if not w.flags & CHANNEL_REDELIVER or not was_killed(taker_of[sender][number]):
            violation(b"a message came twice")
    elif <int>number < w.last_seen[t][sender] and not w.flags & CHANNEL_REDELIVER:
        violation(b"messages in another order than they were put")
    taker_of[sender][number] = t
    w.last_seen[t][sender] = number


cdef int get_one(int t, int64_t deadline):
    cdef char buffer[4096]
    cdef Taken taken
    cdef int r
    w.taking[t] = 1
    r = receive(w.chan[t], <Door>w.door[t], buffer, &taken, deadline)
    if r == OK:
        note(t, taken.data, taken.size)
    w.taking[t] = 0
    if r == OK and taken.page:
        take_done(w.chan[t], &(<Door>w.door[t]).bell, taken.page)
    return r


# Exceptions are for the scheduler's programs only: real threads there have no interpreter.

cdef int put_or_end(int t, int64_t size, int64_t deadline):
    try:
        return put_one(t, size, deadline)
    except ShutDown:
        return SHUT


cdef int get_or_end(int t, int64_t deadline):
    try:
        return get_one(t, deadline)
    except ShutDown:
        w.taking[t] = 0
        return SHUT


cdef bint put_quietly(int t, int64_t count):
    """As ConnectionCore._put_some: as many as there is room for; who sleeps is woken at the end."""
    cdef Chan* c = w.chan[t]
    cdef int r = OK
    c.quiet = True
    while count and r == OK:
        r = put_one(t, 0, 0)
        count -= 1
    c.quiet = False
    wake_takers(c, &(<Door>w.door[t]).bell, COUNT_MASK)
    return r == OK


cdef int select_one(int t):
    """As a program that waits with select() and then gets without waiting."""
    cdef pollfd p
    cdef int r = TIMED_OUT
    while r == TIMED_OUT:
        p.fd = (<Door>w.door[t]).bell.read_fd
        p.events = POLLIN
        p.revents = 0
        ppoll(&p, 1, NULL, NULL)
        r = get_one(t, 0)
    return r


cdef bint acquire(semaphore* lock, uint32_t owner, Spin* spin, int64_t deadline) noexcept nogil:
    """As SemLock.acquire."""
    cdef int64_t tick = 0
    cdef uint32_t dead = 0
    cdef int r = PAUSED
    if try_take(&lock.word, owner):
        return True
    if deadline == 0:
        r = TAKEN_FROM_DEAD if take_from_dead(&lock.word, owner, &dead) else TIMED_OUT
    while r == PAUSED:
        r = take_slowly(lock, owner, spin, &tick, deadline, &dead)
    if r == TAKEN_FROM_DEAD:
        w.holders = 0
    return r != TIMED_OUT


cdef bint undo_acquire(int64_t deadline) noexcept nogil:
    """As SemLock.acquire_noted."""
    cdef int64_t tick = 0
    cdef int r
    while True:
        r = undo_take(&w.undo, tick != 0)
        if r == OK:
            return True
        if deadline == 0:
            return False
        r = undo_sleep(&w.undo, &tick, deadline)
        if r == TIMED_OUT:
            return False
        if r == PAUSED:
            undo_reclaim(&w.undo, w.most_units)


cdef bint wait_notified(int t, uint32_t owner, int64_t deadline) noexcept nogil:
    """As ConditionCore.wait, the lock held once."""
    cdef uint64_t mine = 0
    cdef uint32_t crowd = load32(&w.room.crowd)
    cdef int r = PAUSED
    cdef int64_t budget = spin_budget(&w.spin[t])
    cdef int slot = condition_enter(&w.room, &mine, SLOT_SPINNING if budget else SLOT_WAITING)
    if slot < 0:
        fetch_add32(&w.room.crowded, 1)
    give(&w.room_lock, 1)
    while r == PAUSED:
        if slot >= 0:
            r = condition_sleep(&w.room, slot, &mine, &w.spin[t], budget, deadline)
        else:
            r = condition_crowd(&w.room, crowd, deadline)
    acquire(&w.room_lock, owner, &w.spin[t], NEVER)
    if slot < 0:
        fetch_add32(&w.room.crowded, <uint32_t>-1)
    return r == OK


cdef bint perform(int t, Op* op):
    """One operation; whether it came out as it should."""
    cdef bint again
    cdef Chan* c = w.chan[t]
    cdef Bell* bell = &(<Door>w.door[t]).bell
    cdef int64_t deadline = until(op.timeout)
    cdef uint32_t owner = me() if w.owned else 0
    cdef uint32_t dead
    cdef uint64_t tasks
    cdef int r = OK, i, seen
    begins(t, deadline)
    if op.code == PUT:
        if op.timeout == -2:
            r = put_or_end(t, op.arg, deadline)
            if r != OK:
                ends_late(t)
            return r == OK or r == HUNG_UP or r == SHUT
        r = put_one(t, op.arg, deadline)
        return r == OK or r == TIMED_OUT and op.timeout >= 0
    elif op.code == PUT_ALLOTTED:
        r = put_allotted(t, op.arg, deadline)
        return r == OK or r == TIMED_OUT and op.timeout >= 0
    elif op.code == PUT_QUIETLY:
        return put_quietly(t, op.arg)
    elif op.code == GET:
        r = get_one(t, deadline)
        if op.arg:                      # there is one
            return r == OK
        return r == OK or r == TIMED_OUT and op.timeout >= 0
    elif op.code == SIZE:
        return <int64_t>waiting(c) <= op.arg
    elif op.code == GET_ALL:
        while r == OK:
            r = get_or_end(t, NEVER)
            if r == OK:
                ends(t)
        ends_late(t)                    # noticed when a slice of sleep is over, if not before
        return r == HUNG_UP or r == SHUT
    elif op.code == POLL:
        return await_message(c, <Door>w.door[t], deadline) or op.timeout >= 0
    elif op.code == EXPOSE:
        return channel_expose(c, bell) == OK
    elif op.code == SELECT:
        return select_one(t) == OK
    elif op.code == TASK_DONE:
        r = task_finish(c, bell)
        return r == OK or (r == WOULD_BLOCK or r == NOT_OURS) and op.timeout >= 0
    elif op.code == SHUT_DOWN:
        return channel_shut(c, bell) == OK
    elif op.code == JOIN:
        while wait_tasks(c) != OK:
            if w.flags & CHANNEL_REDELIVER:
                look_for_dead(c, bell, False)
            elif task_lost(c, bell, &dead, &tasks) != WOULD_BLOCK:
                return op.timeout >= 0
        return True
    elif op.code == CLOSE_READ:
        bell.read_fd = -1
        close_end(True)
        wake_all(c)
    elif op.code == CLOSE_WRITE:
        bell.write_fd = -1
        close_end(False)
        wake_all(c)
    elif op.code == SECTION:
        if robust_lock(&w.lock, True) == LOCKED_RECOVER:
            w.inside = 0
        if w.inside:
            violation(b"two inside the lock")
        w.inside = 1
        seen = w.sections
        kill_point("test: inside the lock")
        w.sections = seen + 1
        w.inside = 0
        robust_unlock(&w.lock)
    elif op.code == RACE:               # to see that the sanitizer finds it
        w.sections += 1
    elif op.code == ACQUIRE:
        if not acquire(&w.sem, owner, &w.spin[t], deadline):
            return op.timeout >= 0
        if w.most_units == 1:
            w.holders += 1
            if w.holders > 1:
                violation(b"two hold the lock")
            kill_point("test: the lock acquired")
        w.ended[t] += 1
    elif op.code == RELEASE:
        if w.ended[t] <= 0 and w.units:         # the acquire before this one had timed out
            return True
        w.ended[t] -= 1
        if w.most_units == 1:
            w.holders -= 1
        return give(&w.sem, w.most_units)
    elif op.code == UNDO_ACQUIRE:
        if not undo_acquire(deadline):
            return op.timeout >= 0
        w.ended[t] += 1
        kill_point("test: a unit acquired")
    elif op.code == UNDO_RELEASE:
        if w.ended[t] > 0:
            w.ended[t] -= 1
            return undo_give(&w.undo, w.most_units) == OK
    elif op.code == WAIT:
        acquire(&w.room_lock, owner, &w.spin[t], NEVER)
        while w.tokens == 0 and wait_notified(t, owner, deadline):
            pass
        if w.tokens:
            w.tokens -= 1
            r = OK
        else:
            r = TIMED_OUT
        give(&w.room_lock, 1)
        return r == OK or op.timeout >= 0
    elif op.code == NOTIFY or op.code == NOTIFY_ALL:
        acquire(&w.room_lock, owner, &w.spin[t], NEVER)
        w.tokens += op.arg
        condition_notify(&w.room, <uint32_t>op.arg if op.code == NOTIFY else 0x7fffffff,
                         &w.room_lock)
        give(&w.room_lock, 1)
    elif op.code == DO_EVENT_WAIT:
        if load32_acquire(&w.event.word) & EVENT_SET:
            return True
        seen = load32(&w.event.word) >> 2
        again = False
        r = PAUSED
        while r == PAUSED:
            r = event_sleep(&w.event, seen, &w.spin[t], again, deadline)
            again = True
        return r == OK or op.timeout >= 0
    elif op.code == DO_EVENT_SET:
        event_set(&w.event)
    elif op.code == DO_EVENT_CLEAR:
        event_clear(&w.event.word)
    return True


cdef void thread_body(int t) noexcept:
    cdef int i, n
    if w.chan[t].h == NULL and channel_open(w.chan[t]) != OK:
        violation(b"the channel could not be opened")
        return
    for n in range(w.rounds):
        for i in range(w.count[t]):
            if not perform(t, &w.ops[t][i]):
                violation(b"an operation came out in another way than it may")
                return
            ends(t)
            w.finished[t] += 1


cdef void give_back_early(bint early) noexcept:
    """Memory goes back to the kernel whenever anybody looks, and though there is little."""
    global WARM_PAGES, TRIM_PAGES, TRIM_STEP, PERIOD_NS
    WARM_PAGES = 4 if early else 512
    TRIM_PAGES = 8 if early else 1536
    TRIM_STEP = 64 if early else 128
    PERIOD_NS = 0 if early else 4_000_000_000


cdef void load_program(dict program) except *:
    """Note what tests/interleavings/run.py says about a program."""
    cdef int t, i
    threads = program["threads"]
    if not 1 <= len(threads) < THREADS:
        raise ValueError(f"1 to {THREADS - 1} threads, not {len(threads)}")
    w.threads = len(threads)
    w.flags = ((CHANNEL_WAITS_ON_FD if program.get("pipe") else 0)
               | (CHANNEL_JOINABLE if program.get("joinable") or program.get("redeliver") else 0)
               | (CHANNEL_REDELIVER if program.get("redeliver") else 0))
    w.maxsize = program.get("maxsize", 0)
    w.maxbytes = program.get("maxbytes", 0)
    w.units = program.get("units", 1)
    w.most_units = program.get("most_units", w.units)
    w.owned = program.get("owned", w.most_units == 1)
    w.opened = not program.get("unopened", False)
    w.crowd = program.get("crowd", 0)
    w.yields = program.get("yields", False)
    w.shared = program.get("shared", 0)
    w.rounds = program.get("rounds", 1)
    give_back_early(program.get("trimming", False))
    for t, ops in enumerate(threads):
        w.count[t] = len(ops)
        if len(ops) > MOST_OPS:
            raise ValueError(f"{MOST_OPS} operations at most, not {len(ops)}")
        for i, (name, arg, timeout) in enumerate(ops):
            w.ops[t][i].code = CODES[name]
            w.ops[t][i].arg = arg
            w.ops[t][i].timeout = timeout


cdef void reset_world() noexcept nogil:
    """Everything as before the first operation, but for the memory and the ends of the channel."""
    cdef int t, u
    for t in range(THREADS):
        w.chan[t] = &w.chans[0 if t < w.shared else t]
        memset(&w.chans[t].view, 0, sizeof(View))
        w.chans[t].h = NULL
        w.chans[t].flags = w.flags
        w.chans[t].maxsize = w.maxsize
        w.chans[t].maxbytes = w.maxbytes
        w.chans[t].maxpages = 1 << 13
        w.chans[t].inline_max = -1 if w.flags & CHANNEL_REDELIVER else INLINE_MAX
        w.chans[t].head_seen = 0
        w.chans[t].quiet = False
        w.chans[t].claim = NULL
        w.chans[t].taker = 0
        spin_start(&w.chans[t].get_spin)
        if not w.yields:
            w.chans[t].get_spin.sleeps_first = MOST_SLEEPS
        spin_start(&w.chans[t].put_spin)
        spin_start(&w.spin[t])
        memset(&put_done[t], 0, w.put_begun[t])
        memset(&got[t], 0, w.put_begun[t])
        w.finished[t] = w.put_begun[t] = w.ended[t] = w.taking[t] = 0
        for u in range(THREADS):
            w.last_seen[t][u] = -1
    w.lock = 0
    w.sem.word = w.units
    w.event.word = 0
    memset(&w.undo, 0, sizeof(undo_table))
    w.undo.word = w.units
    memset(&w.room, 0, sizeof(condition))
    for t in range(w.crowd):
        w.room.slot[t] = slot_word(me(), t, SLOT_WAITING)
    w.room_lock.word = 1
    w.inside = w.sections = w.holders = w.tokens = 0


cdef const char* tiling(Chan* c) noexcept nogil:
    """Valid between any two stores. `c` is nobody's but whose who looks."""
    cdef uint32_t page = 1
    c.reached = c.h.npages
    while page < c.h.npages:
        if not tiles(c, page):
            return b"the extents do not tile the memory"
        page += pages_of(extent_at(c, page).desc)
    return NULL


cdef bint listed(Chan* c, uint32_t page) noexcept nogil:
    """Whether a free extent is in the list of its size, or of the empty."""
    cdef uint32_t at = free_list(c, page)[0], steps = 0
    while inside(c, at) and at != page and steps < c.h.npages:
        at = extent_at(c, at).list_next
        steps += 1
    return at == page


cdef const char* look_at_memory(Chan* c, bint killed) noexcept nogil:
    """The channel is empty and nobody is in it: what are its pages?"""
    cdef uint32_t page = 1, before = 0, holder = EXTENT_LINKED, last_holder, free_pages = 0
    if tiling(c) != NULL:
        return tiling(c)
    while page < c.h.npages:
        last_holder = holder
        holder = <uint32_t>extent_at(c, page).desc
        if extent_at(c, page).prev != before:
            return b"an extent does not know the one before it"
        if not backed(page, 1 if holder == EXTENT_EMPTY else pages_of(extent_at(c, page).desc)):
            return b"a page that was given back counts as backed"
        if holder == EXTENT_FREE:
            free_pages += pages_of(extent_at(c, page).desc)
        if is_free(holder):
            if last_holder == holder:
                return b"two free extents have not been joined"
            if not listed(c, page):
                return b"a free extent is in no list"
        elif holder & EXTENT_LINKED:
            if page != c.h.read_at and page != c.h.write_at and page != c.h.spare:
                return b"an extent is lost"
        elif not killed:
            return b"an extent is left held"
        before = page
        page += pages_of(extent_at(c, page).desc)
    if c.h.last != before:
        return b"the last extent is not known"
    if c.h.free_pages != free_pages:
        return b"the number of free pages is wrong"
    return NULL


cdef const char* look_at_messages(int killed, int taking) noexcept:
    """When all is over: what is left in the channel, and whether the ledger balances."""
    cdef Chan* c = w.chan[THREADS - 1]
    cdef int t, number, left = 0, missing = 0
    if c.h.lock & FUTEX_TID_MASK:
        return b"the channel is left locked"
    for t in range(w.threads):
        for number in range(w.put_begun[t]):
            left += put_done[t][number] == 1 and not got[t][number]
    if not killed and <int>waiting(c) != left and not hangs_up():
        return b"the count of messages is wrong"
    while get_or_end(THREADS - 1, 0) == OK:
        if w.flags & CHANNEL_REDELIVER:
            task_finish(c, &(<Door>w.door[THREADS - 1]).bell)
    for t in range(THREADS):
        for number in range(w.put_begun[t]):
            if put_done[t][number] == 1 and not got[t][number]:
                missing += 1
            if put_done[t][number] == 0 and got[t][number] and not killed:
                return b"a message came that nobody has put"
    if missing > (0 if w.flags & CHANNEL_REDELIVER else taking):
        return b"a message is lost"
    if count_between(c.h.head, c.h.tail) or c.h.backlog:
        return b"the channel is not empty, or its backlog is wrong"
    return look_at_memory(c, killed)


cdef const char* look_at_rest(int killed) noexcept nogil:
    cdef int t, held = 0, noted = 0, i
    if w.lock & FUTEX_TID_MASK or w.undo.lock & FUTEX_TID_MASK:
        return b"a robust lock is left locked"
    if killed:
        return NULL
    for t in range(w.threads):
        held += w.ended[t]
    for i in range(UNDO_SLOTS):
        noted += <uint32_t>w.undo.slot[i]
    if ((<uint32_t>w.sem.word & VALUE) + held != w.units
            and (<uint32_t>w.undo.word & VALUE) + held != w.units):
        return b"units of a semaphore are lost or invented"
    if <uint32_t>w.undo.word & VALUE and (<uint32_t>w.undo.word & VALUE) + noted != w.units:
        return b"the table of units is wrong"
    for i in range(w.crowd, CONDITION_SLOTS):
        if <uint32_t>w.room.slot[i] & SLOT_STATE:
            return b"a slot of the condition is left"
    return NULL
