#include "replication/map/mapdb.h"

#include "cluster/store/key.h"
#include "cluster/store/kv.h"

#define BLOCK_REC_MAX  (40 + 13 * LIMIT_REPLICATION + 10 * BLOCK_RULES)
#define SERVER_REC_MAX (sizeof(struct server_rec) + 16)
#define NODE_KEY_BYTES 12

/* A missing key is a missing block, whatever the database. */
static int map_err(int rc)
{
    return rc == MDB_NOTFOUND ? DFS_ENOBLOCK : kv_err(rc);
}

static MDB_val node_key(uint8_t buf[NODE_KEY_BYTES], uint32_t node, uint64_t block)
{
    key_put_u32(buf, node);
    key_put_u64(buf + 4, block);
    return key_val(buf, NODE_KEY_BYTES);
}

int mapdb_get(const struct mapdb *m, MDB_txn *t, uint64_t block, struct block_rec *ret)
{
    uint8_t buf[8] = { 0 };
    MDB_val key = key_val(buf, sizeof(buf));
    MDB_val val;
    int rc;

    key_put_u64(buf, block);
    rc = mdb_get(t, m->blocks, &key, &val);
    return rc != 0 ? map_err(rc) : block_rec_get(key_slice(val), ret);
}

static int put(const struct mapdb *m, MDB_txn *t, uint64_t block, const struct block_rec *r,
               unsigned flags)
{
    uint8_t buf[8] = { 0 };
    uint8_t rec[BLOCK_REC_MAX];
    struct wire_out out = wire_out_over(rec, sizeof(rec));
    MDB_val key = key_val(buf, sizeof(buf));
    MDB_val val;

    key_put_u64(buf, block);
    block_rec_put(&out, r);
    ASSERT(out.err == 0);
    val = key_val(rec, out.len);
    return map_err(mdb_put(t, m->blocks, &key, &val, flags));
}

int mapdb_put(const struct mapdb *m, MDB_txn *t, uint64_t block, const struct block_rec *r)
{
    return put(m, t, block, r, 0);
}

static void changed(const struct mapdb_events *ev, uint64_t block, const struct block_rec *r)
{
    if (ev != NULL && ev->block_changed != NULL) {
        ev->block_changed(ev->arg, block, r);
    }
}

static int link_node(const struct mapdb *m, MDB_txn *t, uint32_t node, uint64_t block)
{
    uint8_t buf[NODE_KEY_BYTES];
    MDB_val key = node_key(buf, node, block);
    MDB_val val = key_val(NULL, 0);

    return map_err(mdb_put(t, m->node_blocks, &key, &val, 0));
}

static int unlink_node(const struct mapdb *m, MDB_txn *t, uint32_t node, uint64_t block)
{
    uint8_t buf[NODE_KEY_BYTES];
    MDB_val key = node_key(buf, node, block);
    int rc = mdb_del(t, m->node_blocks, &key, NULL);

    return rc == MDB_NOTFOUND ? 0 : map_err(rc);
}

static size_t node_index(const struct block_rec *r, uint32_t node)
{
    size_t i = 0;

    while (i < r->node_count && r->nodes[i] != node) {
        i++;
    }
    return i;
}

/* Takes a server out of the record and of the index; nothing when it is not there. */
static int remove_node(const struct mapdb *m, MDB_txn *t, uint64_t block, struct block_rec *r,
                       uint32_t node)
{
    size_t i = node_index(r, node);

    if (i == r->node_count) {
        return 0;
    }
    r->node_count--;
    memmove(&r->nodes[i], &r->nodes[i + 1], (r->node_count - i) * sizeof(r->nodes[0]));
    return unlink_node(m, t, node, block);
}

