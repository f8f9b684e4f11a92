/* The master's side of the events that sessions hear of (session_poll).
 *
 * A session that has asked once has a queue. Posting puts an event there and wakes the loop that
 * holds the session's request; that loop's thread answers. What was answered stays in the queue until
 * the next request says that it arrived. A queue that overflows is emptied and holds one EVENT_ALL.
 *
 * Events are hints: a session that never asked gets none, a master that starts knows of none; both
 * begin with EVENT_ALL. Any thread; the lock inside is the last one that is taken.
 */
#ifndef DFS_FS_ROLE_EVENTS_H
#define DFS_FS_ROLE_EVENTS_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/htab.h"
#include "cluster/net/rpc_loop.h"

#include "fs/msgs.h"

#define EVENTS_QUEUE_MAX 1024u /* of one session */

struct events {
    pthread_mutex_t mu; /* guards all below */
    struct htab queues; /* by session */
    struct list due;    /* queues whose held request is to be answered */
    uint64_t channel;   /* of the newest queue */
    uint64_t hold_ms;
    bool closed;
    atomic_size_t count; /* of queues */
};

void events_init(struct events *e, uint64_t hold_ms);
void events_fini(struct events *e);

/* A request. *ret_held true: it is answered later, see events_answer(); else rep is filled in.
 * Errors: DFS_ESHUTDOWN. */
int events_poll(struct events *e, uint64_t session, const struct session_poll_req *q,
                struct rpc_loop *loop, struct rpc_token token, uint64_t now_ms,
                struct wire_out *rep, bool *ret_held);
/* Does nothing for a session without a queue. ev and its name are borrowed. */
void events_post(struct events *e, uint64_t session, const struct event *ev);
/* The session is no more; its request gets DFS_ESESSION. */
void events_end(struct events *e, uint64_t session);
/* Is there anybody who could hear? Cheap. */
bool events_wanted(const struct events *e);

/* One request of this loop that is to be answered now, with *ret_status and rep (appended to).
 * False: none. To be called by the loop's thread, when woken, until it is false. */
bool events_answer(struct events *e, const struct rpc_loop *loop, struct rpc_token *ret_token,
                   int *ret_status, struct wire_out *rep);
/* Once a second: requests that were held for long enough are answered, with nothing. */
void events_tick(struct events *e, uint64_t now_ms);
/* From now on no request is held and no loop woken: before the loops go. */
void events_close(struct events *e);

#endif
