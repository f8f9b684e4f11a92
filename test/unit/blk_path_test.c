/* The data plane: several servers in one process, over loopback. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"

#include "replication/path/blk_server.h"

#include "test/unit/tap.h"

#define SERVERS 3u

static uint8_t cluster[CLUSTER_ID_BYTES] = "cluster of tests";
static struct {
    struct store *store;
    struct blk_server *srv;
    char addr[64];
} servers[SERVERS];
static uint64_t last_block;

static void server_start(unsigned i)
{
    char dir[128];
    struct store_conf sc = { .dir = dir };
    struct blk_server_conf bc = { .listen = "127.0.0.1:0", .connections = 64, .hop_ms = 300 };
    struct store_found found;
    struct why why = { "" };

    snprintf(dir, sizeof(dir), "%s/s%u", tap_tmp(), i + 1);
    CHECK_INT(store_open(&sc, &servers[i].store, &found, &why), 0);
    CHECK_INT(store_adopt(servers[i].store, cluster, i + 1, &why), 0);
    bc.store = servers[i].store;
    CHECK_INT(blk_server_start(&bc, &servers[i].srv, &why), 0);
    CHECK_INT(blk_server_serve(servers[i].srv, cluster, i + 1, &why), 0);
    snprintf(servers[i].addr, sizeof(servers[i].addr), "127.0.0.1:%u",
             blk_server_port(servers[i].srv));
}

static void server_stop(unsigned i)
{
    blk_server_stop(servers[i].srv);
    store_close(servers[i].store);
    servers[i].srv = NULL;
    servers[i].store = NULL;
}

static uint64_t soon(void)
{
    return clock_mono_ms() + 20000;
}

static struct slice cluster_id(void)
{
    return slice_of(cluster, sizeof(cluster));
}

/* The bytes of every block: position dependent. */
static void pattern(uint8_t *p, uint32_t off, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)((off + i) * 31 + (off + i) / 4096);
    }
}

static struct conn *hello(unsigned server)
{
    struct conn *c = NULL;
    uint32_t node = 0;
    struct why why;

    CHECK_INT(
        conn_open_hello(servers[server].addr, HELLO_BLOCK, cluster_id(), soon(), &c, &node, &why),
        0);
    CHECK_INT(node, server + 1);
    return c;
}

/* Opens a chain over servers first..last; the addresses can be replaced by addr[i]. */
static int open_chain(unsigned first, unsigned last, uint64_t block, uint32_t off,
                      const char *const *addr, struct conn **ret, uint32_t *ret_bad)
{
    struct block_write_open_req q = { .block = block, .offset = off, .node = first + 1 };
    struct block_write_open_rep rep = { 0 };
    struct wire_out chain, out;
    struct slice msg = SLICE_EMPTY;
    struct conn *c = hello(first);
    int err;

    wire_out_init(&chain, 4096);
    wire_out_init(&out, 4096);
    for (unsigned i = first + 1; i <= last; i++) {
        const char *to = addr != NULL && addr[i] != NULL ? addr[i] : servers[i].addr;
        struct node_addr n = { .node = i + 1, .state = MEMBER_LIVE, .addr = slice_str(to) };

        node_addr_put(&chain, &n);
    }
    q.chain = wire_out_list(&chain, last - first);
    block_write_open_req_put(&out, &q);
    err = conn_call(c, RPC_block_write_open, wire_out_slice(&out), &msg, soon());
    if (block_write_open_rep_get(msg, &rep) == 0) {
        *ret_bad = rep.bad_node;
    }
    wire_out_fini(&chain);
    wire_out_fini(&out);
    *ret = c;
    return err;
}

struct packet {
    uint64_t block;
    uint32_t off, len;
    uint8_t flags;
    bool corrupt;
};

