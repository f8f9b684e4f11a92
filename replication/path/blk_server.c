#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/net/sock_local.h"

#include "replication/path/blk_impl.h"

#define STACK_BYTES (256 * KIB)
#define POOL_KEEP   64u
#define LINGER_MS   2000u
#define TELL_MS     1000u /* between two lines about refused connections */

int blk_reply(struct blk_conn *c, const struct frame *req, int status, const struct iovec *data,
              int data_count)
{
    struct frame f = {
        .type = req->type,
        .flags = FRAME_REPLY,
        .status = (uint32_t)status,
        .req_id = req->req_id,
    };
    int err = FAULT("blk.reply");

    return err != 0 ? err
                    : conn_send(c->up, &f, wire_out_slice(&c->out), data, data_count,
                                clock_mono_ms() + BLK_FRAME_MS);
}

/* ---- one connection ---- */

static int unknown_serve(struct blk_conn *c, const struct frame *f)
{
    if ((f->flags & FRAME_REPLY) != 0) {
        return DFS_EMALFORMED;
    }
    wire_out_reset(&c->out);
    return blk_reply(c, f, DFS_EUNKNOWNRPC, NULL, 0);
}

/* Receives one request and answers it. */
static int serve_one(struct blk_conn *c, uint64_t deadline_ms)
{
    struct frame f;
    struct slice msg;
    int err = conn_recv(c->up, &f, &msg, deadline_ms);

    if (err != 0) {
        return err;
    }
    if (f.type == RPC_block_packet) {
        return blk_packet_serve(c, &f, msg);
    }
    if (f.data_len != 0) {
        return DFS_EMALFORMED;
    }
    /* Answers are in order: what was sent before comes first. */
    err = blk_write_drain(c);
    if (err != 0) {
        return err;
    }
    switch (f.type) {
    case RPC_block_write_open:
        return blk_write_open_serve(c, &f, msg);
    case RPC_block_file:
        return blk_file_serve(c, &f, msg);
    case RPC_block_read:
        return blk_read_serve(c, &f, msg);
    case RPC_block_sync:
        return blk_sync_serve(c, &f, msg);
    case RPC_block_stat:
        return blk_stat_serve(c, &f, msg);
    case RPC_block_lend:
        return blk_lend_serve(c, &f, msg);
    case RPC_block_check:
        return blk_check_serve(c, &f, msg);
    case RPC_block_volume:
        return blk_volume_serve(c, &f, msg);
    default:
        return unknown_serve(c, &f);
    }
}

/* Waits for the front or for the server behind. */
static int wait_any(struct blk_conn *c)
{
    struct pollfd p[2] = {
        { .fd = conn_fd(c->write.down), .events = POLLIN },
        { .fd = conn_fd(c->up), .events = POLLIN },
    };
    uint64_t deadline = blk_write_deadline(c);
    uint64_t now = clock_mono_ms();
    int timeout = -1;

    if (deadline != UINT64_MAX) {
        if (now >= deadline) {
            return blk_write_silent(c);
        }
        timeout = (int)(deadline - now);
    }
    if (poll(p, window_full(&c->write.window) ? 1 : 2, timeout) < 0 && errno != EINTR) {
        return DFS_EIO;
    }
    return 0;
}

static int step(struct blk_conn *c)
{
    struct blk_write *w = &c->write;

    if (w->down == NULL) {
        return serve_one(c, UINT64_MAX);
    }
    if (conn_readable(w->down)) {
        return blk_write_on_down(c);
    }
    if (!window_full(&w->window) && conn_readable(c->up)) {
        return serve_one(c, clock_mono_ms() + BLK_FRAME_MS);
    }
    return wait_any(c);
}

/* Lets the peer read the answer: closing with its packets unread would reset the connection and take
 * the answer away. */
static void linger(struct blk_conn *c)
{
    uint64_t until = clock_mono_ms() + LINGER_MS;
    uint8_t scrap[4096];
    int fd = conn_fd(c->up);

    shutdown(fd, SHUT_WR);
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        uint64_t now = clock_mono_ms();
        ssize_t n;

        if (now >= until || poll(&p, 1, (int)(until - now)) <= 0) {
            return;
        }
        n = recv(fd, scrap, sizeof(scrap), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            return;
        }
    }
}

