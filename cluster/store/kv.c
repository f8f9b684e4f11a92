/* A kv directory:
 *
 *   state       "dfs-kv 1 creating" or "dfs-kv 1 ready"
 *   data.mdb    LMDB's file
 *   checkpoint  the snapshot of data.mdb that is durable (checkpoint.h)
 *   lock        held with flock while a process has it open
 *   lock.mdb    LMDB's table of readers
 *
 * The state file tells an unfinished creation (done again from nothing) from a database that lost a
 * file (refused): "creating" is written before any other file, "ready" after the first checkpoint.
 */
#include "cluster/store/kv.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/store/checkpoint.h"
#include "cluster/store/kv_check.h"

#define STATE_CREATING "dfs-kv 1 creating\n"
#define STATE_READY    "dfs-kv 1 ready\n"
#define STATE_MAX      64
#define READERS_MAX    1024
#define PIECE_BYTES    ((off_t)(256 * KIB)) /* written at once by a checkpoint */

enum dir_state { DIR_EMPTY, DIR_CREATING, DIR_READY };

struct kv {
    char *state_path;
    char *data_path;
    char *checkpoint_path;
    char *readers_path;
    int lock_fd;
    MDB_env *env;
    MDB_dbi *dbis;
    size_t count;
    MDB_txn *pin;           /* keeps the pages of the checkpoint on disk from reuse */
    MDB_txn *next_pin;      /* of the checkpoint being made */
    struct checkpoint next; /* valid between begin and end */
    bool synced;            /* next is on disk; set by the syncing thread, read after it is done */
    bool failed;            /* a sync failed: either checkpoint may be the one on disk */
    uint64_t counted;       /* last transaction in pending_pages */
    uint64_t pending_pages; /* freed since the checkpoint on disk */
    uint64_t begun_pages;   /* of these, before the checkpoint being made */
    bool uncounted;         /* there were commits since they were counted */

    MDB_txn *txn;            /* the writer's; between writes only while it is kept */
    bool writing;            /* the writer's: a write has begun */
    pthread_mutex_t kept_mu; /* held by whoever uses a txn that is kept */
    _Atomic bool kept, lost; /* changed by the writer, under kept_mu */
};

int kv_err(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return DFS_ENOENT;
    case MDB_KEYEXIST:
        return DFS_EEXIST;
    case MDB_MAP_FULL:
    case ENOSPC:
        return DFS_ENOSPC;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return DFS_EDAMAGED;
    default:
        return DFS_EIO;
    }
}

static int failed(const char *path, int rc, struct why *why)
{
    return why_set(why, kv_err(rc), "%s: %s", path, mdb_strerror(rc));
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0 || errno != ENOENT;
}

static int read_state(const struct kv *kv, enum dir_state *ret, struct why *why)
{
    char *text = NULL;
    int err = io_read_file(kv->state_path, STATE_MAX, &text, NULL, why);

    if (err == DFS_ENOENT) {
        if (exists(kv->data_path) || exists(kv->checkpoint_path)) {
            return why_set(why, DFS_EDAMAGED, "%s is missing, though there is a database",
                           kv->state_path);
        }
        *ret = DIR_EMPTY;
        return 0;
    }
    if (err != 0 && err != DFS_ETOOBIG) {
        return err;
    }
    if (err == 0 && strcmp(text, STATE_READY) == 0) {
        *ret = DIR_READY;
    } else if (err == 0 && strcmp(text, STATE_CREATING) == 0) {
        *ret = DIR_CREATING;
    } else {
        err = why_set(why, DFS_EDAMAGED, "%s is damaged or of a newer version", kv->state_path);
    }
    free(text);
    return err;
}

static int write_state(const struct kv *kv, const char *state, struct why *why)
{
    int err = FAULT("kv.state.write");

    if (err != 0) {
        return why_set(why, err, "%s: %s", kv->state_path, err_text(err));
    }
    return io_write_file(kv->state_path, state, strlen(state), 0600, why);
}

