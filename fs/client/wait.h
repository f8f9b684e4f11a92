/* Condition variables on the monotonic clock, with deadlines as everywhere: clock_mono_ms() times. */
#ifndef DFS_FS_CLIENT_WAIT_H
#define DFS_FS_CLIENT_WAIT_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <time.h>

#include "cluster/base/cancel.h"
#include "cluster/base/clock.h"
#include "cluster/base/err.h"

static inline void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t a;

    ASSERT(pthread_condattr_init(&a) == 0 && pthread_condattr_setclock(&a, CLOCK_MONOTONIC) == 0 &&
           pthread_cond_init(c, &a) == 0);
    pthread_condattr_destroy(&a);
}

/* DFS_ETIMEOUT once the deadline has passed, DFS_EINTR when the wait is broken off (cancel.h). */
static inline int cond_wait_until(pthread_cond_t *c, pthread_mutex_t *mu, uint64_t deadline_ms)
{
    uint64_t since = clock_mono_ms();

    for (uint64_t now = since;;) {
        uint64_t until = cancel_slice(since, now, deadline_ms);
        struct timespec t = { .tv_sec = (time_t)(until / 1000),
                              .tv_nsec = (long)(until % 1000) * 1000000 };

        if (pthread_cond_timedwait(c, mu, &t) == 0) {
            return DFS_OK;
        }
        now = clock_mono_ms();
        if (cancel_now(since, now)) {
            return DFS_EINTR;
        }
        if (now >= deadline_ms) {
            return DFS_ETIMEOUT;
        }
    }
}

/* A pause before something is tried again; returns false when the deadline leaves no time for it. */
static inline bool pause_ms(uint64_t ms, uint64_t deadline_ms)
{
    uint64_t now = clock_mono_ms();

    if (now >= deadline_ms) {
        return false;
    }
    ms = MIN(ms, deadline_ms - now);
    struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

    nanosleep(&t, NULL);
    return true;
}

#endif
