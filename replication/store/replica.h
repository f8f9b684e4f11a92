/* One replica: bytes of a block in a file of their own (layout.h).
 *
 * Many threads read, one appends (the store lets one writer in at a time), any may sync, seal or
 * remove. State lives under a lock that is never held during disk operations, so a reader is not
 * held up by an append or a sync: it takes the length and the sum of the last chunk as they are at
 * one moment, and the bytes below that length do not change any more. Only a seal that cuts bytes
 * off makes readers that were under way read again.
 *
 * A replica is counted: store_get() and the like give a reference, store_put() returns it.
 */
#ifndef DFS_REPLICATION_STORE_REPLICA_H
#define DFS_REPLICATION_STORE_REPLICA_H

#include "cluster/base/htab.h"

#include "replication/store/fd_cache.h"
#include "replication/store/layout.h"
#include "replication/store/replica_rules.h"
#include "replication/store/volume.h"

struct replica;

/* What the replicas of a store share. */
struct replica_env {
    struct fd_cache fds;
    uint8_t cluster[CLUSTER_ID_BYTES];
    /* Its bytes or header are not on disk yet. Called unlocked, once until replica_clean(). */
    void (*dirty)(void *arg, struct replica *r);
    /* A good part of it is not on disk yet, and more is coming: the disk should begin. May be NULL. */
    void (*much)(void *arg, struct replica *r);
    void *arg;
};

/* Shared by replicas of neighbouring hashes. */
struct replica_lock {
    pthread_mutex_t mu;
    pthread_cond_t cv; /* any change of a replica under this lock; monotonic clock */
};

struct replica {
    struct hnode node; /* of the store's index; guarded by: lock */
    uint64_t block;
    struct volume *_Atomic vol; /* changed by replica_move() only */
    struct replica_env *env;
    struct replica_lock *lock;
    struct fd_slot fd;
    struct list dirty; /* of the store */
    uint64_t dirty_ms; /* of the store */
    struct sm sm;      /* enum rule_state; guarded by: lock, as all below */
    uint32_t refs;
    uint32_t len;
    uint32_t tail_sum; /* of the last, partial chunk, when tail_known */
    uint32_t synced;   /* bytes that are on disk */
    uint32_t cuts;     /* counts the times that bytes were cut off */
    uint32_t mark;     /* number of the last sync mark */
    int damage;        /* what a check found; 0: nothing */
    bool unreadable;   /* and its volume has counted that */
    bool tail_known;
    bool writer;  /* somebody is between store_write_begin and _end */
    bool busy;    /* an append, a seal or a removal is at the disk */
    bool cutting; /* readers wait */
    bool syncing;
    bool seal_unsaved; /* the header does not say LAYOUT_SEALED yet */
    bool named;        /* its directory entry is on disk */
    bool is_dirty;     /* told to env->dirty */
    bool pinned;       /* while dirty: one use of fd; of the thread that set is_dirty */
};

/* Makes the file, open and empty; state RULE_OPEN or RULE_COPY. On r as the store has initialised it
 * (block, vol, env, lock). Errors: DFS_ENOSPC, DFS_EVOLUME, DFS_EBUSY (no descriptors left). */
int replica_create(struct replica *r);

/* Appends bytes whose sums the caller has checked: sums[i] covers the part of chunk i that is in
 * data; sums[0] is changed to the sum of the whole first chunk. On success the bytes are in the
 * page cache: see replica_sync(). One thread at a time: the writer.
 * Errors: DFS_EOFFSET (offset is not the end; nothing changed), DFS_ESEALED, DFS_ENOBLOCK,
 * DFS_EFBIG, DFS_ENOSPC (the reserve is kept), DFS_EVOLUME (the volume has failed). */
int replica_append(struct replica *r, uint32_t offset, struct slice data, uint32_t *sums);

/* Whole chunks and their sums out of a replica's file; offset is a multiple of CHUNK_BYTES. Nothing is
 * compared. Errors: DFS_ECHECKSUM (the file ends too soon); from errno. */
int replica_read_parts(int fd, uint32_t offset, uint32_t len, uint8_t *data, uint32_t *sums);

/* A new descriptor of the replica's file, for reading only; the caller closes it. Errors:
 * DFS_ENOBLOCK (the file is gone), DFS_EVOLUME, DFS_EIO, DFS_EBUSY (too many are open). */
int replica_open_to_read(struct replica *r, int *ret_fd);

struct replica_range {
    uint32_t offset; /* of data: a multiple of CHUNK_BYTES */
    uint32_t len;    /* bytes in data; 0 behind the end */
    uint32_t sum_count;
    uint32_t replica_len; /* at the time of the read */
};

/* Whole chunks that cover the range, the last one cut by the end of the replica. data has room for
 * len + 2 chunks, sums for LAYOUT_SUMS_OF(len). Nothing is compared: the reader's end does that.
 * Errors: DFS_ENOBLOCK, DFS_EOFFSET (begins behind the end), DFS_ECHECKSUM (the file ends too soon),
 * DFS_EIO, DFS_EVOLUME. */
int replica_read(struct replica *r, uint32_t offset, uint32_t len, void *data, uint32_t *sums,
                 struct replica_range *ret);

/* Makes the first len bytes durable, and the seal if it is sealed. Threads that wait for the same
 * replica share one fdatasync. Errors: DFS_EOFFSET (it is shorter), DFS_ENOBLOCK, DFS_EVOLUME. */
int replica_sync(struct replica *r, uint32_t len);
/* Everything there is; what the background does. */
int replica_sync_all(struct replica *r);

/* Ends it at len; bytes behind are cut off, a running append is waited for. Not durable by itself:
 * see replica_sync(). Errors: DFS_EOFFSET (it is shorter), DFS_ENOBLOCK, DFS_ECHECKSUM (the chunk
 * that would be cut does not match its sum), DFS_EVOLUME. */
int replica_seal(struct replica *r, uint32_t len);

/* Moves a sealed replica to another volume, durably; readers do not notice.
 * Errors: DFS_EAGAIN (it is not on disk yet), DFS_ECHECKSUM (its bytes are damaged), DFS_ENOBLOCK,
 * DFS_ENOSPC, DFS_EVOLUME, DFS_EIO; nothing has changed then. */
int replica_move(struct replica *r, struct volume *to);

/* Asks the system to read a range from disk before it is wanted. Best effort. */
void replica_prefetch(struct replica *r, uint32_t offset, uint32_t len);

/* Marks it gone and removes the file; false: somebody else has done or does that. */
bool replica_unlink(struct replica *r);

/* Tells whether all is on disk; when it is, the next change calls env->dirty again. */
bool replica_clean(struct replica *r);
/* Calls env->dirty unless that was done: for a replica that a start found. */
void replica_mark_dirty(struct replica *r);

/* A check has found that it is not what it should be. */
bool replica_is_damaged(struct replica *r);
/* State and length at this moment. */
struct rule_replica replica_look(struct replica *r);
struct rule_replica replica_look_locked(const struct replica *r);

#endif
