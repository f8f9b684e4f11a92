/* Work for somebody who may lose interest: a program that is interrupted while its request waits.
 *
 * Whoever carries out a request on a thread surrounds it with cancel_begin() and cancel_end();
 * anybody may set asked meanwhile. Waits on that thread (sock_wait(), cond_wait_until()) then end with
 * DFS_EINTR, but only once they have lasted CANCEL_AFTER_MS: programs get signals all the time, and an
 * operation that is about to succeed must not fail for one.
 */
#ifndef DFS_CLUSTER_BASE_CANCEL_H
#define DFS_CLUSTER_BASE_CANCEL_H

#include "cluster/base/base.h"

#include <stdatomic.h>

#define CANCEL_AFTER_MS 1000u

struct cancel {
    atomic_bool asked;
};

/* c is borrowed until cancel_end(). Not nested. */
void cancel_begin(struct cancel *c);
void cancel_end(void);

/* Between these nothing is broken off: half of the work would be worse than none. Nests. */
void cancel_shield(void);
void cancel_unshield(void);

/* Was it asked for, shield or not: for a place where it does no harm to stop. */
bool cancel_pending(void);

/* For loops that wait: until when to wait before looking again. since_ms: when the waiting began. */
uint64_t cancel_slice(uint64_t since_ms, uint64_t now_ms, uint64_t deadline_ms);
/* Is the wait that began at since_ms to be broken off? */
bool cancel_now(uint64_t since_ms, uint64_t now_ms);

#endif
