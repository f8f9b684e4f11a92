#include "cluster/base/clock.h"
#include "cluster/base/log.h"
#include "cluster/base/metrics.h"

#include "fs/mount/internal.h"

#define PREFERRED_IO_BYTES (128 * 1024) /* st_blksize */
#define FAILURE_LOG_MS     1000         /* one line for failed requests in this time */

struct mount *mount_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

uint64_t to_ino(const struct mount *m, fuse_ino_t node)
{
    return node == FUSE_ROOT_ID ? m->root : node;
}

fuse_ino_t to_node(const struct mount *m, uint64_t ino)
{
    return ino == m->root ? FUSE_ROOT_ID : ino;
}

static struct timespec to_timespec(int64_t ns)
{
    int64_t s = ns / NS_PER_SEC, rest = ns % NS_PER_SEC;

    return rest >= 0 ? (struct timespec){ s, rest } : (struct timespec){ s - 1, rest + NS_PER_SEC };
}

void attr_to_stat(const struct mount *m, const struct attr *a, struct stat *ret)
{
    *ret = (struct stat){
        .st_ino = to_node(m, a->ino),
        .st_mode = a->mode,
        .st_nlink = a->nlink,
        .st_uid = a->uid,
        .st_gid = a->gid,
        .st_rdev = a->rdev,
        .st_size = (off_t)a->size,
        .st_blksize = PREFERRED_IO_BYTES,
        .st_blocks = (blkcnt_t)((a->bytes + 511) / 512),
        .st_atim = to_timespec(a->atime),
        .st_mtim = to_timespec(a->mtime),
        .st_ctim = to_timespec(a->ctime),
    };
}

void attr_to_entry(struct mount *m, const struct attr *a, struct fuse_entry_param *ret)
{
    *ret = (struct fuse_entry_param){
        .ino = to_node(m, a->ino),
        .attr_timeout = m->timeout_s,
        .entry_timeout = m->timeout_s,
    };
    attr_to_stat(m, a, &ret->attr);
    xattr_memo_put(m, a);
}

int name_check(const char *name)
{
    return strlen(name) <= LIMIT_NAME ? 0 : DFS_ENAMETOOLONG;
}

/* Only what a local file system would say goes to programs: ENOSYS would switch the operation off
 * for good, EAGAIN on a file makes programs spin. */
static int kernel_errno(int err)
{
    int no = err_errno(err);

    switch (no) {
    case EAGAIN:
    case EHOSTUNREACH:
    case ETIMEDOUT:
    case EPROTO:
    case EMSGSIZE:
    case EPROTONOSUPPORT:
    case ENOSYS:
        return EIO;
    default:
        return no;
    }
}

static void log_failure(struct mount *m, const char *op, uint64_t ino, int err)
{
    uint64_t now = clock_mono_ms();
    uint64_t last = atomic_load(&m->failure_logged_ms);

    if (now - last >= FAILURE_LOG_MS &&
        atomic_compare_exchange_strong(&m->failure_logged_ms, &last, now)) {
        log_event(LOG_WARN, "mount.failed", "op=%s inode=%ju err=\"%s\"", op, (uintmax_t)ino,
                  err_text(err));
    }
}

void reply_err(fuse_req_t req, const char *op, fuse_ino_t node, int err)
{
    int no = err == 0 ? 0 : kernel_errno(err);
    struct mount *m = mount_of(req);

    if (no == EIO || no == ESTALE) {
        metric_add(METRIC_mount_errors, 1);
    }
    if (no == EIO) {
        log_failure(m, op, to_ino(m, node), err);
    }
    fuse_reply_err(req, no);
}

static void answer_entry(fuse_req_t req, const struct attr *a)
{
    struct fuse_entry_param e;

    attr_to_entry(mount_of(req), a, &e);
    fuse_reply_entry(req, &e);
}

void reply_entry(fuse_req_t req, const char *op, fuse_ino_t parent, int err, const struct attr *a)
{
    if (err != 0) {
        reply_err(req, op, parent, err);
    } else if (!inval_answer(req, a, answer_entry)) {
        answer_entry(req, a);
    }
}

static void answer_attr(fuse_req_t req, const struct attr *a)
{
    struct mount *m = mount_of(req);
    struct stat st;

    attr_to_stat(m, a, &st);
    xattr_memo_put(m, a);
    fuse_reply_attr(req, &st, m->timeout_s);
}

void reply_attr(fuse_req_t req, const char *op, fuse_ino_t node, int err, const struct attr *a)
{
    if (err != 0) {
        reply_err(req, op, node, err);
    } else if (!inval_answer(req, a, answer_attr)) {
        answer_attr(req, a);
    }
}

/* ---- what this mount changed ---- */

void touch(struct mount *m, uint64_t ino)
{
    atomic_store(&m->touched[ino % TOUCHED_SLOTS], atomic_fetch_add(&m->touch_count, 1) + 1);
}

uint64_t touch_now(struct mount *m)
{
    return atomic_load(&m->touch_count);
}

bool touched_since(struct mount *m, uint64_t ino, uint64_t since)
{
    return atomic_load(&m->touched[ino % TOUCHED_SLOTS]) > since;
}

/* ---- who has which extended attributes ---- */

void xattr_memo_init(struct xattr_memo *x)
{
    ASSERT(pthread_mutex_init(&x->mu, NULL) == 0);
}

void xattr_memo_fini(struct xattr_memo *x)
{
    (void)pthread_mutex_destroy(&x->mu);
}

void xattr_memo_put(struct mount *m, const struct attr *a)
{
    struct xattr_memo *x = &m->memo;
    size_t i = a->ino % XATTR_MEMO_SLOTS;

    (void)pthread_mutex_lock(&x->mu);
    x->slots[i].ino = a->ino;
    x->slots[i].until_ms = clock_mono_ms() + m->conf->attr_timeout;
    x->slots[i].flags = a->flags;
    (void)pthread_mutex_unlock(&x->mu);
}

void xattr_memo_forget(struct mount *m, uint64_t ino)
{
    struct xattr_memo *x = &m->memo;
    size_t i = ino % XATTR_MEMO_SLOTS;

    (void)pthread_mutex_lock(&x->mu);
    if (x->slots[i].ino == ino) {
        x->slots[i].until_ms = 0;
    }
    (void)pthread_mutex_unlock(&x->mu);
}

bool xattr_memo_none(struct mount *m, uint64_t ino, uint8_t flags)
{
    struct xattr_memo *x = &m->memo;
    size_t i = ino % XATTR_MEMO_SLOTS;
    struct attr a;
    uint8_t seen = 0;
    bool known;

    (void)pthread_mutex_lock(&x->mu);
    known = x->slots[i].ino == ino && clock_mono_ms() < x->slots[i].until_ms;
    seen = x->slots[i].flags;
    (void)pthread_mutex_unlock(&x->mu);
    if (known) {
        return (seen & flags) == 0;
    }
    /* One question, as the one for the attribute would be, but its answer lasts. */
    if (client_getattr(m->client, &cred_root, ino, &a) != 0) {
        return false;
    }
    xattr_memo_put(m, &a);
    return (a.flags & flags) == 0;
}
