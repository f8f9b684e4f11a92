/* How long a volume's operations take, and since when the oldest one has not come back.
 *
 * Each operation is bracketed by latency_begin() and latency_end(). Means are of the last operations
 * (each new one counts an eighth) and fade when there are none for a while. Any thread, no locks:
 * whoever asks is never held up by a disk that hangs. Times are monotonic microseconds.
 */
#ifndef DFS_REPLICATION_STORE_LATENCY_H
#define DFS_REPLICATION_STORE_LATENCY_H

#include "cluster/base/base.h"

enum latency_kind { LATENCY_WRITE, LATENCY_SYNC, LATENCY_READ, LATENCY_KINDS };

#define LATENCY_OPS     64u /* that are followed at a time; more are only not followed */
#define LATENCY_FADE_US UINT64_C(10000000) /* a mean counts for so long after its last operation */

/* All zero: nothing was measured. */
struct latency {
    _Atomic uint64_t begun_us[LATENCY_OPS]; /* 0: free */
    _Atomic uint64_t last_us[LATENCY_KINDS];
    _Atomic uint32_t mean_us[LATENCY_KINDS];
};

struct latency_op {
    uint64_t begun_us;
    uint32_t slot; /* LATENCY_OPS: not followed */
};

struct latency_op latency_begin(struct latency *l, uint64_t now_us);
void latency_end(struct latency *l, enum latency_kind kind, const struct latency_op *op,
                 uint64_t now_us);
/* 0: there were none lately. */
uint32_t latency_mean_us(const struct latency *l, enum latency_kind kind, uint64_t now_us);
/* Age of the oldest operation that has not ended; 0: none. */
uint64_t latency_stuck_us(const struct latency *l, uint64_t now_us);

#endif
