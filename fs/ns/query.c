/* Questions about names and attributes. */
#include "fs/ns/query.h"

#include <sys/stat.h>

int ns_ask_lookup(struct ns_reader *r, const struct lookup_req *req, struct lookup_rep *rep)
{
    struct ns_dentry d;
    struct attr a;
    int err = ns_inode_dir(&r->v, req->parent, &a);

    err = err != 0 ? err : ns_may(&r->v, r->who, &a, PERM_EXEC);
    err = err != 0 ? err : ns_name_check(req->name);
    if (err != 0) {
        return err;
    }
    if (ns_name_is_dotdot(req->name)) {
        err = ns_inode_get(&r->v, a.parent, &a);
    } else if (!ns_name_is_dot(req->name)) {
        err = ns_dentry_get(&r->v, a.ino, req->name, &d);
        err = err != 0 ? err : ns_must(ns_inode_get(&r->v, d.ino, &a));
    }
    if (err == 0) {
        rep->attr = ns_reader_attr(r, &a);
    }
    return err;
}

int ns_ask_getattr(struct ns_reader *r, const struct getattr_req *req, struct getattr_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    if (err == 0) {
        rep->attr = ns_reader_attr(r, &a);
    }
    return err;
}

int ns_ask_readlink(struct ns_reader *r, const struct readlink_req *req, struct readlink_rep *rep)
{
    struct ns_key8 key = ns_key8(req->ino);
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    if (err == 0 && !S_ISLNK(a.mode)) {
        err = DFS_EINVAL;
    }
    return err != 0 ? err : ns_must(ns_db_get(&r->v, DB_SYMLINKS, KEY_SLICE(key), &rep->target));
}

/* What an entry takes in the list without its name and attr. */
#define ENTRY_BYTES 28

/* A page while the writer waits for it: less than a millisecond. */
#define SHARED_BYTES (64 * KIB)

struct page {
    struct ns_reader *r;
    uint64_t ino;
    uint64_t last; /* hash of the entry before */
    uint32_t count;
    size_t max;
    bool plus;
    bool full;
};

static bool add_entry(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct page *p = arg;
    struct ns_dentry d;
    struct dir_entry e;
    struct attr a;
    size_t need;

    *ret_err = key.len <= 16 ? DFS_EDAMAGED : ns_dentry_decode(val, &d);
    if (*ret_err != 0 || key_get_u64(key.p) != p->ino) {
        return false;
    }
    e = (struct dir_entry){ .ino = d.ino,
                            .cookie = key_get_u64(key.p + 8),
                            .mode = d.type,
                            .name = slice_of(key.p + 16, key.len - 16) };
    if (p->plus) {
        *ret_err = ns_must(ns_inode_get(&p->r->v, d.ino, &a));
        if (*ret_err != 0) {
            return false;
        }
        e.mode = a.mode;
        e.attr = ns_reader_attr(p->r, &a);
    }
    need = ENTRY_BYTES + e.name.len + e.attr.len;
    /* a page ends between two cookies, and is never empty */
    if (p->count != 0 && e.cookie != p->last && p->r->list.len + need > p->max) {
        p->full = true;
        return false;
    }
    dir_entry_put(&p->r->list, &e);
    p->last = e.cookie;
    p->count++;
    return true;
}

int ns_ask_readdir(struct ns_reader *r, const struct readdir_req *req, struct readdir_rep *rep)
{
    struct page p = { .r = r,
                      .ino = req->ino,
                      .max = MIN(req->max_bytes, r->view.shared ? SHARED_BYTES : LIMIT_REPLY / 2),
                      .plus = req->plus != 0 };
    struct ns_key16 from;
    struct attr a;
    int err = ns_inode_dir(&r->v, req->ino, &a);

    err = err != 0 ? err : ns_may(&r->v, r->who, &a, PERM_READ);
    if (err == 0 && req->cookie > INT64_MAX) {
        err = DFS_EINVAL;
    }
    if (err != 0) {
        return err;
    }
    from = ns_key16(req->ino, req->cookie + 1);
    wire_out_reset(&r->list);
    err = ns_db_each(&r->v, DB_DENTRIES, KEY_SLICE(from), add_entry, &p);
    rep->eof = !p.full;
    rep->entries = wire_out_list(&r->list, p.count);
    rep->attr = ns_reader_attr(r, &a);
    return err != 0 ? err : r->list.err;
}

int ns_ask_getxattr(struct ns_reader *r, const struct getxattr_req *req, struct getxattr_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    if (err == 0 && ns_is_virtual(req->name)) {
        return ns_vattr_get(r, &a, req->name, &rep->value);
    }
    err = err != 0 ? err : ns_may_xattr(&r->v, r->who, &a, req->name, false);
    return err != 0 ? err : ns_xattr_get(&r->v, req->ino, req->name, &rep->value);
}

int ns_ask_listxattr(struct ns_reader *r, const struct listxattr_req *req,
                     struct listxattr_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    wire_out_reset(&r->list);
    if (err == 0 && (a.flags & ATTR_XATTRS) != 0) {
        err = ns_xattr_list(&r->v, r->who, req->ino, &r->list);
    }
    rep->names = wire_out_slice(&r->list);
    return err != 0 ? err : r->list.err;
}

int ns_ask_permit(struct ns_reader *r, const struct permit_req *req, struct permit_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    (void)rep;
    return err != 0 ? err : ns_may(&r->v, r->who, &a, req->want);
}
