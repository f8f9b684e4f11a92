/* Opening the database, and applying batches.
 *
 * A batch: u8 format, i64 now, u8 default replication, u32 lease, u32 block size, u32 count; then for
 * each command u16 type, bytes header, bytes message, bytes choice.
 */
#include <stdatomic.h>

#include "fs/ns/ns_core.h"

#define BATCH_FORMAT   1
#define BATCH_COUNT_AT 18
#define REPLIES_MAX    (64 * MIB) /* of one batch */
#define BATCH_WEIGHT   KIB        /* bytes that weigh as much as a command */

static const char *const db_names[DB_COUNT] = {
    [DB_META] = "meta",         [DB_INODES] = "inodes",
    [DB_DENTRIES] = "dentries", [DB_EXTENTS] = "extents",
    [DB_SYMLINKS] = "symlinks", [DB_XATTRS] = "xattrs",
    [DB_ORPHANS] = "orphans",   [DB_SESSIONS] = "sessions",
    [DB_SLOTS] = "slots",       [DB_SESSION_BLOCKS] = "session_blocks",
    [DB_BLOCKS] = "blocks",     [DB_NODE_BLOCKS] = "node_blocks",
    [DB_SERVERS] = "servers",   [DB_DELETED] = "deleted",
    [DB_QUOTAS] = "quotas",     [DB_QUOTA_WORK] = "quota_work",
    [DB_RULES] = "rules",       [DB_RECOUNTS] = "recounts",
};

int ns_open(const char *dir, uint64_t map_bytes, struct ns **ret, struct why *why)
{
    struct ns *ns = x_alloc(sizeof(*ns));
    int err = kv_open(dir, map_bytes, db_names, DB_COUNT, &ns->kv, why);

    if (err == 0) {
        for (size_t i = 0; i < DB_COUNT; i++) {
            ns->db[i] = kv_dbi(ns->kv, i);
        }
        ns->map = (struct mapdb){ .blocks = ns->db[DB_BLOCKS],
                                  .node_blocks = ns->db[DB_NODE_BLOCKS],
                                  .servers = ns->db[DB_SERVERS],
                                  .deleted = ns->db[DB_DELETED] };
        err = ns_state_load(ns, why);
        if (err != 0) {
            why_prefix(why, "%s", dir);
        }
    }
    if (err != 0) {
        ns_close(ns);
        return err;
    }
    atomic_store(&ns->applied, ns->state.applied);
    wire_out_init(&ns->replies, REPLIES_MAX);
    wire_out_init(&ns->list, LIMIT_REPLY);
    wire_out_init(&ns->attr, 256);
    wire_out_init(&ns->dir_attr, 256);
    ns->answers = x_alloc(LIMIT_BATCH_COMMANDS * sizeof(*ns->answers));
    ns->extents = x_alloc(LIMIT_COMMIT_EXTENTS * sizeof(*ns->extents));
    *ret = ns;
    return 0;
}

void ns_close(struct ns *ns)
{
    if (ns == NULL) {
        return;
    }
    kv_close(ns->kv);
    wire_out_fini(&ns->replies);
    wire_out_fini(&ns->list);
    wire_out_fini(&ns->attr);
    wire_out_fini(&ns->dir_attr);
    free(ns->answers);
    free(ns->extents);
    free(ns);
}

struct kv *ns_kv(struct ns *ns)
{
    return ns->kv;
}

const struct mapdb *ns_map(const struct ns *ns)
{
    return &ns->map;
}

uint64_t ns_applied(const struct ns *ns)
{
    return atomic_load(&ns->applied);
}

void ns_set_events(struct ns *ns, const struct ns_events *ev)
{
    ns->ev = *ev;
}

void ns_batch_begin(struct wire_out *out, const struct ns_batch_head *head)
{
    ASSERT(out->len == 0);
    wire_put_u8(out, BATCH_FORMAT);
    wire_put_i64(out, head->now_ns);
    wire_put_u8(out, head->repl_default);
    wire_put_u32(out, head->lease_ms);
    wire_put_u32(out, head->block_size);
    wire_put_u32(out, head->count);
}

void ns_batch_add(struct wire_out *out, const struct ns_command *cmd)
{
    wire_put_u16(out, cmd->type);
    wire_put_bytes(out, cmd->hdr);
    wire_put_bytes(out, cmd->msg);
    wire_put_bytes(out, cmd->choice);
}

