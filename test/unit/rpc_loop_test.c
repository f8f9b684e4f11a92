#include "cluster/net/rpc_loop.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "cluster/base/clock.h"
#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/log.h"
#include "cluster/msgs.h"
#include "cluster/net/conn.h"

#include "test/unit/tap.h"

#define SOON (clock_mono_ms() + 4000)
#define ECHO 0x0701 /* answers with the message */
#define FAIL 0x0702 /* answers DFS_ENOENT */
#define BIG  0x0703 /* answers with 1 MiB */
#define HOLD 0x0704 /* answered later, from held[] */

static const uint8_t cluster_a[CLUSTER_ID_BYTES] = "cluster-a";
static const uint8_t cluster_b[CLUSTER_ID_BYTES] = "cluster-b";
static const struct slice cluster_1 = { cluster_a, sizeof(cluster_a) };
static const struct slice cluster_2 = { cluster_b, sizeof(cluster_b) };

static uint8_t big[1 << 20];

struct held {
    struct rpc_token tokens[256];
    int count;
};

struct fixture {
    struct rpc_server *s;
    struct rpc_loop *command;
    char addr[32];
    struct held held;       /* the command loop's */
    atomic_uint loops_seen; /* bit per query loop that handled something */
    atomic_bool stop;       /* the stepping thread */
    pthread_t stepper;
    bool stepping;
};

static void answer(struct rpc_loop *l, struct rpc_token t, struct slice msg)
{
    if (t.type == ECHO) {
        rpc_reply(l, t, 0, msg);
    } else if (t.type == FAIL) {
        rpc_reply(l, t, DFS_ENOENT, SLICE_EMPTY);
    } else if (t.type == BIG) {
        rpc_reply(l, t, 0, slice_of(big, sizeof(big)));
    }
}

static void on_query(void *arg, struct rpc_loop *l, struct rpc_token t, struct slice msg)
{
    struct fixture *f = arg;

    atomic_fetch_or(&f->loops_seen, 1u << rpc_loop_index(l));
    answer(l, t, msg);
}

static void on_command(void *arg, struct rpc_loop *l, struct rpc_token t, struct slice msg)
{
    struct fixture *f = arg;

    if (t.type == HOLD && f->held.count < (int)ARRAY_LEN(f->held.tokens)) {
        f->held.tokens[f->held.count++] = t;
        return;
    }
    answer(l, t, msg);
}

static void *step_thread(void *arg)
{
    struct fixture *f = arg;

    while (!atomic_load(&f->stop)) {
        struct pollfd p = { .fd = rpc_loop_fd(f->command), .events = POLLIN };

        poll(&p, 1, 20);
        rpc_loop_step(f->command);
    }
    return NULL;
}

static void start(struct fixture *f, struct rpc_server_conf conf, bool stepping)
{
    struct why why = { "" };

    memset(f, 0, sizeof(*f));
    conf.listen = "127.0.0.1:0";
    conf.query_loops = 2;
    conf.on_query = on_query;
    conf.on_command = on_command;
    conf.arg = f;
    conf.cluster = cluster_1;
    if (rpc_server_start(&conf, &f->s, &why) != 0) {
        printf("Bail out! %s\n", why.text);
        exit(1);
    }
    f->command = rpc_server_command_loop(f->s);
    snprintf(f->addr, sizeof(f->addr), "127.0.0.1:%u", rpc_server_port(f->s));
    f->stepping = stepping;
    if (stepping) {
        pthread_create(&f->stepper, NULL, step_thread, f);
    }
}

static void stop(struct fixture *f)
{
    if (f->stepping) {
        atomic_store(&f->stop, true);
        pthread_join(f->stepper, NULL);
    }
    rpc_server_stop(f->s);
}

static struct rpc_stats stats(const struct fixture *f)
{
    struct rpc_stats st;

    rpc_server_stats(f->s, &st);
    return st;
}

/* Polls a counter; the server's threads need a moment. */
#define EVENTUALLY(x)                                                 \
    do {                                                              \
        for (uint64_t end_ = SOON; !(x) && clock_mono_ms() < end_;) { \
            poll(NULL, 0, 1);                                         \
        }                                                             \
        CHECK(x);                                                     \
    } while (0)

