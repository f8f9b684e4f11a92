/* Disks that hang, and disks that are far slower than their peers.
 *
 * Hung: an operation has not ended for hung_ms. Slow: for some seconds in a row, writes, syncs or
 * reads took on average eight times as long as the median of all volumes in the cluster that do the
 * same, and more than what any disk may take under load. Both end when there was no reason for a
 * while, so that a volume does not come and go. A server is as good as its worst volume: it is read
 * last, and gets no new blocks as long as there are others.
 */
#include "replication/map/members.h"

#define JUDGE_MS      1000u
#define SLOW_FACTOR   8u
#define SLOW_SECONDS  5u     /* in a row */
#define SLOW_PEERS    2u     /* volumes to compare with, at least */
#define SLOW_ENDS_MS  30000u /* without a reason */
#define HUNG_ENDS_MS  10000u
#define ENOUGH_OTHERS 3u /* servers: then a slow one gets no new blocks */

/* What a loaded disk may take; below that nobody is called slow. */
static const uint32_t fair_us[] = { 50000, 500000, 50000 };

static uint32_t mean_of(const struct member_volume *v, size_t kind)
{
    const uint32_t means[] = { v->write_us, v->sync_us, v->read_us };

    return means[kind];
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The longest mean that is still fair by what all volumes do; UINT32_MAX: too few to tell. */
static uint32_t limit_of(const struct members *t, size_t kind, uint32_t *buf)
{
    size_t n = 0;
    uint64_t limit;

    for (size_t i = 0; i < t->count; i++) {
        const struct member *m = t->all[i];

        for (size_t k = 0; member_state(m) == MEMBER_LIVE && k < m->volume_count; k++) {
            uint32_t mean = mean_of(&m->volumes[k], kind);

            if (mean != 0) {
                buf[n++] = mean;
            }
        }
    }
    if (n < SLOW_PEERS + 1) {
        return UINT32_MAX;
    }
    qsort(buf, n, sizeof(*buf), by_value);
    limit = (uint64_t)buf[(n - 1) / 2] * SLOW_FACTOR;
    return (uint32_t)MIN(MAX(limit, fair_us[kind]), UINT32_MAX);
}

static void judge_volume(const struct members *t, struct member_volume *v,
                         const uint32_t limits[static ARRAY_LEN(fair_us)], uint64_t now_ms)
{
    bool hangs = t->conf.hung_ms != 0 && v->stuck_ms >= t->conf.hung_ms;
    bool slow = false;

    for (size_t kind = 0; kind < ARRAY_LEN(fair_us); kind++) {
        slow = slow || mean_of(v, kind) > limits[kind];
    }
    v->slow_seconds = slow ? (uint8_t)MIN(v->slow_seconds + 1u, SLOW_SECONDS) : 0;
    if (hangs) {
        v->trouble = TROUBLE_HUNG;
        v->trouble_ms = now_ms;
    } else if (v->trouble != TROUBLE_HUNG && v->slow_seconds == SLOW_SECONDS) {
        v->trouble = TROUBLE_SLOW;
        v->trouble_ms = now_ms;
    } else if (v->trouble != TROUBLE_NONE &&
               now_ms - v->trouble_ms >=
                   (v->trouble == TROUBLE_HUNG ? HUNG_ENDS_MS : SLOW_ENDS_MS)) {
        v->trouble = TROUBLE_NONE;
    }
}

/* Those that are in trouble get new blocks only when there are not enough others. */
static void avoid(struct members *t)
{
    size_t fine = 0;

    for (size_t i = 0; i < t->count; i++) {
        t->all[i]->avoided = false;
        fine += t->all[i]->trouble == TROUBLE_NONE && member_takes(t->all[i]);
    }
    for (size_t i = 0; i < t->count; i++) {
        struct member *m = t->all[i];

        m->avoided = (m->trouble == TROUBLE_HUNG && fine != 0) ||
                     (m->trouble == TROUBLE_SLOW && fine >= ENOUGH_OTHERS);
    }
}

void members_judge(struct members *t, uint64_t now_ms)
{
    uint32_t limits[ARRAY_LEN(fair_us)];
    size_t volumes = 0;
    uint32_t *buf;

    if (now_ms - t->judge_ms < JUDGE_MS) {
        return;
    }
    t->judge_ms = now_ms;
    for (size_t i = 0; i < t->count; i++) {
        volumes += t->all[i]->volume_count;
    }
    buf = x_alloc((volumes + 1) * sizeof(*buf));
    for (size_t kind = 0; kind < ARRAY_LEN(fair_us); kind++) {
        limits[kind] = limit_of(t, kind, buf);
    }
    free(buf);
    for (size_t i = 0; i < t->count; i++) {
        struct member *m = t->all[i];

        m->trouble = TROUBLE_NONE;
        for (size_t k = 0; k < m->volume_count; k++) {
            if (m->volumes[k].state != VOLUME_FAILED) {
                judge_volume(t, &m->volumes[k], limits, now_ms);
                m->trouble = MAX(m->trouble, m->volumes[k].trouble);
            }
        }
    }
    avoid(t);
}
