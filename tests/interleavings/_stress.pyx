# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, binding=False
# cython: auto_pickle=False, autotestdict=False
"""The programs on real threads, without the interpreter's lock; for ThreadSanitizer."""
include "../../mpipc/_core.pyx"


cdef extern from "threads.h":
    int run_threads(int threads, void (*body)(int) noexcept)


cdef const char* wrong = NULL
cdef list doors = [Door() for _ in range(THREADS)]


cdef inline void violation(const char* what) noexcept nogil:
    global wrong
    wrong = what


cdef inline void begins(int t, int64_t deadline) noexcept nogil:
    pass


cdef inline void ends(int t) noexcept nogil:
    pass


cdef inline void ends_late(int t) noexcept nogil:
    pass


cdef void close_end(bint reading) noexcept nogil:
    """All threads share the one pair of descriptors."""


cdef bint hangs_up() noexcept nogil:
    return False


cdef inline bint was_killed(int t) noexcept nogil:
    return False


cdef inline bint backed(uint32_t page, uint32_t pages) noexcept nogil:
    return True


include "programs.pxi"


def run(dict program, int rounds):
    """Run a program on as many threads, each going through its operations `rounds` times.

    Returns
    -------
    str or None
        What is wrong.
    """
    global wrong
    cdef int fds[2]
    cdef int t, failed
    cdef const char* found
    cdef Door door
    cdef Segment segment = Segment.__new__(Segment)
    load_program(program)
    w.rounds = rounds
    wrong = NULL
    segment.make(b"mpipc-stress")
    if socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0:
        raise OSError(errno, os_strerror(errno))
    reset_world()
    try:
        for t in range(THREADS):
            door = doors[t]
            w.door[t] = <PyObject*>door
            door.bell.read_fd = fds[0]
            door.bell.write_fd = fds[1]
            if w.text[t] == NULL:
                w.text[t] = <char*>PyMem_Realloc(NULL, BIGGEST)
            # The sanitizer knows memory by its address: all must see it in the same place.
            w.chans[t].view = w.chans[0].view
            w.chans[t].view.fd = segment.fd
            if channel_open(&w.chans[t]) != OK:
                raise AssertionError("the channel could not be opened")
        failed = run_threads(w.threads, thread_body)
        if failed:
            raise OSError(failed, os_strerror(failed))
        if wrong == NULL:
            found = look_at_messages(0, 0)
            wrong = found if found != NULL else look_at_rest(0)
        return wrong.decode() if wrong != NULL else None
    finally:
        close(fds[0])
        close(fds[1])
        view_close(&w.chans[0].view)
