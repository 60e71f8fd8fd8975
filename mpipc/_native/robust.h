/* What one thread knows about itself: its kernel thread id and the robust list that libc registered.
 *
 * The robust lock uses only the list's `list_op_pending` slot: while a thread is between "about to
 * lock" and "unlocked", the slot names the lock word, and should the thread die there, the kernel
 * sets FUTEX_OWNER_DIED in the word and wakes one waiter. Nothing is ever linked into the list
 * itself, so libc's own robust mutexes are undisturbed and no pointer is stored in shared memory.
 * One lock per thread at a time. */
#ifndef MPIPC_ROBUST_H
#define MPIPC_ROBUST_H
#include "calls.h"
#include <pthread.h>
#include <stddef.h>

static __thread struct robust_list_head *robust_head;
static __thread uint32_t robust_tid;
static uint64_t process_generation; /* forks between the first process of the family and this one */
static uint64_t forks_seen;         /* forks that this process made or came from */
static uint32_t self_owner;         /* this process's owner tag; 0 until asked for */

static inline int robust_prepare(void)
{
    size_t size;
    struct robust_list_head *head = NULL;
    if (robust_head)
        return 0;
    if (sys_get_robust_list(&head, &size) || !head)
        return -1;
    robust_head = head;
    robust_tid = (uint32_t)syscall(SYS_gettid);
    return 0;
}

static inline void robust_announce(uint32_t *word)
{
    robust_head->list_op_pending = (struct robust_list *)((char *)word - robust_head->futex_offset);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void robust_withdraw(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    robust_head->list_op_pending = NULL;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline uint32_t robust_self(void) { return robust_tid; }

/* From a fork on, the child may look at memory that its parent would otherwise reuse. */
static inline void fork_begins(void) { forks_seen++; }

static inline void fork_made(void)
{
    robust_head = NULL;
    self_owner = 0;
    process_generation++;
}

static inline int watch_forks(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
    return pthread_atfork(before, in_parent, in_child);
}

#endif
