"""The kernel and libc calls that the core makes; nothing here decides anything."""
from libc.stdint cimport int64_t, uint32_t
from posix.time cimport timespec
from posix.types cimport off_t, pid_t


cdef extern from "<sys/syscall.h>" nogil:
    long SYS_futex

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)
    int close(int fd)
    pid_t getpid()
    ssize_t read(int fd, void* buf, size_t n)
    ssize_t write(int fd, const void* buf, size_t n)
    int pipe2(int* fds, int flags)

cdef extern from "<linux/futex.h>" nogil:
    int FUTEX_WAIT, FUTEX_WAKE
    uint32_t FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_TID_MASK

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    #include <poll.h>
    #include <sched.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <linux/sockios.h>
    static inline int usable_cpus(void)
    {
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof set, &set) < 0)
            return 2;
        return CPU_COUNT(&set);
    }
    """
    int usable_cpus() nogil
    int sched_getcpu() nogil
    int sched_yield() nogil

cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_CLOEXEC
    int F_ADD_SEALS, F_SEAL_SHRINK, F_SETFD, FD_CLOEXEC
    int open(const char* path, int flags, ...)
    int fcntl(int fd, int command, ...)
    int FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE
    int fallocate(int fd, int mode, off_t offset, off_t size)

cdef extern from "<sys/stat.h>" nogil:
    ctypedef struct stat_t "struct stat":
        unsigned long st_dev
        unsigned long st_ino
        off_t st_size
    int fstat(int fd, stat_t* out)

cdef extern from "<sys/mman.h>" nogil:
    unsigned int MFD_CLOEXEC, MFD_ALLOW_SEALING
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_NORESERVE
    void* MAP_FAILED
    int memfd_create(const char* name, unsigned int flags)
    void* mmap(void* at, size_t size, int prot, int flags, int fd, off_t offset)
    int munmap(void* at, size_t size)

cdef extern from "<sys/socket.h>" nogil:
    int AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL
    int socketpair(int family, int kind, int protocol, int* fds)
    ssize_t send(int fd, const void* buf, size_t n, int flags)
    ssize_t recv(int fd, void* buf, size_t n, int flags)

cdef extern from "<sys/resource.h>" nogil:
    ctypedef struct rlimit_t "struct rlimit":
        unsigned long rlim_cur
    int RLIMIT_FSIZE
    int getrlimit(int resource, rlimit_t* limit)

cdef extern from "<poll.h>" nogil:
    short POLLIN, POLLHUP, POLLERR
    struct pollfd:
        int fd
        short events
        short revents
    int ppoll(pollfd* fds, unsigned long n, const timespec* timeout, const void* mask)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    unsigned long SIOCINQ, SIOCOUTQ

cdef extern from "<signal.h>" nogil:
    int SIGKILL
    int kill(pid_t pid, int sig)
