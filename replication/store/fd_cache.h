/* Descriptors of replica files, kept open while they are used and, up to a limit, afterwards.
 *
 * The least recently used idle descriptor is closed first. Descriptors in use are never closed, so
 * the limit can be passed by as many as are in use. Any thread.
 */
#ifndef DFS_REPLICATION_STORE_FD_CACHE_H
#define DFS_REPLICATION_STORE_FD_CACHE_H

#include <pthread.h>

#include "cluster/base/list.h"

/* Embedded in the thing that has the file. All fields guarded by the cache. */
struct fd_slot {
    struct list idle; /* in the cache's list while open and not used */
    int fd;           /* -1: closed */
    uint32_t users;
};

struct fd_cache {
    pthread_mutex_t mu;
    pthread_cond_t unused; /* a slot that somebody waits for has no users */
    struct list idle;      /* least recently used first; guarded by: mu */
    size_t waiting;        /* in fd_cache_exchange(); guarded by: mu */
    size_t open;           /* guarded by: mu */
    size_t limit;
};

void fd_cache_init(struct fd_cache *c, size_t limit);
void fd_cache_fini(struct fd_cache *c); /* every slot is closed by then */

void fd_slot_init(struct fd_slot *s);
/* The descriptor, opened for reading and writing when it is not open. Each get needs a put.
 * Errors: from errno. */
int fd_cache_get(struct fd_cache *c, struct fd_slot *s, const char *path, int *ret_fd);
/* Takes a file in that the caller has just opened, as one use. */
void fd_cache_add(struct fd_cache *c, struct fd_slot *s, int fd);
void fd_cache_put(struct fd_cache *c, struct fd_slot *s);
/* Another file in place of the one that is open: waits until that one is not used, and takes the new
 * one in as one use. */
void fd_cache_exchange(struct fd_cache *c, struct fd_slot *s, int fd);
/* Closes an idle slot; the last use is over. */
void fd_cache_drop(struct fd_cache *c, struct fd_slot *s);

#endif
