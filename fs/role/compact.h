/* Planning of compaction: which blocks hold little that is still used, and which of their extents
 * go together into a new block. Pure; one thread at a time.
 */
#ifndef DFS_FS_ROLE_COMPACT_H
#define DFS_FS_ROLE_COMPACT_H

#include "replication/map/mapdb.h"

#include "fs/msgs.h"

#define COMPACT_BLOCKS_MAX 1024u  /* of one round */
#define COMPACT_MOVES_MAX  65536u /* extents of one round; the rest is left to the next */

/* What the copies of all blocks hold, in bytes. */
struct compact_census {
    uint64_t live;    /* used by files */
    uint64_t garbage; /* not used any more, deleted blocks too */
    uint64_t open;    /* in blocks that are being written */
};

/* One extent to be moved. */
struct compact_item {
    uint64_t ino;
    uint64_t off;
    uint64_t from;
    uint32_t from_off;
    uint32_t len;
    uint32_t to_off; /* set by compact_group() */
    uint8_t repl;
    uint16_t rule; /* number of the storage rule */
};

struct compact_round {
    uint64_t blocks[COMPACT_BLOCKS_MAX]; /* ascending */
    size_t block_count;
    uint64_t garbage; /* in them, one copy of each */
    struct compact_item *items;
    size_t count, cap;
};

void compact_count(struct compact_census *c, const struct block_rec *rec);
/* Bytes that are won by moving what is left of a block; 0: it stays. threshold: percent. */
uint64_t compact_gain(const struct block_rec *rec, uint64_t threshold, int64_t now_ns);
/* Blocks come in ascending order. False: no more fit. */
bool compact_add_block(struct compact_round *r, uint64_t block, uint64_t gain);
bool compact_has_block(const struct compact_round *r, uint64_t block);
/* False: no more fit. */
bool compact_add_item(struct compact_round *r, const struct compact_item *item);
/* After the last item. */
void compact_sort(struct compact_round *r);
/* Is it worth while? total: bytes of all blocks, one copy of each. */
bool compact_is_worth(const struct compact_round *r, uint64_t total, bool pressed);
void compact_reset(struct compact_round *r);
void compact_fini(struct compact_round *r);

/* Who has a good copy at hand: any server (node 0), or this one. Returns its number; 0: none. */
typedef uint32_t compact_holder_fn(void *arg, uint64_t block, uint32_t node);

struct compact_group {
    uint32_t node; /* who copies: it has all of them; 0: nothing is left */
    uint8_t repl;
    uint16_t rule;
    uint32_t bytes;
    struct compact_item items[LIMIT_COMMIT_EXTENTS];
    size_t count;
    struct compact_range ranges[LIMIT_COMMIT_EXTENTS];
    size_t range_count;
};
/* Takes items out of the round that fit into one new block of max_bytes. Items of blocks that nobody
 * holds are dropped. */
void compact_take(struct compact_round *r, uint32_t max_bytes, compact_holder_fn *holder, void *arg,
                  struct compact_group *ret);

#endif
