/* Commands that make and remove names: make, link, unlink. */
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

/* A directory that takes a new name: its own name must still be there. */
static int open_parent(const struct ns_tx *tx, uint64_t ino, struct attr *ret)
{
    struct attr a;
    int err = ns_inode_dir(&tx->v, ino, &a);

    if (err == 0 && a.nlink == 0) {
        err = DFS_ENOENT;
    }
    if (err == 0) {
        *ret = a;
    }
    return err;
}

static int check_new_name(struct slice name)
{
    return ns_name_is_dot(name) || ns_name_is_dotdot(name) ? DFS_EEXIST : ns_name_check(name);
}

static bool known_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        return true;
    default:
        return false;
    }
}

static int check_make(const struct make_req *req)
{
    if (!known_type(req->mode)) {
        return DFS_EINVAL;
    }
    if (!S_ISLNK(req->mode)) {
        return req->target.len == 0 ? 0 : DFS_EINVAL;
    }
    if (req->target.len == 0) {
        return DFS_ENOENT;
    }
    if (req->target.len > LIMIT_SYMLINK) {
        return DFS_ENAMETOOLONG;
    }
    return memchr(req->target.p, '\0', req->target.len) != NULL ? DFS_EINVAL : 0;
}

static int make_existing(struct ns_tx *tx, const struct make_req *req, struct ns_dentry d,
                         struct make_rep *rep)
{
    struct attr a;
    int err;

    if ((req->flags & MAKE_EXCL) != 0 || !S_ISREG(req->mode)) {
        return DFS_EEXIST;
    }
    if (!S_ISREG(d.type)) {
        return S_ISDIR(d.type) ? DFS_EISDIR : DFS_EEXIST;
    }
    err = ns_must(ns_inode_get(&tx->v, d.ino, &a));
    if (err == 0) {
        rep->attr = ns_attr(tx, &a);
        rep->existed = 1;
    }
    return err;
}

static struct attr new_inode(struct ns_tx *tx, const struct make_req *req, const struct attr *dir)
{
    int64_t now = tx->head->now_ns;
    uint8_t repl = dir->repl != 0 ? dir->repl : tx->head->repl_default;
    struct attr a = {
        .ino = tx->ns->state.next_ino++,
        .mode = req->mode & (S_IFMT | 07777),
        .nlink = 1,
        .uid = tx->hdr.uid,
        .gid = tx->hdr.gid,
        .atime = now,
        .mtime = now,
        .ctime = now,
        .version = 1,
        .data_version = 1,
        .quota = dir->quota,
    };

