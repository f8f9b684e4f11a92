/* What the files of the simulated master share. */
#ifndef DFS_TEST_SIM_MASTER_INT_H
#define DFS_TEST_SIM_MASTER_INT_H

#include "replication/map/reconcile.h"
#include "replication/map/repair.h"

#include "test/sim/cluster.h"

#define LEASE_MS     10000
#define SUSPECT_MS   2500
#define GRACE_MS     5000
#define MAP_BYTES    (UINT64_C(256) << 20)
#define MAX_CMDS     1024
#define MAX_ENTRIES  65536
#define MAX_SESSIONS 256

enum origin { FROM_CLIENT, FROM_CHANGE, FROM_FORGET, FROM_REGISTER, FROM_INTENT, FROM_TASK };

struct cmd {
    enum origin origin;
    int from;
    uint64_t id;
    uint16_t type;
    struct wire_out hdr, msg, choice;
    struct repair_change change;
    uint64_t block;
    struct server_register_req reg; /* without its borrowed ranges */
    uint8_t volume_bytes[256];
    uint32_t volume_len;
};

struct entry {
    uint8_t *p;
    size_t len;
};

struct sim_master {
    struct cluster *cl;
    char *dir;
    struct ns *ns;
    struct ns_reader *reader;
    struct entry log[MAX_ENTRIES];
    uint64_t log_len;
    uint64_t durable;
    uint64_t begun;   /* entry that the checkpoint being made holds */
    uint64_t trimmed; /* a real log would begin behind this one */
    struct cmd *gathering[MAX_CMDS], *flying[MAX_CMDS];
    size_t gathering_count, flying_count;
    int64_t wall_ns;
    uint32_t epoch;
    struct members members;
    struct repair *repair;
    struct strays strays;
    struct rng rng;
    uint64_t changed[4096]; /* blocks that were touched since the last commit */
    bool sealed[4096];
    size_t changed_count;
    bool settling; /* what is kept will be committed */
    struct {
        uint64_t session, seen_ms;
    } sessions[MAX_SESSIONS];
    size_t session_count;
    uint64_t ticks;
};

uint64_t master_now_ms(const struct sim_master *m);
/* A command for the next batch; NULL when it is full. The caller fills in its message. */
struct cmd *master_submit(struct sim_master *m, enum origin origin, uint16_t type);
void master_send_reply(struct sim_master *m, int to, uint16_t type, uint64_t id, int status,
                       struct slice body);
/* Commits what is kept, as before anything that a client may have told others is looked up. */
void master_settle(struct sim_master *m);
int master_get_block(void *arg, uint64_t block, struct block_rec *ret);
void master_receive(void *arg, const struct sim_msg *msg);

#endif
