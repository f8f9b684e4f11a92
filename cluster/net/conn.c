#include "cluster/net/conn.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/fault.h"
#include "cluster/net/hello.h"
#include "cluster/net/sock.h"

#define IN_FIRST (4 * KIB) /* most connections hear short answers only */
#define IN_BYTES (64 * KIB)
#define BACKLOG  512

struct conn {
    int fd;
    bool broken;
    bool deaf_peer;    /* nothing can be sent any more; answers may still be there */
    bool takes_fd;     /* a descriptor may come with what is received */
    int fd_taken;      /* -1: none did */
    uint64_t doubt_ms; /* see conn_doubt() */
    bool (*in_vain)(void *arg);
    void *doubt_arg;
    char *peer;         /* as the caller named it, or the peer's address */
    char *failed;       /* peer and reason, once a call has failed */
    uint64_t last_req;  /* conn_call's request ids */
    uint32_t data_left; /* of the frame received last, not yet taken */
    size_t head, tail;  /* unread bytes: in[head..tail) */
    uint8_t *in;
    size_t in_cap; /* IN_BYTES at most */
    uint8_t *msg;  /* a message that does not fit into in; NULL until there is one */
    size_t msg_cap;
};

static struct conn *conn_new(int fd, char *peer)
{
    struct conn *c = x_alloc(sizeof(*c));

    c->fd = fd;
    c->fd_taken = -1;
    c->peer = peer;
    c->in_cap = IN_FIRST;
    c->in = x_alloc(c->in_cap);
    return c;
}

struct conn *conn_of_fd(int fd)
{
    char name[SOCK_NAME_BYTES];
    int flags = fcntl(fd, F_GETFL);

    ASSERT(flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
    sock_tune(fd);
    sock_peer_name(fd, name);
    return conn_new(fd, x_strdup(name));
}

int conn_open(const char *addr, uint64_t deadline_ms, struct conn **ret, struct why *why)
{
    int fd;
    int err = sock_connect(addr, deadline_ms, &fd, why);

    if (err != 0) {
        return err;
    }
    *ret = conn_new(fd, x_strdup(addr));
    return DFS_OK;
}

void conn_close(struct conn *c)
{
    if (c == NULL) {
        return;
    }
    close(c->fd);
    if (c->fd_taken >= 0) {
        close(c->fd_taken);
    }
    free(c->peer);
    free(c->failed);
    free(c->in);
    free(c->msg);
    free(c);
}

int conn_fd(const struct conn *c)
{
    return c->fd;
}

const char *conn_peer(const struct conn *c)
{
    return c->failed != NULL ? c->failed : c->peer;
}

bool conn_broken(const struct conn *c)
{
    return c->broken || c->deaf_peer;
}

/* Notes the reason and gives the connection up. */
static int fail(struct conn *c, int err, const char *reason)
{
    free(c->failed);
    c->failed = x_printf("%s: %s", c->peer, reason);
    c->broken = true;
    return err;
}

static int fail_errno(struct conn *c)
{
    return fail(c, DFS_ECONN, strerror(errno));
}

void conn_doubt(struct conn *c, uint64_t after_ms, bool (*in_vain)(void *arg), void *arg)
{
    c->doubt_ms = after_ms;
    c->in_vain = in_vain;
    c->doubt_arg = arg;
}

/* Waits after EAGAIN. The connection stays whole when nothing of the frame has moved yet. */
static int wait_for(struct conn *c, short events, uint64_t deadline_ms, bool moved)
{
    int err;

    for (;;) {
        uint64_t until_ms =
            c->in_vain != NULL ? MIN(deadline_ms, clock_mono_ms() + c->doubt_ms) : deadline_ms;

        err = sock_wait(c->fd, events, until_ms);
        if (err != DFS_ETIMEOUT || until_ms == deadline_ms || c->in_vain(c->doubt_arg)) {
            break;
        }
    }
    if (err == DFS_ETIMEOUT && !moved) {
        return err;
    }
    return err != 0 ? fail(c, err, err == DFS_ETIMEOUT ? err_text(err) : strerror(errno)) : DFS_OK;
}

/* ---- sending ---- */

/* Room for one descriptor in a message's control data. */
union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static void control_put(struct msghdr *m, union control *room, int fd)
{
    struct cmsghdr *head;

    *room = (union control){ { 0 } };
    m->msg_control = room->bytes;
    m->msg_controllen = sizeof(room->bytes);
    head = CMSG_FIRSTHDR(m);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
}

/* fd: goes along with the first byte; -1: none. */
static int send_all(struct conn *c, struct iovec *iov, size_t count, int fd, uint64_t deadline_ms)
{
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = count };
    union control room;
    bool moved = false;

    if (fd >= 0) {
        control_put(&m, &room, fd);
    }

