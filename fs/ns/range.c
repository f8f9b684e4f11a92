/* Commands that change which bytes a file has without bytes being moved: fallocate, clone_range; and
 * the time of the last access.
 *
 * What a hole costs nothing to make, so preallocated space is a hole: only the size tells of it. */
#include <linux/falloc.h>
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

/* The content changed, by whoever sent the command. */
static void modify(const struct ns_tx *tx, struct attr *a)
{
    if (!perm_is_root(&tx->hdr)) {
        a->mode = perm_without_set_id(&tx->hdr, a);
    }
    ns_inode_modify(tx, a);
}

static int get_file(const struct ns_tx *tx, uint64_t ino, struct attr *ret)
{
    struct attr a;
    int err = ns_inode_get(&tx->v, ino, &a);

    if (err == 0 && !S_ISREG(a.mode)) {
        err = S_ISDIR(a.mode) ? DFS_EISDIR : DFS_EINVAL;
    }
    if (err == 0) {
        *ret = a;
    }
    return err;
}

/* ---- fallocate ---- */

static int check_mode(uint32_t mode)
{
    switch (mode) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
        return 0;
    default:
        return DFS_ENOTSUP;
    }
}

static int check_fallocate(const struct ns_tx *tx, const struct fallocate_req *req,
                           struct attr *ret)
{
    int err = check_mode(req->mode);

    if (err != 0 || req->len == 0) {
        return err != 0 ? err : DFS_EINVAL;
    }
    if (req->off > LIMIT_FILE_SIZE || req->len > LIMIT_FILE_SIZE - req->off) {
        return DFS_EFBIG;
    }
    err = get_file(tx, req->ino, ret);
    if (err != 0) {
        return err;
    }
    if (req->mode == FALLOC_FL_COLLAPSE_RANGE) {
        return req->off + req->len >= ret->size ? DFS_EINVAL : 0;
    }
    if (req->mode == FALLOC_FL_INSERT_RANGE) {
        return req->off >= ret->size                    ? DFS_EINVAL
               : req->len > LIMIT_FILE_SIZE - ret->size ? DFS_EFBIG
                                                        : 0;
    }
    return 0;
}

/* As much of the range as one command may go through. */
static int make_hole(struct ns_tx *tx, struct attr *a, uint64_t off, uint64_t len,
                     uint64_t *ret_done)
{
    uint64_t to;
    int err = ns_extent_reach(tx, a, off, off + len, LIMIT_COMMIT_EXTENTS, &to);

    err = err != 0 ? err : ns_extent_cut(tx, a, off, to);
    if (err == 0) {
        *ret_done = to - off;
    }
    return err;
}

/* All at once: a reader in between would see bytes twice, or never. */
static int shift(struct ns_tx *tx, struct attr *a, const struct fallocate_req *req)
{
    uint64_t reach;
    int err = ns_extent_reach(tx, a, req->off, LIMIT_FILE_SIZE, LIMIT_SHIFT_EXTENTS, &reach);

    if (err != 0 || reach < a->size) {
        return err != 0 ? err : DFS_ENOTSUP;
    }
    if (req->mode == FALLOC_FL_INSERT_RANGE) {
        err = ns_extent_shift_up(tx, a, req->off, req->len);
        a->size += req->len;
        return err != 0 ? err : ns_recount_shift(tx, a, req->off, req->len, true);
    }
    err = ns_extent_cut(tx, a, req->off, req->off + req->len);
    err = err != 0 ? err : ns_extent_shift_down(tx, a, req->off + req->len, req->len);
    a->size -= req->len;
    return err != 0 ? err : ns_recount_shift(tx, a, req->off, req->len, false);
}

