/* Operations on names and attributes: one question or command each. */
#include "cluster/base/base.h"

#include <sys/stat.h>

#include "fs/client/call.h"
#include "fs/client/client_int.h"
#include "fs/client/readahead.h"
#include "fs/client/writer.h"

#define DIR_BYTES     (LIMIT_REPLY / 4) /* of a directory, in one answer */
#define DIR_BYTES_FEW (8u << 10)

DEFINE_CALL(lookup)
DEFINE_CALL(getattr)
DEFINE_CALL(setattr)
DEFINE_CALL(make)
DEFINE_CALL(link)
DEFINE_CALL(unlink)
DEFINE_CALL(rename)
DEFINE_CALL(readlink)
DEFINE_CALL(readdir)
DEFINE_CALL(getxattr)
DEFINE_CALL(listxattr)
DEFINE_CALL(setxattr)
DEFINE_CALL(removexattr)
DEFINE_CALL(statfs)
DEFINE_CALL(setrep)
DEFINE_CALL(setstorage)
DEFINE_CALL(getstorage)
DEFINE_CALL(extents)
DEFINE_CALL(permit)

/* Ends a call, and adds to its attributes what is not committed yet. */
static int finish(struct client *c, struct meta_call *call, int err, struct slice attr,
                  struct attr *ret)
{
    struct attr a;

    err = call_end_with_attr(call, err, attr, &a);
    if (err == 0) {
        node_overlay(c, &a);
        *ret = a;
    }
    return err;
}

int client_lookup(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                  struct attr *ret)
{
    struct lookup_req q = { .parent = parent, .name = name };
    struct lookup_rep r = { 0 };
    struct meta_call call;
    int err = call_lookup(c, META_QUERY, cr, &call, &q, &r);

    return finish(c, &call, err, r.attr, ret);
}

int client_getattr(struct client *c, const struct cred *cr, uint64_t ino, struct attr *ret)
{
    struct getattr_req q = { .ino = ino };
    struct getattr_rep r = { 0 };
    struct meta_call call;
    int err;

    if (dir_news_get(&c->news, ino, MIN(c->conf->attr_timeout, DIR_NEWS_MS), ret)) {
        atime_overlay(c, ret);
        return DFS_OK;
    }
    err = call_getattr(c, META_QUERY, cr, &call, &q, &r);

    return finish(c, &call, err, r.attr, ret);
}

/* The node follows a change of attributes that this client has made; a then shows what is not
 * committed, too. */
static void node_follow(struct node *n, const struct setattr_req *want, struct attr *a)
{
    pthread_mutex_lock(&n->mu);
    if ((want->valid & SET_SIZE) != 0) {
        extmap_punch(&n->map, want->size, UINT64_MAX);
        extmap_overlay(&n->map, &n->flying); /* what came meanwhile is newer */
        extmap_overlay(&n->map, &n->todo);
        readahead_drop(n, 0, UINT64_MAX);
        if (a->version >= n->attr.version) {
            if (a->data_version > n->attr.data_version + 1) {
                n->stale = true;
                node_foreign_locked(n);
            }
            n->attr.data_version = a->data_version;
        }
    }
    node_learn_attr_locked(n, a);
    node_overlay_locked(n, a);
    pthread_mutex_unlock(&n->mu);
}

int client_setattr(struct client *c, const struct cred *cr, const struct setattr_req *want,
                   struct attr *ret)
{
    uint64_t deadline_ms = client_deadline(c);
    struct node *n = node_find(c, want->ino);
    bool content = n != NULL && (want->valid & (SET_SIZE | SET_MTIME | SET_MTIME_NOW)) != 0;
    struct setattr_rep r = { 0 };
    struct meta_call call;
    struct attr a;
    int err = DFS_OK;

    if ((want->valid & SET_SIZE) != 0 && want->size > (uint64_t)LIMIT_FILE_SIZE) {
        err = DFS_EFBIG;
    } else if (content) {
        /* A commit that came later would undo it. */
        err = writer_flush(n, false, deadline_ms);
    }
    if (err == 0 && content) {
        err = node_io_lock(n, deadline_ms);
        content = err == 0;
    } else {
        content = false;
    }
    if (err == 0 && (want->valid & (SET_ATIME | SET_ATIME_NOW)) != 0) {
        atime_drop(c, want->ino);
    }
    for (bool more = err == 0; more;) { /* with very many extents in steps */
        dir_news_drop(&c->news, want->ino);
        err = call_setattr(c, META_COMMAND, cr, &call, want, &r);
        err = call_end_with_attr(&call, err, r.attr, &a);
        dir_news_drop(&c->news, want->ino);
        more = err == 0 && (want->valid & SET_SIZE) != 0 && a.size > want->size;
        if (err == 0 && n != NULL) {
            node_follow(n, want, &a);
        }
    }
    if (content) {
        pthread_mutex_unlock(&n->io);
    }
    node_put(n);
    if (err == 0) {
        atime_overlay(c, &a);
        *ret = a;
    }
    return err;
}

