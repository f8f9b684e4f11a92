/* What the files of the simulated client share. */
#ifndef DFS_TEST_SIM_CLIENT_INT_H
#define DFS_TEST_SIM_CLIENT_INT_H

#include "test/sim/cluster.h"

#define FILES    6
#define FILE_MAX (96u << 10)
#define WRITES   6
#define CALL_MS  400

struct model {
    bool exists;
    uint64_t ino;
    char name[32];
    uint8_t repl;
    uint32_t size;
    uint8_t *bytes; /* what is committed */
};

struct pending {
    uint64_t id;
    uint32_t off; /* in the file */
    uint32_t len;
    uint8_t *bytes;
    uint64_t block; /* once acknowledged */
    uint32_t block_off;
};

enum stage {
    ST_SESSION,
    ST_DIR,
    ST_IDLE,
    ST_MAKE,
    ST_WRITE,
    ST_COMMIT,
    ST_TRUNCATE,
    ST_UNLINK,
    ST_RENAME,
    ST_SETREP,
    ST_QUOTA,
    ST_LOCK,
    ST_UNLOCK,
    ST_READ,
    ST_QUIET
};

struct sim_client {
    struct cluster *cl;
    int index;
    int generation;
    enum stage stage;
    bool quiesce;
    uint64_t session;
    uint64_t seq;
    uint64_t dir;
    uint64_t made; /* names given */
    struct model files[FILES];
    struct model *old; /* of earlier lives */
    size_t old_count;
    uint64_t ops;
    uint64_t lane[SIM_NODES];
    /* the call to the master that is out */
    uint64_t call_id;
    uint16_t call_type;
    struct wire_out call_body;
    bool call_open;
    int call_mutex; /* number of its name */
    /* the operation */
    size_t file, other;
    uint32_t size;
    uint8_t repl;
    bool sync;
    struct wcore w;
    bool w_live;
    struct pending pend[WRITES];
    size_t pend_count;
    struct wcore_action act;
    bool waiting;        /* for an answer of a block server */
    uint64_t wait_token; /* of the timer */
    uint64_t next_id;    /* of messages */
    struct chain {
        uint64_t block;
        uint32_t nodes[LIMIT_CHAIN];
        uint32_t count;
        bool ended; /* sealed early, at len */
        uint32_t len;
    } chains[64];
    size_t chain_count;
    struct answer {
        uint64_t block;
        int status;
        uint32_t bad;
        uint32_t end;
    } answers[256];
    size_t answer_count;
    struct commit_block left, leaves; /* committed, but not sealed yet; by the commit that is out */
    uint32_t avoid;
    uint32_t sync_todo; /* survivors to ask, as a bit per chain index */
};

/* Sends a command, again and again until it is answered. */
void client_call(struct sim_client *c, uint16_t type, const struct wire_out *msg);
/* The next operation, or the next part of starting up. */
void client_step(struct sim_client *c);
/* Carries out what the writing session asks for until it has to wait. */
void client_drive(struct sim_client *c);
bool client_take_answer(struct sim_client *c);
void client_begin_write(struct sim_client *c);
void client_plan_write(struct sim_client *c);
void client_committed(struct sim_client *c);
void client_on_alloc(struct sim_client *c, int status, struct slice body);
/* For sim_after. */
void client_step_later(void *arg, uint64_t unused);
void client_drive_later(void *arg, uint64_t unused);

#define CALL(c, name, ...)                                          \
    do {                                                            \
        struct wire_out out_;                                       \
        wire_out_init(&out_, LIMIT_MSG);                            \
        name##_req_put(&out_, &(struct name##_req){ __VA_ARGS__ }); \
        client_call((c), RPC_##name, &out_);                        \
        wire_out_fini(&out_);                                       \
    } while (0)

#endif
