/* Block servers: registration, heartbeats, goodbyes. On the control plane's threads. */
#include "cluster/base/clock.h"
#include "cluster/base/fault.h"
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define ORDERS_MAX 512u /* on one heartbeat's reply */
#define DONE_MAX   65536u
#define SOON_MAX   128u /* servers that may be asked to come again in a moment */

static int bad_frame(const struct server_register_req *q)
{
    return q->uuid.len != 16 || q->addr.len == 0 || q->addr.len > 255 || q->host.len == 0 ||
           q->host.len > 255 || q->rack.len > 255;
}

static void put_text(char to[256], struct slice s)
{
    if (s.len != 0) {
        memcpy(to, s.p, s.len);
    }
    to[s.len] = '\0';
}

struct find_server {
    const struct server_rec *want;
    struct server_rec known;
    uint32_t node; /* of the same store; 0: unknown */
    bool same;     /* nothing else has changed either */
};

static bool find_server(void *arg, uint32_t node, const struct server_rec *r)
{
    struct find_server *f = arg;

    if (memcmp(r->uuid, f->want->uuid, sizeof(r->uuid)) != 0) {
        return true;
    }
    f->node = node;
    f->known = *r;
    f->same = strcmp(r->addr, f->want->addr) == 0 && strcmp(r->host, f->want->host) == 0 &&
              strcmp(r->rack, f->want->rack) == 0 && r->maintenance != MAINTENANCE_STOP;
    return false;
}

/* The id of the server's store; what is new about it goes through the log. What operators want of it
 * is put into rec. */
static int know_server(struct master *m, struct server_rec *rec, uint32_t *ret_node)
{
    struct map_server_req req = { .uuid = slice_of(rec->uuid, sizeof(rec->uuid)),
                                  .addr = slice_str(rec->addr),
                                  .host = slice_str(rec->host),
                                  .rack = slice_str(rec->rack) };
    struct find_server f = { .want = rec };
    struct map_server_rep rep;
    struct wire_out msg, reply;
    MDB_txn *txn;
    int err = kv_read_begin(ns_kv(m->ns), &txn);

    if (err != DFS_OK) {
        return err;
    }
    err = mapdb_each_server(ns_map(m->ns), txn, find_server, &f);
    mdb_txn_abort(txn);
    rec->intent = f.known.intent;
    if (f.known.maintenance == MAINTENANCE_ASKED) {
        rec->maintenance = f.known.maintenance;
        rec->until_ns = f.known.until_ns;
    }
    if (err != DFS_OK || f.same) {
        *ret_node = f.node;
        return err;
    }
    wire_out_init(&msg, 4 * KIB);
    wire_out_init(&reply, 4 * KIB);
    map_server_req_put(&msg, &req);
    err = master_core_call(m, RPC_map_server, wire_out_slice(&msg), &reply);
    err = err != DFS_OK ? err : map_server_rep_get(wire_out_slice(&reply), &rep);
    if (err == DFS_OK) {
        *ret_node = rep.node;
        log_event(LOG_INFO, "master.server", "node=%u addr=%s host=\"%s\" rack=\"%s\" new=%d",
                  rep.node, rec->addr, rec->host, rec->rack, f.node == 0);
    }
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    return err;
}

static int welcome(struct master *m, const struct server_register_req *q,
                   const struct server_rec *rec, uint32_t node)
{
    uint64_t now = clock_mono_ms();
    const struct member *s;
    uint8_t was = 0;
    bool moved;
    int err;

    pthread_mutex_lock(&m->map_mu);
    s = members_get(&m->members, node);
    moved =
        s != NULL && (strcmp(s->rec.host, rec->host) != 0 || strcmp(s->rec.rack, rec->rack) != 0);
    err = members_load(&m->members, node, rec, now);
    if (err == DFS_OK) {
        members_intend(&m->members, node, rec, master_now_ns(m), now);
    }
    err = err != DFS_OK ? err : members_register(&m->members, node, q->boot, q->volumes, now, &was);
    if (err == DFS_OK) {
        members_doubt(&m->members, node);
    }
    /* It has other neighbours: its blocks may be misplaced now. */
    if (err == DFS_OK && (was == MEMBER_DEAD || moved)) {
        master_keeper_scan_node_locked(m, node);
    }
    pthread_mutex_unlock(&m->map_mu);
    if (err == DFS_OK) {
        log_event(LOG_INFO, "master.registered", "node=%u addr=%s host=\"%s\"", node, rec->addr,
                  rec->host);
        master_keeper_poke(m);
    }
    return err;
}

static struct slice trim_blanks(const char *p, size_t len)
{
    size_t skip = strspn(p, " \t");

