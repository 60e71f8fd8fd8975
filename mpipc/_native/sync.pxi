# Locks, semaphores, conditions and events: words in arena blocks.
#
# Lock, RLock, Semaphore and BoundedSemaphore are one 64-bit word:
#
#   bits 0-30   value     units that can be taken; a lock has one
#   bit  31     SLEEPERS  somebody may be asleep on the low half
#   bits 32-63  owner     of a taken lock: its process's tag; 0 for semaphores
#
#   taken     CAS value -> value - 1, owner -> us; whoever has slept keeps SLEEPERS
#   given     CAS value -> value + 1, owner -> 0; wakes one if SLEEPERS, and if nobody was there
#             clears SLEEPERS, provided that nothing else has changed
#   inherited CAS owner -> us, by a sleeper that found the owner dead
#
# Only sleepers look at the owner, once per slice: soon, then seldom, since it costs 100 us. Killed
# between giving and waking: the next slice.

cdef uint32_t VALUE = 0x7fffffff
cdef uint32_t SLEEPERS = 0x80000000u
cdef int64_t FIRST_SLICE_NS = 5_000_000
cdef int64_t NEXT_SLICE_NS = 400_000_000
cdef int MOST_SPINS = 8          # that end with a unit which another takes

cdef int TAKEN_FROM_DEAD = 8

RECURSIVE_MUTEX = 0
SEMAPHORE = 1

# What happens to whoever takes a lock from a dead holder.
cdef int WARNED = 0
cdef int RAISED_AT = 1
cdef int TOLD_NOTHING = 2
OWNER_DEATH = {"warn": WARNED, "raise": RAISED_AT, "ignore": TOLD_NOTHING}


cdef inline bint try_take(uint64_t* word, uint64_t owner) noexcept nogil:
    cdef uint64_t seen = load64(word)
    while <uint32_t>seen & VALUE:
        if cas64(word, seen, (seen - 1) | owner << 32):
            kill_point("acquire: taken at once")
            return True
        seen = load64(word)
    return False


cdef inline bint give(semaphore* s, uint32_t maxvalue) noexcept nogil:
    """Whether there was anything to give back; wakes a sleeper."""
    cdef uint64_t* word = &s.word
    cdef uint64_t seen = load64(word), now
    while True:
        if (<uint32_t>seen & VALUE) >= maxvalue:
            return False
        if seen & SLEEPERS:
            store64(&s.rung, rung_now())
            kill_point("release: time of waking noted")
        now = <uint32_t>seen + 1
        if cas64(word, seen, now):
            break
        seen = load64(word)
    kill_point("release: given, nobody woken")
    if now & SLEEPERS and futex_wake(low_half(word), 1) == 0:
        cas64(word, now, now & VALUE)
        kill_point("release: no sleepers noted")
    return True


cdef int take_slowly(semaphore* s, uint64_t owner, Spin* spin, int64_t* tick,
                     int64_t deadline, uint32_t* dead) noexcept nogil:
    """OK, TAKEN_FROM_DEAD, TIMED_OUT or PAUSED. `tick` is the slice of sleep, 0 at first."""
    cdef uint64_t* word = &s.word
    cdef uint64_t seen, slept = 0
    cdef int64_t left, began
    cdef int r, i
    if tick[0]:
        tick[0] = NEXT_SLICE_NS
        slept = SLEEPERS
    else:
        tick[0] = FIRST_SLICE_NS
        for i in range(MOST_SPINS):
            # A lock's holder does not answer a yield: it works on, for the rest of its time slice.
            if not (spin_while if owner else linger)(spin, low_half(word), VALUE, 0):
                break
            if try_take(word, owner):
                return OK
    while True:
        seen = load64(word)
        if <uint32_t>seen & VALUE:
            if cas64(word, seen, (seen - 1) | slept | owner << 32):
                kill_point("acquire: taken after waiting")
                return OK
            continue
        if not <uint32_t>seen & SLEEPERS:
            if not cas64(word, seen, seen | SLEEPERS):
                continue
            seen |= SLEEPERS
            kill_point("acquire: sleeper noted")
        left = slice_until(deadline, tick[0])
        if left <= 0:
            return TIMED_OUT
        began = monotonic_ns()
        r = futex_wait(low_half(word), <uint32_t>seen, left)
        kill_point("acquire: awake, nothing taken yet")
        slept = SLEEPERS
        if r == 0:
            sleep_was_ended(spin, began, load64(&s.rung))
        if r == EINTR:
            return PAUSED
        if r == ETIMEDOUT:
            if take_from_dead(word, owner, dead):
                kill_point("acquire: inherited")
                return TAKEN_FROM_DEAD
            if not <uint32_t>load64(word) & VALUE:
                return PAUSED