int client_make(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                uint32_t mode, uint64_t rdev, struct slice target, struct attr *ret)
{
    struct make_req q = { .parent = parent,
                          .name = name,
                          .mode = mode,
                          .rdev = rdev,
                          .target = target,
                          .flags = MAKE_EXCL,
                          .umask = cr->umask };
    struct make_rep r = { 0 };
    struct meta_call call;
    uint64_t before = dir_news_before(&c->news, parent);
    int err = call_make(c, META_COMMAND, cr, &call, &q, &r);

    if (err == 0) {
        dir_news_put(&c->news, before, r.dir);
    }
    return finish(c, &call, err, r.attr, ret);
}

int client_link(struct client *c, const struct cred *cr, uint64_t ino, uint64_t parent,
                struct slice name, struct attr *ret)
{
    struct link_req q = { .ino = ino, .parent = parent, .name = name };
    struct link_rep r = { 0 };
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, parent);
    err = call_link(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, parent);
    return finish(c, &call, err, r.attr, ret);
}

int client_unlink(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                  bool dir)
{
    struct unlink_req q = { .parent = parent, .name = name, .dir = dir };
    struct unlink_rep r;
    struct meta_call call;
    uint64_t before = dir_news_before(&c->news, parent);
    int err = call_unlink(c, META_COMMAND, cr, &call, &q, &r);

    if (err == 0) {
        dir_news_put(&c->news, before, r.dir);
        dir_news_drop(&c->news, r.ino); /* a directory's attributes are no more */
    }
    meta_end(&call);
    return err;
}

int client_rename(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                  uint64_t new_parent, struct slice new_name, uint32_t flags)
{
    struct rename_req q = { .parent = parent,
                            .name = name,
                            .new_parent = new_parent,
                            .new_name = new_name,
                            .flags = flags };
    struct rename_rep r;
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, 0);
    err = call_rename(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, 0);
    meta_end(&call);
    return err;
}

/* A value into the caller's memory; cap 0 only asks for its size. */
static int copy_out(struct slice v, void *p, size_t cap, size_t *ret_len)
{
    if (cap != 0 && v.len > cap) {
        return DFS_ERANGE;
    }
    if (cap != 0 && v.len != 0) {
        memcpy(p, v.p, v.len);
    }
    *ret_len = v.len;
    return DFS_OK;
}

int client_readlink(struct client *c, const struct cred *cr, uint64_t ino, char *p, size_t cap,
                    size_t *ret_len)
{
    struct readlink_req q = { .ino = ino };
    struct readlink_rep r;
    struct meta_call call;
    int err = call_readlink(c, META_QUERY, cr, &call, &q, &r);

    err = err != 0 ? err : copy_out(r.target, p, cap, ret_len);
    meta_end(&call);
    return err;
}

int client_access(struct client *c, const struct cred *cr, uint64_t ino, unsigned want)
{
    struct permit_req q = { .ino = ino, .want = (uint8_t)want };
    struct permit_rep r;
    struct meta_call call;
    int err = call_permit(c, META_QUERY, cr, &call, &q, &r);

    meta_end(&call);
    return err;
}

int client_readdir(struct client *c, const struct cred *cr, uint64_t ino, uint64_t *cookie,
                   bool plus, bool few, client_dir_fn *fn, void *arg, bool *ret_eof)
{
    struct readdir_req q = {
        .ino = ino, .cookie = *cookie, .max_bytes = few ? DIR_BYTES_FEW : DIR_BYTES, .plus = plus
    };
    struct readdir_rep r;
    struct meta_call call;
    uint64_t at = *cookie;
    bool more = true;
    uint32_t i = 0;
    int err = call_readdir(c, META_QUERY, cr, &call, &q, &r);

    if (err == 0) {
        struct wire_in in = wire_in_of(r.entries.items);

        for (; i < r.entries.count && more && err == 0; i++) {
            struct dir_entry e;
            struct attr a = { 0 };

            err = dir_entry_get(&in, &e);
            if (err == 0 && e.attr.len != 0) {
                struct wire_in attr_in = wire_in_of(e.attr);

                err = attr_get(&attr_in, &a);
                node_overlay(c, &a);
            }
            if (err == 0) {
                more = fn(arg, &e, e.attr.len != 0 ? &a : NULL);
                at = more ? e.cookie : at;
            }
        }
    }
    if (err == 0) {
        struct wire_in in = wire_in_of(r.attr);
        struct attr a;

        if (attr_get(&in, &a) == 0) {
            (void)atime_note(c, &a);
        }
        *cookie = at;
        *ret_eof = more && i == r.entries.count && r.eof != 0;
    }
    meta_end(&call);
    return err;
}

int client_getxattr(struct client *c, const struct cred *cr, uint64_t ino, struct slice name,
                    void *p, size_t cap, size_t *ret_len)
{
    struct getxattr_req q = { .ino = ino, .name = name };
    struct getxattr_rep r;
    struct meta_call call;
    int err = call_getxattr(c, META_QUERY, cr, &call, &q, &r);

    err = err != 0 ? err : copy_out(r.value, p, cap, ret_len);
    meta_end(&call);
    return err;
}

