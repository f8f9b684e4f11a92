/* What the leader knows of the block servers' scrubs, and what operators have ordered.
 *
 * In memory: a new leader learns how far the scrubs are from the next heartbeats; orders that were
 * not passed on are forgotten with it. Pure; not thread-safe.
 */
#ifndef DFS_FS_ROLE_SCRUB_BOOK_H
#define DFS_FS_ROLE_SCRUB_BOOK_H

#include "cluster/base/htab.h"
#include "cluster/base/limits.h"

#include "replication/msgs.h"

#define SCRUB_BLOCKS_MAX 65536u /* single blocks that wait to be passed on to one server */

struct scrub_entry {
    struct hnode by_node;
    uint32_t node;
    uint64_t order;   /* of the last whole pass; 0: none */
    uint64_t *blocks; /* not passed on yet */
    size_t count, cap;
    uint32_t waiting;     /* as it was told */
    struct wire_out told; /* list of scrub_info, as it was told */
    uint32_t told_count;
};

struct scrub_book {
    struct htab nodes;
    uint64_t next_order;
};

/* epoch: larger than any earlier leader's; the upper half of the orders' numbers. */
void scrub_book_init(struct scrub_book *b, uint32_t epoch);
void scrub_book_fini(struct scrub_book *b);

/* The entry of a server, made when there is none. */
struct scrub_entry *scrub_book_get(struct scrub_book *b, uint32_t node);
/* A new number for an order. */
uint64_t scrub_book_number(struct scrub_book *b);
/* The server is to check this block. False: too many are waiting. */
bool scrub_book_check(struct scrub_book *b, uint32_t node, uint64_t block);
/* A server's message; false when it is malformed, and nothing is taken. */
bool scrub_book_told(struct scrub_book *b, const struct server_chores_req *q);
/* Takes up to max blocks to pass on, as a list of block_ref; returns their number. */
uint32_t scrub_book_take(struct scrub_entry *e, uint32_t max, struct wire_out *out);

#endif
