/* LMDB with checkpoints: fast commits that survive kill -9 and, up to the last checkpoint, power loss.
 *
 * One thread writes. A write may be kept instead of committed: the transaction stays open, the next write
 * goes on in it, and a page that many small writes change is written out once. Views see what is
 * kept, under a lock; plain reads see what is committed, beside the writer.
 *
 * Commits are not synced (MDB_NOSYNC): the raft log is what makes a command durable, and LMDB may lag
 * it. A checkpoint pins a snapshot and makes it durable beside running commits:
 *   1. kv_checkpoint_begin   between two commits: open a read transaction, copy the newest meta page
 *   2. kv_checkpoint_sync    any thread: mdb_env_sync, then write and fsync the meta page to a side file
 *   3. kv_checkpoint_end     writer's thread: drop the pin of the checkpoint before
 * kv_open always puts the last checkpoint's meta page back, after a clean stop as after a power cut:
 * one path, always taken. The caller then replays its log from the applied index found inside.
 * Its tree is intact because the pin kept LMDB from reusing any page of that snapshot.
 */
#ifndef DFS_CLUSTER_STORE_KV_H
#define DFS_CLUSTER_STORE_KV_H

#include "cluster/base/base.h"

#include <lmdb.h>

struct kv;

/* names: the databases to open (created when missing). dir is created when missing; once it holds a
 * complete database, a missing or damaged file is an error, never a fresh start.
 * Errors: DFS_EDAMAGED (says which file), DFS_EBUSY (another process has it open), DFS_EIO. */
int kv_open(const char *dir, uint64_t map_bytes, const char *const *names, size_t count,
            struct kv **ret, struct why *why);
void kv_close(struct kv *kv);
MDB_dbi kv_dbi(const struct kv *kv, size_t i);
MDB_env *kv_env(const struct kv *kv);

/* ---- writing: one thread, always the same (LMDB's lock belongs to it) ----
 *
 * A begun write is ended by kv_commit, kv_keep or kv_abort; cursors are closed before. When something
 * kept is lost (by kv_abort, or a commit that fails) the newest state is gone: from then on every
 * write, view and read fails with DFS_EIO, and the process has to be started again. */
int kv_write_begin(struct kv *kv, MDB_txn **ret);
int kv_commit(struct kv *kv); /* with all that was kept; on an error the write is gone */
void kv_keep(struct kv *kv);
void kv_abort(struct kv *kv);
int kv_flush(struct kv *kv); /* commits what is kept, if anything; no write is under way */

/* ---- reading: any thread ---- */

bool kv_has_kept(const struct kv *kv); /* false: all writes that were ended before are committed */
bool kv_is_lost(const struct kv *kv);

/* What is committed; end with mdb_txn_abort, soon. */
int kv_read_begin(struct kv *kv, MDB_txn **ret);

/* One for each thread that looks often; zeroed at first, txn is valid between begin and end. */
struct kv_view {
    MDB_txn *txn;
    MDB_txn *own; /* its read transaction, renewed each time */
    bool shared;  /* txn is the writer's, who waits for the end */
};
/* All that was written, kept or committed. While something is kept views exclude each other and the
 * writer: end it soon, take no lock that the writer may hold, and keep no pointers. */
int kv_view_begin(struct kv *kv, struct kv_view *v);
/* As kv_read_begin: what is committed. Nobody waits. */
int kv_view_committed(struct kv *kv, struct kv_view *v);
void kv_view_end(struct kv *kv, struct kv_view *v);
void kv_view_fini(struct kv_view *v);

/* ---- checkpoints ---- */

/* begin and end: writer's thread; begin commits what is kept. One at a time. Once a sync has failed
 * nobody knows what the disk holds: every later checkpoint fails with DFS_EIO, and the process has to
 * be started again. */
int kv_checkpoint_begin(struct kv *kv, struct why *why);
int kv_checkpoint_sync(struct kv *kv, struct why *why);
void kv_checkpoint_end(struct kv *kv);

/* Bytes that wait for the next checkpoint to be used again: every commit adds the pages it replaced
 * (about 50 KiB for a lone small one), and the file grows by as much. What is kept is not counted.
 * Writer's thread. */
int kv_pending_bytes(struct kv *kv, uint64_t *ret);

/* Bytes that data may still take below map_bytes. Reads the list of free pages. Any thread. */
int kv_room_bytes(struct kv *kv, uint64_t *ret);

/* LMDB's code as one of ours: DFS_ENOENT (no such key), DFS_EEXIST, DFS_ENOSPC (map or disk full),
 * DFS_EDAMAGED, DFS_EIO. */
int kv_err(int rc);

#endif
