/* The scheduler: runs fibers one at a time, and at each point decides who goes on.
 *
 * Exhaustive: depth first over all decisions. At a point where the running fiber could go on, another
 * choice costs one preemption, of which a schedule has only so many; where it sleeps or has ended,
 * the choice is free. The end of a sleep meanwhile, by time or signal, costs one too; a kill is
 * counted by itself. A choice is a number, and the list of those that are not 0 replays a run.
 * At random: each fiber has a priority, the highest runs, and at a few steps, chosen beforehand, the
 * running one becomes the lowest (probabilistic concurrency testing).
 *
 * Memory is sequentially consistent here; what a weaker one allows is for ThreadSanitizer.
 *
 * The kernel's model: futexes with their queues, robust lists at death, the two ends of one socket
 * pair, poll, a memfd, who is alive, and a clock that stands still while anybody can
 * run. When nobody can, the sleep that ends first ends. If what then comes to pass could have come to
 * pass before, a wake-up was lost: that is a violation, unless somebody was killed. */
#ifndef MPIPC_INTERLEAVE_SCHEDULER_H
#define MPIPC_INTERLEAVE_SCHEDULER_H
#include <stdarg.h>
#include <stdio.h>
#include <ucontext.h>

enum { FIBERS = 6, STACK = 64 << 10, CHOICES = 1 << 16, STEPS = 20000, IDLE_ROUNDS = 60 };
enum { READ_FD = 1000, WRITE_FD = 1001, MEMORY_FD = 1002 };
enum { FIRST_PID = 4194200 }; /* above what systems give out */
enum { MEMORY = 64 << 20 };
enum { SPIN_STEP_NS = 2000 };

typedef enum { READY, ASLEEP, POLLING, ENDED, KILLED } fiber_state;

typedef struct fiber {
    ucontext_t context;
    fiber_state state;
    uint32_t pid;
    int accessed;        /* since its last point */
    int woken_by;        /* 0: a wake-up; ETIMEDOUT; EINTR */
    int victim;          /* may be killed */
    uint32_t *word;      /* asleep on */
    uint64_t asleep_since;
    int64_t wake_at;
    int64_t deadline;    /* of the operation it is at */
    const char *done;    /* its last step */
    struct pollfd *poll;
    struct robust_list_head robust;
    int priority;
} fiber;

/* Which step is broken on purpose, to see that it is found. */
enum {
    SOUND,
    NO_WAKE_AFTER_PUT,
    NO_WAKE_AFTER_TAKE,
    NO_PASSING_ON,
    NO_WAKE_AT_UNLOCK,
    NO_WAKE_AT_RELEASE,
    NO_WAKE_AT_NOTIFY,
    NO_WAKE_AT_SET,
    NO_WAKE_OF_JOIN,
    NO_WAKE_AFTER_UNDO,
    NO_RING,
    NO_DRAIN,
    SLEEP_UNSEEN,
    TICKET_TWICE,
    LOCK_ANYWAY,
    COMMIT_LATE,
    NO_RECOVERY,
    LAST_UNKNOWN,
    FREED_UNLISTED,
    NO_WAKE_AFTER_QUIET,
    HAND_FORGOTTEN,
    SHUTDOWN_UNSAID,
    SENDER_GONE,
    NOT_BACKED_AGAIN,
    MUTATIONS,
};

typedef struct node {
    uint8_t options, chosen;
} node;

static struct {
    /* What the program asks for. */
    int fibers, preemptions, kills, cpus, slices_end_early, mutation;
    void (*body)(int);
    const char *(*invariant)(void);
    /* The run at hand. */
    fiber fiber[FIBERS];
    fiber *now;
    ucontext_t outside;
    int running, preempted, killed, log;
    uint64_t steps, switches, sleeps, progress;
    int64_t clock;
    int idle;
    uint64_t idle_progress;
    int rescuing;
    uint64_t rescues;
    const char *failure;
    /* The search. */
    node path[CHOICES];
    int depth, known;
    int random;
    uint64_t seed;
    uint64_t change_at[8], kill_at;
    int changes, lowest;
    /* The kernel. */
    int bells, readers, writers;
    uint64_t backed, dirty;
    char *memory;
    char hole[MEMORY >> 12]; /* pages that were punched out */
} S;

static void break_step(const char *label);