static struct conn *dial(const struct fixture *f, uint8_t purpose)
{
    struct conn *c = NULL;
    struct why why = { "" };

    CHECK_INT(conn_open_hello(f->addr, purpose, cluster_1, SOON, &c, NULL, &why), 0);
    if (c == NULL) {
        printf("Bail out! %s\n", why.text);
        exit(1);
    }
    return c;
}

static struct conn *dial_raw(const struct fixture *f)
{
    struct conn *c = NULL;

    CHECK_INT(conn_open(f->addr, SOON, &c, NULL), 0);
    return c;
}

static void check_echo(struct conn *c, const char *text)
{
    struct slice got = SLICE_EMPTY;

    CHECK_INT(conn_call(c, ECHO, slice_str(text), &got, SOON), 0);
    CHECK(slice_eq(got, slice_str(text)));
}

static void check_closed(struct conn *c)
{
    struct frame f;
    struct slice msg;

    CHECK_INT(conn_recv(c, &f, &msg, SOON), DFS_ECONN);
}

/* Appends a frame as bytes. */
static void add_frame(struct wire_out *out, uint16_t type, uint64_t req, struct slice msg)
{
    struct frame f = { .type = type, .req_id = req, .msg_len = (uint32_t)msg.len };
    uint8_t header[FRAME_HEADER_BYTES];

    frame_header_put(header, &f, msg);
    wire_put_raw(out, header, sizeof(header));
    wire_put_raw(out, msg.p, msg.len);
}

static void add_hello(struct wire_out *out, uint8_t purpose, uint32_t version, struct slice cluster)
{
    struct hello_req q = { .version = version, .purpose = purpose, .cluster = cluster };
    struct wire_out msg;

    wire_out_init(&msg, 256);
    hello_req_put(&msg, &q);
    add_frame(out, RPC_hello, 1, wire_out_slice(&msg));
    wire_out_fini(&msg);
}

/* Blocking: the peer must be reading. */
static void put_all(const struct conn *c, const struct wire_out *out, size_t piece)
{
    for (size_t at = 0; at < out->len;) {
        size_t n = piece < out->len - at ? piece : out->len - at;
        ssize_t done = send(conn_fd(c), out->p + at, n, MSG_NOSIGNAL);

        if (done < 0) {
            struct pollfd p = { .fd = conn_fd(c), .events = POLLOUT };

            CHECK(errno == EAGAIN && poll(&p, 1, 4000) == 1);
            if (tap_case_bad) {
                return;
            }
            continue;
        }
        at += (size_t)done;
    }
}

static void test_answers(void)
{
    struct fixture f;
    struct conn *q[4], *c;
    struct slice got;

    start(&f, (struct rpc_server_conf){ 0 }, true);
    c = dial(&f, HELLO_COMMAND);
    for (size_t i = 0; i < ARRAY_LEN(q); i++) {
        q[i] = dial(&f, HELLO_QUERY);
        check_echo(q[i], "query");
    }
    check_echo(c, "command");
    check_echo(c, "");
    CHECK_INT(atomic_load(&f.loops_seen), 3); /* spread over both loops */
    CHECK_INT(conn_call(c, FAIL, SLICE_EMPTY, &got, SOON), DFS_ENOENT);
    CHECK_INT(conn_call(q[0], BIG, SLICE_EMPTY, &got, SOON), 0);
    CHECK(slice_eq(got, slice_of(big, sizeof(big))));
    CHECK_INT(stats(&f).connections, 5);
    CHECK_INT(stats(&f).requests, 8);
    for (size_t i = 0; i < ARRAY_LEN(q); i++) {
        conn_close(q[i]);
    }
    conn_close(c);
    EVENTUALLY(stats(&f).connections == 0);
    stop(&f);
}

static void test_hundred_connections(void)
{
    struct fixture f;
    struct conn *c[100];

    start(&f, (struct rpc_server_conf){ 0 }, true);
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = dial(&f, i % 2 == 0 ? HELLO_QUERY : HELLO_COMMAND);
    }
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_LEN(c); i++) {
            check_echo(c[i], "one of many");
        }
        for (size_t i = (size_t)round; i < ARRAY_LEN(c); i += 3) {
            conn_close(c[i]); /* slots are used again */
            c[i] = dial(&f, i % 2 == 1 ? HELLO_QUERY : HELLO_COMMAND);
        }
    }
    CHECK_INT(stats(&f).requests, 300);
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        conn_close(c[i]);
    }
    EVENTUALLY(stats(&f).connections == 0);
    stop(&f);
}

