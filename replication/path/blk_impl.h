/* What the files of the data plane share; nobody else includes it. */
#ifndef DFS_REPLICATION_PATH_BLK_IMPL_H
#define DFS_REPLICATION_PATH_BLK_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"

#include "replication/path/blk_server.h"
#include "replication/path/buf_pool.h"
#include "replication/path/write_window.h"

#define BLK_FRAME_MS 30000u /* for a frame that has begun, and for answers to leave */
#define BLK_MSG_MAX  8192u  /* bytes of a message that is sent here */

struct blk_server {
    struct store *store;
    struct buf_pool pool;
    int listen_fd[2]; /* TCP and the unix socket beside it; -1: none */
    int wake_fd;      /* eventfd: ends the accept loop */
    uint16_t port;
    uint64_t limit;
    uint64_t hop_ms;
    bool (*doubt)(void *arg, uint64_t block);
    void *arg;
    pthread_t acceptor;
    pthread_attr_t attr;
    uint32_t node; /* 0: does not serve yet; constant afterwards, as cluster */
    uint8_t cluster[CLUSTER_ID_BYTES];
    _Atomic uint64_t fence_ms; /* no writes from then on */
    pthread_mutex_t mu;
    pthread_cond_t ended;
    struct list conns;        /* guarded by: mu */
    uint64_t count;           /* guarded by: mu */
    bool stopping;            /* guarded by: mu */
    _Atomic uint64_t told_ms; /* of a refused connection, in the log */
    _Atomic uint64_t writers, readers, turned_away, refused, written_bytes, read_bytes;
};

/* One write stream: this server's part of a chain. */
struct blk_write {
    struct replica *replica; /* NULL: no stream on this connection */
    struct conn *down;       /* the next server; NULL at the end of the chain */
    uint32_t down_node;
    uint32_t behind; /* servers behind this one */
    uint64_t down_id;
    int file;       /* that packets with WRITE_FILE come out of; 0: none */
    bool last;      /* the packet that seals has come */
    bool down_lost; /* the server behind went away while nothing was to be answered */
    struct write_window window;
};

/* One accepted connection; of its thread. */
struct blk_conn {
    struct list link; /* guarded by: server's mu */
    struct blk_server *server;
    struct conn *up;
    struct wire_out out; /* for messages to send */
    struct blk_write write;
    int down_fd;         /* guarded by: server's mu; for blk_server_stop(); -1 = none */
    uint64_t next_block; /* where a sequential reader goes on */
    uint32_t next_offset;
};

/* Handlers return DFS_OK to go on, anything else to close the connection. */
int blk_reply(struct blk_conn *c, const struct frame *req, int status, const struct iovec *data,
              int data_count);
int blk_read_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_sync_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_check_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_lend_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_stat_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_volume_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_write_open_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_file_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
int blk_packet_serve(struct blk_conn *c, const struct frame *f, struct slice msg);
/* Answers that have come from behind are passed on. */
int blk_write_on_down(struct blk_conn *c);
/* Waits until every packet is answered. */
int blk_write_drain(struct blk_conn *c);
/* The stream is over, however it ended. */
void blk_write_end(struct blk_conn *c);
/* How long this server waits for the servers behind it: longer than the next one waits for those
 * behind that, so that the one in front of a silent server is the one that names it. */
static inline uint64_t blk_patience_ms(const struct blk_server *s, uint32_t behind)
{
    return s->hop_ms * behind;
}
/* clock_mono_ms() at which the server behind has been silent for too long. */
uint64_t blk_write_deadline(const struct blk_conn *c);
/* Nothing came until then: names it to the front. */
int blk_write_silent(struct blk_conn *c);

/* Opens a write stream on another server; chain holds the servers behind that one. *ret_bad: who
 * failed. */
int blk_open_down(struct blk_server *s, const struct block_write_open_req *req, struct slice addr,
                  uint64_t deadline_ms, struct conn **ret, uint32_t *ret_bad);

#endif