cdef Block checked(Block block, size_t size):
    """The block, if what is to lie in it fits."""
    if <size_t>block.size < size:
        raise SegmentCorrupt(f"{size} bytes are needed, the block has {block.size}")
    return block


cdef bint take_from_dead(uint64_t* word, uint64_t owner, uint32_t* dead) noexcept nogil:
    """Inherit a lock whose holder has died; `dead` is its owner tag. About 10 us."""
    cdef uint64_t seen = load64(word)
    dead[0] = <uint32_t>(seen >> 32)
    if not owner or not dead[0] or <uint32_t>seen & VALUE or not owner_dead(dead[0]):
        return False
    return cas64(word, seen, <uint64_t><uint32_t>seen | owner << 32)


cdef int64_t deadline_of(timeout) except? -1:
    """A stock timeout (seconds, None for ever, below zero for none) as a monotonic deadline."""
    return NEVER if timeout is None else deadline_in(timeout)


cdef int64_t deadline_in(double seconds) except? -1:
    if seconds != seconds:
        raise ValueError("timeout must be a number of seconds, not NaN")
    if seconds <= 0:
        return 0
    if seconds > 1e9:
        return NEVER
    return monotonic_ns() + <int64_t>(seconds * 1e9)


@cython.no_gc_clear
cdef class SemLock:
    """What ``_multiprocessing.SemLock`` offers, over a word in shared memory.

    ``count`` and ``_is_mine`` speak of this handle in this process, as stock's do.
    """

    cdef object __weakref__
    cdef Block block
    cdef semaphore* shared
    cdef uint64_t* word             # its first field
    cdef undo_table* undo             # the same, of a semaphore that gives back what the dead hold
    cdef readonly int kind
    cdef readonly uint32_t maxvalue
    cdef bint owned             # the word carries an owner
    cdef int on_owner_death     # of OWNER_DEATH
    cdef uint32_t inherited     # whom this process took it from, while it holds it; 0 for nobody
    cdef public bint _is_fork_ctx       # refuses to be given to a spawned process
    cdef int count
    cdef unsigned long thread
    cdef uint64_t process
    cdef int64_t looked_at      # when a try last looked whether the holder lives
    cdef Spin spin
    cdef PyObject* next
    cdef PyObject* previous

    SEM_VALUE_MAX = 0x7fffffff

    def __cinit__(self):
        self.process = process_generation
        spin_start(&self.spin)

    cdef int attach(self, Block block, int kind, uint32_t maxvalue, bint owned,
                    int on_owner_death, bint undone) except -1:
        self.on_owner_death = on_owner_death
        self.block = checked(block, sizeof(undo_table) if undone else sizeof(semaphore))
        self.shared = <semaphore*>block.data
        self.word = &self.shared.word
        self.undo = <undo_table*>block.data if undone else NULL
        self.kind = kind
        self.maxvalue = maxvalue
        self.owned = owned
        if owned:
            link_lock(self)
        return 0

    def _open(self, int kind, value, maxvalue, bint owned, on_owner_death="warn", undo=False):
        """Make the shared word. Called by the constructors of the public classes."""
        if on_owner_death != "hang" and on_owner_death not in OWNER_DEATH:
            raise ValueError(
                f"on_owner_death must be 'warn', 'raise' or 'hang', got {on_owner_death!r}")
        if on_owner_death == "hang":        # as with stock, nobody knows who holds it
            owned = False
        if not 0 <= value <= maxvalue <= self.SEM_VALUE_MAX:
            raise ValueError(f"value must be between 0 and {maxvalue}, got {value}")
        self.attach(new_block(sizeof(undo_table) if undo else LINE), kind, maxvalue, owned,
                    OWNER_DEATH.get(on_owner_death, 0), undo)
        store64_release(self.word, value)

    def __dealloc__(self):
        if self.owned and self.word != NULL:
            unlink_lock(self)
            if self.count > 0 and self.process == process_generation:
                leave_orphan(self)

    @cython.final
    cdef inline bint mine(self) noexcept:
        if self.process != process_generation:      # forked: the parent's holds are not ours
            self.process = process_generation
            self.count = 0
        return self.count > 0 and self.thread == PyThread_get_thread_ident()

    @cython.final
    cdef inline void took(self) noexcept:
        self.count += 1
        self.thread = PyThread_get_thread_ident()

    def acquire(self, block=True, timeout=None):
        """Take the lock or a unit.

        Parameters
        ----------
        block : bool
            Whether to wait.
        timeout : float or None
            Seconds to wait at most; None for ever, below zero not at all.

        Returns
        -------
        bool
            Whether it was taken.

        Warns
        -----
        OwnerDiedWarning
            The process that held this lock died without releasing it; the lock is now ours, and
            what it protects may be half changed.

        Raises
        ------
        OwnerDied
            The same, of a lock made with ``on_owner_death="raise"``. The lock is ours too.
        """
        if timeout is None:
            return self.take_at_once() or self.take_slowly(block, NEVER)
        cdef double seconds = timeout
        return self.take_at_once() or self.take_slowly(block, deadline_in(seconds))

    @cython.final
    cdef inline bint take_at_once(self) noexcept:
        if self.mine() and self.kind == 0:
            self.count += 1
            return True
        if self.undo == NULL and try_take(self.word, me() if self.owned else 0):
            self.took()
            return True
        return False

    @cython.final
    cdef inline int take(self) except -1:
        """Take it, however long that takes."""
        if not self.take_at_once():
            self.take_slowly(True, NEVER)
        return 0

    @cython.final
    cdef bint take_slowly(self, bint block, int64_t deadline) except -1:
        cdef uint64_t owner = me() if self.owned else 0
        cdef int64_t tick = 0
        cdef uint32_t dead = 0
        cdef int r
        if self.undo != NULL:
            return self.take_noted(block, deadline)
        if not block or deadline == 0:
            # Who only ever tries must find a dead holder too, though not at every try.
            if self.looked_at + FIRST_SLICE_NS > monotonic_ns():
                return False
            self.looked_at = monotonic_ns()
            if not take_from_dead(self.word, owner, &dead):
                return False
            r = TAKEN_FROM_DEAD
        else:
            r = PAUSED
        while r == PAUSED:
            with nogil:
                r = take_slowly(self.shared, owner, &self.spin, &tick, deadline, &dead)
            if r == PAUSED:
                PyErr_CheckSignals()
        if r == TIMED_OUT:
            return False
        self.took()
        if r == TAKEN_FROM_DEAD:
            self.inherited = dead & OWNER_PID
            tell_of_death(self)
        return True

    cdef bint take_noted(self, bint block, int64_t deadline) except -1:
        """take() of a semaphore that notes who holds what."""
        cdef int64_t tick = 0
        cdef int r
        while True:
            with nogil:
                r = undo_take(self.undo, tick != 0)
            if r == OK:
                self.took()
                return True
            if r != WOULD_BLOCK:
                raise failure(r, 0)
            if not block or deadline == 0:
                if self.looked_at + FIRST_SLICE_NS > monotonic_ns():
                    return False
                self.looked_at = monotonic_ns()
                r = PAUSED
            else:
                with nogil:
                    r = undo_sleep(self.undo, &tick, deadline)
            if r == TIMED_OUT:
                return False
            if r == PAUSED:
                PyErr_CheckSignals()
                with nogil:
                    undo_reclaim(self.undo, self.maxvalue)

    cdef bint give_noted(self) except -1:
        cdef int r
        with nogil:
            r = undo_give(self.undo, self.maxvalue)
        if r != OK and r != WOULD_BLOCK:
            raise failure(r, 0)
        return r == OK

    def release(self):
        """Give the lock or a unit back.

        Raises
        ------
        AssertionError
            An RLock that this thread does not hold.
        ValueError
            A lock or a bounded semaphore released more often than acquired.
        """
        self.give_back()

    @cython.final
    cdef inline int give_back(self) except -1:
        if self.kind == 0:
            if not self.mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self.count > 1:
                self.count -= 1
                return 0
        elif self.process != process_generation:
            self.mine()
        self.inherited = 0
        if not self.give_noted() if self.undo != NULL else not give(self.shared, self.maxvalue):
            raise ValueError("semaphore or lock released too many times")
        self.count -= 1
        return 0

    def _adopt(self):
        """A taken unit that is nobody's is now held by this process. With undo=True only."""
        self.hand(True)

    def _disown(self):
        """A unit that this process holds is nobody's, and outlives it. With undo=True only."""
        self.hand(False)

    cdef int hand(self, bint adopt) except -1:
        cdef int r
        if self.undo == NULL:
            raise TypeError("this semaphore does not know who holds its units")
        with nogil:
            r = undo_hand(self.undo, adopt)
        if r != OK:
            raise failure(r, 0)
        return 0

    def __enter__(self):
        self.take()
        return True

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        self.give_back()

    def _count(self):
        """How often this process holds it through this handle."""
        self.mine()
        return self.count

    def _is_mine(self):
        """Whether the calling thread was the last here to take it, and it is still held."""
        return self.mine()

    def _get_value(self):
        """Units that can be taken now."""
        return <uint32_t>load64_acquire(self.word) & VALUE

    def _is_zero(self):
        return (<uint32_t>load64_acquire(self.word) & VALUE) == 0

    def _after_fork(self):
        self.count = 0

    def locked(self):
        """Whether somebody holds it (stock: from 3.14)."""
        return (<uint32_t>load64_acquire(self.word) & VALUE) == 0

    @property
    def _semlock(self):
        """Stock's wrapper keeps the primitive here; ours is both."""
        return self

    @property
    def handle(self):
        """A number that tells this primitive from others in this process."""
        return <size_t>self.word

    @property
    def name(self):
        """Always None: nothing here has a name in the file system."""
        return None

    @property
    def inherited_from(self):
        """The process from which this lock passed to us when it died; None once we release it."""
        return self.inherited or None

    def __getstate__(self):
        assert_spawning(self)
        if self._is_fork_ctx:
            raise RuntimeError(
                "A SemLock created in a fork context cannot be given to a process that is spawned: "
                "make it with the context that starts the process")
        return (self.block, self.kind, self.maxvalue, self.owned, self.on_owner_death,
                self.undo != NULL)

    def __setstate__(self, tuple state):
        block, kind, maxvalue, owned, on_owner_death, undo = state
        self.attach(block, kind, maxvalue, owned, on_owner_death, undo)


