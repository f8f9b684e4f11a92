/* Buffers for unsent data and read-ahead, within one budget. Any thread. */
#ifndef DFS_FS_CLIENT_BUFS_H
#define DFS_FS_CLIENT_BUFS_H

#include "cluster/base/base.h"

#include <pthread.h>

#include "cluster/base/limits.h"

#define BUF_BYTES PACKET_BYTES
#define BUF_SPARE 16 /* full-sized ones kept for the next user */

struct bufs {
    pthread_mutex_t mu;
    uint64_t budget;
    uint64_t used;
    uint8_t *spare[BUF_SPARE];
    int spare_count;
};

void bufs_init(struct bufs *b, uint64_t budget);
void bufs_fini(struct bufs *b);
/* *p grows from cap to at least want bytes (BUF_BYTES at most), content kept; returns the new
 * capacity. Always succeeds: who writes looks at bufs_tight() and sends what it has. Not zeroed. */
uint32_t bufs_grow(struct bufs *b, uint8_t **p, uint32_t cap, uint32_t want);
void bufs_free(struct bufs *b, uint8_t *p, uint32_t cap);
/* More than three quarters of the budget are in use. */
bool bufs_tight(struct bufs *b);
uint64_t bufs_used(struct bufs *b);

#endif