/* hello and requests in one stream, cut into pieces of all kinds: the part that comes with the
 * hello moves to the other loop with the connection. */
static void test_pipelines(void)
{
    static const size_t pieces[] = { 1, 7, 1000, 1 << 20 };
    struct fixture f;

    start(&f, (struct rpc_server_conf){ 0 }, true);
    for (size_t i = 0; i < 2 * ARRAY_LEN(pieces); i++) {
        size_t piece = pieces[i / 2];
        uint64_t count = piece == 1 ? 20 : 1000;
        struct conn *c = dial_raw(&f);
        struct wire_out out;

        wire_out_init(&out, 1 << 20);
        add_hello(&out, i % 2 == 0 ? HELLO_COMMAND : HELLO_QUERY, DFS_PROTOCOL, cluster_1);
        for (uint64_t r = 2; r < 2 + count; r++) {
            add_frame(&out, ECHO, r, slice_of(&r, sizeof(r)));
        }
        put_all(c, &out, piece);
        for (uint64_t r = 1; r < 2 + count && !tap_case_bad; r++) {
            struct frame rep;
            struct slice msg;

            CHECK_INT(conn_recv(c, &rep, &msg, SOON), 0);
            CHECK_INT(rep.req_id, r);
            CHECK(r == 1 || slice_eq(msg, slice_of(&r, sizeof(r))));
        }
        wire_out_fini(&out);
        conn_close(c);
    }
    stop(&f);
}

static void test_long_messages(void)
{
    struct fixture f;
    struct conn *c;
    struct wire_out out;
    uint8_t *p = x_alloc(LIMIT_MSG);
    struct slice got;

    start(&f, (struct rpc_server_conf){ 0 }, true);
    c = dial(&f, HELLO_COMMAND);
    for (size_t i = 0; i < LIMIT_MSG; i++) {
        p[i] = (uint8_t)(i * 7 + i / 256);
    }
    CHECK_INT(conn_call(c, ECHO, slice_of(p, LIMIT_MSG), &got, SOON), 0);
    CHECK(slice_eq(got, slice_of(p, LIMIT_MSG)));
    /* a short one right behind a long one */
    wire_out_init(&out, LIMIT_MSG + 1000);
    add_frame(&out, FAIL, 100, slice_of(p, 3000000));
    add_frame(&out, ECHO, 101, slice_str("behind"));
    put_all(c, &out, 77777);
    for (uint64_t r = 100; r < 102; r++) {
        struct frame rep;

        CHECK_INT(conn_recv(c, &rep, &got, SOON), 0);
        CHECK_INT(rep.req_id, r);
    }
    CHECK(slice_eq(got, slice_str("behind")));
    wire_out_fini(&out);
    conn_close(c);
    stop(&f);
    free(p);
}

static void mend_sum(uint8_t *frame, size_t msg_len)
{
    uint32_t sum = crc32c(crc32c(0, frame, 28), frame + FRAME_HEADER_BYTES, msg_len);

    for (int i = 0; i < 4; i++) {
        frame[28 + i] = (uint8_t)(sum >> (8 * i));
    }
}

