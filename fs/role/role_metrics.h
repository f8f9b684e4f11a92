/* What the roles tell Prometheus; see cluster/metrics.def. */
#ifndef DFS_FS_ROLE_ROLE_METRICS_H
#define DFS_FS_ROLE_ROLE_METRICS_H

#include "cluster/base/metrics.h"

#include "replication/path/blk_server.h"
#include "replication/store/scrubber.h"

struct master;

/* metrics_collect_fn of a master: arg is the struct master. Takes its locks one after the other. */
void master_metrics_collect(void *arg, struct metrics_out *out);

struct block_metrics {
    struct store *store;
    struct blk_server *server;
    struct scrubber *scrubber;
    _Atomic bool registered; /* a master has answered the last heartbeat */
};

/* metrics_collect_fn of a block server: arg is a struct block_metrics. */
void block_metrics_collect(void *arg, struct metrics_out *out);

#endif
