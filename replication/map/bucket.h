/* A rate as a token bucket. What is larger than the bucket passes when the bucket is not empty, and is
 * paid for afterwards: the mean is exact, whatever the sizes. Pure functions of the time. */
#ifndef DFS_REPLICATION_MAP_BUCKET_H
#define DFS_REPLICATION_MAP_BUCKET_H

#include "cluster/base/base.h"

struct bucket {
    uint64_t rate; /* units per second; 0: no limit */
    int64_t level;
    uint64_t at_ms;
};

/* There is something in it: a second's worth at most, whatever time has passed. */
static inline bool bucket_open(struct bucket *b, uint64_t now_ms)
{
    uint64_t ms = now_ms > b->at_ms ? MIN(now_ms - b->at_ms, UINT64_C(1000)) : 0;
    int64_t more = (int64_t)(b->rate * ms / 1000);

    if (more != 0 || b->rate == 0) {
        b->level = MIN(b->level + more, (int64_t)b->rate);
        b->at_ms = now_ms;
    }
    return b->rate == 0 || b->level > 0;
}

static inline void bucket_take(struct bucket *b, uint64_t units)
{
    if (b->rate != 0) {
        b->level -= (int64_t)units;
    }
}

/* What went through, as units per second of late. */
struct meter {
    uint64_t units; /* since at_ms */
    uint64_t at_ms;
    uint64_t rate;
};

static inline void meter_step(struct meter *m, uint64_t now_ms)
{
    uint64_t ms = now_ms > m->at_ms ? now_ms - m->at_ms : 0;

    if (ms >= 1000) {
        uint64_t now = m->units * 1000 / ms;

        /* The last seconds count most; a first second counts for all. */
        m->rate = m->rate == 0 ? now : (2 * m->rate + now) / 3;
        m->units = 0;
        m->at_ms = now_ms;
    }
}

#endif
