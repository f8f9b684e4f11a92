/* rename, as renameat2(2) has it: replace, NOREPLACE, EXCHANGE. */
#include <linux/fs.h>
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

/* One of the two names. */
struct end {
    struct attr *dir; /* both ends point to one attr when the directory is the same */
    struct slice name;
    struct ns_dentry d; /* ino 0: no such name */
};

static int check_rename_name(struct slice name)
{
    return ns_name_is_dot(name) || ns_name_is_dotdot(name) ? DFS_EINVAL : ns_name_check(name);
}

static int check_flags(const struct rename_req *req)
{
    const uint32_t known = RENAME_NOREPLACE | RENAME_EXCHANGE;

    return (req->flags & ~known) != 0 || (req->flags & known) == known ? DFS_EINVAL : 0;
}

/* DFS_EINVAL when the directory is ino or lies below it. */
static int check_not_below(const struct ns_tx *tx, const struct attr *dir, uint64_t ino)
{
    struct attr a = *dir;
    uint64_t steps = tx->ns->state.next_ino; /* a chain of parents cannot be longer */
    int err = 0;

    while (err == 0 && a.ino != INODE_ROOT) {
        if (a.ino == ino) {
            return DFS_EINVAL;
        }
        err = steps-- == 0 ? DFS_EDAMAGED : ns_must(ns_inode_get(&tx->v, a.parent, &a));
    }
    return err != 0 ? err : ino == INODE_ROOT ? DFS_EINVAL : 0;
}

static int check_tree(const struct ns_tx *tx, const struct end *from, const struct end *to,
                      bool exchange)
{
    int err = 0;

    if (from->dir == to->dir) {
        return 0;
    }
    if (S_ISDIR(from->d.type)) {
        err = check_not_below(tx, to->dir, from->d.ino);
    }
    if (err == 0 && exchange && S_ISDIR(to->d.type)) {
        err = check_not_below(tx, from->dir, to->d.ino);
    }
    return err;
}

/* May `to` be replaced by `from`? */
static int check_replace(const struct ns_tx *tx, const struct end *from, const struct end *to)
{
    bool empty = true;
    int err;

    if (!S_ISDIR(to->d.type)) {
        return S_ISDIR(from->d.type) ? DFS_ENOTDIR : 0;
    }
    if (!S_ISDIR(from->d.type)) {
        return DFS_EISDIR;
    }
    err = ns_dir_is_empty(&tx->v, to->d.ino, &empty);
    return err != 0 ? err : empty ? 0 : DFS_ENOTEMPTY;
}

/* May the caller take this name away, and is what it names free to move to another directory? */
static int check_leaving(const struct ns_tx *tx, const struct end *e, bool moves)
{
    struct attr a;
    int err = ns_must(ns_inode_get(&tx->v, e->d.ino, &a));

    err = err != 0 ? err : ns_may_remove(tx, e->dir, &a);
    if (err == 0 && moves && S_ISDIR(a.mode)) {
        err = ns_may(&tx->v, &tx->hdr, &a, PERM_WRITE); /* its ".." changes */
    }
    return err;
}

static int check_permissions(const struct ns_tx *tx, const struct end *from, const struct end *to,
                             bool exchange)
{
    bool moves = from->dir != to->dir;
    int err;

    if (perm_is_root(&tx->hdr)) {
        return 0;
    }
    err = check_leaving(tx, from, moves);
    if (err == 0 && to->d.ino != 0) {
        err = check_leaving(tx, to, moves && exchange);
    } else if (err == 0) {
        err = ns_may(&tx->v, &tx->hdr, to->dir, PERM_WRITE | PERM_EXEC);
    }
    return err;
}

/* The inode behind d is now called `to->name`. */
static int arrive(struct ns_tx *tx, struct ns_dentry d, const struct end *to)
{
    struct attr a;
    int err = ns_must(ns_inode_get(&tx->v, d.ino, &a));

    if (err != 0) {
        return err;
    }
    if (S_ISDIR(a.mode)) {
        a.parent = to->dir->ino;
    }
    ns_inode_touch(tx, &a);
    err = ns_inode_put(tx, &a);
    return err != 0 ? err : ns_dentry_put(tx, to->dir->ino, to->name, d);
}

/* Names do not leave what their inode is charged to, unless it can be charged to where they go. */
static int check_quota(const struct ns_tx *tx, const struct end *from, const struct end *to,
                       bool exchange)
{
    int err;

    if (from->dir == to->dir) {
        return 0;
    }
    if (exchange && from->dir->quota != to->dir->quota) {
        return DFS_EXDEV;
    }
    err = ns_quota_may_enter(tx, from->d.ino, from->dir, to->dir);
    return err != 0 || !exchange ? err : ns_quota_may_enter(tx, to->d.ino, to->dir, from->dir);
}

