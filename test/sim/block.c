/* A block server: replica rules on arrays, chain writes, orders from heartbeats. */
#include "test/sim/cluster.h"

void packet_put(struct wire_out *out, const struct sim_packet *p)
{
    wire_put_u64(out, p->block);
    wire_put_u32(out, p->offset);
    wire_put_u32(out, p->hop);
    wire_put_u32(out, p->chain_count);
    for (uint32_t i = 0; i < p->chain_count; i++) {
        wire_put_u32(out, p->chain[i]);
    }
    wire_put_u32(out, p->client);
    wire_put_u8(out, p->flags);
    wire_put_u8(out, p->open);
    wire_put_u32(out, p->bad);
    wire_put_bytes(out, p->data);
}

bool packet_get(struct slice s, struct sim_packet *ret)
{
    struct wire_in in = wire_in_of(s);

    ret->block = wire_get_u64(&in);
    ret->offset = wire_get_u32(&in);
    ret->hop = wire_get_u32(&in);
    ret->chain_count = wire_get_u32(&in);
    if (ret->chain_count > LIMIT_CHAIN) {
        return false;
    }
    for (uint32_t i = 0; i < ret->chain_count; i++) {
        ret->chain[i] = wire_get_u32(&in);
    }
    ret->client = wire_get_u32(&in);
    ret->flags = wire_get_u8(&in);
    ret->open = wire_get_u8(&in) != 0;
    ret->bad = wire_get_u32(&in);
    ret->data = wire_get_bytes(&in);
    return in.err == 0;
}

struct sim_replica *server_find(struct sim_server *s, uint64_t block)
{
    for (struct sim_replica *r = s->replicas; r != NULL; r = r->next) {
        if (r->block == block) {
            return r;
        }
    }
    return NULL;
}

static struct sim_replica *add(struct sim_server *s, uint64_t block, enum rule_state state)
{
    struct sim_replica *r = x_alloc(sizeof(*r));

    r->block = block;
    r->rule.state = state;
    r->bytes = x_alloc(SIM_BLOCK_SIZE);
    r->next = s->replicas;
    s->replicas = r;
    return r;
}

static void drop(struct sim_server *s, uint64_t block)
{
    struct sim_replica **at = &s->replicas;

    while (*at != NULL && (*at)->block != block) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        struct sim_replica *r = *at;

        *at = r->next;
        free(r->bytes);
        free(r);
    }
}

static int seal(struct sim_replica *r, uint32_t len)
{
    bool cut;
    int err = rule_seal(&r->rule, len, &cut);

    if (err != 0) {
        return err;
    }
    r->rule.len = len;
    r->rule.state = RULE_SEALED;
    r->synced = len; /* the header is synced after the bytes */
    return 0;
}

/* What this server does with a packet: 0 or the error it answers. */
static int take_packet(struct sim_server *s, const struct sim_packet *p)
{
    struct sim_replica *r = server_find(s, p->block);
    int err = 0;

    /* As the real one: the master may count it as dead soon. */
    if (s->cl->sim.now_us > s->answered_us + FENCE_MS * SIM_MS) {
        return DFS_EFENCED;
    }

    if (p->open) {
        enum rule_open what;

        err = rule_open(r != NULL ? &r->rule : NULL, p->offset, p->flags, &what);
        if (err != 0) {
            return err;
        }
        if (what == RULE_REPLACE) {
            drop(s, p->block);
        }
        if (what != RULE_CONTINUE) {
            add(s, p->block, (p->flags & WRITE_COPY) != 0 ? RULE_COPY : RULE_OPEN);
        }
        return 0;
    }
    if (r == NULL) {
        return DFS_ENOBLOCK;
    }
    err = rule_append(&r->rule, p->offset, (uint32_t)p->data.len);
    if (err != 0) {
        return err;
    }
    if (p->data.len > SIM_BLOCK_SIZE - p->offset) {
        return DFS_EFBIG;
    }
    if (p->data.len != 0) {
        memcpy(r->bytes + p->offset, p->data.p, p->data.len);
    }
    r->rule.len += (uint32_t)p->data.len;
    if ((p->flags & WRITE_SYNC) != 0) {
        r->synced = r->rule.len;
    }
    return (p->flags & WRITE_LAST) != 0 ? seal(r, r->rule.len) : 0;
}