static void test_bad_frames(void)
{
    static const struct {
        int at; /* which byte of a request is changed */
        uint8_t to;
    } cases[] = { { 0, 'x' },   { 4, 0x55 },        { 15, 0xff }, { 16, 1 },
                  { 19, 0xff }, { 6, FRAME_REPLY }, { 30, 0x99 }, { 33, '?' } };
    struct fixture f;
    struct conn *good, *c;

    start(&f, (struct rpc_server_conf){ 0 }, true);
    good = dial(&f, HELLO_COMMAND);
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        struct wire_out out;

        c = dial(&f, i % 2 == 0 ? HELLO_QUERY : HELLO_COMMAND);
        wire_out_init(&out, 1000);
        add_frame(&out, ECHO, 1, slice_str("text"));
        out.p[cases[i / 2].at] = cases[i / 2].to;
        if (cases[i / 2].at < 28 && cases[i / 2].at != 4) {
            mend_sum(out.p, 4); /* so that it is not the sum that is refused */
        }
        put_all(c, &out, out.len);
        check_closed(c);
        CHECK_INT(stats(&f).refused_frames, i + 1);
        check_echo(good, "still here");
        wire_out_fini(&out);
        conn_close(c);
    }
    /* a second hello is out of place */
    c = dial(&f, HELLO_QUERY);
    {
        struct wire_out out;

        wire_out_init(&out, 1000);
        add_hello(&out, HELLO_QUERY, DFS_PROTOCOL, cluster_1);
        put_all(c, &out, out.len);
        check_closed(c);
        wire_out_fini(&out);
    }
    conn_close(c);
    conn_close(good);
    EVENTUALLY(stats(&f).connections == 0);
    stop(&f);
}

static void test_strangers(void)
{
    static const struct {
        uint32_t version;
        uint8_t purpose;
        struct slice cluster;
        int status;
    } cases[] = { { 99, HELLO_QUERY, cluster_1, DFS_EVERSION },
                  { 0, HELLO_QUERY, cluster_1, DFS_EVERSION },
                  { 1, HELLO_COMMAND, cluster_2, DFS_EWRONGCLUSTER },
                  { 1, HELLO_BLOCK, cluster_1, DFS_EINVAL },
                  { 1, 200, cluster_1, DFS_EINVAL } };
    struct fixture f;
    struct wire_out out;
    struct conn *c;
    uint8_t junk[400];

    start(&f, (struct rpc_server_conf){ 0 }, true);
    wire_out_init(&out, LIMIT_MSG);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct frame rep;
        struct slice msg;
        struct hello_rep r;

        c = dial_raw(&f);
        wire_out_reset(&out);
        add_hello(&out, cases[i].purpose, cases[i].version, cases[i].cluster);
        put_all(c, &out, out.len);
        CHECK_INT(conn_recv(c, &rep, &msg, SOON), 0);
        CHECK_INT(rep.status, cases[i].status);
        CHECK_INT(hello_rep_get(msg, &r), 0);
        CHECK_INT(r.version, DFS_PROTOCOL);
        check_closed(c);
        conn_close(c);
    }
    CHECK_INT(stats(&f).refused_versions, ARRAY_LEN(cases));

    c = dial_raw(&f); /* a request before the hello */
    wire_out_reset(&out);
    add_frame(&out, ECHO, 1, slice_str("hi"));
    put_all(c, &out, out.len);
    check_closed(c);
    conn_close(c);
    c = dial_raw(&f); /* a hello that never ends */
    wire_out_reset(&out);
    memset(junk, 1, sizeof(junk));
    add_frame(&out, RPC_hello, 1, slice_of(junk, sizeof(junk)));
    out.len = FRAME_HEADER_BYTES;
    put_all(c, &out, out.len);
    check_closed(c);
    conn_close(c);
    c = dial_raw(&f); /* a hello that is none */
    wire_out_reset(&out);
    add_frame(&out, RPC_hello, 1, slice_of(junk, 20));
    put_all(c, &out, out.len);
    EVENTUALLY(stats(&f).refused_frames == 3);
    conn_close(c);
    CHECK_INT(stats(&f).requests, 0);
    c = dial(&f, HELLO_QUERY);
    check_echo(c, "the next one is served");
    conn_close(c);
    wire_out_fini(&out);
    stop(&f);
}

static void test_limits(void)
{
    struct fixture f;
    struct conn *silent, *half, *c[3], *over;

    start(&f, (struct rpc_server_conf){ .hello_timeout_ms = 100, .connections_max = 3 }, true);
    silent = dial_raw(&f);
    half = dial_raw(&f);
    CHECK_INT(send(conn_fd(half), "DFS1", 4, 0), 4);
    check_closed(silent);
    check_closed(half);
    CHECK_INT(stats(&f).refused_connections, 2);
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = dial(&f, HELLO_QUERY);
    }
    over = dial_raw(&f);
    check_closed(over);
    CHECK_INT(stats(&f).refused_connections, 3);
    check_echo(c[2], "not touched");
    conn_close(over);
    conn_close(c[0]);
    EVENTUALLY(stats(&f).connections == 2);
    c[0] = dial(&f, HELLO_COMMAND);
    check_echo(c[0], "room again");
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        conn_close(c[i]);
    }
    conn_close(silent);
    conn_close(half);
    stop(&f);
}