static int remove_file(const char *path, struct why *why)
{
    if (unlink(path) != 0 && errno != ENOENT) {
        return why_set(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    return 0;
}

/* Leaves the directory as LMDB may open it: nothing in it yet, or the last checkpoint in place. */
static int prepare(struct kv *kv, enum dir_state state, struct why *why)
{
    struct checkpoint last = { 0 };
    int err;

    if (state == DIR_READY) {
        err = checkpoint_read(&last, kv->checkpoint_path, why);
        err = err != 0 ? err : checkpoint_restore(&last, kv->data_path, why);
        err = err != 0 ? err : kv_check(kv->data_path, &last, why);
        checkpoint_fini(&last);
        return err;
    }
    err = state == DIR_EMPTY ? write_state(kv, STATE_CREATING, why) : 0;
    err = err != 0 ? err : remove_file(kv->data_path, why);
    err = err != 0 ? err : remove_file(kv->checkpoint_path, why);
    return err != 0 ? err : remove_file(kv->readers_path, why);
}

static int open_env(struct kv *kv, const char *dir, uint64_t map_bytes, struct why *why)
{
    int rc = mdb_env_create(&kv->env);

    rc = rc != 0 ? rc : mdb_env_set_mapsize(kv->env, map_bytes);
    rc = rc != 0 ? rc : mdb_env_set_maxdbs(kv->env, (MDB_dbi)kv->count);
    rc = rc != 0 ? rc : mdb_env_set_maxreaders(kv->env, READERS_MAX);
    rc = rc != 0 ? rc : mdb_env_open(kv->env, dir, MDB_NOSYNC | MDB_NOTLS, 0600);
    rc = rc != 0 ? rc : mdb_reader_check(kv->env, NULL);
    return rc != 0 ? failed(kv->data_path, rc, why) : 0;
}

static int open_databases(struct kv *kv, const char *const *names, struct why *why)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(kv->env, NULL, 0, &txn);

    for (size_t i = 0; rc == 0 && i < kv->count; i++) {
        rc = mdb_dbi_open(txn, names[i], MDB_CREATE, &kv->dbis[i]);
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
    } else {
        rc = mdb_txn_commit(txn);
    }
    return rc != 0 ? failed(kv->data_path, rc, why) : 0;
}

static int checkpoint_now(struct kv *kv, struct why *why)
{
    int err = kv_checkpoint_begin(kv, why);

    if (err == 0) {
        err = kv_checkpoint_sync(kv, why);
        kv_checkpoint_end(kv);
    }
    return err;
}

static int start(struct kv *kv, const char *dir, uint64_t map_bytes, const char *const *names,
                 struct why *why)
{
    enum dir_state state = DIR_EMPTY;
    int err = read_state(kv, &state, why);

    err = err != 0 ? err : prepare(kv, state, why);
    err = err != 0 ? err : open_env(kv, dir, map_bytes, why);
    if (err == 0 && state == DIR_READY) {
        int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &kv->pin); /* before the first commit */

        kv->counted = rc == 0 ? mdb_txn_id(kv->pin) : 0;
        err = rc != 0 ? failed(kv->data_path, rc, why) : 0;
    }
    err = err != 0 ? err : open_databases(kv, names, why);
    if (err == 0 && state != DIR_READY) {
        err = checkpoint_now(kv, why);
        err = err != 0 ? err : io_sync_parent(dir, why);
        err = err != 0 ? err : write_state(kv, STATE_READY, why);
    }
    return err;
}

int kv_open(const char *dir, uint64_t map_bytes, const char *const *names, size_t count,
            struct kv **ret, struct why *why)
{
    struct kv *kv = x_alloc(sizeof(*kv));
    char *lock = x_printf("%s/lock", dir);
    int err;

    kv->lock_fd = -1;
    kv->uncounted = true;
    pthread_mutex_init(&kv->kept_mu, NULL);
    kv->state_path = x_printf("%s/state", dir);
    kv->data_path = x_printf("%s/data.mdb", dir);
    kv->checkpoint_path = x_printf("%s/checkpoint", dir);
    kv->readers_path = x_printf("%s/lock.mdb", dir);
    kv->count = count;
    kv->dbis = x_alloc(count * sizeof(*kv->dbis));
    err = io_mkdir_p(dir, 0700, why);
    err = err != 0 ? err : io_lock_file(lock, &kv->lock_fd, why);
    err = err != 0 ? err : start(kv, dir, map_bytes, names, why);
    free(lock);
    if (err != 0) {
        kv_close(kv);
        return err;
    }
    *ret = kv;
    return 0;
}

void kv_close(struct kv *kv)
{
    if (kv == NULL) {
        return;
    }
    mdb_txn_abort(kv->txn);
    mdb_txn_abort(kv->pin);
    mdb_txn_abort(kv->next_pin);
    if (kv->env != NULL) {
        mdb_env_close(kv->env);
    }
    checkpoint_fini(&kv->next);
    io_close(kv->lock_fd);
    pthread_mutex_destroy(&kv->kept_mu);
    free(kv->dbis);
    free(kv->state_path);
    free(kv->data_path);
    free(kv->checkpoint_path);
    free(kv->readers_path);
    free(kv);
}