cdef SemLock plain_lock(lock):
    """The lock, if nobody has overridden what it does; None for what else may be a lock."""
    if not isinstance(lock, SemLock):
        return None
    for name in ("acquire", "release", "__enter__", "__exit__"):
        if (getattr(type(lock), name) is not getattr(SemLock, name)
                or name in getattr(lock, "__dict__", ())):
            return None
    return lock


cdef int tell_of_death(SemLock lock) except -1:
    """Tell who has inherited a lock; where warnings are errors, give it back first."""
    if lock.on_owner_death == TOLD_NOTHING:
        return 0
    message = (f"process {lock.inherited} died holding {lock!r}; it is now yours, and what it "
               "protects may be half changed")
    if lock.on_owner_death == RAISED_AT:
        raise OwnerDied(message, lock.inherited)
    try:
        warnings.warn(message, OwnerDiedWarning, stacklevel=1)  # no frame of ours stands between
    except OwnerDiedWarning:
        lock.release()
        raise
    return 0


# A lock that its process holds when it ends normally stays held: another may be meant to release
# it, as with stock. Its word must then no longer name a process whose death counts.

cdef PyObject* lock_list = NULL


cdef void link_lock(SemLock lock) noexcept:
    global lock_list
    lock.previous = NULL
    lock.next = lock_list
    if lock_list != NULL:
        (<SemLock>lock_list).previous = <PyObject*>lock
    lock_list = <PyObject*>lock


