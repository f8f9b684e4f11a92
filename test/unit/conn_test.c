#include "cluster/net/conn.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/msgs.h"

#include "test/unit/tap.h"

#define SOON (clock_mono_ms() + 3000)
#define TYPE 0x0777

static const uint8_t cluster_a[CLUSTER_ID_BYTES] = "cluster-a";
static const uint8_t cluster_b[CLUSTER_ID_BYTES] = "cluster-b";
static const struct slice cluster_1 = { cluster_a, sizeof(cluster_a) };
static const struct slice cluster_2 = { cluster_b, sizeof(cluster_b) };

/* Two ends: a connection and a raw descriptor. */
static struct conn *pair(int *ret_raw)
{
    int fd[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0) {
        perror("socketpair");
        exit(1);
    }
    *ret_raw = fd[1];
    return conn_of_fd(fd[0]);
}

static void put(int fd, const void *p, size_t n)
{
    CHECK_INT(send(fd, p, n, MSG_NOSIGNAL), n);
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(i * 31 + i / 251 + seed);
    }
}

/* A frame as bytes; the caller frees. */
static uint8_t *frame_bytes(const struct frame *f, const void *msg, uint32_t data_len,
                            size_t *ret_len)
{
    struct frame full = *f;
    size_t n = FRAME_HEADER_BYTES + f->msg_len;
    uint8_t *p = x_alloc(n);

    full.data_len = data_len;
    if (f->msg_len != 0) {
        memcpy(p + FRAME_HEADER_BYTES, msg, f->msg_len);
    }
    frame_header_put(p, &full, slice_of(msg, f->msg_len));
    *ret_len = n;
    return p;
}

static void put_frame(int fd, uint16_t flags, uint64_t req, uint32_t status, const char *text)
{
    struct frame f = { .type = TYPE,
                       .flags = flags,
                       .req_id = req,
                       .status = status,
                       .msg_len = (uint32_t)strlen(text) };
    size_t n;
    uint8_t *p = frame_bytes(&f, text, 0, &n);

    put(fd, p, n);
    free(p);
}

struct echo {
    struct conn *c;
    int frames;
};

/* Sends every frame back, data too. */
static void *echo_thread(void *arg)
{
    struct echo *e = arg;
    uint8_t *data = x_alloc(LIMIT_DATA);

    for (int i = 0; i < e->frames; i++) {
        struct frame f;
        struct slice msg;
        struct iovec iov;

        if (conn_recv(e->c, &f, &msg, SOON) != 0 ||
            conn_recv_data(e->c, data, f.data_len / 2, SOON) != 0 ||
            conn_recv_data(e->c, data + f.data_len / 2, f.data_len - f.data_len / 2, SOON) != 0) {
            break;
        }
        iov = (struct iovec){ data, f.data_len };
        f.flags = FRAME_REPLY;
        if (conn_send(e->c, &f, msg, &iov, 1, SOON) != 0) {
            break;
        }
    }
    free(data);
    return NULL;
}

static void test_round_trips(void)
{
    static const struct {
        size_t msg, data;
    } sizes[] = { { 0, 0 },
                  { 100, 0 },
                  { 0, 4096 },
                  { 65536 - 32, 5 },
                  { 65536, 65536 },
                  { 65537, 100000 },
                  { LIMIT_MSG, 1 << 20 },
                  { 7, LIMIT_DATA } };
    int raw;
    struct conn *c = pair(&raw);
    struct echo e = { conn_of_fd(raw), ARRAY_LEN(sizes) };
    uint8_t *msg = x_alloc(LIMIT_MSG);
    uint8_t *data = x_alloc(LIMIT_DATA);
    uint8_t *back = x_alloc(LIMIT_DATA);
    pthread_t t;

    fill(msg, LIMIT_MSG, 1);
    pthread_create(&t, NULL, echo_thread, &e);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct frame f = { .type = TYPE, .req_id = 5 + i };
        struct iovec iov[3] = { { data, sizes[i].data / 3 }, { NULL, 0 }, { 0 } };
        struct slice got;

        fill(data, sizes[i].data, (unsigned)i);
        iov[2] = (struct iovec){ data + sizes[i].data / 3, sizes[i].data - sizes[i].data / 3 };
        CHECK_INT(conn_send(c, &f, slice_of(msg, sizes[i].msg), iov, 3, SOON), 0);
        CHECK_INT(conn_recv(c, &f, &got, SOON), 0);
        CHECK_INT(f.req_id, 5 + i);
        CHECK_INT(f.type, TYPE);
        CHECK(slice_eq(got, slice_of(msg, sizes[i].msg)));
        CHECK_INT(f.data_len, sizes[i].data);
        CHECK_INT(conn_recv_data(c, back, f.data_len, SOON), 0);
        CHECK(memcmp(back, data, sizes[i].data) == 0);
    }
    CHECK(!conn_broken(c));
    pthread_join(t, NULL);
    conn_close(e.c);
    conn_close(c);
    free(msg);
    free(data);
    free(back);
}

