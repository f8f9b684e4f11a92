/* Sending a block to other servers as a writer: packets with a few in flight, in order; the last one
 * seals and syncs. If anything fails the connection is closed, and the targets are left with what an
 * unfinished write or copy leaves. */
#ifndef DFS_REPLICATION_PATH_BLK_PUSH_H
#define DFS_REPLICATION_PATH_BLK_PUSH_H

#include "replication/path/blk_impl.h"

#define BLK_PUSH_MS 10000u /* for one answer */

struct blk_push {
    struct blk_server *server;
    struct conn *conn; /* of blk_open_down(); owned */
    struct pbuf *buf;  /* data and sums of the next packet */
    bool by_file;      /* the target has the source's file, and takes the bytes out of it */
    struct wire_out msg;
    struct write_window window;
    uint64_t block;
    uint64_t id;
};

void blk_push_init(struct blk_push *p, struct blk_server *s, uint64_t block);
void blk_push_fini(struct blk_push *p);
/* Sends the first len bytes of buf, which belong at offset. */
int blk_push_packet(struct blk_push *p, uint32_t offset, uint32_t len, bool last);
/* Waits for all answers. */
int blk_push_finish(struct blk_push *p);

#endif
