#include "cluster/base/base.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cluster/base/fault.h"
#include "cluster/base/log.h"
#include "cluster/net/rpc_priv.h"
#include "cluster/net/sock.h"

/* ---- buffers ---- */

static size_t waiting(const struct rpc_bytes *b)
{
    return b->len - b->head;
}

static void bytes_put(struct rpc_bytes *b, const void *p, size_t n)
{
    if (n == 0) {
        return;
    }
    if (b->head != 0 && b->len + n > b->cap) {
        memmove(b->p, b->p + b->head, waiting(b));
        b->len -= b->head;
        b->head = 0;
    }
    if (b->len + n > b->cap) {
        b->cap = MAX(b->cap * 2, b->len + n);
        b->p = x_realloc(b->p, b->cap);
    }
    memcpy(b->p + b->len, p, n);
    b->len += n;
}

/* The first n are done with. An empty buffer holds no memory: most connections are idle. */
static void bytes_drop(struct rpc_bytes *b, size_t n)
{
    b->head += n;
    if (b->head == b->len) {
        free(b->p);
        *b = (struct rpc_bytes){ 0 };
    }
}

/* ---- connections ---- */

void rpc_conn_free(struct rpc_conn *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    free(c->in.p);
    free(c->out.p);
    free(c);
}

void rpc_conn_close(struct rpc_loop *l, struct rpc_conn *c)
{
    if (c->fd < 0) {
        return;
    }
    close(c->fd);
    c->fd = -1;
    rpc_slot_leave(l, c);
    if (c->ready) {
        atomic_fetch_sub(c->moves_to != NULL ? &c->moves_to->load : &l->load, 1);
    } else {
        l->strangers--;
    }
    atomic_fetch_sub(&l->server->connections, 1);
    c->next = l->closed;
    l->closed = c;
}

static void refuse(struct rpc_loop *l, struct rpc_conn *c, int err)
{
    char peer[SOCK_NAME_BYTES];

    atomic_fetch_add(&l->refused_frames, 1);
    if (log_enabled(LOG_DEBUG, "net.refused")) {
        sock_peer_name(c->fd, peer);
        log_write(LOG_DEBUG, "net.refused", "peer=%s err=\"%s\"", peer, err_text(err));
    }
    rpc_conn_close(l, c);
}

static bool paused(const struct rpc_conn *c)
{
    return waiting(&c->out) > RPC_OUT_PAUSE_BYTES;
}

static void update_interest(struct rpc_loop *l, struct rpc_conn *c)
{
    uint32_t want = (paused(c) ? 0 : EPOLLIN) | (waiting(&c->out) != 0 ? EPOLLOUT : 0);
    struct epoll_event ev = { .events = want, .data.ptr = c };

    if (c->fd < 0 || want == c->interest) {
        return;
    }
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) != 0) {
        rpc_conn_close(l, c);
        return;
    }
    c->interest = want;
}

bool rpc_conn_attach(struct rpc_loop *l, struct rpc_conn *c)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

    c->interest = EPOLLIN;
    rpc_slot_take(l, c);
    l->strangers += c->ready ? 0 : 1;
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        rpc_conn_close(l, c);
        return false;
    }
    return true;
}

/* ---- answers ---- */

/* Sends what waits, as far as the socket takes it. */
static void flush(struct rpc_loop *l, struct rpc_conn *c)
{
    while (c->fd >= 0 && waiting(&c->out) != 0) {
        ssize_t n = send(c->fd, c->out.p + c->out.head, waiting(&c->out), MSG_NOSIGNAL);

        if (n >= 0) {
            bytes_drop(&c->out, (size_t)n);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            rpc_conn_close(l, c);
        }
    }
}

/* The fast path: nothing waits, one sendmsg. Returns the bytes taken; closes on failure. */
static size_t send_now(struct rpc_loop *l, struct rpc_conn *c, uint8_t *header, struct slice msg)
{
    struct iovec iov[2] = {
        { .iov_base = header, .iov_len = FRAME_HEADER_BYTES },
        { .iov_base = (void *)(uintptr_t)msg.p, .iov_len = msg.len },
    };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = msg.len != 0 ? 2 : 1 };
    ssize_t n;

    do {
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        rpc_conn_close(l, c);
    }
    return n < 0 ? 0 : (size_t)n;
}

void rpc_reply(struct rpc_loop *l, struct rpc_token token, int status, struct slice msg)
{
    struct frame f = {
        .type = token.type,
        .flags = FRAME_REPLY,
        .status = (uint32_t)status,
        .msg_len = (uint32_t)msg.len,
        .req_id = token.req_id,
    };
    uint8_t header[FRAME_HEADER_BYTES];
    struct rpc_conn *c;
    size_t sent = 0;

    ASSERT(l->owned && pthread_equal(l->owner, pthread_self()));
    ASSERT(msg.len <= LIMIT_MSG);
    c = rpc_slot_find(l, token);
    if (c == NULL) {
        return;
    }
    if (FAULT("net.rpc.reply") != 0) {
        rpc_conn_close(l, c);
        return;
    }
    frame_header_put(header, &f, msg);
    if (waiting(&c->out) == 0 && !c->corked) {
        sent = send_now(l, c, header, msg);
    }
    if (c->fd < 0 || sent == sizeof(header) + msg.len) {
        return;
    }
    if (waiting(&c->out) + sizeof(header) + msg.len > RPC_OUT_MAX_BYTES) {
        rpc_conn_close(l, c);
        return;
    }
    if (sent < sizeof(header)) {
        bytes_put(&c->out, header + sent, sizeof(header) - sent);
        sent = sizeof(header);
    }
    bytes_put(&c->out, msg.p + (sent - sizeof(header)), msg.len - (sent - sizeof(header)));
    if (c->corked && waiting(&c->out) > RPC_CORK_BYTES) {
        flush(l, c);
    }
    if (!c->corked) {
        update_interest(l, c);
    }
}

