/* Events from a master's threads to clients': a master of nothing but sessions and events on real
 * loops, real clients' threads. */
#include "fs/client/events.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/clock.h"
#include "cluster/base/conf.h"
#include "cluster/base/err.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"

#include "fs/role/events.h"

#include "test/unit/tap.h"

#define SOON (clock_mono_ms() + 4000)

static const uint8_t cluster_id[CLUSTER_ID_BYTES] = "events";
static struct rpc_server *server;
static struct events events;
static pthread_t ticker;
static atomic_bool stopping;
static uint16_t port;
static char address[32];
static _Atomic uint64_t last_session; /* that was given */
static _Atomic uint64_t lost_session; /* up to here they are gone */
static atomic_int polls;

/* ---- the master ---- */

static void on_command(void *arg UNUSED, struct rpc_loop *l, struct rpc_token t, struct slice msg)
{
    uint8_t buf[512];
    struct wire_out rep = wire_out_over(buf, sizeof(buf));

    (void)msg;
    if (t.type == RPC_session_open) {
        session_open_rep_put(&rep, &(struct session_open_rep){
                                       .session = atomic_fetch_add(&last_session, 1) + 1,
                                       .lease_ms = 1000,
                                       .block_size = 1 << 20,
                                       .cluster = slice_of(cluster_id, sizeof(cluster_id)),
                                   });
    }
    rpc_reply(l, t, 0, wire_out_slice(&rep));
}

static int poll_request(struct rpc_loop *l, struct rpc_token t, struct slice msg,
                        struct wire_out *rep, bool *held)
{
    struct wire_in in = wire_in_of(msg);
    struct session_poll_req q;
    struct call_hdr hdr;

    CHECK_INT(call_hdr_get(&in, &hdr), 0);
    CHECK_INT(session_poll_req_get(slice_of(in.p, in.left), &q), 0);
    atomic_fetch_add(&polls, 1);
    return hdr.session > atomic_load(&lost_session)
               ? events_poll(&events, hdr.session, &q, l, t, clock_mono_ms(), rep, held)
               : DFS_ESESSION;
}

static void on_query(void *arg UNUSED, struct rpc_loop *l, struct rpc_token t, struct slice msg)
{
    struct wire_out rep;
    bool held = false;
    int err;

    wire_out_init(&rep, LIMIT_MSG);
    err = poll_request(l, t, msg, &rep, &held);
    if (!held) {
        rpc_reply(l, t, err, err == 0 ? wire_out_slice(&rep) : SLICE_EMPTY);
    }
    wire_out_fini(&rep);
}

static void on_woken(void *arg UNUSED, struct rpc_loop *l)
{
    struct rpc_token t;
    struct wire_out rep;
    int status;

    wire_out_init(&rep, LIMIT_MSG);
    while (events_answer(&events, l, &t, &status, &rep)) {
        rpc_reply(l, t, status, wire_out_slice(&rep));
        wire_out_reset(&rep);
    }
    wire_out_fini(&rep);
}

static void *tick(void *arg)
{
    struct rpc_loop *commands = rpc_server_command_loop(server);
    struct pollfd p = { .fd = rpc_loop_fd(commands), .events = POLLIN };

    while (!atomic_load(&stopping)) {
        (void)poll(&p, 1, 20);
        rpc_loop_step(commands);
        events_tick(&events, clock_mono_ms());
    }
    return arg;
}

static void master_start(void)
{
    char listen[32];
    struct rpc_server_conf rc = { .listen = listen,
                                  .query_loops = 2,
                                  .on_query = on_query,
                                  .on_command = on_command,
                                  .on_woken = on_woken,
                                  .cluster = slice_of(cluster_id, sizeof(cluster_id)) };

    snprintf(listen, sizeof(listen), "127.0.0.1:%u", port);
    events_init(&events, 300);
    atomic_store(&stopping, false);
    CHECK_INT(rpc_server_start(&rc, &server, NULL), 0);
    port = rpc_server_port(server);
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    pthread_create(&ticker, NULL, tick, NULL);
}

static void master_stop(void)
{
    events_close(&events);
    atomic_store(&stopping, true);
    pthread_join(ticker, NULL);
    rpc_server_stop(server);
    events_fini(&events);
}

/* ---- a poller by hand ---- */

static struct conn *raw_open(void)
{
    struct conn *c = NULL;

