/* Commands of compaction: bytes that were copied into a new block are looked for there from now on.
 *
 * The new block belongs to NS_COMPACTOR until the switch, which compares each extent with what was
 * copied: bytes that were overwritten, cut off or moved meanwhile are left to what is newer. */
#include "fs/ns/ns_core.h"

int ns_do_compact_begin(struct ns_tx *tx, const struct compact_begin_req *req,
                        struct compact_begin_rep *rep)
{
    struct wire_in in = wire_in_of(req->nodes.items);
    uint64_t block = tx->ns->state.next_block;
    struct ns_key16 key = ns_key16(NS_COMPACTOR, block);
    uint32_t nodes[LIMIT_REPLICATION];
    int err = 0;

    if (req->nodes.count == 0 || req->nodes.count > LIMIT_REPLICATION || req->want == 0 ||
        req->want > LIMIT_REPLICATION) {
        return DFS_EINVAL;
    }
    for (uint32_t i = 0; err == 0 && i < req->nodes.count; i++) {
        struct node_ref ref;
        struct server_rec s;

        err = node_ref_get(&in, &ref);
        err = err != 0 ? err : mapdb_server_get(&tx->ns->map, tx->v.txn, ref.node, &s);
        nodes[i] = ref.node;
    }
    if (err != 0) {
        return err == DFS_ENOENT ? DFS_ENOSERVERS : err;
    }
    err = mapdb_alloc(&tx->ns->map, tx->v.txn, block, BLOCK_PACK, req->want, req->rule,
                      NS_COMPACTOR, nodes, (uint8_t)req->nodes.count, tx->head->now_ns);
    err = err != 0 ? err : ns_db_put(tx, DB_SESSION_BLOCKS, KEY_SLICE(key), SLICE_EMPTY);
    if (err == 0) {
        tx->ns->state.next_block++;
        rep->block = block;
    }
    return err == DFS_EEXIST ? DFS_EDAMAGED : err;
}

/* True when all of the range is where it was copied from. */
static int unchanged(struct ns_tx *tx, const struct attr *f, const struct compact_move *m,
                     bool *ret)
{
    struct extent *e = tx->ns->extents;
    uint64_t end = m->off + m->len, reach = end;
    uint32_t n = 0;
    int err = ns_extent_reach(tx, f, m->off, end, 1, &reach);

    if (err == 0 && reach == end) {
        err = ns_extent_list(tx, f, m->off, end, e, &n);
    }
    *ret = err == 0 && n == 1 && e->off == m->off && e->len == m->len && e->block == m->from &&
           e->block_off == m->from_off;
    return err;
}

static int move_one(struct ns_tx *tx, uint64_t block, uint32_t len, const struct compact_move *m,
                    uint32_t *moved)
{
    struct extent to = { m->off, m->len, block, m->to_off };
    struct attr f;
    bool same = false;
    int err = ns_inode_get(&tx->v, m->ino, &f);

    if (err != 0) {
        return ns_is_fatal(err) ? err : 0; /* the file is gone */
    }
    if (m->len == 0 || m->off > LIMIT_FILE_SIZE || m->to_off > len || m->len > len - m->to_off) {
        return 0;
    }
    err = unchanged(tx, &f, m, &same);
    if (err != 0 || !same) {
        return err;
    }
    err = ns_extent_claim(tx, &f, &to);
    err = err != 0 ? err : ns_extent_insert(tx, &f, &to); /* its bytes come and go: f stays */
    *moved += err == 0;
    return err;
}

int ns_do_compact_switch(struct ns_tx *tx, const struct compact_switch_req *req,
                         struct compact_switch_rep *rep)
{
    const struct mapdb_events *ev = &tx->ns->ev.map;
    struct wire_in in = wire_in_of(req->moves.items);
    int flush;
    int err;

    if (req->moves.count > LIMIT_COMMIT_EXTENTS) {
        return DFS_ETOOBIG;
    }
    for (uint32_t i = 0; i < req->moves.count; i++) {
        struct compact_move m;

        if (compact_move_get(&in, &m) != 0) {
            return DFS_EMALFORMED;
        }
    }
    err = mapdb_commit(&tx->ns->map, tx->v.txn, ev, req->block, NS_COMPACTOR, req->len, false,
                       tx->head->now_ns);
    in = wire_in_of(req->moves.items);
    for (uint32_t i = 0; err == 0 && i < req->moves.count; i++) {
        struct compact_move m;

        err = compact_move_get(&in, &m);
        err = err != 0 ? err : move_one(tx, req->block, req->len, &m, &rep->moved);
    }
    flush = ns_live_flush(tx);
    err = err != 0 ? err : flush;
    err = err != 0 ? err
                   : mapdb_commit(&tx->ns->map, tx->v.txn, ev, req->block, NS_COMPACTOR, req->len,
                                  true, tx->head->now_ns);
    return err != 0 ? err : ns_block_release(tx, NS_COMPACTOR, req->block);
}

int ns_do_compact_drop(struct ns_tx *tx, const struct compact_drop_req *req,
                       struct compact_drop_rep *rep)
{
    struct wire_in in = wire_in_of(req->blocks.items);
    int err = 0;

    (void)rep;
    if (req->blocks.count == 0) {
        return ns_session_release(tx, NS_COMPACTOR);
    }
    for (uint32_t i = 0; err == 0 && i < req->blocks.count; i++) {
        struct ns_key16 key;
        struct block_ref ref;

        err = block_ref_get(&in, &ref);
        key = ns_key16(NS_COMPACTOR, ref.block);
        err = err != 0 ? err : ns_db_del(tx, DB_SESSION_BLOCKS, KEY_SLICE(key));
        err = err != 0 ? err
                       : ns_must(mapdb_seal_orphan(&tx->ns->map, tx->v.txn, &tx->ns->ev.map,
                                                   ref.block, tx->head->now_ns));
        err = err == DFS_ENOENT ? 0 : err; /* switched or dropped before */
    }
    return err;
}