static void answer_packet(struct sim_server *s, const struct sim_msg *m, const struct sim_packet *p,
                          int status)
{
    struct sim *sim = &s->cl->sim;
    int to = p->hop == 0 ? (int)p->client : server_node(p->chain[p->hop - 1]);
    struct sim_packet back = *p;
    struct wire_out out;

    back.data = SLICE_EMPTY;
    back.offset = p->offset + (uint32_t)p->data.len;
    wire_out_init(&out, LIMIT_MSG);
    packet_put(&out, &back);
    sim_stream(sim,
               &(struct sim_msg){ .from = server_node(s->id),
                                  .to = to,
                                  .type = m->type,
                                  .id = m->id,
                                  .reply = true,
                                  .status = status,
                                  .body = wire_out_slice(&out) },
               &s->lane[to]);
    wire_out_fini(&out);
}

static void on_packet(struct sim_server *s, const struct sim_msg *m)
{
    struct sim_packet p;
    int err;

    if (!packet_get(m->body, &p)) {
        return;
    }
    if (m->reply) { /* from behind: pass it on to the one in front */
        struct sim_packet mine = p;

        ASSERT(p.hop > 0);
        mine.hop = p.hop - 1; /* this server's own place in the chain */
        mine.data = SLICE_EMPTY;
        answer_packet(s, m, &mine, m->status);
        return;
    }
    err = take_packet(s, &p);
    sim_trace(&s->cl->sim, "server %u: block %ju at %u+%zu%s, hop %u of %u: %s", s->id,
              (uintmax_t)p.block, p.offset, p.data.len, p.open ? " open" : "", p.hop, p.chain_count,
              err_name(err));
    if (err == 0 && p.hop + 1 < p.chain_count) {
        struct sim_packet on = p;
        struct wire_out out;
        int to = server_node(p.chain[p.hop + 1]);

        on.hop++;
        wire_out_init(&out, LIMIT_MSG);
        packet_put(&out, &on);
        sim_stream(&s->cl->sim,
                   &(struct sim_msg){ .from = server_node(s->id),
                                      .to = to,
                                      .type = m->type,
                                      .id = m->id,
                                      .body = wire_out_slice(&out) },
                   &s->lane[to]);
        wire_out_fini(&out);
        return;
    }
    p.bad = err != 0 ? s->id : 0;
    answer_packet(s, m, &p, err);
}

static void on_sync(struct sim_server *s, const struct sim_msg *m)
{
    struct block_sync_req req;
    struct sim_replica *r;
    int err = block_sync_req_get(m->body, &req);

    r = err == 0 ? server_find(s, req.block) : NULL;
    if (err == 0) {
        err = r == NULL ? DFS_ENOBLOCK : r->rule.len < req.len ? DFS_EOFFSET : 0;
    }
    if (err == 0) {
        r->synced = r->rule.len;
    }
    sim_send(&s->cl->sim, &(struct sim_msg){ .from = server_node(s->id),
                                             .to = m->from,
                                             .type = m->type,
                                             .id = m->id,
                                             .reply = true,
                                             .status = err });
}

/* ---- orders ---- */

static void done(struct sim_server *s, const struct order *o, uint32_t node, int status,
                 uint32_t len)
{
    order_done_put(&s->done, &(struct order_done){ .order = o->order,
                                                   .kind = o->kind,
                                                   .block = o->block,
                                                   .node = node,
                                                   .status = (uint32_t)status,
                                                   .len = len });
    s->done_count++;
}