cdef void unlink_lock(SemLock lock) noexcept:
    global lock_list
    if lock.previous != NULL:
        (<SemLock>lock.previous).next = lock.next
    else:
        lock_list = lock.next
    if lock.next != NULL:
        (<SemLock>lock.next).previous = lock.previous


cdef void leave_orphan(SemLock lock) noexcept:
    cdef uint64_t seen = load64(lock.word)
    if lock.on_owner_death == TOLD_NOTHING:
        return      # a lock of ours: a process that ends in the middle is as good as killed
    while <uint32_t>(seen >> 32) == me():
        if cas64(lock.word, seen, <uint64_t><uint32_t>seen | <uint64_t>OWNER_ORPHAN << 32):
            return
        seen = load64(lock.word)


def release_orphans():
    """At a normal exit: whatever this process still holds stays held, as with stock."""
    cdef PyObject* at = lock_list
    while at != NULL:
        if (<SemLock>at).count > 0 and (<SemLock>at).process == process_generation:
            leave_orphan(<SemLock>at)
        at = (<SemLock>at).next


# --- Condition ------------------------------------------------------------------------------------

cdef inline uint64_t slot_word(uint32_t owner, uint32_t place_, uint32_t state) noexcept nogil:
    return <uint64_t>owner << 32 | (place_ << 2) | state


