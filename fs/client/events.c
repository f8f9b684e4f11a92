#include "fs/client/events.h"

#include "cluster/base/base.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/fault.h"
#include "cluster/base/limits.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"

#define SEND_MS      3000 /* to connect and to send; to receive what has begun to arrive */
#define GRACE_MS     2000 /* an answer may be later than promised by this much */
#define PAUSE_MS     50   /* after a failure; doubled up to PAUSE_MAX_MS */
#define PAUSE_MAX_MS 500

struct client_events {
    struct meta *meta;
    pthread_t thread;
    int stop_fd; /* readable: end */
    pthread_mutex_t mu;
    bool started; /* guarded by: mu, as all below */
    struct {
        client_event_fn *fn;
        void *arg;
    } handlers[CLIENT_EVENT_HANDLERS];

    /* the thread's own */
    struct conn *conn;
    uint64_t req_id;
    uint64_t session; /* that the channel is of */
    uint64_t channel;
    uint64_t seen;
    struct wire_out out;
};

struct client_events *client_events_new(struct meta *m)
{
    struct client_events *e = x_alloc(sizeof(*e));

    e->meta = m;
    e->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ASSERT(e->stop_fd >= 0);
    pthread_mutex_init(&e->mu, NULL);
    wire_out_init(&e->out, KIB);
    return e;
}

/* ---- the thread ---- */

static void tell(struct client_events *e, const struct event *ev)
{
    pthread_mutex_lock(&e->mu);
    for (size_t i = 0; i < CLIENT_EVENT_HANDLERS; i++) {
        if (e->handlers[i].fn != NULL) {
            e->handlers[i].fn(e->handlers[i].arg, ev);
        }
    }
    pthread_mutex_unlock(&e->mu);
}

/* False: time is up. *ret_stop: the end was asked for. fd -1: only that is waited for. */
static bool wait_for(struct client_events *e, int fd, uint64_t ms, bool *ret_stop)
{
    struct pollfd p[2] = { { .fd = e->stop_fd, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
    uint64_t until = clock_mono_ms() + ms;
    uint64_t now = until - ms;
    int n = 0;

    while (n == 0 && now < until) {
        n = poll(p, 2, (int)MIN(until - now, (uint64_t)INT32_MAX));
        n = n < 0 && errno == EINTR ? 0 : n;
        now = clock_mono_ms();
    }
    *ret_stop = p[0].revents != 0;
    return p[1].revents != 0;
}

static int send_request(struct client_events *e, uint64_t deadline_ms)
{
    struct frame f = { .type = RPC_session_poll, .req_id = ++e->req_id };
    struct session_poll_req q = { 0 };
    struct call_hdr hdr = { .session = meta_session(e->meta) };
    int err = FAULT("client.events.send");

    if (err != 0) {
        return err;
    }
    if (hdr.session == e->session) {
        q.channel = e->channel;
        q.seen = e->seen;
    }
    e->session = hdr.session;
    wire_out_reset(&e->out);
    call_hdr_put(&e->out, &hdr);
    session_poll_req_put(&e->out, &q);
    return conn_send(e->conn, &f, wire_out_slice(&e->out), NULL, 0, deadline_ms);
}

static int receive(struct client_events *e)
{
    struct session_poll_rep r;
    struct frame f;
    struct slice msg;
    struct wire_in in;
    int err = conn_recv(e->conn, &f, &msg, clock_mono_ms() + SEND_MS);

    if (err == 0 && (f.req_id != e->req_id || f.data_len != 0 || f.status > INT32_MAX)) {
        err = DFS_EMALFORMED;
    }
    err = err != 0 ? err : (int)f.status;
    err = err != 0 ? err : session_poll_rep_get(msg, &r);
    if (err != 0) {
        return err;
    }
    in = wire_in_of(r.events.items);
    for (uint32_t i = 0; i < r.events.count && err == 0; i++) {
        struct event ev;

        err = event_get(&in, &ev);
        if (err == 0) {
            tell(e, &ev);
        }
    }
    e->channel = r.channel;
    e->seen = r.next;
    return err;
}

/* One request and its answer. */
static int ask(struct client_events *e, bool *ret_stop)
{
    uint64_t deadline_ms = clock_mono_ms() + SEND_MS;
    int err = DFS_OK;

    if (e->conn == NULL) {
        err = meta_connect(e->meta, deadline_ms, &e->conn);
    }
    err = err != 0 ? err : send_request(e, deadline_ms);
    if (err != 0) {
        return err;
    }
    if (!wait_for(e, conn_fd(e->conn), meta_lease_ms(e->meta) / 2 + GRACE_MS, ret_stop)) {
        return DFS_ETIMEOUT;
    }
    return *ret_stop ? DFS_OK : receive(e);
}

static void *events_main(void *arg)
{
    struct client_events *e = arg;
    uint64_t pause = PAUSE_MS;
    bool stop = false;

    while (!stop) {
        int err = ask(e, &stop);

        if (err == 0) {
            pause = PAUSE_MS;
            continue;
        }
        if (pause == PAUSE_MS && !stop) {
            log_event(LOG_DEBUG, "client.events", "err=%s", err_name(err));
        }
        conn_close(e->conn);
        e->conn = NULL;
        if (!stop) { /* others find the next master, and get a new session */
            wait_for(e, -1, pause, &stop);
        }
        pause = MIN(pause * 2, (uint64_t)PAUSE_MAX_MS);
    }
    return NULL;
}

/* ---- handlers ---- */

void client_events_on(struct client_events *e, client_event_fn *fn, void *arg)
{
    size_t i = 0;

    pthread_mutex_lock(&e->mu);
    while (i < CLIENT_EVENT_HANDLERS && e->handlers[i].fn != NULL) {
        i++;
    }
    ASSERT(i < CLIENT_EVENT_HANDLERS);
    e->handlers[i].fn = fn;
    e->handlers[i].arg = arg;
    if (!e->started) {
        ASSERT(pthread_create(&e->thread, NULL, events_main, e) == 0);
        e->started = true;
    }
    pthread_mutex_unlock(&e->mu);
}

void client_events_off(struct client_events *e, client_event_fn *fn, void *arg)
{
    pthread_mutex_lock(&e->mu);
    for (size_t i = 0; i < CLIENT_EVENT_HANDLERS; i++) {
        if (e->handlers[i].fn == fn && e->handlers[i].arg == arg) {
            e->handlers[i].fn = NULL;
        }
    }
    pthread_mutex_unlock(&e->mu);
}

void client_events_free(struct client_events *e)
{
    uint64_t one = 1;

    if (e == NULL) {
        return;
    }
    if (e->started) {
        ASSERT(write(e->stop_fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
        pthread_join(e->thread, NULL);
    }
    conn_close(e->conn);
    close(e->stop_fd);
    wire_out_fini(&e->out);
    pthread_mutex_destroy(&e->mu);
    free(e);
}