static int send_packet(struct conn *c, uint64_t id, const struct packet *p)
{
    static uint8_t data[PACKET_BYTES];
    static uint32_t sums[LAYOUT_SUMS_OF(PACKET_BYTES)];
    struct block_packet_req q = {
        .block = p->block, .offset = p->off, .len = p->len, .flags = p->flags
    };
    struct frame f = { .type = RPC_block_packet, .req_id = id };
    struct iovec iov[2];
    struct wire_out out;
    int err;

    pattern(data, p->off, p->len);
    iov[0] =
        (struct iovec){ sums, (size_t)rule_make_sums(p->off, slice_of(data, p->len), sums) * 4 };
    iov[1] = (struct iovec){ data, p->len };
    if (p->corrupt) {
        data[p->len / 2] ^= 1;
    }
    wire_out_init(&out, 4096);
    block_packet_req_put(&out, &q);
    err = conn_send(c, &f, wire_out_slice(&out), iov, 2, soon());
    wire_out_fini(&out);
    return err;
}

/* The next answer: its status; DFS_ECONN when there is none. */
static int take_answer(struct conn *c, uint64_t want_id, uint32_t *ret_off, uint32_t *ret_bad)
{
    struct block_packet_rep rep = { 0 };
    struct frame f = { 0 };
    struct slice msg;
    int err = conn_recv(c, &f, &msg, soon());

    if (err != 0) {
        return err;
    }
    CHECK_INT(f.type, RPC_block_packet);
    CHECK_INT(f.flags, FRAME_REPLY);
    CHECK_INT(f.req_id, want_id);
    CHECK_INT(block_packet_rep_get(msg, &rep), 0);
    *ret_off = rep.offset;
    *ret_bad = rep.bad_node;
    return (int)f.status;
}

static int read_range(struct conn *c, uint64_t block, uint32_t off, uint32_t len, uint8_t *data,
                      struct block_read_rep *ret)
{
    static _Thread_local uint32_t sums[LAYOUT_SUMS_OF(PACKET_BYTES)];
    struct block_read_req q = { .block = block, .offset = off, .len = len };
    struct frame f = { .type = RPC_block_read, .req_id = 7 };
    struct wire_out out;
    struct slice msg;
    int err;

    wire_out_init(&out, 4096);
    block_read_req_put(&out, &q);
    err = conn_send(c, &f, wire_out_slice(&out), NULL, 0, soon());
    wire_out_fini(&out);
    if (err == 0) {
        err = conn_recv(c, &f, &msg, soon());
    }
    if (err != 0 || f.status != 0) {
        return err != 0 ? err : (int)f.status;
    }
    err = block_read_rep_get(msg, ret);
    if (err == 0) {
        CHECK_INT(f.data_len, layout_chunks(ret->len) * 4 + ret->len);
        err = conn_recv_data(c, sums, (size_t)layout_chunks(ret->len) * 4, soon());
    }
    if (err == 0) {
        err = conn_recv_data(c, data, ret->len, soon());
    }
    return err != 0 ? err : rule_check_sums(ret->offset, slice_of(data, ret->len), sums);
}

static bool has(unsigned server, uint64_t block, uint32_t len)
{
    static uint8_t got[PACKET_BYTES + 2 * CHUNK_BYTES], want[PACKET_BYTES + 2 * CHUNK_BYTES];
    struct conn *c = hello(server);
    struct block_read_rep rep;
    bool ok = true;

    for (uint32_t off = 0; off < len && ok; off += rep.len) {
        ok = read_range(c, block, off, PACKET_BYTES, got, &rep) == 0 && rep.offset == off &&
             rep.len != 0 && rep.replica_len == len;
        pattern(want, off, rep.len);
        ok = ok && memcmp(got, want, rep.len) == 0;
    }
    conn_close(c);
    return ok;
}