/* A copy goes as one step after a delay that stands for the transfer. */
struct copy_job {
    struct sim_server *from;
    struct order o;
    uint32_t target;
};

static void copy_end(void *arg, uint64_t unused)
{
    struct copy_job *j = arg;
    struct sim_server *from = j->from, *to = &from->cl->servers[j->target];
    struct sim_replica *src = server_find(from, j->o.block), *dst;
    struct sim *sim = &from->cl->sim;
    enum rule_open what;
    int err;

    (void)unused;
    if (!sim->nodes[server_node(from->id)].up) {
        free(j);
        return;
    }
    if (!sim->nodes[server_node(to->id)].up ||
        sim->cut[server_node(from->id)][server_node(to->id)]) {
        err = DFS_ECONN;
    } else if (src == NULL || src->rule.len < j->o.len) {
        err = src == NULL ? DFS_ENOBLOCK : DFS_EOFFSET;
    } else {
        dst = server_find(to, j->o.block);
        err = rule_open(dst != NULL ? &dst->rule : NULL, 0, WRITE_COPY, &what);
        if (err == 0) {
            drop(to, j->o.block);
            dst = add(to, j->o.block, RULE_COPY);
            memcpy(dst->bytes, src->bytes, j->o.len);
            dst->rule.len = j->o.len;
            err = seal(dst, j->o.len);
        }
    }
    done(from, &j->o, j->target, err, j->o.len);
    free(j);
}

static void do_order(struct sim_server *s, const struct order *o)
{
    struct sim_replica *r = server_find(s, o->block);
    struct wire_in in = wire_in_of(o->nodes.items);
    struct node_addr target;

    sim_trace(&s->cl->sim, "server %u: order %d of block %ju", s->id, o->kind, (uintmax_t)o->block);
    if (o->kind == ORDER_DELETE) {
        drop(s, o->block);
        done(s, o, s->id, 0, 0);
    } else if (o->kind == ORDER_SEAL) {
        done(s, o, s->id, r == NULL ? DFS_ENOBLOCK : seal(r, o->len), o->len);
    } else if (o->kind == ORDER_COPY && o->nodes.count == 1 && node_addr_get(&in, &target) == 0) {
        struct copy_job *j = x_alloc(sizeof(*j));

        *j = (struct copy_job){ .from = s, .o = *o, .target = target.node };
        j->o.nodes = (struct wire_list){ 0 };
        sim_after(&s->cl->sim, -1, 5 * SIM_MS + sim_below(&s->cl->sim, 50 * SIM_MS), copy_end, j,
                  0);
    }
}

/* ---- control plane ---- */

static void send_master(struct sim_server *s, uint16_t type, const struct wire_out *out)
{
    sim_send(&s->cl->sim, &(struct sim_msg){ .from = server_node(s->id),
                                             .to = SIM_MASTER,
                                             .type = type,
                                             .body = wire_out_slice(out) });
}

static void send_register(struct sim_server *s)
{
    struct server_register_req req = { .version = DFS_PROTOCOL, .boot = s->boot, .node = s->id };
    struct volume_info v = { .uuid = slice_str("volume"),
                             .path = slice_str("/sim"),
                             .total = GIB,
                             .free = GIB / 2,
                             .state = VOLUME_OK };
    char name[32];
    struct wire_out vols, out;

    snprintf(name, sizeof(name), "server-%u:0000000", s->id);
    wire_out_init(&vols, LIMIT_MSG);
    volume_info_put(&vols, &v);
    req.uuid = slice_of(name, 16);
    req.addr = req.host = slice_str(name);
    req.volumes = wire_out_list(&vols, 1);
    wire_out_init(&out, LIMIT_MSG);
    server_register_req_put(&out, &req);
    send_master(s, RPC_server_register, &out);
    wire_out_fini(&out);
    wire_out_fini(&vols);
}

