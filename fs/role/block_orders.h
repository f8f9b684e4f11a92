/* Orders of the master to a block server: carried out by a few threads, their results kept until a
 * heartbeat that told them has been answered.
 *
 * The master repeats what it has not seen done; an order that is waiting, running or done but not
 * told yet is not taken again. Any thread.
 */
#ifndef DFS_FS_ROLE_BLOCK_ORDERS_H
#define DFS_FS_ROLE_BLOCK_ORDERS_H

#include "cluster/base/limits.h"

#include "replication/msgs.h"

#define BLOCK_ORDERS_MAX 8192 /* known at a time; more are left to the master to repeat */

struct block_orders;

/* One order as it is carried out; strings live as long as the call. */
struct block_order {
    uint64_t id;
    enum order_kind kind;
    uint64_t block;
    uint32_t len;
    uint32_t node;     /* of a copy: the target */
    const char *addr;  /* of a copy: the target's; else empty */
    const char *label; /* of a copy: of the target's volume; empty: any */
};

/* Carries one out, on one of the threads; returns its status, *ret_len: the replica's length. */
typedef int block_order_fn(void *arg, const struct block_order *o, uint32_t *ret_len);

struct block_orders_conf {
    unsigned threads;
    block_order_fn *fn;
    void (*done)(void *arg); /* one more is done: a heartbeat may be sent sooner */
    void *arg;
};

/* NULL when no thread could be started. */
struct block_orders *block_orders_start(const struct block_orders_conf *conf);
/* Waits for those that run, forgets the rest. NULL is fine. */
void block_orders_stop(struct block_orders *b);

/* Takes over what a heartbeat's reply brought (a list of order). Errors: DFS_EMALFORMED. */
int block_orders_take(struct block_orders *b, struct wire_list orders);
/* Appends up to max results as order_done, oldest first; returns their number. */
uint32_t block_orders_put_done(struct block_orders *b, uint32_t max, struct wire_out *out);
/* The first n of them have been told. */
void block_orders_told(struct block_orders *b, uint32_t n);
bool block_orders_has_done(struct block_orders *b);

#endif