static void test_chain(void)
{
    static const uint32_t sizes[] = { 1 << 20, 100, 5000, 1 << 20, 1 << 20, 1 << 20, 777, 4096 };
    uint64_t block = ++last_block;
    uint32_t off = 0, bad = 0, got;
    struct rule_replica view;
    struct replica *r;
    struct conn *c;

    CHECK_INT(open_chain(0, 2, block, 0, NULL, &c, &bad), 0);
    for (uint32_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct packet p = { .block = block, .off = off, .len = sizes[i] };

        p.flags = i == 2 ? WRITE_SYNC : i == ARRAY_LEN(sizes) - 1 ? WRITE_LAST | WRITE_SYNC : 0;
        CHECK_INT(send_packet(c, 100 + i, &p), 0);
        off += sizes[i];
    }
    off = 0;
    for (uint32_t i = 0; i < ARRAY_LEN(sizes); i++) {
        off += sizes[i];
        CHECK_INT(take_answer(c, 100 + i, &got, &bad), 0);
        CHECK_INT(got, off);
        CHECK_INT(bad, 0);
    }
    for (unsigned i = 0; i < SERVERS; i++) {
        CHECK(has(i, block, off));
        CHECK_INT(store_get(servers[i].store, block, &r), 0);
        view = replica_look(r);
        CHECK_INT(view.state, RULE_SEALED);
        store_put(servers[i].store, r);
    }
    conn_close(c);
}

/* ---- what goes wrong in a chain ---- */

static void test_corrupt(void)
{
    struct packet p = { .len = 50000, .block = ++last_block };
    uint32_t bad = 0, off;
    struct conn *c;

    CHECK_INT(open_chain(0, 1, p.block, 0, NULL, &c, &bad), 0);
    CHECK_INT(send_packet(c, 1, &p), 0);
    CHECK_INT(take_answer(c, 1, &off, &bad), 0);
    p.off = 50000;
    p.corrupt = true;
    CHECK_INT(send_packet(c, 2, &p), 0);
    CHECK_INT(take_answer(c, 2, &off, &bad), DFS_ECHECKSUM);
    CHECK_INT(bad, 1);
    CHECK_INT(take_answer(c, 2, &off, &bad), DFS_ECONN);
    conn_close(c);
    CHECK(has(0, p.block, 50000));
    CHECK(has(1, p.block, 50000));
}

/* A port where nobody listens. */
static void dead_addr(char out[64])
{
    uint16_t port = 0;
    int fd = -1;

    CHECK_INT(conn_listen("127.0.0.1:0", &fd, &port, NULL), 0);
    close(fd);
    snprintf(out, 64, "127.0.0.1:%u", port);
}

static void test_dead_at_open(void)
{
    char dead[64];
    const char *addr[SERVERS] = { NULL };
    uint32_t bad;
    struct conn *c;

    dead_addr(dead);
    for (unsigned i = 1; i < SERVERS; i++) {
        memset(addr, 0, sizeof(addr));
        addr[i] = dead;
        bad = 0;
        CHECK_INT(open_chain(0, 2, ++last_block, 0, addr, &c, &bad), DFS_ECONN);
        CHECK_INT(bad, i + 1);
        conn_close(c);
    }
    /* Another server under that address. */
    addr[2] = servers[1].addr;
    CHECK_INT(open_chain(0, 2, ++last_block, 0, addr, &c, &bad), DFS_ECONN);
    CHECK_INT(bad, 3);
    conn_close(c);
}

static void test_dies_under_way(void)
{
    struct packet p = { .len = 100000, .block = ++last_block };
    uint32_t bad = 0, off;
    struct conn *c;
    int err = 0;

    CHECK_INT(open_chain(0, 2, p.block, 0, NULL, &c, &bad), 0);
    CHECK_INT(send_packet(c, 0, &p), 0);
    CHECK_INT(take_answer(c, 0, &off, &bad), 0);
    blk_server_stop(servers[2].srv);
    servers[2].srv = NULL;
    p.off = p.len;
    CHECK_INT(send_packet(c, 1, &p), 0);
    err = take_answer(c, 1, &off, &bad);
    CHECK_INT(err, DFS_ECONN);
    CHECK_INT(bad, 3);
    conn_close(c);
    CHECK(has(0, p.block, 100000) || has(0, p.block, 200000));
    store_close(servers[2].store);
    server_start(2);
    CHECK(has(2, p.block, 100000));
}

