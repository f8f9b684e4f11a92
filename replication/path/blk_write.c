/* A chain write. The happy path, on each server:
 *   block_write_open   begin the replica, open the stream on the next server, answer
 *   block_packet       receive, pass on, compare the sums, write, sync if asked to; the answer goes
 *                      to the front when the one from behind has come (at the end: at once)
 *   WRITE_LAST         seals; when it is answered the stream is over
 *   block_file         before the packets of a copy whose source is on this machine: they are taken out
 *                      of its file
 *
 * What goes wrong ends the stream: the oldest unanswered packet is answered with a status and the
 * server that failed, and the connection is closed.
 *   the packet is damaged, the disk full or broken   this server
 *   the next server cannot be reached, goes away,
 *   or is silent for too long                        the next server
 *   the next server answers with a failure           whom that answer names
 *   the front goes away                              nobody is told; the replica keeps its length
 *
 * One thread serves both sockets. It never waits for room in a socket while the other end waits for
 * it: answers are small and bounded by the window, so they always fit into the socket's buffer, and
 * a packet is passed on only to a server that reads until it has taken it.
 */
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cluster/base/addr.h"
#include "cluster/base/daemon.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/base/metrics.h"
#include "cluster/net/sock.h"
#include "cluster/net/sock_local.h"

#include "replication/path/blk_impl.h"

/* ---- answers to the front ---- */

static int answer_packet(struct blk_conn *c, uint64_t req_id, int status, uint32_t offset,
                         uint32_t bad)
{
    struct block_packet_rep rep = { .offset = offset, .bad_node = bad };
    struct frame req = { .type = RPC_block_packet, .req_id = req_id };

    wire_out_reset(&c->out);
    block_packet_rep_put(&c->out, &rep);
    return blk_reply(c, &req, status, NULL, 0);
}

/* The stream is over: tells the front why and closes the connection. */
static int fail_packet(struct blk_conn *c, uint64_t req_id, int status, uint32_t bad)
{
    const struct window_entry *oldest = window_oldest(&c->write.window);

    log_event(LOG_WARN, "block.write_failed", "block=%" PRIu64 " bad_node=%" PRIu32 " err=\"%s\"",
              c->write.replica != NULL ? c->write.replica->block : 0, bad, err_text(status));
    (void)!answer_packet(c, oldest != NULL ? oldest->req_id : req_id, status, 0, bad);
    return status;
}

static int answer_open(struct blk_conn *c, const struct frame *f, int status, uint32_t offset,
                       uint32_t bad)
{
    struct block_write_open_rep rep = { .offset = offset, .bad_node = bad };
    int err;

    wire_out_reset(&c->out);
    block_write_open_rep_put(&c->out, &rep);
    err = blk_reply(c, f, status, NULL, 0);
    return status != 0 ? status : err;
}

/* ---- beginning and ending ---- */

void blk_write_end(struct blk_conn *c)
{
    struct blk_write *w = &c->write;

    if (w->replica == NULL) {
        return;
    }
    if (w->file > 0) {
        close(w->file);
    }
    pthread_mutex_lock(&c->server->mu);
    c->down_fd = -1;
    pthread_mutex_unlock(&c->server->mu);
    conn_close(w->down);
    store_write_end(c->server->store, w->replica);
    memset(w, 0, sizeof(*w));
    atomic_fetch_sub(&c->server->writers, 1);
}