static void violate(const char *what)
{
    if (!S.failure)
        S.failure = what;
}

static uint64_t next_random(void)
{
    S.seed ^= S.seed << 13;
    S.seed ^= S.seed >> 7;
    S.seed ^= S.seed << 17;
    return S.seed * 0x2545f4914f6cdd1dull >> 16;
}

static int index_of(fiber *f) { return (int)(f - S.fiber); }

static void become(fiber *f)
{
    S.now = f;
    robust_head = &f->robust;
    robust_tid = f->pid;
    self_owner = f->pid;
}

static void run_outside(fiber *from)
{
    S.running = 0;
    become(&S.fiber[FIBERS - 1]); /* whoever looks afterwards is a process too */
    swapcontext(&from->context, &S.outside);
}

static void switch_to(fiber *f)
{
    fiber *from = S.now;
    if (f == from)
        return;
    S.switches++;
    become(f);
    swapcontext(&from->context, &f->context);
}

static void wake_up(fiber *f, int by)
{
    f->state = READY;
    f->woken_by = by;
    f->word = NULL;
}

/* Who has slept on a word longest, or NULL. */
static fiber *longest_asleep(uint32_t *word)
{
    fiber *first = NULL;
    for (int i = 0; i < S.fibers; i++) {
        fiber *f = &S.fiber[i];
        if (f->state == ASLEEP && f->word == word
            && (!first || f->asleep_since < first->asleep_since))
            first = f;
    }
    return first;
}

static int wake_word(uint32_t *word, int n)
{
    int woken = 0;
    while (woken < n) {
        fiber *first = longest_asleep(word);
        if (!first)
            break;
        wake_up(first, 0);
        woken++;
    }
    return woken;
}

static int ready_events(struct pollfd *p)
{
    int events = 0;
    if (p->fd == READ_FD) {
        if (S.bells)
            events |= POLLIN & p->events;
        if (!S.writers)
            events |= POLLHUP | (POLLIN & p->events);
    } else if (!S.readers) {
        events |= POLLHUP;
    }
    return events;
}

static void poll_changed(void)
{
    for (int i = 0; i < S.fibers; i++)
        if (S.fiber[i].state == POLLING && ready_events(S.fiber[i].poll))
            wake_up(&S.fiber[i], 0);
}

/* As the kernel's handle_futex_death(). */
static void die(fiber *f)
{
    f->state = KILLED;
    S.killed++;
    if (f->robust.list_op_pending) {
        uint32_t *word = (uint32_t *)((char *)f->robust.list_op_pending + f->robust.futex_offset);
        uint32_t seen = *word;
        if (!(seen & FUTEX_TID_MASK)) {
            wake_word(word, 1);
        } else if ((seen & FUTEX_TID_MASK) == f->pid) {
            *word = (seen & FUTEX_WAITERS) | (S.mutation == NO_RECOVERY ? 0 : FUTEX_OWNER_DIED);
            if (seen & FUTEX_WAITERS)
                wake_word(word, 1);
        }
    }
}

/* Nobody can run: the sleep that ends first ends. NULL when all is over. */
static fiber *next_by_clock(void)
{
    fiber *first = NULL;
    int undone = 0;
    for (int i = 0; i < S.fibers; i++) {
        fiber *f = &S.fiber[i];
        if (f->state != ASLEEP && f->state != POLLING)
            continue;
        undone++;
        if (!first || f->wake_at < first->wake_at)
            first = f;
    }
    if (S.rescuing && S.progress != S.idle_progress && !S.killed)
        violate("lost wake-up: only the end of a slice of sleep helped");
    S.rescuing = 0;
    if (!undone)
        return NULL;
    S.idle = S.progress == S.idle_progress ? S.idle + 1 : 0;
    S.idle_progress = S.progress;
    if (S.idle > IDLE_ROUNDS || first->wake_at == INT64_MAX) {
        violate("stuck: all that are left sleep for ever");
        return NULL;
    }
    S.clock = first->wake_at > S.clock ? first->wake_at : S.clock;
    S.rescuing = S.clock < first->deadline;
    S.rescues += S.rescuing;
    wake_up(first, ETIMEDOUT);
    return first;
}

