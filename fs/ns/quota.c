/* Quota records: limits, and what is charged to a quota directory, its own and that of all below it.
 *
 * The sums are exact after every command: ns_inode_add() and ns_quota_forget() count an inode,
 * ns_inode_put() the bytes by which a file differs from what is stored. Whoever lets a tree grow asks
 * ns_quota_room() before the first change.
 */
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

void ns_quota_encode(struct wire_out *out, const struct ns_quota *q)
{
    wire_put_u64(out, q->parent);
    wire_put_u64(out, q->limit_bytes);
    wire_put_u64(out, q->limit_inodes);
    wire_put_u64(out, q->used.bytes);
    wire_put_u64(out, q->used.inodes);
    wire_put_u64(out, q->used.pending);
    wire_put_u8(out, q->closing);
}

int ns_quota_decode(struct slice s, struct ns_quota *ret)
{
    struct wire_in in = wire_in_of(s);
    struct ns_quota q = { .parent = wire_get_u64(&in) };

    q.limit_bytes = wire_get_u64(&in);
    q.limit_inodes = wire_get_u64(&in);
    q.used.bytes = wire_get_u64(&in);
    q.used.inodes = wire_get_u64(&in);
    q.used.pending = wire_get_u64(&in);
    q.closing = wire_get_u8(&in) != 0;
    if (in.err != 0 || in.left != 0) {
        return DFS_EDAMAGED;
    }
    *ret = q;
    return 0;
}

int ns_quota_get(const struct ns_view *v, uint64_t ino, struct ns_quota *ret)
{
    struct ns_key8 key = ns_key8(ino);
    struct slice rec;
    int err = ns_db_get(v, DB_QUOTAS, KEY_SLICE(key), &rec);

    return err != 0 ? err : ns_quota_decode(rec, ret);
}

/* One that something is charged to, or that is another's parent. */
static int must_get(const struct ns_view *v, uint64_t ino, struct ns_quota *ret)
{
    return ns_must(ns_quota_get(v, ino, ret));
}

int ns_quota_put(struct ns_tx *tx, uint64_t ino, const struct ns_quota *q)
{
    struct ns_key8 key = ns_key8(ino);
    uint8_t rec[NS_QUOTA_BYTES];
    struct wire_out out = wire_out_over(rec, sizeof(rec));

    ns_quota_encode(&out, q);
    ASSERT(out.err == 0);
    return ns_db_put(tx, DB_QUOTAS, KEY_SLICE(key), wire_out_slice(&out));
}

/* Nothing refers to a closing record without inodes and work: who is charged to it is counted. */
static int put_or_drop(struct ns_tx *tx, uint64_t ino, const struct ns_quota *q)
{
    struct ns_key8 key = ns_key8(ino);

    if (q->closing && q->used.inodes == 0 && q->used.pending == 0) {
        return q->used.bytes != 0 ? DFS_EDAMAGED : ns_db_del(tx, DB_QUOTAS, KEY_SLICE(key));
    }
    return ns_quota_put(tx, ino, q);
}

/* ---- charging ---- */

static int add(struct ns_tx *tx, uint64_t quota, const struct ns_use *use)
{
    struct ns_quota q;
    int err = 0;

    for (; err == 0 && quota != 0; quota = q.parent) {
        err = must_get(&tx->v, quota, &q);
        if (err == 0) {
            q.used.bytes += use->bytes;
            q.used.inodes += use->inodes;
            q.used.pending += use->pending;
            err = ns_quota_put(tx, quota, &q);
        }
    }
    return err;
}

static int take(struct ns_tx *tx, uint64_t quota, const struct ns_use *use)
{
    struct ns_quota q;
    int err = 0;

    for (; err == 0 && quota != 0; quota = q.parent) {
        err = must_get(&tx->v, quota, &q);
        if (err == 0 && (q.used.bytes < use->bytes || q.used.inodes < use->inodes ||
                         q.used.pending < use->pending)) {
            err = DFS_EDAMAGED;
        }
        if (err == 0) {
            q.used.bytes -= use->bytes;
            q.used.inodes -= use->inodes;
            q.used.pending -= use->pending;
            err = put_or_drop(tx, quota, &q);
        }
    }
    return err;
}

int ns_quota_move(struct ns_tx *tx, uint64_t from, uint64_t to, const struct ns_use *use)
{
    int err = add(tx, to, use); /* first: what both are charged to never drops to nothing */

    return err != 0 ? err : take(tx, from, use);
}