int mapdb_alloc(const struct mapdb *m, MDB_txn *t, uint64_t block, uint8_t kind, uint8_t want,
                uint16_t rule, uint64_t session, const uint32_t *nodes, uint8_t node_count,
                int64_t now_ns)
{
    struct block_rec r = { .state = BLOCK_OPEN,
                           .kind = kind,
                           .alloc_want = want,
                           .alloc_rule = rule,
                           .node_count = node_count,
                           .session = session,
                           .changed_ns = now_ns };
    int err;

    ASSERT(node_count <= LIMIT_REPLICATION && want <= LIMIT_REPLICATION);
    memcpy(r.nodes, nodes, node_count * sizeof(r.nodes[0]));
    err = put(m, t, block, &r, MDB_APPEND);
    for (size_t i = 0; err == 0 && i < node_count; i++) {
        err = link_node(m, t, nodes[i], block);
    }
    return err;
}

/* Writes the record back after its state, owner or live bytes changed; a block that nobody can need
 * any more becomes deleted here and nowhere else. */
static int settle(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
                  struct block_rec *r, bool notable, int64_t now_ns)
{
    int err;

    if (r->state == BLOCK_SEALED && r->session == 0 && block_rec_live(r) == 0) {
        uint8_t buf[8] = { 0 };
        uint8_t since[8] = { 0 };
        MDB_val key = key_val(buf, sizeof(buf));
        MDB_val val = key_val(since, sizeof(since));

        key_put_u64(buf, block);
        key_put_u64(since, (uint64_t)now_ns);
        err = map_err(mdb_put(t, m->deleted, &key, &val, 0));
        if (err != 0) {
            return err;
        }
        r->state = BLOCK_DELETED;
        r->changed_ns = now_ns;
        notable = true;
    }
    err = mapdb_put(m, t, block, r);
    if (err == 0 && notable) {
        changed(ev, block, r);
    }
    return err;
}

/* An open block ends at len. */
static void seal(struct block_rec *r, uint32_t len, int64_t now_ns)
{
    r->state = BLOCK_SEALED;
    r->len = len;
    r->changed_ns = now_ns;
}

int mapdb_commit(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
                 uint64_t session, uint32_t len, bool sealing, int64_t now_ns)
{
    struct block_rec r;
    int err = mapdb_get(m, t, block, &r);

    if (err != 0) {
        return err;
    }
    if (r.state == BLOCK_DELETED) {
        return DFS_ENOBLOCK;
    }
    if (r.state == BLOCK_SEALED && (sealing ? len != r.len : len > r.len)) {
        return DFS_ESEALED;
    }
    if (r.state == BLOCK_SEALED && (r.session == 0 || !sealing)) {
        return 0;
    }
    if (r.session != session) {
        return DFS_ESESSION;
    }
    if (!sealing) {
        if (len <= r.len) {
            return 0;
        }
        r.len = len;
        return mapdb_put(m, t, block, &r);
    }
    if (len < r.len) {
        return DFS_EINVAL;
    }
    if (r.state == BLOCK_OPEN) {
        seal(&r, len, now_ns);
    }
    r.session = 0;
    return settle(m, t, ev, block, &r, true, now_ns);
}

/* How many copies would stay without the bad servers. */
static size_t survivors(const struct block_rec *r, const uint32_t *bad, size_t bad_count)
{
    size_t n = r->node_count;

    for (size_t i = 0; i < r->node_count; i++) {
        for (size_t j = 0; j < bad_count; j++) {
            if (bad[j] == r->nodes[i]) {
                n--;
                break;
            }
        }
    }
    return n;
}

int mapdb_seal(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
               uint64_t session, uint32_t len, const uint32_t *bad, size_t bad_count,
               int64_t now_ns)
{
    struct block_rec r;
    int err = mapdb_get(m, t, block, &r);

    if (err != 0) {
        return err;
    }
    if (r.state == BLOCK_DELETED) {
        return DFS_ENOBLOCK;
    }
    if (r.state == BLOCK_SEALED) {
        return len == r.len ? 0 : DFS_ESEALED;
    }
    if (r.session != session) {
        return DFS_ESESSION;
    }
    if (len < r.len) {
        return DFS_EINVAL;
    }
    if (len == 0 || survivors(&r, bad, bad_count) != 0) {
        for (size_t i = 0; err == 0 && i < bad_count; i++) {
            err = remove_node(m, t, block, &r, bad[i]);
        }
    }
    seal(&r, len, now_ns);
    return err != 0 ? err : settle(m, t, ev, block, &r, true, now_ns);
}