cdef inline uint64_t notified(uint64_t word) noexcept nogil:
    return (word & ~<uint64_t>SLOT_STATE) | SLOT_NOTIFIED


cdef int condition_enter(condition* c, uint64_t* mine, uint32_t state) noexcept nogil:
    """Claim a slot; its index, or -1 when all are taken by the living."""
    cdef uint64_t seen
    cdef int i, pass_
    mine[0] = slot_word(me(), fetch_add32(&c.next, 1), state)
    for pass_ in range(2):
        for i in range(CONDITION_SLOTS):
            seen = load64(&c.slot[i])
            if <uint32_t>seen & SLOT_STATE:
                if pass_ == 0 or not owner_dead(<uint32_t>(seen >> 32)):
                    continue
            if cas64(&c.slot[i], seen, mine[0]):
                kill_point("condition: slot claimed")
                return i
    return -1


cdef int condition_sleep(condition* c, int i, uint64_t* word, Spin* spin, int64_t budget,
                         int64_t deadline) noexcept nogil:
    """OK once notified, TIMED_OUT or PAUSED; the slot is free again after the first two.

    The slot was claimed with `word`, as SPINNING if the `budget` of ns for that is not 0.
    """
    cdef uint64_t* slot = &c.slot[i]
    cdef uint64_t mine = word[0]
    cdef int64_t left, began
    cdef int r = 0
    if (<uint32_t>mine & SLOT_STATE) == SLOT_SPINNING and not spin_for(
            spin, budget, low_half(slot), ANY, <uint32_t>mine):
        word[0] = mine - (SLOT_SPINNING - SLOT_WAITING)
        if cas64(slot, mine, word[0]):
            kill_point("condition: spun in vain")
            mine = word[0]
    while True:
        if load64_acquire(slot) != mine:
            kill_point("condition: notified, slot not yet left")
            store64_release(slot, 0)
            kill_point("condition: slot left")
            return OK
        left = slice_until(deadline, TICK_NS)
        if left <= 0:
            if cas64(slot, mine, 0):
                kill_point("condition: gave up waiting")
                return TIMED_OUT
            continue                    # notified at the last moment
        began = monotonic_ns()
        r = futex_wait(low_half(slot), <uint32_t>mine, left)
        if r == 0:
            sleep_was_ended(spin, began, load64(&c.rung))
        if (r == EINTR or r == ETIMEDOUT and left == TICK_NS) and load64_acquire(slot) == mine:
            return PAUSED


cdef int condition_crowd(condition* c, uint32_t seen, int64_t deadline) noexcept nogil:
    """Wait without a slot: any notify wakes all who do, some of them for nothing."""
    cdef int64_t left = slice_until(deadline, TICK_NS)
    if load32_acquire(&c.crowd) != seen:
        return OK
    if left <= 0:
        return TIMED_OUT
    futex_wait(&c.crowd, seen, left)
    return PAUSED


cdef bint queue_at(semaphore* lock) noexcept nogil:
    """Whether the next release will wake one who sleeps on this lock."""
    cdef uint64_t seen
    while lock != NULL:
        seen = load64(&lock.word)
        if <uint32_t>seen & VALUE:
            break
        if seen & SLEEPERS:
            return True
        if cas64(&lock.word, seen, seen | SLEEPERS):
            kill_point("notify: the lock says that somebody sleeps")
            return True
    return False


cdef bint condition_wake(condition* c, int i, uint64_t word, semaphore* lock) noexcept nogil:
    """Tell the waiter in slot `i`, which held `word`; whether it is sure to be alive.

    It cannot go on before it has the lock. So who sleeps sleeps on, until that is released.
    """
    cdef uint64_t* slot = &c.slot[i]
    cdef int k
    if (<uint32_t>word & SLOT_STATE) == SLOT_SPINNING:
        for k in range(LOCK_SPINS):
            if load64_acquire(slot) != notified(word):
                return True
            cpu_relax()
    elif queue_at(lock) and futex_requeue(
            low_half(slot), <uint32_t>notified(word), low_half(&lock.word)) > 0:
        return True
    return futex_wake(low_half(slot), 1) > 0


