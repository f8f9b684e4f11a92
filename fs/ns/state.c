/* The one record that belongs to the whole database: ids given, the applied index. Kept in memory,
 * written once a batch. */
#include "fs/ns/ns_core.h"

#define FORMAT      1 /* of all records in the database */
#define STATE_BYTES 64

static const struct slice state_key = { (const uint8_t *)"state", 5 };

void ns_state_encode(struct wire_out *out, const struct ns_state *s)
{
    wire_put_u32(out, FORMAT);
    wire_put_u8(out, s->ready);
    wire_put_raw(out, s->cluster, sizeof(s->cluster));
    wire_put_u64(out, s->applied);
    wire_put_u64(out, s->next_ino);
    wire_put_u64(out, s->next_block);
    wire_put_u64(out, s->next_session);
    wire_put_u64(out, s->file_bytes);
}

int ns_state_decode(struct slice rec, struct ns_state *ret)
{
    struct wire_in in = wire_in_of(rec);
    uint32_t format = wire_get_u32(&in);
    struct ns_state s = { .ready = wire_get_u8(&in) != 0 };
    struct slice cluster = wire_take(&in, sizeof(s.cluster));

    if (in.err == 0 && format > FORMAT) {
        return DFS_EVERSION;
    }
    s.applied = wire_get_u64(&in);
    s.next_ino = wire_get_u64(&in);
    s.next_block = wire_get_u64(&in);
    s.next_session = wire_get_u64(&in);
    s.file_bytes = wire_get_u64(&in);
    if (in.err != 0 || in.left != 0 || format != FORMAT) {
        return DFS_EDAMAGED;
    }
    memcpy(s.cluster, cluster.p, sizeof(s.cluster));
    *ret = s;
    return 0;
}

int ns_state_read(const struct ns_view *v, struct ns_state *ret)
{
    struct slice rec;
    int err = ns_db_get(v, DB_META, state_key, &rec);

    if (err == DFS_ENOENT) {
        *ret = (struct ns_state){ .next_ino = INODE_ROOT + 1, .next_block = 1, .next_session = 1 };
        return 0;
    }
    return err != 0 ? err : ns_state_decode(rec, ret);
}

int ns_state_load(struct ns *ns, struct why *why)
{
    struct ns_view v = { .ns = ns };
    int err = kv_read_begin(ns->kv, &v.txn);

    if (err == 0) {
        err = ns_state_read(&v, &ns->state);
        mdb_txn_abort(v.txn);
    }
    if (err == DFS_EVERSION) {
        return why_set(why, err, "the database was written by a newer version");
    }
    return err != 0 ? why_set(why, err, "state record: %s", err_text(err)) : 0;
}

int ns_state_store(struct ns *ns, MDB_txn *txn)
{
    uint8_t rec[STATE_BYTES];
    struct wire_out out = wire_out_over(rec, sizeof(rec));
    MDB_val key = key_val(state_key.p, state_key.len);
    MDB_val val;

    ns_state_encode(&out, &ns->state);
    ASSERT(out.err == 0);
    val = key_val(rec, out.len);
    return kv_err(mdb_put(txn, ns->db[DB_META], &key, &val, 0));
}