static int choose(int options)
{
    node *at = &S.path[S.depth];
    if (options < 2)
        return 0;
    if (S.depth < S.known) {
        if (at->options && at->options != options)
            violate("the replay took another way: the program is not deterministic");
    } else {
        if (S.depth == CHOICES) {
            violate("endless: more choices than can be noted");
            return 0;
        }
        at->chosen = 0;
        S.known++;
    }
    at->options = (uint8_t)options;
    S.depth++;
    return at->chosen < options ? at->chosen : 0;
}

static fiber *by_priority(void)
{
    fiber *best = NULL;
    for (int i = 0; i < S.fibers; i++)
        if (S.fiber[i].state == READY && (!best || S.fiber[i].priority > best->priority))
            best = &S.fiber[i];
    return best;
}

/* The end of a sleep while others can run: its time goes by meanwhile, or a signal comes. */
static fiber *end_early(fiber *f, int by)
{
    if (by == ETIMEDOUT && f->wake_at > S.clock)
        S.clock = f->wake_at;
    wake_up(f, by);
    return f;
}

static fiber *decide_at_random(void)
{
    fiber *f = S.now;
    for (int i = 0; i < S.changes; i++)
        if (S.steps == S.change_at[i])
            f->priority = --S.lowest;
    if (S.kills && S.steps >= S.kill_at && !S.killed && f->victim && f->state == READY)
        die(f);
    if (S.slices_end_early && next_random() % 64 == 0)
        for (int i = 0; i < S.fibers; i++)
            if (S.fiber[i].state == ASLEEP && next_random() % 2)
                end_early(&S.fiber[i], next_random() % 2 ? ETIMEDOUT : EINTR);
    return by_priority();
}

static fiber *decide_by_search(void)
{
    fiber *f = S.now, *option[3 * FIBERS + 1];
    int n = 0, early, chosen, start = index_of(f), can = f->state == READY;
    int spare = S.preempted < S.preemptions;
    if (can)
        option[n++] = f;
    if (!can || spare)
        for (int i = 1; i < S.fibers; i++) {
            fiber *other = &S.fiber[(start + i) % S.fibers];
            if (other->state == READY)
                option[n++] = other;
        }
    early = n;
    if (n && spare && S.slices_end_early)
        for (int i = 0; i < S.fibers; i++)
            if (S.fiber[i].state == ASLEEP) {
                option[n++] = &S.fiber[i];
                option[n++] = &S.fiber[i];
            }
    if (can && f->victim && S.killed < S.kills)
        option[n++] = NULL;
    if (n == 0)
        return NULL;
    chosen = choose(n);
    if (!option[chosen]) {
        die(f);
        return decide_by_search(); /* who goes on */
    }
    if (chosen >= early) {
        S.preempted++;
        return end_early(option[chosen], (chosen - early) % 2 ? EINTR : ETIMEDOUT);
    }
    if (can && option[chosen] != f)
        S.preempted++;
    return option[chosen];
}

static void log_step(const char *what)
{
    if (S.log)
        fprintf(stderr, "%6lu  %c%*s%s\n", (unsigned long)S.steps, 'A' + index_of(S.now),
                4 * index_of(S.now) + 1, "", what);
}

/* Hand over, if so decided. Returns when this fiber is to go on. */
static void decide(void)
{
    fiber *f = S.now, *next;
    if (++S.steps > STEPS)
        violate("endless: too many steps");
    if (!S.failure && S.invariant) {
        const char *wrong = S.invariant();
        if (wrong)
            violate(wrong);
    }
    if (S.failure)
        run_outside(f);
    next = S.random ? decide_at_random() : decide_by_search();
    if (f->state == KILLED)
        log_step("* killed");
    if (!next)
        next = next_by_clock();
    if (!next || S.failure)
        run_outside(f);
    switch_to(next);
}

static void shared_access(void)
{
    if (!S.running)
        return;
    if (S.now->accessed)
        decide();
    S.now->accessed = 1;
}

static void step_done(const char *label)
{
    if (!S.running)
        return;
    S.now->done = label;
    log_step(label);
    if (S.mutation >= TICKET_TWICE)
        break_step(label);
    decide();
    S.now->accessed = 0;
}