cdef uint32_t condition_notify(condition* c, uint32_t n, semaphore* lock) noexcept nogil:
    """Wake the n that have waited longest; how many. A dead waiter's wake-up goes to the next.

    `lock`: the condition's, which the caller holds; NULL where it is no word of ours.
    """
    cdef uint64_t seen, oldest = 0
    cdef uint32_t done = 0
    cdef int i, best
    while done < n:
        best = -1
        for i in range(CONDITION_SLOTS):
            seen = load64(&c.slot[i])
            if <uint32_t>seen & SLOT_OCCUPIED and (
                    best < 0 or <int32_t>(<uint32_t>seen - <uint32_t>oldest) < 0):
                best = i
                oldest = seen
        if best < 0:
            break
        if (<uint32_t>oldest & SLOT_STATE) == SLOT_WAITING:
            store64(&c.rung, rung_now())
            kill_point("notify: time noted")
        if not cas64(&c.slot[best], oldest, notified(oldest)):
            continue
        kill_point("notify: noted, nobody woken")
        if not condition_wake(c, best, oldest, lock) and owner_dead(<uint32_t>(oldest >> 32)):
            cas64(&c.slot[best], notified(oldest), 0)
            kill_point("notify: a dead waiter's slot freed")
            continue
        done += 1
    if done < n and load32(&c.crowded):
        fetch_add32(&c.crowd, 1)
        kill_point("notify: crowd told, nobody woken")
        futex_wake(&c.crowd, 0x7fffffff)
    return done


cdef class ConditionCore:
    """The waiting room of a condition: who sleeps, in which order, and who was notified."""

    cdef readonly Block block
    cdef condition* c
    cdef Spin spin
    cdef object lock
    cdef SemLock plain          # the lock, if no method of it is overridden

    def _open(self, Block block=None):
        """Make the waiting room, or enter the one in `block`."""
        self.block = checked(block, sizeof(condition)) if block else new_block(sizeof(condition))
        block = self.block
        self.c = <condition*>block.data
        spin_start(&self.spin)

    @property
    def _lock(self):
        """The lock that those who wait have given back."""
        return self.lock

    @_lock.setter
    def _lock(self, lock):
        self.lock = lock
        self.plain = plain_lock(lock)

    def __enter__(self):
        if self.plain is None:
            return self.lock.__enter__()
        self.plain.take()
        return True

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if self.plain is None:
            return self.lock.__exit__(exc_type, exc_value, traceback)
        self.plain.give_back()

    cdef inline semaphore* queue(self) noexcept:
        """The lock's word, if who sleeps here may sleep there instead."""
        if self.plain is None or self.plain.undo != NULL or self.plain.maxvalue != 1:
            return NULL
        return self.plain.shared

    cdef bint held(self) except -1:
        return self.lock._semlock._is_mine() if self.plain is None else self.plain.mine()

    cdef int holds(self) except -1:
        """How often this process has taken the lock."""
        return self.lock._semlock._count() if self.plain is None else self.plain.count

    cdef int give_back(self, int times) except -1:
        cdef int i
        for i in range(times):
            if self.plain is None:
                self.lock.release()
            else:
                self.plain.give_back()
        return 0

    cdef int take(self, int times) except -1:
        cdef int i
        for i in range(times):
            if self.plain is None:
                self.lock.acquire()
            else:
                self.plain.take()
        return 0

    def wait(self, timeout=None):
        """Release the lock, sleep until notified, take the lock again.

        Returns
        -------
        bool
            False if `timeout` seconds passed first.
        """
        assert self.held(), "must acquire() condition before using wait()"
        cdef int64_t deadline = deadline_of(timeout)
        cdef uint64_t mine = 0
        cdef uint32_t crowd = load32(&self.c.crowd)
        cdef int64_t budget = spin_budget(&self.spin)
        cdef int r, slot, count = self.holds()
        slot = condition_enter(self.c, &mine, SLOT_SPINNING if budget else SLOT_WAITING)
        if slot < 0:
            fetch_add32(&self.c.crowded, 1)
            kill_point("condition: joined the crowd")
        try:
            self.give_back(count)
            try:
                while True:
                    with nogil:
                        if slot >= 0:
                            r = condition_sleep(self.c, slot, &mine, &self.spin, budget,
                                                deadline)
                        else:
                            r = condition_crowd(self.c, crowd, deadline)
                    if r != PAUSED:
                        return r == OK
                    PyErr_CheckSignals()
            finally:
                self.take(count)
        except BaseException:
            # A signal handler raised: leave, and let a notify that came meanwhile go to another.
            if slot >= 0 and not cas64(&self.c.slot[slot], mine, 0):
                if load64(&self.c.slot[slot]) == notified(mine):
                    store64_release(&self.c.slot[slot], 0)
                    condition_notify(self.c, 1, NULL)
            raise
        finally:
            if slot < 0:
                fetch_add32(&self.c.crowded, <uint32_t>-1)

    def notify(self, n=1):
        """Wake the `n` that have waited longest. The lock must be held."""
        assert self.held(), "lock is not owned"
        cdef uint32_t most = <uint32_t>min(max(n, 0), 0x7fffffff)
        if most:
            condition_notify(self.c, most, self.queue())

    def notify_all(self):
        """Wake all that wait. The lock must be held."""
        assert self.held(), "lock is not owned"
        condition_notify(self.c, 0x7fffffff, self.queue())

    def _wake_all(self):
        """Notify all; how many are sure to wake: those without a slot are not among them."""
        return condition_notify(self.c, 0x7fffffff, self.queue())

    def _waiters(self):
        """How many wait now."""
        cdef int i, n = 0
        for i in range(CONDITION_SLOTS):
            if <uint32_t>load64(&self.c.slot[i]) & SLOT_OCCUPIED:
                n += 1
        return n + load32(&self.c.crowded)