/* Says hello, opens the stream, and then never says anything again. */
static void *play_silent(void *arg)
{
    int fd = *(int *)arg, got;
    struct frame f, r = { .type = RPC_block_write_open, .flags = FRAME_REPLY };
    struct block_write_open_rep rep = { 0 };
    struct wire_out out;
    struct slice msg;
    struct conn *c;

    do {
        got = accept(fd, NULL, NULL);
    } while (got < 0 && errno == EAGAIN);
    c = conn_of_fd(got);
    wire_out_init(&out, 256);
    block_write_open_rep_put(&out, &rep);
    CHECK_INT(conn_accept_hello(c, HELLO_BLOCK, cluster_id(), 2, soon(), NULL), 0);
    CHECK_INT(conn_recv(c, &f, &msg, soon()), 0);
    r.req_id = f.req_id;
    CHECK_INT(conn_send(c, &r, wire_out_slice(&out), NULL, 0, soon()), 0);
    while (conn_recv(c, &f, &msg, soon()) == 0) {
        uint8_t scrap[1000];

        for (uint32_t left = f.data_len; left > 0; left -= MIN(left, sizeof(scrap))) {
            CHECK_INT(conn_recv_data(c, scrap, MIN(left, sizeof(scrap)), soon()), 0);
        }
    }
    conn_close(c);
    wire_out_fini(&out);
    return NULL;
}

static void test_silent(void)
{
    struct packet p = { .len = 1000, .block = ++last_block };
    const char *addr[SERVERS] = { NULL };
    uint32_t bad = 0, off;
    char text[64];
    uint16_t port = 0;
    uint64_t began;
    struct conn *c;
    pthread_t t;
    int fd = -1;

    CHECK_INT(conn_listen("127.0.0.1:0", &fd, &port, NULL), 0);
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    CHECK_INT(pthread_create(&t, NULL, play_silent, &fd), 0);
    addr[1] = text;
    CHECK_INT(open_chain(0, 1, p.block, 0, addr, &c, &bad), 0);
    began = clock_mono_ms();
    CHECK_INT(send_packet(c, 1, &p), 0);
    CHECK_INT(take_answer(c, 1, &off, &bad), DFS_ETIMEOUT);
    CHECK_INT(bad, 2);
    CHECK(clock_mono_ms() - began >= 290);
    conn_close(c);
    pthread_join(t, NULL);
    close(fd);
}

static void test_full_disk(void)
{
    struct packet p = { .len = 1000, .block = ++last_block };
    uint32_t bad = 0, off;
    struct conn *c;

    if (!FAULTS_BUILT_IN) {
        return;
    }
    CHECK_INT(open_chain(0, 2, p.block, 0, NULL, &c, &bad), 0);
    /* The first server passes the packet on before it stores it itself, so any may be first to
     * fail; one does, and all are told. */
    CHECK_INT(fault_arm("replica.append.data=NOSPC times=1", NULL), 0);
    CHECK_INT(send_packet(c, 1, &p), 0);
    CHECK_INT(take_answer(c, 1, &off, &bad), DFS_ENOSPC);
    CHECK(bad >= 1 && bad <= 3);
    CHECK_INT(fault_arm("", NULL), 0);
    conn_close(c);
}

/* ---- refusals ---- */