    while (m.msg_iovlen > 0) {
        ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);

        if (n < 0) {
            int err = DFS_OK;

            if (errno == EAGAIN) {
                err = wait_for(c, POLLOUT, deadline_ms, moved);
            } else if (errno != EINTR) {
                err = fail_errno(c);
                c->broken = false; /* the peer's last words can be received */
                c->deaf_peer = true;
            }
            if (err != 0) {
                return err;
            }
            continue;
        }
        moved = true;
        m.msg_control = NULL;
        m.msg_controllen = 0;
        for (size_t left = (size_t)n; m.msg_iovlen > 0; m.msg_iov++, m.msg_iovlen--) {
            if (left < m.msg_iov->iov_len) {
                m.msg_iov->iov_base = (uint8_t *)m.msg_iov->iov_base + left;
                m.msg_iov->iov_len -= left;
                break;
            }
            left -= m.msg_iov->iov_len;
        }
    }
    return DFS_OK;
}

static int send_frame(struct conn *c, const struct frame *f, struct slice msg,
                      const struct iovec *data, int data_count, int fd, uint64_t deadline_ms)
{
    struct iovec iov[2 + CONN_PIECES_MAX];
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame full = *f;
    size_t count = 0;
    size_t total = 0;
    int err;

    ASSERT(data_count >= 0 && data_count <= CONN_PIECES_MAX);
    if (conn_broken(c)) {
        return DFS_ECONN;
    }
    iov[count++] = (struct iovec){ .iov_base = header, .iov_len = sizeof(header) };
    if (msg.len != 0) {
        iov[count++] = (struct iovec){ .iov_base = (void *)(uintptr_t)msg.p, .iov_len = msg.len };
    }
    for (int i = 0; i < data_count; i++) {
        if (data[i].iov_len != 0) {
            iov[count++] = data[i];
            total += data[i].iov_len;
        }
    }
    if (msg.len > LIMIT_MSG || total > LIMIT_DATA) {
        return DFS_ETOOBIG;
    }
    err = FAULT("net.conn.send");
    if (err != 0) {
        return fail(c, err, err_text(err));
    }
    full.msg_len = (uint32_t)msg.len;
    full.data_len = (uint32_t)total;
    frame_header_put(header, &full, msg);
    return send_all(c, iov, count, fd, deadline_ms);
}

int conn_send(struct conn *c, const struct frame *f, struct slice msg, const struct iovec *data,
              int data_count, uint64_t deadline_ms)
{
    return send_frame(c, f, msg, data, data_count, -1, deadline_ms);
}

int conn_send_fd(struct conn *c, const struct frame *f, struct slice msg, int fd,
                 uint64_t deadline_ms)
{
    return send_frame(c, f, msg, NULL, 0, fd, deadline_ms);
}

/* ---- receiving ---- */

/* recv(), with the descriptor that comes along. */
static ssize_t recv_with_fd(struct conn *c, void *p, size_t n)
{
    struct iovec iov = { .iov_base = p, .iov_len = n };
    union control room = { { 0 } };
    struct msghdr m = { .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = room.bytes,
                        .msg_controllen = sizeof(room.bytes) };
    ssize_t got = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = got >= 0 ? CMSG_FIRSTHDR(&m) : NULL;

    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int))) {
        if (c->fd_taken >= 0) {
            close(c->fd_taken);
        }
        memcpy(&c->fd_taken, CMSG_DATA(head), sizeof(int));
    }
    return got;
}

/* Some bytes into p, at least one. moved: as for wait_for(). */
static int recv_some(struct conn *c, void *p, size_t n, uint64_t deadline_ms, bool moved,
                     size_t *ret_got)
{
    for (;;) {
        ssize_t got = c->takes_fd ? recv_with_fd(c, p, n) : recv(c->fd, p, n, 0);
        int err = DFS_OK;

        if (got > 0) {
            *ret_got = (size_t)got;
            return DFS_OK;
        }
        if (got == 0) {
            return fail(c, DFS_ECONN, "closed by the peer");
        }
        if (errno == EAGAIN) {
            err = wait_for(c, POLLIN, deadline_ms, moved);
        } else if (errno != EINTR) {
            err = fail_errno(c);
        }
        if (err != 0) {
            return err;
        }
    }
}

static int recv_exact(struct conn *c, uint8_t *p, size_t n, uint64_t deadline_ms)
{
    while (n > 0) {
        size_t got;
        int err = recv_some(c, p, n, deadline_ms, true, &got);

        if (err != 0) {
            return err;
        }
        p += got;
        n -= got;
    }
    return DFS_OK;
}

