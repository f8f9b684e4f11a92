/* What the files of repair share. */
#ifndef DFS_REPLICATION_MAP_REPAIR_STATE_H
#define DFS_REPLICATION_MAP_REPAIR_STATE_H

#include "replication/map/repair.h"

enum problem_flag {
    PROBLEM_UNDER = 1,
    PROBLEM_MISSING = 2,
    PROBLEM_CORRUPT = 4,
    PROBLEM_SURPLUS = 8,  /* more copies than wanted, or dead and damaged ones that can go */
    PROBLEM_LEAVING = 16, /* enough copies, but some on servers that are to be emptied */
    PROBLEM_MISPLACED = 32,
};

/* By what is left: one good copy, two, three or more, those in one rack first; then copies enough,
 * but in one rack or host, or on servers that are to be emptied; then what is only untidy, or has the
 * wrong label; then what nothing can be done about until servers come back. */
enum danger {
    DANGER_ONE,
    DANGER_TWO_IN_RACK,
    DANGER_TWO,
    DANGER_MORE_IN_RACK,
    DANGER_MORE,
    DANGER_SPREAD,
    DANGER_LEAVING,
    DANGER_TIDY,
    DANGER_LABEL,
    DANGER_LOST,
    DANGERS
};

struct problem {
    struct hnode h;
    struct list queue;
    uint64_t block;
    uint64_t wait_ms;   /* not before this time */
    uint64_t bytes;     /* to be copied */
    uint32_t shunned;   /* target of the copy that failed last */
    uint32_t move_from; /* a copy is being moved from there; 0: none is */
    uint8_t flags;
    uint8_t danger;
    uint8_t changes; /* in the log's hands */
    uint8_t copies;  /* orders under way */
};

/* A deleted block whose holders have not all deleted their copies. */
struct deletion {
    struct hnode h;
    uint64_t block;
    uint32_t nodes[LIMIT_REPLICATION];
    uint8_t count;
};

struct bad_copy {
    struct hnode h;
    uint64_t block;
    uint32_t node;
};

struct repair {
    struct repair_conf conf;
    struct repair_env env;
    struct members *members;
    struct orders orders;
    struct rng rng;
    struct htab problems;
    struct htab deletions;
    struct htab bad;
    struct list queues[DANGERS];
    struct repair_counts counts;
    bool overflow;
    bool two_racks; /* have room; looked at once a second, as the next */
    uint64_t topology;
    uint64_t topology_ms;
    uint64_t copied_ms; /* when a copy that was needed was ordered or done last */
    struct bucket rate;
    struct meter meter;  /* of repairs, not of moves */
    struct rule **rules; /* by number - 1 */
    size_t rule_count;
};

/* How a sealed block stands. */
struct standing {
    uint8_t want;
    const struct rule *rule;
    size_t good, live; /* good: undamaged, server not dead; live of those: not suspect either */
    size_t sure;    /* of the good ones: not on a server that has just come, and was not compared */
    size_t leaving; /* good copies, but on servers that are to be emptied: sources only */
    size_t bad, dead;
    uint32_t good_nodes[LIMIT_REPLICATION];
    uint32_t leaving_nodes[LIMIT_REPLICATION];
    uint32_t bad_nodes[LIMIT_REPLICATION];
    uint32_t dead_nodes[LIMIT_REPLICATION];
};

#define REPAIR_MAX_PROBLEMS  (1u << 20)
#define REPAIR_MAX_DELETIONS 8192u
#define REPAIR_MAX_BAD       65536u
#define REPAIR_IDLE_MS       5000 /* without a copy: moves may begin */
#define REPAIR_PAUSE_MS      1000 /* after a failure */
#define REPAIR_BUSY_MS       100 /* when there is no server to use: one may have a free stream soon */

void standing_of(const struct repair *r, uint64_t block, const struct block_rec *rec,
                 struct standing *ret);
struct problem *problem_find(const struct repair *r, uint64_t block);
struct problem *problem_get(struct repair *r, uint64_t block);
void bad_add(struct repair *r, uint64_t block, uint32_t node);
void bad_remove(struct repair *r, uint64_t block, uint32_t node);
/* Looks the record up first. */
void repair_look_again(struct repair *r, uint64_t block, uint64_t now_ms);
/* One step for one block: an order or a change, or nothing. True when something was done. */
bool repair_plan(struct repair *r, struct problem *p, const struct block_rec *rec, uint64_t now_ms);
bool repair_plan_mend(struct repair *r, struct problem *p, const struct block_rec *rec,
                      const struct standing *s, uint64_t now_ms);
/* The least busy live holder with a free stream; 0 when there is none. */
uint32_t repair_source(const struct repair *r, uint64_t block, const struct standing *s);
/* A server for one more copy, beside those of have[]: neither busy nor a holder. DFS_EAGAIN: there are
 * only busy ones. ret_ask: what was asked for, to derive the label from. */
int repair_target(struct repair *r, const struct problem *p, const struct block_rec *rec,
                  const struct standing *s, const uint32_t *have, size_t have_count,
                  struct placement_ask *ret_ask, uint32_t *ret);
/* For the problem, or (p->move_from) to move it. */
void repair_order_copy(struct repair *r, struct problem *p, const struct block_rec *rec,
                       uint32_t source, uint32_t target, const char *label, uint64_t now_ms);
/* Orders of a block whose copies are enough by now. */
void repair_cancel_copies(struct repair *r, struct problem *p, const struct block_rec *rec);
/* Once a second: are there other racks or labels? */
void repair_look_at_topology(struct repair *r, uint64_t now_ms);
unsigned int standing_misplaced(const struct repair *r, const struct standing *s);
void deletion_done(struct repair *r, uint64_t block, uint32_t node);

#endif
