/* The decisions of one file's writing session, without any I/O.
 *
 * Packets go in, in the order of the writes. wcore_next() says what to do for a goal; the caller
 * does it and tells how it went; and so on until WCORE_IDLE. Packets come out by wcore_retire(), in
 * the order they went in, once every replica of their block has acknowledged them.
 *
 * Blocks: OPEN (appended to) -> CLOSING (full; answers outstanding) -> GONE (no connection any more)
 *         OPEN, CLOSING -> FAILED -> GONE (sealed at the acknowledged length)
 * At most one block is OPEN. GONE ones are remembered until their bytes are committed and synced.
 *
 * A packet whose block failed is queued again, before all later ones. Not thread-safe.
 */
#ifndef DFS_FS_CLIENT_WCORE_H
#define DFS_FS_CLIENT_WCORE_H

#include "cluster/base/limits.h"

#include "fs/msgs.h"

#define WCORE_PACKETS 64u /* in the queue at a time */
#define WCORE_LIVE    8u  /* blocks that are not GONE */

enum wcore_goal {
    WCORE_PUSH,  /* all sent; waits only for room in the window */
    WCORE_DRAIN, /* all acknowledged */
    WCORE_SYNC,  /* all acknowledged and on disk */
};

enum wcore_do {
    WCORE_IDLE,  /* the goal is reached */
    WCORE_ALLOC, /* open a block with room for `len` bytes: wcore_opened() */
    WCORE_SEND,  /* send `len` bytes of packet `id` (0: none) at `off`: wcore_sent() or _failed() */
    WCORE_AWAIT, /* take the next answer on `block`: wcore_answered() or wcore_failed() */
    WCORE_SEAL,  /* block_seal(block, len, bad): wcore_sealed() */
    WCORE_SYNC_COPIES, /* block_sync(block, len) on its servers: wcore_synced() */
};

struct wcore_action {
    enum wcore_do what;
    uint64_t id;
    uint64_t block;
    uint32_t off;
    uint32_t len;
    uint8_t flags; /* enum write_flag */
    uint32_t bad;  /* node to name when sealing, 0 = none */
};

enum wcore_block_state { WCORE_OPEN = 1, WCORE_CLOSING, WCORE_FAILED, WCORE_GONE };

struct wcore_block {
    uint64_t id;
    uint8_t state;
    uint8_t control; /* flags of a packet without bytes that is not answered yet */
    uint32_t limit;
    uint32_t sent; /* end offsets */
    uint32_t acked;
    uint32_t synced;
    uint32_t committed;
    uint32_t bad;
};

struct wcore_packet {
    uint64_t id;
    uint32_t len;
    uint32_t off;   /* in the block, once sent */
    uint64_t block; /* 0: queued */
    uint8_t flags;
    bool acked;
};

struct wcore {
    uint32_t window; /* bytes sent and not acknowledged, at most */
    uint32_t head;   /* of the ring */
    uint32_t count;
    uint32_t in_flight;
    struct wcore_packet *ring; /* WCORE_PACKETS of them; NULL until there is one */
    struct wcore_block live[WCORE_LIVE];
    size_t live_count;
    struct wcore_block *gone; /* not committed or not synced yet */
    size_t gone_count;
    size_t gone_cap;
};

void wcore_init(struct wcore *w, uint32_t window);
void wcore_fini(struct wcore *w);

/* With no packet in the queue: gives memory back. */
void wcore_slim(struct wcore *w);
/* False when the queue is full. */
bool wcore_add(struct wcore *w, uint64_t id, uint32_t len);
struct wcore_action wcore_next(const struct wcore *w, enum wcore_goal goal);

/* A block that takes bytes from base to limit; bytes before base are somebody else's. */
void wcore_opened(struct wcore *w, uint64_t block, uint32_t base, uint32_t limit);
void wcore_sent(struct wcore *w, const struct wcore_action *a);
/* An answer came: every replica holds the block's bytes up to end. DFS_EMALFORMED when that is not
 * what was asked; then the caller goes on with wcore_failed(). */
int wcore_answered(struct wcore *w, uint64_t block, uint32_t end);
/* The block's stream is unusable; bad is the server to blame, 0 if nobody is known. */
void wcore_failed(struct wcore *w, uint64_t block, uint32_t bad);
void wcore_sealed(struct wcore *w, uint64_t block);
void wcore_synced(struct wcore *w, uint64_t block, uint32_t len);
/* Nothing more will be appended to the open block by this session; all of it is acknowledged. */
void wcore_detach(struct wcore *w);
/* The oldest packet, if it is acknowledged, leaves. */
bool wcore_retire(struct wcore *w, struct wcore_packet *ret);
/* The oldest packet, acknowledged or not, leaves: the session gives up. */
bool wcore_drop(struct wcore *w, struct wcore_packet *ret);
/* The client's session ended and all its blocks with it: every packet is queued again. */
void wcore_lost(struct wcore *w);
/* Bytes up to `end` of a block were written and acknowledged outside of this queue. */
void wcore_adopt(struct wcore *w, uint64_t block, uint32_t end);

/* The blocks whose length a commit has still to tell: *i counts from 0 and moves on. Ending and
 * releasing a block is not this session's business: others may have bytes in it. */
bool wcore_uncommitted(const struct wcore *w, size_t *i, struct commit_block *ret);
void wcore_committed(struct wcore *w, const struct commit_block *c);

/* GONE blocks that are committed are not synced by this session any more: whoever wants them on disk
 * goes by the file's extents. Returns how many. */
size_t wcore_forget_committed(struct wcore *w);

/* NULL when the session does not know it (any more). Valid until the next change. */
const struct wcore_block *wcore_block(const struct wcore *w, uint64_t block);
const struct wcore_block *wcore_open_block(const struct wcore *w);
/* How long the next packet may be so that packets end at packet and block boundaries. */
uint32_t wcore_room(const struct wcore *w);
/* Bytes that are not on every disk yet, as far as this session knows. */
bool wcore_unsynced(const struct wcore *w);

#endif
