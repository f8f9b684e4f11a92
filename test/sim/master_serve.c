/* What block servers and clients ask of the simulated master. */
#include "test/sim/master_int.h"

/* ---- block servers ---- */

static void on_register(struct sim_master *m, const struct sim_msg *msg)
{
    struct server_register_req req;
    struct cmd *c;

    if (server_register_req_get(msg->body, &req) != 0) {
        sim_fail(&m->cl->sim, "undecodable registration");
    }
    c = master_submit(m, FROM_REGISTER, RPC_map_server);
    if (c == NULL) {
        return;
    }
    c->from = msg->from;
    c->id = msg->id;
    c->reg = req;
    c->volume_len = (uint32_t)MIN(req.volumes.items.len, sizeof(c->volume_bytes));
    memcpy(c->volume_bytes, req.volumes.items.p, c->volume_len);
    map_server_req_put(
        &c->msg, &(struct map_server_req){
                     .uuid = req.uuid, .addr = req.addr, .host = req.host, .rack = req.rack });
}

static void on_heartbeat(struct sim_master *m, const struct sim_msg *msg)
{
    struct server_heartbeat_req req;
    struct server_heartbeat_rep rep = { 0 };
    struct wire_out orders, body;
    struct wire_in in;
    struct member *mem;

    if (server_heartbeat_req_get(msg->body, &req) != 0) {
        sim_fail(&m->cl->sim, "undecodable heartbeat");
    }
    wire_out_init(&orders, LIMIT_MSG);
    wire_out_init(&body, LIMIT_MSG);
    if (members_heartbeat(&m->members, &req, master_now_ms(m)) != 0) {
        rep.flags = HEARTBEAT_REGISTER;
    } else {
        if (req.done.count != 0) {
            master_settle(m);
        }
        in = wire_in_of(req.done.items);
        for (uint32_t i = 0; i < req.done.count; i++) {
            struct order_done d;

            (void)order_done_get(&in, &d);
            repair_done(m->repair, req.node, &d, master_now_ms(m));
        }
        rep.orders.count = repair_put_orders(m->repair, req.node, 32, &orders);
        rep.orders.items = wire_out_slice(&orders);
        mem = members_get(&m->members, req.node);
        if (mem->report) {
            rep.flags = HEARTBEAT_REPORT;
            mem->report = false;
        }
    }
    server_heartbeat_rep_put(&body, &rep);
    master_send_reply(m, msg->from, msg->type, msg->id, 0, wire_out_slice(&body));
    wire_out_fini(&orders);
    wire_out_fini(&body);
}

static bool add_digest(void *arg, uint64_t block, const struct block_rec *rec)
{
    reconcile_digest_add(arg, block, rec->len);
    return true;
}

static void on_digests(struct sim_master *m, const struct sim_msg *msg)
{
    struct server_digests_req req;
    struct server_digests_rep rep = { 0 };
    struct reconcile_digest ours = { 0 };
    struct wire_out ranges, body;
    MDB_txn *t;

    if (server_digests_req_get(msg->body, &req) != 0) {
        sim_fail(&m->cl->sim, "undecodable digests");
    }
    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    mapdb_each_block_of(ns_map(m->ns), t, req.node, 0, add_digest, &ours);
    mdb_txn_abort(t);
    wire_out_init(&ranges, LIMIT_MSG);
    wire_out_init(&body, LIMIT_MSG);
    rep.differ.count = reconcile_differ(&ours, req.digests, req.first, req.last, &ranges);
    rep.differ.items = wire_out_slice(&ranges);
    server_digests_rep_put(&body, &rep);
    master_send_reply(m, msg->from, msg->type, msg->id, 0, wire_out_slice(&body));
    wire_out_fini(&ranges);
    wire_out_fini(&body);
    reconcile_digest_fini(&ours);
}

