/* Questions about content: extents, and where their blocks are. */
#include "fs/ns/query.h"

/* True when the block was not in the set. */
static bool first_time(struct ns_reader *r, uint64_t block)
{
    size_t i = (block * UINT64_C(0x9e3779b97f4a7c15)) >> 32;

    for (;; i++) {
        uint64_t *slot = &r->seen[i & (NS_BLOCK_SLOTS - 1)];

        if (*slot == block) {
            return false;
        }
        if (*slot == 0) {
            *slot = block;
            return true;
        }
    }
}

static void start(struct ns_reader *r)
{
    wire_out_reset(&r->list);
    wire_out_reset(&r->blocks);
    memset(r->seen, 0, sizeof(r->seen));
}

static int add_block(struct ns_reader *r, uint64_t block)
{
    struct block_loc loc = { .block = block };
    struct block_rec rec;
    uint32_t nodes = 0;
    int err = mapdb_get(&r->v.ns->map, r->v.txn, block, &rec);

    wire_out_reset(&r->nodes);
    err = err != 0 ? err
                   : ns_block_nodes(&r->v, &rec, NULL, r->state, r->state_arg, &r->nodes, &nodes);
    if (err != 0) {
        return err;
    }
    loc.state = rec.state;
    loc.len = rec.len;
    loc.want = block_rec_want(&rec);
    loc.nodes = wire_out_list(&r->nodes, nodes);
    block_loc_put(&r->blocks, &loc);
    return r->blocks.err;
}

struct found {
    uint32_t extents;
    uint32_t blocks;
    bool more;
};

/* Extents from off on, and the blocks they name, as many as may be asked for and fit. */
static int collect(struct ns_reader *r, uint64_t ino, uint64_t off, uint32_t max, MDB_cursor *c,
                   struct found *ret)
{
    struct extent e;
    int err;

    max = MIN(max, LIMIT_COMMIT_EXTENTS);
    while ((err = ns_extent_find(c, ino, off, &e)) == 0) {
        if (ret->extents == max || r->list.len + r->blocks.len > LIMIT_REPLY / 2) {
            ret->more = true;
            return 0;
        }
        if (first_time(r, e.block)) {
            err = ns_must(add_block(r, e.block));
            if (err != 0) {
                return err;
            }
            ret->blocks++;
        }
        extent_put(&r->list, &e);
        ret->extents++;
        off = e.off + e.len;
    }
    return err == DFS_ENOENT ? 0 : err;
}

static int get(struct ns_reader *r, uint64_t ino, unsigned want, uint64_t off, uint32_t max,
               struct slice *ret_attr, struct found *ret)
{
    struct attr a;
    MDB_cursor *c;
    int err = ns_inode_get(&r->v, ino, &a);

    err = err != 0 || want == 0 ? err : ns_may(&r->v, r->who, &a, want);
    if (err != 0) {
        return err;
    }
    start(r);
    *ret_attr = ns_reader_attr(r, &a);
    if (a.bytes != 0) {
        err = kv_err(mdb_cursor_open(r->v.txn, r->v.ns->db[DB_EXTENTS], &c));
        if (err == 0) {
            err = collect(r, ino, off, max, c, ret);
            mdb_cursor_close(c);
        }
    }
    return err;
}

int ns_ask_open(struct ns_reader *r, const struct open_req *req, struct open_rep *rep)
{
    struct found found = { 0 };
    int err = get(r, req->ino, req->access, 0, req->max_extents, &rep->attr, &found);

    rep->extents = wire_out_list(&r->list, found.extents);
    rep->blocks = wire_out_list(&r->blocks, found.blocks);
    rep->more = found.more;
    return err;
}

int ns_ask_extents(struct ns_reader *r, const struct extents_req *req, struct extents_rep *rep)
{
    struct found found = { 0 };
    /* of an open file: not checked again */
    int err = get(r, req->ino, 0, req->off, req->max, &rep->attr, &found);

    rep->extents = wire_out_list(&r->list, found.extents);
    rep->blocks = wire_out_list(&r->blocks, found.blocks);
    rep->more = found.more;
    return err;
}

int ns_ask_locate(struct ns_reader *r, const struct locate_req *req, struct locate_rep *rep)
{
    struct wire_in in = wire_in_of(req->blocks.items);
    uint32_t count = 0;
    int err = 0;

    start(r);
    if (req->blocks.count > LIMIT_COMMIT_EXTENTS) {
        return DFS_ETOOBIG;
    }
    for (uint32_t i = 0; err == 0 && i < req->blocks.count; i++) {
        struct block_ref ref;

        err = block_ref_get(&in, &ref);
        err = err != 0 ? err : add_block(r, ref.block);
        if (err == 0) {
            count++;
        }
        err = err == DFS_ENOBLOCK ? 0 : err;
    }
    rep->blocks = wire_out_list(&r->blocks, count);
    return err;
}
