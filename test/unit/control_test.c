#include "cluster/net/control.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/net/conn.h"

#include "test/unit/tap.h"

#define SOON    (clock_mono_ms() + 4000)
#define ECHO    0x0701
#define FAIL    0x0702 /* DFS_ENOENT with a message */
#define LEAD    0x0703 /* DFS_ENOTLEADER unless the server leads */
#define SLOW    0x0704 /* waits until released */
#define FLOOD   0x0705 /* more than an answer may hold */
#define NOBODYS "127.0.0.1:1"

struct fixture {
    struct control_server *s;
    char addr[32];
    unsigned most; /* connections; 0: any number */
    bool leads;
    atomic_int calls;
    atomic_int inside, inside_max; /* SLOW handlers at once */
    atomic_bool release;
};

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static int slow(struct fixture *f)
{
    int n = atomic_fetch_add(&f->inside, 1) + 1;
    int max = atomic_load(&f->inside_max);

    while (n > max && !atomic_compare_exchange_weak(&f->inside_max, &max, n)) {
    }
    for (uint64_t end = SOON; !atomic_load(&f->release) && clock_mono_ms() < end;) {
        pause_ms(1);
    }
    atomic_fetch_sub(&f->inside, 1);
    return DFS_OK;
}

static int handle(void *arg, uint16_t type, struct slice msg, struct wire_out *rep)
{
    struct fixture *f = arg;

    atomic_fetch_add(&f->calls, 1);
    switch (type) {
    case ECHO:
        wire_put_raw(rep, msg.p, msg.len);
        return DFS_OK;
    case FAIL:
        wire_put_raw(rep, "because", 7);
        return DFS_ENOENT;
    case LEAD:
        wire_put_raw(rep, f->addr, strlen(f->addr));
        return f->leads ? DFS_OK : DFS_ENOTLEADER;
    case SLOW:
        return slow(f);
    case FLOOD:
        wire_reserve(rep, LIMIT_MSG);
        wire_put_u8(rep, 1);
        return DFS_OK;
    default:
        return DFS_EUNKNOWNRPC;
    }
}

static void start_at(struct fixture *f, const char *addr, int parallel)
{
    const struct control_server_conf conf = {
        .listen = addr, .parallel = parallel, .connections_max = f->most, .fn = handle, .arg = f
    };
    struct why why = { "" };

    if (control_server_start(&conf, &f->s, &why) != 0) {
        printf("Bail out! %s\n", why.text);
        exit(1);
    }
    snprintf(f->addr, sizeof(f->addr), "127.0.0.1:%u", control_server_port(f->s));
}

static void start(struct fixture *f, int parallel)
{
    memset(f, 0, sizeof(*f));
    start_at(f, "127.0.0.1:0", parallel);
}

static struct control_client *client_of(const char *addrs)
{
    struct control_client *c = NULL;
    struct why why = { "" };

    if (control_client_open(addrs, &c, &why) != 0) {
        printf("Bail out! %s\n", why.text);
        exit(1);
    }
    return c;
}

static int call(struct control_client *c, uint16_t type, struct slice msg, struct wire_out *rep,
                uint64_t within_ms)
{
    return control_call(c, type, msg, rep, clock_mono_ms() + within_ms);
}

static bool is_text(const struct wire_out *out, const char *text)
{
    return slice_eq(wire_out_slice(out), slice_str(text));
}

