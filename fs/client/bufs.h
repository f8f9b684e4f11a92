/* Buffers for unsent data and read-ahead, within what the rest of the process leaves of its memory
 * (memory.h). Any thread. */
#ifndef DFS_FS_CLIENT_BUFS_H
#define DFS_FS_CLIENT_BUFS_H

#include "cluster/base/base.h"

#include <pthread.h>

#include "cluster/base/limits.h"

#define BUF_BYTES PACKET_BYTES

struct buf_spare;

struct bufs {
    pthread_mutex_t mu;
    uint64_t total;  /* of the process */
    uint64_t budget; /* of buffers; guarded by: mu, as all below */
    uint64_t used;
    struct buf_spare *spare; /* full-sized ones for the next user */
    uint64_t spare_count;
    uint64_t spare_least; /* since bufs_tick() */
    uint64_t rest;        /* what the rest of the process took lately, at most */
    uint64_t measured_ms;
};

void bufs_init(struct bufs *b, uint64_t total);
void bufs_fini(struct bufs *b);
/* *p grows from cap to at least want bytes (BUF_BYTES at most), content kept; returns the new
 * capacity. Always succeeds: who writes looks at bufs_tight() and sends what it has. Not zeroed. */
uint32_t bufs_grow(struct bufs *b, uint8_t **p, uint32_t cap, uint32_t want);
void bufs_free(struct bufs *b, uint8_t *p, uint32_t cap);
/* More than three quarters of the budget are in use. */
bool bufs_tight(struct bufs *b);
uint64_t bufs_used(struct bufs *b);
uint64_t bufs_budget(struct bufs *b);
/* Once in a while: what nobody needs goes back to the system. */
void bufs_tick(struct bufs *b);

#endif