static void test_frames_in_pieces(void)
{
    int raw;
    struct conn *c = pair(&raw);
    struct frame f = { .type = TYPE, .req_id = 9, .msg_len = 5 };
    struct slice msg;
    size_t n;
    uint8_t *p = frame_bytes(&f, "hello", 3, &n);
    uint8_t data[3];

    /* three frames and a half at once */
    for (int i = 0; i < 3; i++) {
        put(raw, p, n);
        put(raw, "abc", 3);
    }
    put(raw, p, 20);
    CHECK(conn_readable(c));
    for (int i = 0; i < 3; i++) {
        CHECK_INT(conn_recv(c, &f, &msg, SOON), 0);
        CHECK(slice_eq(msg, slice_str("hello")));
        CHECK_INT(conn_recv_data(c, data, 1, SOON), 0);
        CHECK_INT(conn_recv_data(c, data + 1, 2, SOON), 0);
        CHECK(memcmp(data, "abc", 3) == 0);
    }
    put(raw, p + 20, n - 20);
    CHECK_INT(conn_recv(c, &f, &msg, SOON), 0);
    CHECK(!conn_readable(c));
    put(raw, "ab", 2);
    CHECK_INT(conn_recv_data(c, data, 3, clock_mono_ms() + 20), DFS_ETIMEOUT);
    CHECK(conn_broken(c));
    free(p);
    conn_close(c);
    close(raw);
}

static void test_bad_bytes(void)
{
    static const struct {
        int at, err; /* which byte of the frame is changed */
    } cases[] = { { 0, DFS_EMALFORMED }, { 4, DFS_ECHECKSUM },  { 15, DFS_ETOOBIG },
                  { 19, DFS_ETOOBIG },   { 28, DFS_ECHECKSUM }, { 33, DFS_ECHECKSUM } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int raw;
        struct conn *c = pair(&raw);
        struct frame f = { .type = TYPE, .msg_len = 5 };
        struct slice msg;
        size_t n;
        uint8_t *p = frame_bytes(&f, "hello", 0, &n);

        p[cases[i].at] ^= 0x55;
        put(raw, p, n);
        CHECK_INT(conn_recv(c, &f, &msg, SOON), cases[i].err);
        CHECK(conn_broken(c));
        CHECK(strstr(conn_peer(c), err_text(cases[i].err)) != NULL);
        CHECK_INT(conn_recv(c, &f, &msg, SOON), DFS_ECONN);
        CHECK_INT(conn_send(c, &f, SLICE_EMPTY, NULL, 0, SOON), DFS_ECONN);
        free(p);
        conn_close(c);
        close(raw);
    }
}

