/* Questions about quotas: what an inode is charged to, what room there is, and whether it adds up. */
#include <sys/stat.h>

#include "fs/ns/query.h"

#define PATH_NAMES 1000000u /* looked at for the paths of one answer */
#define LIST_BYTES (LIMIT_REPLY / 2)

/* ---- paths: names are found by looking through the directories above ---- */

struct name_of {
    uint64_t dir;
    uint64_t ino;
    struct slice name; /* empty: not found */
    uint32_t *names;   /* that may still be looked at */
};

static bool name_of(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct name_of *n = arg;
    struct ns_dentry d;

    *ret_err = key.len <= 16 ? DFS_EDAMAGED : ns_dentry_decode(val, &d);
    if (*ret_err != 0 || key_get_u64(key.p) != n->dir || *n->names == 0) {
        return false;
    }
    --*n->names;
    if (d.ino == n->ino) {
        n->name = slice_of(key.p + 16, key.len - 16);
    }
    return n->name.len == 0;
}

/* The path of a directory, at the end of buf; empty when it was not found among *names names. */
static int dir_path(const struct ns_view *v, uint64_t ino, uint8_t buf[LIMIT_PATH], uint32_t *names,
                    struct slice *ret)
{
    size_t at = LIMIT_PATH;
    struct attr a;
    int err = ns_must(ns_inode_get(v, ino, &a));

    while (err == 0 && a.ino != INODE_ROOT) {
        struct name_of n = { .dir = a.parent, .ino = a.ino, .names = names };
        struct ns_key8 from = ns_key8(a.parent);

        err = ns_db_each(v, DB_DENTRIES, KEY_SLICE(from), name_of, &n);
        if (err != 0 || n.name.len == 0 || n.name.len + 1 > at) {
            *ret = SLICE_EMPTY;
            return err;
        }
        at -= n.name.len;
        memcpy(buf + at, n.name.p, n.name.len);
        buf[--at] = '/';
        err = ns_must(ns_inode_get(v, a.parent, &a));
    }
    if (err == 0 && at == LIMIT_PATH) {
        buf[--at] = '/';
    }
    *ret = slice_of(buf + at, LIMIT_PATH - at);
    return err;
}

static struct quota_info info_of(uint64_t ino, const struct ns_quota *q)
{
    return (struct quota_info){
        .ino = ino,
        .parent = q->parent,
        .limit_bytes = q->limit_bytes,
        .limit_inodes = q->limit_inodes,
        .used_bytes = q->used.bytes,
        .used_inodes = q->used.inodes,
        .state = q->closing             ? QUOTA_CLEARING
                 : q->used.pending != 0 ? QUOTA_COUNTING
                                        : QUOTA_ACTIVE,
    };
}

/* Appends one to r->list. Those of directories that are removed have no path. */
static int put_info(struct ns_reader *r, uint64_t ino, const struct ns_quota *q, uint32_t *names)
{
    struct quota_info info = info_of(ino, q);
    uint8_t buf[LIMIT_PATH];
    struct attr a;
    int err = *names != 0 ? ns_inode_get(&r->v, ino, &a) : DFS_ESTALE;

    if (err == 0 && a.nlink != 0) {
        err = dir_path(&r->v, ino, buf, names, &info.path);
    }
    if (err == 0 || err == DFS_ESTALE) {
        quota_info_put(&r->list, &info);
        err = r->list.err;
    }
    return err;
}

int ns_ask_quota_get(struct ns_reader *r, const struct quota_get_req *req,
                     struct quota_get_rep *rep)
{
    uint32_t names = req->paths != 0 ? PATH_NAMES : 0;
    uint32_t count = 0;
    struct ns_quota q;
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    wire_out_reset(&r->list);
    for (uint64_t ino = err == 0 ? a.quota : 0; err == 0 && ino != 0; ino = q.parent) {
        err = ns_must(ns_quota_get(&r->v, ino, &q));
        err = err != 0 ? err : put_info(r, ino, &q, &names);
        count++;
    }
    rep->quotas = wire_out_list(&r->list, count);
    return err;
}

struct quota_page {
    struct ns_reader *r;
    uint32_t count;
    uint32_t names;
    bool full;
};

static bool add_quota(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct quota_page *p = arg;
    struct ns_quota q;

    *ret_err = key.len != 8 ? DFS_EDAMAGED : ns_quota_decode(val, &q);
    if (*ret_err == 0 && p->r->list.len > LIST_BYTES) {
        p->full = true;
        return false;
    }
    *ret_err = *ret_err != 0 ? *ret_err : put_info(p->r, key_get_u64(key.p), &q, &p->names);
    p->count++;
    return *ret_err == 0;
}

int ns_ask_quota_list(struct ns_reader *r, const struct quota_list_req *req,
                      struct quota_list_rep *rep)
{
    struct quota_page p = { .r = r, .names = PATH_NAMES };
    struct ns_key8 from = ns_key8(req->after + 1);
    int err;

    if (req->after == UINT64_MAX) {
        return DFS_EINVAL;
    }
    wire_out_reset(&r->list);
    err = ns_db_each(&r->v, DB_QUOTAS, KEY_SLICE(from), add_quota, &p);
    rep->quotas = wire_out_list(&r->list, p.count);
    rep->more = p.full;
    return err;
}

/* ---- room ---- */

static uint64_t left(uint64_t limit, uint64_t used)
{
    return used < limit ? limit - used : 0;
}