static void send_range(struct sim_server *s, uint64_t range)
{
    struct server_range_req req = { .node = s->id, .boot = s->boot, .range = range };
    struct wire_out items, out;
    uint32_t count = 0;

    wire_out_init(&items, LIMIT_MSG);
    for (struct sim_replica *r = s->replicas; r != NULL; r = r->next) {
        if (r->block / RANGE_BLOCKS == range && r->rule.state != RULE_COPY) {
            replica_info_put(&items, &(struct replica_info){ .block = r->block,
                                                             .len = r->rule.len,
                                                             .state = r->rule.state == RULE_SEALED
                                                                          ? REPLICA_SEALED
                                                                          : REPLICA_OPEN });
            count++;
        }
    }
    req.replicas = wire_out_list(&items, count);
    wire_out_init(&out, LIMIT_MSG);
    server_range_req_put(&out, &req);
    send_master(s, RPC_server_range, &out);
    wire_out_fini(&out);
    wire_out_fini(&items);
}

static void send_digests(struct sim_server *s)
{
    struct server_digests_req req = { .node = s->id, .boot = s->boot, .last = UINT64_MAX };
    struct wire_out items, out;
    uint64_t max = 0;
    uint32_t count = 0;

    for (struct sim_replica *r = s->replicas; r != NULL; r = r->next) {
        max = MAX(max, r->block / RANGE_BLOCKS);
    }
    wire_out_init(&items, LIMIT_MSG);
    for (uint64_t range = 0; range <= max; range++) {
        struct range_digest d = { .range = range };

        for (struct sim_replica *r = s->replicas; r != NULL; r = r->next) {
            if (r->block / RANGE_BLOCKS == range && r->rule.state != RULE_COPY) {
                d.count++;
                d.sum ^= replica_mix(r->block, r->rule.len);
            }
        }
        if (d.count != 0) {
            range_digest_put(&items, &d);
            count++;
        }
    }
    req.digests = wire_out_list(&items, count);
    wire_out_init(&out, LIMIT_MSG);
    server_digests_req_put(&out, &req);
    send_master(s, RPC_server_digests, &out);
    wire_out_fini(&out);
    wire_out_fini(&items);
}

static void send_heartbeat(struct sim_server *s)
{
    struct server_heartbeat_req req = { .node = s->id, .boot = s->boot, .seq = ++s->seq };
    struct volume_info v = { .uuid = slice_str("volume"),
                             .path = slice_str("/sim"),
                             .total = GIB,
                             .free = GIB / 2,
                             .state = VOLUME_OK };
    struct wire_out vols, out;

    wire_out_init(&vols, LIMIT_MSG);
    volume_info_put(&vols, &v);
    req.volumes = wire_out_list(&vols, 1);
    req.done = wire_out_list(&s->done, s->done_count);
    wire_out_init(&out, LIMIT_MSG);
    server_heartbeat_req_put(&out, &req);
    send_master(s, RPC_server_heartbeat, &out);
    wire_out_fini(&out);
    wire_out_fini(&vols);
}

static void tick(void *arg, uint64_t unused)
{
    struct sim_server *s = arg;

    (void)unused;
    s->sent_us = s->cl->sim.now_us;
    if (s->registered) {
        send_heartbeat(s);
    } else {
        send_register(s);
    }
    sim_after(&s->cl->sim, server_node(s->id), SIM_SEC, tick, s, 0);
}

/* Dirty replicas reach the disk in the background, as in the real store. */
static void background_sync(void *arg, uint64_t unused)
{
    struct sim_server *s = arg;

    (void)unused;
    for (struct sim_replica *r = s->replicas; r != NULL; r = r->next) {
        r->synced = r->rule.len;
    }
    sim_after(&s->cl->sim, server_node(s->id), 2 * SIM_SEC, background_sync, s, 0);
}

