/* Readers: one view each, begun for every question so that it never pins old pages. */
#include <xxhash.h>

#include "fs/ns/query.h"

struct ns_reader *ns_reader_new(struct ns *ns)
{
    struct ns_reader *r = x_alloc(sizeof(*r));

    r->v.ns = ns;
    wire_out_init(&r->attr, 256);
    wire_out_init(&r->list, LIMIT_REPLY);
    wire_out_init(&r->blocks, LIMIT_REPLY);
    wire_out_init(&r->nodes, LIMIT_REPLICATION * sizeof(struct server_rec));
    return r;
}

void ns_reader_free(struct ns_reader *r)
{
    if (r == NULL) {
        return;
    }
    kv_view_fini(&r->view);
    wire_out_fini(&r->attr);
    wire_out_fini(&r->list);
    wire_out_fini(&r->blocks);
    wire_out_fini(&r->nodes);
    free(r);
}

int ns_reader_begin(struct ns_reader *r)
{
    int err = kv_view_committed(r->v.ns->kv, &r->view);

    r->v.txn = r->view.txn;
    return err;
}

int ns_reader_look(struct ns_reader *r)
{
    int err = kv_view_begin(r->v.ns->kv, &r->view);

    r->v.txn = r->view.txn;
    return err;
}

void ns_reader_end(struct ns_reader *r)
{
    kv_view_end(r->v.ns->kv, &r->view);
    r->v.txn = NULL;
}

struct slice ns_reader_attr(struct ns_reader *r, const struct attr *a)
{
    wire_out_reset(&r->attr);
    attr_put(&r->attr, a);
    return wire_out_slice(&r->attr);
}

#define ASK(name)                                               \
    case RPC_##name: {                                          \
        struct name##_req req;                                  \
        struct name##_rep answer = { 0 };                       \
                                                                \
        err = name##_req_get(msg, &req);                        \
        err = err != 0 ? err : ns_ask_##name(r, &req, &answer); \
        if (err == 0) {                                         \
            name##_rep_put(rep, &answer);                       \
            err = rep->err;                                     \
        }                                                       \
        break;                                                  \
    }

static int answer(struct ns_reader *r, uint16_t type, struct slice msg, struct wire_out *rep)
{
    int err;

    switch (type) {
        ASK(lookup)
        ASK(getattr)
        ASK(readlink)
        ASK(readdir)
        ASK(getxattr)
        ASK(listxattr)
        ASK(permit)
        ASK(open)
        ASK(extents)
        ASK(locate)
        ASK(quota_get)
        ASK(quota_list)
        ASK(getstorage)
    default:
        err = DFS_EUNKNOWNRPC;
    }
    return err;
}

int ns_query(struct ns_reader *r, const struct call_hdr *hdr, uint16_t type, struct slice msg,
             ns_node_state_fn *state, void *arg, struct wire_out *rep)
{
    /* A list of all quotas may take long: of what is committed. */
    int err = type == RPC_quota_list ? ns_reader_begin(r) : ns_reader_look(r);

    if (err == 0 && type == RPC_quota_list && hdr->uid != 0) {
        ns_reader_end(r);
        err = DFS_EPERM;
    }
    if (err == 0) {
        r->who = hdr;
        r->state = state;
        r->state_arg = arg;
        err = answer(r, type, msg, rep);
        ns_reader_end(r);
    }
    return err;
}

bool ns_cluster(struct ns *ns, uint8_t ret[CLUSTER_ID_BYTES])
{
    struct ns_view v = { .ns = ns };
    struct ns_state s = { 0 };

    if (kv_read_begin(ns->kv, &v.txn) != 0) {
        return false;
    }
    if (ns_state_read(&v, &s) == 0 && s.ready) {
        memcpy(ret, s.cluster, CLUSTER_ID_BYTES);
    }
    mdb_txn_abort(v.txn);
    return s.ready;
}

int ns_get_counts(struct ns_reader *r, struct ns_counts *ret)
{
    struct ns_state s;
    int err = ns_reader_begin(r);

    if (err != 0) {
        return err;
    }
    err = ns_state_read(&r->v, &s);
    if (err == 0) {
        *ret = (struct ns_counts){
            .inodes = ns_db_count(&r->v, DB_INODES),
            .file_bytes = s.file_bytes,
            .blocks = ns_db_count(&r->v, DB_BLOCKS) - ns_db_count(&r->v, DB_DELETED),
            .sessions = ns_db_count(&r->v, DB_SESSIONS),
            .orphans = ns_db_count(&r->v, DB_ORPHANS),
            .next_block = s.next_block,
        };
    }
    ns_reader_end(r);
    return err;
}