    skip = MIN(skip, len);
    len -= skip;
    while (len > 0 && (p[skip + len - 1] == ' ' || p[skip + len - 1] == '\t')) {
        len--;
    }
    return slice_of(p + skip, len);
}

/* The rack that the master's topology has for a host, else what the server says. */
static struct slice rack_of(const struct master *m, struct slice host, struct slice said)
{
    for (const char *p = m->conf->topology; *p != '\0';) {
        size_t len = strcspn(p, ",");
        const char *eq = memchr(p, '=', len);

        if (eq != NULL && slice_eq(trim_blanks(p, (size_t)(eq - p)), host)) {
            return trim_blanks(eq + 1, len - (size_t)(eq - p) - 1);
        }
        p += len + (p[len] == ',');
    }
    return said;
}

/* One that was started again elsewhere is let in when the former has been silent for a while. */
static int check_twin(struct master *m, const struct server_rec *rec, uint64_t boot)
{
    const struct member *s;

    pthread_mutex_lock(&m->map_mu);
    s = members_twin(&m->members, rec, boot);
    if (s != NULL) {
        log_event(LOG_WARN, "master.refused",
                  "addr=%s host=\"%s\" err=\"a server with the same identity lives at %s: "
                  "was its block.data copied?\"",
                  rec->addr, rec->host, s->rec.addr);
    }
    pthread_mutex_unlock(&m->map_mu);
    return s != NULL ? DFS_EBUSY : 0;
}

static int on_register(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct server_register_rep out = { .cluster = slice_of(m->cluster, sizeof(m->cluster)),
                                       .heartbeat_ms = (uint32_t)m->conf->heartbeat,
                                       .dead_ms = (uint32_t)m->conf->server_dead_after };
    struct server_register_req q;
    struct server_rec rec = { 0 };
    int err = server_register_req_get(msg, &q);

    if (err != DFS_OK || bad_frame(&q)) {
        return DFS_EMALFORMED;
    }
    put_text(rec.addr, q.addr);
    put_text(rec.host, q.host);
    put_text(rec.rack, rack_of(m, q.host, q.rack));
    memcpy(rec.uuid, q.uuid.p, sizeof(rec.uuid));
    if (q.version != DFS_PROTOCOL) {
        log_event(LOG_WARN, "master.refused", "addr=%s err=\"protocol version %u, this is %d\"",
                  rec.addr, q.version, DFS_PROTOCOL);
        return DFS_EVERSION;
    }
    if (q.cluster.len != 0 && !slice_eq(q.cluster, out.cluster)) {
        log_event(LOG_WARN, "master.refused",
                  "addr=%s host=\"%s\" err=\"its data belongs to another cluster\"", rec.addr,
                  rec.host);
        return DFS_EWRONGCLUSTER;
    }
    err = check_twin(m, &rec, q.boot);
    err = err != DFS_OK ? err : know_server(m, &rec, &out.node);
    err =
        err != DFS_OK || q.last_block == 0 ? err : master_restored_seen(m, out.node, q.last_block);
    if (err == DFS_OK && q.node != 0 && q.node != out.node) {
        log_event(LOG_WARN, "master.renumbered", "addr=%s was=%u is=%u", rec.addr, q.node,
                  out.node);
    }
    err = err != DFS_OK ? err : welcome(m, &q, &rec, out.node);
    if (err == DFS_OK) {
        server_register_rep_put(rep, &out);
    }
    return err;
}

bool master_control_boot_known(struct master *m, uint32_t node, uint64_t boot)
{
    const struct member *s;
    bool known;

    pthread_mutex_lock(&m->map_mu);
    s = members_get(&m->members, node);
    known = s != NULL && s->boot != 0 && s->boot == boot;
    pthread_mutex_unlock(&m->map_mu);
    return known;
}

/* map_mu is held. */
static int take_news(struct master *m, const struct server_heartbeat_req *q, uint64_t now)
{
    struct wire_in done = wire_in_of(q->done.items);
    struct wire_in bad = wire_in_of(q->bad.items);

    for (uint32_t i = 0; i < q->done.count; i++) {
        struct order_done d;

        if (order_done_get(&done, &d) != DFS_OK) {
            return DFS_EMALFORMED;
        }
        if (d.status != DFS_OK) {
            log_event(LOG_INFO, "repair.failed", "node=%u kind=%u block=%ju target=%u err=%s",
                      q->node, d.kind, (uintmax_t)d.block, d.node, err_name((int)d.status));
        }
        repair_done(m->repair, q->node, &d, now);
    }
    for (uint32_t i = 0; i < q->bad.count; i++) {
        struct replica_bad b;

        if (replica_bad_get(&bad, &b) != DFS_OK) {
            return DFS_EMALFORMED;
        }
        log_event(LOG_WARN, "replica.bad", "node=%u block=%ju err=%s", q->node, (uintmax_t)b.block,
                  err_name((int)b.status));
        repair_bad(m->repair, b.block, q->node, (int)b.status, now);
    }
    return DFS_OK;
}