static void test_calls(void)
{
    struct fixture f;
    struct control_client *c;
    struct wire_out rep, small;
    uint8_t *big = x_alloc(LIMIT_MSG + 1);

    memset(big, 'x', LIMIT_MSG);
    start(&f, 2);
    c = client_of(f.addr);
    wire_out_init(&rep, LIMIT_MSG);
    wire_out_init(&small, 100);
    for (int i = 0; i < 50; i++) {
        char text[20];

        snprintf(text, sizeof(text), "call %d", i);
        CHECK_INT(call(c, ECHO, slice_str(text), &rep, 3000), 0);
        CHECK(is_text(&rep, text));
    }
    CHECK_INT(call(c, ECHO, SLICE_EMPTY, &rep, 3000), 0);
    CHECK_INT(rep.len, 0);
    CHECK_INT(call(c, FAIL, SLICE_EMPTY, &rep, 3000), DFS_ENOENT);
    CHECK(is_text(&rep, "because"));
    CHECK_INT(call(c, 0x0999, SLICE_EMPTY, &rep, 3000), DFS_EUNKNOWNRPC);
    CHECK_INT(call(c, ECHO, slice_of(big, LIMIT_MSG), &rep, 3000), 0);
    CHECK(slice_eq(wire_out_slice(&rep), slice_of(big, LIMIT_MSG)));
    CHECK_INT(call(c, ECHO, slice_of(big, LIMIT_MSG + 1), &rep, 3000), DFS_ETOOBIG);
    CHECK_INT(call(c, FLOOD, SLICE_EMPTY, &rep, 3000), DFS_ETOOBIG);
    CHECK_INT(call(c, ECHO, slice_of(big, 101), &small, 3000), DFS_ETOOBIG);
    CHECK_INT(call(c, ECHO, slice_str("fits"), &small, 3000), 0);
    control_client_close(c);
    control_server_stop(f.s);
    wire_out_fini(&rep);
    wire_out_fini(&small);
    free(big);
}

struct caller {
    struct control_client *c;
    uint16_t type;
    int n;
    uint64_t within_ms;
    int err;
    pthread_t thread;
};

static void *call_thread(void *arg)
{
    struct caller *k = arg;
    struct wire_out rep;

    wire_out_init(&rep, 1000);
    for (int i = 0; i < k->n && k->err == 0; i++) {
        int v[2] = { i, (int)(intptr_t)k };

        k->err = call(k->c, k->type, slice_of(v, sizeof(v)), &rep, k->within_ms);
        if (k->err == 0 && k->type == ECHO &&
            !slice_eq(wire_out_slice(&rep), slice_of(v, sizeof(v)))) {
            k->err = -1;
        }
    }
    wire_out_fini(&rep);
    return NULL;
}