struct orphan_list {
    uint64_t *ret;
    size_t count;
    size_t max;
};

static bool add_orphan(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct orphan_list *l = arg;

    (void)val;
    if (key.len != 8) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    l->ret[l->count++] = key_get_u64(key.p);
    return l->count < l->max;
}

size_t ns_orphans(struct ns_reader *r, uint64_t after, uint64_t *ret, size_t max)
{
    struct orphan_list l = { .ret = ret, .max = max };
    struct ns_key8 from = ns_key8(after + 1);

    if (max == 0 || after == UINT64_MAX || ns_reader_begin(r) != 0) {
        return 0;
    }
    ns_db_each(&r->v, DB_ORPHANS, KEY_SLICE(from), add_orphan, &l);
    ns_reader_end(r);
    return l.count;
}

struct session_walk {
    ns_session_fn *fn;
    void *arg;
};

static bool walk_session(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct session_walk *w = arg;
    struct wire_in in = wire_in_of(val);
    struct slice host = wire_get_bytes(&in);
    struct slice name = wire_get_bytes(&in);

    if (key.len != 8 || in.err != 0 || in.left != 0) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    return w->fn(w->arg, key_get_u64(key.p), host, name);
}

int ns_each_session(struct ns_reader *r, ns_session_fn *fn, void *arg)
{
    struct session_walk w = { .fn = fn, .arg = arg };
    int err = ns_reader_begin(r);

    if (err == 0) {
        err = ns_db_each(&r->v, DB_SESSIONS, SLICE_EMPTY, walk_session, &w);
        ns_reader_end(r);
    }
    return err;
}

static bool hash_pair(void *arg, struct slice key, struct slice val, int *ret_err)
{
    uint64_t sizes[2] = { key.len, val.len };
    XXH3_state_t *h = arg;

    (void)ret_err;
    XXH3_64bits_update(h, sizes, sizeof(sizes));
    XXH3_64bits_update(h, key.p, key.len);
    if (val.len != 0) {
        XXH3_64bits_update(h, val.p, val.len);
    }
    return true;
}

uint64_t ns_hash(struct ns *ns)
{
    struct ns_view v = { .ns = ns };
    XXH3_state_t *h = XXH3_createState();
    uint64_t sum = 0;

    ASSERT(h != NULL);
    XXH3_64bits_reset(h);
    if (kv_read_begin(ns->kv, &v.txn) == 0) {
        for (int db = 0; db < DB_COUNT; db++) {
            XXH3_64bits_update(h, &db, sizeof(db));
            ns_db_each(&v, (enum ns_db)db, SLICE_EMPTY, hash_pair, h);
        }
        sum = XXH3_64bits_digest(h);
        mdb_txn_abort(v.txn);
    }
    XXH3_freeState(h);
    return sum;
}

struct extent_walk {
    struct ns_reader *r;
    struct ns_place *at;
    size_t left;
    ns_wanted_fn *wanted;
    ns_extent_fn *fn;
    void *arg;
    struct attr file; /* the last one looked up */
};

static bool walk_extent(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct extent_walk *w = arg;
    struct extent e;
    uint64_t ino;
    int err = ns_extent_decode(key, val, &ino, &e);

    if (err == 0 && w->wanted(w->arg, e.block)) {
        if (w->file.ino != ino) {
            err = ns_must(ns_inode_get(&w->r->v, ino, &w->file));
        }
        if (err == 0) {
            w->fn(w->arg, &w->file, &e);
        }
    }
    *ret_err = err;
    *w->at = (struct ns_place){ ino, e.off + e.len };
    w->left--;
    return err == 0 && w->left != 0;
}

int ns_each_extent(struct ns_reader *r, struct ns_place *at, size_t max, ns_wanted_fn *wanted,
                   ns_extent_fn *fn, void *arg, bool *ret_end)
{
    struct extent_walk w = {
        .r = r, .at = at, .left = max, .wanted = wanted, .fn = fn, .arg = arg
    };
    struct ns_key16 from = ns_key16(at->ino, at->off);
    int err = ns_reader_begin(r);

    if (err == 0) {
        err = ns_db_each(&r->v, DB_EXTENTS, KEY_SLICE(from), walk_extent, &w);
        ns_reader_end(r);
    }
    *ret_end = w.left != 0;
    return err;
}
