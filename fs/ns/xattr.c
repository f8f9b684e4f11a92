/* Extended attributes. */
#include <sys/xattr.h>

#include "fs/ns/ns_core.h"

#define KEY_BYTES (8 + LIMIT_XATTR_NAME)

static int check_name(struct slice name)
{
    if (name.len == 0 || name.len > LIMIT_XATTR_NAME) {
        return DFS_ERANGE;
    }
    return memchr(name.p, '\0', name.len) != NULL ? DFS_EINVAL : 0;
}

static struct slice make_key(uint8_t buf[KEY_BYTES], uint64_t ino, struct slice name)
{
    ASSERT(name.len <= LIMIT_XATTR_NAME);
    key_put_u64(buf, ino);
    memcpy(buf + 8, name.p, name.len);
    return slice_of(buf, 8 + name.len);
}

int ns_xattr_get(const struct ns_view *v, uint64_t ino, struct slice name, struct slice *ret)
{
    uint8_t key[KEY_BYTES];
    int err = check_name(name);

    err = err != 0 ? err : ns_db_get(v, DB_XATTRS, make_key(key, ino, name), ret);
    return err == DFS_ENOENT ? DFS_ENODATA : err;
}

int ns_xattr_put(struct ns_tx *tx, uint64_t ino, struct slice name, struct slice value)
{
    uint8_t key[KEY_BYTES];

    return ns_db_put(tx, DB_XATTRS, make_key(key, ino, name), value);
}

int ns_xattr_del(struct ns_tx *tx, uint64_t ino, struct slice name)
{
    uint8_t key[KEY_BYTES];
    int err = ns_db_del(tx, DB_XATTRS, make_key(key, ino, name));

    return err == DFS_ENOENT ? 0 : err;
}

struct name_list {
    const struct call_hdr *who;
    uint64_t ino;
    struct wire_out *out;
};

static bool add_name(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct name_list *l = arg;
    struct slice name;

    (void)val;
    if (key.len <= 8) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    if (key_get_u64(key.p) != l->ino) {
        return false;
    }
    name = slice_of(key.p + 8, key.len - 8);
    if (perm_is_root(l->who) || xattr_space(name) != XATTR_TRUSTED) {
        wire_put_raw(l->out, name.p, name.len);
        wire_put_u8(l->out, 0);
    }
    return true;
}

int ns_xattr_list(const struct ns_view *v, const struct call_hdr *who, uint64_t ino,
                  struct wire_out *out)
{
    struct name_list l = { .who = who, .ino = ino, .out = out };
    struct ns_key8 from = ns_key8(ino);

    return ns_db_each(v, DB_XATTRS, KEY_SLICE(from), add_name, &l);
}

struct xattr_sum {
    uint64_t ino;
    size_t names;  /* bytes, as listxattr counts them for root */
    size_t values; /* bytes */
};

static bool add_sizes(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct xattr_sum *s = arg;

    *ret_err = key.len <= 8 ? DFS_EDAMAGED : 0;
    if (*ret_err != 0 || key_get_u64(key.p) != s->ino) {
        return false;
    }
    s->names += key.len - 8 + 1;
    s->values += val.len;
    return true;
}

static int sum_up(const struct ns_view *v, uint64_t ino, struct xattr_sum *ret)
{
    struct ns_key8 from = ns_key8(ino);

    *ret = (struct xattr_sum){ .ino = ino };
    return ns_db_each(v, DB_XATTRS, KEY_SLICE(from), add_sizes, ret);
}

/* ---- commands ---- */

static bool is_list(enum xattr_space space)
{
    return space == XATTR_ACL_ACCESS || space == XATTR_ACL_DEFAULT;
}

/* The flag goes with the last attribute. */
static int recount(struct ns_tx *tx, struct attr *a)
{
    struct xattr_sum sum;
    int err = sum_up(&tx->v, a->ino, &sum);

    if (err == 0 && sum.names == 0) {
        a->flags &= (uint8_t)~ATTR_XATTRS;
    }
    return err;
}

static int set_list(struct ns_tx *tx, struct attr *a, enum xattr_space space, struct slice value)
{
    int err = ns_acl_set(tx, a, space, value);

    return err != 0 ? err : recount(tx, a);
}

static int finish(struct ns_tx *tx, struct attr *a, int err)
{
    if (err != 0) {
        return err;
    }
    ns_inode_touch(tx, a);
    return ns_inode_put(tx, a);
}

/* An attribute that is kept as it comes. */
static int set_plain(struct ns_tx *tx, struct attr *a, const struct setxattr_req *req)
{
    struct slice old = SLICE_EMPTY;
    struct xattr_sum sum;
    int err = ns_xattr_get(&tx->v, a->ino, req->name, &old);
    bool have = err == 0;

    if (err != 0 && err != DFS_ENODATA) {
        return err;
    }
    if (have ? (req->flags & XATTR_CREATE) != 0 : (req->flags & XATTR_REPLACE) != 0) {
        return have ? DFS_EEXIST : DFS_ENODATA;
    }
    err = sum_up(&tx->v, a->ino, &sum);
    if (err == 0 && !have && sum.names + req->name.len + 1 > LIMIT_XATTR_LIST) {
        err = DFS_ETOOBIG;
    }
    if (err == 0 && req->value.len > old.len &&
        sum.values - old.len + req->value.len > LIMIT_XATTR_BYTES) {
        err = DFS_ETOOBIG;
    }
    if (err != 0) {
        return err;
    }
    a->flags |= ATTR_XATTRS;
    return ns_xattr_put(tx, a->ino, req->name, req->value);
}

int ns_do_setxattr(struct ns_tx *tx, const struct setxattr_req *req, struct setxattr_rep *rep)
{
    enum xattr_space space = xattr_space(req->name);
    struct attr a;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    (void)rep;
    if (err == 0 && ns_is_virtual(req->name)) {
        return ns_vattr_set(tx, &a, req->name, req->value);
    }
    err = err != 0 ? err : check_name(req->name);
    if (err == 0 && req->value.len > LIMIT_XATTR_VALUE) {
        err = DFS_ETOOBIG;
    }
    if (err == 0 && (req->flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0) {
        err = DFS_EINVAL;
    }
    err = err != 0 ? err : ns_may_xattr(&tx->v, &tx->hdr, &a, req->name, true);
    if (err == 0) {
        err = is_list(space) ? set_list(tx, &a, space, req->value) : set_plain(tx, &a, req);
    }
    return finish(tx, &a, err);
}

static int remove_plain(struct ns_tx *tx, struct attr *a, struct slice name)
{
    struct slice old;
    int err = ns_xattr_get(&tx->v, a->ino, name, &old);

    err = err != 0 ? err : ns_xattr_del(tx, a->ino, name);
    return err != 0 ? err : recount(tx, a);
}

int ns_do_removexattr(struct ns_tx *tx, const struct removexattr_req *req,
                      struct removexattr_rep *rep)
{
    enum xattr_space space = xattr_space(req->name);
    struct attr a;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    (void)rep;
    if (err == 0 && ns_is_virtual(req->name)) {
        return ns_vattr_remove(tx, &a, req->name);
    }
    err = err != 0 ? err : check_name(req->name);
    err = err != 0 ? err : ns_may_xattr(&tx->v, &tx->hdr, &a, req->name, true);
    if (err == 0) {
        err =
            is_list(space) ? set_list(tx, &a, space, SLICE_EMPTY) : remove_plain(tx, &a, req->name);
    }
    return finish(tx, &a, err);
}