static int on_heartbeat(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct server_heartbeat_rep out = { 0 };
    struct server_heartbeat_req q;
    struct wire_out orders;
    uint64_t now = clock_mono_ms();
    const struct member *s;
    bool poke = false;
    bool asked;
    int err = server_heartbeat_req_get(msg, &q);

    if (err != DFS_OK || q.done.count > DONE_MAX || q.bad.count > DONE_MAX) {
        return DFS_EMALFORMED;
    }
    err = q.done.count + q.bad.count != 0 ? master_keep_settle(m) : DFS_OK;
    if (err != DFS_OK) {
        return err;
    }
    wire_out_init(&orders, LIMIT_REPLY);
    pthread_mutex_lock(&m->map_mu);
    s = members_get(&m->members, q.node);
    asked = s != NULL && s->report;
    err = members_heartbeat(&m->members, &q, now);
    if (err == DFS_OK && s->report && !asked) {
        members_doubt(&m->members, q.node); /* a volume may have failed, or be gone */
    }
    if (err == DFS_ENOENT) {
        out.flags = HEARTBEAT_REGISTER;
        err = DFS_OK;
    } else if (err == DFS_OK) {
        err = take_news(m, &q, now);
        out.flags = members_get(&m->members, q.node)->report ? HEARTBEAT_REPORT : 0;
        if (m->members.count <= SOON_MAX && repair_is_urgent(m->repair, now)) {
            out.flags |= HEARTBEAT_SOON;
        }
        out.orders = wire_out_list(&orders, 0);
        out.orders.count = repair_put_orders(m->repair, q.node, ORDERS_MAX, &orders);
        out.orders.items = wire_out_slice(&orders);
        poke = q.done.count + q.bad.count != 0;
    }
    pthread_mutex_unlock(&m->map_mu);
    if (err == DFS_OK) {
        server_heartbeat_rep_put(rep, &out);
    }
    wire_out_fini(&orders);
    if (poke) {
        master_keeper_poke(m);
    }
    return err;
}

static int on_bye(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct server_bye_rep out = { 0 };
    struct server_bye_req q;
    bool gone;
    int err = server_bye_req_get(msg, &q);

    if (err != DFS_OK) {
        return err;
    }
    pthread_mutex_lock(&m->map_mu);
    gone = members_bye(&m->members, q.node, q.boot);
    pthread_mutex_unlock(&m->map_mu);
    if (gone) {
        log_event(LOG_INFO, "master.bye", "node=%u", q.node);
        err = master_ops_stopped(m, q.node);
        if (err != DFS_OK) {
            return err;
        }
    }
    server_bye_rep_put(rep, &out);
    return DFS_OK;
}

/* Who asks may have heard from clients of what is not committed yet. These come often, and look at no
 * record (on_heartbeat: with news only). */
static bool needs_no_records(uint16_t type)
{
    return type == RPC_server_heartbeat || type == RPC_server_chores || type == RPC_scrub_status;
}

int master_control_on(void *arg, uint16_t type, struct slice msg, struct wire_out *rep)
{
    struct master *m = arg;
    int err;

    if (!atomic_load(&m->leads)) {
        return DFS_ENOTLEADER;
    }
    err = needs_no_records(type) ? DFS_OK : master_keep_settle(m);
    if (err != DFS_OK) {
        return err;
    }
    switch (type) {
    case RPC_server_register:
        return on_register(m, msg, rep);
    case RPC_server_heartbeat:
        return on_heartbeat(m, msg, rep);
    case RPC_server_digests:
        return master_report_digests(m, msg, rep);
    case RPC_server_range:
        return master_report_range(m, msg, rep);
    case RPC_server_bye:
        return on_bye(m, msg, rep);
    case RPC_server_chores:
        return master_chores_told(m, msg, rep);
    case RPC_scrub_order:
        return master_chores_order(m, msg, rep);
    case RPC_scrub_status:
        return master_chores_status(m, msg, rep);
    case RPC_status:
        return master_admin_status(m, rep);
    case RPC_health:
        return master_admin_health(m, msg, rep);
    case RPC_server_intent:
        return master_ops_intent(m, msg, rep);
    case RPC_audit:
        return master_audit_on(m, msg, rep);
    case RPC_locks:
        return master_locks_list(m, msg, rep);
    default:
        return DFS_EUNKNOWNRPC;
    }
}
