/* Orders to a block server: carried out once, results kept until they were told. */
#include "fs/role/block_orders.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/err.h"

#include "test/unit/tap.h"

static struct {
    pthread_mutex_t mu;
    pthread_cond_t cv;
    unsigned runs, done;
    bool hold; /* orders wait until it is false */
    char addr[64];
} seen = { .mu = PTHREAD_MUTEX_INITIALIZER, .cv = PTHREAD_COND_INITIALIZER };

static int carry_out(void *arg UNUSED, const struct block_order *o, uint32_t *ret_len)
{
    pthread_mutex_lock(&seen.mu);
    while (seen.hold) {
        pthread_cond_wait(&seen.cv, &seen.mu);
    }
    seen.runs++;
    snprintf(seen.addr, sizeof(seen.addr), "%s", o->addr);
    pthread_mutex_unlock(&seen.mu);
    *ret_len = o->len / 2;
    return o->block == 13 ? DFS_EIO : 0;
}

static void done(void *arg UNUSED)
{
    pthread_mutex_lock(&seen.mu);
    seen.done++;
    pthread_cond_broadcast(&seen.cv);
    pthread_mutex_unlock(&seen.mu);
}

static void hold(bool on)
{
    pthread_mutex_lock(&seen.mu);
    seen.hold = on;
    pthread_cond_broadcast(&seen.cv);
    pthread_mutex_unlock(&seen.mu);
}

static void wait_done(unsigned n)
{
    pthread_mutex_lock(&seen.mu);
    while (seen.done < n) {
        pthread_cond_wait(&seen.cv, &seen.mu);
    }
    pthread_mutex_unlock(&seen.mu);
}

static struct block_orders *start(unsigned threads)
{
    struct block_orders_conf conf = { .threads = threads, .fn = carry_out, .done = done };
    struct block_orders *b = block_orders_start(&conf);

    seen.runs = seen.done = 0;
    CHECK(b != NULL);
    return b;
}

/* Orders first..last as one heartbeat's reply brings them. */
static int give(struct block_orders *b, uint64_t first, uint64_t last, enum order_kind kind,
                const char *target)
{
    struct wire_out nodes, out;
    struct node_addr to = { .node = 9, .addr = slice_str(target) };
    struct order o = { .kind = (uint8_t)kind, .len = 100 };
    int err;

    wire_out_init(&nodes, 4096);
    wire_out_init(&out, 1 << 20);
    if (*target != '\0') {
        node_addr_put(&nodes, &to);
    }
    o.nodes = wire_out_list(&nodes, *target != '\0');
    for (uint64_t id = first; id <= last; id++) {
        o.order = id;
        o.block = id;
        order_put(&out, &o);
    }
    err = block_orders_take(b, wire_out_list(&out, (uint32_t)(last - first + 1)));
    wire_out_fini(&nodes);
    wire_out_fini(&out);
    return err;
}

/* Results as a heartbeat tells them; the first one into *ret. */
static uint32_t results(struct block_orders *b, uint32_t max, struct order_done *ret)
{
    struct wire_out out;
    struct wire_in in;
    uint32_t n;

    wire_out_init(&out, 1 << 20);
    n = block_orders_put_done(b, max, &out);
    in = wire_in_of(wire_out_slice(&out));
    CHECK_INT(n == 0 ? 0 : order_done_get(&in, ret), 0);
    wire_out_fini(&out);
    return n;
}

static void test_once(void)
{
    struct block_orders *b = start(2);
    struct order_done d = { 0 };

    CHECK_INT(give(b, 1, 1, ORDER_COPY, "host:1"), 0);
    CHECK_INT(give(b, 1, 1, ORDER_COPY, "host:1"), 0);
    wait_done(1);
    CHECK(strcmp(seen.addr, "host:1") == 0);
    CHECK_INT(results(b, 10, &d), 1);
    CHECK_INT(d.order, 1);
    CHECK_INT(d.node, 9);
    CHECK_INT(d.len, 50);
    CHECK_INT(d.status, 0);
    /* Not answered yet: told again, not run again. */
    CHECK_INT(give(b, 1, 1, ORDER_COPY, "host:1"), 0);
    CHECK_INT(results(b, 10, &d), 1);
    CHECK_INT(seen.runs, 1);
    block_orders_told(b, 1);
    CHECK(!block_orders_has_done(b));
    CHECK_INT(give(b, 1, 1, ORDER_DELETE, ""), 0);
    wait_done(2);
    CHECK_INT(seen.runs, 2);
    block_orders_stop(b);
}

static void test_failures(void)
{
    struct block_orders *b = start(1);
    struct order_done d = { 0 };
    char longer[400];

    CHECK_INT(give(b, 13, 13, ORDER_SEAL, ""), 0);
    wait_done(1);
    CHECK_INT(results(b, 10, &d), 1);
    CHECK_INT(d.status, DFS_EIO);
    block_orders_told(b, 1);
    /* A copy without a target, or with one that is no address. */
    CHECK_INT(give(b, 14, 14, ORDER_COPY, ""), 0);
    CHECK_INT(results(b, 10, &d), 1);
    CHECK_INT(d.status, DFS_EMALFORMED);
    block_orders_told(b, 1);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    CHECK_INT(give(b, 15, 15, ORDER_COPY, longer), 0);
    CHECK_INT(results(b, 10, &d), 1);
    CHECK_INT(d.status, DFS_EMALFORMED);
    CHECK_INT(block_orders_take(b, (struct wire_list){ .count = 3, .items = slice_str("abc") }),
              DFS_EMALFORMED);
    CHECK_INT(seen.runs, 1);
    block_orders_stop(b);
}

static void test_many(void)
{
    struct block_orders *b = start(3);
    struct order_done d = { 0 };
    uint32_t told = 0, n;

    hold(true);
    CHECK_INT(give(b, 100, 100 + BLOCK_ORDERS_MAX + 50, ORDER_DELETE, ""), 0);
    hold(false);
    wait_done(BLOCK_ORDERS_MAX);
    while ((n = results(b, 1000, &d)) > 0) {
        CHECK(n <= 1000);
        block_orders_told(b, n);
        told += n;
    }
    CHECK_INT(told, BLOCK_ORDERS_MAX);
    /* Ended while orders wait. */
    hold(true);
    CHECK_INT(give(b, 1, 20, ORDER_DELETE, ""), 0);
    hold(false);
    block_orders_stop(b);
}

int main(void)
{
    tap_run("an order is carried out once, and again after it was told", test_once);
    tap_run("failures and bad orders are told", test_failures);
    tap_run("many orders: a ceiling, pages of results, a stop in between", test_many);
    return tap_done();
}
