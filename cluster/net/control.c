#include "cluster/net/control.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/addr.h"
#include "cluster/base/clock.h"
#include "cluster/base/fault.h"
#include "cluster/base/list.h"
#include "cluster/net/control_nng.h"

#define SEND_MS          10000 /* for an answer; a client that does not take it asks again */
#define RESEND_MS        1000  /* nng asks again after this long, or on a new connection */
#define SILENCE_MS       2000  /* without an answer: another connection */
#define RECONNECT_MIN_MS 50
#define RECONNECT_MAX_MS 1000
#define ELECTION_WAIT_MS 100 /* before a master that does not lead is asked again */
#define ONE_MASTER_MS    500 /* at least, before the next one is tried */

/* ---- server: threads with an nng context each receive, handle, send, and again ---- */

struct worker {
    struct control_server *s;
    nng_ctx ctx;
    nng_aio *aio;
    struct wire_out rep;
    pthread_t thread;
    bool started;
};

struct control_server {
    nng_socket sock;
    struct control_server_conf conf;
    uint16_t port;
    atomic_uint connections;
    atomic_uint_fast64_t dropped;
    struct worker *workers;
};

/* The answer to m, or NULL: none, the sender asks again. */
static nng_msg *answer(struct worker *w, nng_msg *m)
{
    struct control_server *s = w->s;
    struct frame f;
    struct slice msg;
    int err = control_get(m, &f, &msg);

    if (err != 0 || (f.flags & FRAME_REPLY) != 0) {
        atomic_fetch_add(&s->dropped, 1);
        return NULL;
    }
    wire_out_reset(&w->rep);
    err = s->conf.fn(s->conf.arg, f.type, msg, &w->rep);
    if (w->rep.err != 0) {
        err = w->rep.err;
        wire_out_reset(&w->rep);
    }
    if (FAULT("net.control.reply") != 0) {
        return NULL;
    }
    f = (struct frame){
        .type = f.type, .flags = FRAME_REPLY, .status = (uint32_t)err, .req_id = f.req_id
    };
    return control_put(&f, wire_out_slice(&w->rep));
}

static void *worker_thread(void *arg)
{
    struct worker *w = arg;

    pthread_setname_np(pthread_self(), "control");
    for (;;) {
        nng_msg *rep = NULL;
        int rv = control_wait(w->ctx, w->aio, nng_ctx_recv, NNG_DURATION_INFINITE);

        if (rv == 0) {
            nng_msg *m = nng_aio_get_msg(w->aio);

            rep = answer(w, m);
            nng_msg_free(m);
        }
        if (rep != NULL) {
            nng_aio_set_msg(w->aio, rep);
            rv = control_wait(w->ctx, w->aio, nng_ctx_send, SEND_MS);
            if (rv != 0) {
                nng_msg_free(rep);
            }
        }
        if (rv == NNG_ECLOSED || rv == NNG_ECANCELED) {
            return NULL;
        }
    }
}

/* nng takes as many connections as there are descriptors, and the log needs some. */
static void on_connection(nng_pipe p, nng_pipe_ev ev, void *arg)
{
    struct control_server *s = arg;

    if (ev == NNG_PIPE_EV_REM_POST) {
        atomic_fetch_sub(&s->connections, 1);
    } else if (atomic_fetch_add(&s->connections, 1) >= s->conf.connections_max &&
               s->conf.connections_max != 0) {
        nng_pipe_close(p);
    }
}

static int server_open(struct control_server *s, struct why *why)
{
    int rv = nng_rep0_open(&s->sock);

    rv = rv != 0 ? rv : nng_socket_set_size(s->sock, NNG_OPT_RECVMAXSZ, CONTROL_MESSAGE_MAX);
    rv = rv != 0 ? rv : nng_pipe_notify(s->sock, NNG_PIPE_EV_ADD_PRE, on_connection, s);
    rv = rv != 0 ? rv : nng_pipe_notify(s->sock, NNG_PIPE_EV_REM_POST, on_connection, s);
    return rv != 0 ? why_set(why, control_err(rv), "control plane: %s", nng_strerror(rv)) : DFS_OK;
}