static int change_quota(struct ns_tx *tx, const struct end *from, const struct end *to,
                        bool exchange)
{
    int err = from->dir == to->dir ? 0 : ns_quota_enter(tx, from->d.ino, to->dir);

    return err != 0 || !exchange ? err : ns_quota_enter(tx, to->d.ino, from->dir);
}

static int exchange_names(struct ns_tx *tx, struct end *from, struct end *to)
{
    uint32_t from_dir = S_ISDIR(from->d.type);
    uint32_t to_dir = S_ISDIR(to->d.type);
    int err = arrive(tx, from->d, to);

    from->dir->nlink += to_dir - from_dir;
    to->dir->nlink += from_dir - to_dir;
    return err != 0 ? err : arrive(tx, to->d, from);
}

static int move_name(struct ns_tx *tx, struct end *from, struct end *to)
{
    uint32_t is_dir = S_ISDIR(from->d.type);
    int err = 0;

    if (to->d.ino != 0) {
        struct attr old;

        err = ns_must(ns_inode_get(&tx->v, to->d.ino, &old));
        err = err != 0 ? err : ns_inode_drop_link(tx, &old);
        to->dir->nlink -= S_ISDIR(to->d.type);
    }
    err = err != 0 ? err : ns_dentry_del(tx, from->dir->ino, from->name);
    err = err != 0 ? err : arrive(tx, from->d, to);
    from->dir->nlink -= is_dir;
    to->dir->nlink += is_dir;
    return err;
}

/* Looks both names up and decides whether the rename is allowed; *ret_same: both are one inode. */
static int check(struct ns_tx *tx, const struct rename_req *req, struct end *from, struct end *to,
                 bool *ret_same)
{
    bool exchange = (req->flags & RENAME_EXCHANGE) != 0;
    int err = ns_may(&tx->v, &tx->hdr, from->dir, PERM_EXEC);

    err = err != 0 ? err : ns_may(&tx->v, &tx->hdr, to->dir, PERM_EXEC);
    err = err != 0 ? err : ns_dentry_get(&tx->v, from->dir->ino, from->name, &from->d);
    if (err == 0 && to->dir->nlink == 0) {
        err = DFS_ENOENT;
    }
    if (err != 0) {
        return err;
    }
    err = ns_dentry_get(&tx->v, to->dir->ino, to->name, &to->d);
    if (err == DFS_ENOENT && !exchange) {
        err = check_tree(tx, from, to, false);
        err = err != 0 ? err : check_permissions(tx, from, to, false);
        return err != 0 ? err : check_quota(tx, from, to, false);
    }
    if (err == 0 && (req->flags & RENAME_NOREPLACE) != 0) {
        err = DFS_EEXIST;
    }
    *ret_same = err == 0 && from->d.ino == to->d.ino;
    if (err != 0 || *ret_same) {
        return err;
    }
    err = check_tree(tx, from, to, exchange);
    err = err != 0 ? err : check_permissions(tx, from, to, exchange);
    err = err != 0 || exchange ? err : check_replace(tx, from, to);
    return err != 0 ? err : check_quota(tx, from, to, exchange);
}

int ns_do_rename(struct ns_tx *tx, const struct rename_req *req, struct rename_rep *rep)
{
    struct attr dirs[2];
    struct end from = { .dir = &dirs[0], .name = req->name };
    struct end to = { .dir = &dirs[req->parent == req->new_parent ? 0 : 1], .name = req->new_name };
    bool exchange = (req->flags & RENAME_EXCHANGE) != 0;
    bool same = false;
    int err = check_flags(req);

    err = err != 0 ? err : ns_inode_dir(&tx->v, req->parent, from.dir);
    err = err != 0 ? err : ns_inode_dir(&tx->v, req->new_parent, to.dir);
    err = err != 0 ? err : check_rename_name(req->name);
    err = err != 0 ? err : check_rename_name(req->new_name);
    err = err != 0 ? err : check(tx, req, &from, &to, &same);
    if (err != 0) {
        return err;
    }
    rep->ino = from.d.ino;
    if (same) {
        return 0;
    }
    rep->replaced = exchange ? 0 : to.d.ino;
    err = change_quota(tx, &from, &to, exchange);
    if (err == 0) {
        err = exchange ? exchange_names(tx, &from, &to) : move_name(tx, &from, &to);
    }
    ns_inode_modify(tx, from.dir);
    err = err != 0 ? err : ns_inode_put(tx, from.dir);
    if (err == 0 && to.dir != from.dir) {
        ns_inode_modify(tx, to.dir);
        err = ns_inode_put(tx, to.dir);
    }
    return err;
}
