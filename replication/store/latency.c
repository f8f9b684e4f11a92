#include "replication/store/latency.h"

#include <stdatomic.h>

struct latency_op latency_begin(struct latency *l, uint64_t now_us)
{
    struct latency_op op = { .begun_us = MAX(now_us, 1), .slot = LATENCY_OPS };

    for (uint32_t i = 0; i < LATENCY_OPS && op.slot == LATENCY_OPS; i++) {
        uint64_t free_slot = 0;

        if (atomic_load(&l->begun_us[i]) == 0 &&
            atomic_compare_exchange_strong(&l->begun_us[i], &free_slot, op.begun_us)) {
            op.slot = i;
        }
    }
    return op;
}

void latency_end(struct latency *l, enum latency_kind kind, const struct latency_op *op,
                 uint64_t now_us)
{
    uint64_t took = now_us > op->begun_us ? now_us - op->begun_us : 1;
    uint32_t us = (uint32_t)MIN(took, UINT32_MAX);
    uint32_t mean = latency_mean_us(l, kind, now_us);

    /* Two that end at the same moment may count as one: it is a mean. */
    mean = mean == 0 ? us : (uint32_t)(((uint64_t)mean * 7 + us) / 8);
    atomic_store(&l->mean_us[kind], MAX(mean, 1));
    atomic_store(&l->last_us[kind], now_us);
    if (op->slot < LATENCY_OPS) {
        atomic_store(&l->begun_us[op->slot], 0);
    }
}

uint32_t latency_mean_us(const struct latency *l, enum latency_kind kind, uint64_t now_us)
{
    uint64_t last = atomic_load(&l->last_us[kind]);

    return last != 0 && now_us < last + LATENCY_FADE_US ? atomic_load(&l->mean_us[kind]) : 0;
}

uint64_t latency_stuck_us(const struct latency *l, uint64_t now_us)
{
    uint64_t oldest = UINT64_MAX;

    for (uint32_t i = 0; i < LATENCY_OPS; i++) {
        uint64_t begun = atomic_load(&l->begun_us[i]);

        oldest = begun != 0 ? MIN(oldest, begun) : oldest;
    }
    return oldest < now_us ? now_us - oldest : 0;
}