static int server_listen(struct control_server *s, struct why *why)
{
    const char *listen = s->conf.listen;
    nng_listener l;
    char url[CONTROL_URL_BYTES];
    int port = 0;
    int rv;
    int err = control_url(listen, url, why);

    if (err != 0) {
        return err;
    }
    rv = nng_listener_create(&l, s->sock, url);
    rv = rv != 0 ? rv : nng_listener_set_bool(l, NNG_OPT_TCP_KEEPALIVE, true);
    rv = rv != 0 ? rv : nng_listener_start(l, 0);
    rv = rv != 0 ? rv : nng_listener_get_int(l, NNG_OPT_TCP_BOUND_PORT, &port);
    if (rv == NNG_EADDRINUSE) {
        return why_set(why, DFS_EBUSY, "%s: the port is in use by another process", listen);
    }
    if (rv != 0) {
        return why_set(why, control_err(rv), "%s: cannot listen: %s", listen, nng_strerror(rv));
    }
    s->port = (uint16_t)port;
    return DFS_OK;
}

static int start_worker(struct control_server *s, struct worker *w, struct why *why)
{
    int rc;
    int rv;

    w->s = s;
    wire_out_init(&w->rep, LIMIT_MSG);
    rv = nng_aio_alloc(&w->aio, NULL, NULL);
    rv = rv != 0 ? rv : nng_ctx_open(&w->ctx, s->sock);
    if (rv != 0) {
        return why_set(why, control_err(rv), "control plane: %s", nng_strerror(rv));
    }
    rc = pthread_create(&w->thread, NULL, worker_thread, w);
    if (rc != 0) {
        return why_set(why, err_from_errno(rc), "cannot start a thread: %s", strerror(rc));
    }
    w->started = true;
    return DFS_OK;
}

int control_server_start(const struct control_server_conf *conf, struct control_server **ret,
                         struct why *why)
{
    struct control_server *s = x_alloc(sizeof(*s));
    int err;

    ASSERT(conf->parallel >= 1);
    *s = (struct control_server){ .conf = *conf };
    s->workers = x_alloc((size_t)conf->parallel * sizeof(*s->workers));
    err = server_open(s, why);
    err = err != 0 ? err : server_listen(s, why);
    for (int i = 0; i < conf->parallel && err == 0; i++) {
        err = start_worker(s, &s->workers[i], why);
    }
    if (err != 0) {
        control_server_stop(s);
        return err;
    }
    *ret = s;
    return DFS_OK;
}

void control_server_stop(struct control_server *s)
{
    if (s == NULL) {
        return;
    }
    for (int i = 0; i < s->conf.parallel; i++) {
        nng_aio_stop(s->workers[i].aio);
    }
    for (int i = 0; i < s->conf.parallel; i++) {
        struct worker *w = &s->workers[i];

        if (w->started) {
            pthread_join(w->thread, NULL);
        }
        if (w->aio != NULL) {
            nng_ctx_close(w->ctx);
            nng_aio_free(w->aio);
        }
        wire_out_fini(&w->rep);
    }
    control_close(s->sock);
    free(s->workers);
    free(s);
}

uint16_t control_server_port(const struct control_server *s)
{
    return s->port;
}

uint64_t control_server_dropped(const struct control_server *s)
{
    return atomic_load(&s->dropped);
}

/* ---- client ---- */

struct master {
    nng_socket sock;
    atomic_int pipe; /* id of the newest connection */
    atomic_uint_fast64_t answered_ms;
};

struct control_client {
    struct master masters[LIMIT_MASTERS];
    int count;
    atomic_int current; /* who is asked first */
    atomic_uint_fast64_t last_req;
    pthread_mutex_t mu;
    pthread_cond_t idle;
    bool closing;      /* guarded by: mu */
    int calls;         /* guarded by: mu; running control_call()s */
    struct list waits; /* guarded by: mu; struct wait: what they wait for */
};

/* One operation that closing must end. */
struct wait {
    struct list link;
    nng_aio *aio;
};

static void on_pipe(nng_pipe p, nng_pipe_ev ev, void *arg)
{
    struct master *m = arg;

    (void)ev;
    atomic_store(&m->pipe, nng_pipe_id(p));
}

