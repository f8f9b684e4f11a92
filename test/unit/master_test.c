#include "fs/role/master.h"

#include <signal.h>
#include <sys/wait.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"
#include "cluster/net/control.h"

#include "fs/msgs.h"
#include "fs/role/local_conf.h"

#include "test/unit/tap.h"

#define CONNECT_MS 10000 /* sanitizers on a busy machine are slow */

/* A real master in a process of its own, and its clients and servers played by the test. */
static char addr[64], control_addr[64];
static uint8_t cluster[CLUSTER_ID_BYTES];
static struct conn *commands, *queries;
static struct wire_out msg, rep;
static uint64_t session, seq;
static pid_t pid;

static const char *metadata_max = "metadata.max=256MiB";
#ifdef DFS_FAULTS
static const char *faults = ""; /* of the master */
#endif

static struct conf *conf_of(const char *name)
{
    struct conf *c = conf_new();
    char text[300];
    const char *more[] = { "replication=2",        "session.lease=1s",
                           "delete.grace=0s",      "server.suspect_after=400ms",
                           "server.dead_after=1s", "heartbeat=100ms",
                           metadata_max,           text };

    snprintf(text, sizeof(text), "master.listen=%s", addr);
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        CHECK_INT(conf_set(c, more[i], NULL), 0);
    }
    snprintf(text, sizeof(text), "master.data=%s/%s", tap_tmp(), name);
    CHECK_INT(conf_set(c, text, NULL), 0);
    return c;
}

/* In a child: serves until it is told to stop; a refusal is written to fd. */
static pid_t master_start(const char *name, int fd)
{
    pid_t child;

    fflush(stdout);
    child = fork();

    if (child == 0) {
        struct why why = { "" };
        struct conf *c = conf_of(name);
        int err;

        log_configure("off", NULL);
#ifdef DFS_FAULTS
        CHECK_INT(fault_arm(faults, &why), 0);
#endif
        err = master_run(c, NULL, &why);
        conf_free(c);
        if (err != 0 && fd >= 0 && write(fd, why.text, strlen(why.text)) < 0) {
            _exit(99);
        }
        _exit(err);
    }
    return child;
}

static bool connected(void)
{
    for (int i = 0; i < 500; i++) {
        if (conn_open_hello(addr, HELLO_COMMAND, SLICE_EMPTY, clock_mono_ms() + CONNECT_MS,
                            &commands, NULL, NULL) == 0) {
            CHECK_INT(conn_open_hello(addr, HELLO_QUERY, SLICE_EMPTY, clock_mono_ms() + CONNECT_MS,
                                      &queries, NULL, NULL),
                      0);
            return true;
        }
        usleep(10000);
    }
    return false;
}

static void begin(const char *name)
{
    pid = master_start(name, -1);
    CHECK(connected());
}

