/* A million blocks on twelve servers, of which two die: how much is done, and for how long, in each
 * of the calls under whose lock the master's core may have to wait. Work is counted and asserted;
 * times are told. With DFS_LONG=1 it is a million blocks and the whole repair,
 * else a part of both. */
#include <time.h>

#include "replication/map/repair.h"

#include "test/unit/tap.h"

#define SERVERS 12u
#define BLOCKS  1000000u
#define LEN     (64 * KIB)
#define SLICE   256u   /* blocks looked at under one lock */
#define LOOKS   64u    /* problems acted on under one lock */
#define FEW     60000u /* without DFS_LONG */
#define PART    1000u

static struct members t;
static struct repair *r;
static uint64_t now = 1000;
static uint8_t nodes_of[BLOCKS + 1][3]; /* 0: no copy */
static struct repair_change queue[65536];
static size_t queued;
static uint64_t gets, added, blocks = FEW;

struct worst {
    uint64_t us;
    uint64_t gets;
};

static int env_get(void *arg, uint64_t block, struct block_rec *ret)
{
    (void)arg;
    gets++;
    *ret = (struct block_rec){ .state = BLOCK_SEALED, .len = LEN };
    ret->live[2] = LEN;
    for (int i = 0; i < 3; i++) {
        if (nodes_of[block][i] != 0) {
            ret->nodes[ret->node_count++] = nodes_of[block][i];
        }
    }
    return DFS_OK;
}

static void env_change(void *arg, const struct repair_change *c)
{
    (void)arg;
    if (queued < ARRAY_LEN(queue)) {
        queue[queued++] = *c;
    }
}

static void env_forget(void *arg, uint64_t block)
{
    (void)arg;
    (void)block;
}

static void heartbeat(uint32_t node, bool first)
{
    struct volume_info v = { .total = 10000 * GIB, .free = 9000 * GIB, .state = VOLUME_OK };
    struct server_heartbeat_req hb = { .node = node, .boot = 1 };
    struct server_rec rec = { .addr = "x:1" };
    struct wire_out out;
    uint8_t was;

    snprintf(rec.host, sizeof(rec.host), "h%u", node);
    snprintf(rec.rack, sizeof(rec.rack), "r%u", node % 3);
    wire_out_init(&out, 4096);
    volume_info_put(&out, &v);
    hb.volumes = wire_out_list(&out, 1);
    if (first) {
        members_load(&t, node, &rec, now);
        members_register(&t, node, 1, hb.volumes, now, &was);
    } else {
        members_heartbeat(&t, &hb, now);
    }
    wire_out_fini(&out);
}

static void start(void)
{
    const struct members_conf mc = { .suspect_ms = 3000, .dead_ms = 15000, .report_ms = 60000 };
    const struct repair_conf rc = { .streams = 4, .stale_ms = 600000 };
    const struct repair_env env = { env_get, env_change, env_forget, NULL };

    members_init(&t, &mc, now);
    r = repair_new(&rc, &env, &t, 9, 77);
    for (uint32_t n = 1; n <= SERVERS; n++) {
        heartbeat(n, true);
    }
    for (uint64_t b = 1; b <= blocks; b++) {
        nodes_of[b][0] = (uint8_t)(1 + b % SERVERS);
        nodes_of[b][1] = (uint8_t)(1 + (b + 1 + b / SERVERS % 10) % SERVERS);
    }
}

static void on_member(void *arg, const struct member *m, uint8_t was)
{
    (void)arg;
    (void)was;
    if (member_state(m) == MEMBER_DEAD) {
        repair_node_dead(r, m->node, now);
    }
}

/* Of this thread: what others do on the machine does not count. */
static uint64_t cpu_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t begin(void)
{
    gets = 0;
    return cpu_us();
}

static void end(struct worst *w, uint64_t since_us)
{
    w->us = MAX(w->us, cpu_us() - since_us);
    w->gets = MAX(w->gets, gets);
}

/* The dead servers' blocks, in slices as the keeper takes them. */
static void scan(struct worst *w)
{
    for (uint64_t b = 1; b <= blocks;) {
        uint64_t since = begin();
        struct block_rec rec;

        for (uint64_t n = 0; n < SLICE && b <= blocks; b++) {
            if (nodes_of[b][0] <= 2 || nodes_of[b][1] <= 2) {
                env_get(NULL, b, &rec);
                repair_look(r, b, &rec, now);
                n++;
            }
        }
        end(w, since);
    }
}

