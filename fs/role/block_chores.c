#include "fs/role/block_chores.h"

#include "cluster/base/clock.h"

#define CALL_MS 2000u

static uint32_t put_scrubs(struct scrubber *s, struct wire_out *out)
{
    struct scrub_progress *p = x_alloc(sizeof(*p) * LIMIT_VOLUMES);
    size_t n = scrubber_progress(s, p);

    for (size_t i = 0; i < n; i++) {
        struct scrub_info info = {
            .path = slice_str(p[i].path),
            .state = p[i].resting   ? SCRUB_RESTING
                     : p[i].ordered ? SCRUB_ORDERED
                                    : SCRUB_RUNNING,
            .order = p[i].order,
            .began_ms = (int64_t)p[i].began_ms,
            .ended_ms = (int64_t)p[i].ended_ms,
            .done = p[i].done,
            .total = p[i].total,
            .rate = p[i].rate,
            .found = p[i].found,
        };

        scrub_info_put(out, &info);
    }
    free(p);
    return (uint32_t)n;
}

static int take_checks(struct scrubber *s, struct wire_list blocks)
{
    struct wire_in in = wire_in_of(blocks.items);
    int err = 0;

    for (uint32_t i = 0; i < blocks.count && err == 0; i++) {
        struct block_ref b;

        err = block_ref_get(&in, &b);
        if (err == 0) {
            scrubber_check(s, b.block);
        }
    }
    return err;
}

int block_chores_tell(struct block_chores *c)
{
    struct block_master *m = c->master;
    struct server_chores_req req = { .node = m->node, .boot = m->boot };
    struct server_chores_rep got;
    struct wire_out scrubs, moved, out, rep;
    int err;

    wire_out_init(&scrubs, LIMIT_MSG);
    wire_out_init(&moved, KIB);
    wire_out_init(&out, LIMIT_MSG);
    wire_out_init(&rep, LIMIT_MSG);
    req.waiting = (uint32_t)scrubber_waiting(c->scrubber);
    req.scrubs.count = put_scrubs(c->scrubber, &scrubs);
    req.scrubs.items = wire_out_slice(&scrubs);
    req.moved.count = block_compact_put_done(c->compact, &moved);
    req.moved.items = wire_out_slice(&moved);
    server_chores_req_put(&out, &req);
    err = out.err != 0 ? out.err
                       : control_call(m->client, RPC_server_chores, wire_out_slice(&out), &rep,
                                      clock_mono_ms() + CALL_MS);
    err = err != 0 ? err : server_chores_rep_get(wire_out_slice(&rep), &got);
    if (err == 0) {
        block_compact_told(c->compact, req.moved.count);
        err = block_compact_take(c->compact, got.compact);
    }
    err = err != 0 ? err : take_checks(c->scrubber, got.check);
    if (err == 0 && got.scrub_order != 0) {
        scrubber_order(c->scrubber, got.scrub_order);
    }
    wire_out_fini(&scrubs);
    wire_out_fini(&moved);
    wire_out_fini(&out);
    wire_out_fini(&rep);
    return err;
}