    CHECK_INT(conn_open_hello(address, HELLO_QUERY, SLICE_EMPTY, SOON, &c, NULL, NULL), 0);
    return c;
}

/* kinds of the events, as text */
static int raw_poll(struct conn *c, uint64_t session, struct session_poll_req *at, char *ret)
{
    struct call_hdr hdr = { .session = session };
    struct session_poll_rep r;
    struct wire_out out;
    struct slice rep;
    int err;

    ret[0] = '\0';
    wire_out_init(&out, KIB);
    call_hdr_put(&out, &hdr);
    session_poll_req_put(&out, at);
    err = conn_call(c, RPC_session_poll, wire_out_slice(&out), &rep, SOON);
    wire_out_fini(&out);
    err = err != 0 ? err : session_poll_rep_get(rep, &r);
    if (err == 0) {
        struct wire_in in = wire_in_of(r.events.items);
        struct event ev;

        for (uint32_t i = 0; i < r.events.count; i++) {
            CHECK_INT(event_get(&in, &ev), 0);
            ret += sprintf(ret, "%s%u:%ju", i > 0 ? " " : "", ev.kind, (uintmax_t)ev.ino);
        }
        at->channel = r.channel;
        at->seen = r.next;
    }
    return err;
}

static void post(uint64_t session, uint8_t kind, uint64_t ino)
{
    events_post(&events, session,
                &(struct event){ .kind = kind, .ino = ino, .name = slice_str("name") });
}

static void test_queue(void)
{
    struct session_poll_req at = { 0 }, before;
    static char text[64 * 1024];
    struct conn *c, *d;

    master_start();
    c = raw_open();
    d = raw_open();
    CHECK(!events_wanted(&events));
    post(7, EVENT_INODE, 1); /* nobody asks yet */
    CHECK_INT(raw_poll(c, 7, &at, text), 0);
    CHECK_STR(text, "1:0");
    CHECK(events_wanted(&events));
    CHECK_INT(raw_poll(c, 7, &at, text), 0); /* held for a while, then empty */
    CHECK_STR(text, "");
    post(8, EVENT_INODE, 1); /* another's */
    post(7, EVENT_INODE, 5);
    post(7, EVENT_ENTRY, 6);
    post(7, EVENT_INODE, 5); /* once is enough */
    before = at;
    CHECK_INT(raw_poll(c, 7, &at, text), 0);
    CHECK_STR(text, "2:5 3:6");
    CHECK_INT(raw_poll(d, 7, &before, text), 0); /* the answer was lost */
    CHECK_STR(text, "2:5 3:6");
    CHECK_INT(raw_poll(d, 7, &at, text), 0);
    CHECK_STR(text, "");
    post(7, EVENT_INODE, 5); /* again, it was told before */
    CHECK_INT(raw_poll(d, 7, &at, text), 0);
    CHECK_STR(text, "2:5");
    before.channel++;
    CHECK_INT(raw_poll(d, 7, &before, text), 0); /* of another master */
    CHECK_STR(text, "1:0");
    at = before;
    for (uint64_t i = 0; i < 3 * EVENTS_QUEUE_MAX + 1; i++) {
        post(7, EVENT_INODE, i);
    }
    CHECK_INT(raw_poll(d, 7, &at, text), 0);
    CHECK(strncmp(text, "1:0 2:", 6) == 0);
    CHECK(strlen(text) < EVENTS_QUEUE_MAX * 8);
    events_end(&events, 7);
    CHECK(!events_wanted(&events));
    conn_close(c);
    conn_close(d);
    master_stop();
}

static void *end_soon(void *arg)
{
    usleep(20000);
    events_end(&events, 9);
    return arg;
}

static void test_end(void)
{
    struct session_poll_req at = { 0 };
    char text[64];
    pthread_t t;
    struct conn *c;

    master_start();
    c = raw_open();
    CHECK_INT(raw_poll(c, 9, &at, text), 0);
    pthread_create(&t, NULL, end_soon, NULL);
    CHECK_INT(raw_poll(c, 9, &at, text), DFS_ESESSION);
    pthread_join(t, NULL);
    conn_close(c);
    master_stop();
}

/* ---- clients ---- */

struct hearer {
    pthread_mutex_t mu;
    uint64_t inodes; /* guarded by: mu; events about inodes */
    uint64_t last;
    uint64_t all;
};