static void test_slow_reader(void)
{
    struct fixture f;
    struct conn *c, *other;
    struct wire_out out;
    const uint64_t count = 200; /* times 1 MiB of answers: more than may wait */

    start(&f, (struct rpc_server_conf){ 0 }, true);
    c = dial(&f, HELLO_QUERY);
    other = dial(&f, HELLO_QUERY);
    wire_out_init(&out, 1 << 20);
    for (uint64_t r = 1; r <= count; r++) {
        add_frame(&out, BIG, r, SLICE_EMPTY);
    }
    put_all(c, &out, out.len);
    EVENTUALLY(stats(&f).requests >= 4);
    for (int i = 0; i < 20; i++) {
        check_echo(other, "served meanwhile");
    }
    CHECK(stats(&f).requests < count); /* it stopped listening */
    for (uint64_t r = 1; r <= count && !tap_case_bad; r++) {
        struct frame rep;
        struct slice msg;

        CHECK_INT(conn_recv(c, &rep, &msg, SOON), 0);
        CHECK_INT(rep.req_id, r);
        CHECK_INT(msg.len, sizeof(big));
    }
    check_echo(c, "in step");
    wire_out_fini(&out);
    conn_close(c);
    conn_close(other);
    stop(&f);
}

/* Steps the command loop from here until so many requests are held. */
static void hold(struct fixture *f, int count)
{
    for (uint64_t end = SOON; f->held.count < count && clock_mono_ms() < end;) {
        struct pollfd p = { .fd = rpc_loop_fd(f->command), .events = POLLIN };

        poll(&p, 1, 20);
        rpc_loop_step(f->command);
    }
    CHECK_INT(f->held.count, count);
}

static void send_hold(struct conn *c, uint64_t req)
{
    struct frame f = { .type = HOLD, .req_id = req };

    CHECK_INT(conn_send(c, &f, SLICE_EMPTY, NULL, 0, SOON), 0);
}

static void test_late_answers(void)
{
    struct fixture f;
    struct conn *c, *next;
    struct frame rep;
    struct slice msg;

    start(&f, (struct rpc_server_conf){ 0 }, false);
    c = dial(&f, HELLO_COMMAND);
    send_hold(c, 11);
    send_hold(c, 12);
    hold(&f, 2);
    rpc_reply(f.command, f.held.tokens[1], 0, slice_str("twelve"));
    rpc_reply(f.command, f.held.tokens[0], DFS_EBUSY, slice_str("eleven"));
    CHECK_INT(conn_recv(c, &rep, &msg, SOON), 0);
    CHECK_INT(rep.req_id, 12);
    CHECK_INT(conn_recv(c, &rep, &msg, SOON), 0);
    CHECK_INT(rep.req_id, 11);
    CHECK_INT(rep.status, DFS_EBUSY);

    /* the connection goes, another one gets its slot, and not its answer */
    send_hold(c, 13);
    hold(&f, 3);
    conn_close(c);
    for (uint64_t end = SOON; stats(&f).connections != 0 && clock_mono_ms() < end;) {
        rpc_loop_step(f.command);
    }
    next = dial(&f, HELLO_COMMAND);
    send_hold(next, 21);
    hold(&f, 4);
    CHECK_INT(f.held.tokens[3].slot, f.held.tokens[2].slot);
    rpc_reply(f.command, f.held.tokens[2], 0, slice_str("for the dead"));
    rpc_reply(f.command, f.held.tokens[3], 0, slice_str("for the living"));
    CHECK_INT(conn_recv(next, &rep, &msg, SOON), 0);
    CHECK_INT(rep.req_id, 21);
    CHECK(slice_eq(msg, slice_str("for the living")));
    conn_close(next);
    stop(&f);
}

