/* The threads of _stress.pyx have no interpreter: they share nothing that its lock would guard, and
 * the lock must not order what they do, or ThreadSanitizer would see no race. */
#ifndef MPIPC_STRESS_THREADS_H
#define MPIPC_STRESS_THREADS_H
#include <pthread.h>

#define PyEval_SaveThread() NULL
#define PyEval_RestoreThread(state) ((void)(state))
#define PyErr_CheckSignals() 0

static void (*thread_body_)(int);
static void *thread_main(void *number)
{
    thread_body_((int)(intptr_t)number);
    return NULL;
}

/* 0, or an errno. */
static int run_threads(int threads, void (*body)(int))
{
    pthread_t thread[16];
    int i, failed = 0;
    thread_body_ = body;
    for (i = 0; i < threads && !failed; i++)
        failed = pthread_create(&thread[i], NULL, thread_main, (void *)(intptr_t)i);
    for (i -= failed != 0; i > 0; i--)
        pthread_join(thread[i - 1], NULL);
    return failed;
}

#endif