int ns_do_fallocate(struct ns_tx *tx, const struct fallocate_req *req, struct fallocate_rep *rep)
{
    struct attr a;
    uint64_t done = req->len;
    int flush;
    int err = check_fallocate(tx, req, &a);

    if (err != 0) {
        return err;
    }
    if (req->mode == FALLOC_FL_COLLAPSE_RANGE || req->mode == FALLOC_FL_INSERT_RANGE) {
        err = shift(tx, &a, req);
    } else if ((req->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
        err = make_hole(tx, &a, req->off, req->len, &done);
    }
    flush = ns_live_flush(tx);
    err = err != 0 ? err : flush;
    if (err != 0) {
        return err;
    }
    if (req->mode == 0 || req->mode == FALLOC_FL_ZERO_RANGE) {
        a.size = MAX(a.size, req->off + done);
    }
    modify(tx, &a);
    rep->done = done;
    rep->attr = ns_attr(tx, &a);
    return ns_inode_put(tx, &a);
}

/* ---- clone_range ---- */

/* *ret_len: how much of it there is to clone; 0 behind the end of the source. */
static int check_clone(const struct ns_tx *tx, const struct clone_range_req *req,
                       struct attr *ret_src, struct attr *ret_dst, uint64_t *ret_len)
{
    uint64_t len = req->len;
    int err = get_file(tx, req->src, ret_src);

    err = err != 0 ? err : get_file(tx, req->dst, ret_dst);
    if (err != 0) {
        return err;
    }
    len = req->src_off < ret_src->size ? MIN(len, ret_src->size - req->src_off) : 0;
    if (req->dst_off > LIMIT_FILE_SIZE || len > LIMIT_FILE_SIZE - req->dst_off) {
        return DFS_EFBIG;
    }
    if (req->src == req->dst && len != 0 && req->src_off < req->dst_off + len &&
        req->dst_off < req->src_off + len) {
        return DFS_EINVAL;
    }
    *ret_len = len;
    return 0;
}

/* The source's extents in [from, to) at their new place, over what was there. */
static int put_clone(struct ns_tx *tx, struct attr *dst, const struct clone_range_req *req,
                     uint64_t len, uint32_t count)
{
    struct extent *all = tx->ns->extents;
    int err;

    for (uint32_t i = 0; i < count; i++) {
        all[i].off = all[i].off - req->src_off + req->dst_off;
    }
    err = ns_content_room(tx, dst, count);
    for (uint32_t i = 0; err == 0 && i < count; i++) {
        err = ns_extent_claim(tx, dst, &all[i]);
    }
    err = err != 0 ? err : ns_extent_cut(tx, dst, req->dst_off, req->dst_off + len);
    for (uint32_t i = 0; err == 0 && i < count; i++) {
        err = ns_extent_insert(tx, dst, &all[i]);
    }
    return err;
}

int ns_do_clone_range(struct ns_tx *tx, const struct clone_range_req *req,
                      struct clone_range_rep *rep)
{
    struct attr src;
    struct attr dst;
    uint64_t len = 0;
    uint64_t to;
    uint32_t count = 0;
    int flush;
    int err = check_clone(tx, req, &src, &dst, &len);

    if (err == 0 && len != 0) {
        /* bounded by what is taken, and by what is in the way */
        err =
            ns_extent_reach(tx, &src, req->src_off, req->src_off + len, LIMIT_COMMIT_EXTENTS, &to);
        len = err == 0 ? to - req->src_off : 0;
        err = err != 0 ? err
                       : ns_extent_reach(tx, &dst, req->dst_off, req->dst_off + len,
                                         LIMIT_COMMIT_EXTENTS, &to);
        len = err == 0 ? to - req->dst_off : 0;
        err = err != 0 ? err
                       : ns_extent_list(tx, &src, req->src_off, req->src_off + len, tx->ns->extents,
                                        &count);
        err = err != 0 ? err : put_clone(tx, &dst, req, len, count);
        flush = ns_live_flush(tx);
        err = err != 0 ? err : flush;
        if (err == 0) {
            dst.size = MAX(dst.size, req->dst_off + len);
            modify(tx, &dst);
            err = ns_inode_put(tx, &dst);
        }
    }
    rep->done = len;
    rep->attr = err == 0 ? ns_attr(tx, &dst) : SLICE_EMPTY;
    return err;
}

/* ---- accessed ---- */

static bool atime_is_due(const struct attr *a, int64_t now_ns)
{
    return a->atime <= a->mtime || a->atime <= a->ctime ||
           now_ns - a->atime >= INT64_C(86400) * NS_PER_SEC;
}

static int access_one(struct ns_tx *tx, const struct access *one)
{
    int64_t atime = MIN(one->atime, tx->head->now_ns);
    struct attr a;
    int err = ns_inode_get(&tx->v, one->ino, &a);

    if (err != 0) {
        return err == DFS_ESTALE ? 0 : err;
    }
    if (atime <= a.atime || !atime_is_due(&a, atime)) {
        return 0;
    }
    a.atime = atime;
    a.version++;
    return ns_inode_put(tx, &a);
}

int ns_do_accessed(struct ns_tx *tx, const struct accessed_req *req, struct accessed_rep *rep)
{
    struct wire_in in = wire_in_of(req->inodes.items);
    struct access one;
    int err = req->inodes.count > LIMIT_ACCESSES ? DFS_ETOOBIG : 0;

    (void)rep;
    for (uint32_t i = 0; err == 0 && i < req->inodes.count; i++) { /* readable to the end */
        err = access_get(&in, &one) != 0 ? DFS_EMALFORMED : 0;
    }
    in = wire_in_of(req->inodes.items);
    for (uint32_t i = 0; err == 0 && i < req->inodes.count; i++) {
        err = access_get(&in, &one);
        err = err != 0 ? err : access_one(tx, &one);
    }
    return err;
}
