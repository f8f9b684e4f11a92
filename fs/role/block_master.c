#include "fs/role/block_master.h"

#include "cluster/base/clock.h"
#include "cluster/base/err.h"

#define CALL_MS     2000u /* for one answer */
#define BYE_MS      500u
#define DONE_MAX    2048u  /* results in one heartbeat */
#define BAD_MAX     2048u  /* damaged copies in one heartbeat */
#define DIGESTS_MAX 50000u /* ranges in one message */

/* ---- lists ---- */

static uint32_t put_volumes(struct block_master *m, struct wire_out *out)
{
    struct store_volume *v = x_alloc(sizeof(*v) * LIMIT_VOLUMES);
    size_t n = store_volumes(m->store, v);

    for (size_t i = 0; i < n; i++) {
        struct volume_info info = {
            .uuid = slice_of(v[i].uuid, UUID_BYTES),
            .path = slice_str(v[i].path),
            .total = v[i].total,
            .free = v[i].free_bytes,
            .used = v[i].used,
            .blocks = v[i].blocks,
            .state = (uint8_t)v[i].state,
            .errors = v[i].errors,
            .label = slice_str(v[i].label),
            .write_us = v[i].write_us,
            .sync_us = v[i].sync_us,
            .read_us = v[i].read_us,
            .stuck_ms = v[i].stuck_ms,
        };

        volume_info_put(out, &info);
    }
    free(v);
    return (uint32_t)n;
}

static uint32_t put_bad(struct block_master *m, struct wire_out *out)
{
    struct replica_bad *bad = x_alloc(sizeof(*bad) * BAD_MAX);
    size_t n = store_bad(m->store, bad, BAD_MAX);

    for (size_t i = 0; i < n; i++) {
        replica_bad_put(out, &bad[i]);
    }
    free(bad);
    return (uint32_t)n;
}

/* Sends what is in out (emptied) and receives into rep. */
static int call(struct block_master *m, uint16_t type, struct wire_out *out, struct wire_out *rep,
                uint64_t wait_ms)
{
    wire_out_reset(rep);
    return out->err != 0
               ? out->err
               : control_call(m->client, type, wire_out_slice(out), rep, clock_mono_ms() + wait_ms);
}

/* ---- registration ---- */

static int judge_register(int err, const struct block_master *m, struct why *why)
{
    char text[UUID_TEXT];

    if (err == DFS_EWRONGCLUSTER) {
        return why_set(why, err, "the data belongs to another cluster (%s) than the masters",
                       uuid_format(store_identity(m->store)->cluster, text));
    }
    if (err == DFS_EVERSION) {
        return why_set(why, err, "the masters speak another protocol version than %d",
                       DFS_PROTOCOL);
    }
    if (err == DFS_EBUSY) {
        return why_set(why, err,
                       "a server with the same identity lives at another address: was block.data "
                       "copied, or the server moved just now?");
    }
    return why_set(why, err, "no master took the registration: %s", err_text(err));
}

int block_master_register(struct block_master *m, struct why *why)
{
    const struct identity *id = store_identity(m->store);
    struct server_register_req req = {
        .version = DFS_PROTOCOL,
        .cluster = id->has_cluster ? slice_of(id->cluster, sizeof(id->cluster)) : SLICE_EMPTY,
        .uuid = slice_of(id->server, sizeof(id->server)),
        .node = id->node,
        .boot = m->boot,
        .addr = slice_str(m->addr),
        .host = slice_str(m->host),
        .rack = slice_str(m->rack),
        .last_block = store_last_block(m->store),
    };
    struct server_register_rep got;
    struct wire_out volumes, out, rep;
    uint32_t n;
    int err;

    wire_out_init(&volumes, LIMIT_MSG);
    wire_out_init(&out, LIMIT_MSG);
    wire_out_init(&rep, LIMIT_MSG);
    n = put_volumes(m, &volumes);
    req.volumes = wire_out_list(&volumes, n);
    server_register_req_put(&out, &req);
    err = call(m, RPC_server_register, &out, &rep, CALL_MS);
    if (err == 0) {
        err = server_register_rep_get(wire_out_slice(&rep), &got);
    }
    /* A server that serves keeps its number: others know it by that. */
    if (err == 0 && (got.cluster.len != sizeof(m->cluster) || got.node == 0 ||
                     (m->node != 0 && m->node != got.node))) {
        err = DFS_EMALFORMED;
    }
    if (err == 0) {
        memcpy(m->cluster, got.cluster.p, sizeof(m->cluster));
        m->node = got.node;
        m->heartbeat_ms = MAX(got.heartbeat_ms, 1);
        m->dead_ms = got.dead_ms;
    } else {
        judge_register(err, m, why);
    }
    wire_out_fini(&volumes);
    wire_out_fini(&out);
    wire_out_fini(&rep);
    return err;
}

void block_master_bye(struct block_master *m)
{
    struct server_bye_req req = { .node = m->node, .boot = m->boot };
    struct wire_out out, rep;

    wire_out_init(&out, 256);
    wire_out_init(&rep, LIMIT_MSG);
    server_bye_req_put(&out, &req);
    (void)!call(m, RPC_server_bye, &out, &rep, BYE_MS);
    wire_out_fini(&out);
    wire_out_fini(&rep);
}

