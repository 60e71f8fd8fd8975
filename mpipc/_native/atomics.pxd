from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "_native/atomics.h" nogil:
    uint32_t load32(const uint32_t* p)
    uint32_t load32_acquire(const uint32_t* p)
    void store32(uint32_t* p, uint32_t v)
    void store32_release(uint32_t* p, uint32_t v)
    bint cas32(uint32_t* p, uint32_t seen, uint32_t v)
    uint32_t exchange32(uint32_t* p, uint32_t v)
    uint32_t fetch_add32(uint32_t* p, uint32_t v)
    uint64_t load64(const uint64_t* p)
    uint64_t load64_acquire(const uint64_t* p)
    void store64(uint64_t* p, uint64_t v)
    void store64_release(uint64_t* p, uint64_t v)
    bint cas64(uint64_t* p, uint64_t seen, uint64_t v)
    int load_own(const int* p)
    void store_own(int* p, int v)
    uint32_t load_own32 "load_own"(const uint32_t* p)
    void store_own32 "store_own"(uint32_t* p, uint32_t v)
    uint64_t load_own64 "load_own"(const uint64_t* p)
    void store_own64 "store_own"(uint64_t* p, uint64_t v)
    char* load_own_pointer "load_own"(char** p)
    void store_own_pointer "store_own"(char** p, char* v)
    void compiler_fence()
    void cpu_relax()
    int64_t monotonic_ns()


cdef extern from "_native/robust.h" nogil:
    uint64_t process_generation
    uint64_t forks_seen
    uint32_t self_owner
    int robust_prepare()
    void robust_announce(uint32_t* word)
    void robust_withdraw()
    uint32_t robust_self()
    void fork_begins()
    void fork_made()
    int watch_forks(void (*before)() noexcept nogil, void (*in_parent)() noexcept nogil,
                    void (*in_child)() noexcept nogil)


cdef extern from "_native/killpoints.h" nogil:
    ctypedef struct kill_site:
        const char* what
        uint64_t passed
    void kill_point(const char* label)
    kill_site* first_kill_site()
    long kill_site_count()
    void arm_kill_site(long index, uint64_t passage)