/* In turn, and for nothing: with nobody else to run, time goes by. */
static void spinning(void)
{
    fiber *f = S.now;
    int start;
    if (!S.running)
        return;
    start = index_of(f);
    S.clock += SPIN_STEP_NS;
    if (++S.steps > STEPS) {
        violate("endless: too many steps");
        run_outside(f);
    }
    for (int i = 0; i < S.fibers; i++)
        if (S.fiber[i].state == ASLEEP && S.fiber[i].wake_at <= S.clock)
            wake_up(&S.fiber[i], ETIMEDOUT);
    for (int i = 1; i < S.fibers; i++) {
        fiber *other = &S.fiber[(start + i) % S.fibers];
        if (other->state == READY) {
            f->priority = --S.lowest;
            switch_to(other);
            return;
        }
    }
}

static int model_sched_yield(void)
{
    spinning();
    return 0;
}

/* --- the kernel --------------------------------------------------------------------------------- */

/* Whether this wake-up is left out on purpose. */
static int wake_is_broken(uint32_t *word)
{
    const char *done = S.now->done ? S.now->done : "";
    struct channel *h = (struct channel *)S.memory;
    switch (S.mutation) {
    case NO_WAKE_AFTER_PUT: return !strcmp(done, "put: unlocked, nobody woken");
    case NO_WAKE_AFTER_TAKE: return !strcmp(done, "take: unlocked, nobody woken");
    case NO_WAKE_AFTER_QUIET:
    case NO_PASSING_ON: return word == (uint32_t *)&h->tail && !strncmp(done, "unlock:", 7);
    case NO_WAKE_AT_UNLOCK: return !strcmp(done, "unlock: released, nobody woken");
    case NO_WAKE_AT_RELEASE: return !strcmp(done, "release: given, nobody woken");
    case NO_WAKE_AT_NOTIFY: return !strncmp(done, "notify:", 7);
    case NO_WAKE_AT_SET: return !strcmp(done, "event: set, nobody woken");
    case NO_WAKE_OF_JOIN: return word == &h->joiners;
    case NO_WAKE_AFTER_UNDO: return !strcmp(done, "undo: given, nobody woken");
    default: return 0;
    }
}

static void break_step(const char *label)
{
    static uint64_t before[FIBERS], after[FIBERS];
    static int growing[FIBERS];
    struct channel *h = (struct channel *)S.memory;
    struct robust_list_head *robust = &S.now->robust;
    int i = index_of(S.now);
    if (S.mutation == TICKET_TWICE && !strcmp(label, "wait: ticket given back"))
        h->get_called = --h->get_given;
    if (S.mutation == LOCK_ANYWAY && !strcmp(label, "lock: announced, not yet tried"))
        *(uint32_t *)((char *)robust->list_op_pending + robust->futex_offset) = 0;
    if (S.mutation == LAST_UNKNOWN && !strcmp(label, "join: now the last"))
        h->last = 1;
    if (S.mutation == FREED_UNLISTED) { /* what has just grown is taken at once */
        if (!strcmp(label, "grow: the last known")) {
            growing[i] = 1;
        } else if (!strcmp(label, "list: begins with the new")) {
            if (!growing[i])
                memset(h->free_list, 0, sizeof h->free_list);
            growing[i] = 0;
        }
    }
    if (S.mutation == HAND_FORGOTTEN && !strcmp(label, "hand: about to look for the dead"))
        h->hand = 0;
    if (S.mutation == SENDER_GONE && !strcmp(label, "put: the sender is an heir")) {
        for (uint32_t page = 1; page < h->npages;) {
            extent *e = (extent *)((char *)S.memory + ((uint64_t)page << PAGE_SHIFT));
            memset(e->heir, 0, sizeof e->heir);
            page += (uint32_t)(e->desc >> 32);
        }
    }
    if (S.mutation == SHUTDOWN_UNSAID && !strcmp(label, "shutdown: said so, nobody woken"))
        h->shut = 0;
    if (S.mutation == COMMIT_LATE) {
        if (!strcmp(label, "lock: taken")) {
            before[i] = h->tail;
        } else if (!strcmp(label, "put: committed")) {
            after[i] = h->tail;
            h->tail = before[i];
        } else if (!strcmp(label, "put: unlocked, nobody woken")) {
            h->tail = after[i];
        }
    }
}

static int requeue_word(uint32_t *word, uint32_t *to)
{
    fiber *first = longest_asleep(word);
    if (!first)
        return 0;
    first->word = to;
    first->asleep_since = ++S.sleeps;
    return 1;
}

