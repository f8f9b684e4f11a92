/* Attributes that are not stored but made: "dfs.*". They are not listed, so that programs that copy
 * attributes leave them alone. Values are text. */
#include <sys/stat.h>

#include "cluster/base/conf.h"

#include "fs/ns/query.h"

#define TEXT_MAX   32
#define BLOCKS_MAX (LIMIT_XATTR_VALUE - 4 * KIB) /* bytes of dfs.blocks; the rest is left out */
#define PREFIX     "dfs."
#define PREFIX_LEN (sizeof(PREFIX) - 1)

/* One attribute. get appends the value to r->list; DFS_ENODATA: this inode has none. set is NULL for
 * those that only tell; an empty value takes the setting away. It goes through the command that sets
 * the same, where the caller's rights are checked. */
struct vattr {
    const char *name;
    int (*get)(struct ns_reader *r, const struct attr *a);
    int (*set)(struct ns_tx *tx, const struct attr *a, struct slice value);
};

bool ns_is_virtual(struct slice name)
{
    return name.len > PREFIX_LEN && memcmp(name.p, PREFIX, PREFIX_LEN) == 0;
}

static int put_text(struct ns_reader *r, const char *text)
{
    wire_put_raw(&r->list, text, strlen(text));
    return r->list.err;
}

/* A number, with a unit of bytes if there is one; nothing is 0. */
static int number_of(struct slice value, uint64_t *ret)
{
    char text[TEXT_MAX];

    if (value.len == 0) {
        *ret = 0;
        return 0;
    }
    if (value.len >= sizeof(text) || memchr(value.p, '\0', value.len) != NULL) {
        return DFS_EINVAL;
    }
    memcpy(text, value.p, value.len);
    text[value.len] = '\0';
    return parse_size(text, ret, NULL) != 0 ? DFS_EINVAL : 0;
}

static int put_number(struct ns_reader *r, uint64_t n)
{
    char text[TEXT_MAX];

    (void)snprintf(text, sizeof(text), "%ju", (uintmax_t)n);
    return put_text(r, text);
}

/* ---- the inode ---- */

static int get_inode(struct ns_reader *r, const struct attr *a)
{
    return put_number(r, a->ino);
}

static int get_replication(struct ns_reader *r, const struct attr *a)
{
    return S_ISREG(a->mode) || S_ISDIR(a->mode) ? put_number(r, a->repl) : DFS_ENODATA;
}

static int set_replication(struct ns_tx *tx, const struct attr *a, struct slice value)
{
    struct setrep_req req = { .ino = a->ino };
    struct setrep_rep rep = { 0 };
    uint64_t copies;
    int err = number_of(value, &copies);

    if (err == 0 && copies > LIMIT_REPLICATION) {
        err = DFS_EINVAL;
    }
    if (err != 0) {
        return err;
    }
    req.repl = (uint8_t)copies;
    return ns_do_setrep(tx, &req, &rep);
}

/* ---- blocks: a line for each extent: offset, length, block, offset in the block, servers ---- */

static int put_servers(struct ns_reader *r, uint64_t block)
{
    struct block_rec rec;
    struct wire_in in;
    uint32_t count = 0;
    int err = ns_must(mapdb_get(&r->v.ns->map, r->v.txn, block, &rec));

    wire_out_reset(&r->nodes);
    err = err != 0 ? err
                   : ns_block_nodes(&r->v, &rec, NULL, r->state, r->state_arg, &r->nodes, &count);
    in = wire_in_of(wire_out_slice(&r->nodes));
    for (uint32_t i = 0; err == 0 && i < count; i++) {
        struct node_addr n;

        err = node_addr_get(&in, &n);
        if (err == 0) {
            err = put_text(r, i == 0 ? " " : ",");
            wire_put_raw(&r->list, n.addr.p, n.addr.len);
        }
    }
    return err != 0 ? err : put_text(r, "\n");
}

static int put_extents(struct ns_reader *r, uint64_t ino, MDB_cursor *c)
{
    char text[4 * TEXT_MAX];
    struct extent e;
    uint64_t off = 0;
    int err;

    while ((err = ns_extent_find(c, ino, off, &e)) == 0) {
        if (r->list.len > BLOCKS_MAX) {
            return put_text(r, "...\n");
        }
        (void)snprintf(text, sizeof(text), "%ju %ju %ju %u", (uintmax_t)e.off, (uintmax_t)e.len,
                       (uintmax_t)e.block, e.block_off);
        err = put_text(r, text);
        err = err != 0 ? err : put_servers(r, e.block);
        if (err != 0) {
            return err;
        }
        off = e.off + e.len;
    }
    return err == DFS_ENOENT ? 0 : err;
}