static void hear(void *arg, const struct event *ev)
{
    struct hearer *h = arg;

    pthread_mutex_lock(&h->mu);
    if (ev->kind == EVENT_ALL) {
        h->all++;
    } else {
        CHECK(slice_eq(ev->name, slice_str("name")));
        h->inodes++;
        h->last = ev->ino;
    }
    pthread_mutex_unlock(&h->mu);
}

static struct hearer state(struct hearer *h)
{
    struct hearer copy;

    pthread_mutex_lock(&h->mu);
    copy = *h;
    pthread_mutex_unlock(&h->mu);
    return copy;
}

#define WAIT_FOR(cond)                                               \
    do {                                                             \
        for (uint64_t by = SOON; !(cond) && clock_mono_ms() < by;) { \
            usleep(2000);                                            \
        }                                                            \
        CHECK(cond);                                                 \
    } while (0)

static struct meta *meta_start(struct conf **ret)
{
    struct conf *conf = conf_new();
    struct meta *m = NULL;
    char set[64];

    snprintf(set, sizeof(set), "masters=%s", address);
    CHECK_INT(conf_set(conf, set, NULL), 0);
    CHECK_INT(meta_open(conf, "host", "test", &m, NULL), 0);
    *ret = conf;
    return m;
}

static void test_client(void)
{
    struct hearer one = { .mu = PTHREAD_MUTEX_INITIALIZER };
    struct hearer two = { .mu = PTHREAD_MUTEX_INITIALIZER };
    struct client_events *e;
    struct conf *conf;
    struct meta *m;
    uint64_t session, all;

    master_start();
    m = meta_start(&conf);
    session = meta_session(m);
    e = client_events_new(m);
    CHECK(!events_wanted(&events)); /* nobody listens */
    client_events_on(e, hear, &one);
    client_events_on(e, hear, &two);
    WAIT_FOR(state(&one).all == 1);
    for (uint64_t i = 1; i <= 100; i++) {
        post(session, EVENT_INODE, i);
    }
    WAIT_FOR(state(&one).inodes == 100 && state(&two).inodes == 100);
    CHECK_INT(state(&one).last, 100);
    client_events_off(e, hear, &two);
    post(session, EVENT_INODE, 101);
    WAIT_FOR(state(&one).last == 101);
    CHECK_INT(state(&two).last, 100);

    all = state(&one).all; /* the master starts again */
    master_stop();
    master_start();
    WAIT_FOR(state(&one).all > all);
    post(session, EVENT_INODE, 102);
    WAIT_FOR(state(&one).last == 102);

    atomic_store(&lost_session, session); /* and forgets the session */
    events_end(&events, session);
    post(session, EVENT_INODE, 103);
    usleep(50000);
    CHECK_INT(state(&one).last, 102);
    client_events_free(e); /* while it has no session */
    meta_close(m);
    conf_free(conf);
    master_stop();
}

/* Several threads post while the client asks and the session's requests are lost. */
static void *post_many(void *arg)
{
    const uint64_t *session = arg;

    for (uint64_t i = 1; i <= 3000; i++) {
        post(*session, EVENT_INODE, i);
        if (i % 100 == 0) {
            usleep(1000);
        }
    }
    return NULL;
}

static void test_threads(void)
{
    struct hearer h = { .mu = PTHREAD_MUTEX_INITIALIZER };
    struct client_events *e;
    pthread_t threads[3];
    uint64_t session;
    struct conf *conf;
    struct meta *m;

    master_start();
    m = meta_start(&conf);
    session = meta_session(m);
    e = client_events_new(m);
    client_events_on(e, hear, &h);
    WAIT_FOR(state(&h).all == 1);
    for (int i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, post_many, &session);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    /* again: the queue may just have overflowed */
    WAIT_FOR((post(session, EVENT_INODE, 1u << 20), state(&h).last == 1u << 20));
    CHECK(state(&h).all > 1 || state(&h).inodes > 3000);
    client_events_free(e);
    meta_close(m);
    conf_free(conf);
    master_stop();
}

int main(void)
{
    (void)log_configure("off", NULL);
    tap_run("events wait in a bounded queue until they were seen", test_queue);
    tap_run("a session that ends has its request answered", test_end);
    tap_run("clients hear, through restarts and lost sessions", test_client);
    tap_run("many threads post", test_threads);
    return tap_done();
}