int blk_open_down(struct blk_server *s, const struct block_write_open_req *req, struct slice addr,
                  uint64_t deadline_ms, struct conn **ret, uint32_t *ret_bad)
{
    struct block_write_open_rep rep = { 0 };
    char text[ADDR_TEXT];
    struct conn *conn = NULL;
    struct wire_out out;
    struct slice got = SLICE_EMPTY;
    uint32_t node = 0;
    int err = DFS_EINVAL;

    wire_out_init(&out, BLK_MSG_MAX);
    *ret_bad = req->node;
    if (addr.len >= sizeof(text)) {
        goto out;
    }
    memcpy(text, addr.p, addr.len);
    text[addr.len] = '\0';
    err = conn_open_hello(text, HELLO_BLOCK, slice_of(s->cluster, sizeof(s->cluster)), deadline_ms,
                          &conn, &node, NULL);
    if (err == 0 && node != req->node) {
        err = DFS_ECONN; /* another server has taken the address over */
    }
    if (err != 0) {
        goto out;
    }
    block_write_open_req_put(&out, req);
    err = out.err != 0
              ? out.err
              : conn_call(conn, RPC_block_write_open, wire_out_slice(&out), &got, deadline_ms);
    if (err != 0 && block_write_open_rep_get(got, &rep) == 0 && rep.bad_node != 0) {
        *ret_bad = rep.bad_node;
    }
out:
    wire_out_fini(&out);
    if (err != 0) {
        conn_close(conn);
        return err;
    }
    *ret_bad = 0;
    *ret = conn;
    return 0;
}

/* Opens the chain behind this server. */
static int open_chain(struct blk_conn *c, const struct block_write_open_req *req, uint32_t *ret_bad)
{
    struct blk_server *s = c->server;
    struct wire_in in = wire_in_of(req->chain.items);
    struct block_write_open_req next = *req;
    struct node_addr to;
    int err = node_addr_get(&in, &to);

    if (err != 0) {
        *ret_bad = s->node;
        return err;
    }
    next.node = to.node;
    next.label = to.label;
    next.chain.count = req->chain.count - 1;
    next.chain.items = slice_of(in.p, in.left);
    err = blk_open_down(s, &next, to.addr, clock_mono_ms() + blk_patience_ms(s, req->chain.count),
                        &c->write.down, ret_bad);
    if (err != 0) {
        return err;
    }
    c->write.down_node = to.node;
    pthread_mutex_lock(&s->mu);
    c->down_fd = conn_fd(c->write.down);
    err = s->stopping ? DFS_ESHUTDOWN : 0;
    pthread_mutex_unlock(&s->mu);
    *ret_bad = s->node;
    return err;
}

/* The masters may count this server as dead by now, and copy its blocks elsewhere. */
static int check_fence(const struct blk_server *s)
{
    return clock_mono_ms() >= atomic_load(&s->fence_ms) ? DFS_EFENCED : 0;
}

static int may_open(const struct blk_server *s, const struct block_write_open_req *req)
{
    int err = check_fence(s);

    if (req->node != s->node || req->chain.count > LIMIT_CHAIN) {
        return DFS_EINVAL;
    }
    return err != 0 ? err : FAULT("blk.write_open");
}

int blk_write_open_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct blk_server *s = c->server;
    struct block_write_open_req req;
    uint32_t bad = s->node;
    int err = block_write_open_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    blk_write_end(c);
    err = may_open(s, &req);
    if (err == 0 && (req.flags & WRITE_COPY) != 0) {
        daemon_background_thread(); /* the connection is for this copy alone */
    }
    if (err == 0) {
        err = store_write_begin(s->store, req.block, req.offset, req.flags, req.label,
                                &c->write.replica);
    }
    if (err != 0) {
        return answer_open(c, f, err, 0, bad);
    }
    if ((req.flags & WRITE_COPY) != 0 && sock_is_local(conn_fd(c->up))) {
        conn_expect_fd(c->up);
    }
    atomic_fetch_add(&s->writers, 1);
    c->write.behind = req.chain.count;
    if (req.chain.count != 0) {
        err = open_chain(c, &req, &bad);
    }
    return answer_open(c, f, err, err == 0 ? req.offset : 0, err == 0 ? 0 : bad);
}