/* ---- heartbeats ---- */

int block_master_heartbeat(struct block_master *m, uint8_t *ret_flags)
{
    struct server_heartbeat_req req = { .node = m->node, .boot = m->boot, .seq = ++m->seq };
    struct server_heartbeat_rep got;
    struct wire_out volumes, done, bad, out, rep;
    struct blk_stats stats;
    uint32_t n;
    int err;

    wire_out_init(&volumes, LIMIT_MSG);
    wire_out_init(&done, LIMIT_MSG);
    wire_out_init(&bad, LIMIT_MSG);
    wire_out_init(&out, LIMIT_MSG);
    wire_out_init(&rep, LIMIT_MSG);
    blk_server_stats(m->server, &stats);
    req.writers = (uint32_t)stats.writers;
    req.readers = (uint32_t)stats.readers;
    n = put_volumes(m, &volumes);
    req.volumes = wire_out_list(&volumes, n);
    n = block_orders_put_done(m->orders, DONE_MAX, &done);
    req.done = wire_out_list(&done, n);
    n = put_bad(m, &bad);
    req.bad = wire_out_list(&bad, n);
    server_heartbeat_req_put(&out, &req);
    err = call(m, RPC_server_heartbeat, &out, &rep, CALL_MS);
    if (err == 0) {
        block_orders_told(m->orders, req.done.count);
        store_bad_told(m->store, req.bad.count);
        err = server_heartbeat_rep_get(wire_out_slice(&rep), &got);
    }
    if (err == 0) {
        err = block_orders_take(m->orders, got.orders);
    }
    if (err == 0) {
        *ret_flags = got.flags;
    }
    wire_out_fini(&volumes);
    wire_out_fini(&done);
    wire_out_fini(&bad);
    wire_out_fini(&out);
    wire_out_fini(&rep);
    return err;
}

/* ---- reports ---- */

static int send_range(struct block_master *m, uint64_t range)
{
    struct replica_info *info = x_alloc(sizeof(*info) * RANGE_BLOCKS);
    size_t n = store_range(m->store, range, info);
    struct server_range_req req = { .node = m->node, .boot = m->boot, .range = range };
    struct wire_out list, out, rep;
    int err;

    wire_out_init(&list, LIMIT_MSG);
    wire_out_init(&out, LIMIT_MSG);
    wire_out_init(&rep, LIMIT_MSG);
    for (size_t i = 0; i < n; i++) {
        replica_info_put(&list, &info[i]);
    }
    req.replicas = wire_out_list(&list, (uint32_t)n);
    server_range_req_put(&out, &req);
    err = call(m, RPC_server_range, &out, &rep, CALL_MS);
    wire_out_fini(&list);
    wire_out_fini(&out);
    wire_out_fini(&rep);
    free(info);
    return err;
}

/* Lists of the ranges that differ, which rep names. */
static int send_ranges(struct block_master *m, const struct wire_out *rep,
                       int (*meanwhile)(void *arg), void *arg)
{
    struct server_digests_rep got;
    int err = server_digests_rep_get(wire_out_slice(rep), &got);
    struct wire_in in = wire_in_of(got.differ.items);

    for (uint32_t i = 0; err == 0 && i < got.differ.count; i++) {
        struct range_ref r;

        err = range_ref_get(&in, &r);
        err = err != 0 ? err : send_range(m, r.range);
        err = err != 0 ? err : meanwhile(arg);
    }
    return err;
}

/* The digests d[0..n), which are all there are in first..last; rep: the answer. */
static int send_digests(struct block_master *m, const struct range_digest *d, size_t n,
                        uint64_t first, uint64_t last, struct wire_out *rep)
{
    struct server_digests_req req = {
        .node = m->node, .boot = m->boot, .first = first, .last = last
    };
    struct wire_out list, out;
    int err;

    wire_out_init(&list, LIMIT_MSG);
    wire_out_init(&out, LIMIT_MSG);
    for (size_t i = 0; i < n; i++) {
        range_digest_put(&list, &d[i]);
    }
    req.digests = wire_out_list(&list, (uint32_t)n);
    server_digests_req_put(&out, &req);
    err = call(m, RPC_server_digests, &out, rep, CALL_MS);
    wire_out_fini(&list);
    wire_out_fini(&out);
    return err;
}

int block_master_report(struct block_master *m, int (*meanwhile)(void *arg), void *arg)
{
    struct range_digest *d = NULL;
    size_t count = store_digests(m->store, &d);
    struct wire_out rep;
    uint64_t first = 0;
    size_t at = 0;
    int err;

    wire_out_init(&rep, LIMIT_MSG);
    do {
        size_t n = MIN(count - at, DIGESTS_MAX);
        bool end = at + n == count;
        uint64_t last = end ? UINT64_MAX : d[at + n - 1].range;

        err = send_digests(m, d + at, n, first, last, &rep);
        err = err != 0 ? err : send_ranges(m, &rep, meanwhile, arg);
        at += n;
        first = last + 1;
    } while (err == 0 && at < count);
    wire_out_fini(&rep);
    free(d);
    return err;
}
