/* The metadata master as a process.
 *
 * Threads: the core (the caller's: log, state machine, commands of clients), query loops (questions
 * of clients, from read transactions), the control plane's (registrations, heartbeats, operators'
 * questions), and the keeper (the leader's tasks: leases, deleted inodes and blocks, repair). The
 * core waits for nobody; the others reach it through a queue.
 */
#ifndef DFS_FS_ROLE_MASTER_H
#define DFS_FS_ROLE_MASTER_H

#include "cluster/base/conf.h"

/* Serves until SIGTERM or SIGINT; SIGHUP reads conf_path (may be NULL) again, for the keys that may
 * change while it runs. Errors, each with a sentence: DFS_EBUSY (data in use, port in
 * use), DFS_EDAMAGED (which file), DFS_EIO (a write failed while serving), as ns_open(),
 * raft_node_start(), rpc_server_start(), control_server_start(). No other thread may run yet. */
int master_run(const struct conf *conf, const char *conf_path, struct why *why);

#endif