static void test_deadlines(void)
{
    int raw;
    struct conn *c = pair(&raw);
    struct frame f = { .type = TYPE };
    struct slice msg;
    uint64_t before = clock_mono_ms();
    uint8_t *data = x_alloc(LIMIT_DATA);
    struct iovec iov = { data, LIMIT_DATA };
    int err = 0;

    CHECK_INT(conn_recv(c, &f, &msg, before + 50), DFS_ETIMEOUT);
    CHECK(clock_mono_ms() - before >= 50 && clock_mono_ms() - before < 1000);
    CHECK(!conn_broken(c)); /* nothing of a frame was there */
    put_frame(raw, 0, 1, 0, "late");
    CHECK_INT(conn_recv(c, &f, &msg, SOON), 0);
    CHECK(slice_eq(msg, slice_str("late")));

    put(raw, "DFS1", 4);
    CHECK_INT(conn_recv(c, &f, &msg, clock_mono_ms() + 30), DFS_ETIMEOUT);
    CHECK(conn_broken(c)); /* half a header */
    conn_close(c);
    close(raw);

    c = pair(&raw); /* nobody reads */
    for (int i = 0; i < 100 && err == 0; i++) {
        err = conn_send(c, &f, SLICE_EMPTY, &iov, 1, clock_mono_ms() + 30);
    }
    CHECK_INT(err, DFS_ETIMEOUT);
    CHECK(conn_broken(c));
    free(data);
    conn_close(c);
    close(raw);
}

static bool third_time(void *arg)
{
    return ++*(int *)arg == 3;
}

static void test_doubt(void)
{
    int raw;
    struct conn *c = pair(&raw);
    struct frame f = { .type = TYPE };
    struct slice msg;
    uint64_t before = clock_mono_ms();
    uint8_t *data = x_alloc(LIMIT_DATA);
    struct iovec iov = { data, LIMIT_DATA };
    int asked = 0;
    int err = 0;

    conn_doubt(c, 20, third_time, &asked);
    CHECK_INT(conn_recv(c, &f, &msg, before + 60000), DFS_ETIMEOUT);
    CHECK_INT(asked, 3);
    CHECK(clock_mono_ms() - before >= 60 && clock_mono_ms() - before < 5000);
    CHECK(!conn_broken(c));
    asked = 0;
    CHECK_INT(conn_recv(c, &f, &msg, clock_mono_ms() + 10), DFS_ETIMEOUT);
    put_frame(raw, 0, 1, 0, "late");
    CHECK_INT(conn_recv(c, &f, &msg, SOON), 0);
    CHECK_INT(asked, 0); /* a deadline that is near, an answer that is there */
    for (int i = 0; i < 100 && err == 0; i++) {
        err = conn_send(c, &f, SLICE_EMPTY, &iov, 1, clock_mono_ms() + 60000);
    }
    CHECK_INT(err, DFS_ETIMEOUT);
    CHECK_INT(asked, 3);
    free(data);
    conn_close(c);
    close(raw);
}

static void test_peer_dies(void)
{
    int raw;
    struct conn *c = pair(&raw);
    struct frame f = { .type = TYPE, .msg_len = 5 };
    struct slice msg;
    size_t n;
    uint8_t *p = frame_bytes(&f, "hello", 0, &n);

    put(raw, p, n - 1);
    close(raw);
    CHECK_INT(conn_recv(c, &f, &msg, SOON), DFS_ECONN);
    CHECK(strstr(conn_peer(c), "closed by the peer") != NULL);
    conn_close(c);

    c = pair(&raw); /* in the data part */
    free(p);
    p = frame_bytes(&f, "hello", 1000, &n);
    put(raw, p, n);
    put(raw, p, n);
    close(raw);
    CHECK_INT(conn_recv(c, &f, &msg, SOON), 0);
    p = x_realloc(p, 1000);
    CHECK_INT(conn_recv_data(c, p, 1000, SOON), DFS_ECONN);
    CHECK_INT(conn_recv(c, &f, &msg, SOON), DFS_ECONN); /* with data left over */
    conn_close(c);

    c = pair(&raw); /* sending must not raise SIGPIPE */
    close(raw);
    CHECK(conn_readable(c));
    f.msg_len = 0;
    CHECK_INT(conn_send(c, &f, SLICE_EMPTY, NULL, 0, SOON), DFS_ECONN);
    conn_close(c);
    free(p);
}