static void test_several_at_once(void)
{
    struct fixture f;
    struct caller k[8];

    start(&f, 3);
    k[0].c = client_of(f.addr);
    for (size_t i = 0; i < ARRAY_LEN(k); i++) {
        k[i] = (struct caller){ .c = k[0].c, .type = ECHO, .n = 30, .within_ms = 3000 };
        pthread_create(&k[i].thread, NULL, call_thread, &k[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(k); i++) {
        pthread_join(k[i].thread, NULL);
        CHECK_INT(k[i].err, 0); /* each got its own answers */
    }
    for (size_t i = 0; i < ARRAY_LEN(k); i++) {
        k[i] = (struct caller){ .c = k[0].c, .type = SLOW, .n = 1, .within_ms = 4000 };
        pthread_create(&k[i].thread, NULL, call_thread, &k[i]);
    }
    for (uint64_t end = SOON; atomic_load(&f.inside) < 3 && clock_mono_ms() < end;) {
        pause_ms(1);
    }
    atomic_store(&f.release, true);
    for (size_t i = 0; i < ARRAY_LEN(k); i++) {
        pthread_join(k[i].thread, NULL);
        CHECK_INT(k[i].err, 0);
    }
    CHECK_INT(atomic_load(&f.inside_max), 3); /* as many as asked for, no more */
    control_client_close(k[0].c);
    control_server_stop(f.s);
}

static void test_no_server(void)
{
    struct control_client *c = NULL;
    struct wire_out rep;
    struct why why;
    uint64_t before;

    wire_out_init(&rep, 100);
    CHECK_INT(control_client_open("nonsense", &c, &why), DFS_EINVAL);
    CHECK_INT(control_client_open("127.0.0.1:1,:", &c, &why), DFS_EINVAL);
    CHECK(c == NULL);
    c = client_of(NOBODYS);
    before = clock_mono_ms();
    CHECK_INT(call(c, ECHO, SLICE_EMPTY, &rep, 200), DFS_ETIMEOUT);
    CHECK(clock_mono_ms() - before >= 200 && clock_mono_ms() - before < 2000);
    control_client_close(c);
    control_client_close(NULL);
    wire_out_fini(&rep);
}

static void test_server_restarts(void)
{
    struct fixture f;
    struct control_server_conf conf = { .listen = f.addr, .parallel = 1, .fn = handle, .arg = &f };
    struct control_server *second = NULL;
    struct control_client *c;
    struct wire_out rep;
    struct why why;
    char addr[32];

    wire_out_init(&rep, 100);
    start(&f, 2);
    CHECK_INT(control_server_start(&conf, &second, &why), DFS_EBUSY);
    CHECK(second == NULL && strstr(why.text, "in use") != NULL);
    conf.listen = "nonsense";
    CHECK_INT(control_server_start(&conf, &second, &why), DFS_EINVAL);
    c = client_of(f.addr);
    CHECK_INT(call(c, ECHO, slice_str("one"), &rep, 3000), 0);
    control_server_stop(f.s);
    CHECK_INT(call(c, ECHO, slice_str("nobody"), &rep, 100), DFS_ETIMEOUT);
    memcpy(addr, f.addr, sizeof(addr));
    start_at(&f, addr, 2);
    CHECK_INT(call(c, ECHO, slice_str("two"), &rep, 3000), 0);
    CHECK(is_text(&rep, "two"));
    control_client_close(c);
    control_server_stop(f.s);
    control_server_stop(NULL);
    wire_out_fini(&rep);
}

static void test_several_masters(void)
{
    struct fixture f[3];
    struct control_client *c;
    struct wire_out rep;
    char addrs[128];

    wire_out_init(&rep, 100);
    for (size_t i = 0; i < ARRAY_LEN(f); i++) {
        start(&f[i], 2);
        f[i].leads = i == 1;
    }
    snprintf(addrs, sizeof(addrs), "%s, %s,%s", f[0].addr, f[1].addr, f[2].addr);
    c = client_of(addrs);
    CHECK_INT(call(c, LEAD, SLICE_EMPTY, &rep, 3000), 0);
    CHECK(is_text(&rep, f[1].addr));
    CHECK_INT(call(c, LEAD, SLICE_EMPTY, &rep, 3000), 0);
    CHECK_INT(atomic_load(&f[0].calls), 1); /* the leader is remembered */
    /* it dies, another one is elected */
    control_server_stop(f[1].s);
    f[0].leads = true;
    CHECK_INT(call(c, LEAD, SLICE_EMPTY, &rep, 4000), 0);
    CHECK(is_text(&rep, f[0].addr));
    control_client_close(c);
    control_server_stop(f[0].s);
    control_server_stop(f[2].s);
    wire_out_fini(&rep);
}

static void test_no_leader(void)
{
    struct fixture f;
    struct control_client *c;
    struct wire_out rep;

    wire_out_init(&rep, 100);
    start(&f, 1);
    c = client_of(f.addr);
    CHECK_INT(call(c, LEAD, SLICE_EMPTY, &rep, 250), DFS_ENOTLEADER);
    CHECK(atomic_load(&f.calls) >= 2 && atomic_load(&f.calls) < 10); /* with pauses */
    control_client_close(c);
    control_server_stop(f.s);
    wire_out_fini(&rep);
}

static struct conn *raw(const struct fixture *f)
{
    struct conn *c = NULL;

    CHECK_INT(conn_open(f->addr, SOON, &c, NULL), 0);
    return c;
}

/* What nng sends ahead, of a REQ and of a REP socket. */
static const uint8_t greeting[8] = { 0, 'S', 'P', 0, 0, 0x30, 0, 0 };
static const uint8_t greeting_rep[8] = { 0, 'S', 'P', 0, 0, 0x31, 0, 0 };

/* The greeting, then messages by hand: an 8 byte length and a request id of its own. */
static void put_sp(const struct conn *c, const void *p, size_t n)
{
    uint8_t head[12] = {
        0, 0, 0, 0, 0, 0, (uint8_t)((n + 4) >> 8), (uint8_t)(n + 4), 0x80, 0, 0, 1
    };
    uint8_t theirs[8];
    struct pollfd pfd = { .fd = conn_fd(c), .events = POLLIN };

    CHECK_INT(send(conn_fd(c), greeting, sizeof(greeting), MSG_NOSIGNAL), 8);
    CHECK_INT(poll(&pfd, 1, 4000), 1);
    CHECK_INT(recv(conn_fd(c), theirs, sizeof(theirs), 0), 8);
    CHECK_INT(send(conn_fd(c), head, sizeof(head), MSG_NOSIGNAL), 12);
    CHECK_INT(send(conn_fd(c), p, n, MSG_NOSIGNAL), n);
}

static void test_garbage(void)
{
    struct fixture f;
    struct control_client *c;
    struct wire_out rep;
    struct frame frame = { .type = ECHO, .msg_len = 4 };
    uint8_t good[FRAME_HEADER_BYTES + 4];
    struct conn *bad[6];

    wire_out_init(&rep, 100);
    start(&f, 1);
    c = client_of(f.addr);
    memcpy(good + FRAME_HEADER_BYTES, "text", 4);
    frame_header_put(good, &frame, slice_str("text"));

    bad[0] = raw(&f); /* no nng at all */
    CHECK_INT(send(conn_fd(bad[0]), "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    bad[1] = raw(&f); /* a message of 2^63 bytes */
    put_sp(bad[1], "", 0);
    CHECK_INT(send(conn_fd(bad[1]), "\x7f\xff\xff\xff\xff\xff\xff\xff", 8, MSG_NOSIGNAL), 8);
    bad[2] = raw(&f); /* no frame */
    put_sp(bad[2], "hello", 5);
    bad[3] = raw(&f); /* half of one */
    put_sp(bad[3], good, sizeof(good) - 1);
    bad[4] = raw(&f); /* a wrong sum */
    good[sizeof(good) - 1] ^= 1;
    put_sp(bad[4], good, sizeof(good));
    good[sizeof(good) - 1] ^= 1;
    bad[5] = raw(&f); /* a reply */
    frame.flags = FRAME_REPLY;
    frame_header_put(good, &frame, slice_str("text"));
    put_sp(bad[5], good, sizeof(good));
    for (uint64_t end = SOON; control_server_dropped(f.s) < 5 && clock_mono_ms() < end;) {
        pause_ms(1);
    }
    CHECK_INT(control_server_dropped(f.s), 5);
    CHECK_INT(atomic_load(&f.calls), 0);
    CHECK_INT(call(c, ECHO, slice_str("fine"), &rep, 3000), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        conn_close(bad[i]);
    }
    control_client_close(c);
    control_server_stop(f.s);
    wire_out_fini(&rep);
}

/* Connections beyond the limit are closed, those before live on, and each that goes makes room. */
static void test_too_many_connections(void)
{
    struct fixture f = { .most = 3 };
    struct conn *extra[5];
    struct control_client *c;
    struct wire_out rep;
    uint8_t byte;
    size_t closed = 0;

    wire_out_init(&rep, 100);
    start_at(&f, "127.0.0.1:0", 1);
    c = client_of(f.addr);
    CHECK_INT(call(c, ECHO, slice_str("one"), &rep, 3000), 0);
    for (size_t i = 0; i < ARRAY_LEN(extra); i++) {
        struct pollfd p;
        uint8_t theirs[8];

        extra[i] = raw(&f);
        p = (struct pollfd){ .fd = conn_fd(extra[i]), .events = POLLIN };
        CHECK_INT(send(p.fd, greeting, sizeof(greeting), MSG_NOSIGNAL), 8);
        CHECK_INT(poll(&p, 1, 4000), 1);
        (void)!recv(p.fd, theirs, sizeof(theirs), 0);
        closed += poll(&p, 1, i < 2 ? 50 : 4000) == 1 && recv(p.fd, &byte, 1, 0) <= 0;
    }
    CHECK_INT(closed, 3);
    CHECK_INT(call(c, ECHO, slice_str("two"), &rep, 3000), 0);
    for (size_t i = 0; i < ARRAY_LEN(extra); i++) {
        conn_close(extra[i]);
    }
    control_client_close(c);
    c = client_of(f.addr);
    CHECK_INT(call(c, ECHO, slice_str("three"), &rep, 4000), 0);
    CHECK(is_text(&rep, "three"));
    control_client_close(c);
    control_server_stop(f.s);
    wire_out_fini(&rep);
}

/* A master's address behind which the first connection leads nowhere. */
static void test_silent_connection(void)
{
    struct fixture f;
    struct control_client *c;
    struct wire_out rep;
    struct pollfd p = { .events = POLLIN };
    uint16_t port = 0;
    int first;

    wire_out_init(&rep, 100);
    memset(&f, 0, sizeof(f));
    CHECK_INT(conn_listen("127.0.0.1:0", &p.fd, &port, NULL), 0);
    snprintf(f.addr, sizeof(f.addr), "127.0.0.1:%u", port);
    c = client_of(f.addr);
    CHECK_INT(poll(&p, 1, 3000), 1);
    first = accept(p.fd, NULL, NULL); /* greets, as nng would, and says no more */
    CHECK_INT(send(first, greeting_rep, sizeof(greeting_rep), MSG_NOSIGNAL), 8);
    close(p.fd);
    start_at(&f, f.addr, 1);
    CHECK_INT(call(c, ECHO, slice_str("lost"), &rep, 2100), DFS_ETIMEOUT);
    CHECK_INT(call(c, ECHO, slice_str("found"), &rep, 1000), 0);
    close(first);
    control_client_close(c);
    control_server_stop(f.s);
    wire_out_fini(&rep);
}

static void test_close_during_call(void)
{
    struct fixture f;
    struct caller k = { .type = SLOW, .n = 1, .within_ms = 30000 };
    uint64_t before;

    start(&f, 1);
    k.c = client_of(f.addr);
    pthread_create(&k.thread, NULL, call_thread, &k);
    for (uint64_t end = SOON; atomic_load(&f.inside) < 1 && clock_mono_ms() < end;) {
        pause_ms(1);
    }
    before = clock_mono_ms();
    control_client_close(k.c);
    pthread_join(k.thread, NULL);
    CHECK_INT(k.err, DFS_ESHUTDOWN);
    CHECK(clock_mono_ms() - before < 2000);
    /* the handler still runs: stopping waits for it */
    atomic_store(&f.release, true);
    control_server_stop(f.s);
    CHECK_INT(atomic_load(&f.inside), 0);
}

#ifdef DFS_FAULTS
/* A lost answer: the request comes again by itself. */
static void test_lost_answer(void)
{
    struct fixture f;
    struct control_client *c;
    struct wire_out rep;

    wire_out_init(&rep, 100);
    start(&f, 1);
    c = client_of(f.addr);
    CHECK_INT(call(c, ECHO, slice_str("asked twice"), &rep, 4000), 0);
    CHECK(is_text(&rep, "asked twice"));
    CHECK_INT(atomic_load(&f.calls), 2);
    control_client_close(c);
    control_server_stop(f.s);
    wire_out_fini(&rep);
}
#endif

int main(void)
{
#ifdef DFS_FAULTS
    setenv("DFS_FAULT", "net.control.reply=IO times=1", 1);
    tap_run("a request whose answer was lost is asked again", test_lost_answer);
#endif
    tap_run("messages, statuses and limits", test_calls);
    tap_run("several calls at once, each with its own answer", test_several_at_once);
    tap_run("without a server a call ends at its deadline", test_no_server);
    tap_run("a server that comes back is found again", test_server_restarts);
    tap_run("the leader among several masters is found and remembered", test_several_masters);
    tap_run("a master that does not lead is asked again until the deadline", test_no_leader);
    tap_run("garbage is dropped and counted", test_garbage);
    tap_run("no more connections than there may be", test_too_many_connections);
    tap_run("a connection without answers is replaced", test_silent_connection);
    tap_run("closing ends calls and waits for handlers", test_close_during_call);
    return tap_done();
}
