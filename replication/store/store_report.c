/* What the master is told: digests, ranges, volumes, damaged copies. */
#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/metrics.h"

#include "replication/store/store_impl.h"

/* A replica that the master may count on. */
static bool counts_locked(const struct replica *r)
{
    return (r->sm.now == RULE_OPEN || r->sm.now == RULE_SEALED) && !atomic_load(&r->vol->failed);
}

uint64_t store_last_block(struct store *s)
{
    uint64_t last = 0;

    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct store_stripe *st = &s->stripes[i];

        pthread_mutex_lock(&st->lock.mu);
        HTAB_FOREACH (node, &st->index) {
            last = MAX(last, CONTAINER_OF(node, struct replica, node)->block);
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
    return last;
}

static int by_range(const void *a, const void *b)
{
    const struct range_digest *x = a, *y = b;

    return x->range < y->range ? -1 : x->range > y->range;
}

size_t store_digests(struct store *s, struct range_digest **ret)
{
    struct range_digest *all = NULL;
    size_t n = 0, cap = 0, out = 0;

    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct store_stripe *st = &s->stripes[i];

        pthread_mutex_lock(&st->lock.mu);
        HTAB_FOREACH (node, &st->index) {
            const struct replica *r = CONTAINER_OF(node, struct replica, node);

            if (!counts_locked(r)) {
                continue;
            }
            if (n == cap) {
                cap = MAX(cap * 2, 1024);
                all = x_realloc(all, cap * sizeof(*all));
            }
            all[n++] =
                (struct range_digest){ r->block / RANGE_BLOCKS, 1, replica_mix(r->block, r->len) };
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
    if (n != 0) {
        qsort(all, n, sizeof(*all), by_range);
    }
    for (size_t i = 0; i < n; i++) {
        if (out != 0 && all[out - 1].range == all[i].range) {
            all[out - 1].count++;
            all[out - 1].sum ^= all[i].sum;
        } else {
            all[out++] = all[i];
        }
    }
    *ret = all;
    return out;
}

size_t store_range(struct store *s, uint64_t range, struct replica_info ret[RANGE_BLOCKS])
{
    size_t n = 0;

    for (uint64_t i = 0; i < RANGE_BLOCKS && range <= UINT64_MAX / RANGE_BLOCKS; i++) {
        uint64_t block = range * RANGE_BLOCKS + i;
        struct store_stripe *st = store_stripe_of(s, block);
        const struct replica *r;

        pthread_mutex_lock(&st->lock.mu);
        r = store_find_locked(st, block);
        if (r != NULL && counts_locked(r)) {
            ret[n++] = (struct replica_info){
                .block = block,
                .len = r->len,
                .state = r->damage != 0             ? REPLICA_DAMAGED
                         : r->sm.now == RULE_SEALED ? REPLICA_SEALED
                                                    : REPLICA_OPEN,
            };
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
    return n;
}

size_t store_volumes(struct store *s, struct store_volume ret[LIMIT_VOLUMES])
{
    uint64_t now = clock_mono_us();
    size_t n = 0;

    for (size_t i = 0; i < s->volume_count; i++) {
        struct volume *v = s->volumes[i];
        bool failed = atomic_load(&v->failed), leaving = atomic_load(&v->leaving);

        if (atomic_load(&v->detached)) {
            continue;
        }
        /* The masters wait for this: a disk that does not answer is not asked. */
        if (!failed && !volume_hangs(v)) {
            volume_look(v);
        }
        ret[n] = (struct store_volume){
            .path = v->path,
            .label = v->label,
            .slot = i,
            .uuid = v->uuid,
            .free_bytes = volume_free(v),
            .total = volume_total(v),
            .used = failed ? 0 : atomic_load(&v->used),
            .blocks = failed ? 0 : atomic_load(&v->blocks),
            .errors = atomic_load(&v->errors) + atomic_load(&v->damaged),
            .write_us = latency_mean_us(&v->latency, LATENCY_WRITE, now),
            .sync_us = latency_mean_us(&v->latency, LATENCY_SYNC, now),
            .read_us = latency_mean_us(&v->latency, LATENCY_READ, now),
            .stuck_ms = (uint32_t)MIN(latency_stuck_us(&v->latency, now) / 1000, UINT32_MAX),
        };
        ret[n].state = failed                   ? VOLUME_FAILED
                       : leaving                ? VOLUME_LEAVING
                       : ret[n].free_bytes == 0 ? VOLUME_FULL
                                                : VOLUME_OK;
        volume_failure(v, &ret[n].failure);
        n++;
    }
    return n;
}

void store_report_bad(struct store *s, uint64_t block, int status)
{
    pthread_mutex_lock(&s->mu);
    for (size_t i = 0; i < s->bad_count; i++) {
        if (s->bad[i].block == block) {
            goto out;
        }
    }
    if (s->bad_count < STORE_BAD_MAX) {
        s->bad[s->bad_count++] = (struct replica_bad){ block, (uint32_t)status };
        metric_add(METRIC_bad_replicas, 1);
    }
out:
    pthread_mutex_unlock(&s->mu);
}

void store_report_lost(struct store *s, size_t slot)
{
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct store_stripe *st = &s->stripes[i];

        pthread_mutex_lock(&st->lock.mu);
        HTAB_FOREACH (node, &st->index) {
            const struct replica *r = CONTAINER_OF(node, struct replica, node);

            if (r->vol == s->volumes[slot] && r->sm.now != RULE_COPY && r->sm.now != RULE_GONE) {
                store_report_bad(s, r->block, DFS_ENOBLOCK);
            }
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
}

size_t store_bad(struct store *s, struct replica_bad *ret, size_t max)
{
    size_t n;

    pthread_mutex_lock(&s->mu);
    n = MIN(max, s->bad_count);
    memcpy(ret, s->bad, n * sizeof(*ret));
    pthread_mutex_unlock(&s->mu);
    return n;
}

void store_bad_told(struct store *s, size_t n)
{
    pthread_mutex_lock(&s->mu);
    ASSERT(n <= s->bad_count);
    s->bad_count -= n;
    memmove(s->bad, s->bad + n, s->bad_count * sizeof(*s->bad));
    pthread_mutex_unlock(&s->mu);
}