static void test_calls(void)
{
    int raw;
    struct conn *c = pair(&raw);
    struct slice msg;

    put_frame(raw, FRAME_REPLY, 1, 0, "first");
    CHECK_INT(conn_call(c, TYPE, slice_str("a"), &msg, SOON), 0);
    CHECK(slice_eq(msg, slice_str("first")));
    put_frame(raw, FRAME_REPLY, 2, DFS_ENOENT, "why not");
    CHECK_INT(conn_call(c, TYPE, slice_str("b"), &msg, SOON), DFS_ENOENT);
    CHECK(slice_eq(msg, slice_str("why not")));
    CHECK(!conn_broken(c));
    /* the third is late and passed over by the fourth */
    CHECK_INT(conn_call(c, TYPE, slice_str("c"), &msg, clock_mono_ms() + 20), DFS_ETIMEOUT);
    put_frame(raw, FRAME_REPLY, 3, 0, "third");
    put_frame(raw, FRAME_REPLY, 4, 0, "fourth");
    CHECK_INT(conn_call(c, TYPE, slice_str("d"), &msg, SOON), 0);
    CHECK(slice_eq(msg, slice_str("fourth")));
    /* a reply to nothing */
    put_frame(raw, FRAME_REPLY, 77, 0, "?");
    CHECK_INT(conn_call(c, TYPE, slice_str("e"), &msg, SOON), DFS_EMALFORMED);
    CHECK(conn_broken(c));
    conn_close(c);
    close(raw);
    conn_close(NULL);
}

static void test_send_limits(void)
{
    int raw;
    struct conn *c = pair(&raw);
    struct frame f = { .type = TYPE };
    uint8_t *big = x_alloc(LIMIT_MSG + 1);
    struct iovec iov = { big, LIMIT_DATA + 1 };
    struct slice msg = slice_of(big, LIMIT_MSG + 1);

    CHECK_INT(conn_send(c, &f, msg, NULL, 0, SOON), DFS_ETOOBIG);
    CHECK_INT(conn_send(c, &f, SLICE_EMPTY, &iov, 1, SOON), DFS_ETOOBIG);
    CHECK(!conn_broken(c));
    CHECK_INT(conn_send(c, &f, slice_str("ok"), NULL, 0, SOON), 0);
    free(big);
    conn_close(c);
    close(raw);
}

static void on_alarm(int sig)
{
    (void)sig;
}

static void test_interrupts(void)
{
    struct sigaction sa = { .sa_handler = on_alarm }, old;
    struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, never = { 0 };
    uint64_t before = clock_mono_ms();
    int raw;
    struct conn *c = pair(&raw);
    struct frame f;
    struct slice msg;

    sigaction(SIGALRM, &sa, &old);
    setitimer(ITIMER_REAL, &every, NULL);
    CHECK_INT(conn_recv(c, &f, &msg, before + 50), DFS_ETIMEOUT);
    CHECK(clock_mono_ms() - before >= 50);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    conn_close(c);
    close(raw);
}

static void address(char out[32], uint16_t port)
{
    snprintf(out, 32, "127.0.0.1:%u", port);
}

static void test_listen_and_connect(void)
{
    static const char *const bad[] = { "",     "host",   "host:",        "h:99999",
                                       "h:1x", "::1:80", "127.0.0.1:-1", ":4000" };
    struct why why;
    struct conn *c = NULL;
    uint16_t port = 0, port2 = 0;
    char addr[32];
    int fd = -1, fd2 = -1;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_INT(conn_open(bad[i], SOON, &c, &why), DFS_EINVAL);
        CHECK(strstr(why.text, "not an address") != NULL);
    }
    CHECK_INT(conn_listen("nonsense", &fd, &port, &why), DFS_EINVAL);
    CHECK_INT(conn_listen("192.0.2.1:0", &fd, &port, &why), DFS_EINVAL);
    CHECK_INT(conn_listen("127.0.0.1:0", &fd, &port, &why), 0);
    CHECK(port != 0);
    address(addr, port);
    CHECK_INT(conn_listen(addr, &fd2, &port2, &why), DFS_EBUSY);
    CHECK(strstr(why.text, "in use") != NULL && strstr(why.text, addr) != NULL);
    CHECK_INT(fd2, -1);
    CHECK_INT(conn_open(addr, SOON, &c, &why), 0);
    CHECK(strcmp(conn_peer(c), addr) == 0);
    conn_close(c);
    close(fd);
    c = NULL;
    CHECK_INT(conn_open(addr, SOON, &c, &why), DFS_ECONN);
    CHECK(strstr(why.text, "refused") != NULL);
    CHECK(c == NULL);
}