static long futex(uint32_t *word, int operation, uint32_t value, const struct timespec *time,
                  uint32_t *to, uint32_t seen)
{
    fiber *f = S.now;
    if (operation == FUTEX_WAKE) {
        shared_access();
        if (S.mutation && wake_is_broken(word))
            return 1;
        return S.running ? wake_word(word, (int)value) : 0;
    }
    if (operation == FUTEX_CMP_REQUEUE) {
        shared_access();
        if (S.mutation && wake_is_broken(word))
            return 1;
        if (*word != seen) {
            errno = EAGAIN;
            return -1;
        }
        return S.running ? requeue_word(word, to) : 0;
    }
    shared_access();
    if (*word != value && S.mutation != SLEEP_UNSEEN) {
        errno = EAGAIN;
        return -1;
    }
    f->state = ASLEEP;
    f->word = word;
    f->asleep_since = ++S.sleeps;
    f->wake_at = time ? S.clock + time->tv_sec * 1000000000 + time->tv_nsec : INT64_MAX;
    log_step("  sleeps");
    decide();
    f->accessed = 0;
    log_step(f->woken_by == 0 ? "  woken" : f->woken_by == EINTR ? "  a signal" : "  time is up");
    if (f->woken_by) {
        errno = f->woken_by;
        return -1;
    }
    return 0;
}

static long model_syscall(long number, ...)
{
    va_list rest;
    long result = -1;
    va_start(rest, number);
    if (number == SYS_futex) {
        uint32_t *word = va_arg(rest, uint32_t *);
        int operation = va_arg(rest, int);
        uint32_t value = va_arg(rest, uint32_t);
        const struct timespec *time = va_arg(rest, const struct timespec *);
        uint32_t *to = NULL, seen = 0;
        if (operation == FUTEX_CMP_REQUEUE) {
            to = va_arg(rest, uint32_t *);
            seen = va_arg(rest, uint32_t);
        }
        result = futex(word, operation, value, time, to, seen);
    } else {
        violate("a system call that the model does not know");
    }
    va_end(rest);
    return result;
}

static int model_kill(pid_t pid, int sig)
{
    (void)sig;
    shared_access();
    for (int i = 0; i < S.fibers; i++)
        if (S.fiber[i].pid == (uint32_t)pid && S.fiber[i].state != KILLED)
            return 0;
    if (pid == FIRST_PID + FIBERS - 1)
        return 0;
    errno = ESRCH;
    return -1;
}

static void *model_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    (void)at, (void)prot, (void)flags;
    if (fd != MEMORY_FD || offset || size > MEMORY) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return S.memory;
}

static int model_munmap(void *at, size_t size)
{
    (void)at, (void)size;
    return 0;
}

static int model_fallocate(int fd, int mode, off_t offset, off_t size)
{
    (void)fd;
    if (mode == 0 && (uint64_t)(offset + size) > S.backed)
        S.backed = (uint64_t)(offset + size);
    if (mode) /* punched out */
        memset(S.memory + offset, 0, (size_t)size);
    if (mode || S.mutation != NOT_BACKED_AGAIN)
        memset(S.hole + (offset >> 12), mode != 0, (size_t)size >> 12);
    if (S.backed > S.dirty)
        S.dirty = S.backed;
    return 0;
}

static int model_fstat(int fd, struct stat *out)
{
    (void)fd;
    memset(out, 0, sizeof *out);
    out->st_size = (off_t)S.backed;
    return 0;
}

static ssize_t model_send(int fd, const void *from, size_t n, int flags)
{
    (void)fd, (void)from, (void)flags;
    shared_access();
    if (!S.readers) {
        errno = EPIPE;
        return -1;
    }
    if (S.mutation == NO_RING)
        return (ssize_t)n;
    S.bells += (int)n;
    poll_changed();
    return (ssize_t)n;
}

static ssize_t model_recv(int fd, void *to, size_t n, int flags)
{
    ssize_t got = (ssize_t)n < S.bells ? (ssize_t)n : S.bells;
    (void)fd, (void)to, (void)flags;
    shared_access();
    got = (ssize_t)n < S.bells ? (ssize_t)n : S.bells;
    if (!got || S.mutation == NO_DRAIN) {
        errno = EAGAIN;
        return got ? got : -1;
    }
    S.bells -= (int)got;
    return got;
}

