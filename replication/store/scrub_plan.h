/* How fast replicas are checked, and when.
 *
 * A pass reads all replicas of a volume in the order of their ids and takes half of the period: a
 * replica that was written just behind the pass is read by the next one, within the period. The
 * rate follows from what is left to read and the time that is left, so it is as low as the promise
 * allows, and rises after a server was off. Pure functions; times come in as arguments.
 */
#ifndef DFS_REPLICATION_STORE_SCRUB_PLAN_H
#define DFS_REPLICATION_STORE_SCRUB_PLAN_H

#include "cluster/base/base.h"

struct scrub_plan {
    uint64_t period_ms;
    uint64_t ceiling;  /* bytes a second of an ordered pass */
    int64_t allowance; /* bytes that may be read now, when above 0; thousandths */
    uint64_t rate;     /* of this pass, lately */
    uint64_t stepped_ms;
    bool ordered; /* the running pass was asked for: as fast as the ceiling allows */
};

void scrub_plan_init(struct scrub_plan *p, uint64_t period_ms, uint64_t ceiling, uint64_t now_ms);

/* Bytes a second at which left bytes are read when the pass has run for elapsed_ms; at least 1. */
uint64_t scrub_plan_rate(struct scrub_plan *p, uint64_t elapsed_ms, uint64_t left);
/* Time has passed at this rate. Returns how long to wait until something may be read, 0: now. */
uint64_t scrub_plan_wait(struct scrub_plan *p, uint64_t now_ms, uint64_t rate);
void scrub_plan_took(struct scrub_plan *p, uint32_t bytes);
/* How long after its beginning a pass is followed by the next one, when it was done earlier. */
uint64_t scrub_plan_pass_ms(const struct scrub_plan *p);

#endif
