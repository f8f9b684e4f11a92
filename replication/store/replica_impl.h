/* What the files that implement replicas share; nobody else includes it. */
#ifndef DFS_REPLICATION_STORE_REPLICA_IMPL_H
#define DFS_REPLICATION_STORE_REPLICA_IMPL_H

#include "replication/store/replica.h"

static inline void replica_lock(struct replica *r)
{
    pthread_mutex_lock(&r->lock->mu);
}

static inline void replica_unlock(struct replica *r)
{
    pthread_mutex_unlock(&r->lock->mu);
}

static inline void replica_wait_locked(struct replica *r)
{
    pthread_cond_wait(&r->lock->cv, &r->lock->mu);
}

static inline void replica_changed_locked(struct replica *r)
{
    pthread_cond_broadcast(&r->lock->cv);
}

/* What is needed to know of a replica for a disk operation, taken at one moment. */
struct replica_moment {
    uint32_t len, tail_sum, cuts;
    bool use_tail;
};

/* The descriptor; each get needs a put. Errors: DFS_EVOLUME, DFS_ENOBLOCK, from errno. */
int replica_get_fd(struct replica *r, int *ret_fd);
void replica_put_fd(struct replica *r);
/* Its file cannot be read: one of its volume's unreadable places, however often it is tried. Returns
 * what the caller is to report. */
int replica_read_failed(struct replica *r, int err);
int replica_write_header(struct replica *r, int fd, enum layout_state state, uint32_t sealed_len);
/* Nothing is left of sums behind the end of a replica of len bytes, in the last group of its file.
 * Errors: from errno. */
int replica_clear_sums(int fd, uint32_t len);

#endif
