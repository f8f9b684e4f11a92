/* A state machine with one session, and functions that send it commands and questions:
 * do_<name>(rig, &req, &rep) for every COMMAND and LOG row, ask_<name>(...) for every QUERY row. */
#ifndef DFS_TEST_UNIT_NS_RIG_H
#define DFS_TEST_UNIT_NS_RIG_H

#include <sys/stat.h>

#include "fs/ns/ns.h"

#include "test/unit/tap.h"

#define RIG_MAP        (UINT64_C(1) << 30)
#define RIG_START      (INT64_C(1700000000) * NS_PER_SEC)
#define RIG_BLOCK_SIZE (64u << 20)

struct rig {
    char dir[96];
    uint64_t map_bytes;
    struct ns *ns;
    struct ns_reader *rd;
    uint64_t index;
    struct ns_batch_head head;
    struct call_hdr hdr; /* of the next command; seq counts by itself */
    struct wire_out batch;
    struct wire_out msg;
    struct wire_out choice;
    struct wire_out reply; /* of the last command or question: replies borrow from it */
    int status;
    struct wire_out *log; /* when set: every batch is appended, as wire bytes */
};

static UNUSED const uint8_t rig_cluster[CLUSTER_ID_BYTES] = "cluster of tests";

static void rig_answer(void *arg, uint32_t i, int status, struct slice reply)
{
    struct rig *r = arg;

    (void)i;
    r->status = status;
    wire_out_reset(&r->reply);
    wire_put_raw(&r->reply, reply.p, reply.len);
}

/* An empty batch, a millisecond after the one before. */
static UNUSED void rig_begin(struct rig *r)
{
    r->head.now_ns += NS_PER_MS;
    wire_out_reset(&r->batch);
    ns_batch_begin(&r->batch, &r->head);
}

/* Applies what is in r->batch as the next entry of the log. */
static UNUSED void rig_apply(struct rig *r)
{
    struct why why = { "" };

    if (r->log != NULL) {
        wire_put_bytes(r->log, wire_out_slice(&r->batch));
    }
    if (ns_apply(r->ns, ++r->index, wire_out_slice(&r->batch), rig_answer, r, &why) != 0) {
        printf("# ns_apply: %s\n", why.text);
        exit(1);
    }
}

/* Adds the request in r->msg to the batch. */
static UNUSED void rig_add(struct rig *r, uint16_t type)
{
    struct wire_out hdr;
    struct ns_command cmd = { .type = type,
                              .msg = wire_out_slice(&r->msg),
                              .choice = wire_out_slice(&r->choice) };

    r->hdr.seq++;
    wire_out_init(&hdr, 1024);
    call_hdr_put(&hdr, &r->hdr);
    cmd.hdr = wire_out_slice(&hdr);
    ns_batch_add(&r->batch, &cmd);
    wire_out_fini(&hdr);
}

/* The request in r->msg as a batch of one. */
static UNUSED int rig_send(struct rig *r, uint16_t type)
{
    rig_begin(r);
    rig_add(r, type);
    ns_batch_end(&r->batch, 1);
    rig_apply(r);
    return r->status;
}

