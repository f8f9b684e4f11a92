/* One directory that holds replicas, normally a disk of its own.
 *
 *   <path>/dfs-volume            who it belongs to (identity.h)
 *   <path>/dfs-volume.lock       locked while a server runs on it
 *   <path>/blocks/<xx>/<id>      replicas (layout.h); xx is the id's last byte
 *
 * A volume that fails to write, or to read again and again, is marked failed for good: nothing on it
 * is used or reported any more, until the server starts again with it repaired.
 */
#ifndef DFS_REPLICATION_STORE_VOLUME_H
#define DFS_REPLICATION_STORE_VOLUME_H

#include <pthread.h>
#include <stdatomic.h>

#include "replication/store/identity.h"
#include "replication/store/latency.h"

#define VOLUME_PATH_MAX 4000 /* bytes of a volume's path */

struct volume {
    char *path;
    char label[LIMIT_LABEL + 1]; /* set by the store; empty: none */
    uint8_t uuid[UUID_BYTES];
    bool fresh;   /* had no identity when it was opened */
    bool foreign; /* its identity names another server of the cluster */
    int open_err; /* why it could not be opened; 0: it was */
    int lock_fd;
    uint64_t reserve;
    _Atomic uint64_t used; /* bytes of replicas */
    _Atomic uint32_t blocks;
    _Atomic uint64_t errors;  /* failed reads and writes */
    _Atomic uint64_t damaged; /* copies that were found damaged, by whomever */
    _Atomic bool failed;
    _Atomic bool joining;  /* being scanned: nothing new yet */
    _Atomic bool leaving;  /* being emptied: nothing new any more */
    _Atomic bool detached; /* not used any more; kept for those who still look at it */
    pthread_mutex_t mu;
    uint64_t total;      /* guarded by: mu */
    uint64_t free_bytes; /* guarded by: mu; the reserve taken off; an estimate between looks */
    uint64_t looked_ms;  /* guarded by: mu; clock of the last statvfs, 0: look again */
    struct why failure;  /* guarded by: mu; why it failed, for the log */
    int64_t turn;        /* of the store's choice; guarded by the store */
    struct latency latency;
};

/* Opens a directory (made if missing) as a volume of this server, locks it, prepares blocks/.
 * known: the uuid that the server's identity has for this path, or NULL for a path it does not know.
 * A volume that has no identity yet gets one from volume_adopt().
 * Errors, each with a sentence: DFS_EBUSY (a running server uses it), DFS_EWRONGCLUSTER (another
 * cluster's or another server's), DFS_ENOENT (known, but empty: its disk is not mounted),
 * DFS_EROFS, DFS_EACCES, DFS_ENOSPC (new, and no room above the reserve), DFS_EDAMAGED, DFS_EIO. */
int volume_open(const char *path, const uint8_t *known, uint64_t reserve, struct volume **ret,
                struct identity *ret_id, struct why *why);
/* In place of one that could not be opened: failed from the start. why: the reason; may be NULL. */
struct volume *volume_of_failed(const char *path, const uint8_t uuid[UUID_BYTES], int err,
                                const struct why *why);
void volume_close(struct volume *v); /* NULL is fine */
/* Writes its identity: server and cluster as in `of`. */
int volume_adopt(struct volume *v, const struct identity *of, struct why *why);

/* Takes bytes that are about to be written out of the free space, or DFS_ENOSPC: the reserve is
 * kept. DFS_EVOLUME on a failed one. */
int volume_take(struct volume *v, uint64_t bytes);
/* It has failed, or was let go. */
static inline bool volume_is_out(const struct volume *v)
{
    return atomic_load(&v->failed) || atomic_load(&v->detached);
}
/* Asks the file system how much space there is; no lock is held while it answers. A volume that is
 * not there any more has failed. */
void volume_look(struct volume *v);
/* What may still be written, as far as is known without asking; 0 on one that is not for new bytes,
 * next to nothing on one whose disk does not answer. */
uint64_t volume_free(struct volume *v);
/* An operation has not ended for some seconds: others should not be sent after it. */
bool volume_hangs(const struct volume *v);
uint64_t volume_total(struct volume *v);

/* An operation failed with err. A write that fails otherwise than for want of space or of descriptors
 * ends the volume, so does a series of unreadable replicas. Returns what the caller is to report. */
int volume_write_failed(struct volume *v, int err, const char *what);
int volume_read_failed(struct volume *v, int err, const char *what);
void volume_failure(struct volume *v, struct why *ret);
/* Its identity is where it should be: false when its disk is not mounted any more. */
bool volume_is_there(const struct volume *v);

/* Makes the directory that a block's replica belongs into. Errors: from errno. */
int volume_make_dir(struct volume *v, uint64_t block);
/* "<path>/blocks/3f/000000000000013f" */
#define REPLICA_PATH_MAX (VOLUME_PATH_MAX + 64)
const char *volume_replica_path(const struct volume *v, uint64_t block, char buf[REPLICA_PATH_MAX]);

#endif
