/* Open blocks of this session, each with the connection that appends to it.
 *
 * A stream belongs to one writer at a time. Streams that still have room wait in a pool, so that
 * many small files share blocks; who needs a block for itself opens a fresh one. Any thread; one
 * stream is used by one thread at a time.
 *
 * Blocks that get no more bytes are remembered until every file has committed what it has in them;
 * then the masters are told that they are released.
 */
#ifndef DFS_FS_CLIENT_STREAMS_H
#define DFS_FS_CLIENT_STREAMS_H

#include "cluster/net/conn.h"

#include "fs/client/meta.h"
#include "fs/client/peers.h"

struct streams;

struct stream {
    struct conn *conn;
    uint64_t block;
    uint64_t session;
    uint32_t off;   /* where the next packet goes */
    uint32_t limit; /* block size */
    struct peers *peers;
    uint32_t chain[LIMIT_REPLICATION]; /* the first one is whom we talk to */
    uint32_t chain_count;
    uint32_t hung; /* of the chain, found out while waiting; 0: none */
    uint8_t want;  /* copies */
    uint16_t rule; /* storage rule */
    uint64_t idle_since_ms;
    uint64_t last_req;
    struct wire_out out;
};

struct streams *streams_new(struct meta *meta, struct peers *peers, const char *host);
void streams_free(struct streams *ss);

/* A pooled stream for such files with room for len bytes; NULL when there is none. */
struct stream *streams_take(struct streams *ss, uint8_t want, uint16_t rule, uint32_t len);
/* Allocates a block and opens its chain. When the chain fails after the block was allocated,
 * *ret_block names it and *ret_bad the server to blame; both 0 otherwise.
 * Errors: DFS_ENOSPC, DFS_ENOSERVERS, DFS_ETIMEOUT from the master; what a server said. */
int streams_open(struct streams *ss, uint8_t want, uint16_t rule, uint8_t kind,
                 uint64_t deadline_ms, struct stream **ret, uint64_t *ret_block, uint32_t *ret_bad);
/* All of its bytes are acknowledged; it goes back to the pool, or ends. NULL is fine. */
void streams_give(struct streams *ss, struct stream *s);
/* No more bytes go to this block, which ends at len. Closes the connection. */
void streams_end(struct streams *ss, struct stream *s, uint32_t len);
/* The connection goes; what becomes of the block is said by streams_ended(). */
void stream_close(struct stream *s);
void streams_ended(struct streams *ss, uint64_t block, uint32_t len);

/* For the thread that commits everything: ends streams that idled long and takes what has ended so
 * far, ordered by block. After the files were committed, streams_release() tells the masters of those
 * that nobody holds any more and keeps the others for the next time. */
struct ended {
    uint64_t session;
    uint64_t block;
    uint32_t len;
    bool held;
};
size_t streams_tick(struct streams *ss, struct ended **ret);
/* All that wait in the pool end. */
void streams_end_idle(struct streams *ss);
void streams_release(struct streams *ss, struct ended *e, size_t count, uint64_t deadline_ms);

/* One packet at s->off (moves on). data NULL: no bytes. */
int stream_send(struct stream *s, const uint8_t *data, uint32_t len, uint8_t flags,
                uint64_t deadline_ms);
/* The next answer. *ret_bad is set on failure: the server to blame. */
int stream_recv(struct stream *s, uint64_t deadline_ms, uint32_t *ret_end, uint32_t *ret_bad);
/* Whom to blame for an error that nobody explained. */
uint32_t stream_blame(const struct stream *s);

#endif