static int get_blocks(struct ns_reader *r, const struct attr *a)
{
    MDB_cursor *c;
    int err;

    if (!S_ISREG(a->mode) || a->bytes == 0) {
        return S_ISREG(a->mode) ? 0 : DFS_ENODATA;
    }
    err = kv_err(mdb_cursor_open(r->v.txn, r->v.ns->db[DB_EXTENTS], &c));
    if (err == 0) {
        err = put_extents(r, a->ino, c);
        mdb_cursor_close(c);
    }
    return err;
}

/* ---- quotas ---- */

static int get_directory(struct ns_reader *r, const struct attr *a)
{
    return a->quota != 0 ? put_number(r, a->quota) : DFS_ENODATA;
}

static int own_quota(const struct ns_view *v, const struct attr *a, struct ns_quota *ret)
{
    return ns_is_quota_dir(a) ? ns_must(ns_quota_get(v, a->ino, ret)) : DFS_ENODATA;
}

static int get_bytes(struct ns_reader *r, const struct attr *a)
{
    struct ns_quota q;
    int err = own_quota(&r->v, a, &q);

    return err != 0 ? err : put_number(r, q.limit_bytes);
}

static int get_inodes(struct ns_reader *r, const struct attr *a)
{
    struct ns_quota q;
    int err = own_quota(&r->v, a, &q);

    return err != 0 ? err : put_number(r, q.limit_inodes);
}

static int get_used_bytes(struct ns_reader *r, const struct attr *a)
{
    struct ns_quota q;
    int err = own_quota(&r->v, a, &q);

    return err != 0 ? err : put_number(r, q.used.bytes);
}

static int get_used_inodes(struct ns_reader *r, const struct attr *a)
{
    struct ns_quota q;
    int err = own_quota(&r->v, a, &q);

    return err != 0 ? err : put_number(r, q.used.inodes);
}

static int set_limit(struct ns_tx *tx, const struct attr *a, uint32_t which, struct slice value)
{
    struct quota_set_req req = { .ino = a->ino, .valid = which };
    struct quota_set_rep rep = { 0 };
    uint64_t limit;
    int err = number_of(value, &limit);

    if (err != 0) {
        return err;
    }
    req.bytes = req.inodes = limit;
    return ns_do_quota_set(tx, &req, &rep);
}

static int set_bytes(struct ns_tx *tx, const struct attr *a, struct slice value)
{
    return set_limit(tx, a, QUOTA_BYTES, value);
}

static int set_inodes(struct ns_tx *tx, const struct attr *a, struct slice value)
{
    return set_limit(tx, a, QUOTA_INODES, value);
}

/* ---- all of them ---- */

static const struct vattr vattrs[] = {
    { "dfs.inode", get_inode, NULL },
    { "dfs.replication", get_replication, set_replication },
    { "dfs.blocks", get_blocks, NULL },
    { "dfs.quota.bytes", get_bytes, set_bytes },
    { "dfs.quota.inodes", get_inodes, set_inodes },
    { "dfs.quota.used_bytes", get_used_bytes, NULL },
    { "dfs.quota.used_inodes", get_used_inodes, NULL },
    { "dfs.quota.directory", get_directory, NULL },
};

static const struct vattr *find(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(vattrs); i++) {
        if (slice_eq(name, slice_str(vattrs[i].name))) {
            return &vattrs[i];
        }
    }
    return NULL;
}

int ns_vattr_get(struct ns_reader *r, const struct attr *a, struct slice name, struct slice *ret)
{
    const struct vattr *v = find(name);
    int err;

    if (v == NULL) {
        return DFS_ENODATA;
    }
    wire_out_reset(&r->list);
    err = v->get(r, a);
    if (err == 0) {
        *ret = wire_out_slice(&r->list);
    }
    return err;
}

int ns_vattr_set(struct ns_tx *tx, const struct attr *a, struct slice name, struct slice value)
{
    const struct vattr *v = find(name);

    if (v == NULL || v->set == NULL) {
        return v == NULL ? DFS_ENOTSUP : DFS_EPERM;
    }
    return value.len == 0 ? DFS_EINVAL : v->set(tx, a, value);
}

int ns_vattr_remove(struct ns_tx *tx, const struct attr *a, struct slice name)
{
    const struct vattr *v = find(name);

    return v == NULL ? DFS_ENODATA : v->set == NULL ? DFS_EPERM : v->set(tx, a, SLICE_EMPTY);
}
