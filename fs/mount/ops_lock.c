/* Locks: getlk, setlk, flock, and what closing a file ends.
 *
 * The kernel keeps no lock itself. It says whose one is by a number: of a process (fcntl), or of an
 * open file (flock, and fcntl's open file description locks, which look like a process's here). A
 * request that has to wait leaves its worker; it is answered by whoever learns how it ended.
 */
#include <fcntl.h>
#include <sys/file.h>

#include "fs/client/locks.h"
#include "fs/mount/internal.h"

/* A request that is not answered yet. */
struct pending {
    fuse_req_t req;
    fuse_ino_t node;
    struct lock_call *call;
};

static uint8_t type_of(short l_type)
{
    return l_type == F_UNLCK ? LOCK_NONE : l_type == F_RDLCK ? LOCK_SHARED : LOCK_EXCLUSIVE;
}

static struct lock_want want_of(fuse_req_t req, fuse_ino_t node, const struct fuse_file_info *fi,
                                const struct flock *l)
{
    uint64_t first = (uint64_t)l->l_start;

    return (struct lock_want){
        .ino = to_ino(mount_of(req), node),
        .owner = fi->lock_owner,
        .handle = fileh_number(fi),
        .first = first,
        .last = l->l_len == 0 ? LOCK_LAST : first + (uint64_t)l->l_len - 1,
        .pid = (uint32_t)l->l_pid,
        .kind = LOCK_POSIX,
        .type = type_of(l->l_type),
    };
}

/* ---- taking one ---- */

static void answer_granted(fuse_req_t req, const struct attr *a UNUSED)
{
    fuse_reply_err(req, 0);
}

static void on_done(void *arg, int err, const struct attr *a)
{
    struct pending *p = arg;
    fuse_req_t req = p->req;
    fuse_ino_t node = p->node;

    fuse_req_interrupt_func(req, NULL, NULL); /* waits for one that is running */
    free(p);
    if (err == DFS_EAGAIN) {
        fuse_reply_err(req, EAGAIN); /* here it has its meaning */
    } else if (err != 0) {
        reply_err(req, "lock", node, err);
    } else if (!inval_answer(req, a, answer_granted)) {
        answer_granted(req, a);
    }
}

static void on_interrupt(fuse_req_t req, void *data)
{
    struct pending *p = data;

    if (client_lock_interrupt(p->call)) {
        free(p);
        fuse_reply_err(req, EINTR);
    }
}

static void take(fuse_req_t req, fuse_ino_t node, const struct lock_want *want, bool wait)
{
    struct mount *m = mount_of(req);
    struct pending *p = x_alloc(sizeof(*p));
    struct lock_call *k = client_lock_new(m->client, want, wait, on_done, p);

    *p = (struct pending){ req, node, k };
    fuse_req_interrupt_func(req, on_interrupt, p);
    client_lock_start(k);
}

static void op_setlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, struct flock *l,
                     int sleep)
{
    struct lock_want want = want_of(req, node, fi, l);

    if (want.type == LOCK_NONE) {
        reply_err(req, "unlock", node, client_unlock(mount_of(req)->client, &want));
    } else {
        take(req, node, &want, sleep != 0);
    }
}

static void op_flock(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, int op)
{
    struct lock_want want = { .ino = to_ino(mount_of(req), node),
                              .owner = fi->lock_owner,
                              .handle = fileh_number(fi),
                              .last = LOCK_LAST,
                              .pid = (uint32_t)fuse_req_ctx(req)->pid,
                              .kind = LOCK_FLOCK };

    if ((op & LOCK_UN) != 0) {
        reply_err(req, "unlock", node, client_unlock(mount_of(req)->client, &want));
    } else {
        want.type = (op & LOCK_EX) != 0 ? LOCK_EXCLUSIVE : LOCK_SHARED;
        take(req, node, &want, (op & LOCK_NB) == 0);
    }
}

static void op_getlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, struct flock *l)
{
    struct lock_want want = want_of(req, node, fi, l);
    struct lock_want who;
    int err = client_lock_get(mount_of(req)->client, &want, &who);

    if (err != 0) {
        reply_err(req, "getlk", node, err);
        return;
    }
    if (who.type == LOCK_NONE) {
        l->l_type = F_UNLCK;
    } else {
        l->l_type = who.type == LOCK_SHARED ? F_RDLCK : F_WRLCK;
        l->l_whence = SEEK_SET;
        l->l_start = (off_t)who.first;
        l->l_len = who.last == LOCK_LAST ? 0 : (off_t)(who.last - who.first + 1);
        l->l_pid = (pid_t)who.pid;
    }
    fuse_reply_lock(req, l);
}

/* ---- closing ---- */

void locks_close(struct mount *m, fuse_ino_t node, const struct fuse_file_info *fi)
{
    client_locks_close(m->client, to_ino(m, node), fi->lock_owner);
}

void locks_release(struct mount *m, fuse_ino_t node, const struct fuse_file_info *fi, uint64_t fh)
{
    struct lock_want all = {
        .ino = to_ino(m, node), .owner = fi->lock_owner, .last = LOCK_LAST, .kind = LOCK_FLOCK
    };

    if (fi->flock_release) {
        (void)client_unlock(m->client, &all);
    }
    client_locks_release(m->client, all.ino, fh);
}

void ops_add_lock(struct fuse_lowlevel_ops *ops)
{
    ops->getlk = op_getlk;
    ops->setlk = op_setlk;
    ops->flock = op_flock;
}
