/* Keeps every block at its wanted number of good copies.
 *
 * Looks at block records, remembers those that are not as they should be ("problems"), and turns
 * them into orders for block servers and changes of the records, the most endangered first.
 *
 * Happy path of a lost copy: a server dies -> its blocks are scanned -> each becomes a problem,
 * queued by the number of copies left -> a source and a target with a free stream get an order to
 * copy -> the source reports it done -> the target is added to the record through the log -> the
 * block is looked at again, is fine, and is forgotten here. Copies too many (also: damaged ones
 * once enough good ones are there): dropped from the record first, then deleted on the server.
 * Failures: an order that fails or gets stale frees its streams and the block waits a moment; a
 * change that the log refuses likewise. No good copy is dropped while less than the wanted number
 * remains on live servers; damaged ones neither, unless there is no other server to copy to.
 *
 * Misplaced copies (two on one host, all on one rack, not on the labels of the storage rule): a better
 * place gets a copy first; the worst one is then superfluous and goes.
 *
 * Copies are planned within one byte rate, over the whole cluster. A copy that is no longer needed,
 * because a server came back, is cancelled.
 *
 * Deleted blocks: holders are ordered to delete; when all have, or are dead, the record is
 * forgotten.
 *
 * Pure decisions: time, chance and the records come in as arguments and through repair_env. Not
 * thread-safe.
 */
#ifndef DFS_REPLICATION_MAP_REPAIR_H
#define DFS_REPLICATION_MAP_REPAIR_H

#include "replication/map/bucket.h"
#include "replication/map/orders.h"
#include "replication/map/placement.h"

struct repair_conf {
    uint32_t streams;  /* copies that one server makes or takes at a time */
    uint64_t stale_ms; /* a copy that takes longer is given up */
    uint64_t rate;     /* bytes per second that are copied; 0: no limit */
};

/* A change of a record that the log has to take: the answer goes to repair_changed(), later, not
 * from inside env.change. */
struct repair_change {
    uint64_t block;
    uint32_t node;
    uint8_t op;       /* enum replica_op */
    bool then_delete; /* a drop: delete the copy on the server afterwards */
};

struct repair_env {
    int (*get)(void *arg, uint64_t block, struct block_rec *ret); /* DFS_ENOBLOCK */
    void (*change)(void *arg, const struct repair_change *c);
    void (*forget)(void *arg, uint64_t block);
    void *arg;
};

struct repair_counts {
    uint64_t under;     /* less good copies than wanted, at least one */
    uint64_t missing;   /* no copy on a server that is there */
    uint64_t corrupt;   /* a damaged copy is known */
    uint64_t repairing; /* copies under way */
    uint64_t misplaced; /* blocks with copies enough, but not where they should be */
    uint64_t bytes;     /* still to be copied for those above */
    uint64_t rate;      /* bytes per second copied of late */
};

struct repair;

struct repair *repair_new(const struct repair_conf *conf, const struct repair_env *env,
                          struct members *members, uint32_t epoch, uint64_t seed);
void repair_free(struct repair *r);
void repair_get_counts(const struct repair *r, struct repair_counts *ret);

void repair_set_rate(struct repair *r, uint64_t bytes_per_second);
/* A storage rule of the state machine; it knows all of them before it looks at blocks. */
void repair_set_rule(struct repair *r, uint16_t number, struct slice text);
const struct rule *repair_rule(const struct repair *r, uint16_t number); /* NULL: none */
/* What is wrong with the places of a sealed block's copies, when there are enough of them: enum
 * misplaced. */
unsigned int repair_misplaced(const struct repair *r, uint64_t block, const struct block_rec *rec);
/* Nothing that is needed has been copied for some seconds, nor waits for the rate only. */
bool repair_is_idle(struct repair *r, uint64_t now_ms);

/* Copies that are needed are being ordered, or may be soon: a server has fallen silent. */
bool repair_is_urgent(const struct repair *r, uint64_t now_ms);

/* Moves a copy of a block that is as it should be: a new one is made on `to`, then the one on `from`
 * is dropped. False: not now (a problem, too many streams, it would be misplaced). */
bool repair_move(struct repair *r, uint64_t block, uint32_t from, uint32_t to, uint64_t now_ms);
bool repair_is_moving(const struct repair *r, uint64_t block);

/* The record is this now (a scan, or an event). */
void repair_look(struct repair *r, uint64_t block, const struct block_rec *rec, uint64_t now_ms);
/* It was sealed just now: holders that may still have it open are told its end. */
void repair_sealed(struct repair *r, uint64_t block, const struct block_rec *rec, uint64_t now_ms);
/* The grace of a deleted block is over. False when too many are being deleted: later. */
bool repair_delete(struct repair *r, uint64_t block, const struct block_rec *rec, uint64_t now_ms);
bool repair_is_deleting(const struct repair *r, uint64_t block);
/* The log's answer to env.forget: gone from the records, or to be tried again. */
void repair_forgotten(struct repair *r, uint64_t block);
/* A copy was found damaged (status), by the server or a copy's reader. */
void repair_bad(struct repair *r, uint64_t block, uint32_t node, int status, uint64_t now_ms);

/* Acts on up to `looks` waiting problems, gives up stale orders. Returns true when more could be
 * done at once. */
bool repair_step(struct repair *r, size_t looks, uint64_t now_ms);
/* The server is dead: its orders are dropped. The caller scans its blocks with repair_look(). */
void repair_node_dead(struct repair *r, uint32_t node, uint64_t now_ms);
void repair_done(struct repair *r, uint32_t node, const struct order_done *d, uint64_t now_ms);
/* The log's answer to a change. */
void repair_changed(struct repair *r, const struct repair_change *c, int status, uint64_t now_ms);
uint32_t repair_put_orders(const struct repair *r, uint32_t node, uint32_t max,
                           struct wire_out *out);

/* What reconciling a server's list found (see reconcile.h). */
void repair_seal_copy(struct repair *r, uint64_t block, uint32_t node, uint32_t len,
                      uint64_t now_ms);
/* The server has a whole copy that is not in the record, sealed or still open: taken into the
 * record when the block needs one. False: it does not. */
bool repair_adopt(struct repair *r, uint64_t block, uint32_t node, bool sealed, uint64_t now_ms);
/* The grace of a copy that is not in the record is over: taken into the record when the block needs
 * one by now, else deleted. */
void repair_stray(struct repair *r, uint64_t block, uint32_t node, uint64_t now_ms);
/* The server has a copy that is not in the record: checked again, then ordered to be deleted. One of a
 * block that has no good copy is kept, whatever it is worth. */
void repair_delete_stray(struct repair *r, uint64_t block, uint32_t node, uint64_t now_ms);
void repair_change(struct repair *r, const struct repair_change *c);
/* Is the copy known to be damaged? */
bool repair_is_bad(const struct repair *r, uint64_t block, uint32_t node);
/* True: problems did not fit, or there are other racks or labels than before; scan all blocks again
 * (then the flag is cleared). */
bool repair_wants_scan(struct repair *r);

#endif