/* Is what is charged to `from` charged to `quota`? */
static int charges(const struct ns_view *v, uint64_t from, uint64_t quota, bool *ret)
{
    struct ns_quota q;
    int err = 0;

    for (; err == 0 && from != 0 && from != quota; from = q.parent) {
        err = must_get(v, from, &q);
    }
    if (err == 0) {
        *ret = from == quota;
    }
    return err;
}

static bool fits(uint64_t limit, uint64_t used, uint64_t more)
{
    return more == 0 || limit == 0 || (used <= limit && more <= limit - used);
}

/* What of all sources is not charged to `quota` yet; *ret_any: there is some. */
static int not_charged(const struct ns_view *v, uint64_t quota, const struct ns_source *from,
                       size_t count, struct ns_use *ret, bool *ret_any)
{
    *ret = (struct ns_use){ 0 };
    *ret_any = false;
    for (size_t i = 0; i < count; i++) {
        bool shared = false;
        int err = from[i].quota != 0 ? charges(v, from[i].quota, quota, &shared) : 0;

        if (err != 0) {
            return err;
        }
        if (!shared) {
            ret->bytes += from[i].use.bytes;
            ret->inodes += from[i].use.inodes;
            *ret_any = true;
        }
    }
    return 0;
}

int ns_quota_room(const struct ns_view *v, uint64_t quota, const struct ns_source *from,
                  size_t count)
{
    struct ns_quota q;
    struct ns_use more;
    bool any;

    for (; quota != 0; quota = q.parent) {
        int err = not_charged(v, quota, from, count, &more, &any);

        err = err != 0 ? err : must_get(v, quota, &q);
        if (err != 0 || !any) {
            return err; /* what is charged here is charged above */
        }
        if (!fits(q.limit_bytes, q.used.bytes, more.bytes) ||
            !fits(q.limit_inodes, q.used.inodes, more.inodes)) {
            return DFS_EDQUOT;
        }
    }
    return 0;
}

int ns_quota_grow(const struct ns_view *v, uint64_t quota, uint64_t bytes, uint64_t inodes)
{
    struct ns_source s = { .use = { .bytes = bytes, .inodes = inodes } };

    return ns_quota_room(v, quota, &s, 1);
}

/* ---- inodes ---- */

static int pending_of(const struct ns_view *v, const struct attr *a, uint64_t *ret)
{
    struct ns_key8 key = ns_key8(a->ino);
    struct slice rec;
    int err = S_ISDIR(a->mode) ? ns_db_get(v, DB_QUOTA_WORK, KEY_SLICE(key), &rec) : DFS_ENOENT;

    if (err == 0 || err == DFS_ENOENT) {
        *ret = err == 0;
        err = 0;
    }
    return err;
}

static int use_of(const struct ns_view *v, const struct attr *a, struct ns_use *ret)
{
    *ret = (struct ns_use){ .bytes = S_ISREG(a->mode) ? a->bytes : 0, .inodes = 1 };
    return pending_of(v, a, &ret->pending);
}

int ns_quota_retag(struct ns_tx *tx, struct attr *a, uint64_t to)
{
    uint64_t from = a->quota;
    struct ns_use use;
    int err = use_of(&tx->v, a, &use);

    a->quota = to;
    err = err != 0 ? err : ns_inode_store(tx, a);
    return err != 0 ? err : ns_quota_move(tx, from, to, &use);
}

int ns_quota_reparent(struct ns_tx *tx, uint64_t ino, uint64_t to)
{
    struct ns_quota q;
    uint64_t from;
    int err = must_get(&tx->v, ino, &q);

    if (err != 0 || q.parent == to) {
        return err;
    }
    from = q.parent;
    q.parent = to;
    err = ns_quota_put(tx, ino, &q);
    return err != 0 ? err : ns_quota_move(tx, from, to, &q.used);
}

static int close_quota(struct ns_tx *tx, uint64_t ino)
{
    struct ns_quota q;
    int err = must_get(&tx->v, ino, &q);

    q.limit_bytes = q.limit_inodes = 0;
    q.closing = true;
    return err != 0 ? err : ns_quota_put(tx, ino, &q);
}