void ns_batch_end(struct wire_out *out, uint32_t count)
{
    if (out->err == 0) {
        struct wire_out at = wire_out_over(out->p + BATCH_COUNT_AT, 4);

        wire_put_u32(&at, count);
    }
}

static int get_head(struct wire_in *in, struct ns_batch_head *ret)
{
    uint8_t format = wire_get_u8(in);

    ret->now_ns = wire_get_i64(in);
    ret->repl_default = wire_get_u8(in);
    ret->lease_ms = wire_get_u32(in);
    ret->block_size = wire_get_u32(in);
    ret->count = wire_get_u32(in);
    if (in->err != 0 || format != BATCH_FORMAT || ret->count > LIMIT_BATCH_COMMANDS ||
        ret->repl_default == 0 || ret->repl_default > LIMIT_REPLICATION) {
        return DFS_EMALFORMED;
    }
    return 0;
}

static int get_command(struct wire_in *in, struct ns_command *ret)
{
    ret->type = wire_get_u16(in);
    ret->hdr = wire_get_bytes(in);
    ret->msg = wire_get_bytes(in);
    ret->choice = wire_get_bytes(in);
    return in->err;
}

int ns_do_ns_init(struct ns_tx *tx, const struct ns_init_req *req, struct ns_init_rep *rep)
{
    struct ns_state *s = &tx->ns->state;
    struct attr root = { .ino = INODE_ROOT,
                         .mode = 0040755,
                         .nlink = 2,
                         .atime = tx->head->now_ns,
                         .mtime = tx->head->now_ns,
                         .ctime = tx->head->now_ns,
                         .version = 1,
                         .data_version = 1,
                         .parent = INODE_ROOT };

    (void)rep;
    if (req->cluster.len != sizeof(s->cluster)) {
        return DFS_EINVAL;
    }
    if (s->ready) {
        return memcmp(s->cluster, req->cluster.p, sizeof(s->cluster)) == 0 ? 0 : DFS_EEXIST;
    }
    memcpy(s->cluster, req->cluster.p, sizeof(s->cluster));
    s->ready = true;
    return ns_inode_add(tx, &root);
}

/* What was written to out from start on. */
static struct slice behind(const struct wire_out *out, size_t start)
{
    return out->len > start ? slice_of(out->p + start, out->len - start) : SLICE_EMPTY;
}

/* The command runs, and its reply is remembered in the caller's slot. */
static int run_once(struct ns_tx *tx, const struct ns_command *cmd, struct wire_out *out)
{
    const struct call_hdr *hdr = &tx->hdr;
    size_t start = out->len;
    struct slice reply;
    uint64_t seq = 0;
    int status = 0;
    int err = ns_session_check(&tx->v, hdr->session);

    if (err == 0 && hdr->slot >= LIMIT_SLOTS) {
        err = DFS_EINVAL;
    }
    if (err != 0) {
        return err;
    }
    err = ns_slot_get(&tx->v, hdr->session, hdr->slot, &seq, &status, &reply);
    if (err == 0 && hdr->seq == seq) {
        wire_put_raw(out, reply.p, reply.len);
        return status;
    }
    if (err == 0 && hdr->seq < seq) {
        return DFS_EREPLAYED;
    }
    if (err != 0 && err != DFS_ENOENT) {
        return err;
    }
    status = tx->choice.len != 0 && cmd->type != RPC_block_alloc
                 ? DFS_ENOROOM
                 : ns_dispatch(tx, cmd->type, cmd->msg, out);
    if (ns_is_fatal(status)) {
        return status;
    }
    if (status != 0 || out->err != 0) {
        status = status != 0 ? status : DFS_ETOOBIG;
        out->len = start;
        out->err = 0;
    }
    err = ns_slot_put(tx, hdr->session, hdr->slot, hdr->seq, status, behind(out, start));
    return err != 0 ? err : status;
}

