/* One node of the replicated log: libraft on the caller's libuv loop, around a state machine that
 * keeps its own durable state.
 *
 * Happy path: raft_node_submit() appends an entry -> it is on disk here (and on a majority) -> the
 * state machine's apply is called with it -> the submitter's callback. After a restart the entries
 * behind the last snapshot are applied again, before raft_node_start() returns when this is the
 * only voter; the state machine skips what it has (index <= its applied index).
 *
 * A snapshot is only a reference: the state machine makes a checkpoint of itself, and the log drops
 * what the checkpoint holds. libraft keeps the log's entries in memory, so a checkpoint is due by
 * count and by bytes: replay stays under a second and memory bounded.
 *
 * Failures: anything that cannot be written ends in fsm.failed: nothing is acknowledged any more
 * and the process has to stop. A damaged log is refused at start. All functions and callbacks
 * belong to the loop's thread, but for checkpoint_sync.
 */
#ifndef DFS_CLUSTER_NODE_RAFT_NODE_H
#define DFS_CLUSTER_NODE_RAFT_NODE_H

#include "cluster/base/base.h"

#include <uv.h>

#include "cluster/wire/wire.h"

struct raft_node;

struct raft_node_fsm {
    /* Applies an entry; submitted: the arg of raft_node_submit() when the entry is from there, else
     * NULL. An error stops the node. */
    int (*apply)(void *arg, uint64_t index, struct slice entry, void *submitted, struct why *why);
    uint64_t (*applied)(void *arg); /* index of the last entry in the state machine */
    /* As kv_checkpoint_*(): begin and end on the loop, sync on a thread of libuv's pool. */
    int (*checkpoint_begin)(void *arg, struct why *why);
    int (*checkpoint_sync)(void *arg, struct why *why);
    void (*checkpoint_end)(void *arg);
    /* Bytes that the state machine cannot use again before the next checkpoint; may be NULL. */
    uint64_t (*pending)(void *arg);
    /* It leads and has applied everything that was committed before; or it leads no more. */
    void (*leads)(void *arg, bool leads);
    /* Once; the sentence is for people. */
    void (*failed)(void *arg, int err, const char *text);
    void *arg;
};

struct raft_node_conf {
    const char *dir;           /* of the log; created at the first start */
    uint64_t id;               /* of this node, from 1 */
    bool exists;               /* there has to be a log: this is not the first start */
    const char *address;       /* host:port where the other voters find it */
    const char *bind;          /* host:port to listen on; NULL: a lone voter listens to nobody */
    uint64_t segment_bytes;    /* 0: the default */
    uint64_t snapshot_entries; /* 0: the default */
    uint64_t snapshot_bytes;   /* 0: the default */
};

/* Starts the log, at the first start with this node as the only voter. Errors: DFS_EDAMAGED (which
 * file), DFS_EBUSY (address in use), DFS_EINVAL (address), DFS_EIO; why says more. */
int raft_node_start(uv_loop_t *loop, const struct raft_node_conf *conf,
                    const struct raft_node_fsm *fsm, struct raft_node **ret, struct why *why);

/* Takes the buffer's memory over, whatever the result. done is called once, later or at once:
 * DFS_OK after the entry was applied; DFS_ENOTLEADER: this node does not lead, or lost the lead,
 * in which case the entry may still be applied one day; DFS_EIO: the node has failed. */
typedef void raft_node_done(void *arg, int status);
void raft_node_submit(struct raft_node *n, struct wire_out *entry, raft_node_done *done, void *arg);

/* Of this lead: larger than of any earlier one, of any node. */
uint64_t raft_node_epoch(const struct raft_node *n);

/* Makes a checkpoint if replay would be long, closes the log, frees the node; then stopped is
 * called. Ends within some seconds. Submitted entries are answered before. */
void raft_node_stop(struct raft_node *n, void (*stopped)(void *arg), void *arg);

#endif