int mapdb_seal_orphan(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev,
                      uint64_t block, int64_t now_ns)
{
    struct block_rec r;
    int err = mapdb_get(m, t, block, &r);

    if (err != 0 || r.state == BLOCK_DELETED || (r.state == BLOCK_SEALED && r.session == 0)) {
        return err;
    }
    if (r.state == BLOCK_OPEN) {
        seal(&r, r.len, now_ns);
    }
    r.session = 0;
    return settle(m, t, ev, block, &r, true, now_ns);
}

/* The least of it is lost when there are more rules than places: what goes counts down to zero. */
static void count_rule(struct block_rec *r, uint16_t rule, int64_t delta)
{
    size_t i = 0;

    while (i < r->rule_count && r->rules[i].rule != rule) {
        i++;
    }
    if (i == r->rule_count) {
        if (delta <= 0 || i == BLOCK_RULES) {
            return;
        }
        r->rules[i].rule = rule;
        r->rules[i].live = 0;
        r->rule_count++;
    }
    if (delta < 0 && r->rules[i].live <= (uint64_t)-delta) {
        r->rules[i] = r->rules[--r->rule_count];
    } else {
        r->rules[i].live += (uint64_t)delta;
    }
}

int mapdb_live(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
               uint8_t repl, uint16_t rule, int64_t delta, int64_t now_ns)
{
    struct block_rec r;
    uint16_t rule_was;
    uint8_t want;
    int err = mapdb_get(m, t, block, &r);

    ASSERT(repl >= 1 && repl <= LIMIT_REPLICATION);
    if (err != 0) {
        return err;
    }
    if (r.state == BLOCK_DELETED) {
        return DFS_ENOBLOCK;
    }
    if (delta < 0 && r.live[repl] < (uint64_t)-delta) {
        return DFS_EDAMAGED;
    }
    want = block_rec_want(&r);
    rule_was = block_rec_rule(&r);
    r.live[repl] += (uint64_t)delta;
    if (rule != 0) {
        count_rule(&r, rule, delta);
    }
    return settle(m, t, ev, block, &r, block_rec_want(&r) != want || block_rec_rule(&r) != rule_was,
                  now_ns);
}

int mapdb_replica(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
                  uint32_t node, enum replica_op op)
{
    struct block_rec r;
    bool have;
    int err = mapdb_get(m, t, block, &r);

    if (err != 0) {
        return err;
    }
    have = node_index(&r, node) < r.node_count;
    if (have == (op == REPLICA_ADD)) {
        return 0;
    }
    if (op == REPLICA_ADD) {
        if (r.node_count == LIMIT_REPLICATION) {
            return DFS_ETOOBIG;
        }
        r.nodes[r.node_count++] = node;
        err = link_node(m, t, node, block);
    } else {
        err = remove_node(m, t, block, &r, node);
    }
    err = err != 0 ? err : mapdb_put(m, t, block, &r);
    if (err == 0) {
        changed(ev, block, &r);
    }
    return err;
}

int mapdb_forget(const struct mapdb *m, MDB_txn *t, uint64_t block)
{
    struct block_rec r;
    uint8_t buf[8] = { 0 };
    MDB_val key = key_val(buf, sizeof(buf));
    int err = mapdb_get(m, t, block, &r);

    if (err == 0 && r.state != BLOCK_DELETED) {
        err = DFS_EBUSY;
    }
    for (size_t i = 0; err == 0 && i < r.node_count; i++) {
        err = unlink_node(m, t, r.nodes[i], block);
    }
    key_put_u64(buf, block);
    err = err != 0 ? err : map_err(mdb_del(t, m->deleted, &key, NULL));
    return err != 0 ? err : map_err(mdb_del(t, m->blocks, &key, NULL));
}

int mapdb_server_get(const struct mapdb *m, MDB_txn *t, uint32_t node, struct server_rec *ret)
{
    uint8_t buf[4] = { 0 };
    MDB_val key = key_val(buf, sizeof(buf));
    MDB_val val;
    int rc;

    key_put_u32(buf, node);
    rc = mdb_get(t, m->servers, &key, &val);
    return rc != 0 ? kv_err(rc) : server_rec_get(key_slice(val), ret);
}

