/* Pushing a repair copy: block_write_open with WRITE_COPY, packets with a few in flight, the last one
 * seals and syncs. If anything fails the connection is closed and the target drops what it has.
 * On one machine the target gets the source's file, and takes and compares the bytes itself; when that fails
 * they are sent, which tells whose fault it was. */

#include <fcntl.h>

#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/net/sock.h"
#include "cluster/net/sock_local.h"

#include "replication/path/blk_push.h"
#include "replication/store/scrub.h"

#define CHECK_MS 120000u /* for the target to read what it has */

/* The masters take these for a word about the source. */
static int of_target(int err)
{
    return err == DFS_ECHECKSUM || err == DFS_ENOBLOCK || err == DFS_EOFFSET || err == DFS_EIO
               ? DFS_EAGAIN
               : err;
}

struct push {
    struct blk_server *server;
    const struct blk_copy *ask;
    struct replica *replica;
    int file; /* of the replica, for a target on this machine; -1: none */
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
        err = of_target(blk_push_packet(&p->out, offset, g.len, offset + g.len == p->ask->len));
    }
    *ret_len = g.len;
    return err;
}

/* The target has the file: only says what to take out of it. */
static int push_range(struct push *p, uint32_t offset, uint32_t *ret_len)
{
    uint32_t n = MIN(PACKET_BYTES, p->ask->len - offset);
    int err = p->ask->pace != NULL ? p->ask->pace(p->ask->arg, n) : 0;

    (void)!posix_fadvise(p->file, (off_t)layout_data_at(offset), n, POSIX_FADV_WILLNEED);
    *ret_len = n;
    err = err != 0 ? err : blk_push_packet(&p->out, offset, n, offset + n == p->ask->len);
    return of_target(err);
}

/* Gives the target this server's file, if it can have it. */
static void lend(struct push *p)
{
    struct block_file_req req = { .block = p->ask->block };
    struct frame f = { .type = RPC_block_file, .req_id = ++p->out.id };
    struct slice msg;
    uint64_t deadline_ms = clock_mono_ms() + BLK_PUSH_MS;
    int err = FAULT("blk.copy.lend");

    if (!sock_is_local(conn_fd(p->out.conn)) || err != 0 ||
        replica_open_to_read(p->replica, &p->file) != 0) {
        return;
    }
    wire_out_reset(&p->out.msg);
    block_file_req_put(&p->out.msg, &req);
    err = conn_send_fd(p->out.conn, &f, wire_out_slice(&p->out.msg), p->file, deadline_ms);
    err = err != 0 ? err : conn_recv(p->out.conn, &f, &msg, deadline_ms);
    p->out.by_file = err == 0 && f.status == 0 && f.type == RPC_block_file;
}

static int push_all(struct push *p)
{
    uint32_t done = 0, n = 0;
    int err;

    do {
        err = p->out.by_file ? push_range(p, done, &n) : push_packet(p, done, &n);
        done += n;
    } while (err == 0 && done < p->ask->len);
    return err != 0 ? err : of_target(blk_push_finish(&p->out));
}

/* Makes what the target has durable. */
static int sync_target(struct conn *conn, const struct blk_copy *copy)
{
    struct block_sync_req req = { .block = copy->block, .len = copy->len };
    struct slice msg = SLICE_EMPTY;
    struct wire_out out;
    int err;

    wire_out_init(&out, BLK_MSG_MAX);
    block_sync_req_put(&out, &req);
    err =
        conn_call(conn, RPC_block_sync, wire_out_slice(&out), &msg, clock_mono_ms() + BLK_PUSH_MS);
    wire_out_fini(&out);
    return err;
}

/* DFS_OK when the target has the block as it should be, its bytes compared and on disk: an order may
 * come twice. DFS_EEXIST: what it has is something else. */
static int ask_target(struct blk_server *s, const struct blk_copy *copy)
{
    struct block_stat_req req = { .block = copy->block, .check = 1 };
    struct block_stat_rep rep = { 0 };
    struct conn *conn = NULL;
    struct wire_out out;
    struct slice msg = SLICE_EMPTY;
    int err = conn_open_hello(copy->addr, HELLO_BLOCK, slice_of(s->cluster, sizeof(s->cluster)),
                              clock_mono_ms() + BLK_PUSH_MS, &conn, NULL, NULL);

    wire_out_init(&out, BLK_MSG_MAX);
    block_stat_req_put(&out, &req);
    if (err == 0) {
        err =
            conn_call(conn, RPC_block_stat, wire_out_slice(&out), &msg, clock_mono_ms() + CHECK_MS);
        err = scrub_is_damage(err) && err != DFS_ENOBLOCK ? DFS_EEXIST : err;
    }
    if (err == 0) {
        err = block_stat_rep_get(msg, &rep);
    }
    if (err == 0 && (rep.state != REPLICA_SEALED || rep.len != copy->len)) {
        err = DFS_EEXIST;
    }
    err = err != 0 ? err : sync_target(conn, copy);
    wire_out_fini(&out);
    conn_close(conn);
    return of_target(err);
}

/* may_lend: the target may get the file. *ret_lent: it did. */
static int copy_once(struct blk_server *s, const struct blk_copy *copy, struct replica *r,
                     bool may_lend, bool *ret_lent)
{
    struct block_write_open_req open = { .block = copy->block,
                                         .node = copy->node,
                                         .label = slice_str(copy->label != NULL ? copy->label : ""),
                                         .flags = WRITE_COPY };
    struct push p = { .server = s, .ask = copy, .replica = r, .file = -1 };
    bool done;
    uint32_t bad;
    int err;

    blk_push_init(&p.out, s, copy->block);
    err = of_target(blk_open_down(s, &open, slice_str(copy->addr), clock_mono_ms() + BLK_PUSH_MS,
                                  &p.out.conn, &bad));
    done = err == DFS_EEXIST;
    if (err == 0 && may_lend) {
        lend(&p);
    }
    err = done ? ask_target(s, copy) : err != 0 ? err : push_all(&p);
    *ret_lent = p.out.by_file;
    blk_push_fini(&p.out);
    io_close(p.file);
    return err;
}

int blk_server_copy(struct blk_server *s, const struct blk_copy *copy)
{
    struct replica *r;
    bool lent = false;
    int err = store_get(s->store, copy->block, &r);

    if (err != 0) {
        return err;
    }
    /* The masters have sealed the block; the writer may have gone before it could say so here. */
    err = replica_seal(r, copy->len);
    err = err != 0 ? err : copy_once(s, copy, r, true, &lent);
    if (lent && err == DFS_EAGAIN) {
        err = copy_once(s, copy, r, false, &lent);
    }
    store_put(s->store, r);
    return err;
}
