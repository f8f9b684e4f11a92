/* Names: lookup, making, linking, renaming and removing. */
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fs/mount/internal.h"

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct mount *m = mount_of(req);
    struct caller who;
    struct attr a;
    int err = name_check(name);

    caller_of(req, &who);
    if (err == 0 && parent == FUSE_ROOT_ID && strcmp(name, "..") == 0) {
        err = keeper_get_root(m, &a); /* nothing is above, whatever dfs has there */
    } else if (err == 0) {
        err = client_lookup(m->client, &who.cr, to_ino(m, parent), slice_str(name), &a);
    }
    if (err == DFS_ENOENT) {
        struct fuse_entry_param none = { .entry_timeout = m->timeout_s };

        fuse_reply_entry(req, &none); /* lets the kernel remember that there is nothing */
        return;
    }
    reply_entry(req, "lookup", parent, err, &a);
}

/* Ids are never reused, so the kernel's counts of them need no book-keeping. */
static void op_forget(fuse_req_t req, fuse_ino_t node UNUSED, uint64_t count UNUSED)
{
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count UNUSED,
                            struct fuse_forget_data *forgets UNUSED)
{
    fuse_reply_none(req);
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name, uint32_t mode, uint64_t rdev,
                 const char *target)
{
    struct mount *m = mount_of(req);
    struct caller who;
    struct attr a;
    int err = name_check(name);

    caller_of(req, &who);
    if (err == 0) {
        err = client_make(m->client, &who.cr, to_ino(m, parent), slice_str(name), mode, rdev,
                          slice_str(target), &a);
        touch(m, to_ino(m, parent));
    }
    reply_entry(req, "make", parent, err, &a);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    make(req, parent, name, mode, rdev, "");
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    make(req, parent, name, (mode & 07777) | S_IFDIR, 0, "");
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    if (strlen(target) > LIMIT_SYMLINK) {
        fuse_reply_err(req, ENAMETOOLONG);
        return;
    }
    make(req, parent, name, S_IFLNK | 0777, 0, target);
}

static void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
    struct mount *m = mount_of(req);
    struct caller who;
    struct attr a;
    int err = name_check(name);

    caller_of(req, &who);
    if (err == 0) {
        err = client_link(m->client, &who.cr, to_ino(m, node), to_ino(m, parent), slice_str(name),
                          &a);
        touch(m, to_ino(m, parent));
        touch(m, to_ino(m, node));
    }
    reply_entry(req, "link", parent, err, &a);
}

static void take_away(fuse_req_t req, fuse_ino_t parent, const char *name, bool dir)
{
    struct mount *m = mount_of(req);
    struct caller who;
    int err = name_check(name);

    caller_of(req, &who);
    if (err == 0) {
        err = client_unlink(m->client, &who.cr, to_ino(m, parent), slice_str(name), dir);
        touch(m, to_ino(m, parent));
    }
    reply_err(req, dir ? "rmdir" : "unlink", parent, err);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    take_away(req, parent, name, false);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    take_away(req, parent, name, true);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned int flags)
{
    struct mount *m = mount_of(req);
    struct caller who;
    int err = name_check(name);

    caller_of(req, &who);
    err = err != 0 ? err : name_check(new_name);
    if (err == 0 && (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) {
        err = DFS_EINVAL;
    }
    if (err == 0) {
        err = client_rename(m->client, &who.cr, to_ino(m, parent), slice_str(name),
                            to_ino(m, new_parent), slice_str(new_name), flags);
        touch(m, to_ino(m, parent));
        touch(m, to_ino(m, new_parent));
    }
    reply_err(req, "rename", parent, err);
}

void ops_add_name(struct fuse_lowlevel_ops *ops)
{
    ops->lookup = op_lookup;
    ops->forget = op_forget;
    ops->forget_multi = op_forget_multi;
    ops->mknod = op_mknod;
    ops->mkdir = op_mkdir;
    ops->symlink = op_symlink;
    ops->link = op_link;
    ops->unlink = op_unlink;
    ops->rmdir = op_rmdir;
    ops->rename = op_rename;
}