/* The buffer becomes larger when it was filled to its end, or want bytes do not fit. */
static void grow(struct conn *c, size_t want)
{
    size_t cap = c->in_cap;

    if (c->tail == cap) {
        cap *= 4;
    }
    while (cap < want) {
        cap *= 4;
    }
    if (cap > c->in_cap && c->in_cap < IN_BYTES) {
        c->in_cap = MIN(cap, IN_BYTES);
        c->in = x_realloc(c->in, c->in_cap);
    }
}

/* At least want (<= IN_BYTES) unread bytes in the buffer. */
static int fill(struct conn *c, size_t want, uint64_t deadline_ms)
{
    grow(c, want);
    if (c->head == c->tail) {
        c->head = c->tail = 0;
    } else if (c->head + want > c->in_cap) {
        memmove(c->in, c->in + c->head, c->tail - c->head);
        c->tail -= c->head;
        c->head = 0;
    }
    while (c->tail - c->head < want) {
        size_t got;
        int err = recv_some(c, c->in + c->tail, c->in_cap - c->tail, deadline_ms,
                            c->tail != c->head, &got);

        if (err != 0) {
            return err;
        }
        c->tail += got;
    }
    return DFS_OK;
}

/* Up to n unread bytes leave the buffer. */
static size_t take_buffered(struct conn *c, void *p, size_t n)
{
    size_t k = MIN(n, c->tail - c->head);

    if (k != 0) {
        memcpy(p, c->in + c->head, k);
        c->head += k;
    }
    return k;
}

/* The message part, behind a header that has left the buffer. */
static int recv_msg(struct conn *c, size_t len, struct slice *ret, uint64_t deadline_ms)
{
    size_t k;
    int err;

    if (len <= IN_BYTES) {
        err = fill(c, len, deadline_ms);
        if (err == 0) {
            *ret = slice_of(c->in + c->head, len);
            c->head += len;
        }
    } else {
        if (len > c->msg_cap) {
            c->msg = x_realloc(c->msg, len);
            c->msg_cap = len;
        }
        k = take_buffered(c, c->msg, len);
        err = recv_exact(c, c->msg + k, len - k, deadline_ms);
        if (err == 0) {
            *ret = slice_of(c->msg, len);
        }
    }
    return err != DFS_ETIMEOUT ? err : fail(c, err, err_text(err));
}

int conn_recv(struct conn *c, struct frame *ret, struct slice *ret_msg, uint64_t deadline_ms)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct slice msg = SLICE_EMPTY;
    struct frame f;
    int err;

    if (c->broken) {
        return DFS_ECONN;
    }
    ASSERT(c->data_left == 0);
    err = FAULT("net.conn.recv");
    if (err != 0) {
        return fail(c, err, err_text(err));
    }
    err = fill(c, sizeof(header), deadline_ms);
    if (err != 0) {
        return err;
    }
    take_buffered(c, header, sizeof(header));
    err = frame_header_get(header, &f);
    if (err == 0) {
        err = recv_msg(c, f.msg_len, &msg, deadline_ms);
        if (err != 0) {
            return err;
        }
        err = frame_check(header, msg);
    }
    if (err != 0) {
        return fail(c, err, err_text(err));
    }
    c->data_left = f.data_len;
    *ret = f;
    *ret_msg = msg;
    return DFS_OK;
}

int conn_recv_data(struct conn *c, void *p, size_t n, uint64_t deadline_ms)
{
    size_t k;
    int err;

    if (c->broken) {
        return DFS_ECONN;
    }
    ASSERT(n <= c->data_left);
    k = take_buffered(c, p, n);
    err = recv_exact(c, (uint8_t *)p + k, n - k, deadline_ms);
    if (err == 0) {
        c->data_left -= (uint32_t)n;
    }
    return err;
}

void conn_slim(struct conn *c)
{
    free(c->msg);
    c->msg = NULL;
    c->msg_cap = 0;
}

bool conn_readable(const struct conn *c)
{
    struct pollfd p = { .fd = c->fd, .events = POLLIN };

    return c->head != c->tail || poll(&p, 1, 0) != 0;
}

/* ---- calls ---- */

static int status_of(struct conn *c, const struct frame *f)
{
    return f->status <= INT32_MAX ? (int)f->status : fail(c, DFS_EMALFORMED, "unknown status");
}

int conn_call(struct conn *c, uint16_t type, struct slice msg, struct slice *ret_msg,
              uint64_t deadline_ms)
{
    struct frame ask = { .type = type, .req_id = ++c->last_req };
    struct frame f;
    struct slice got;
    int err = conn_send(c, &ask, msg, NULL, 0, deadline_ms);

    if (err != 0) {
        return err;
    }
    do {
        err = conn_recv(c, &f, &got, deadline_ms);
        if (err != 0) {
            return err;
        }
        if ((f.flags & FRAME_REPLY) == 0 || f.req_id == 0 || f.req_id > ask.req_id ||
            f.data_len != 0) {
            return fail(c, DFS_EMALFORMED, "not the reply that was expected");
        }
    } while (f.req_id != ask.req_id); /* late replies to calls that timed out */
    if (f.type != type) {
        return fail(c, DFS_EMALFORMED, "a reply to another request");
    }
    *ret_msg = got;
    return status_of(c, &f);
}