static void test_unread_answers(void)
{
    struct fixture f;
    struct conn *c;
    int sent = 0;

    start(&f, (struct rpc_server_conf){ 0 }, false);
    c = dial(&f, HELLO_COMMAND);
    for (uint64_t r = 0; r < 120; r++) {
        send_hold(c, r);
    }
    hold(&f, 120);
    while (sent < 120 && stats(&f).connections == 1) {
        rpc_reply(f.command, f.held.tokens[sent++], 0, slice_of(big, sizeof(big)));
    }
    CHECK(sent > 60 && sent < 120);
    CHECK_INT(stats(&f).connections, 0);
    rpc_reply(f.command, f.held.tokens[119], 0, SLICE_EMPTY); /* harmless */
    conn_close(c);
    stop(&f);
}

static void test_stop(void)
{
    struct fixture f;
    struct conn *c[5];
    struct rpc_server_conf conf = { .query_loops = 1,
                                    .on_query = on_query,
                                    .on_command = on_command };
    struct rpc_server *second = NULL;
    struct why why;

    start(&f, (struct rpc_server_conf){ 0 }, false);
    c[0] = dial(&f, HELLO_COMMAND); /* never arrives: nobody steps */
    c[1] = dial(&f, HELLO_QUERY);
    c[2] = dial_raw(&f);
    c[3] = dial(&f, HELLO_QUERY);
    c[4] = dial(&f, HELLO_COMMAND);
    send_hold(c[4], 1);
    hold(&f, 1);
    conf.listen = f.addr;
    CHECK_INT(rpc_server_start(&conf, &second, &why), DFS_EBUSY);
    CHECK(second == NULL && strstr(why.text, f.addr) != NULL);
    stop(&f);
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        check_closed(c[i]);
        conn_close(c[i]);
    }
    CHECK_INT(rpc_server_start(&conf, &second, &why), 0); /* the port is free at once */
    rpc_server_stop(second);
    rpc_server_stop(NULL);
}

/* The kernel completes connections that the server has no descriptor for; they wait. */
static void test_out_of_descriptors(void)
{
    struct rlimit old, tight;
    struct fixture f;
    struct conn *waits = NULL;
    struct hello_req q = { .version = DFS_PROTOCOL, .purpose = HELLO_QUERY };
    struct wire_out msg;
    struct slice got;
    int next;

    start(&f, (struct rpc_server_conf){ .hello_timeout_ms = 50 }, true);
    next = dup(0);
    close(next); /* the lowest free one: the client's end takes it, nothing is left */
    getrlimit(RLIMIT_NOFILE, &old);
    tight = (struct rlimit){ (rlim_t)next + 1, old.rlim_max };
    setrlimit(RLIMIT_NOFILE, &tight);
    CHECK_INT(conn_open(f.addr, SOON, &waits, NULL), 0);
    wire_out_init(&msg, 256);
    hello_req_put(&msg, &q);
    CHECK_INT(conn_call(waits, RPC_hello, wire_out_slice(&msg), &got, clock_mono_ms() + 150),
              DFS_ETIMEOUT);
    setrlimit(RLIMIT_NOFILE, &old);
    {
        struct frame rep;

        CHECK_INT(conn_recv(waits, &rep, &got, SOON), 0); /* the hello's answer, late */
        CHECK_INT(rep.type, RPC_hello);
    }
    check_echo(waits, "served");
    wire_out_fini(&msg);
    conn_close(waits);
    stop(&f);
}

int main(void)
{
    memset(big, 'b', sizeof(big));
    log_configure("off", NULL);
    tap_run("queries and commands are answered on their loops", test_answers);
    tap_run("a hundred connections come, go and are answered", test_hundred_connections);
    tap_run("pipelined requests in pieces survive the hand-over", test_pipelines);
    tap_run("long messages and what is right behind them", test_long_messages);
    tap_run("bad frames close their connection and no other", test_bad_frames);
    tap_run("strangers are told what differs, or closed", test_strangers);
    tap_run("silent and surplus connections are closed", test_limits);
    tap_run("a slow reader is not listened to, and loses nothing", test_slow_reader);
    tap_run("late answers find their connection or nobody", test_late_answers);
    tap_run("a peer that leaves too many answers unread is dropped", test_unread_answers);
    tap_run("stopping closes everything and frees the port", test_stop);
    tap_run("running out of descriptors passes", test_out_of_descriptors);
    return tap_done();
}
