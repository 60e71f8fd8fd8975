/* Where a test kills the process: after each step that changes shared memory.
 *
 * kill_point("what was done") costs nothing unless MPIPC_KILL_POINTS is defined. Then each place is
 * an entry of a table that the linker puts together, and the one that is armed sends SIGKILL when it
 * is passed for the n-th time. */
#ifndef MPIPC_KILLPOINTS_H
#define MPIPC_KILLPOINTS_H
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

typedef struct kill_site {
    const char *what;
    uint64_t passed;
} kill_site;

#ifdef MPIPC_KILL_POINTS

extern kill_site __start_mpipc_kill[], __stop_mpipc_kill[];
static kill_site *armed_site;
static uint64_t armed_for;

static inline void kill_site_passed(kill_site *site)
{
    if (++site->passed == armed_for && site == armed_site)
        kill(getpid(), SIGKILL);
}

#define kill_point(label)                                                                          \
    do {                                                                                           \
        static kill_site site __attribute__((section("mpipc_kill"), used, aligned(16))) = {label, 0}; \
        kill_site_passed(&site);                                                                   \
    } while (0)

static inline kill_site *first_kill_site(void) { return __start_mpipc_kill; }
static inline long kill_site_count(void) { return __stop_mpipc_kill - __start_mpipc_kill; }
/* From here on passages are counted, not those of the process that forked this one. */
static inline void arm_kill_site(long index, uint64_t passage)
{
    armed_for = 0;
    for (kill_site *site = __start_mpipc_kill; site < __stop_mpipc_kill; site++)
        site->passed = 0;
    armed_site = __start_mpipc_kill + index;
    armed_for = passage;
}

#else

#ifdef MPIPC_INTERLEAVE
#define kill_point(label) step_done(label)
#else
#define kill_point(label) ((void)(label))
#endif

static inline kill_site *first_kill_site(void) { return NULL; }
static inline long kill_site_count(void) { return 0; }
static inline void arm_kill_site(long index, uint64_t passage) { (void)index; (void)passage; }

#endif
#endif
