/* What raft_node does before the log is open: addresses, the first start, the directory's state. */
#ifndef DFS_CLUSTER_NODE_RAFT_BOOT_H
#define DFS_CLUSTER_NODE_RAFT_BOOT_H

#include "cluster/base/base.h"

#include <raft.h>
#include <uv.h>

/* "host:port" as libraft takes it: an IPv4 address in numbers. DFS_EINVAL. */
int raft_boot_resolve(const char *address, char *ret, size_t cap, struct why *why);
/* Can it be listened on? libraft reports a port in use as an I/O error without words. DFS_EBUSY. */
int raft_boot_probe(const char *numeric, struct why *why);

/* Leaves the directory as raft may open it: the first start makes a log with this node as the only
 * voter. exists: there was one. DFS_EDAMAGED: the log is gone, or damaged in a way that
 * libraft would not tell. */
int raft_boot_prepare(const char *dir, uint64_t id, const char *address, bool exists,
                      struct why *why);

/* Our code and a sentence for libraft's error. */
int raft_boot_failed(const char *dir, int rc, const char *text, struct why *why);
/* Closes it and runs the loop until that is done. */
void raft_boot_close(struct raft *raft, uv_loop_t *loop);

#endif