/* The log takes what is wanted, the answers come in slices. */
static void apply(struct worst *w)
{
    uint64_t since = begin();

    for (size_t i = 0; i < queued; i++) {
        uint8_t *nodes = nodes_of[queue[i].block];
        bool add = queue[i].op == REPLICA_ADD;

        for (int k = 0; k < 3; k++) {
            if (nodes[k] == (add ? 0 : queue[i].node)) {
                nodes[k] = add ? (uint8_t)queue[i].node : 0;
                added += add;
                break;
            }
        }
        repair_changed(r, &queue[i], DFS_OK, now);
        if (i % LOOKS == LOOKS - 1) {
            end(w, since);
            since = begin();
        }
    }
    end(w, since);
    queued = 0;
}

static void serve(uint32_t node, struct worst *w)
{
    uint64_t since = begin();
    struct wire_out out;
    struct wire_in in;
    uint32_t n;

    wire_out_init(&out, 1 << 20);
    n = repair_put_orders(r, node, 512, &out);
    in = wire_in_of(wire_out_slice(&out));
    for (uint32_t i = 0; i < n; i++) {
        struct order_done d = { .status = DFS_OK, .len = LEN };
        struct node_addr to = { 0 };
        struct wire_in nodes;
        struct order o;

        (void)order_get(&in, &o);
        nodes = wire_in_of(o.nodes.items);
        (void)node_addr_get(&nodes, &to);
        d.order = o.order;
        d.kind = o.kind;
        d.block = o.block;
        d.node = to.node;
        repair_done(r, node, &d, now);
    }
    heartbeat(node, false);
    end(w, since);
    wire_out_fini(&out);
}

static void repair_all(uint64_t goal, struct worst *steps, struct worst *answers,
                       struct worst *beats)
{
    for (uint64_t round = 0; added < goal && round < 10 * goal; round++) {
        for (int i = 0; i < 16; i++) {
            uint64_t since = begin();
            bool more = repair_step(r, LOOKS, now);

            end(steps, since);
            if (!more) {
                break;
            }
        }
        apply(answers);
        now += 50;
        for (uint32_t n = 3; n <= SERVERS; n++) {
            serve(n, beats);
        }
        apply(answers);
    }
}

static void show(const char *what, const struct worst *w)
{
    printf("# %s: at most %ju us, %ju records read\n", what, (uintmax_t)w->us, (uintmax_t)w->gets);
}

static void test_a_sixth_of_a_million(void)
{
    struct worst scans = { 0 }, steps = { 0 }, answers = { 0 }, beats = { 0 }, deaths = { 0 };
    struct repair_counts c;
    uint64_t since, lost;

    blocks = getenv("DFS_LONG") != NULL ? BLOCKS : FEW;
    start();
    members_step(&t, now, on_member, NULL);
    for (int i = 0; i < 10; i++) { /* two fall silent */
        now += 2000;
        for (uint32_t n = 3; n <= SERVERS; n++) {
            heartbeat(n, false);
        }
        since = begin();
        members_step(&t, now, on_member, NULL);
        end(&deaths, since);
    }
    CHECK_INT(members_state(&t, 1), MEMBER_DEAD);
    scan(&scans);
    repair_get_counts(r, &c);
    lost = c.under + c.missing;
    CHECK(lost > blocks / 6);
    repair_all(getenv("DFS_LONG") != NULL ? c.under : PART, &steps, &answers, &beats);
    show("a server's death", &deaths);
    show("a slice of the scan", &scans);
    show("a step of planning", &steps);
    show("answers of the log", &answers);
    show("a heartbeat", &beats);
    CHECK(added >= PART);
    CHECK(scans.gets <= SLICE);
    CHECK(steps.gets <= 2 * LOOKS + 256);
    CHECK(answers.gets <= 2 * LOOKS);
    CHECK(beats.gets <= 4 * 512);
    repair_free(r);
    members_fini(&t);
}

int main(void)
{
    tap_run("a sixth of a million blocks is repaired in short steps", test_a_sixth_of_a_million);
    return tap_done();
}