int conn_call_fd(struct conn *c, uint16_t type, struct slice msg, struct slice *ret_msg,
                 int *ret_fd, uint64_t deadline_ms)
{
    int err;

    conn_expect_fd(c);
    err = conn_call(c, type, msg, ret_msg, deadline_ms);
    *ret_fd = conn_take_fd(c);
    return err;
}

void conn_expect_fd(struct conn *c)
{
    c->takes_fd = true;
}

int conn_take_fd(struct conn *c)
{
    int fd = c->fd_taken;

    c->takes_fd = false;
    c->fd_taken = -1;
    return fd;
}

int conn_open_hello(const char *addr, uint8_t purpose, struct slice cluster, uint64_t deadline_ms,
                    struct conn **ret, uint32_t *ret_node, struct why *why)
{
    struct hello_req q = { .version = DFS_PROTOCOL, .purpose = purpose, .cluster = cluster };
    struct conn *c = NULL;
    struct wire_out out;
    struct slice rep = SLICE_EMPTY;
    int err = conn_open(addr, deadline_ms, &c, why);

    wire_out_init(&out, 256);
    if (err != 0) {
        goto out;
    }
    hello_req_put(&out, &q);
    err = conn_call(c, RPC_hello, wire_out_slice(&out), &rep, deadline_ms);
    if (conn_broken(c) || err == DFS_ETIMEOUT) {
        why_set(why, err, "%s, during the hello", conn_broken(c) ? conn_peer(c) : addr);
        goto out;
    }
    err = hello_judge(addr, err, rep, cluster, ret_node, why);
out:
    wire_out_fini(&out);
    if (err != 0) {
        conn_close(c);
        return err;
    }
    *ret = c;
    return DFS_OK;
}

int conn_accept_hello(struct conn *c, uint8_t purpose, struct slice cluster, uint32_t node,
                      uint64_t deadline_ms, struct why *why)
{
    struct frame f;
    struct slice msg;
    struct wire_out rep;
    uint8_t got;
    int sent;
    int err = conn_recv(c, &f, &msg, deadline_ms);

    if (err != 0) {
        return why_set(why, err, "%s", conn_peer(c));
    }
    if (f.type != RPC_hello || (f.flags & FRAME_REPLY) != 0 || f.data_len != 0) {
        fail(c, DFS_EMALFORMED, "the first frame is no hello");
        return why_set(why, DFS_EMALFORMED, "%s", conn_peer(c));
    }
    wire_out_init(&rep, 256);
    err = hello_answer(msg, HELLO_BIT(purpose), cluster, node, &rep, &got);
    f = (struct frame){
        .type = RPC_hello, .flags = FRAME_REPLY, .status = (uint32_t)err, .req_id = f.req_id
    };
    sent = conn_send(c, &f, wire_out_slice(&rep), NULL, 0, deadline_ms);
    wire_out_fini(&rep);
    err = err != 0 ? err : sent;
    if (err != 0) {
        why_set(why, err, "%s: %s", conn_peer(c), err_text(err));
    }
    return err;
}

/* ---- listening ---- */

static int listen_on(const struct addrinfo *ai)
{
    const int on = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int no = errno;

        close(fd);
        errno = no;
        return -1;
    }
    return fd;
}

static uint16_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = { 0 };
    socklen_t len = sizeof(a);

    if (getsockname(fd, &a.any, &len) != 0) {
        return 0;
    }
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

int conn_listen(const char *addr, int *ret_fd, uint16_t *ret_port, struct why *why)
{
    struct addrinfo *list = NULL;
    int fd;
    int err = sock_lookup(addr, true, &list, why);

    if (err != 0) {
        return DFS_EINVAL;
    }
    fd = listen_on(list);
    if (fd < 0 && errno == EADDRINUSE) {
        err = why_set(why, DFS_EBUSY, "%s: the port is in use by another process", addr);
    } else if (fd < 0 && errno == EADDRNOTAVAIL) {
        err = why_set(why, DFS_EINVAL, "%s: not an address of this machine", addr);
    } else if (fd < 0) {
        err = why_set(why, err_from_errno(errno), "%s: cannot listen: %s", addr, strerror(errno));
    }
    freeaddrinfo(list);
    if (err != 0) {
        return err;
    }
    *ret_fd = fd;
    *ret_port = port_of(fd);
    return DFS_OK;
}