int client_listxattr(struct client *c, const struct cred *cr, uint64_t ino, void *p, size_t cap,
                     size_t *ret_len)
{
    struct listxattr_req q = { .ino = ino };
    struct listxattr_rep r;
    struct meta_call call;
    int err = call_listxattr(c, META_QUERY, cr, &call, &q, &r);

    err = err != 0 ? err : copy_out(r.names, p, cap, ret_len);
    meta_end(&call);
    return err;
}

int client_setxattr(struct client *c, const struct cred *cr, uint64_t ino, struct slice name,
                    struct slice value, uint8_t flags)
{
    struct setxattr_req q = { .ino = ino, .name = name, .value = value, .flags = flags };
    struct setxattr_rep r;
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, ino);
    err = call_setxattr(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, ino);
    meta_end(&call);
    return err;
}

int client_removexattr(struct client *c, const struct cred *cr, uint64_t ino, struct slice name)
{
    struct removexattr_req q = { .ino = ino, .name = name };
    struct removexattr_rep r;
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, ino);
    err = call_removexattr(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, ino);
    meta_end(&call);
    return err;
}

int client_statfs(struct client *c, uint64_t ino, struct statfs_rep *ret)
{
    struct statfs_req q = { .ino = ino };
    struct statfs_rep r;
    struct meta_call call;
    int err = call_statfs(c, META_QUERY, NULL, &call, &q, &r);

    meta_end(&call);
    if (err == 0) {
        *ret = r;
    }
    return err;
}

int client_setrep(struct client *c, const struct cred *cr, uint64_t ino, uint8_t repl,
                  struct attr *ret)
{
    struct setrep_req q = { .ino = ino, .repl = repl };
    struct setrep_rep r = { 0 };
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, ino);
    err = call_setrep(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, ino);
    return finish(c, &call, err, r.attr, ret);
}

int client_setstorage(struct client *c, const struct cred *cr, uint64_t ino, struct slice rule,
                      struct attr *ret)
{
    struct setstorage_req q = { .ino = ino, .rule = rule };
    struct setstorage_rep r = { 0 };
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, ino);
    err = call_setstorage(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, ino);
    return finish(c, &call, err, r.attr, ret);
}

int client_getstorage(struct client *c, const struct cred *cr, uint64_t ino, char ret[RULE_TEXT])
{
    struct getstorage_req q = { .ino = ino };
    struct getstorage_rep r = { 0 };
    struct meta_call call;
    int err = call_getstorage(c, META_QUERY, cr, &call, &q, &r);

    if (err == 0) {
        snprintf(ret, RULE_TEXT, "%.*s", (int)r.rule.len, (const char *)r.rule.p);
    }
    meta_end(&call);
    return err;
}

int client_resolve(struct client *c, const struct cred *cr, const char *path, struct attr *ret)
{
    struct attr a;
    int err = client_getattr(c, cr, INODE_ROOT, &a);

    for (const char *p = path; err == 0;) {
        size_t len;

        p += strspn(p, "/");
        len = strcspn(p, "/");
        if (len == 0) {
            break;
        }
        if (!S_ISDIR(a.mode)) {
            err = DFS_ENOTDIR;
        } else if (len > LIMIT_NAME) {
            err = DFS_ENAMETOOLONG;
        } else {
            err = client_lookup(c, cr, a.ino, slice_of(p, len), &a);
        }
        p += len;
    }
    if (err == 0) {
        *ret = a;
    }
    return err;
}

/* One page of extents; *off moves behind it. */
static int each_page(struct client *c, uint64_t ino, uint64_t *off, client_extent_fn *fn, void *arg,
                     bool *ret_more)
{
    struct extents_req q = { .ino = ino, .off = *off, .max = PAGE_EXTENTS };
    struct extents_rep r;
    struct meta_call call;
    bool more = true;
    int err = call_extents(c, META_QUERY, NULL, &call, &q, &r);

    if (err == 0) {
        struct wire_in in = wire_in_of(r.extents.items);

        for (uint32_t i = 0; i < r.extents.count && err == 0 && more; i++) {
            struct wire_in blocks = wire_in_of(r.blocks.items);
            struct block_loc b = { 0 };
            struct extent e;
            bool found = false;

            err = extent_get(&in, &e);
            for (uint32_t k = 0; k < r.blocks.count && err == 0 && !found; k++) {
                err = block_loc_get(&blocks, &b);
                found = b.block == e.block;
            }
            if (err == 0) {
                more = fn(arg, &e, found ? &b : NULL);
                *off = e.off + e.len;
            }
        }
        more = more && r.more != 0 && r.extents.count > 0;
    }
    meta_end(&call);
    *ret_more = more;
    return err;
}

int client_each_extent(struct client *c, uint64_t ino, client_extent_fn *fn, void *arg)
{
    uint64_t off = 0;
    bool more = true;
    int err = DFS_OK;

    while (err == 0 && more) {
        err = each_page(c, ino, &off, fn, arg, &more);
    }
    return err;
}
