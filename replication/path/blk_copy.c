/* Pushing a repair copy: block_write_open with WRITE_COPY, packets with a few in flight, the last one
 * seals and syncs. If anything fails the connection is closed and the target drops what it has. */

#include "replication/path/blk_push.h"

struct push {
    struct blk_server *server;
    const struct blk_copy *ask;
    struct replica *replica;
    struct blk_push out;
};

/* Reads, compares and sends from offset; *ret_len: how much. */
static int push_packet(struct push *p, uint32_t offset, uint32_t *ret_len)
{
    struct replica_range g;
    int err =
        replica_read(p->replica, offset, PACKET_BYTES, p->out.buf->data, p->out.buf->sums, &g);

    if (err == 0) {
        err = rule_check_sums(offset, slice_of(p->out.buf->data, g.len), p->out.buf->sums);
    }
    if (err == DFS_ECHECKSUM || err == DFS_EIO) {
        store_damaged(p->server->store, p->replica, err);
    }
    if (err == 0 && p->ask->pace != NULL) {
        err = p->ask->pace(p->ask->arg, g.len);
    }
    if (err == 0) {
        err = blk_push_packet(&p->out, offset, g.len, offset + g.len == p->ask->len);
    }
    *ret_len = g.len;
    return err;
}

static int push_all(struct push *p)
{
    uint32_t done = 0, n = 0;
    int err;

    do {
        err = push_packet(p, done, &n);
        done += n;
    } while (err == 0 && done < p->ask->len);
    return err != 0 ? err : blk_push_finish(&p->out);
}

/* DFS_OK when the target has the block as it should be: an order may come twice. */
static int ask_target(struct blk_server *s, const struct blk_copy *copy)
{
    struct block_stat_req req = { .block = copy->block };
    struct block_stat_rep rep = { 0 };
    struct conn *conn = NULL;
    struct wire_out out;
    struct slice msg = SLICE_EMPTY;
    int err = conn_open_hello(copy->addr, HELLO_BLOCK, slice_of(s->cluster, sizeof(s->cluster)),
                              clock_mono_ms() + BLK_PUSH_MS, &conn, NULL, NULL);

    wire_out_init(&out, BLK_MSG_MAX);
    block_stat_req_put(&out, &req);
    if (err == 0) {
        err = conn_call(conn, RPC_block_stat, wire_out_slice(&out), &msg,
                        clock_mono_ms() + BLK_PUSH_MS);
    }
    if (err == 0) {
        err = block_stat_rep_get(msg, &rep);
    }
    if (err == 0 && (rep.state != REPLICA_SEALED || rep.len != copy->len)) {
        err = DFS_EEXIST;
    }
    wire_out_fini(&out);
    conn_close(conn);
    return err;
}

int blk_server_copy(struct blk_server *s, const struct blk_copy *copy)
{
    struct block_write_open_req open = { .block = copy->block,
                                         .node = copy->node,
                                         .label = slice_str(copy->label != NULL ? copy->label : ""),
                                         .flags = WRITE_COPY };
    struct push p = { .server = s, .ask = copy };
    bool done = false;
    uint32_t bad;
    int err = store_get(s->store, copy->block, &p.replica);

    if (err != 0) {
        return err;
    }
    blk_push_init(&p.out, s, copy->block);
    /* The masters have sealed the block; the writer may have gone before it could say so here. */
    err = replica_seal(p.replica, copy->len);
    if (err == 0) {
        err = blk_open_down(s, &open, slice_str(copy->addr), clock_mono_ms() + BLK_PUSH_MS,
                            &p.out.conn, &bad);
        done = err == DFS_EEXIST;
        err = done ? ask_target(s, copy) : err;
    }
    if (err == 0 && !done) {
        err = push_all(&p);
    }
    blk_push_fini(&p.out);
    store_put(s->store, p.replica);
    return err;
}