/* The tightest limit of each kind counts. */
static int narrow(const struct ns_view *v, uint64_t quota, struct ns_space *s)
{
    struct ns_quota q;

    for (; quota != 0; quota = q.parent) {
        int err = ns_must(ns_quota_get(v, quota, &q));

        if (err != 0) {
            return err;
        }
        if (quota == s->quota) {
            s->used_inodes = q.used.inodes;
        }
        if (q.limit_bytes != 0 && left(q.limit_bytes, q.used.bytes) < s->free_bytes) {
            s->free_bytes = left(q.limit_bytes, q.used.bytes);
            s->total_bytes = q.limit_bytes;
        }
        if (q.limit_inodes != 0 && left(q.limit_inodes, q.used.inodes) < s->free_inodes) {
            s->free_inodes = left(q.limit_inodes, q.used.inodes);
            s->total_inodes = q.limit_inodes;
        }
    }
    return 0;
}

int ns_get_space(struct ns_reader *r, uint64_t ino, struct ns_space *ret)
{
    struct ns_space s = { .total_bytes = UINT64_MAX,
                          .free_bytes = UINT64_MAX,
                          .total_inodes = UINT64_MAX,
                          .free_inodes = UINT64_MAX };
    struct attr a;
    int err = ns_reader_look(r);

    if (err != 0) {
        return err;
    }
    err = ns_inode_get(&r->v, ino, &a);
    if (err == 0) {
        s.repl = a.repl;
        s.quota = a.quota;
        err = narrow(&r->v, a.quota, &s);
    }
    ns_reader_end(r);
    if (err == 0) {
        *ret = s;
    }
    return err;
}

uint64_t ns_quota_work(struct ns_reader *r)
{
    uint64_t n = 0;

    if (ns_reader_begin(r) == 0) {
        n = ns_db_count(&r->v, DB_QUOTA_WORK);
        ns_reader_end(r);
    }
    return n;
}

/* ---- recounting ---- */

struct counted {
    uint64_t ino;
    struct ns_quota stored;
    struct ns_use use; /* at first of those that name it, then of all below */
};

struct recount {
    const struct ns_view *v;
    struct counted *all; /* by inode */
    size_t count;
    size_t cap;
};

static struct counted *find(const struct recount *c, uint64_t ino)
{
    size_t lo = 0, hi = c->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (c->all[mid].ino < ino) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < c->count && c->all[lo].ino == ino ? &c->all[lo] : NULL;
}

static bool load_quota(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct recount *c = arg;
    struct counted one = { 0 };

    *ret_err = key.len != 8 ? DFS_EDAMAGED : ns_quota_decode(val, &one.stored);
    if (*ret_err != 0) {
        return false;
    }
    one.ino = key_get_u64(key.p);
    if (c->count == c->cap) {
        c->cap = MAX(c->cap * 2, 64);
        c->all = x_realloc(c->all, c->cap * sizeof(*c->all));
    }
    c->all[c->count++] = one;
    return true;
}

static bool count_inode(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct recount *c = arg;
    struct counted *q;
    struct attr a = { 0 };

    *ret_err = key.len != 8 ? DFS_EDAMAGED : ns_inode_decode(val, key_get_u64(key.p), &a);
    if (*ret_err != 0 || a.quota == 0) {
        return *ret_err == 0;
    }
    q = find(c, a.quota);
    if (q == NULL) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    q->use.bytes += S_ISREG(a.mode) ? a.bytes : 0;
    q->use.inodes++;
    return true;
}

static bool count_work(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct recount *c = arg;
    struct counted *q;
    struct attr a;

    (void)val;
    *ret_err = key.len != 8 ? DFS_EDAMAGED : ns_must(ns_inode_dir(c->v, key_get_u64(key.p), &a));
    if (*ret_err != 0 || a.quota == 0) {
        return *ret_err == 0;
    }
    q = find(c, a.quota);
    *ret_err = q == NULL ? DFS_EDAMAGED : 0;
    if (q != NULL) {
        q->use.pending++;
    }
    return q != NULL;
}

/* What one is charged with directly is charged to all above it. */
static int sum_up(struct recount *c, struct ns_use *sums)
{
    for (size_t i = 0; i < c->count; i++) {
        size_t steps = 0;

        for (struct counted *q = &c->all[i]; q != NULL; q = find(c, q->stored.parent)) {
            sums[q - c->all].bytes += c->all[i].use.bytes;
            sums[q - c->all].inodes += c->all[i].use.inodes;
            sums[q - c->all].pending += c->all[i].use.pending;
            if (++steps > c->count) {
                return DFS_EDAMAGED;
            }
            if (q->stored.parent == 0) {
                break;
            }
        }
    }
    return 0;
}

int ns_quota_recount(struct ns_reader *r, ns_quota_fn *fn, void *arg)
{
    struct recount c = { .v = &r->v };
    struct ns_use *sums;
    bool more = true;
    int err = ns_reader_begin(r);

    if (err != 0) {
        return err;
    }
    err = ns_db_each(&r->v, DB_QUOTAS, SLICE_EMPTY, load_quota, &c);
    err = err != 0 ? err : ns_db_each(&r->v, DB_INODES, SLICE_EMPTY, count_inode, &c);
    err = err != 0 ? err : ns_db_each(&r->v, DB_QUOTA_WORK, SLICE_EMPTY, count_work, &c);
    ns_reader_end(r);
    sums = x_alloc((c.count + 1) * sizeof(*sums));
    err = err != 0 ? err : sum_up(&c, sums);
    for (size_t i = 0; err == 0 && more && i < c.count; i++) {
        struct quota_info info = info_of(c.all[i].ino, &c.all[i].stored);
        bool same = memcmp(&sums[i], &c.all[i].stored.used, sizeof(sums[i])) == 0;

        more = fn(arg, &info, sums[i].bytes, sums[i].inodes, same);
    }
    free(sums);
    free(c.all);
    return err;
}
