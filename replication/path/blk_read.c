#include <sys/uio.h>

#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/net/sock_local.h"

#include "replication/path/blk_impl.h"
#include "replication/store/scrub.h"

/* A sequential reader's next bytes are asked for when it enters a group of chunks. */
static void read_ahead(struct blk_conn *c, struct replica *r, const struct replica_range *g)
{
    uint32_t end = g->offset + g->len;
    bool sequential = c->next_block == r->block && c->next_offset == g->offset;
    uint32_t group = end / LAYOUT_GROUP_BYTES;

    if (sequential && g->offset / LAYOUT_GROUP_BYTES != group && end < g->replica_len) {
        replica_prefetch(r, group * LAYOUT_GROUP_BYTES, LAYOUT_GROUP_BYTES);
    }
    c->next_block = r->block;
    c->next_offset = end;
}

static int read_reply(struct blk_conn *c, const struct frame *f, int status,
                      const struct replica_range *g, struct pbuf *b)
{
    struct block_read_rep rep = { .offset = g->offset,
                                  .len = g->len,
                                  .replica_len = g->replica_len };
    struct iovec data[2] = { { NULL, 0 }, { NULL, 0 } };

    if (status == 0) {
        data[0] = (struct iovec){ b->sums, (size_t)g->sum_count * 4 };
        data[1] = (struct iovec){ b->data, g->len };
    }
    wire_out_reset(&c->out);
    block_read_rep_put(&c->out, &rep);
    return blk_reply(c, f, status, data, 2);
}

int blk_read_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct blk_server *s = c->server;
    struct replica_range g = { 0 };
    struct block_read_req req;
    struct replica *r = NULL;
    struct pbuf *b = NULL;
    int err = block_read_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    atomic_fetch_add(&s->readers, 1);
    err = req.len <= PACKET_BYTES ? store_get(s->store, req.block, &r) : DFS_EINVAL;
    if (err == 0) {
        b = buf_pool_get(&s->pool);
        err = replica_read(r, req.offset, req.len, b->data, b->sums, &g);
    }
    if (err == 0) {
        read_ahead(c, r, &g);
        atomic_fetch_add(&s->read_bytes, g.len);
    } else if (r != NULL && scrub_is_damage(err) && err != DFS_EOFFSET) {
        /* Unreadable, cut; or in the index, and its file has gone. */
        store_damaged(s->store, r, err);
    }
    err = read_reply(c, f, err, &g, b);
    buf_pool_put(&s->pool, b);
    store_put(s->store, r);
    atomic_fetch_sub(&s->readers, 1);
    return err;
}

/* Another descriptor than the server's own: it must not be good for writing. */
static int lend(struct blk_conn *c, struct replica *r, int *ret_fd)
{
    int up = conn_fd(c->up);
    int err = FAULT("blk.lend");

    if (err == 0 && !(sock_is_local(up) && sock_is_trusted(up))) {
        err = DFS_EPERM;
    }
    return err != 0 ? err : replica_open_to_read(r, ret_fd);
}

int blk_lend_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct blk_server *s = c->server;
    struct block_lend_rep rep = { 0 };
    struct block_lend_req req;
    struct replica *r = NULL;
    struct rule_replica view;
    struct frame full = *f;
    int fd = -1;
    int err = block_lend_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    err = store_get(s->store, req.block, &r);
    err = err != 0 ? err : lend(c, r, &fd);
    if (err == 0) {
        view = replica_look(r);
        rep.len = view.len;
        rep.state = view.state == RULE_SEALED ? REPLICA_SEALED : REPLICA_OPEN;
    }
    store_put(s->store, r);
    full.flags = FRAME_REPLY;
    full.status = (uint32_t)err;
    wire_out_reset(&c->out);
    block_lend_rep_put(&c->out, &rep);
    err = conn_send_fd(c->up, &full, wire_out_slice(&c->out), fd, clock_mono_ms() + BLK_FRAME_MS);
    io_close(fd);
    return err;
}

int blk_sync_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct block_sync_rep rep = { 0 };
    struct block_sync_req req;
    struct replica *r = NULL;
    int err = block_sync_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    err = store_get(c->server->store, req.block, &r);
    if (err == 0) {
        err = replica_sync(r, req.len);
    }
    rep.len = err == 0 ? req.len : 0;
    store_put(c->server->store, r);
    wire_out_reset(&c->out);
    block_sync_rep_put(&c->out, &rep);
    return blk_reply(c, f, err, NULL, 0);
}

int blk_check_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct blk_server *s = c->server;
    struct block_check_rep rep = { 0 };
    struct block_check_req req;
    int err = block_check_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    err = s->doubt == NULL ? DFS_EUNKNOWNRPC : s->doubt(s->arg, req.block) ? 0 : DFS_EBUSY;
    wire_out_reset(&c->out);
    block_check_rep_put(&c->out, &rep);
    return blk_reply(c, f, err, NULL, 0);
}

static int check(struct blk_conn *c, struct replica *r)
{
    int err = scrub_replica(r, NULL, NULL);

    if (scrub_is_damage(err)) {
        store_damaged(c->server->store, r, err);
    }
    return err == DFS_EAGAIN ? 0 : err;
}

int blk_stat_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct block_stat_rep rep = { 0 };
    struct block_stat_req req;
    struct rule_replica view;
    struct replica *r = NULL;
    int err = block_stat_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    err = store_get(c->server->store, req.block, &r);
    if (err == 0 && req.check != 0) {
        err = check(c, r);
    }
    if (r != NULL) {
        view = replica_look(r);
        rep.len = view.len;
        rep.state = view.state == RULE_SEALED ? REPLICA_SEALED : REPLICA_OPEN;
        rep.volume = slice_str(r->vol->path);
    }
    wire_out_reset(&c->out);
    block_stat_rep_put(&c->out, &rep);
    err = blk_reply(c, f, err, NULL, 0);
    store_put(c->server->store, r);
    return err;
}