static int model_ppoll(struct pollfd *fds, unsigned long n, const struct timespec *timeout,
                       const void *mask)
{
    fiber *f = S.now;
    (void)n, (void)mask;
    shared_access();
    fds->revents = (short)ready_events(fds);
    if (fds->revents || (timeout && !timeout->tv_sec && !timeout->tv_nsec))
        return fds->revents != 0;
    f->state = POLLING;
    f->poll = fds;
    f->wake_at = timeout ? S.clock + timeout->tv_sec * 1000000000 + timeout->tv_nsec : INT64_MAX;
    log_step("  polls");
    decide();
    f->accessed = 0;
    fds->revents = (short)ready_events(fds);
    return fds->revents != 0;
}

static int model_ioctl(int fd, unsigned long request, int *out)
{
    (void)fd, (void)request;
    shared_access();
    *out = S.bells;
    return 0;
}

static int model_clock_gettime(int clock, struct timespec *out)
{
    (void)clock;
    out->tv_sec = S.clock / 1000000000;
    out->tv_nsec = S.clock % 1000000000;
    return 0;
}

static int model_sched_getaffinity(int pid, size_t size, cpu_set_t *out)
{
    (void)pid, (void)size;
    CPU_ZERO(out);
    for (int i = 0; i < S.cpus; i++)
        CPU_SET(i, out);
    return 0;
}

static int model_sched_getcpu(void) { return index_of(S.now) % S.cpus; }

/* --- runs --------------------------------------------------------------------------------------- */

/* An operation came to its end. */
static void operation_done(void) { S.progress++; }

static void fiber_main(int i)
{
    S.body(i);
    S.fiber[i].state = ENDED;
    log_step("ended");
    decide();
}

/* Before each run, and before the program's own preparations. */
static void begin_run(void)
{
    if (!S.memory)
        S.memory = (mmap)(NULL, MEMORY, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memset(S.memory, 0, S.dirty);
    memset(S.hole, 0, S.dirty >> 12);
    S.backed = S.dirty = 0;
    S.running = S.preempted = S.killed = S.idle = S.rescuing = 0;
    S.steps = S.switches = S.sleeps = S.progress = S.idle_progress = S.rescues = 0;
    S.clock = 1000000000;
    S.bells = 0;
    S.depth = 0;
    S.failure = NULL;
    for (int i = 0; i < FIBERS; i++) {
        fiber *f = &S.fiber[i];
        f->state = READY;
        f->pid = (uint32_t)(FIRST_PID + i);
        f->accessed = f->woken_by = 0;
        f->word = NULL;
        f->deadline = INT64_MAX;
        f->done = NULL;
        f->robust.list_op_pending = NULL;
        f->robust.futex_offset = 0;
    }
    become(&S.fiber[FIBERS - 1]);
}

/* The stacks lie in the caller's, where the interpreter expects stacks to be. */
static void run_fibers(char *stacks)
{
    fiber *first;
    for (int i = 0; i < S.fibers; i++) {
        fiber *f = &S.fiber[i];
        getcontext(&f->context);
        f->context.uc_stack.ss_sp = stacks + i * STACK;
        f->context.uc_stack.ss_size = STACK;
        f->context.uc_link = NULL;
        makecontext(&f->context, (void (*)(void))fiber_main, 1, i);
    }
    S.lowest = 0;
    if (S.random) {
        for (int i = 0; i < S.fibers; i++)
            S.fiber[i].priority = 1 + (int)(next_random() % 1000);
        first = by_priority();
    } else {
        first = &S.fiber[choose(S.fibers)];
    }
    S.running = 1;
    become(first);
    swapcontext(&S.outside, &first->context);
    if (!S.failure)
        for (int i = 0; i < S.fibers; i++)
            if (S.fiber[i].state != ENDED && S.fiber[i].state != KILLED)
                violate("stuck: not all have ended");
}

/* The next untried schedule; 0 when there is none. */
static int advance(void)
{
    while (S.known && S.path[S.known - 1].chosen + 1 >= S.path[S.known - 1].options)
        S.known--;
    if (!S.known)
        return 0;
    S.path[S.known - 1].chosen++;
    return 1;
}

#endif
