/* Client sessions: their ids, the replies remembered for them, and what goes when they end. */
#include "fs/ns/ns_core.h"

#define TEXT_MAX 256 /* bytes kept of a session's host and name */

struct slot_key {
    uint8_t b[12];
};

static struct slot_key slot_key(uint64_t session, uint32_t slot)
{
    struct slot_key k;

    key_put_u64(k.b, session);
    key_put_u32(k.b + 8, slot);
    return k;
}

int ns_session_check(const struct ns_view *v, uint64_t session)
{
    struct ns_key8 key = ns_key8(session);
    struct slice rec;
    int err = ns_db_get(v, DB_SESSIONS, KEY_SLICE(key), &rec);

    return err == DFS_ENOENT ? DFS_ESESSION : err;
}

int ns_slot_get(const struct ns_view *v, uint64_t session, uint32_t slot, uint64_t *ret_seq,
                int *ret_status, struct slice *ret_reply)
{
    struct slot_key key = slot_key(session, slot);
    struct slice rec;
    int err = ns_db_get(v, DB_SLOTS, KEY_SLICE(key), &rec);
    struct wire_in in = wire_in_of(rec);
    uint64_t seq;
    uint32_t status;

    if (err != 0) {
        return err;
    }
    seq = wire_get_u64(&in);
    status = wire_get_u32(&in);
    if (in.err != 0) {
        return DFS_EDAMAGED;
    }
    *ret_seq = seq;
    *ret_status = (int)status;
    *ret_reply = slice_of(in.p, in.left);
    return 0;
}

int ns_slot_put(struct ns_tx *tx, uint64_t session, uint32_t slot, uint64_t seq, int status,
                struct slice reply)
{
    struct slot_key k = slot_key(session, slot);
    MDB_val key = key_val(k.b, sizeof(k.b));
    MDB_val val = { .mv_size = 12 + reply.len };
    struct wire_out out;
    int rc = mdb_put(tx->v.txn, tx->ns->db[DB_SLOTS], &key, &val, MDB_RESERVE);

    if (rc != 0) {
        return kv_err(rc);
    }
    out = wire_out_over(val.mv_data, val.mv_size);
    wire_put_u64(&out, seq);
    wire_put_u32(&out, (uint32_t)status);
    wire_put_raw(&out, reply.p, reply.len);
    ASSERT(out.err == 0 && out.len == val.mv_size);
    return 0;
}

int ns_do_session_open(struct ns_tx *tx, const struct session_open_req *req,
                       struct session_open_rep *rep)
{
    struct ns_key8 key = ns_key8(tx->ns->state.next_session);
    uint8_t rec[2 * TEXT_MAX + 16];
    struct wire_out out = wire_out_over(rec, sizeof(rec));
    int err;

    wire_put_bytes(&out, slice_of(req->host.p, MIN(req->host.len, TEXT_MAX)));
    wire_put_bytes(&out, slice_of(req->name.p, MIN(req->name.len, TEXT_MAX)));
    ASSERT(out.err == 0);
    err = ns_db_append(tx, DB_SESSIONS, KEY_SLICE(key), wire_out_slice(&out));
    if (err != 0) {
        return err == DFS_EEXIST ? DFS_EDAMAGED : err;
    }
    rep->session = tx->ns->state.next_session++;
    rep->lease_ms = tx->head->lease_ms;
    rep->block_size = tx->head->block_size;
    rep->cluster = slice_of(tx->ns->state.cluster, CLUSTER_ID_BYTES);
    return 0;
}

static int seal_block(struct ns_tx *tx, struct slice key)
{
    if (key.len != 16) {
        return DFS_EDAMAGED;
    }
    return ns_must(mapdb_seal_orphan(&tx->ns->map, tx->v.txn, &tx->ns->ev.map,
                                     key_get_u64(key.p + 8), tx->head->now_ns));
}

int ns_session_release(struct ns_tx *tx, uint64_t session)
{
    struct ns_key8 key = ns_key8(session);

    return ns_db_del_prefix(tx, DB_SESSION_BLOCKS, KEY_SLICE(key), seal_block);
}

/* Ending a session that is not there is fine: it has ended. */
static int end_session(struct ns_tx *tx, uint64_t session)
{
    struct ns_key8 key = ns_key8(session);
    int err = ns_db_del(tx, DB_SESSIONS, KEY_SLICE(key));

    if (err != 0) {
        return err == DFS_ENOENT ? 0 : err;
    }
    err = ns_session_release(tx, session);
    err = err != 0 ? err : ns_db_del_prefix(tx, DB_SLOTS, KEY_SLICE(key), NULL);
    if (err == 0 && tx->ns->ev.session_ended != NULL) {
        tx->ns->ev.session_ended(tx->ns->ev.arg, session);
    }
    return err;
}

int ns_do_session_close(struct ns_tx *tx, const struct session_close_req *req,
                        struct session_close_rep *rep)
{
    (void)req;
    (void)rep;
    return end_session(tx, tx->hdr.session);
}

int ns_do_session_expire(struct ns_tx *tx, const struct session_expire_req *req,
                         struct session_expire_rep *rep)
{
    struct wire_in in = wire_in_of(req->sessions.items);
    int err = 0;

    (void)rep;
    for (uint32_t i = 0; err == 0 && i < req->sessions.count; i++) {
        struct session_ref ref;

        err = session_ref_get(&in, &ref);
        err = err != 0 ? err : end_session(tx, ref.session);
    }
    return err;
}
