/* The simulated cluster: one master, block servers, clients, each around the cores of the real program.
 *
 * The master is the real state machine on a real LMDB, with a log in memory in place of the raft log,
 * and the leader's real membership, placement, repair and reconciliation. Block servers follow the
 * replica rules; their disks are arrays of which a power cut takes the unsynced tail. Clients drive
 * the real writing session and check everything they read against what they wrote.
 */
#ifndef DFS_TEST_SIM_CLUSTER_H
#define DFS_TEST_SIM_CLUSTER_H

#include "replication/store/replica_rules.h"

#include "fs/client/wcore.h"
#include "fs/ns/ns.h"

#include "test/sim/sim.h"

#define SIM_SERVERS    5
#define SIM_CLIENTS    3
#define SIM_MASTER     0
#define SIM_BLOCK_SIZE (16u << 10)
#define SIM_MS         UINT64_C(1000)
#define SIM_SEC        UINT64_C(1000000)
#define DEAD_MS        6000
#define FENCE_MS       (DEAD_MS - DEAD_MS / 4)

static inline int server_node(uint32_t node_id)
{
    return (int)node_id; /* server ids are given from 1 on; see master_boot */
}

static inline int client_node(int i)
{
    return 1 + SIM_SERVERS + i;
}

/* ---- block servers (block.c) ---- */

struct sim_replica {
    uint64_t block;
    struct rule_replica rule;
    uint32_t synced; /* bytes that survive a power cut */
    uint8_t *bytes;
    struct sim_replica *next;
};

struct sim_server {
    struct cluster *cl;
    uint32_t id;
    uint64_t boot;
    uint64_t seq;
    uint64_t sent_us; /* when the master was spoken to last, and when last with an answer */
    uint64_t answered_us;
    bool registered;
    struct sim_replica *replicas;
    struct wire_out done; /* order_done records not yet reported */
    uint32_t done_count;
    uint64_t lane[SIM_NODES];
};

void server_boot(struct sim_server *s);
/* power: what was not synced is lost. */
void server_crash(struct sim_server *s, bool power);
/* A volume of it fails: some sealed replicas vanish that others have. */
void server_lose_volume(struct sim_server *s);
void server_free(struct sim_server *s);
struct sim_replica *server_find(struct sim_server *s, uint64_t block);

/* ---- master (master.c) ---- */

struct sim_master;
struct sim_master *master_new(struct cluster *cl, const char *dir);
void master_free(struct sim_master *m);
void master_boot(struct sim_master *m);
void master_crash(struct sim_master *m);
/* What an operator wants of a server, fields as in map_intent. */
void master_intend(struct sim_master *m, uint32_t node, uint8_t fields,
                   const struct server_rec *want);
/* Every server that is to be emptied is empty, and says so. */
bool master_emptied(struct sim_master *m, char *ret_why, size_t cap);
struct ns *master_ns(struct sim_master *m);
/* The whole log applied to an empty database gives the same database. */
void master_check_log(struct sim_master *m);
/* Each block counts the bytes that extents name of it, and is owned by a session that lives, or by
 * none; one without either is gone. */
void master_check_live(struct sim_master *m);
/* What quota directories are charged with is the sum over the inodes. */
void master_check_quotas(struct sim_master *m);
/* The same counts by fsck's own way of counting. */
void master_check_audit(struct sim_master *m);
/* Every block has as many copies as it wants, on servers that are up and hold them whole. When not:
 * a sentence about the first that has not. */
bool master_converged(struct sim_master *m, char *ret_why, size_t cap);

/* ---- clients (client.c) ---- */

struct sim_client;
struct sim_client *client_new(struct cluster *cl, int index);
void client_free(struct sim_client *c);
void client_boot(struct sim_client *c);
/* Stop starting new operations; true once the last one is finished. */
void client_quiesce(struct sim_client *c);
bool client_idle(const struct sim_client *c);
/* What it is at, for a failure's report. */
void client_describe(const struct sim_client *c, char *ret, size_t cap);
/* Is the name that all clients make there when somebody has made it, and only then? */
void client_verify_mutex(struct cluster *cl);
/* Every file reads back as written, straight from the namespace and the replicas. */
void client_verify(struct sim_client *c);
uint64_t client_ops(const struct sim_client *c);

/* A name in the root that all clients make, exclusively, and remove. */
struct sim_mutex {
    int number; /* another name when nobody knows any more who has it */
    int holder; /* client; -1: nobody */
};

struct cluster {
    struct sim sim;
    struct sim_master *master;
    struct sim_server servers[SIM_SERVERS + 1]; /* by id; 0 is not used */
    struct sim_client *clients[SIM_CLIENTS];
    uint32_t leaving; /* server that was told to; 0: none */
    struct sim_mutex mutex;
    char *dir;
};

/* Messages of the simulated data plane: the request as the real one encodes it, then the bytes. */
struct sim_packet {
    uint64_t block;
    uint32_t offset;
    uint32_t hop; /* index of the receiver in the chain */
    uint32_t chain[LIMIT_CHAIN];
    uint32_t chain_count;
    uint32_t client; /* node of the writer */
    uint8_t flags;
    bool open;    /* block_write_open */
    uint32_t bad; /* of an answer: the server that refused */
    struct slice data;
};
void packet_put(struct wire_out *out, const struct sim_packet *p);
bool packet_get(struct slice s, struct sim_packet *ret);

#endif