static void test_connect_deadline(void)
{
    struct conn *full[16] = { 0 };
    struct conn *c = NULL;
    struct why why;
    uint16_t port = 0;
    char addr[32];
    int fd = -1;
    int err = 0;
    uint64_t before = 0;

    CHECK_INT(conn_listen("127.0.0.1:0", &fd, &port, &why), 0);
    listen(fd, 0); /* a queue that is soon full: further ones get no answer */
    address(addr, port);
    for (size_t i = 0; i < ARRAY_LEN(full) && err == 0; i++) {
        before = clock_mono_ms();
        err = conn_open(addr, before + 100, &full[i], &why);
    }
    CHECK_INT(err, DFS_ETIMEOUT);
    CHECK(clock_mono_ms() - before >= 100 && clock_mono_ms() - before < 2000);
    CHECK(c == NULL);
    for (size_t i = 0; i < ARRAY_LEN(full); i++) {
        conn_close(full[i]);
    }
    close(fd);
}

/* ---- hello ---- */

struct host {
    int fd;
    uint16_t port;
    struct slice cluster;
    uint8_t purpose;
    uint32_t version; /* not 0: answers by hand with this version */
    int err;
    pthread_t thread;
};

static void answer_by_hand(struct conn *c, uint32_t version)
{
    struct hello_rep r = { .version = version, .cluster = cluster_1 };
    struct wire_out out;
    struct frame f;
    struct slice msg;

    wire_out_init(&out, 256);
    hello_rep_put(&out, &r);
    if (conn_recv(c, &f, &msg, SOON) == 0) {
        f.flags = FRAME_REPLY;
        conn_send(c, &f, wire_out_slice(&out), NULL, 0, SOON);
    }
    wire_out_fini(&out);
}

static void *host_thread(void *arg)
{
    struct host *h = arg;
    struct pollfd p = { .fd = h->fd, .events = POLLIN };
    struct conn *c;
    struct why why;

    if (poll(&p, 1, 3000) != 1) {
        h->err = -1;
        return NULL;
    }
    c = conn_of_fd(accept4(h->fd, NULL, NULL, SOCK_CLOEXEC));
    if (h->version != 0) {
        answer_by_hand(c, h->version);
    } else {
        h->err = conn_accept_hello(c, h->purpose, h->cluster, 7, clock_mono_ms() + 300, &why);
    }
    conn_close(c);
    return NULL;
}

static void host_start(struct host *h, char addr[32])
{
    CHECK_INT(conn_listen("127.0.0.1:0", &h->fd, &h->port, NULL), 0);
    address(addr, h->port);
    pthread_create(&h->thread, NULL, host_thread, h);
}

static int host_stop(struct host *h)
{
    pthread_join(h->thread, NULL);
    close(h->fd);
    return h->err;
}