static void conn_end(struct blk_conn *c)
{
    struct blk_server *s = c->server;

    blk_write_end(c);
    pthread_mutex_lock(&s->mu);
    list_remove(&c->link);
    pthread_mutex_unlock(&s->mu);
    conn_close(c->up);
    wire_out_fini(&c->out);
    free(c);
    /* The last touch: blk_server_stop() may free the server after this. */
    pthread_mutex_lock(&s->mu);
    s->count--;
    pthread_cond_signal(&s->ended);
    pthread_mutex_unlock(&s->mu);
}

static bool is_garbage(int err)
{
    return err == DFS_EMALFORMED || err == DFS_ETOOBIG || err == DFS_ECHECKSUM ||
           err == DFS_EVERSION || err == DFS_EWRONGCLUSTER || err == DFS_EINVAL;
}

/* Counts what is no peer of this cluster; a flood of it does not fill the log. */
static void refused(struct blk_server *s, const char *event, const char *peer, int err)
{
    uint64_t now = clock_mono_ms();
    uint64_t told = atomic_load(&s->told_ms);

    atomic_fetch_add(&s->refused, 1);
    if ((told == 0 || now - told >= TELL_MS) &&
        atomic_compare_exchange_strong(&s->told_ms, &told, now)) {
        log_event(LOG_WARN, event, "peer=\"%s\" err=\"%s\" refused=%" PRIu64, peer, err_text(err),
                  atomic_load(&s->refused));
    }
}

static void *conn_run(void *arg)
{
    struct blk_conn *c = arg;
    struct blk_server *s = c->server;
    struct why why = { "" };
    int err = conn_accept_hello(c->up, HELLO_BLOCK, slice_of(s->cluster, sizeof(s->cluster)),
                                s->node, clock_mono_ms() + BLK_FRAME_MS, &why);

    if (is_garbage(err)) {
        refused(s, "block.refused", conn_peer(c->up), err);
        conn_end(c);
        return NULL;
    }
    while (err == 0) {
        err = step(c);
    }
    if (err == DFS_EMALFORMED || (conn_broken(c->up) && is_garbage(err))) {
        refused(s, "block.garbage", conn_peer(c->up), err);
    } else if (!conn_broken(c->up)) {
        linger(c);
    }
    conn_end(c);
    return NULL;
}

/* ---- accepting ---- */

static void start_conn(struct blk_server *s, int fd)
{
    struct blk_conn *c;
    pthread_t thread;
    bool full;

    pthread_mutex_lock(&s->mu);
    full = s->count >= s->limit || s->stopping;
    s->count += full ? 0 : 1;
    pthread_mutex_unlock(&s->mu);
    if (full) {
        atomic_fetch_add(&s->turned_away, 1);
        close(fd);
        return;
    }
    c = x_alloc(sizeof(*c));
    list_init(&c->link);
    c->server = s;
    c->up = conn_of_fd(fd);
    c->down_fd = -1;
    wire_out_init(&c->out, BLK_MSG_MAX);
    pthread_mutex_lock(&s->mu);
    list_push_back(&s->conns, &c->link);
    pthread_mutex_unlock(&s->mu);
    if (pthread_create(&thread, &s->attr, conn_run, c) != 0) {
        atomic_fetch_add(&s->turned_away, 1);
        conn_end(c);
    }
}

/* False: nothing will be better at once. */
static bool accept_one(struct blk_server *s, int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        start_conn(s, fd);
    }
    return fd >= 0 || (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS);
}

static void *accept_run(void *arg)
{
    struct blk_server *s = arg;

    for (;;) {
        struct pollfd p[3] = {
            { .fd = s->wake_fd, .events = POLLIN },
            { .fd = s->listen_fd[0], .events = POLLIN },
            { .fd = s->listen_fd[1], .events = POLLIN }, /* passed over when it is -1 */
        };
        bool well = true;

        poll(p, ARRAY_LEN(p), -1);
        if ((p[0].revents & POLLIN) != 0) {
            return NULL;
        }
        for (size_t i = 1; i < ARRAY_LEN(p); i++) {
            well = ((p[i].revents & POLLIN) == 0 || accept_one(s, p[i].fd)) && well;
        }
        if (!well) {
            poll(p, 1, 100); /* the wake-up still ends the wait */
        }
    }
}