/* Returns the exit status, -1 after a signal. */
static int end(int sig)
{
    int status;

    conn_close(commands);
    conn_close(queries);
    commands = queries = NULL;
    kill(pid, sig);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void hdr(uint64_t s, uint64_t n)
{
    struct call_hdr h = { .session = s, .slot = 1, .seq = n };

    wire_out_reset(&msg);
    call_hdr_put(&msg, &h);
}

static int call(struct conn *c, uint16_t type, struct slice *ret)
{
    return conn_call(c, type, wire_out_slice(&msg), ret, clock_mono_ms() + CONNECT_MS);
}

static int open_session(void)
{
    struct session_open_req req = { .host = slice_str("h1"), .name = slice_str("test") };
    struct session_open_rep got;
    struct slice r;
    int err;

    hdr(0, 0);
    session_open_req_put(&msg, &req);
    err = call(commands, RPC_session_open, &r);
    err = err != 0 ? err : session_open_rep_get(r, &got);
    if (err == 0) {
        session = got.session;
        seq = 0;
        memcpy(cluster, got.cluster.p, sizeof(cluster));
    }
    return err;
}

static int make(const char *name, uint64_t n)
{
    struct make_req req = { .parent = INODE_ROOT,
                            .name = slice_str(name),
                            .mode = 0100644,
                            .flags = MAKE_EXCL | MAKE_OPEN };
    struct slice r;

    hdr(session, n);
    make_req_put(&msg, &req);
    return call(commands, RPC_make, &r);
}

static int unlink_name(const char *name)
{
    struct unlink_req req = { .parent = INODE_ROOT, .name = slice_str(name) };
    struct slice r;

    hdr(session, ++seq);
    unlink_req_put(&msg, &req);
    return call(commands, RPC_unlink, &r);
}

static int lookup(const char *name, uint64_t *ret_ino)
{
    struct lookup_req req = { .parent = INODE_ROOT, .name = slice_str(name) };
    struct lookup_rep got;
    struct wire_in in;
    struct attr a;
    struct slice r;
    int err;

    hdr(session, 0);
    lookup_req_put(&msg, &req);
    err = call(queries, RPC_lookup, &r);
    if (err == 0 && ret_ino != NULL) {
        CHECK_INT(lookup_rep_get(r, &got), 0);
        in = wire_in_of(got.attr);
        CHECK_INT(attr_get(&in, &a), 0);
        *ret_ino = a.ino;
    }
    return err;
}

static int getattr(uint64_t ino)
{
    struct getattr_req req = { .ino = ino };
    struct slice r;

    hdr(session, 0);
    getattr_req_put(&msg, &req);
    return call(queries, RPC_getattr, &r);
}

static int ping(uint64_t closed)
{
    struct session_ping_req req = { 0 };
    struct wire_out list;
    struct slice r;
    int err;

    wire_out_init(&list, 64);
    if (closed != 0) {
        ino_ref_put(&list, &(struct ino_ref){ closed });
        req.closed = wire_out_list(&list, 1);
    }
    hdr(session, 0);
    session_ping_req_put(&msg, &req);
    err = call(queries, RPC_session_ping, &r);
    wire_out_fini(&list);
    return err;
}

/* The kind of the one event that comes, or an error below 0. */
static int poll_events(struct session_poll_req *at)
{
    struct session_poll_rep got;
    struct event ev = { 0 };
    struct wire_in in;
    struct slice r;
    int err;

    hdr(session, 0);
    session_poll_req_put(&msg, at);
    err = call(queries, RPC_session_poll, &r);
    err = err != 0 ? err : session_poll_rep_get(r, &got);
    if (err != 0) {
        return -err;
    }
    in = wire_in_of(got.events.items);
    CHECK(got.events.count == 0 || event_get(&in, &ev) == 0);
    at->channel = got.channel;
    at->seen = got.next;
    return ev.kind;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void test_commands(void)
{
    uint64_t us[100]; /* well within the lease, which nobody renews here */
    char name[32];

    begin("a");
    CHECK_INT(open_session(), 0);
    CHECK_INT(make("x", ++seq), 0);
    CHECK_INT(make("x", seq), 0); /* the first answer again */
    CHECK_INT(make("x", seq - 1), DFS_EREPLAYED);
    CHECK_INT(make("x", ++seq), DFS_EEXIST);
    CHECK_INT(lookup("x", NULL), 0);
    CHECK_INT(lookup("y", NULL), DFS_ENOENT);
    for (size_t i = 0; i < ARRAY_LEN(us); i++) {
        uint64_t from = clock_mono_us();

        snprintf(name, sizeof(name), "f%zu", i);
        CHECK_INT(make(name, ++seq), 0);
        us[i] = clock_mono_us() - from;
    }
    qsort(us, ARRAY_LEN(us), sizeof(us[0]), compare);
    printf("# a lone create: p50 %ju us, p99 %ju us\n", (uintmax_t)us[ARRAY_LEN(us) / 2],
           (uintmax_t)us[ARRAY_LEN(us) * 99 / 100]);
    CHECK_INT(end(SIGKILL), -1);
    begin("a");
    CHECK_INT(lookup("x", NULL), 0);
    CHECK_INT(lookup("f99", NULL), 0);
    CHECK_INT(make("f99", seq), 0); /* the answer outlives the process */
    CHECK_INT(end(SIGTERM), 0);
    begin("a");
    CHECK_INT(lookup("f99", NULL), 0);
    CHECK_INT(end(SIGTERM), 0);
}

static int rmdir_tree(const char *name, const char *dir)
{
    char cmd[300];

    snprintf(cmd, sizeof(cmd), "rm -r %s/%s/%s", tap_tmp(), name, dir);
    return system(cmd);
}

/* The exit status of a start that is refused; *ret_text says why. */
static int refused(const char *name, char ret_text[512])
{
    int pipe_fds[2], status;
    pid_t child;

    memset(ret_text, 0, 512);
    CHECK_INT(pipe(pipe_fds), 0);
    child = master_start(name, pipe_fds[1]);
    CHECK_INT(waitpid(child, &status, 0), child);
    close(pipe_fds[1]);
    CHECK(read(pipe_fds[0], ret_text, 511) > 0);
    close(pipe_fds[0]);
    return WEXITSTATUS(status);
}

static void away(const char *name, const char *file, bool back)
{
    char a[200], b[200];

    snprintf(a, sizeof(a), "%s/%s/%s", tap_tmp(), name, file);
    snprintf(b, sizeof(b), "%s/%s/%s.away", tap_tmp(), name, file);
    CHECK_INT(back ? rename(b, a) : rename(a, b), 0);
}

static void test_refusals(void)
{
    struct ns_init_req init = { .cluster = slice_of(cluster, sizeof(cluster)) };
    struct session_poll_req at = { 0 };
    char text[512];
    struct slice r;
    uint64_t mine;

    begin("b");
    CHECK_INT(open_session(), 0);
    hdr(session, ++seq); /* commands of the leader are not for clients */
    ns_init_req_put(&msg, &init);
    CHECK_INT(call(commands, RPC_ns_init, &r), DFS_EUNKNOWNRPC);
    CHECK_INT(call(commands, RPC_lookup, &r), DFS_EUNKNOWNRPC);
    wire_out_reset(&msg);
    wire_put_u8(&msg, 1);
    CHECK_INT(call(commands, RPC_make, &r), DFS_EMALFORMED);
    mine = session;
    session = 12345;
    CHECK_INT(make("z", ++seq), DFS_ESESSION);
    CHECK_INT(ping(0), DFS_ESESSION);
    CHECK_INT(poll_events(&at), -DFS_ESESSION);
    session = mine;
    CHECK_INT(poll_events(&at), EVENT_ALL);
    CHECK_INT(make("z", ++seq), 0);
    CHECK_INT(refused("b", text), DFS_EBUSY);
    CHECK(strstr(text, "/b: in use by a running master") != NULL);
    CHECK_INT(refused("c", text), DFS_EBUSY);
    CHECK(strstr(text, "127.0.0.1:") != NULL);
    CHECK_INT(end(SIGTERM), 0);
}

static void test_never_empty(void)
{
    char text[512];

    begin("g");
    CHECK_INT(open_session(), 0);
    CHECK_INT(make("keep", ++seq), 0);
    CHECK_INT(end(SIGKILL), -1);
    away("g", "log", false);
    CHECK_INT(refused("g", text), DFS_EDAMAGED);
    CHECK(strstr(text, "/g/log: the log is missing") != NULL);
    away("g", "db", false);
    CHECK_INT(refused("g", text), DFS_EDAMAGED);
    CHECK(strstr(text, "/g/log: the log is missing") != NULL);
    CHECK_INT(rmdir_tree("g", "db"), 0);
    away("g", "db", true);
    away("g", "log", true);
    begin("g");
    CHECK_INT(lookup("keep", NULL), 0);
    CHECK_INT(end(SIGTERM), 0);
}

/* ---- sessions ---- */

static bool becomes(int (*fn)(uint64_t), uint64_t arg, int want, int ms)
{
    for (int i = 0; i < ms / 20; i++) {
        if (fn(arg) == want) {
            return true;
        }
        ping(0);
        usleep(20000);
    }
    return false;
}

static void test_open_files(void)
{
    uint64_t ino = 0;

    begin("d");
    CHECK_INT(open_session(), 0);
    CHECK_INT(make("o", ++seq), 0);
    CHECK_INT(lookup("o", &ino), 0);
    CHECK_INT(unlink_name("o"), 0);
    CHECK_INT(lookup("o", NULL), DFS_ENOENT);
    CHECK(!becomes(getattr, ino, DFS_ESTALE, 1200)); /* it is open */
    CHECK_INT(getattr(ino), 0);
    CHECK_INT(ping(ino), 0);
    CHECK(becomes(getattr, ino, DFS_ESTALE, 4000));
    usleep(1500000); /* silence */
    CHECK_INT(ping(0), DFS_ESESSION);
    CHECK_INT(make("late", ++seq), DFS_ESESSION);
    CHECK_INT(end(SIGTERM), 0);
}

/* ---- room ---- */

#define MEASURED_MS 1500 /* twice in this time */

static int fill(uint64_t ino, const char *name)
{
    static uint8_t value[LIMIT_XATTR_VALUE];
    struct setxattr_req req = { .ino = ino,
                                .name = slice_str(name),
                                .value = slice_of(value, sizeof(value)) };
    struct slice r;

    hdr(session, ++seq);
    setxattr_req_put(&msg, &req);
    return call(commands, RPC_setxattr, &r);
}

/* Until it is refused, and still is after the room was measured again: what is written in between is
 * counted generously. */
static void fill_up(uint64_t ino, const char *prefix)
{
    uint64_t refused_ms = 0;
    char name[32];
    int err = 0;

    for (int i = 0; i < 255 && (err == 0 || clock_mono_ms() - refused_ms < MEASURED_MS);) {
        snprintf(name, sizeof(name), "user.%s%d", prefix, i);
        if (err == 0) {
            refused_ms = clock_mono_ms();
        }
        err = fill(ino, name);
        i += err == 0;
        ping(0);
        usleep(5000);
    }
    CHECK_INT(err, DFS_ENOROOM);
}

static int make_one_more(uint64_t unused)
{
    (void)unused;
    return make("more", ++seq);
}

static void test_no_room(void)
{
    uint64_t ino = 0, made;

    metadata_max = "metadata.max=16MiB";
    begin("full");
    CHECK_INT(open_session(), 0);
    CHECK_INT(make("big", ++seq), 0);
    made = seq;
    CHECK_INT(lookup("big", &ino), 0);
    fill_up(ino, "a");
    CHECK_INT(make("another", ++seq), DFS_ENOROOM);
    CHECK_INT(make("another", seq), DFS_ENOROOM);
    CHECK_INT(make("big", made), DFS_EREPLAYED);
    made = seq;
    CHECK_INT(end(SIGKILL), -1);
    begin("full");
    CHECK_INT(make("another", made), DFS_ENOROOM); /* the first answer, from before */
    fill_up(ino, "b");
    CHECK_INT(make("another", ++seq), DFS_ENOROOM);
    CHECK_INT(unlink_name("big"), 0);
    CHECK_INT(ping(ino), 0); /* closed */
    CHECK(becomes(make_one_more, 0, 0, 5000));
    CHECK_INT(lookup("more", NULL), 0);
    CHECK_INT(end(SIGTERM), 0);
    metadata_max = "metadata.max=256MiB";
}

/* ---- block servers ---- */

struct server {
    uint32_t node;
    uint64_t boot;
    uint8_t uuid[16];
};

static struct control_client *control;

static int control_ask(uint16_t type)
{
    return control_call(control, type, wire_out_slice(&msg), &rep, clock_mono_ms() + CONNECT_MS);
}

static uint32_t put_volume(struct wire_out *out)
{
    struct volume_info v = { .uuid = slice_str("v"),
                             .path = slice_str("/v"),
                             .total = 10 * GIB,
                             .free = 5 * GIB,
                             .state = VOLUME_OK };

    wire_out_init(out, 4096);
    volume_info_put(out, &v);
    return 1;
}

static int join(struct server *s, struct slice cluster_id)
{
    struct server_register_req req = { .version = DFS_PROTOCOL,
                                       .cluster = cluster_id,
                                       .uuid = slice_of(s->uuid, 16),
                                       .node = s->node,
                                       .boot = s->boot,
                                       .addr = slice_str("127.0.0.1:1"),
                                       .host = slice_of(s->uuid, 2) };
    struct server_register_rep got;
    struct wire_out vols;
    int err;

    put_volume(&vols);
    req.volumes = wire_out_list(&vols, 1);
    wire_out_reset(&msg);
    server_register_req_put(&msg, &req);
    err = control_ask(RPC_server_register);
    err = err != 0 ? err : server_register_rep_get(wire_out_slice(&rep), &got);
    if (err == 0) {
        s->node = got.node;
        CHECK(slice_eq(got.cluster, slice_of(cluster, sizeof(cluster))));
    }
    wire_out_fini(&vols);
    return err;
}

/* Reports the orders given before as done; returns the number of orders of a kind for the block. */
static uint32_t beat(struct server *s, uint8_t kind, uint64_t block, uint8_t *ret_flags)
{
    struct server_heartbeat_req req = { .node = s->node, .boot = s->boot };
    struct server_heartbeat_rep got;
    struct wire_out vols, done;
    struct wire_in in;
    uint32_t found = 0, n = 0;

    put_volume(&vols);
    wire_out_init(&done, 65536);
    for (int round = 0; round < 2; round++) {
        req.volumes = wire_out_list(&vols, 1);
        req.done = wire_out_list(&done, n);
        wire_out_reset(&msg);
        server_heartbeat_req_put(&msg, &req);
        CHECK_INT(control_ask(RPC_server_heartbeat), 0);
        CHECK_INT(server_heartbeat_rep_get(wire_out_slice(&rep), &got), 0);
        in = wire_in_of(got.orders.items);
        wire_out_reset(&done);
        for (n = 0; n < got.orders.count; n++) {
            struct order_done d = { 0 };
            struct order o;

            CHECK_INT(order_get(&in, &o), 0);
            found += o.kind == kind && o.block == block;
            d = (struct order_done){ .order = o.order, .kind = o.kind, .block = o.block };
            order_done_put(&done, &d);
        }
    }
    if (ret_flags != NULL) {
        *ret_flags = got.flags;
    }
    wire_out_fini(&vols);
    wire_out_fini(&done);
    return found;
}

static int alloc(uint64_t *ret_block, uint32_t *ret_copies)
{
    struct block_alloc_req req = { .kind = BLOCK_STREAM, .count = 1, .host = slice_str("h1") };
    struct block_alloc_rep got;
    struct block_loc loc;
    struct wire_in in;
    struct slice r;
    int err;

    hdr(session, ++seq);
    block_alloc_req_put(&msg, &req);
    err = call(commands, RPC_block_alloc, &r);
    err = err != 0 ? err : block_alloc_rep_get(r, &got);
    if (err == 0) {
        CHECK_INT(got.blocks.count, 1);
        in = wire_in_of(got.blocks.items);
        CHECK_INT(block_loc_get(&in, &loc), 0);
        *ret_block = loc.block;
        *ret_copies = loc.nodes.count;
    }
    return err;
}

static int commit_seal(uint64_t block)
{
    struct wire_out blocks;
    struct commit_req req = { 0 };
    struct slice r;
    int err;

    wire_out_init(&blocks, 256);
    commit_block_put(&blocks, &(struct commit_block){ .block = block, .len = 10, .seal = 1 });
    req.blocks = wire_out_list(&blocks, 1);
    hdr(session, ++seq);
    commit_req_put(&msg, &req);
    err = call(commands, RPC_commit, &r);
    wire_out_fini(&blocks);
    return err;
}

static void status(struct status_rep *ret)
{
    struct status_req req = { 0 };

    wire_out_reset(&msg);
    status_req_put(&msg, &req);
    CHECK_INT(control_ask(RPC_status), 0);
    CHECK_INT(status_rep_get(wire_out_slice(&rep), ret), 0);
}

static void test_servers(void)
{
    struct server s1 = { .boot = 11, .uuid = "h1" }, s2 = { .boot = 22, .uuid = "h2" };
    uint32_t copies = 0, orders = 0;
    uint64_t block = 0;
    struct status_rep st;
    uint8_t flags = 0;

    begin("f");
    CHECK_INT(control_client_open(control_addr, &control, NULL), 0);
    CHECK_INT(open_session(), 0);
    CHECK_INT(alloc(&block, &copies), DFS_ENOSERVERS);
    CHECK_INT(join(&s1, slice_of("0123456789abcdef", 16)), DFS_EWRONGCLUSTER);
    CHECK_INT(join(&s1, SLICE_EMPTY), 0);
    CHECK_INT(join(&s2, slice_of(cluster, sizeof(cluster))), 0);
    CHECK(s1.node != 0 && s2.node != 0 && s1.node != s2.node);
    beat(&s1, ORDER_SEAL, 0, &flags);
    CHECK_INT(flags, HEARTBEAT_REPORT);
    beat(&s2, ORDER_SEAL, 0, NULL);
    CHECK_INT(alloc(&block, &copies), 0);
    CHECK_INT(copies, 2);
    CHECK_INT(commit_seal(block), 0);
    /* No extent names it: it is deleted, and deleted on the servers. */
    for (int i = 0; i < 100 && orders == 0; i++) {
        usleep(20000);
        orders = beat(&s1, ORDER_DELETE, block, NULL);
        beat(&s2, ORDER_DELETE, block, NULL);
    }
    CHECK(orders != 0);
    st.deleting = 1;
    for (int i = 0; i < 100 && st.deleting != 0; i++) {
        usleep(20000);
        beat(&s1, ORDER_DELETE, block, NULL);
        beat(&s2, ORDER_DELETE, block, NULL);
        status(&st);
    }
    CHECK_INT(st.deleting, 0);
    CHECK_INT(st.servers.count, 2);
    CHECK_INT(st.blocks, 0);
    CHECK_INT(st.masters.count, 1);
    s1.boot = 12; /* it was started again: it has to register */
    beat(&s1, ORDER_SEAL, 0, &flags);
    CHECK_INT(flags, HEARTBEAT_REGISTER);
    control_client_close(control);
    CHECK_INT(end(SIGTERM), 0);
}

#ifdef DFS_FAULTS
/* What was answered before its commit failed is in the log; nobody is answered from less. */
static void test_failed_commit(void)
{
    int status = 0, fds[2];
    char text[200] = "";

    CHECK_INT(pipe(fds), 0);
    faults = "kv.commit=NOSPC skip=1"; /* the first one is the cluster's id */
    pid = master_start("commit", fds[1]);
    close(fds[1]);
    CHECK(connected());
    CHECK_INT(open_session(), 0);
    CHECK_INT(waitpid(pid, &status, 0), pid); /* by itself, some milliseconds later */
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == DFS_ENOSPC);
    CHECK(read(fds[0], text, sizeof(text) - 1) > 0);
    CHECK(strstr(text, "its disk is full") != NULL);
    close(fds[0]);
    conn_close(commands);
    conn_close(queries);
    faults = "";
    begin("commit");
    CHECK_INT(make("f", ++seq), 0); /* there is the session */
    CHECK_INT(lookup("f", NULL), 0);
    CHECK_INT(end(SIGTERM), 0);
}
#endif

int main(void)
{
    uint16_t port = local_free_ports(3);

    tap_tmp(); /* for all of the children */
    snprintf(addr, sizeof(addr), "127.0.0.1:%u", port);
    snprintf(control_addr, sizeof(control_addr), "127.0.0.1:%u", port + 1u);
    wire_out_init(&msg, LIMIT_MSG);
    wire_out_init(&rep, LIMIT_MSG);
    tap_run("commands and questions, exactly once, across kill -9", test_commands);
    tap_run("what is refused", test_refusals);
    tap_run("what is missing is never replaced by nothing", test_never_empty);
    tap_run("an open file outlives its name; a silent client's session ends", test_open_files);
    tap_run("a full database refuses what makes it grow, and goes on", test_no_room);
#ifdef DFS_FAULTS
    tap_run("a commit that fails after its answers ends the master, and loses nothing",
            test_failed_commit);
#endif
    /* the last one: nng does not fork */
    tap_run("block servers register, get orders, are counted", test_servers);
    wire_out_fini(&msg);
    wire_out_fini(&rep);
    return tap_done();
}