int blk_file_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct block_file_rep rep = { 0 };
    struct block_file_req req;
    struct stat st;
    int fd = conn_take_fd(c->up);
    int err = block_file_req_get(msg, &req);

    if (err == 0 && (c->write.replica == NULL || c->write.replica->block != req.block ||
                     c->write.file > 0 || fd <= 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        err = DFS_EINVAL;
    }
    if (err == 0) {
        c->write.file = fd;
    } else {
        io_close(fd);
    }
    wire_out_reset(&c->out);
    block_file_rep_put(&c->out, &rep);
    return blk_reply(c, f, err, NULL, 0);
}

/* ---- packets ---- */

static int receive(struct blk_conn *c, const struct block_packet_req *req, uint32_t sums,
                   struct pbuf *b)
{
    uint64_t deadline = clock_mono_ms() + BLK_FRAME_MS;
    int err;

    if ((req->flags & WRITE_FILE) != 0) {
        return replica_read_parts(c->write.file, req->offset, req->len, b->data, b->sums);
    }
    err = conn_recv_data(c->up, b->sums, (size_t)sums * 4, deadline);

    return err != 0 ? err : conn_recv_data(c->up, b->data, req->len, deadline);
}

static int pass_on(struct blk_conn *c, const struct block_packet_req *req, uint32_t sums,
                   struct pbuf *b)
{
    struct blk_write *w = &c->write;
    struct frame f = { .type = RPC_block_packet, .req_id = ++w->down_id };
    struct iovec data[2] = {
        { .iov_base = b->sums, .iov_len = (size_t)sums * 4 },
        { .iov_base = b->data, .iov_len = req->len },
    };
    int err = FAULT("blk.packet.forward");

    if (err != 0) {
        return err;
    }
    wire_out_reset(&c->out);
    block_packet_req_put(&c->out, req);
    return conn_send(w->down, &f, wire_out_slice(&c->out), data, 2,
                     clock_mono_ms() + blk_patience_ms(c->server, w->behind));
}

/* What this server itself does with a packet. */
static int take_in(struct blk_conn *c, const struct block_packet_req *req, struct pbuf *b)
{
    struct replica *r = c->write.replica;
    uint32_t end = req->offset + req->len;
    int err = check_fence(c->server);

    if (err == 0) {
        err = rule_check_sums(req->offset, slice_of(b->data, req->len), b->sums);
    }
    if (err == 0) {
        err = FAULT("blk.packet.store");
    }
    if (err == 0 && req->len != 0) {
        uint64_t from = clock_mono_us();

        err = replica_append(r, req->offset, slice_of(b->data, req->len), b->sums);
        metric_observe(METRIC_write_time, clock_mono_us() - from);
    } else if (err == 0) {
        err = replica_look(r).len == end ? 0 : DFS_EOFFSET;
    }
    if (err == 0 && (req->flags & WRITE_LAST) != 0) {
        err = replica_seal(r, end);
    }
    if (err == 0 && (req->flags & WRITE_SYNC) != 0) {
        err = replica_sync(r, end);
    }
    return err;
}

/* A packet that is stored here: answered at the end of a chain, remembered in the middle. */
static int stored(struct blk_conn *c, const struct frame *f, const struct block_packet_req *req)
{
    struct blk_write *w = &c->write;
    struct window_entry e = {
        .req_id = f->req_id,
        .down_id = w->down_id,
        .sent_ms = clock_mono_ms(),
        .end = req->offset + req->len,
        .last = (req->flags & WRITE_LAST) != 0,
    };
    int err;

    atomic_fetch_add(&c->server->written_bytes, req->len);
    if (w->down != NULL) {
        window_push(&w->window, &e);
        return 0;
    }
    err = answer_packet(c, f->req_id, 0, e.end, 0);
    if (e.last) {
        blk_write_end(c);
    }
    return err;
}

static bool expects_packet(const struct blk_write *w, const struct block_packet_req *req)
{
    bool well = (req->flags & WRITE_FILE) == 0 ||
                (w->file > 0 && w->down == NULL && req->offset % CHUNK_BYTES == 0);

    return w->replica != NULL && w->replica->block == req->block && !w->last && well;
}