    if ((dir->mode & S_ISGID) != 0) {
        a.gid = dir->gid;
        if (S_ISDIR(a.mode)) {
            a.mode |= S_ISGID;
        } else if ((a.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
                   !perm_is_root(&tx->hdr) && !perm_in_group(&tx->hdr, a.gid)) {
            a.mode &= ~(uint32_t)S_ISGID;
        }
    }
    if (S_ISDIR(a.mode)) {
        a.nlink = 2;
        a.parent = dir->ino;
        a.repl = dir->repl;
        a.storage = dir->storage;
    } else if (S_ISREG(a.mode)) {
        a.repl = repl;
        a.storage = dir->storage;
    } else if (S_ISLNK(a.mode)) {
        a.size = req->target.len;
    } else if (S_ISCHR(a.mode) || S_ISBLK(a.mode)) {
        a.rdev = req->rdev;
    }
    return a;
}

/* A device can be a way around every permission; 0:0 is none but a mark of overlay file systems. */
static int check_device(const struct ns_tx *tx, const struct make_req *req)
{
    bool mark = S_ISCHR(req->mode) && req->rdev == 0;
    bool device = S_ISCHR(req->mode) || S_ISBLK(req->mode);

    return device && !mark && !perm_is_root(&tx->hdr) ? DFS_EPERM : 0;
}

int ns_do_make(struct ns_tx *tx, const struct make_req *req, struct make_rep *rep)
{
    struct ns_acls acls;
    struct attr dir, a;
    struct ns_dentry d;
    int err = open_parent(tx, req->parent, &dir);

    err = err != 0 ? err : check_new_name(req->name);
    err = err != 0 ? err : check_make(req);
    err = err != 0 ? err : ns_may(&tx->v, &tx->hdr, &dir, PERM_EXEC);
    if (err != 0) {
        return err;
    }
    err = ns_dentry_get(&tx->v, dir.ino, req->name, &d);
    if (err != DFS_ENOENT) {
        return err != 0 ? err : make_existing(tx, req, d, rep);
    }
    err = ns_may(&tx->v, &tx->hdr, &dir, PERM_WRITE | PERM_EXEC);
    err = err != 0 ? err : check_device(tx, req);
    err = err != 0 ? err : ns_quota_grow(&tx->v, dir.quota, 0, 1);
    if (err != 0) {
        return err;
    }
    a = new_inode(tx, req, &dir);
    err = ns_acl_inherit(tx, &dir, req->umask, &a, &acls);
    err = err != 0 ? err : ns_inode_add(tx, &a);
    err = err != 0 ? err : ns_acl_add(tx, a.ino, &acls);
    if (err == 0 && S_ISLNK(a.mode)) {
        struct ns_key8 key = ns_key8(a.ino);

        err = ns_db_append(tx, DB_SYMLINKS, KEY_SLICE(key), req->target);
    }
    d = (struct ns_dentry){ .ino = a.ino, .type = a.mode };
    err = err != 0 ? err : ns_dentry_put(tx, dir.ino, req->name, d);
    dir.nlink += S_ISDIR(a.mode);
    ns_inode_modify(tx, &dir);
    err = err != 0 ? err : ns_inode_put(tx, &dir);
    rep->attr = ns_attr(tx, &a);
    rep->dir = ns_dir_attr(tx, &dir);
    return err;
}

int ns_do_link(struct ns_tx *tx, const struct link_req *req, struct link_rep *rep)
{
    struct attr dir, a;
    struct ns_dentry d;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    err = err != 0 ? err : open_parent(tx, req->parent, &dir);
    err = err != 0 ? err : check_new_name(req->name);
    if (err == 0 && S_ISDIR(a.mode)) {
        err = DFS_EPERM;
    }
    if (err == 0 && a.nlink == 0) {
        err = DFS_ENOENT;
    }
    err = err != 0 ? err : ns_may(&tx->v, &tx->hdr, &dir, PERM_EXEC);
    if (err == 0) {
        err = ns_dentry_get(&tx->v, dir.ino, req->name, &d);
        err = err == 0 ? DFS_EEXIST : err == DFS_ENOENT ? 0 : err;
    }
    err = err != 0 ? err : ns_may(&tx->v, &tx->hdr, &dir, PERM_WRITE | PERM_EXEC);
    if (err == 0 && a.nlink >= LIMIT_LINKS) {
        err = DFS_EMLINK;
    }
    if (err == 0 && a.quota != dir.quota) {
        err = DFS_EXDEV; /* it is charged to one of them, and names of it are to be in no other */
    }
    if (err != 0) {
        return err;
    }
    a.nlink++;
    ns_inode_touch(tx, &a);
    err = ns_inode_put(tx, &a);
    d = (struct ns_dentry){ .ino = a.ino, .type = a.mode };
    err = err != 0 ? err : ns_dentry_put(tx, dir.ino, req->name, d);
    ns_inode_modify(tx, &dir);
    err = err != 0 ? err : ns_inode_put(tx, &dir);
    rep->attr = ns_attr(tx, &a);
    return err;
}

static int check_old_name(struct slice name, bool dir)
{
    if (ns_name_is_dot(name)) {
        return dir ? DFS_EINVAL : DFS_EISDIR;
    }
    if (ns_name_is_dotdot(name)) {
        return dir ? DFS_ENOTEMPTY : DFS_EISDIR;
    }
    return ns_name_check(name);
}

static int check_removable(const struct ns_tx *tx, struct ns_dentry d, bool dir)
{
    bool empty = true;
    int err;

    if (!dir) {
        return S_ISDIR(d.type) ? DFS_EISDIR : 0;
    }
    if (!S_ISDIR(d.type)) {
        return DFS_ENOTDIR;
    }
    err = ns_dir_is_empty(&tx->v, d.ino, &empty);
    return err != 0 ? err : empty ? 0 : DFS_ENOTEMPTY;
}

int ns_do_unlink(struct ns_tx *tx, const struct unlink_req *req, struct unlink_rep *rep)
{
    struct attr dir, a;
    struct ns_dentry d;
    int err = ns_inode_dir(&tx->v, req->parent, &dir);

    err = err != 0 ? err : check_old_name(req->name, req->dir != 0);
    err = err != 0 ? err : ns_may(&tx->v, &tx->hdr, &dir, PERM_EXEC);
    err = err != 0 ? err : ns_dentry_get(&tx->v, dir.ino, req->name, &d);
    err = err != 0 ? err : ns_must(ns_inode_get(&tx->v, d.ino, &a));
    err = err != 0 ? err : ns_may_remove(tx, &dir, &a);
    err = err != 0 ? err : check_removable(tx, d, req->dir != 0);
    if (err != 0) {
        return err;
    }
    err = ns_dentry_del(tx, dir.ino, req->name);
    err = err != 0 ? err : ns_inode_drop_link(tx, &a);
    if (err != 0) {
        return err;
    }
    dir.nlink -= S_ISDIR(a.mode);
    ns_inode_modify(tx, &dir);
    rep->ino = a.ino;
    rep->nlink = a.nlink;
    rep->dir = ns_dir_attr(tx, &dir);
    return ns_inode_put(tx, &dir);
}