/* ---- requests ---- */

/* Looks at the front of p[0..n). *ret_size: bytes of the frame, 0 when it is not whole yet.
 * Refuses a frame by its header, before its message is waited for. */
static int frame_peek(const struct rpc_conn *c, const uint8_t *p, size_t n, struct frame *ret,
                      size_t *ret_size)
{
    int err;

    *ret_size = 0;
    if (n < FRAME_HEADER_BYTES) {
        return DFS_OK;
    }
    err = frame_header_get(p, ret);
    if (err != 0) {
        return err;
    }
    if (ret->data_len != 0 || (!c->ready && ret->msg_len > RPC_HELLO_MSG_MAX)) {
        return DFS_ETOOBIG;
    }
    if ((ret->flags & FRAME_REPLY) != 0 || (ret->type == RPC_hello) == c->ready) {
        return DFS_EMALFORMED;
    }
    if (n - FRAME_HEADER_BYTES >= ret->msg_len) {
        *ret_size = FRAME_HEADER_BYTES + ret->msg_len;
    }
    return DFS_OK;
}

static void deliver(struct rpc_loop *l, struct rpc_conn *c, const struct frame *f, const uint8_t *p)
{
    struct slice msg = slice_of(p + FRAME_HEADER_BYTES, f->msg_len);
    struct rpc_token token = {
        .slot = c->slot, .generation = c->generation, .req_id = f->req_id, .type = f->type
    };
    int err = frame_check(p, msg);

    if (err != 0) {
        refuse(l, c, err);
    } else if (!c->ready) {
        rpc_server_hello(l->server, l, c, token, msg);
    } else {
        atomic_fetch_add_explicit(&l->requests, 1, memory_order_relaxed);
        l->handler(l->server->conf.arg, l, token, msg);
    }
}

/* Handles the whole frames in p[0..n); returns the bytes that are done with. */
static size_t handle(struct rpc_loop *l, struct rpc_conn *c, const uint8_t *p, size_t n)
{
    size_t used = 0;

    while (c->fd >= 0 && c->moves_to == NULL) {
        struct frame f, behind;
        size_t size, size_behind = 0;
        int err;

        if (paused(c)) {
            flush(l, c);
            if (c->fd < 0 || paused(c)) {
                break;
            }
        }
        err = frame_peek(c, p + used, n - used, &f, &size);
        if (err != 0) {
            refuse(l, c, err);
            break;
        }
        if (size == 0) {
            break;
        }
        c->corked = c->ready &&
                    frame_peek(c, p + used + size, n - used - size, &behind, &size_behind) == 0 &&
                    size_behind != 0;
        deliver(l, c, &f, p + used);
        used += size;
    }
    c->corked = false;
    return used;
}

/* Ends a round of handling: the answers go out, the connection goes where it belongs. */
static void settle(struct rpc_loop *l, struct rpc_conn *c)
{
    struct rpc_loop *target = c->moves_to;

    if (!paused(c)) {
        flush(l, c); /* a paused one goes on when the socket takes more, see rpc_conn_event() */
    }
    if (c->fd < 0) {
        return;
    }
    if (target == NULL) {
        update_interest(l, c);
        return;
    }
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    rpc_slot_leave(l, c);
    c->moves_to = NULL;
    rpc_loop_adopt(target, c);
}

void rpc_conn_resume(struct rpc_loop *l, struct rpc_conn *c)
{
    size_t used = handle(l, c, c->in.p + c->in.head, waiting(&c->in));

    if (used != 0) {
        bytes_drop(&c->in, used);
    }
    settle(l, c);
}

static void receive(struct rpc_loop *l, struct rpc_conn *c)
{
    ssize_t n = recv(c->fd, l->scratch, RPC_SCRATCH_BYTES, 0);
    size_t used;

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0 || FAULT("net.rpc.recv") != 0) {
        rpc_conn_close(l, c);
        return;
    }
    if (waiting(&c->in) != 0) {
        bytes_put(&c->in, l->scratch, (size_t)n);
        rpc_conn_resume(l, c);
        return;
    }
    used = handle(l, c, l->scratch, (size_t)n);
    if (c->fd >= 0) {
        bytes_put(&c->in, l->scratch + used, (size_t)n - used);
    }
    settle(l, c);
}

void rpc_conn_event(struct rpc_loop *l, struct rpc_conn *c, uint32_t events)
{
    if (c->fd < 0) {
        return; /* closed by an earlier event of this turn */
    }
    if ((events & EPOLLOUT) != 0) {
        bool was_paused = paused(c);

        flush(l, c);
        if (was_paused && c->fd >= 0 && !paused(c)) {
            rpc_conn_resume(l, c);
            return; /* it may be another loop's now; level triggers tell again */
        }
        update_interest(l, c);
    }
    if (c->fd < 0 || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
        return;
    }
    if (paused(c)) {
        if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
            rpc_conn_close(l, c); /* nobody will read what waits */
        }
        return;
    }
    receive(l, c);
}