static void judge(struct sim_master *m, uint32_t node, uint64_t block,
                  const struct replica_info *have, uint64_t next_block)
{
    struct block_rec rec;
    bool known = master_get_block(m, block, &rec) == 0, listed = false;
    enum verdict v;

    for (uint8_t i = 0; known && i < rec.node_count; i++) {
        listed = listed || rec.nodes[i] == node;
    }
    v = reconcile_judge(block, known ? &rec : NULL, listed, have, next_block);
    if (v != VERDICT_FINE) {
        sim_trace(&m->cl->sim, "master: block %ju on server %u: verdict %d", (uintmax_t)block, node,
                  (int)v);
    }
    switch (v) {
    case VERDICT_FINE:
        break;
    case VERDICT_SEAL:
        repair_seal_copy(m->repair, block, node, rec.len, master_now_ms(m));
        break;
    case VERDICT_SHORT:
        repair_bad(m->repair, block, node, DFS_EOFFSET, master_now_ms(m));
        break;
    case VERDICT_ADOPT:
    case VERDICT_RESCUE:
        if (!repair_adopt(m->repair, block, node, v == VERDICT_ADOPT, master_now_ms(m))) {
            strays_note(&m->strays, block, node, master_now_ms(m));
        }
        break;
    case VERDICT_STRAY:
        strays_note(&m->strays, block, node, master_now_ms(m));
        break;
    case VERDICT_LOST:
        repair_change(m->repair, &(struct repair_change){ block, node, REPLICA_DROP, false });
        break;
    case VERDICT_FUTURE:
        sim_fail(&m->cl->sim, "server %u has block %ju, which was never given", node,
                 (uintmax_t)block);
    }
}

static void on_range(struct sim_master *m, const struct sim_msg *msg)
{
    struct server_range_req req;
    struct ns_counts counts;
    struct replica_info *have = x_alloc(RANGE_BLOCKS * sizeof(*have));
    bool *there = x_alloc(RANGE_BLOCKS * sizeof(*there));
    struct wire_in in;

    if (server_range_req_get(msg->body, &req) != 0 || ns_get_counts(m->reader, &counts) != 0) {
        sim_fail(&m->cl->sim, "undecodable range");
    }
    in = wire_in_of(req.replicas.items);
    for (uint32_t i = 0; i < req.replicas.count; i++) {
        struct replica_info r;

        if (replica_info_get(&in, &r) != 0 || r.block / RANGE_BLOCKS != req.range) {
            sim_fail(&m->cl->sim, "bad list of a range");
        }
        have[r.block % RANGE_BLOCKS] = r;
        there[r.block % RANGE_BLOCKS] = true;
    }
    for (uint64_t i = 0; i < RANGE_BLOCKS; i++) {
        uint64_t block = req.range * RANGE_BLOCKS + i;

        if (there[i] || block < counts.next_block) {
            judge(m, req.node, block, there[i] ? &have[i] : NULL, counts.next_block);
        }
    }
    free(have);
    free(there);
}

/* ---- clients ---- */

static uint8_t node_state(void *arg, uint32_t node)
{
    return members_state(&((struct sim_master *)arg)->members, node);
}

static void on_client(struct sim_master *m, const struct sim_msg *msg)
{
    struct wire_in in = wire_in_of(msg->body);
    struct slice hdr = wire_get_bytes(&in), body = wire_get_bytes(&in);
    struct wire_in hin = wire_in_of(hdr);
    struct call_hdr h;
    struct wire_out rep;
    struct cmd *c;

    if (in.err != 0 || call_hdr_get(&hin, &h) != 0) {
        sim_fail(&m->cl->sim, "undecodable call");
    }
    for (size_t i = 0; i < m->session_count; i++) {
        if (m->sessions[i].session == h.session) {
            m->sessions[i].seen_ms = master_now_ms(m);
        }
    }
    if (msg->type == RPC_session_ping) {
        return;
    }
    if (msg->type == RPC_open) {
        wire_out_init(&rep, LIMIT_REPLY);
        int err = ns_query(m->reader, &h, msg->type, body, node_state, m, &rep);

        master_send_reply(m, msg->from, msg->type, msg->id, err, wire_out_slice(&rep));
        wire_out_fini(&rep);
        return;
    }
    c = master_submit(m, FROM_CLIENT, msg->type);
    if (c != NULL) {
        c->from = msg->from;
        c->id = msg->id;
        wire_put_raw(&c->hdr, hdr.p, hdr.len);
        wire_put_raw(&c->msg, body.p, body.len);
    }
}

void master_receive(void *arg, const struct sim_msg *msg)
{
    struct sim_master *m = arg;

    switch (msg->type) {
    case RPC_server_register:
        on_register(m, msg);
        break;
    case RPC_server_heartbeat:
        on_heartbeat(m, msg);
        break;
    case RPC_server_digests:
        master_settle(m);
        on_digests(m, msg);
        break;
    case RPC_server_range:
        master_settle(m);
        on_range(m, msg);
        break;
    default:
        on_client(m, msg);
        break;
    }
}