static int dial(struct master *m, const char *url)
{
    int rv = nng_req0_open(&m->sock);

    if (rv != 0) {
        return rv;
    }
    rv = nng_socket_set_size(m->sock, NNG_OPT_RECVMAXSZ, CONTROL_MESSAGE_MAX);
    rv = rv != 0 ? rv : nng_socket_set_ms(m->sock, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS);
    rv = rv != 0 ? rv : nng_socket_set_ms(m->sock, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS);
    rv = rv != 0 ? rv : nng_socket_set_ms(m->sock, NNG_OPT_REQ_RESENDTIME, RESEND_MS);
    rv = rv != 0 ? rv : nng_pipe_notify(m->sock, NNG_PIPE_EV_ADD_POST, on_pipe, m);
    rv = rv != 0 ? rv : nng_dial(m->sock, url, NULL, NNG_FLAG_NONBLOCK);
    if (rv != 0) {
        control_close(m->sock);
    }
    return rv;
}

int control_client_open(const char *addrs, struct control_client **ret, struct why *why)
{
    struct control_client *c = x_alloc(sizeof(*c));
    char addr[ADDR_TEXT];
    char url[CONTROL_URL_BYTES];
    int err = DFS_OK;

    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->idle, NULL);
    list_init(&c->waits);
    while (err == 0 && addr_nth(addrs, c->count, addr) != NULL) {
        int rv;

        if (c->count == LIMIT_MASTERS) {
            err = why_set(why, DFS_EINVAL, "more than %d masters", LIMIT_MASTERS);
            break;
        }
        err = control_url(addr, url, why);
        rv = err == 0 ? dial(&c->masters[c->count], url) : 0;
        if (rv != 0) {
            err = why_set(why, control_err(rv), "%s: %s", addr, nng_strerror(rv));
        }
        c->count += err == 0 ? 1 : 0;
    }
    if (err != 0) {
        control_client_close(c);
        return err;
    }
    *ret = c;
    return DFS_OK;
}

void control_client_stop(struct control_client *c)
{
    pthread_mutex_lock(&c->mu);
    c->closing = true;
    for (struct list *l = c->waits.next; l != &c->waits; l = l->next) {
        nng_aio_stop(CONTAINER_OF(l, struct wait, link)->aio);
    }
    pthread_mutex_unlock(&c->mu);
}

