/* Random numbers: xoshiro256**, a state per user, seeded so that a run can be repeated.
 *
 * Not for secrets: those, and ids that must be unique in the world, come from rng_system().
 */
#ifndef DFS_CLUSTER_BASE_RNG_H
#define DFS_CLUSTER_BASE_RNG_H

#include "cluster/base/base.h"

struct rng {
    uint64_t s[4];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
/* 0 <= result < n, without bias; n is not 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* True in num of den cases. */
bool rng_chance(struct rng *r, uint64_t num, uint64_t den);

/* Bytes from the kernel (getrandom(2)). */
void rng_system(void *p, size_t n);
uint64_t rng_system_u64(void);

#endif
