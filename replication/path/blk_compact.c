/* Making a new block of ranges of old ones: each is read and compared with its sums here, and the
 * new block is written like a client would, to all its servers at once. */
#include "cluster/base/fault.h"

#include "replication/path/blk_push.h"

struct compacting {
    struct blk_server *server;
    const struct blk_compact *ask;
    struct blk_push out;
    struct pbuf *in;
    uint32_t offset; /* in the new block, of the packet that is being filled */
    uint32_t filled;
};

static int flush(struct compacting *c, bool last)
{
    int err = c->ask->pace != NULL ? c->ask->pace(c->ask->arg, c->filled) : 0;

    if (err == 0) {
        rule_make_sums(c->offset, slice_of(c->out.buf->data, c->filled), c->out.buf->sums);
        err = blk_push_packet(&c->out, c->offset, c->filled, last);
    }
    c->offset += c->filled;
    c->filled = 0;
    return err;
}

/* The next bytes of one range, as many as fit into the packet. */
static int take(struct compacting *c, struct replica *r, uint32_t off, uint32_t len,
                uint32_t *ret_taken)
{
    uint32_t n = MIN(len, PACKET_BYTES - c->filled);
    struct replica_range g;
    int err = replica_read(r, off, n, c->in->data, c->in->sums, &g);

    if (err == 0) {
        err = rule_check_sums(g.offset, slice_of(c->in->data, g.len), c->in->sums);
    }
    if (err == DFS_ECHECKSUM || err == DFS_EIO) {
        store_damaged(c->server->store, r, err);
    }
    if (err == 0 && g.offset + g.len < off + n) {
        err = DFS_EOFFSET;
    }
    if (err == 0) {
        memcpy(c->out.buf->data + c->filled, c->in->data + (off - g.offset), n);
        c->filled += n;
        *ret_taken = n;
    }
    return err;
}

static int add_range(struct compacting *c, const struct compact_range *range, bool last)
{
    struct replica *r;
    uint32_t done = 0, n = 0;
    int err = store_get(c->server->store, range->block, &r);

    if (err != 0) {
        return err;
    }
    if (replica_look(r).state != RULE_SEALED) {
        err = DFS_EAGAIN;
    }
    while (err == 0 && done < range->len) {
        err = take(c, r, range->off + done, range->len - done, &n);
        done += n;
        if (err == 0 && c->filled == PACKET_BYTES && !(last && done == range->len)) {
            err = flush(c, false);
        }
    }
    store_put(c->server->store, r);
    return err;
}

static int open_chain(struct compacting *c)
{
    const struct blk_compact *ask = c->ask;
    struct wire_in in = wire_in_of(ask->nodes.items);
    struct block_write_open_req req = { .block = ask->block };
    struct node_addr first;
    uint32_t bad;

    if (ask->nodes.count == 0 || node_addr_get(&in, &first) != 0) {
        return DFS_EMALFORMED;
    }
    req.node = first.node;
    req.label = first.label;
    req.chain =
        (struct wire_list){ .count = ask->nodes.count - 1, .items = slice_of(in.p, in.left) };
    return blk_open_down(c->server, &req, first.addr, clock_mono_ms() + BLK_PUSH_MS, &c->out.conn,
                         &bad);
}

int blk_server_compact(struct blk_server *s, const struct blk_compact *ask, uint32_t *ret_len)
{
    struct compacting c = { .server = s, .ask = ask };
    struct wire_in in = wire_in_of(ask->ranges.items);
    int err;

    blk_push_init(&c.out, s, ask->block);
    c.in = buf_pool_get(&s->pool);
    err = open_chain(&c);
    for (uint32_t i = 0; err == 0 && i < ask->ranges.count; i++) {
        struct compact_range range;

        err = compact_range_get(&in, &range);
        if (err == 0 && (range.len == 0 || range.len > LAYOUT_REPLICA_MAX - c.offset - c.filled)) {
            err = DFS_EMALFORMED;
        }
        err = err != 0 ? err : add_range(&c, &range, i + 1 == ask->ranges.count);
    }
    err = err != 0 ? err : c.filled == 0 ? DFS_EINVAL : FAULT("blk.compact.last");
    err = err != 0 ? err : flush(&c, true);
    err = err != 0 ? err : blk_push_finish(&c.out);
    if (err == 0) {
        *ret_len = c.offset;
    }
    buf_pool_put(&s->pool, c.in);
    blk_push_fini(&c.out);
    return err;
}