void control_client_close(struct control_client *c)
{
    if (c == NULL) {
        return;
    }
    control_client_stop(c);
    pthread_mutex_lock(&c->mu);
    while (c->calls != 0) {
        pthread_cond_wait(&c->idle, &c->mu);
    }
    pthread_mutex_unlock(&c->mu);
    for (int i = 0; i < c->count; i++) {
        control_close(c->masters[i].sock);
    }
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

static uint64_t left_until(uint64_t deadline_ms)
{
    uint64_t now = clock_mono_ms();

    return deadline_ms > now ? MIN(deadline_ms - now, (uint64_t)INT32_MAX) : 0;
}

/* Adds to what closing ends; false: it closes already. */
static bool wait_begin(struct control_client *c, struct wait *w)
{
    bool ok;

    pthread_mutex_lock(&c->mu);
    ok = !c->closing;
    if (ok) {
        list_push_back(&c->waits, &w->link);
    }
    pthread_mutex_unlock(&c->mu);
    return ok;
}

static void wait_end(struct control_client *c, struct wait *w)
{
    pthread_mutex_lock(&c->mu);
    list_remove(&w->link);
    pthread_mutex_unlock(&c->mu);
}

/* Sends m and waits for its answer. *m is NULL afterwards when nng has taken it. */
static int exchange(nng_ctx ctx, nng_aio *aio, nng_msg **m, uint64_t deadline_ms, nng_msg **ret)
{
    int rv;

    nng_aio_set_msg(aio, *m);
    /* never with 0: to nng that is no waiting at all, and differs in more than time */
    rv = control_wait(ctx, aio, nng_ctx_send, (nng_duration)MAX(left_until(deadline_ms), 1));
    if (rv != 0) {
        return rv;
    }
    *m = NULL;
    rv = control_wait(ctx, aio, nng_ctx_recv, (nng_duration)MAX(left_until(deadline_ms), 1));
    if (rv == 0) {
        *ret = nng_aio_get_msg(aio);
    }
    return rv;
}

/* The same with all that an exchange needs; m is taken. */
static int ask(struct control_client *c, nng_socket sock, nng_msg *m, uint64_t deadline_ms,
               nng_msg **ret)
{
    nng_ctx ctx;
    struct wait w;
    int rv = nng_aio_alloc(&w.aio, NULL, NULL);

    if (rv == 0) {
        rv = wait_begin(c, &w) ? 0 : NNG_ECLOSED;
        if (rv == 0) {
            rv = nng_ctx_open(&ctx, sock);
            if (rv == 0) {
                rv = exchange(ctx, w.aio, &m, deadline_ms, ret);
                nng_ctx_close(ctx);
            }
            wait_end(c, &w);
        }
        nng_aio_free(w.aio);
    }
    if (m != NULL) {
        nng_msg_free(m);
    }
    return control_err(rv);
}

/* One master. *ret_answered tells a status that it sent from a failure to get one. */
static int call_one(struct control_client *c, struct master *who, uint16_t type, struct slice msg,
                    struct wire_out *rep, uint64_t deadline_ms, bool *ret_answered)
{
    struct frame request = { .type = type, .req_id = atomic_fetch_add(&c->last_req, 1) + 1 };
    struct frame f = { 0 };
    struct slice got = SLICE_EMPTY;
    nng_msg *back = NULL;
    nng_msg *m = control_put(&request, msg);
    int err = m != NULL ? ask(c, who->sock, m, deadline_ms, &back) : DFS_ENOMEM;

    if (err != 0) {
        return err;
    }
    err = control_get(back, &f, &got);
    if (err == 0 && ((f.flags & FRAME_REPLY) == 0 || f.req_id != request.req_id || f.type != type ||
                     f.status > INT32_MAX)) {
        err = DFS_EMALFORMED;
    }
    if (err == 0) {
        *ret_answered = true;
        atomic_store(&who->answered_ms, clock_mono_ms());
        wire_out_reset(rep);
        wire_put_raw(rep, got.p, got.len);
        err = rep->err != 0 ? rep->err : (int)f.status;
    }
    nng_msg_free(back);
    return err;
}

/* When nothing came for long although requests were repeated, the peer's machine may be gone
 * without a word: nng connects anew then and repeats what is under way. */
static void mind_silence(struct master *m, uint64_t since_ms)
{
    if (clock_mono_ms() - since_ms >= SILENCE_MS && atomic_load(&m->answered_ms) < since_ms) {
        nng_pipe p = { .id = (uint32_t)atomic_load(&m->pipe) };

        nng_pipe_close(p);
    }
}

static int call_until(struct control_client *c, uint16_t type, struct slice msg,
                      struct wire_out *rep, uint64_t deadline_ms)
{
    bool refused = false; /* somebody said that he does not lead */

    for (int tries = 1;; tries++) {
        int who = atomic_load(&c->current);
        uint64_t share = MAX(left_until(deadline_ms) / (uint64_t)c->count, (uint64_t)ONE_MASTER_MS);
        uint64_t begin = clock_mono_ms();
        bool answered = false;
        int err = call_one(c, &c->masters[who], type, msg, rep, MIN(deadline_ms, begin + share),
                           &answered);

        if (answered ? err != DFS_ENOTLEADER : err != DFS_ETIMEOUT) {
            return err;
        }
        if (!answered) {
            mind_silence(&c->masters[who], begin);
        }
        refused = refused || answered;
        /* Only one of several callers that met the same master moves on from it. */
        atomic_compare_exchange_strong(&c->current, &who, (who + 1) % c->count);
        if (answered && tries % c->count == 0) {
            nng_msleep((nng_duration)MIN(left_until(deadline_ms), (uint64_t)ELECTION_WAIT_MS));
        }
        if (left_until(deadline_ms) == 0) {
            return refused ? DFS_ENOTLEADER : DFS_ETIMEOUT;
        }
    }
}

int control_call(struct control_client *c, uint16_t type, struct slice msg, struct wire_out *rep,
                 uint64_t deadline_ms)
{
    int err;

    if (msg.len > LIMIT_MSG) {
        return DFS_ETOOBIG;
    }
    err = FAULT("net.control.call");
    if (err != 0) {
        return err;
    }
    pthread_mutex_lock(&c->mu);
    c->calls++;
    pthread_mutex_unlock(&c->mu);
    err = call_until(c, type, msg, rep, deadline_ms);
    pthread_mutex_lock(&c->mu);
    c->calls--;
    if (c->calls == 0) {
        pthread_cond_signal(&c->idle);
    }
    pthread_mutex_unlock(&c->mu);
    return err;
}
