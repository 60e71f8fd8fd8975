"""The kernel and libc calls that the core makes; nothing here decides anything.

Each goes through calls.h, where tests make it fail.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport timespec
from posix.types cimport off_t, pid_t


cdef extern from "_native/calls.h" nogil:
    # Processes and processors
    pid_t getpid()
    int SIGKILL
    int kill "sys_kill"(pid_t pid, int sig)
    void _exit(int status)
    int usable_cpus()
    int sched_getcpu "sys_sched_getcpu"()
    int sched_yield()

    # Futexes
    uint32_t FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_TID_MASK
    long sys_futex_wait(uint32_t* word, uint32_t seen, const timespec* timeout)
    long sys_futex_wake(uint32_t* word, int n)
    long sys_futex_requeue(uint32_t* word, uint32_t seen, uint32_t* to)

    # Descriptors and files
    int O_RDONLY, O_CLOEXEC
    int F_ADD_SEALS, F_SEAL_SHRINK, F_SETFD, FD_CLOEXEC
    int open "sys_open"(const char* path, int flags)
    ssize_t read "sys_read"(int fd, void* buf, size_t n)
    ssize_t write "sys_write"(int fd, const void* buf, size_t n)
    int pipe2 "sys_pipe2"(int* fds, int flags)
    int close "sys_close"(int fd)
    int fcntl "sys_fcntl"(int fd, int command, int value)
    ctypedef struct stat_t "struct stat":
        unsigned long st_dev
        unsigned long st_ino
        off_t st_size
    int fstat "sys_fstat"(int fd, stat_t* out)
    ctypedef struct rlimit_t "struct rlimit":
        unsigned long rlim_cur
    int RLIMIT_FSIZE
    int getrlimit "sys_getrlimit"(int resource, rlimit_t* limit)

    # Memory
    unsigned int MFD_CLOEXEC, MFD_ALLOW_SEALING
    int memfd_create "sys_memfd_create"(const char* name, unsigned int flags)
    int FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE
    int fallocate "sys_fallocate"(int fd, int mode, off_t offset, off_t size)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_NORESERVE
    void* MAP_FAILED
    void* mmap "sys_mmap"(void* at, size_t size, int prot, int flags, int fd, off_t offset)
    int munmap "sys_munmap"(void* at, size_t size)
    int MADV_HUGEPAGE
    int madvise "sys_madvise"(void* at, size_t size, int advice)

    # Sockets
    int AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL
    int socketpair "sys_socketpair"(int family, int kind, int protocol, int* fds)
    ssize_t send "sys_send"(int fd, const void* buf, size_t n, int flags)
    ssize_t recv "sys_recv"(int fd, void* buf, size_t n, int flags)
    unsigned long SIOCINQ, SIOCOUTQ
    int ioctl "sys_ioctl"(int fd, unsigned long request, int* out)
    short POLLIN, POLLHUP, POLLERR
    struct pollfd:
        int fd
        short events
        short revents
    int ppoll "sys_ppoll"(pollfd* fds, unsigned long n, const timespec* timeout, const void* mask)

    # Where a test makes one of them fail
    ctypedef struct call_site:
        const char* call
        const char* where
    ctypedef struct call_count:
        uint64_t passed
        uint64_t failed
    call_site* first_call_site()
    long call_site_count()
    call_count count_of_call(long index)
    void arm_call_site(long index, uint64_t passage, int error, bint lasts)
    void disarm_call_site()