MDB_dbi kv_dbi(const struct kv *kv, size_t i)
{
    ASSERT(i < kv->count);
    return kv->dbis[i];
}

MDB_env *kv_env(const struct kv *kv)
{
    return kv->env;
}

/* ---- writing ---- */

int kv_write_begin(struct kv *kv, MDB_txn **ret)
{
    int rc = 0;

    ASSERT(!kv->writing);
    if (kv->lost) {
        return DFS_EIO;
    }
    if (kv->kept) {
        pthread_mutex_lock(&kv->kept_mu);
    } else {
        rc = mdb_txn_begin(kv->env, NULL, 0, &kv->txn);
    }
    kv->writing = rc == 0;
    *ret = kv->txn;
    return kv_err(rc);
}

/* No transaction is open any more. lost: it was kept, and is not in the database. */
static void closed(struct kv *kv, bool lost)
{
    kv->txn = NULL;
    kv->writing = false;
    if (kv->kept) {
        kv->lost = lost; /* before kept: nobody may take the older state for the newest one */
        kv->kept = false;
        pthread_mutex_unlock(&kv->kept_mu);
    }
}

int kv_commit(struct kv *kv)
{
    int err = FAULT("kv.commit");

    ASSERT(kv->writing);
    if (err != 0) {
        mdb_txn_abort(kv->txn);
    } else {
        err = kv_err(mdb_txn_commit(kv->txn));
    }
    kv->uncounted = true;
    closed(kv, err != 0);
    return err;
}

void kv_abort(struct kv *kv)
{
    ASSERT(kv->writing);
    mdb_txn_abort(kv->txn);
    closed(kv, true);
}

void kv_keep(struct kv *kv)
{
    ASSERT(kv->writing);
    kv->writing = false;
    if (!kv->kept) {
        pthread_mutex_lock(&kv->kept_mu);
        kv->kept = true;
    }
    pthread_mutex_unlock(&kv->kept_mu);
}

int kv_flush(struct kv *kv)
{
    MDB_txn *txn;
    int err = kv->kept || kv->lost ? kv_write_begin(kv, &txn) : 0;

    return err == 0 && kv->writing ? kv_commit(kv) : err;
}

/* ---- reading ---- */

bool kv_has_kept(const struct kv *kv)
{
    return kv->kept;
}

bool kv_is_lost(const struct kv *kv)
{
    return kv->lost;
}

int kv_read_begin(struct kv *kv, MDB_txn **ret)
{
    return kv->lost ? DFS_EIO : kv_err(mdb_txn_begin(kv->env, NULL, MDB_RDONLY, ret));
}

int kv_view_begin(struct kv *kv, struct kv_view *v)
{
    if (kv->kept) {
        pthread_mutex_lock(&kv->kept_mu);
        if (kv->kept) {
            v->txn = kv->txn;
            v->shared = true;
            return 0;
        }
        pthread_mutex_unlock(&kv->kept_mu);
    }
    return kv_view_committed(kv, v);
}

int kv_view_committed(struct kv *kv, struct kv_view *v)
{
    int err = v->own == NULL ? kv_read_begin(kv, &v->own)
              : kv->lost     ? DFS_EIO
                             : kv_err(mdb_txn_renew(v->own));

    v->txn = v->own;
    return err;
}

void kv_view_end(struct kv *kv, struct kv_view *v)
{
    v->txn = NULL;
    if (v->shared) {
        v->shared = false;
        pthread_mutex_unlock(&kv->kept_mu);
    } else {
        mdb_txn_reset(v->own);
    }
}

void kv_view_fini(struct kv_view *v)
{
    mdb_txn_abort(v->own);
    *v = (struct kv_view){ 0 };
}

/* ---- what a checkpoint would give back ---- */

/* LMDB's list of free pages is database 0: transaction -> how many it freed, and which. */
static int count_freed(struct kv *kv, MDB_txn *txn)
{
    uint64_t from = kv->counted + 1;
    MDB_val key = { .mv_size = sizeof(from), .mv_data = &from };
    MDB_val val;
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, 0, &c);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);
    for (; rc == 0; rc = mdb_cursor_get(c, &key, &val, MDB_NEXT)) {
        size_t pages;

        memcpy(&kv->counted, key.mv_data, sizeof(kv->counted));
        memcpy(&pages, val.mv_data, sizeof(pages));
        kv->pending_pages += pages;
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int kv_pending_bytes(struct kv *kv, uint64_t *ret)
{
    MDB_stat stat;
    MDB_txn *txn;
    int rc = kv->uncounted ? mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn) : 0;

    if (rc != 0) {
        return kv_err(rc);
    }
    if (kv->uncounted) {
        rc = count_freed(kv, txn);
        kv->uncounted = rc != 0;
        mdb_txn_abort(txn);
    }
    mdb_env_stat(kv->env, &stat);
    if (rc == 0) {
        *ret = kv->pending_pages * stat.ms_psize;
    }
    return kv_err(rc);
}