static void test_refusals(void)
{
    uint8_t wrong[CLUSTER_ID_BYTES] = "another cluster.";
    struct packet p = { .len = 1000, .block = ++last_block };
    uint32_t bad = 0, off;
    struct conn *c = NULL;
    struct why why;

    CHECK_INT(conn_open_hello(servers[0].addr, HELLO_BLOCK, slice_of(wrong, sizeof(wrong)), soon(),
                              &c, NULL, &why),
              DFS_EWRONGCLUSTER);
    /* A packet without a stream, and one for another block. */
    c = hello(0);
    CHECK_INT(send_packet(c, 5, &p), 0);
    CHECK_INT(take_answer(c, 5, &off, &bad), DFS_EINVAL);
    conn_close(c);
    CHECK_INT(open_chain(0, 0, p.block, 0, NULL, &c, &bad), 0);
    p.block++;
    CHECK_INT(send_packet(c, 5, &p), 0);
    CHECK_INT(take_answer(c, 5, &off, &bad), DFS_EINVAL);
    conn_close(c);
    /* Not at the end; and behind the packet that seals. */
    CHECK_INT(open_chain(0, 0, --p.block, 7, NULL, &c, &bad), DFS_EOFFSET);
    conn_close(c);
    CHECK_INT(open_chain(0, 0, p.block, 0, NULL, &c, &bad), 0);
    p.flags = WRITE_LAST;
    CHECK_INT(send_packet(c, 1, &p), 0);
    CHECK_INT(take_answer(c, 1, &off, &bad), 0);
    p.off = 1000;
    CHECK_INT(send_packet(c, 2, &p), 0);
    CHECK_INT(take_answer(c, 2, &off, &bad), DFS_EINVAL);
    conn_close(c);
    CHECK_INT(open_chain(0, 0, p.block, 1000, NULL, &c, &bad), DFS_ESEALED);
    conn_close(c);
    /* A fenced server. */
    blk_server_fence(servers[0].srv, clock_mono_ms());
    CHECK_INT(open_chain(0, 0, ++last_block, 0, NULL, &c, &bad), DFS_EFENCED);
    CHECK_INT(bad, 1);
    conn_close(c);
    blk_server_fence(servers[0].srv, UINT64_MAX);
    /* In the middle of a stream; the next one is taken as soon as a master has answered. */
    p.block = ++last_block;
    p.off = 0;
    p.flags = 0;
    CHECK_INT(open_chain(0, 0, p.block, 0, NULL, &c, &bad), 0);
    CHECK_INT(send_packet(c, 1, &p), 0);
    CHECK_INT(take_answer(c, 1, &off, &bad), 0);
    blk_server_fence(servers[0].srv, clock_mono_ms());
    p.off = off;
    CHECK_INT(send_packet(c, 2, &p), 0);
    CHECK_INT(take_answer(c, 2, &off, &bad), DFS_EFENCED);
    CHECK_INT(bad, 1);
    conn_close(c);
    blk_server_fence(servers[0].srv, UINT64_MAX);
    CHECK_INT(open_chain(0, 0, p.block, p.off, NULL, &c, &bad), 0);
    p.flags = WRITE_LAST;
    CHECK_INT(send_packet(c, 1, &p), 0);
    CHECK_INT(take_answer(c, 1, &off, &bad), 0);
    conn_close(c);
    CHECK(has(0, p.block, off));
}

