#include "cluster/base/base.h"

#include <sys/socket.h>
#include <unistd.h>

#include "cluster/base/fault.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"
#include "cluster/net/hello.h"
#include "cluster/net/rpc_priv.h"
#include "cluster/net/sock.h"
#include "cluster/net/sock_local.h"

#define HELLO_TIMEOUT_MS 10000
#define ACCEPTS          64 /* of one turn: connections that are there already must not wait long */

/* ---- accepting ---- */

void rpc_server_accept(struct rpc_server *s, struct rpc_loop *l, int listen_fd)
{
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                log_event(LOG_WARN, "net.accept", "err=\"%s\"", strerror(errno));
                rpc_loop_listen(l, false);
                return;
            }
            if (errno == EAGAIN) {
                return;
            }
            continue; /* that one is gone again */
        }
        if (FAULT("net.rpc.accept") != 0 || atomic_load(&s->connections) >= s->connections_max) {
            atomic_fetch_add(&s->refused_connections, 1);
            close(fd);
            continue;
        }
        atomic_fetch_add(&s->connections, 1);
        sock_tune(fd);
        rpc_loop_add(l, fd);
    }
}

static struct rpc_loop *least_loaded(struct rpc_server *s)
{
    struct rpc_loop *best = &s->query[0];

    for (int i = 1; i < s->conf.query_loops; i++) {
        if (atomic_load(&s->query[i].load) < atomic_load(&best->load)) {
            best = &s->query[i];
        }
    }
    return best;
}

void rpc_server_hello(struct rpc_server *s, struct rpc_loop *l, struct rpc_conn *c,
                      struct rpc_token token, struct slice msg)
{
    struct rpc_loop *target;
    struct wire_out rep;
    char peer[SOCK_NAME_BYTES];
    uint8_t purpose = 0;
    int err;

    wire_out_init(&rep, RPC_HELLO_MSG_MAX);
    err = hello_answer(msg, HELLO_BIT(HELLO_QUERY) | HELLO_BIT(HELLO_COMMAND), s->conf.cluster, 0,
                       &rep, &purpose);
    sock_peer_name(c->fd, peer);
    rpc_reply(l, token, err, wire_out_slice(&rep));
    wire_out_fini(&rep);
    if (err != 0) {
        atomic_fetch_add(err == DFS_EMALFORMED ? &l->refused_frames : &s->refused_versions, 1);
        log_event(LOG_WARN, "net.hello_refused", "peer=%s err=\"%s\"", peer, err_text(err));
        rpc_conn_close(l, c);
        return;
    }
    if (c->fd < 0) {
        return;
    }
    target = purpose == HELLO_COMMAND ? &s->command : least_loaded(s);
    atomic_fetch_add(&target->load, 1);
    l->strangers--;
    c->ready = true;
    c->moves_to = target != l ? target : NULL;
}

/* ---- starting and stopping ---- */

static void *query_thread(void *arg)
{
    struct rpc_loop *l = arg;
    char name[16];

    snprintf(name, sizeof(name), "query-%d", l->index);
    pthread_setname_np(pthread_self(), name);
    rpc_loop_run(l);
    return NULL;
}

static int start_threads(struct rpc_server *s, struct why *why)
{
    int rc = 0;

    for (int i = 0; i < s->conf.query_loops && rc == 0; i++) {
        rc = pthread_create(&s->query[i].thread, NULL, query_thread, &s->query[i]);
        s->query[i].started = rc == 0;
    }
    return rc == 0 ? DFS_OK
                   : why_set(why, err_from_errno(rc), "cannot start a thread: %s", strerror(rc));
}

int rpc_server_start(const struct rpc_server_conf *conf, struct rpc_server **ret, struct why *why)
{
    struct rpc_server *s = x_alloc(sizeof(*s));
    int err;

    ASSERT(conf->query_loops >= 1);
    ASSERT(conf->cluster.len == 0 || conf->cluster.len == CLUSTER_ID_BYTES);
    s->conf = *conf;
    s->listen_fd[0] = s->listen_fd[1] = -1;
    s->hello_timeout_ms =
        (uint64_t)(conf->hello_timeout_ms != 0 ? conf->hello_timeout_ms : HELLO_TIMEOUT_MS);
    s->connections_max =
        (unsigned)(conf->connections_max != 0 ? conf->connections_max : LIMIT_CONNECTIONS);
    if (conf->cluster.len != 0) {
        memcpy(s->cluster, conf->cluster.p, sizeof(s->cluster));
        s->conf.cluster.p = s->cluster;
    }
    s->query = x_alloc((size_t)conf->query_loops * sizeof(*s->query));
    err = rpc_loop_init(&s->command, s, -1, conf->on_command, why);
    for (int i = 0; i < conf->query_loops && err == 0; i++) {
        err = rpc_loop_init(&s->query[i], s, i, conf->on_query, why);
    }
    if (err != 0) {
        goto out;
    }
    err = conn_listen(conf->listen, &s->listen_fd[0], &s->port, why);
    if (err != 0) {
        goto out;
    }
    s->listen_fd[1] = sock_local_listen(s->listen_fd[0]);
    s->query[0].accepts = true;
    rpc_loop_listen(&s->query[0], true);
    err = start_threads(s, why);
out:
    if (err != 0) {
        rpc_server_stop(s);
        return err;
    }
    *ret = s;
    return DFS_OK;
}

void rpc_server_stop(struct rpc_server *s)
{
    if (s == NULL) {
        return;
    }
    atomic_store(&s->stopping, true);
    for (int i = 0; i < s->conf.query_loops; i++) {
        if (s->query[i].started) {
            rpc_loop_wake(&s->query[i]);
            pthread_join(s->query[i].thread, NULL);
        }
    }
    for (int i = 0; i < s->conf.query_loops; i++) {
        rpc_loop_fini(&s->query[i]);
    }
    rpc_loop_fini(&s->command);
    for (size_t i = 0; i < ARRAY_LEN(s->listen_fd); i++) {
        if (s->listen_fd[i] >= 0) {
            close(s->listen_fd[i]);
        }
    }
    free(s->query);
    free(s);
}

uint16_t rpc_server_port(const struct rpc_server *s)
{
    return s->port;
}

struct rpc_loop *rpc_server_command_loop(struct rpc_server *s)
{
    return &s->command;
}

void rpc_server_stats(const struct rpc_server *s, struct rpc_stats *ret)
{
    struct rpc_stats st = {
        .connections = atomic_load(&s->connections),
        .refused_versions = atomic_load(&s->refused_versions),
        .refused_connections = atomic_load(&s->refused_connections),
        .requests = atomic_load(&s->command.requests),
        .refused_frames = atomic_load(&s->command.refused_frames),
    };

    for (int i = 0; i < s->conf.query_loops; i++) {
        st.requests += atomic_load(&s->query[i].requests);
        st.refused_frames += atomic_load(&s->query[i].refused_frames);
    }
    *ret = st;
}