int kv_room_bytes(struct kv *kv, uint64_t *ret)
{
    MDB_envinfo info;
    MDB_cursor *c = NULL;
    MDB_stat stat;
    MDB_val key, val;
    MDB_txn *txn;
    uint64_t room;
    int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0) {
        return kv_err(rc);
    }
    mdb_env_info(kv->env, &info);
    mdb_env_stat(kv->env, &stat);
    room = info.me_mapsize - MIN((info.me_last_pgno + 1) * stat.ms_psize, info.me_mapsize);
    rc = mdb_cursor_open(txn, 0, &c);
    while (rc == 0 && (rc = mdb_cursor_get(c, &key, &val, MDB_NEXT)) == 0) {
        size_t pages;

        memcpy(&pages, val.mv_data, sizeof(pages));
        room += pages * stat.ms_psize;
    }
    mdb_cursor_close(c);
    mdb_txn_abort(txn);
    if (rc != MDB_NOTFOUND) {
        return kv_err(rc);
    }
    *ret = room;
    return 0;
}

int kv_checkpoint_begin(struct kv *kv, struct why *why)
{
    int rc;
    int err;

    ASSERT(kv->next_pin == NULL || kv->failed);
    if (kv->failed) {
        return why_set(why, DFS_EIO, "%s: an earlier checkpoint failed", kv->checkpoint_path);
    }
    err = kv_flush(kv);
    if (err != 0) {
        return why_set(why, err, "%s: %s", kv->data_path, err_text(err));
    }
    rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &kv->next_pin);
    if (rc != 0) {
        return failed(kv->data_path, rc, why);
    }
    rc = count_freed(kv, kv->next_pin);
    err = rc != 0 ? failed(kv->data_path, rc, why)
                  : checkpoint_take(&kv->next, kv->env, kv->data_path, why);
    if (err != 0) {
        mdb_txn_abort(kv->next_pin);
        kv->next_pin = NULL;
        return err;
    }
    kv->begun_pages = kv->pending_pages;
    kv->synced = false;
    return 0;
}

/* Writes in small pieces, one after the other: a sync of tens of MiB at once holds up the writes of
 * the log, on the same disk as a rule, for a third of a second. An error that is told here the sync
 * would not tell again. */
static int write_back(const struct kv *kv)
{
    const unsigned flags =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    int err = FAULT("kv.checkpoint.pages");
    struct stat st;
    int fd;

    if (err != 0) {
        return err;
    }
    if (mdb_env_get_fd(kv->env, &fd) != 0 || fstat(fd, &st) != 0) {
        return DFS_EIO;
    }
    for (off_t off = 0; off < st.st_size; off += PIECE_BYTES) {
        if (sync_file_range(fd, off, PIECE_BYTES, flags) != 0) {
            /* A file system without it: the sync does all. */
            return errno == ENOSYS || errno == EINVAL || errno == ESPIPE ? 0 : DFS_EIO;
        }
    }
    return 0;
}

int kv_checkpoint_sync(struct kv *kv, struct why *why)
{
    int err = write_back(kv);
    int rc;

    err = err != 0 ? err : FAULT("kv.checkpoint.sync");
    if (err != 0) {
        return why_set(why, err, "%s: %s", kv->data_path, err_text(err));
    }
    rc = mdb_env_sync(kv->env, 1);
    if (rc != 0) {
        return failed(kv->data_path, rc, why);
    }
    err = checkpoint_write(&kv->next, kv->checkpoint_path, why);
    kv->synced = err == 0;
    return err;
}

void kv_checkpoint_end(struct kv *kv)
{
    ASSERT(kv->next_pin != NULL);
    if (!kv->synced) {
        kv->failed = true; /* both pins stay: after a lost rename either file may come back */
        return;
    }
    mdb_txn_abort(kv->pin);
    kv->pin = kv->next_pin;
    kv->next_pin = NULL;
    kv->pending_pages -= kv->begun_pages;
    checkpoint_fini(&kv->next);
}
