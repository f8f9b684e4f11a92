#include "fs/cli/deep.h"

#include <pthread.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/net/conn.h"
#include "cluster/net/hello.h"

#include "replication/msgs.h"

#define CONNECT_MS 5000
#define CHECK_MS   300000 /* for one copy: a full block from a slow disk */

struct copy_check {
    uint64_t block;
    uint32_t len;
    int err;
};

/* What is asked of one server; its own thread in deep_run(). */
struct server {
    uint32_t node;
    char *addr;
    struct copy_check *checks;
    size_t count, cap;
    pthread_t thread;
    bool running;
};

struct deep {
    const struct remote *r;
    struct server *servers;
    size_t count;
    uint64_t copies, bytes;
};

struct deep *deep_new(const struct remote *r)
{
    struct deep *d = x_alloc(sizeof(*d));

    d->r = r;
    return d;
}

void deep_free(struct deep *d)
{
    if (d == NULL) {
        return;
    }
    for (size_t i = 0; i < d->count; i++) {
        free(d->servers[i].addr);
        free(d->servers[i].checks);
    }
    free(d->servers);
    free(d);
}

static struct server *server_of(struct deep *d, uint32_t node, struct slice addr)
{
    struct server *s;

    for (size_t i = 0; i < d->count; i++) {
        if (d->servers[i].node == node) {
            return &d->servers[i];
        }
    }
    d->servers = x_realloc(d->servers, (d->count + 1) * sizeof(*d->servers));
    s = &d->servers[d->count++];
    *s = (struct server){ .node = node, .addr = x_strndup((const char *)addr.p, addr.len) };
    return s;
}

void deep_add(struct deep *d, uint64_t block, uint32_t len, uint32_t node, struct slice addr)
{
    struct server *s = server_of(d, node, addr);

    if (s->count == s->cap) {
        s->cap = MAX(64, s->cap * 2);
        s->checks = x_realloc(s->checks, s->cap * sizeof(*s->checks));
    }
    s->checks[s->count++] = (struct copy_check){ .block = block, .len = len };
}

static int check_one(struct conn *c, const struct copy_check *check)
{
    struct block_stat_req req = { .block = check->block, .check = 1 };
    struct block_stat_rep rep;
    struct wire_out msg;
    struct slice reply;
    int err;

    wire_out_init(&msg, 64);
    block_stat_req_put(&msg, &req);
    err = conn_call(c, RPC_block_stat, wire_out_slice(&msg), &reply, clock_mono_ms() + CHECK_MS);
    err = err != 0 ? err : block_stat_rep_get(reply, &rep);
    wire_out_fini(&msg);
    return err == 0 && rep.len < check->len ? DFS_EOFFSET : err;
}

static void *run(void *arg)
{
    struct server *s = arg;
    struct conn *c = NULL;
    int lost = conn_open_hello(s->addr, HELLO_BLOCK, SLICE_EMPTY, clock_mono_ms() + CONNECT_MS, &c,
                               NULL, NULL);

    for (size_t i = 0; i < s->count; i++) {
        s->checks[i].err = lost != 0 ? lost : check_one(c, &s->checks[i]);
        if (lost == 0 && conn_broken(c)) {
            lost = DFS_ECONN;
        }
    }
    conn_close(c);
    return NULL;
}

void deep_run(struct deep *d, deep_bad_fn *bad, void *arg)
{
    for (size_t i = 0; i < d->count; i++) {
        struct server *s = &d->servers[i];

        s->running = s->count > 0 && pthread_create(&s->thread, NULL, run, s) == 0;
        if (s->count > 0 && !s->running) {
            (void)run(s);
        }
    }
    for (size_t i = 0; i < d->count; i++) {
        struct server *s = &d->servers[i];

        if (s->running) {
            (void)pthread_join(s->thread, NULL);
        }
        for (size_t k = 0; k < s->count; k++) {
            const struct copy_check *check = &s->checks[k];

            d->copies++;
            d->bytes += check->len;
            if (check->err != 0) {
                bad(arg, check->block, s->addr, check->err);
            }
        }
        s->count = 0;
    }
}

uint64_t deep_copies(const struct deep *d)
{
    return d->copies;
}

uint64_t deep_bytes(const struct deep *d)
{
    return d->bytes;
}
