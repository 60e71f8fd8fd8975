/* Atomic access to plain words in shared memory, and the two machine facts that spinning needs.
 *
 * Naming: <verb><bits>[_order]; no suffix is relaxed. A crash needs no ordering beyond the compiler's
 * (a killed process's earlier stores are all visible to whoever comes later); acquire and release
 * serve the living peers. */
#ifndef MPIPC_ATOMICS_H
#define MPIPC_ATOMICS_H
#include <stdint.h>
#include <time.h>

#ifdef MPIPC_INTERLEAVE
#include "hooks.h" /* of tests/interleavings */
#else
#define shared_access() ((void)0)
#endif

#define MP_WORD(bits, type)                                                                        \
    static inline type load##bits(const type *p) {                                                 \
        shared_access();                                                                           \
        return __atomic_load_n(p, __ATOMIC_RELAXED); }                                             \
    static inline type load##bits##_acquire(const type *p) {                                       \
        shared_access();                                                                           \
        return __atomic_load_n(p, __ATOMIC_ACQUIRE); }                                             \
    static inline void store##bits(type *p, type v) {                                              \
        shared_access();                                                                           \
        __atomic_store_n(p, v, __ATOMIC_RELAXED); }                                                \
    static inline void store##bits##_release(type *p, type v) {                                    \
        shared_access();                                                                           \
        __atomic_store_n(p, v, __ATOMIC_RELEASE); }                                                \
    static inline int cas##bits(type *p, type seen, type v) {                                      \
        shared_access();                                                                           \
        return __atomic_compare_exchange_n(p, &seen, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED); }  \
    static inline type exchange##bits(type *p, type v) {                                           \
        shared_access();                                                                           \
        return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }                                      \
    static inline type fetch_add##bits(type *p, type v) {                                          \
        shared_access();                                                                           \
        return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); }

MP_WORD(32, uint32_t)
MP_WORD(64, uint64_t)

/* Words that only the threads of this process share, any of which may come first. */
#define load_own(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define store_own(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)

/* Order as written, for whoever looks after a kill at this point; costs no instruction. */
static inline void compiler_fence(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

static inline void cpu_relax(void)
{
#ifdef MPIPC_INTERLEAVE
    spinning();
#elif defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#else
    compiler_fence();
#endif
}

static inline int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#endif
