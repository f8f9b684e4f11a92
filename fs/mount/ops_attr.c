/* Attributes: getattr, setattr, readlink, statfs. */
#include <sys/stat.h>

#include "fs/mount/internal.h"
#include "fs/mount/point.h"

#define STATFS_BLOCK 4096

/* stat() of the mount point is the first request after INIT, whose reply would undo the change. */
static void raise_read_ahead_once(struct mount *m)
{
    if (!atomic_exchange(&m->tuned, true)) {
        (void)point_raise_read_ahead(m->o->dir);
    }
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi UNUSED)
{
    struct mount *m = mount_of(req);
    struct attr a;
    int err;

    if (node == FUSE_ROOT_ID) {
        raise_read_ahead_once(m);
        err = keeper_get_root(m, &a);
    } else {
        err = client_getattr(m->client, &cred_root, node, &a);
    }
    reply_attr(req, "getattr", node, err, &a);
}

/* Years beyond what 64 bits of nanoseconds can say (1677 to 2262) become the first or the last. */
static int64_t to_ns(const struct timespec *t)
{
    if (t->tv_sec >= INT64_MAX / NS_PER_SEC) {
        return INT64_MAX;
    }
    if (t->tv_sec <= INT64_MIN / NS_PER_SEC) {
        return INT64_MIN;
    }
    return (int64_t)t->tv_sec * NS_PER_SEC + t->tv_nsec;
}

static struct setattr_req setattr_of(uint64_t ino, const struct stat *st, int to_set)
{
    struct setattr_req want = { .ino = ino };

    if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
        want.valid |= SET_MODE;
        want.mode = st->st_mode & 07777;
    }
    if ((to_set & FUSE_SET_ATTR_UID) != 0) {
        want.valid |= SET_UID;
        want.uid = st->st_uid;
    }
    if ((to_set & FUSE_SET_ATTR_GID) != 0) {
        want.valid |= SET_GID;
        want.gid = st->st_gid;
    }
    if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
        want.valid |= SET_SIZE;
        want.size = (uint64_t)st->st_size;
    }
    if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) {
        want.valid |= SET_ATIME_NOW;
    } else if ((to_set & FUSE_SET_ATTR_ATIME) != 0) {
        want.valid |= SET_ATIME;
        want.atime = to_ns(&st->st_atim);
    }
    if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) {
        want.valid |= SET_MTIME_NOW;
    } else if ((to_set & FUSE_SET_ATTR_MTIME) != 0) {
        want.valid |= SET_MTIME;
        want.mtime = to_ns(&st->st_mtim);
    }
    return want;
}

/* The kernel takes set-id bits away itself, by a mode without them: with a truncate, and before a
 * write by somebody who need not be the owner. The masters know this as SET_KILL_SUID. */
static int drop_set_id(struct mount *m, const struct setattr_req *want, struct attr *ret)
{
    const uint32_t kept = 07777 & ~(uint32_t)(S_ISUID | S_ISGID);
    struct setattr_req kill = { .ino = want->ino, .valid = SET_KILL_SUID };
    int err = client_getattr(m->client, &cred_root, want->ino, ret);

    if (err == 0 && ((want->mode & ~ret->mode) != 0 || (ret->mode & ~want->mode & kept) != 0)) {
        err = DFS_EPERM; /* a chmod */
    }
    return err != 0 ? err : client_setattr(m->client, &cred_root, &kill, ret);
}

static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *st, int to_set,
                       struct fuse_file_info *fi)
{
    const uint32_t of_truncate = SET_SIZE | SET_KILL_SUID | SET_ATIME_NOW | SET_MTIME_NOW;
    struct mount *m = mount_of(req);
    struct setattr_req want = setattr_of(to_ino(m, node), st, to_set);
    struct caller who;
    struct attr a;
    int err;

    if ((want.valid & SET_SIZE) != 0 && (want.valid & SET_MODE) != 0) {
        want.valid = (want.valid & ~(uint32_t)SET_MODE) | SET_KILL_SUID;
    }
    if (fi != NULL && (want.valid & SET_SIZE) != 0 && (want.valid & ~of_truncate) == 0) {
        /* ftruncate: permission was there when the file was opened */
        err = client_setattr(m->client, &cred_root, &want, &a);
    } else {
        caller_of(req, &who);
        err = client_setattr(m->client, &who.cr, &want, &a);
        if (err == DFS_EPERM && want.valid == SET_MODE && fuse_req_ctx(req)->uid != 0) {
            err = drop_set_id(m, &want, &a);
        }
    }
    touch(m, want.ino);
    reply_attr(req, "setattr", node, err, &a);
}

static void op_readlink(fuse_req_t req, fuse_ino_t node)
{
    struct mount *m = mount_of(req);
    char target[LIMIT_SYMLINK + 1];
    size_t len = 0;
    int err = client_readlink(m->client, &cred_root, to_ino(m, node), target, LIMIT_SYMLINK, &len);

    if (err != 0) {
        reply_err(req, "readlink", node, err);
        return;
    }
    target[len] = '\0';
    fuse_reply_readlink(req, target);
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
    struct mount *m = mount_of(req);
    struct statfs_rep s;
    uint64_t free_files;
    int err = keeper_get_statfs(m, to_ino(m, node), &s);

    if (err != 0) {
        reply_err(req, "statfs", node, err);
        return;
    }
    /* without a limit names need no room set aside: as many as there are blocks */
    free_files = s.free_files != UINT64_MAX ? s.free_files : s.free_bytes / STATFS_BLOCK;
    fuse_reply_statfs(req, &(struct statvfs){
                               .f_bsize = STATFS_BLOCK,
                               .f_frsize = STATFS_BLOCK,
                               .f_blocks = s.total_bytes / STATFS_BLOCK,
                               .f_bfree = s.free_bytes / STATFS_BLOCK,
                               .f_bavail = s.free_bytes / STATFS_BLOCK,
                               .f_files = s.files + free_files,
                               .f_ffree = free_files,
                               .f_favail = free_files,
                               .f_namemax = LIMIT_NAME,
                           });
}

void ops_add_attr(struct fuse_lowlevel_ops *ops)
{
    ops->getattr = op_getattr;
    ops->setattr = op_setattr;
    ops->readlink = op_readlink;
    ops->statfs = op_statfs;
}