static void on_heartbeat_reply(struct sim_server *s, const struct sim_msg *m)
{
    struct server_heartbeat_rep rep;
    struct wire_in in;

    if (m->status != 0 || server_heartbeat_rep_get(m->body, &rep) != 0) {
        s->registered = s->registered && m->status != DFS_ENOENT;
        return;
    }
    if ((rep.flags & HEARTBEAT_REGISTER) != 0) {
        s->registered = false;
        return;
    }
    s->answered_us = s->sent_us;
    wire_out_reset(&s->done); /* this answer may be for an earlier heartbeat: orders come again */
    s->done_count = 0;
    in = wire_in_of(rep.orders.items);
    for (uint32_t i = 0; i < rep.orders.count; i++) {
        struct order o;

        if (order_get(&in, &o) != 0) {
            sim_fail(&s->cl->sim, "server %u cannot decode its orders", s->id);
        }
        do_order(s, &o);
    }
    if ((rep.flags & HEARTBEAT_REPORT) != 0) {
        send_digests(s);
    }
}

static void receive(void *arg, const struct sim_msg *m)
{
    struct sim_server *s = arg;
    struct server_digests_rep digests;
    struct wire_in in;

    switch (m->type) {
    case RPC_block_packet:
        on_packet(s, m);
        break;
    case RPC_block_sync:
        on_sync(s, m);
        break;
    case RPC_server_register:
        if (m->status == 0 && !s->registered) {
            s->registered = true;
            s->answered_us = s->sent_us;
            send_digests(s);
        }
        break;
    case RPC_server_heartbeat:
        on_heartbeat_reply(s, m);
        break;
    case RPC_server_digests:
        if (m->status == 0 && server_digests_rep_get(m->body, &digests) == 0) {
            in = wire_in_of(digests.differ.items);
            for (uint32_t i = 0; i < digests.differ.count; i++) {
                struct range_ref r;

                if (range_ref_get(&in, &r) == 0) {
                    send_range(s, r.range);
                }
            }
        }
        break;
    default:
        break;
    }
}

void server_boot(struct sim_server *s)
{
    struct sim *sim = &s->cl->sim;

    s->boot = sim_rand(sim);
    s->seq = 0;
    s->registered = false;
    wire_out_init(&s->done, LIMIT_MSG);
    s->done_count = 0;
    memset(s->lane, 0, sizeof(s->lane));
    sim_up(sim, server_node(s->id), receive, s);
    sim_after(sim, server_node(s->id), sim_below(sim, SIM_SEC), tick, s, 0);
    sim_after(sim, server_node(s->id), SIM_SEC, background_sync, s, 0);
}

void server_crash(struct sim_server *s, bool power)
{
    sim_crash(&s->cl->sim, server_node(s->id));
    wire_out_fini(&s->done);
    for (struct sim_replica *r = s->replicas, *next; r != NULL; r = next) {
        next = r->next;
        if (r->rule.state == RULE_COPY) {
            drop(s, r->block); /* the start-up scan removes half a copy */
        } else if (power && r->synced < r->rule.len) {
            r->rule.len = r->synced + (uint32_t)sim_below(&s->cl->sim, r->rule.len - r->synced);
            r->synced = r->rule.len;
        }
    }
}

void server_lose_volume(struct sim_server *s)
{
    struct sim_replica *next;

    for (struct sim_replica *r = s->replicas; r != NULL; r = next) {
        size_t others = 0;

        next = r->next;
        for (uint32_t i = 1; i <= SIM_SERVERS; i++) {
            const struct sim_replica *o = server_find(&s->cl->servers[i], r->block);

            others += i != s->id && s->cl->sim.nodes[server_node(i)].up && o != NULL &&
                      o->rule.state == RULE_SEALED && o->synced >= r->rule.len;
        }
        if (r->rule.state == RULE_SEALED && r->block % 2 == 0 && others >= 2) {
            drop(s, r->block);
        }
    }
    s->registered = false; /* its volumes have changed: the master compares again */
}

void server_free(struct sim_server *s)
{
    while (s->replicas != NULL) {
        drop(s, s->replicas->block);
    }
    wire_out_fini(&s->done);
}