struct uuid_search {
    const uint8_t *uuid;
    uint32_t found; /* 0: nowhere */
    uint32_t last;
};

static bool uuid_match(void *arg, uint32_t node, const struct server_rec *r)
{
    struct uuid_search *s = arg;

    s->last = node;
    if (memcmp(r->uuid, s->uuid, sizeof(r->uuid)) == 0) {
        s->found = node;
    }
    return s->found == 0;
}

static int put_server(const struct mapdb *m, MDB_txn *t, uint32_t node, const struct server_rec *r)
{
    uint8_t buf[4] = { 0 };
    uint8_t rec[SERVER_REC_MAX];
    struct wire_out out = wire_out_over(rec, sizeof(rec));
    MDB_val key = key_val(buf, sizeof(buf));
    MDB_val val;

    key_put_u32(buf, node);
    server_rec_put(&out, r);
    ASSERT(out.err == 0);
    val = key_val(rec, out.len);
    return kv_err(mdb_put(t, m->servers, &key, &val, 0));
}

int mapdb_server_put(const struct mapdb *m, MDB_txn *t, uint32_t node, const struct server_rec *r,
                     uint32_t *ret_node)
{
    struct server_rec rec = *r, old;
    int err = 0;

    if (node == 0) {
        struct uuid_search s = { .uuid = r->uuid };

        err = mapdb_each_server(m, t, uuid_match, &s);
        node = s.found != 0 ? s.found : s.last + 1;
    }
    err = err != 0 ? err : mapdb_server_get(m, t, node, &old);
    if (err == 0 && memcmp(old.uuid, r->uuid, sizeof(old.uuid)) != 0) {
        err = DFS_EEXIST;
    }
    if (err != 0 && err != DFS_ENOENT) {
        return err;
    }
    rec.intent = err == 0 ? old.intent : INTENT_NONE;
    rec.maintenance = MAINTENANCE_NONE;
    rec.until_ns = 0;
    if (err == 0 && old.maintenance == MAINTENANCE_ASKED) {
        rec.maintenance = old.maintenance;
        rec.until_ns = old.until_ns;
    }
    err = put_server(m, t, node, &rec);
    if (err == 0) {
        *ret_node = node;
    }
    return err;
}

/* DFS_EBUSY when a record names the server. */
static int holds_nothing(const struct mapdb *m, MDB_txn *t, uint32_t node)
{
    uint8_t buf[NODE_KEY_BYTES];
    MDB_val key = node_key(buf, node, 0);
    MDB_val val;
    MDB_cursor *c;
    int rc = mdb_cursor_open(t, m->node_blocks, &c);

    if (rc != 0) {
        return kv_err(rc);
    }
    rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);
    if (rc == 0 && key.mv_size == NODE_KEY_BYTES && key_get_u32(key.mv_data) == node) {
        rc = EBUSY;
    }
    mdb_cursor_close(c);
    return rc == EBUSY ? DFS_EBUSY : rc == 0 || rc == MDB_NOTFOUND ? 0 : kv_err(rc);
}

int mapdb_server_intend(const struct mapdb *m, MDB_txn *t, uint32_t node, uint8_t fields,
                        const struct server_rec *r)
{
    struct server_rec rec;
    int err = mapdb_server_get(m, t, node, &rec);

    if (err == 0 && (fields & INTENT_FIELD_LEAVING) != 0 && rec.intent == INTENT_NONE) {
        err = DFS_EBUSY;
    }
    if (err == 0 && (fields & INTENT_FIELD_INTENT) != 0) {
        rec.intent = r->intent;
        err = r->intent == INTENT_DECOMMISSIONED ? holds_nothing(m, t, node) : 0;
    }
    if (err == 0 && (fields & INTENT_FIELD_MAINTENANCE) != 0) {
        rec.maintenance = r->maintenance;
        rec.until_ns = r->until_ns;
    }
    return err != 0 ? err : put_server(m, t, node, &rec);
}

/* Walks a database from a key on; fn gets each pair until it returns false or sets *ret_err. */
typedef bool pair_fn(void *arg, struct slice key, struct slice val, int *ret_err);

