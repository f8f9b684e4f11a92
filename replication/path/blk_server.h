/* The data plane of a block server: accepts connections and serves block_write_open, block_packet,
 * block_read, block_sync and block_stat, one blocking thread for each connection.
 *
 * A disk that blocks a thread holds up that connection only. Garbage, frames that are too long and
 * wrong versions close the connection and are counted.
 */
#ifndef DFS_REPLICATION_PATH_BLK_SERVER_H
#define DFS_REPLICATION_PATH_BLK_SERVER_H

#include "replication/store/store.h"

struct blk_server;

struct blk_server_conf {
    const char *listen;   /* host:port; port 0 picks one */
    uint64_t connections; /* at a time; more are closed at once */
    struct store *store;  /* borrowed until stop */
    /* A reader doubts a copy: it is to be checked. False: too many are waiting. NULL is fine. */
    bool (*doubt)(void *arg, uint64_t block);
    void *arg;
    uint64_t hop_ms; /* patience with each server behind in a chain; 0: CHAIN_HOP_MS */
};

/* Takes the port; connections wait until blk_server_serve(). Errors: DFS_EBUSY (port in use),
 * DFS_EINVAL. */
int blk_server_start(const struct blk_server_conf *conf, struct blk_server **ret, struct why *why);
/* Ends all connections and waits for their threads. NULL is fine. */
void blk_server_stop(struct blk_server *s);
uint16_t blk_server_port(const struct blk_server *s);

/* Begins to serve, once the registration has told who this is. Errors: DFS_ENOMEM. */
int blk_server_serve(struct blk_server *s, const uint8_t cluster[CLUSTER_ID_BYTES], uint32_t node,
                     struct why *why);
/* Writes are refused with DFS_EFENCED after until_ms (clock_mono_ms), those under way too: the
 * masters may count this server as dead by then. UINT64_MAX, as at the start: no such end. */
void blk_server_fence(struct blk_server *s, uint64_t until_ms);

struct blk_stats {
    uint64_t connections; /* now open */
    uint64_t writers;     /* write streams now open */
    uint64_t readers;     /* reads now being served */
    uint64_t turned_away; /* over the limit */
    uint64_t refused;     /* garbage, wrong versions, wrong clusters */
    uint64_t written_bytes, read_bytes;
};
void blk_server_stats(struct blk_server *s, struct blk_stats *ret);

/* Pushes a sealed replica to another server, which has it on disk when this returns. Sums are
 * compared here while reading and there again; a copy that fails here is reported as damaged. A
 * target that has the whole block already counts as done.
 * Errors: DFS_ENOBLOCK, DFS_EOFFSET (it is not that long), DFS_ECHECKSUM, DFS_EIO: of the copy here;
 * DFS_EEXIST (the target has another replica, or a damaged one), DFS_ECONN, DFS_ETIMEOUT, what pace
 * returns, and what the target answers: DFS_EAGAIN where that would be one of the first. */
struct blk_copy {
    uint64_t block;
    uint32_t len;     /* sealed length */
    const char *addr; /* of the target */
    uint32_t node;
    const char *label; /* of the volume there; NULL or empty: any */
    /* Called before each packet: may wait, may end the copy with an error. NULL is fine. */
    int (*pace)(void *arg, uint32_t bytes);
    void *arg;
};
int blk_server_copy(struct blk_server *s, const struct blk_copy *copy);

/* Makes a new block of ranges of sealed ones that are here, one behind the other, on all its servers;
 * it is sealed and on disk when this returns. *ret_len: its length. Sums are compared while reading.
 * Errors: as blk_server_copy(), DFS_EAGAIN (one is not sealed here), DFS_EMALFORMED. */
struct blk_compact {
    uint64_t block;
    struct wire_list nodes;                 /* node_addr, chain order */
    struct wire_list ranges;                /* compact_range */
    int (*pace)(void *arg, uint32_t bytes); /* as of blk_copy */
    void *arg;
};
int blk_server_compact(struct blk_server *s, const struct blk_compact *ask, uint32_t *ret_len);

#endif
