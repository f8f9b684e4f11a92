/* Orders to block servers that are not done yet: copy, delete, seal.
 *
 * They ride on heartbeat replies, again and again until the server reports them done or they are
 * dropped; servers know repeated ids. A leader's ids never collide with an earlier leader's. Memory
 * only: a new leader finds out anew what there is to do. Not thread-safe.
 */
#ifndef DFS_REPLICATION_MAP_ORDERS_H
#define DFS_REPLICATION_MAP_ORDERS_H

#include "cluster/base/htab.h"

#include "replication/map/members.h"

struct order_entry {
    struct hnode by_id;
    struct hnode by_what; /* kind, block and node */
    struct list of_node;
    struct list of_target; /* of a copy */
    struct list of_age;    /* of a copy */
    uint64_t id;
    uint64_t block;
    uint64_t since_ms;
    uint32_t node;   /* who carries it out */
    uint32_t target; /* of a copy */
    uint32_t len;
    uint8_t kind;                /* enum order_kind */
    bool move;                   /* a copy that nothing lacks */
    char label[LIMIT_LABEL + 1]; /* of a copy: of the volume to use; empty: any */
};

struct orders {
    struct htab by_id;
    struct htab by_what;
    struct htab nodes;
    uint64_t next_id;
    struct list copying; /* copies, oldest first */
    size_t copies;       /* their number */
    size_t moves;        /* those that are moves */
};

/* epoch: larger than any earlier leader's; the upper half of the ids. */
void orders_init(struct orders *o, uint32_t epoch);
void orders_fini(struct orders *o);

/* What is wanted already stays as it is, but for a seal's new length. */
struct order_entry *orders_add(struct orders *o, enum order_kind kind, uint64_t block,
                               uint32_t node, uint32_t target, uint32_t len, uint64_t now_ms);
void orders_remove(struct orders *o, struct order_entry *e);
struct order_entry *orders_find(const struct orders *o, uint64_t id);
struct order_entry *orders_of(const struct orders *o, enum order_kind kind, uint64_t block,
                              uint32_t node);
/* Copies that a server makes or takes now. */
uint32_t orders_streams(const struct orders *o, uint32_t node);
/* It has enough of them: `streams`, or several times as many small ones, so that a server does not
 * wait for its next heartbeat after each small block. */
bool orders_busy(const struct orders *o, uint32_t node, uint32_t streams);
/* Some order that the node carries out or is the target of; NULL when there is none. */
struct order_entry *orders_first_of(const struct orders *o, uint32_t node);
/* The oldest copy when it was ordered age_ms ago or earlier, else NULL. */
struct order_entry *orders_stale(const struct orders *o, uint64_t now_ms, uint64_t age_ms);

/* Up to max of a server's orders, deletions last, else oldest first, as a list of order; returns their
 * number. */
uint32_t orders_put(const struct orders *o, const struct members *t, uint32_t node, uint32_t max,
                    struct wire_out *out);

#endif