static void test_garbage(void)
{
    static const char junk[] =
        "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\nmore than a frame's header";
    struct blk_stats before, after;
    struct conn *c = NULL;
    struct slice msg;
    uint8_t byte;

    blk_server_stats(servers[0].srv, &before);
    CHECK_INT(conn_open(servers[0].addr, soon(), &c, NULL), 0);
    CHECK_INT(send(conn_fd(c), junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
    CHECK_INT(conn_recv_data(c, &byte, 0, soon()), 0);
    CHECK_INT(conn_recv(c, &(struct frame){ 0 }, &msg, soon()), DFS_ECONN);
    conn_close(c);
    /* After the hello, too. */
    c = hello(0);
    CHECK_INT(send(conn_fd(c), junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
    CHECK_INT(conn_recv(c, &(struct frame){ 0 }, &msg, soon()), DFS_ECONN);
    conn_close(c);
    blk_server_stats(servers[0].srv, &after);
    CHECK(after.refused >= before.refused + 2);
    /* An unknown request does not end the connection. */
    c = hello(0);
    CHECK_INT(conn_call(c, 0x02ff, SLICE_EMPTY, &msg, soon()), DFS_EUNKNOWNRPC);
    CHECK_INT(conn_call(c, 0x02ff, SLICE_EMPTY, &msg, soon()), DFS_EUNKNOWNRPC);
    conn_close(c);
}

/* ---- reads, syncs, copies ---- */

struct watcher {
    uint64_t block;
    _Atomic uint32_t acked;
    _Atomic bool stop;
    unsigned reads, bad;
};

static void *watch(void *arg)
{
    uint8_t *got = x_alloc(PACKET_BYTES + 2 * CHUNK_BYTES), *want = x_alloc(PACKET_BYTES * 2);
    struct watcher *w = arg;
    struct conn *c = hello(1);

    while (!atomic_load(&w->stop) || w->reads == 0) {
        uint32_t len = atomic_load(&w->acked);
        uint32_t from = len > 70000 ? len - 70000 : 0;
        struct block_read_rep rep = { 0 };

        if (len == 0) {
            continue;
        }
        if (read_range(c, w->block, from, len - from, got, &rep) != 0 ||
            rep.offset + rep.len < len) {
            w->bad++;
            break;
        }
        pattern(want, rep.offset, rep.len);
        w->bad += memcmp(want, got, rep.len) != 0 ? 1 : 0;
        w->reads++;
    }
    conn_close(c);
    free(got);
    free(want);
    return NULL;
}

static void test_read_during_write(void)
{
    struct watcher w = { .block = ++last_block };
    struct packet p = { .block = w.block };
    uint32_t bad = 0, off = 0;
    struct conn *c;
    pthread_t t;

    CHECK_INT(open_chain(0, 1, p.block, 0, NULL, &c, &bad), 0);
    CHECK_INT(pthread_create(&t, NULL, watch, &w), 0);
    for (uint32_t i = 0; i < 300; i++) {
        p.off = off;
        p.len = 1 + i * 97 % 9000;
        CHECK_INT(send_packet(c, i, &p), 0);
        CHECK_INT(take_answer(c, i, &off, &bad), 0);
        atomic_store(&w.acked, off);
    }
    atomic_store(&w.stop, true);
    pthread_join(t, NULL);
    CHECK_INT(w.bad, 0);
    conn_close(c);
}

static int call_sync(unsigned server, uint64_t block, uint32_t len)
{
    struct block_sync_req q = { .block = block, .len = len };
    struct wire_out out;
    struct slice msg;
    struct conn *c = hello(server);
    int err;

    wire_out_init(&out, 256);
    block_sync_req_put(&out, &q);
    err = conn_call(c, RPC_block_sync, wire_out_slice(&out), &msg, soon());
    wire_out_fini(&out);
    conn_close(c);
    return err;
}

static int call_stat(unsigned server, uint64_t block, bool check, struct block_stat_rep *ret)
{
    struct block_stat_req q = { .block = block, .check = check };
    struct wire_out out;
    struct slice msg = SLICE_EMPTY;
    struct conn *c = hello(server);
    int err;

    wire_out_init(&out, 256);
    block_stat_req_put(&out, &q);
    err = conn_call(c, RPC_block_stat, wire_out_slice(&out), &msg, soon());
    CHECK_INT(block_stat_rep_get(msg, ret), 0);
    ret->volume = SLICE_EMPTY; /* borrowed from the connection */
    wire_out_fini(&out);
    conn_close(c);
    return err;
}

/* One sealed block on server 0. */
static uint64_t sealed_block(uint32_t len)
{
    struct packet p = { .block = ++last_block };
    uint32_t bad = 0, off = 0;
    struct conn *c;

    CHECK_INT(open_chain(0, 0, p.block, 0, NULL, &c, &bad), 0);
    for (uint32_t at = 0; at < len || at == 0; at += p.len) {
        p.off = at;
        p.len = MIN(len - at, PACKET_BYTES);
        p.flags = at + p.len == len ? WRITE_LAST : 0;
        CHECK_INT(send_packet(c, 1, &p), 0);
        CHECK_INT(take_answer(c, 1, &off, &bad), 0);
        if (len == 0) {
            break;
        }
    }
    conn_close(c);
    return p.block;
}

static void damage(unsigned server, uint64_t block, uint32_t off)
{
    char path[REPLICA_PATH_MAX];
    struct replica *r;
    uint8_t byte;
    int fd;

    CHECK_INT(store_get(servers[server].store, block, &r), 0);
    fd = open(volume_replica_path(r->vol, block, path), O_RDWR | O_CLOEXEC);
    CHECK_INT(pread(fd, &byte, 1, (off_t)layout_data_at(off)), 1);
    byte ^= 4;
    CHECK_INT(pwrite(fd, &byte, 1, (off_t)layout_data_at(off)), 1);
    close(fd);
    store_put(servers[server].store, r);
}

static void test_sync_stat(void)
{
    uint64_t block = sealed_block(10000);
    struct block_stat_rep rep;
    struct replica_bad bad[8];
    size_t n;

    CHECK_INT(call_sync(0, block, 10000), 0);
    CHECK_INT(call_sync(0, block, 10001), DFS_EOFFSET);
    CHECK_INT(call_sync(0, 999999, 1), DFS_ENOBLOCK);
    CHECK_INT(call_stat(0, block, true, &rep), 0);
    CHECK_INT(rep.len, 10000);
    CHECK_INT(rep.state, REPLICA_SEALED);
    CHECK_INT(call_stat(1, block, false, &rep), DFS_ENOBLOCK);
    damage(0, block, 9000);
    CHECK_INT(call_stat(0, block, false, &rep), 0);
    CHECK_INT(call_stat(0, block, true, &rep), DFS_ECHECKSUM);
    n = store_bad(servers[0].store, bad, 8);
    CHECK_INT(n, 1);
    CHECK_INT(bad[0].block, block);
    store_bad_told(servers[0].store, n);
}

static void test_copy(void)
{
    static const uint32_t lens[] = { 0, 1, 4096, 1 << 20, 7654321 };
    static const char *const of_target[] = { "blk.packet.store=CHECKSUM times=2",
                                             "blk.packet.store=NOBLOCK times=2",
                                             "blk.packet.store=OFFSET times=2" };
    struct blk_copy copy = { .node = 2, .addr = servers[1].addr };
    struct replica_bad bad[8];
    struct block_stat_rep rep;

    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        copy.block = sealed_block(lens[i]);
        copy.len = lens[i];
        CHECK_INT(blk_server_copy(servers[0].srv, &copy), 0);
        CHECK_INT(call_stat(1, copy.block, true, &rep), 0);
        CHECK_INT(rep.len, lens[i]);
        CHECK_INT(rep.state, REPLICA_SEALED);
        CHECK(lens[i] == 0 || has(1, copy.block, lens[i]));
        /* Ordered twice. */
        CHECK_INT(blk_server_copy(servers[0].srv, &copy), 0);
    }
    copy.len++;
    CHECK_INT(blk_server_copy(servers[0].srv, &copy), DFS_EOFFSET);
    copy.block = 999999;
    CHECK_INT(blk_server_copy(servers[0].srv, &copy), DFS_ENOBLOCK);
    /* A damaged source is not spread, and is reported. */
    copy.block = sealed_block(3000000);
    copy.len = 3000000;
    damage(0, copy.block, 2500000);
    CHECK_INT(blk_server_copy(servers[0].srv, &copy), DFS_ECHECKSUM);
    CHECK_INT(store_bad(servers[0].store, bad, 8), 1);
    CHECK_INT(bad[0].block, copy.block);
    store_bad_told(servers[0].store, 1);
    /* What the target says of itself is no word about the copy here. */
    for (unsigned i = 0; i < ARRAY_LEN(of_target) && FAULTS_BUILT_IN; i++) {
        uint64_t block = sealed_block(5000);
        struct blk_copy to = { .block = block, .len = 5000, .node = 2, .addr = servers[1].addr };

        CHECK_INT(fault_arm(of_target[i], NULL), 0);
        CHECK_INT(blk_server_copy(servers[0].srv, &to), DFS_EAGAIN);
        CHECK_INT(fault_arm("", NULL), 0);
        CHECK_INT(store_bad(servers[0].store, bad, 8), 0);
        CHECK_INT(blk_server_copy(servers[0].srv, &to), 0);
        /* Nor does a damaged one there count. */
        damage(1, block, 2500);
        CHECK_INT(blk_server_copy(servers[0].srv, &to), DFS_EEXIST);
        CHECK_INT(store_bad(servers[1].store, bad, 8), 1);
        store_bad_told(servers[1].store, 1);
    }
    /* The target lets go of what it had as soon as the connection is gone. */
    for (int i = 0; i < 400 && call_stat(1, copy.block, false, &rep) == 0; i++) {
        usleep(5000);
    }
    CHECK_INT(call_stat(1, copy.block, false, &rep), DFS_ENOBLOCK);
}

static void test_next_block(void)
{
    struct block_write_open_req q = { .node = 1 };
    struct packet p = { .len = 5000 };
    uint32_t bad = 0, off;
    struct wire_out out;
    struct slice msg;
    struct conn *c;

    CHECK_INT(open_chain(0, 1, p.block = ++last_block, 0, NULL, &c, &bad), 0);
    CHECK_INT(send_packet(c, 1, &p), 0);
    /* Another stream on the same connection, before the answer was taken. */
    q.block = ++last_block;
    wire_out_init(&out, 256);
    block_write_open_req_put(&out, &q);
    CHECK_INT(conn_send(c, &(struct frame){ .type = RPC_block_write_open, .req_id = 2 },
                        wire_out_slice(&out), NULL, 0, soon()),
              0);
    CHECK_INT(take_answer(c, 1, &off, &bad), 0);
    CHECK_INT(conn_recv(c, &(struct frame){ 0 }, &msg, soon()), 0);
    p.block = q.block;
    CHECK_INT(send_packet(c, 3, &p), 0);
    CHECK_INT(take_answer(c, 3, &off, &bad), 0);
    wire_out_fini(&out);
    conn_close(c);
    CHECK(has(0, q.block, 5000));
    /* The first one is free for another writer at its end. */
    CHECK_INT(open_chain(0, 1, q.block - 1, 5000, NULL, &c, &bad), 0);
    conn_close(c);
}

/* Many packets without reading an answer: more than the window holds. */
static void test_window(void)
{
    struct packet p = { .len = 100, .block = ++last_block };
    uint32_t bad = 0, off;
    struct conn *c;

    CHECK_INT(open_chain(0, 2, p.block, 0, NULL, &c, &bad), 0);
    for (uint32_t i = 0; i < 500; i++) {
        CHECK_INT(send_packet(c, i, &p), 0);
        p.off += p.len;
    }
    for (uint32_t i = 0; i < 500; i++) {
        CHECK_INT(take_answer(c, i, &off, &bad), 0);
        CHECK_INT(off, (i + 1) * 100);
    }
    conn_close(c);
    CHECK(has(2, p.block, 50000));
}

static void quiet(void)
{
    CHECK_INT(log_configure("off", NULL), 0);
}

int main(void)
{
    quiet();
    for (unsigned i = 0; i < SERVERS; i++) {
        server_start(i);
    }
    tap_run("a stream reaches three servers, unaligned packets too, and is sealed", test_chain);
    tap_run("a client may be hundreds of packets ahead", test_window);
    tap_run("a damaged packet is refused and names the server", test_corrupt);
    tap_run("a dead server in the chain is named at the open", test_dead_at_open);
    tap_run("a server that dies in a stream is named", test_dies_under_way);
    tap_run("a server that falls silent is named", test_silent);
    tap_run("a full disk ends the stream", test_full_disk);
    tap_run("streams that break the rules are refused", test_refusals);
    tap_run("garbage closes the connection and is counted", test_garbage);
    tap_run("reads return what was acknowledged while the stream goes on", test_read_during_write);
    tap_run("sync and stat, with a damaged replica", test_sync_stat);
    tap_run("repair copies are exact, and damage is not copied", test_copy);
    tap_run("one connection carries one stream after the other", test_next_block);
    for (unsigned i = 0; i < SERVERS; i++) {
        server_stop(i);
    }
    return tap_done();
}
