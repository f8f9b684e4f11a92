#include <sys/stat.h>

#include "fs/ns/ns_core.h"

void ns_inode_encode(struct wire_out *out, const struct attr *a)
{
    wire_put_u32(out, a->mode);
    wire_put_u32(out, a->nlink);
    wire_put_u32(out, a->uid);
    wire_put_u32(out, a->gid);
    wire_put_u64(out, a->rdev);
    wire_put_u64(out, a->size);
    wire_put_u64(out, a->bytes);
    wire_put_i64(out, a->atime);
    wire_put_i64(out, a->mtime);
    wire_put_i64(out, a->ctime);
    wire_put_u64(out, a->version);
    wire_put_u64(out, a->data_version);
    wire_put_u64(out, a->parent);
    wire_put_u8(out, a->repl);
    wire_put_u8(out, a->flags);
    wire_put_u64(out, a->quota);
    wire_put_u16(out, a->storage);
}

int ns_inode_decode(struct slice s, uint64_t ino, struct attr *ret)
{
    struct wire_in in = wire_in_of(s);
    struct attr a = { .ino = ino, .mode = wire_get_u32(&in) };

    a.nlink = wire_get_u32(&in);
    a.uid = wire_get_u32(&in);
    a.gid = wire_get_u32(&in);
    a.rdev = wire_get_u64(&in);
    a.size = wire_get_u64(&in);
    a.bytes = wire_get_u64(&in);
    a.atime = wire_get_i64(&in);
    a.mtime = wire_get_i64(&in);
    a.ctime = wire_get_i64(&in);
    a.version = wire_get_u64(&in);
    a.data_version = wire_get_u64(&in);
    a.parent = wire_get_u64(&in);
    a.repl = wire_get_u8(&in);
    a.flags = wire_get_u8(&in);
    a.quota = in.left != 0 ? wire_get_u64(&in) : 0;   /* written before there were quotas */
    a.storage = in.left != 0 ? wire_get_u16(&in) : 0; /* records of old end before */
    if (in.err != 0 || in.left != 0 || a.repl > LIMIT_REPLICATION ||
        (S_ISREG(a.mode) && a.repl == 0)) {
        return DFS_EDAMAGED;
    }
    *ret = a;
    return 0;
}

int ns_inode_get(const struct ns_view *v, uint64_t ino, struct attr *ret)
{
    struct ns_key8 key = ns_key8(ino);
    struct slice rec;
    int err = ns_db_get(v, DB_INODES, KEY_SLICE(key), &rec);

    if (err == DFS_ENOENT) {
        return DFS_ESTALE;
    }
    return err != 0 ? err : ns_inode_decode(rec, ino, ret);
}

int ns_inode_dir(const struct ns_view *v, uint64_t ino, struct attr *ret)
{
    struct attr a;
    int err = ns_inode_get(v, ino, &a);

    if (err == 0 && !S_ISDIR(a.mode)) {
        err = DFS_ENOTDIR;
    }
    if (err == 0) {
        *ret = a;
    }
    return err;
}

typedef int put_fn(struct ns_tx *, enum ns_db, struct slice, struct slice);

static int put(struct ns_tx *tx, const struct attr *a, put_fn *fn)
{
    struct ns_key8 key = ns_key8(a->ino);
    uint8_t rec[NS_INODE_BYTES];
    struct wire_out out = wire_out_over(rec, sizeof(rec));

    ns_inode_encode(&out, a);
    ASSERT(out.err == 0);
    if (tx->ns->ev.inode_changed != NULL) {
        tx->ns->ev.inode_changed(tx->ns->ev.arg, tx->hdr.session, a);
    }
    return fn(tx, DB_INODES, KEY_SLICE(key), wire_out_slice(&out));
}

int ns_inode_store(struct ns_tx *tx, const struct attr *a)
{
    return put(tx, a, ns_db_put);
}

static int charge_bytes(struct ns_tx *tx, const struct attr *a)
{
    struct ns_use use = { 0 };
    struct attr old;
    int err = ns_must(ns_inode_get(&tx->v, a->ino, &old));

    if (err != 0 || old.bytes == a->bytes) {
        return err;
    }
    if (old.bytes > a->bytes) {
        use.bytes = old.bytes - a->bytes;
        return ns_quota_move(tx, a->quota, 0, &use);
    }
    use.bytes = a->bytes - old.bytes;
    return ns_quota_move(tx, 0, a->quota, &use);
}

int ns_inode_put(struct ns_tx *tx, const struct attr *a)
{
    int err = a->quota != 0 && S_ISREG(a->mode) ? charge_bytes(tx, a) : 0;

    return err != 0 ? err : ns_inode_store(tx, a);
}

