/* Keeps a new leader from committing entries of earlier terms by counting copies of them.
 *
 * libraft 0.15 commits an entry once a majority stores it, whatever its term; a later leader may
 * still overwrite such an entry (figure 8 of the Raft paper). The guard submits a barrier as soon
 * as this node leads, and drops the followers' append results until that barrier, an entry of the
 * own term, is on this node's disk: from then on all that is counted is at or behind it. Raft copes
 * with lost messages, so dropping is always safe.
 *
 * libraft also tells that its I/O is closed twice when several things end at that moment, and then
 * frees what belongs to struct raft a second time; only the first one is passed on.
 */
#ifndef DFS_CLUSTER_NODE_RAFT_GUARD_H
#define DFS_CLUSTER_NODE_RAFT_GUARD_H

#include "cluster/base/base.h"

#include <raft.h>

struct raft_guard {
    struct raft *raft;
    int (*start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
    void (*close)(struct raft_io *io, raft_io_close_cb closed);
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb closed; /* until it has been called */
    struct raft_barrier barrier;
    raft_term term; /* in which the barrier was submitted */
    raft_index index;
    uint64_t dropped;
    /* This node leads, and has applied all that was committed before (or it leads no more). */
    void (*leads)(void *arg, bool leads);
    void *arg;
    bool leading;
};

/* Between raft_init() and raft_start(). raft->data becomes the guard's. */
void raft_guard_install(struct raft_guard *g, struct raft *raft);
/* Looks whether the role has changed; also done at every tick and message. */
void raft_guard_look(struct raft_guard *g);

#endif
