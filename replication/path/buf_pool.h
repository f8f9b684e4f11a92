/* Packet buffers that are used again and again: memory touched for the first time costs more than
 * the bytes that go through it. The most recently used one is given out first. Any thread. */
#ifndef DFS_REPLICATION_PATH_BUF_POOL_H
#define DFS_REPLICATION_PATH_BUF_POOL_H

#include <pthread.h>

#include "cluster/base/list.h"

#include "replication/store/layout.h"

/* One packet or one read answer, whatever its alignment. */
struct pbuf {
    struct list link;
    uint32_t sums[LAYOUT_SUMS_OF(PACKET_BYTES)];
    uint8_t *data; /* PBUF_BYTES, page aligned */
};
#define PBUF_BYTES (PACKET_BYTES + 2 * CHUNK_BYTES)

struct buf_pool {
    pthread_mutex_t mu;
    struct list idle; /* guarded by: mu */
    size_t idle_count;
    size_t keep; /* idle buffers that are not given back to the system */
};

void buf_pool_init(struct buf_pool *p, size_t keep);
void buf_pool_fini(struct buf_pool *p); /* all buffers are back */
struct pbuf *buf_pool_get(struct buf_pool *p);
void buf_pool_put(struct buf_pool *p, struct pbuf *b); /* NULL is fine */

#endif
