/* Names: one key per entry, so that a directory is one range of keys in the order of its hashes. */
#include <sys/stat.h>
#include <xxhash.h>

#include "fs/ns/ns_core.h"

#define KEY_BYTES (16 + LIMIT_NAME)

int ns_name_check(struct slice name)
{
    if (name.len == 0) {
        return DFS_ENOENT;
    }
    if (name.len > LIMIT_NAME) {
        return DFS_ENAMETOOLONG;
    }
    return memchr(name.p, '/', name.len) != NULL || memchr(name.p, '\0', name.len) != NULL
               ? DFS_EINVAL
               : 0;
}

bool ns_name_is_dot(struct slice name)
{
    return name.len == 1 && name.p[0] == '.';
}

bool ns_name_is_dotdot(struct slice name)
{
    return name.len == 2 && name.p[0] == '.' && name.p[1] == '.';
}

uint64_t ns_name_hash(uint64_t parent, struct slice name)
{
    uint64_t h = XXH3_64bits_withSeed(name.p, name.len, parent) >> 1;

    return h != 0 ? h : 1; /* 0 is the cookie of the start */
}

static struct slice make_key(uint8_t buf[KEY_BYTES], uint64_t parent, struct slice name)
{
    ASSERT(name.len <= LIMIT_NAME);
    key_put_u64(buf, parent);
    key_put_u64(buf + 8, ns_name_hash(parent, name));
    memcpy(buf + 16, name.p, name.len);
    return slice_of(buf, 16 + name.len);
}

int ns_dentry_decode(struct slice s, struct ns_dentry *ret)
{
    struct wire_in in = wire_in_of(s);
    struct ns_dentry d = { .ino = wire_get_u64(&in) };

    d.type = wire_get_u32(&in);
    if (in.err != 0 || in.left != 0 || (d.type & ~(uint32_t)S_IFMT) != 0) {
        return DFS_EDAMAGED;
    }
    *ret = d;
    return 0;
}

int ns_dentry_get(const struct ns_view *v, uint64_t parent, struct slice name,
                  struct ns_dentry *ret)
{
    uint8_t key[KEY_BYTES];
    struct slice rec;
    int err = ns_db_get(v, DB_DENTRIES, make_key(key, parent, name), &rec);

    return err != 0 ? err : ns_dentry_decode(rec, ret);
}

static void tell(struct ns_tx *tx, uint64_t parent, struct slice name)
{
    if (tx->ns->ev.entry_changed != NULL) {
        tx->ns->ev.entry_changed(tx->ns->ev.arg, tx->hdr.session, parent, name);
    }
}

int ns_dentry_put(struct ns_tx *tx, uint64_t parent, struct slice name, struct ns_dentry d)
{
    uint8_t key[KEY_BYTES];
    uint8_t rec[NS_DENTRY_BYTES];
    struct wire_out out = wire_out_over(rec, sizeof(rec));

    wire_put_u64(&out, d.ino);
    wire_put_u32(&out, d.type & S_IFMT);
    ASSERT(out.err == 0);
    tell(tx, parent, name);
    return ns_db_put(tx, DB_DENTRIES, make_key(key, parent, name), wire_out_slice(&out));
}

int ns_dentry_del(struct ns_tx *tx, uint64_t parent, struct slice name)
{
    uint8_t key[KEY_BYTES];

    tell(tx, parent, name);
    return ns_must(ns_db_del(tx, DB_DENTRIES, make_key(key, parent, name)));
}

struct emptiness {
    uint64_t ino;
    bool empty;
};

static bool first_entry(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct emptiness *e = arg;

    (void)val;
    if (key.len < 16) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    e->empty = key_get_u64(key.p) != e->ino;
    return false;
}

int ns_dir_is_empty(const struct ns_view *v, uint64_t ino, bool *ret)
{
    struct emptiness e = { .ino = ino, .empty = true };
    struct ns_key8 from = ns_key8(ino);
    int err = ns_db_each(v, DB_DENTRIES, KEY_SLICE(from), first_entry, &e);

    if (err == 0) {
        *ret = e.empty;
    }
    return err;
}
