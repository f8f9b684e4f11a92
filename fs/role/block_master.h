/* A block server's side of the control plane: registration, heartbeats, reports. One thread at a
 * time; an answer is waited for two seconds at most. */
#ifndef DFS_FS_ROLE_BLOCK_MASTER_H
#define DFS_FS_ROLE_BLOCK_MASTER_H

#include "cluster/net/control.h"

#include "replication/path/blk_server.h"

#include "fs/role/block_orders.h"

struct block_master {
    struct control_client *client;
    struct store *store;
    struct blk_server *server;
    struct block_orders *orders; /* set before the first heartbeat */
    const char *addr;            /* of the data plane */
    const char *host;
    const char *rack;
    uint64_t boot;
    uint64_t seq;
    uint32_t node;
    uint32_t heartbeat_ms; /* as the master wants it, after a registration */
    uint32_t dead_ms;
    uint8_t cluster[CLUSTER_ID_BYTES];
};

/* Errors: DFS_EWRONGCLUSTER, DFS_EVERSION (final); anything else is worth another try. */
int block_master_register(struct block_master *m, struct why *why);
/* Tells volumes, results and damaged copies; takes orders. *ret_flags: enum heartbeat_flag. */
int block_master_heartbeat(struct block_master *m, uint8_t *ret_flags);
/* Digests of everything, and lists of the ranges that differ. That may take longer than a server may be
 * silent: meanwhile is called between two messages; its error ends the report. */
int block_master_report(struct block_master *m, int (*meanwhile)(void *arg), void *arg);
/* A clean stop; waits half a second at most. Any thread. */
void block_master_bye(struct block_master *m);

#endif