static void test_hello(void)
{
    static const struct {
        struct host host;
        struct slice mine;
        int err;
        const char *text;
    } cases[] = {
        { { .purpose = HELLO_BLOCK, .cluster = cluster_1 }, cluster_1, 0, NULL },
        { { .purpose = HELLO_BLOCK, .cluster = { 0 } }, cluster_1, 0, NULL },
        { { .purpose = HELLO_BLOCK, .cluster = cluster_1 }, { 0 }, 0, NULL },
        { { .purpose = HELLO_BLOCK, .cluster = cluster_1 },
          cluster_2,
          DFS_EWRONGCLUSTER,
          "cluster" },
        { { .purpose = HELLO_QUERY, .cluster = cluster_1 }, cluster_1, DFS_EINVAL, "role" },
        { { .version = 99 }, cluster_1, DFS_EVERSION, "speaks protocol version 99, this is 1" },
        { { .version = 1 }, cluster_1, 0, NULL },
        { { .version = 1 }, cluster_2, DFS_EWRONGCLUSTER, "cluster" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct host h = cases[i].host;
        struct conn *c = NULL;
        struct why why = { "" };
        uint32_t node = 0;
        char addr[32];

        host_start(&h, addr);
        CHECK_INT(conn_open_hello(addr, HELLO_BLOCK, cases[i].mine, SOON, &c, &node, &why),
                  cases[i].err);
        CHECK_INT(host_stop(&h), h.version != 0 ? 0 : cases[i].err);
        CHECK((c != NULL) == (cases[i].err == 0));
        if (cases[i].err == 0 && h.version == 0) {
            CHECK_INT(node, 7);
        }
        if (cases[i].text != NULL) {
            CHECK(strstr(why.text, cases[i].text) != NULL && strstr(why.text, addr) != NULL);
        }
        conn_close(c);
    }
}

static void test_hello_from_strangers(void)
{
    static const struct {
        uint16_t type;
        uint32_t version;
        int err;
    } cases[] = { { RPC_hello, 99, DFS_EVERSION },
                  { RPC_hello, 0, DFS_EVERSION },
                  { TYPE, 1, DFS_EMALFORMED } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct host h = { .purpose = HELLO_BLOCK, .cluster = cluster_1 };
        struct hello_req q = { .version = cases[i].version, .purpose = HELLO_BLOCK };
        struct hello_rep r;
        struct conn *c = NULL;
        struct wire_out out;
        struct slice rep;
        char addr[32];
        int err;

        host_start(&h, addr);
        CHECK_INT(conn_open(addr, SOON, &c, NULL), 0);
        wire_out_init(&out, 256);
        hello_req_put(&out, &q);
        err = conn_call(c, cases[i].type, wire_out_slice(&out), &rep, SOON);
        CHECK_INT(err, cases[i].type == TYPE ? DFS_ECONN : cases[i].err);
        if (err == DFS_EVERSION) {
            CHECK_INT(hello_rep_get(rep, &r), 0);
            CHECK_INT(r.version, DFS_PROTOCOL);
        }
        CHECK_INT(host_stop(&h), cases[i].err);
        wire_out_fini(&out);
        conn_close(c);
    }
}

static void test_hello_silence(void)
{
    struct host h = { .purpose = HELLO_BLOCK };
    struct conn *c = NULL;
    struct why why;
    char addr[32];

    host_start(&h, addr); /* waits 300 ms for a hello that never comes */
    CHECK_INT(conn_open(addr, SOON, &c, NULL), 0);
    CHECK_INT(host_stop(&h), DFS_ETIMEOUT);
    conn_close(c);
    c = NULL;
    CHECK_INT(conn_listen("127.0.0.1:0", &h.fd, &h.port, NULL), 0);
    address(addr, h.port); /* nobody accepts */
    CHECK_INT(conn_open_hello(addr, HELLO_BLOCK, SLICE_EMPTY, clock_mono_ms() + 50, &c, NULL, &why),
              DFS_ETIMEOUT);
    CHECK(c == NULL);
    CHECK(strstr(why.text, addr) != NULL);
    close(h.fd);
}

int main(void)
{
    tap_run("messages and data of all sizes pass both ways", test_round_trips);
    tap_run("frames arrive in pieces and several at once", test_frames_in_pieces);
    tap_run("bad bytes are refused by kind and break the connection", test_bad_bytes);
    tap_run("deadlines hold, and one before the first byte does no harm", test_deadlines);
    tap_run("a wait that lasts is doubted, and ends when it is in vain", test_doubt);
    tap_run("a peer that dies in mid frame is an error, not a signal", test_peer_dies);
    tap_run("calls get their own replies and pass over late ones", test_calls);
    tap_run("frames over the limits are not sent", test_send_limits);
    tap_run("signals do not end a wait", test_interrupts);
    tap_run("listening and connecting name what is wrong", test_listen_and_connect);
    tap_run("connecting has a deadline", test_connect_deadline);
    tap_run("hello compares clusters, versions and purposes", test_hello);
    tap_run("hello answers strangers", test_hello_from_strangers);
    tap_run("hello does not wait for ever", test_hello_silence);
    return tap_done();
}
