/* What the core calls in a build with MPIPC_INTERLEAVE: a scheduler in place of the processor, and a
 * model of the few kernel calls that its algorithms are made of. atomics.h includes this file;
 * scheduler.h defines what it declares.
 *
 * All threads are fibers of one thread of the system, so exactly one runs at any time, and it hands
 * over nowhere but at the points below. */
#ifndef MPIPC_INTERLEAVE_HOOKS_H
#define MPIPC_INTERLEAVE_HOOKS_H
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Before each access to a word in shared memory. */
static void shared_access(void);
/* Where kill_point() stands: a step is done. */
static void step_done(const char *label);
/* In a loop that waits for others without sleeping. */
static void spinning(void);
static long model_syscall(long number, ...);
static int model_kill(pid_t pid, int sig);
static void *model_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
static int model_munmap(void *at, size_t size);
static int model_fallocate(int fd, int mode, off_t offset, off_t size);
static int model_fstat(int fd, struct stat *out);
static ssize_t model_send(int fd, const void *from, size_t n, int flags);
static ssize_t model_recv(int fd, void *to, size_t n, int flags);
static int model_ppoll(struct pollfd *fds, unsigned long n, const struct timespec *timeout,
                       const void *mask);
static int model_ioctl(int fd, unsigned long request, int *out);
static int model_clock_gettime(int clock, struct timespec *out);
static int model_sched_getaffinity(int pid, size_t size, cpu_set_t *out);
static int model_sched_getcpu(void);
static int model_sched_yield(void);
static int really_check_signals(void) { return PyErr_CheckSignals(); }

#define syscall(...) model_syscall(__VA_ARGS__)
#define kill(pid, sig) model_kill(pid, sig)
#define mmap(at, size, prot, flags, fd, offset) model_mmap(at, size, prot, flags, fd, offset)
#define munmap(at, size) model_munmap(at, size)
#define fallocate(fd, mode, offset, size) model_fallocate(fd, mode, offset, size)
#define fstat(fd, out) model_fstat(fd, out)
#define send(fd, from, n, flags) model_send(fd, from, n, flags)
#define recv(fd, to, n, flags) model_recv(fd, to, n, flags)
#define ppoll(fds, n, timeout, mask) model_ppoll(fds, n, timeout, mask)
#define ioctl(fd, request, out) model_ioctl(fd, request, out)
#define clock_gettime(clock, out) model_clock_gettime(clock, out)
#define sched_getaffinity(pid, size, out) model_sched_getaffinity(pid, size, out)
#define sched_yield() model_sched_yield()
#define sched_getcpu() model_sched_getcpu()
/* The fibers share the interpreter lock of their one thread. */
#define PyEval_SaveThread() NULL
#define PyEval_RestoreThread(state) ((void)(state))
#define PyErr_CheckSignals() 0

#endif