static int each(MDB_txn *t, MDB_dbi dbi, MDB_val key, pair_fn *fn, void *arg)
{
    MDB_cursor *c;
    MDB_val val;
    int err = 0;
    int rc = mdb_cursor_open(t, dbi, &c);

    if (rc != 0) {
        return kv_err(rc);
    }
    rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);
    while (rc == 0 && fn(arg, key_slice(key), key_slice(val), &err) && err == 0) {
        rc = mdb_cursor_get(c, &key, &val, MDB_NEXT);
    }
    mdb_cursor_close(c);
    return err != 0 ? err : rc == MDB_NOTFOUND ? 0 : kv_err(rc);
}

struct block_walk {
    const struct mapdb *m;
    MDB_txn *t;
    uint32_t node;
    mapdb_block_fn *fn;
    void *arg;
};

static bool walk_block(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct block_walk *w = arg;
    struct block_rec r;

    *ret_err = key.len == 8 ? block_rec_get(val, &r) : DFS_EDAMAGED;
    return *ret_err == 0 && w->fn(w->arg, key_get_u64(key.p), &r);
}

int mapdb_each_block(const struct mapdb *m, MDB_txn *t, uint64_t from, mapdb_block_fn *fn,
                     void *arg)
{
    struct block_walk w = { .fn = fn, .arg = arg };
    uint8_t buf[8] = { 0 };

    key_put_u64(buf, from);
    return each(t, m->blocks, key_val(buf, sizeof(buf)), walk_block, &w);
}

static bool walk_node(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct block_walk *w = arg;
    struct block_rec r;
    uint64_t block;

    (void)val;
    if (key.len != NODE_KEY_BYTES) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    if (key_get_u32(key.p) != w->node) {
        return false;
    }
    block = key_get_u64(key.p + 4);
    *ret_err = mapdb_get(w->m, w->t, block, &r);
    if (*ret_err == DFS_ENOBLOCK) {
        *ret_err = DFS_EDAMAGED; /* the index names what is not there */
    }
    return *ret_err == 0 && w->fn(w->arg, block, &r);
}

int mapdb_each_block_of(const struct mapdb *m, MDB_txn *t, uint32_t node, uint64_t from,
                        mapdb_block_fn *fn, void *arg)
{
    struct block_walk w = { .m = m, .t = t, .node = node, .fn = fn, .arg = arg };
    uint8_t buf[NODE_KEY_BYTES];

    return each(t, m->node_blocks, node_key(buf, node, from), walk_node, &w);
}

struct server_walk {
    mapdb_server_fn *fn;
    void *arg;
};

static bool walk_server(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct server_walk *w = arg;
    struct server_rec r;

    *ret_err = key.len == 4 ? server_rec_get(val, &r) : DFS_EDAMAGED;
    return *ret_err == 0 && w->fn(w->arg, key_get_u32(key.p), &r);
}

int mapdb_each_server(const struct mapdb *m, MDB_txn *t, mapdb_server_fn *fn, void *arg)
{
    struct server_walk w = { .fn = fn, .arg = arg };
    uint8_t buf[4] = { 0 };

    return each(t, m->servers, key_val(buf, sizeof(buf)), walk_server, &w);
}

struct deleted_walk {
    int64_t until_ns;
    mapdb_deleted_fn *fn;
    void *arg;
};

static bool walk_deleted(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct deleted_walk *w = arg;
    int64_t since_ns;

    if (key.len != 8 || val.len != 8) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    since_ns = (int64_t)key_get_u64(val.p);
    return since_ns > w->until_ns || w->fn(w->arg, key_get_u64(key.p), since_ns);
}

int mapdb_each_deleted(const struct mapdb *m, MDB_txn *t, int64_t until_ns, mapdb_deleted_fn *fn,
                       void *arg)
{
    struct deleted_walk w = { .until_ns = until_ns, .fn = fn, .arg = arg };
    uint8_t buf[8] = { 0 };

    return each(t, m->deleted, key_val(buf, sizeof(buf)), walk_deleted, &w);
}