int blk_server_start(const struct blk_server_conf *conf, struct blk_server **ret, struct why *why)
{
    struct blk_server *s;
    uint16_t port;
    int fd;
    int err = conn_listen(conf->listen, &fd, &port, why);

    if (err != 0) {
        return err;
    }
    s = x_alloc(sizeof(*s));
    s->store = conf->store;
    s->limit = conf->connections;
    s->doubt = conf->doubt;
    s->arg = conf->arg;
    s->hop_ms = conf->hop_ms != 0 ? conf->hop_ms : CHAIN_HOP_MS;
    s->listen_fd[0] = fd;
    s->listen_fd[1] = sock_local_listen(fd);
    s->fence_ms = UINT64_MAX;
    s->port = port;
    s->wake_fd = eventfd(0, EFD_CLOEXEC);
    ASSERT(s->wake_fd >= 0);
    list_init(&s->conns);
    buf_pool_init(&s->pool, POOL_KEEP);
    pthread_mutex_init(&s->mu, NULL);
    pthread_cond_init(&s->ended, NULL);
    pthread_attr_init(&s->attr);
    pthread_attr_setdetachstate(&s->attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&s->attr, STACK_BYTES);
    *ret = s;
    return 0;
}

int blk_server_serve(struct blk_server *s, const uint8_t cluster[CLUSTER_ID_BYTES], uint32_t node,
                     struct why *why)
{
    ASSERT(node != 0 && s->node == 0);
    memcpy(s->cluster, cluster, sizeof(s->cluster));
    s->node = node;
    if (pthread_create(&s->acceptor, NULL, accept_run, s) != 0) {
        s->node = 0;
        return why_set(why, DFS_ENOMEM, "cannot start a thread");
    }
    return 0;
}

static void end_connections(struct blk_server *s)
{
    pthread_mutex_lock(&s->mu);
    s->stopping = true;
    LIST_FOREACH (item, &s->conns) {
        struct blk_conn *c = CONTAINER_OF(item, struct blk_conn, link);

        shutdown(conn_fd(c->up), SHUT_RDWR);
        if (c->down_fd >= 0) {
            shutdown(c->down_fd, SHUT_RDWR);
        }
    }
    while (s->count != 0) {
        pthread_cond_wait(&s->ended, &s->mu);
    }
    pthread_mutex_unlock(&s->mu);
}

void blk_server_stop(struct blk_server *s)
{
    uint64_t one = 1;

    if (s == NULL) {
        return;
    }
    if (s->node != 0) {
        ASSERT(write(s->wake_fd, &one, sizeof(one)) == sizeof(one));
        pthread_join(s->acceptor, NULL);
    }
    end_connections(s);
    io_close(s->listen_fd[0]);
    io_close(s->listen_fd[1]);
    io_close(s->wake_fd);
    buf_pool_fini(&s->pool);
    pthread_attr_destroy(&s->attr);
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->mu);
    free(s);
}

uint16_t blk_server_port(const struct blk_server *s)
{
    return s->port;
}

void blk_server_fence(struct blk_server *s, uint64_t until_ms)
{
    atomic_store(&s->fence_ms, until_ms);
}

void blk_server_stats(struct blk_server *s, struct blk_stats *ret)
{
    *ret = (struct blk_stats){
        .writers = atomic_load(&s->writers),
        .readers = atomic_load(&s->readers),
        .turned_away = atomic_load(&s->turned_away),
        .refused = atomic_load(&s->refused),
        .written_bytes = atomic_load(&s->written_bytes),
        .read_bytes = atomic_load(&s->read_bytes),
    };
    pthread_mutex_lock(&s->mu);
    ret->connections = s->count;
    pthread_mutex_unlock(&s->mu);
}