# --- Barrier --------------------------------------------------------------------------------------
# Its logic is in mechanisms/shm_barrier.py; here is who is inside. All under the barrier's lock.
#
# Whoever comes takes a seat and notes the round. One store, `rounds`, releases all that wait in
# this round; they leave when they come to it, while others already wait in the next. Who sits in
# an earlier round has been released; whose seat says TURNED_AWAY has not.

cdef uint32_t ROUND = 0x7fffffff
cdef uint32_t TURNED_AWAY = 0x80000000u

SEATED = 0
RELEASED = 1
SENT_AWAY = 2


cdef class Seats:
    """Who is inside a barrier.

    Parameters
    ----------
    block : Block
        Where the seats are: 32-bit words, of which the first is not ours. The second counts the
        rounds, then each seat has two: its owner's tag, 0 if it is free, and the round.
    """

    cdef Block block
    cdef uint32_t* rounds
    cdef uint32_t* seat
    cdef int seats

    def __init__(self, Block block):
        self.block = checked(block, 4 * sizeof(uint32_t))
        self.rounds = <uint32_t*>self.block.data + 1
        self.seat = self.rounds + 1
        self.seats = <int>(self.block.size // (2 * sizeof(uint32_t))) - 1

    @cython.final
    cdef bint waits(self, int i) noexcept:
        """Whether somebody sits there who waits in this round."""
        return (load32(&self.seat[2 * i]) != 0
                and load32(&self.seat[2 * i + 1]) == load32(self.rounds) & ROUND)

    def waiting(self):
        """How many wait in this round."""
        cdef int i, n = 0
        for i in range(self.seats):
            n += self.waits(i)
        return n

    def inside(self):
        """The tags of those who wait in this round, in a list; of each process once."""
        cdef int i
        return [*dict.fromkeys([load32(&self.seat[2 * i])
                                for i in range(self.seats) if self.waits(i)])]

    def enter(self):
        """Take a seat; its number, or -1 if all are taken."""
        cdef int i
        for i in range(self.seats):
            if load32(&self.seat[2 * i]) == 0:
                store32(&self.seat[2 * i + 1], load32(self.rounds) & ROUND)
                kill_point("barrier: the round noted")
                store32(&self.seat[2 * i], me())
                kill_point("barrier: counted in")
                return i
        return -1

    def told(self, int i):
        """What the one on this seat has been told: SEATED, which is nothing, or how it ended."""
        if not 0 <= i < self.seats or self.waits(i):
            return SEATED
        return SENT_AWAY if load32(&self.seat[2 * i + 1]) == TURNED_AWAY else RELEASED

    def leave(self, int i):
        """Give the seat back; whether there was no other."""
        cdef int k
        for k in range(self.seats):
            if load32(&self.seat[2 * k]) == 0:
                break
        else:
            k = -1
        store32(&self.seat[2 * i], 0)
        kill_point("barrier: counted out")
        return k < 0

    def release(self):
        """Release all who wait in this round."""
        store32(self.rounds, load32(self.rounds) + 1)
        kill_point("barrier: a round released")

    def turn_away(self):
        """Tell all who wait in this round that it has ended in vain."""
        cdef int i
        for i in range(self.seats):
            if self.waits(i):
                store32(&self.seat[2 * i + 1], TURNED_AWAY)
                kill_point("barrier: one turned away")

    def strike(self):
        """Free the seats of the dead; whether one of them waited in this round."""
        cdef uint32_t tag, alive = me(), dead = 0
        cdef bint missed = False
        cdef int i
        for i in range(self.seats):
            tag = load32(&self.seat[2 * i])
            if tag == 0 or tag == alive:
                continue
            if tag == dead or owner_dead(tag):
                dead = tag
                missed |= self.waits(i)
                store32(&self.seat[2 * i], 0)
                kill_point("barrier: a dead one struck out")
            else:
                alive = tag
        return missed


# --- Event ----------------------------------------------------------------------------------------
# One 32-bit word: bit 0 set, bit 1 somebody may sleep, the rest counts the sets, so that a sleeper
# knows that it was set even if it has been cleared again.

cdef uint32_t EVENT_SET = 1
cdef uint32_t EVENT_SLEEPERS = 2


cdef void event_set(event* e) noexcept nogil:
    cdef uint32_t* word = &e.word
    cdef uint32_t seen = load32(word)
    while not seen & EVENT_SET:
        if seen & EVENT_SLEEPERS:
            store64(&e.rung, rung_now())
            kill_point("event: time of waking noted")
        if cas32(word, seen, ((seen & ~EVENT_SLEEPERS) + 4) | EVENT_SET):
            kill_point("event: set, nobody woken")
            if seen & EVENT_SLEEPERS:
                futex_wake(word, 0x7fffffff)
            return
        seen = load32(word)


cdef void event_clear(uint32_t* word) noexcept nogil:
    cdef uint32_t seen = load32(word)
    while seen & EVENT_SET:
        if cas32(word, seen, seen & ~EVENT_SET):
            kill_point("event: cleared")
            return
        seen = load32(word)


cdef class EventCore:
    cdef Block block
    cdef event* shared
    cdef uint32_t* word         # its first field
    cdef Spin spin

    cdef int attach(self, Block block) except -1:
        self.block = block
        self.shared = <event*>block.data
        self.word = &self.shared.word
        spin_start(&self.spin)
        return 0

    def _open(self):
        """Make the shared word. Called by the constructor of the public class."""
        self.attach(new_block(LINE))

    def is_set(self):
        """Whether the event is set."""
        return load32_acquire(self.word) & EVENT_SET != 0

    def set(self):
        """Set the event and wake all that wait for it."""
        event_set(self.shared)

    def clear(self):
        """Make later waits block again."""
        event_clear(self.word)

    def wait(self, timeout=None):
        """Wait until the event is set.

        Returns
        -------
        bool
            False if `timeout` seconds passed first.
        """
        cdef int64_t deadline
        cdef int r
        if load32_acquire(self.word) & EVENT_SET:
            return True
        deadline = deadline_of(timeout)
        cdef uint32_t sets = load32(self.word) >> 2
        cdef bint again = False
        while True:
            with nogil:
                r = event_sleep(self.shared, sets, &self.spin, again, deadline)
            if r != PAUSED:
                return r == OK
            again = True
            PyErr_CheckSignals()

    def __getstate__(self):
        assert_spawning(self)
        return (self.block,)

    def __setstate__(self, tuple state):
        self.attach(checked(state[0], sizeof(event)))


cdef int event_sleep(event* e, uint32_t sets, Spin* spin, bint again,
                     int64_t deadline) noexcept nogil:
    """OK, TIMED_OUT or PAUSED. `again`: this wait goes on after a pause."""
    cdef uint32_t* word = &e.word
    cdef uint32_t seen
    cdef int64_t left, began
    if not again and linger(spin, word, ~EVENT_SLEEPERS, sets << 2):
        return OK
    while True:
        seen = load32_acquire(word)
        if seen & EVENT_SET or seen >> 2 != sets:
            return OK
        if not seen & EVENT_SLEEPERS:
            if not cas32(word, seen, seen | EVENT_SLEEPERS):
                continue
            seen |= EVENT_SLEEPERS
            kill_point("event: sleeper noted")
        left = slice_until(deadline, TICK_NS)
        if left <= 0:
            return TIMED_OUT
        began = monotonic_ns()
        if futex_wait(word, seen, left) != 0:
            return PAUSED
        sleep_was_ended(spin, began, load64(&e.rung))