int blk_packet_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct blk_write *w = &c->write;
    struct block_packet_req req;
    struct pbuf *b;
    uint32_t sums = 0;
    int err = block_packet_req_get(msg, &req);

    if (err == 0) {
        bool file = (req.flags & WRITE_FILE) != 0 && f->data_len == 0;

        sums = layout_chunks_touched(req.offset, req.len);
        err = rule_packet(req.offset, req.len, file ? sums * 4 + req.len : f->data_len, &sums);
    }
    if (err == 0 && !expects_packet(w, &req)) {
        err = DFS_EINVAL;
    }
    if (err != 0) {
        return fail_packet(c, f->req_id, err, c->server->node);
    }
    if (w->down_lost) {
        return fail_packet(c, f->req_id, DFS_ECONN, w->down_node);
    }
    w->last = (req.flags & WRITE_LAST) != 0;
    b = buf_pool_get(&c->server->pool);
    err = receive(c, &req, sums, b);
    if (err != 0) {
        err = (req.flags & WRITE_FILE) != 0 ? fail_packet(c, f->req_id, err, c->server->node) : err;
        goto out;
    }
    if (w->down != NULL) {
        err = pass_on(c, &req, sums, b);
        if (err != 0) {
            err = fail_packet(c, f->req_id, err, w->down_node);
            goto out;
        }
    }
    err = take_in(c, &req, b);
    err = err != 0 ? fail_packet(c, f->req_id, err, c->server->node) : stored(c, f, &req);
out:
    buf_pool_put(&c->server->pool, b);
    return err;
}

/* ---- answers from behind ---- */

uint64_t blk_write_deadline(const struct blk_conn *c)
{
    const struct window_entry *e = window_oldest(&c->write.window);

    return e != NULL ? e->sent_ms + blk_patience_ms(c->server, c->write.behind) : UINT64_MAX;
}

int blk_write_silent(struct blk_conn *c)
{
    return fail_packet(c, 0, DFS_ETIMEOUT, c->write.down_node);
}

static int down_failed(struct blk_conn *c, int err)
{
    struct blk_write *w = &c->write;

    if (window_oldest(&w->window) != NULL) {
        return fail_packet(c, 0, err, w->down_node);
    }
    pthread_mutex_lock(&c->server->mu);
    c->down_fd = -1;
    pthread_mutex_unlock(&c->server->mu);
    conn_close(w->down);
    w->down = NULL;
    w->down_lost = true;
    return 0;
}

int blk_write_on_down(struct blk_conn *c)
{
    struct blk_write *w = &c->write;
    struct block_packet_rep rep = { 0 };
    struct window_entry e;
    struct frame f;
    struct slice msg;
    int err = conn_recv(w->down, &f, &msg, clock_mono_ms() + c->server->hop_ms);

    if (err == 0 && ((f.flags & FRAME_REPLY) == 0 || f.type != RPC_block_packet ||
                     f.data_len != 0 || block_packet_rep_get(msg, &rep) != 0)) {
        err = DFS_EMALFORMED;
    }
    if (err != 0) {
        return down_failed(c, err);
    }
    err = window_answer(&w->window, f.req_id, f.status, rep.offset, &e);
    if (err != 0) {
        return fail_packet(c, 0, err, rep.bad_node != 0 ? rep.bad_node : w->down_node);
    }
    err = answer_packet(c, e.req_id, 0, e.end, 0);
    if (e.last) {
        blk_write_end(c);
    }
    return err;
}

int blk_write_drain(struct blk_conn *c)
{
    struct conn *down = c->write.down;
    int err = 0;

    while (err == 0 && window_oldest(&c->write.window) != NULL) {
        bool silent =
            !conn_readable(down) && sock_wait(conn_fd(down), POLLIN, blk_write_deadline(c)) != 0;

        err = silent ? blk_write_silent(c) : blk_write_on_down(c);
    }
    return err;
}
