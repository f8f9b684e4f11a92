/* Checks all replicas of a store again and again (scrub_plan.h), one thread for each volume, and
 * single ones at once when somebody has a doubt.
 *
 * The threads run at idle priority and let clients go first. How far a pass has come is kept on the
 * volume (VOLUME/dfs-scrub), so that a restart goes on where it was. What is found damaged is told
 * to the master with the next heartbeat; nothing is changed here.
 */
#ifndef DFS_REPLICATION_STORE_SCRUBBER_H
#define DFS_REPLICATION_STORE_SCRUBBER_H

#include "replication/store/store.h"

struct scrubber;

struct scrubber_conf {
    struct store *store; /* borrowed until stop */
    uint64_t period_ms;
    uint64_t ceiling; /* bytes a second of an ordered pass, for each volume */
    /* Are clients being served? Then it waits a little before each read. NULL is fine. */
    bool (*busy)(void *arg);
    void *arg;
};

/* NULL when no thread could be started. */
struct scrubber *scrubber_start(const struct scrubber_conf *conf);
/* Ends the threads; where they are is written down. All else may still be called. NULL is fine. */
void scrubber_stop(struct scrubber *s);
/* After scrubber_stop(), once nobody calls any more. NULL is fine. */
void scrubber_free(struct scrubber *s);

/* Volumes may have come: each gets a thread. What is on two of them is checked, so that one can go. One
 * thread at a time. */
void scrubber_look(struct scrubber *s);
/* Everything is read from the beginning, as fast as the ceiling allows. number: of the order; one
 * that is not above the last is that order again, and changes nothing. */
void scrubber_order(struct scrubber *s, uint64_t number);
/* Checks one replica soon. False: too many are waiting. */
bool scrubber_check(struct scrubber *s, uint64_t block);

struct scrub_progress {
    const char *path; /* of the volume; lives as long as the store */
    bool ordered;
    uint64_t order;    /* number of the last order, running or done */
    uint64_t began_ms; /* of the running pass; wall clock, since 1970 */
    uint64_t ended_ms; /* of the last complete pass; 0: none yet */
    uint64_t done;     /* bytes of the running pass */
    uint64_t total;    /* done and what is left */
    uint64_t rate;     /* bytes a second, lately */
    uint64_t found;    /* damaged copies, ever */
    bool resting;      /* the pass is complete, the next one is not due */
};
/* Of the volumes that have not failed and were not let go. Returns how many. */
size_t scrubber_progress(struct scrubber *s, struct scrub_progress ret[LIMIT_VOLUMES]);
/* Replicas that wait to be checked at once. */
size_t scrubber_waiting(struct scrubber *s);

#endif