int ns_inode_add(struct ns_tx *tx, const struct attr *a)
{
    int err = put(tx, a, ns_db_append);

    err = err == DFS_EEXIST ? DFS_EDAMAGED : err; /* the id was given already */
    return err != 0 ? err : ns_quota_move(tx, 0, a->quota, &(struct ns_use){ .inodes = 1 });
}

void ns_inode_touch(const struct ns_tx *tx, struct attr *a)
{
    a->ctime = tx->head->now_ns;
    a->version++;
}

void ns_inode_modify(const struct ns_tx *tx, struct attr *a)
{
    ns_inode_touch(tx, a);
    a->mtime = tx->head->now_ns;
    a->data_version++;
}

int ns_inode_drop_link(struct ns_tx *tx, struct attr *a)
{
    struct ns_key8 key = ns_key8(a->ino);
    int err;

    if (a->nlink == 0) {
        return DFS_EDAMAGED;
    }
    a->nlink = S_ISDIR(a->mode) ? 0 : a->nlink - 1;
    ns_inode_touch(tx, a);
    err = ns_inode_put(tx, a);
    if (err != 0 || a->nlink != 0) {
        return err;
    }
    err = ns_db_put(tx, DB_ORPHANS, KEY_SLICE(key), SLICE_EMPTY);
    if (err == 0 && tx->ns->ev.inode_orphaned != NULL) {
        tx->ns->ev.inode_orphaned(tx->ns->ev.arg, a->ino);
    }
    return err;
}

struct slice ns_attr(struct ns_tx *tx, const struct attr *a)
{
    wire_out_reset(&tx->ns->attr);
    attr_put(&tx->ns->attr, a);
    return wire_out_slice(&tx->ns->attr);
}

struct slice ns_dir_attr(struct ns_tx *tx, const struct attr *a)
{
    wire_out_reset(&tx->ns->dir_attr);
    attr_put(&tx->ns->dir_attr, a);
    return wire_out_slice(&tx->ns->dir_attr);
}

static void set_owner(struct attr *a, const struct setattr_req *req)
{
    if ((req->valid & SET_UID) != 0) {
        a->uid = req->uid;
    }
    if ((req->valid & SET_GID) != 0) {
        a->gid = req->gid;
    }
}

static void set_times(const struct ns_tx *tx, struct attr *a, const struct setattr_req *req)
{
    if ((req->valid & SET_ATIME_NOW) != 0) {
        a->atime = tx->head->now_ns;
    } else if ((req->valid & SET_ATIME) != 0) {
        a->atime = req->atime;
    }
    if ((req->valid & SET_MTIME_NOW) != 0) {
        a->mtime = tx->head->now_ns;
    } else if ((req->valid & SET_MTIME) != 0) {
        a->mtime = req->mtime;
    }
}

static int check_size(const struct attr *a, uint64_t size)
{
    if (!S_ISREG(a->mode)) {
        return S_ISDIR(a->mode) ? DFS_EISDIR : DFS_EINVAL;
    }
    return size > LIMIT_FILE_SIZE ? DFS_EFBIG : 0;
}

/* Down by as many extents as one command may go through: the caller sees the size and goes on. */
static int set_size(struct ns_tx *tx, struct attr *a, uint64_t size)
{
    int err = 0;

    if (size < a->size) {
        int flush;

        err = a->bytes != 0 ? ns_extent_reach_back(tx, a, size, LIMIT_SHIFT_EXTENTS, &size) : 0;
        err = err != 0 ? err : ns_extent_cut(tx, a, size, a->size);
        flush = ns_live_flush(tx);
        err = err != 0 ? err : flush;
    }
    a->size = size;
    a->mtime = tx->head->now_ns;
    a->data_version++;
    return err;
}

int ns_do_setattr(struct ns_tx *tx, const struct setattr_req *req, struct setattr_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    if (err == 0 && (req->valid & SET_SIZE) != 0) {
        err = check_size(&a, req->size);
    }
    err = err != 0 ? err : ns_may_set(&tx->v, &tx->hdr, &a, req);
    if (err != 0) {
        return err;
    }
    if (req->valid != 0) {
        a.mode = perm_setattr_mode(&tx->hdr, &a, req);
        set_owner(&a, req);
        err = (req->valid & SET_MODE) != 0 ? ns_acl_chmod(tx, &a) : 0;
        if (err == 0 && (req->valid & SET_SIZE) != 0) {
            err = set_size(tx, &a, req->size);
        }
        set_times(tx, &a, req);
        ns_inode_touch(tx, &a);
        err = err != 0 ? err : ns_inode_put(tx, &a);
    }
    rep->attr = ns_attr(tx, &a);
    return err;
}