#define ARG(type, field)
#define RET(type, field)
#define END(name)
#define REC(name)
#define F(type, field)
#define END_REC(name)
#define RIG_COMMAND(name)                                                                          \
    static UNUSED int do_##name(struct rig *r, const struct name##_req *req,                       \
                                struct name##_rep *rep)                                            \
    {                                                                                              \
        struct name##_rep ignored;                                                                 \
        int err;                                                                                   \
                                                                                                   \
        wire_out_reset(&r->msg);                                                                   \
        name##_req_put(&r->msg, req);                                                              \
        err = rig_send(r, RPC_##name);                                                             \
        return err != 0 ? err                                                                      \
                        : name##_rep_get(wire_out_slice(&r->reply), rep != NULL ? rep : &ignored); \
    }
#define RIG_LOG(name) RIG_COMMAND(name)
#define RIG_QUERY(name)                                                                            \
    static UNUSED int ask_##name(struct rig *r, const struct name##_req *req,                      \
                                 struct name##_rep *rep)                                           \
    {                                                                                              \
        struct name##_rep ignored;                                                                 \
        int err;                                                                                   \
                                                                                                   \
        wire_out_reset(&r->msg);                                                                   \
        wire_out_reset(&r->reply);                                                                 \
        name##_req_put(&r->msg, req);                                                              \
        err =                                                                                      \
            ns_query(r->rd, &r->hdr, RPC_##name, wire_out_slice(&r->msg), NULL, NULL, &r->reply);  \
        return err != 0 ? err                                                                      \
                        : name##_rep_get(wire_out_slice(&r->reply), rep != NULL ? rep : &ignored); \
    }
#define RIG_BLOCK(name)
#define RIG_CONTROL(name)
#define RPC(name, id, kind) RIG_##kind(name)
#include "replication/rpc.def"

#include "fs/rpc.def"
#undef RPC
#undef ARG
#undef RET
#undef END
#undef REC
#undef F
#undef END_REC

static UNUSED void rig_open_dir(struct rig *r)
{
    struct why why = { "" };

    if (ns_open(r->dir, r->map_bytes, &r->ns, &why) != 0) {
        printf("# ns_open: %s\n", why.text);
        exit(1);
    }
    r->rd = ns_reader_new(r->ns);
    r->index = ns_applied(r->ns);
}

static UNUSED void rig_checkpoint(struct rig *r)
{
    struct why why;

    CHECK_INT(kv_checkpoint_begin(ns_kv(r->ns), &why), 0);
    CHECK_INT(kv_checkpoint_sync(ns_kv(r->ns), &why), 0);
    kv_checkpoint_end(ns_kv(r->ns));
}

static UNUSED void rig_close_dir(struct rig *r)
{
    ns_reader_free(r->rd);
    ns_close(r->ns);
    r->rd = NULL;
    r->ns = NULL;
}

/* An empty database in a fresh directory. */
static UNUSED void rig_init(struct rig *r, const char *name)
{
    *r = (struct rig){ .map_bytes = RIG_MAP,
                       .head = { .now_ns = RIG_START,
                                 .repl_default = 2,
                                 .lease_ms = 30000,
                                 .block_size = RIG_BLOCK_SIZE } };
    snprintf(r->dir, sizeof(r->dir), "%s/%s", tap_tmp(), name);
    wire_out_init(&r->batch, LIMIT_BATCH_BYTES);
    wire_out_init(&r->msg, LIMIT_MSG);
    wire_out_init(&r->choice, LIMIT_MSG);
    wire_out_init(&r->reply, LIMIT_MSG);
    rig_open_dir(r);
}

static UNUSED void rig_fini(struct rig *r)
{
    rig_close_dir(r);
    wire_out_fini(&r->batch);
    wire_out_fini(&r->msg);
    wire_out_fini(&r->choice);
    wire_out_fini(&r->reply);
}

static UNUSED uint64_t rig_session(struct rig *r)
{
    struct session_open_rep rep;

    CHECK_INT(do_session_open(r, &(struct session_open_req){ .host = slice_str("here") }, &rep), 0);
    return rep.session;
}

/* Cluster id, three block servers (nodes 1 to 3) and a session. */
static UNUSED void rig_fill(struct rig *r)
{
    CHECK_INT(do_ns_init(r, &(struct ns_init_req){ .cluster = slice_of(rig_cluster, 16) }, NULL),
              0);
    for (uint8_t i = 1; i <= 3; i++) {
        uint8_t uuid[16] = { i };
        char addr[32];
        struct map_server_rep rep;

        snprintf(addr, sizeof(addr), "10.0.0.%u:9700", i);
        CHECK_INT(do_map_server(r,
                                &(struct map_server_req){ .uuid = slice_of(uuid, 16),
                                                          .addr = slice_str(addr),
                                                          .host = slice_str("h") },
                                &rep),
                  0);
        CHECK_INT(rep.node, i);
    }
    r->hdr.session = rig_session(r);
}

static UNUSED void rig_start(struct rig *r, const char *name)
{
    rig_init(r, name);
    rig_fill(r);
}

static UNUSED struct attr rig_attr(struct slice s)
{
    struct wire_in in = wire_in_of(s);
    struct attr a = { 0 };

    CHECK_INT(attr_get(&in, &a), 0);
    return a;
}

/* ---- shorter forms; the result is a status ---- */

static UNUSED int rig_make(struct rig *r, uint64_t parent, const char *name, uint32_t mode,
                           struct attr *ret)
{
    struct make_req req = { .parent = parent,
                            .name = slice_str(name),
                            .mode = mode,
                            .flags = MAKE_EXCL,
                            .target = slice_str(S_ISLNK(mode) ? "target" : "") };
    struct make_rep rep;
    int err = do_make(r, &req, &rep);

    if (err == 0 && ret != NULL) {
        *ret = rig_attr(rep.attr);
    }
    return err;
}

static UNUSED struct attr rig_mkdir(struct rig *r, uint64_t parent, const char *name)
{
    struct attr a = { 0 };

    CHECK_INT(rig_make(r, parent, name, S_IFDIR | 0755, &a), 0);
    return a;
}

static UNUSED struct attr rig_mkfile(struct rig *r, uint64_t parent, const char *name)
{
    struct attr a = { 0 };

    CHECK_INT(rig_make(r, parent, name, S_IFREG | 0644, &a), 0);
    return a;
}

static UNUSED struct attr rig_stat(struct rig *r, uint64_t ino)
{
    struct getattr_rep rep;
    struct attr a = { 0 };
    int err = ask_getattr(r, &(struct getattr_req){ .ino = ino }, &rep);

    CHECK_INT(err, 0);
    return err == 0 ? rig_attr(rep.attr) : a;
}

static UNUSED int rig_lookup(struct rig *r, uint64_t parent, const char *name, struct attr *ret)
{
    struct lookup_rep rep;
    int err =
        ask_lookup(r, &(struct lookup_req){ .parent = parent, .name = slice_str(name) }, &rep);

    if (err == 0 && ret != NULL) {
        *ret = rig_attr(rep.attr);
    }
    return err;
}

static UNUSED int rig_unlink(struct rig *r, uint64_t parent, const char *name, uint8_t dir)
{
    return do_unlink(
        r, &(struct unlink_req){ .parent = parent, .name = slice_str(name), .dir = dir }, NULL);
}

static UNUSED int rig_rename(struct rig *r, uint64_t p, const char *n, uint64_t p2, const char *n2,
                             uint32_t flags)
{
    return do_rename(r,
                     &(struct rename_req){ .parent = p,
                                           .name = slice_str(n),
                                           .new_parent = p2,
                                           .new_name = slice_str(n2),
                                           .flags = flags },
                     NULL);
}

/* What its last close does to an inode without a name. */
static UNUSED void rig_reap(struct rig *r, uint64_t ino)
{
    struct wire_out list;

    wire_out_init(&list, 64);
    ino_ref_put(&list, &(struct ino_ref){ ino });
    CHECK_INT(do_ns_reap(
                  r, &(struct ns_reap_req){ .inodes = wire_out_list(&list, 1), .max_extents = 100 },
                  NULL),
              0);
    wire_out_fini(&list);
}

/* Blocks on nodes 1 and 2; returns the first id. */
static UNUSED uint64_t rig_alloc(struct rig *r, uint32_t count)
{
    struct block_alloc_rep rep;
    struct wire_out nodes, choices;
    struct block_loc loc = { 0 };
    struct wire_in in;
    int err;

    wire_out_init(&nodes, 64);
    wire_out_init(&choices, 4096);
    for (uint32_t i = 1; i <= 2; i++) {
        node_ref_put(&nodes, &(struct node_ref){ .node = i });
    }
    for (uint32_t i = 0; i < count; i++) {
        block_choice_put(&choices, &(struct block_choice){ .nodes = wire_out_list(&nodes, 2) });
    }
    wire_put_list(&r->choice, wire_out_list(&choices, count));
    err = do_block_alloc(
        r, &(struct block_alloc_req){ .want = 2, .kind = BLOCK_STREAM, .count = count }, &rep);
    CHECK_INT(err, 0);
    if (err == 0) {
        CHECK_INT(rep.blocks.count, count);
        in = wire_in_of(rep.blocks.items);
        CHECK_INT(block_loc_get(&in, &loc), 0);
    }
    wire_out_reset(&r->choice);
    wire_out_fini(&nodes);
    wire_out_fini(&choices);
    return loc.block;
}

/* One file, some extents, one block; the file's status, or the command's. */
struct rig_commit {
    uint64_t ino;
    uint64_t size;
    uint8_t flags;
    int64_t mtime;
    const struct extent *extents;
    uint32_t count;
    uint64_t block; /* 0: none */
    uint32_t len;
    uint8_t seal;
};

static UNUSED int rig_commit(struct rig *r, struct rig_commit c, struct attr *ret)
{
    struct commit_rep rep;
    struct commit_result res = { 0 };
    struct wire_out blocks, files, extents;
    struct commit_file f = { .ino = c.ino, .flags = c.flags, .size = c.size, .mtime = c.mtime };
    struct wire_in in;
    int err;

    wire_out_init(&blocks, 64);
    wire_out_init(&extents, LIMIT_MSG);
    wire_out_init(&files, LIMIT_MSG);
    if (c.block != 0) {
        commit_block_put(&blocks, &(struct commit_block){ c.block, c.len, c.seal });
    }
    for (uint32_t i = 0; i < c.count; i++) {
        extent_put(&extents, &c.extents[i]);
    }
    f.extents = wire_out_list(&extents, c.count);
    commit_file_put(&files, &f);
    err = do_commit(r,
                    &(struct commit_req){ .blocks = wire_out_list(&blocks, c.block != 0),
                                          .files = wire_out_list(&files, 1) },
                    &rep);
    if (err == 0) {
        in = wire_in_of(rep.results.items);
        CHECK_INT(commit_result_get(&in, &res), 0);
        CHECK_INT(res.ino, c.ino);
        err = (int)res.status;
        if (err == 0 && ret != NULL) {
            *ret = rig_attr(res.attr);
        }
    }
    wire_out_fini(&blocks);
    wire_out_fini(&extents);
    wire_out_fini(&files);
    return err;
}

static UNUSED struct block_rec rig_block(struct rig *r, uint64_t block)
{
    struct block_rec rec = { 0 };
    MDB_txn *t;

    CHECK_INT(kv_read_begin(ns_kv(r->ns), &t), 0);
    CHECK_INT(mapdb_get(ns_map(r->ns), t, block, &rec), 0);
    mdb_txn_abort(t);
    return rec;
}

struct rig_quota_sum {
    uint32_t count;
    uint32_t wrong;
};

static UNUSED bool rig_quota_counted(void *arg, const struct quota_info *q, uint64_t bytes,
                                     uint64_t inodes, bool same)
{
    struct rig_quota_sum *s = arg;

    s->count++;
    if (!same) {
        printf("# quota %ju: bytes %ju, counted %ju; inodes %ju, counted %ju\n", (uintmax_t)q->ino,
               (uintmax_t)q->used_bytes, (uintmax_t)bytes, (uintmax_t)q->used_inodes,
               (uintmax_t)inodes);
        s->wrong++;
    }
    return true;
}

/* Is what quota directories are charged with the sum over the inodes? Returns how many there are. */
static UNUSED uint32_t rig_quotas_add_up(struct rig *r)
{
    struct rig_quota_sum s = { 0 };

    CHECK_INT(ns_quota_recount(r->rd, rig_quota_counted, &s), 0);
    CHECK_INT(s.wrong, 0);
    return s.count;
}

#endif
