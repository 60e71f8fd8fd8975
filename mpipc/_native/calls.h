/* The system calls of the core, each under the name by which linux.pxd and robust.h know it, and
 * where a test makes one of them fail.
 *
 * CALL(name, ...) is the call itself unless MPIPC_FAULTS is defined. Then each place that makes one
 * is an entry of a table that the linker puts together, and when the one that is armed is passed for
 * the n-th time the call is not made: it fails with the error that was asked for. A lasting fault
 * then also strikes every later call of that name, wherever it is made, as a full machine would.
 *
 * What cannot fail is called directly: getpid, gettid, sched_yield, clock_gettime. */
#ifndef MPIPC_CALLS_H
#define MPIPC_CALLS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef MPIPC_INTERLEAVE
#include "hooks.h" /* tests/interleavings: a model of the kernel's */
#endif

typedef struct call_site {
    const char *call;
    const char *where; /* the C function */
} call_site;

typedef struct call_count {
    uint64_t passed;
    uint64_t failed;
} call_count;

#ifdef MPIPC_FAULTS

extern call_site __start_mpipc_calls[], __stop_mpipc_calls[];
static call_count *call_counts; /* shared with forked children, who may not live to tell theirs */
static call_site *faulty_site;
static uint64_t faulty_passage;
static int faulty_error, fault_lasts, fault_began;

static inline call_site *first_call_site(void) { return __start_mpipc_calls; }
static inline long call_site_count(void) { return __stop_mpipc_calls - __start_mpipc_calls; }
static inline call_count count_of_call(long index) { return call_counts[index]; }

__attribute__((constructor)) static void share_call_counts(void)
{
    call_counts = mmap(NULL, call_site_count() * sizeof(call_count), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (call_counts == MAP_FAILED)
        abort();
}

static inline int call_fails(call_site *site)
{
    call_count *count = call_counts + (site - __start_mpipc_calls);
    uint64_t passage = __atomic_add_fetch(&count->passed, 1, __ATOMIC_RELAXED);
    if (!faulty_site)
        return 0;
    if (site == faulty_site && passage == faulty_passage)
        fault_began = 1;
    else if (!fault_began || !fault_lasts || strcmp(site->call, faulty_site->call))
        return 0;
    __atomic_add_fetch(&count->failed, 1, __ATOMIC_RELAXED);
    errno = faulty_error;
    return 1;
}

#define CALL_SITE(name)                                                                            \
    static call_site site __attribute__((section("mpipc_calls"), used, aligned(16))) = {           \
        #name, __func__}
#define CALL_OR(failure, name, ...)                                                                \
    ({ CALL_SITE(name); call_fails(&site) ? (failure) : name(__VA_ARGS__); })
/* A close that reports an error has closed all the same. */
#define CALL_AND_FAIL(name, ...)                                                                   \
    ({ CALL_SITE(name); int done = name(__VA_ARGS__); call_fails(&site) ? -1 : done; })

static inline void arm_call_site(long index, uint64_t passage, int error, int lasts)
{
    memset(call_counts, 0, call_site_count() * sizeof(call_count));
    fault_began = 0;
    faulty_passage = passage;
    faulty_error = error;
    fault_lasts = lasts;
    faulty_site = index < 0 ? NULL : __start_mpipc_calls + index;
}
static inline void disarm_call_site(void) { faulty_site = NULL; }

#else

#define CALL_OR(failure, name, ...) name(__VA_ARGS__)
#define CALL_AND_FAIL(name, ...) name(__VA_ARGS__)

static inline call_site *first_call_site(void) { return NULL; }
static inline long call_site_count(void) { return 0; }
static inline call_count count_of_call(long index) { return (call_count){(uint64_t)index, 0}; }
static inline void arm_call_site(long index, uint64_t passage, int error, int lasts)
{
    (void)index; (void)passage; (void)error; (void)lasts;
}
static inline void disarm_call_site(void) {}

#endif

#define CALL(name, ...) CALL_OR(-1, name, __VA_ARGS__)

#define sys_close(fd) CALL_AND_FAIL(close, fd)
#define sys_fallocate(fd, mode, offset, size) CALL(fallocate, fd, mode, offset, size)
#define sys_fcntl(fd, command, value) CALL(fcntl, fd, command, value)
#define sys_fstat(fd, out) CALL(fstat, fd, out)
#define sys_getrlimit(resource, limit) CALL(getrlimit, resource, limit)
#define sys_ioctl(fd, request, out) CALL(ioctl, fd, request, out)
#define sys_kill(pid, sig) CALL(kill, pid, sig)
#define sys_madvise(at, size, advice) CALL(madvise, at, size, advice)
#define sys_memfd_create(name, flags) CALL(memfd_create, name, flags)
#define sys_mmap(at, size, prot, flags, fd, offset)                                                \
    CALL_OR(MAP_FAILED, mmap, at, size, prot, flags, fd, offset)
#define sys_munmap(at, size) CALL(munmap, at, size)
#define sys_open(path, flags) CALL(open, path, flags)
#define sys_pipe2(fds, flags) CALL(pipe2, fds, flags)
#define sys_ppoll(fds, n, timeout, mask) CALL(ppoll, fds, n, timeout, mask)
#define sys_read(fd, to, n) CALL(read, fd, to, n)
#define sys_recv(fd, to, n, flags) CALL(recv, fd, to, n, flags)
#define sys_sched_getaffinity(pid, n, set) CALL(sched_getaffinity, pid, n, set)
#define sys_sched_getcpu() CALL(sched_getcpu)
#define sys_send(fd, from, n, flags) CALL(send, fd, from, n, flags)
#define sys_socketpair(family, kind, protocol, fds) CALL(socketpair, family, kind, protocol, fds)
#define sys_write(fd, from, n) CALL(write, fd, from, n)

/* Those that libc has no function for. */
static inline long futex_wait(uint32_t *word, uint32_t seen, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout, NULL, 0);
}
static inline long futex_wake(uint32_t *word, int n)
{
    return syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}
/* Let one who sleeps on `word` sleep on `to` from now on; how many, or an error if word != seen. */
static inline long futex_requeue(uint32_t *word, uint32_t seen, uint32_t *to)
{
    return syscall(SYS_futex, word, FUTEX_CMP_REQUEUE, 0, (void *)1, to, seen);
}
static inline long get_robust_list(struct robust_list_head **head, size_t *size)
{
    return syscall(SYS_get_robust_list, 0, head, size);
}
#define sys_futex_requeue(word, seen, to) CALL(futex_requeue, word, seen, to)
#define sys_futex_wait(word, seen, timeout) CALL(futex_wait, word, seen, timeout)
#define sys_futex_wake(word, n) CALL(futex_wake, word, n)
#define sys_get_robust_list(head, size) CALL(get_robust_list, head, size)

static inline int usable_cpus(void)
{
    cpu_set_t set;
    if (sys_sched_getaffinity(0, sizeof set, &set) < 0)
        return 2;
    return CPU_COUNT(&set);
}

#endif