int ns_quota_forget(struct ns_tx *tx, const struct attr *a)
{
    struct ns_key8 key = ns_key8(a->ino);
    struct attr old; /* as it is charged */
    struct ns_use use;
    int err = ns_must(ns_inode_get(&tx->v, a->ino, &old));

    if (err == 0 && ns_is_quota_dir(a)) {
        err = close_quota(tx, a->ino);
    }
    err = err != 0 ? err : use_of(&tx->v, &old, &use);
    if (err == 0 && use.pending != 0) {
        err = ns_db_del(tx, DB_QUOTA_WORK, KEY_SLICE(key));
    }
    return err != 0 ? err : take(tx, a->quota, &use);
}

/* ---- commands ---- */

static int check_caller(const struct ns_tx *tx, uint64_t ino, struct attr *ret)
{
    struct attr a;
    int err = tx->hdr.uid != 0 ? DFS_EPERM : ns_inode_dir(&tx->v, ino, &a);

    if (err == 0 && a.nlink == 0) {
        err = DFS_ENOENT;
    }
    if (err == 0) {
        *ret = a;
    }
    return err;
}

/* The directory becomes one: its record, itself, and then what is in it. */
static int begin_quota(struct ns_tx *tx, struct attr *a, struct ns_quota *q)
{
    int err = ns_quota_get(&tx->v, a->ino, q);

    if (err == DFS_ENOENT) {
        *q = (struct ns_quota){ .parent = a->quota };
        err = ns_quota_put(tx, a->ino, q);
    } else if (err == 0) { /* it was one until lately */
        q->closing = false;
        err = ns_quota_put(tx, a->ino, q);
        err = err != 0 ? err : ns_quota_reparent(tx, a->ino, a->quota);
    }
    ns_inode_touch(tx, a);
    err = err != 0 ? err : ns_quota_retag(tx, a, a->ino);
    err = err != 0 ? err : ns_quota_push(tx, a);
    return err != 0 ? err : must_get(&tx->v, a->ino, q);
}

int ns_do_quota_set(struct ns_tx *tx, const struct quota_set_req *req, struct quota_set_rep *rep)
{
    struct attr a;
    struct ns_quota q;
    int err = check_caller(tx, req->ino, &a);

    (void)rep;
    if (err == 0 &&
        (req->valid == 0 || (req->valid & ~(uint32_t)(QUOTA_BYTES | QUOTA_INODES)) != 0)) {
        err = DFS_EINVAL;
    }
    if (err != 0) {
        return err;
    }
    err = ns_is_quota_dir(&a) ? must_get(&tx->v, a.ino, &q) : begin_quota(tx, &a, &q);
    if ((req->valid & QUOTA_BYTES) != 0) {
        q.limit_bytes = req->bytes;
    }
    if ((req->valid & QUOTA_INODES) != 0) {
        q.limit_inodes = req->inodes;
    }
    return err != 0 ? err : ns_quota_put(tx, a.ino, &q);
}

int ns_do_quota_clear(struct ns_tx *tx, const struct quota_clear_req *req,
                      struct quota_clear_rep *rep)
{
    struct ns_quota q;
    struct attr a;
    int err = check_caller(tx, req->ino, &a);

    (void)rep;
    if (err == 0 && !ns_is_quota_dir(&a)) {
        err = DFS_ENODATA;
    }
    err = err != 0 ? err : must_get(&tx->v, a.ino, &q);
    err = err != 0 ? err : close_quota(tx, a.ino);
    if (err != 0) {
        return err;
    }
    ns_inode_touch(tx, &a);
    err = ns_quota_retag(tx, &a, q.parent);
    return err != 0 ? err : ns_quota_push(tx, &a);
}

int ns_do_quota_mend(struct ns_tx *tx, const struct quota_mend_req *req, struct quota_mend_rep *rep)
{
    struct wire_in in = wire_in_of(req->sums.items);
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < req->sums.count; i++) {
        struct quota_sum s;
        struct ns_quota q;

        err = quota_sum_get(&in, &s);
        if (err != 0) {
            return DFS_EMALFORMED;
        }
        err = ns_quota_get(&tx->v, s.ino, &q);
        if (err == 0 && !q.closing && q.used.pending == 0 && q.used.bytes == s.was_bytes &&
            q.used.inodes == s.was_inodes) {
            q.used.bytes = s.bytes;
            q.used.inodes = s.inodes;
            err = ns_quota_put(tx, s.ino, &q);
            rep->changed++;
        }
        err = err == DFS_ENODATA || err == DFS_ENOENT ? 0 : err;
    }
    return err;
}