static int run(struct ns_tx *tx, const struct ns_command *cmd, struct wire_out *out)
{
    struct wire_in in = wire_in_of(cmd->hdr);
    enum ns_kind kind = ns_kind(cmd->type);

    if (kind == NS_KIND_NONE) {
        return DFS_EUNKNOWNRPC;
    }
    if (!tx->ns->state.ready && cmd->type != RPC_ns_init) {
        return DFS_EAGAIN;
    }
    if (kind == NS_KIND_COMMAND && call_hdr_get(&in, &tx->hdr) != 0) {
        return DFS_EMALFORMED;
    }
    /* opening has no slot yet, closing none any more: both may be repeated */
    if (kind == NS_KIND_LOG || cmd->type == RPC_session_open || cmd->type == RPC_session_close) {
        return ns_dispatch(tx, cmd->type, cmd->msg, out);
    }
    return run_once(tx, cmd, out);
}

/* *ret_own: commands of the leader itself are among them. */
static int apply_all(struct ns *ns, MDB_txn *txn, const struct ns_batch_head *head,
                     struct wire_in *in, bool *ret_own)
{
    struct wire_out *out = &ns->replies;

    wire_out_reset(out);
    for (uint32_t i = 0; i < head->count; i++) {
        struct ns_tx tx = { .v = { .ns = ns, .txn = txn }, .ns = ns, .head = head };
        struct ns_answer *a = &ns->answers[i];
        struct ns_command cmd;
        int err = get_command(in, &cmd);

        if (err != 0) {
            return err;
        }
        *ret_own = *ret_own || ns_kind(cmd.type) == NS_KIND_LOG;
        a->off = out->len;
        tx.choice = cmd.choice;
        a->status = run(&tx, &cmd, out);
        if (ns_is_fatal(a->status)) {
            return a->status;
        }
        if (out->err != 0) {
            a->status = a->status != 0 ? a->status : DFS_ETOOBIG;
            out->err = 0;
            out->len = a->off;
        }
        a->len = out->len - a->off;
    }
    return 0;
}

void ns_keep(struct ns *ns, size_t commands)
{
    ns->keep_max = commands;
}

static int failed(uint64_t index, int err, struct why *why)
{
    return why_set(why, err, "metadata database: entry %ju: %s%s", (uintmax_t)index, err_text(err),
                   err == DFS_ENOSPC ? " (its disk is full, or metadata.max is reached)"
                   : err == DFS_EIO  ? " (or its disk is full)" /* LMDB's word for half a write */
                                     : "");
}

int ns_flush(struct ns *ns, struct why *why)
{
    int err = kv_flush(ns->kv);

    ns->kept = 0;
    return err != 0 ? failed(ns->state.applied, err, why) : 0;
}

/* Ends the write of a batch. The leader's own commands are committed: whoever waits for one reads what is
 * committed. */
static int end_write(struct ns *ns, size_t weight, bool own)
{
    if (own || ns->kept + weight > ns->keep_max) {
        ns->kept = 0;
        return kv_commit(ns->kv);
    }
    ns->kept += weight;
    kv_keep(ns->kv);
    return 0;
}

int ns_apply(struct ns *ns, uint64_t index, struct slice batch, ns_reply_fn *fn, void *arg,
             struct why *why)
{
    struct wire_in in = wire_in_of(batch);
    struct ns_state before = ns->state;
    struct ns_batch_head head;
    MDB_txn *txn = NULL;
    bool own = false;
    size_t weight;
    int err;

    if (index <= before.applied) {
        return 0;
    }
    err = get_head(&in, &head);
    weight = err == 0 ? MAX(head.count, batch.len / BATCH_WEIGHT) : 0;
    if (err == 0 && weight > ns->keep_max) {
        err = kv_flush(ns->kv); /* a large one: questions are answered beside it */
    }
    err = err != 0 ? err : kv_write_begin(ns->kv, &txn);
    if (err == 0) {
        err = apply_all(ns, txn, &head, &in, &own);
        ns->state.applied = index;
        err = err != 0 ? err : ns_state_store(ns, txn);
        if (err == 0) {
            err = end_write(ns, weight, own);
        } else {
            kv_abort(ns->kv);
        }
    }
    if (err != 0) {
        ns->state = before;
        return failed(index, err, why);
    }
    atomic_store(&ns->applied, index);
    for (uint32_t i = 0; fn != NULL && i < head.count; i++) {
        const struct ns_answer *a = &ns->answers[i];

        fn(arg, i, a->status, a->len != 0 ? slice_of(ns->replies.p + a->off, a->len) : SLICE_EMPTY);
    }
    return 0;
}
