/* The write side of a node: buffers, packets, the streams they go to. See node.h for the locks. */
#ifndef DFS_FS_CLIENT_WRITER_H
#define DFS_FS_CLIENT_WRITER_H

#include "fs/client/node.h"
#include "fs/client/wcore.h"

struct buf_piece {
    uint64_t off; /* in the file */
    uint32_t at;  /* in the buffer */
    uint32_t len;
};

/* Bytes of one packet to be: pieces of the file in the order of the writes. */
struct wbuf {
    uint64_t id;
    uint8_t *p;
    uint32_t cap;
    uint32_t len;
    uint32_t max; /* full at this length */
    uint32_t piece_count;
    uint32_t piece_cap;
    struct buf_piece *piece;
    uint64_t born_ms;
};

#define WRITER_BUFS 128u /* above WCORE_PACKETS + 1, so that an id names one place */

struct writer {
    /* guarded by: n->mu */
    struct wcore core;
    struct wbuf **buf; /* queued ones by id: WRITER_BUFS places; NULL until there is one */
    struct wbuf *cur;  /* being filled */
    uint64_t next_id;
    struct extmap dirty; /* file -> buffer id and place in it */
    bool streaming;      /* has filled a buffer: gets blocks of its own */
    uint32_t stream_count;
    uint64_t session; /* of all blocks; changed with n->io held */
    /* guarded by: n->io */
    struct stream *stream[WCORE_LIVE];
    struct stream *prepared; /* the block after the current one */
    uint64_t used_ms;
};

/* Copies into buffers; sends full ones. */
int writer_write(struct node *n, const void *p, size_t len, uint64_t off);
/* Behind the end of the file, whoever else appends to it: sent and committed at once, because only
 * the masters know where that is. All in one piece. */
int writer_append(struct node *n, const void *p, size_t len);
/* Sends everything and commits it; sync: on every disk too. */
int writer_flush(struct node *n, bool sync, uint64_t deadline_ms);
/* The same without sync, with n->io held, which it stays. */
int writer_settle(struct node *n, uint64_t deadline_ms);
/* Sends, with n->io held, without the commit. */
int writer_run(struct node *n, enum wcore_goal goal, uint64_t deadline_ms);
/* The committing thread: sends what is older than age_ms, gives idle streams back. all: everything,
 * waiting for whoever is at it. What nobody takes now (DFS_ETIMEOUT, DFS_ECONN, DFS_ENOSERVERS,
 * DFS_ESESSION) stays for the next time. */
int writer_tick(struct node *n, uint64_t age_ms, bool all, uint64_t deadline_ms);
/* No handle writes any more: streams go back to the pool if nothing is on its way. */
void writer_release(struct node *n);
void writer_free(struct node *n);

/* With n->mu held: */
void writer_slim_locked(struct node *n); /* it is idle, and may be for long */
bool writer_idle_locked(const struct node *n);
uint64_t writer_end_locked(const struct node *n); /* end of the last byte in a buffer */
const struct extmap *
writer_dirty_locked(const struct node *n); /* what is in buffers; may be NULL */
/* The buffered bytes at off; *ret_len of them. NULL: none at off, the next ones come after *ret_len
 * bytes (UINT64_MAX: none). */
const uint8_t *writer_peek_locked(const struct node *n, uint64_t off, uint64_t *ret_len);

#endif
