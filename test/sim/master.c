/* The master: the real state machine behind a log in memory, with the leader's real tables around it.
 *
 * A command is decoded, put into a batch, appended to the log, and applied once the log has it on
 * disk. A crash loses the tables, the batch that is gathering and, by chance, the entry that was not
 * on disk yet; the database falls back to its last checkpoint and the log is replayed. Between two
 * commands of clients the database may be uncommitted, as the real master's (ns_keep).
 */
#include "test/sim/master_int.h"

uint64_t master_now_ms(const struct sim_master *m)
{
    return m->cl->sim.now_us / 1000;
}

struct ns *master_ns(struct sim_master *m)
{
    return m->ns;
}

/* ---- the log ---- */

static void cmd_free(struct cmd *c)
{
    wire_out_fini(&c->hdr);
    wire_out_fini(&c->msg);
    wire_out_fini(&c->choice);
    free(c);
}

static void flush(void *arg, uint64_t unused);

struct cmd *master_submit(struct sim_master *m, enum origin origin, uint16_t type)
{
    struct cmd *c;

    if (m->gathering_count == MAX_CMDS) {
        return NULL;
    }
    c = x_alloc(sizeof(*c));
    c->origin = origin;
    c->type = type;
    wire_out_init(&c->hdr, LIMIT_MSG);
    wire_out_init(&c->msg, LIMIT_MSG);
    wire_out_init(&c->choice, LIMIT_MSG);
    m->gathering[m->gathering_count++] = c;
    if (m->gathering_count == 1 && m->flying_count == 0) {
        sim_after(&m->cl->sim, SIM_MASTER, 50, flush, m, 0);
    }
    return c;
}

void master_send_reply(struct sim_master *m, int to, uint16_t type, uint64_t id, int status,
                       struct slice body)
{
    sim_send(&m->cl->sim, &(struct sim_msg){ .from = SIM_MASTER,
                                             .to = to,
                                             .type = type,
                                             .id = id,
                                             .reply = true,
                                             .status = status,
                                             .body = body });
}

static bool look_one(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct sim_master *m = arg;

    repair_look(m->repair, block, rec, master_now_ms(m));
    return true;
}

static void registered(struct sim_master *m, struct cmd *c, int status, struct slice reply)
{
    struct map_server_rep rep;
    struct server_rec rec;
    struct server_register_rep out = { .heartbeat_ms = 1000, .dead_ms = DEAD_MS };
    struct wire_out body;
    MDB_txn *t;
    uint8_t was;

    if (status != 0 || map_server_rep_get(reply, &rep) != 0) {
        sim_fail(&m->cl->sim, "map_server: %s", err_text(status));
    }
    if (rep.node != c->reg.node) {
        sim_fail(&m->cl->sim, "server %u got id %u", c->reg.node, rep.node);
    }
    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    ASSERT(mapdb_server_get(ns_map(m->ns), t, rep.node, &rec) == 0);
    ASSERT(members_load(&m->members, rep.node, &rec, master_now_ms(m)) == 0);
    ASSERT(members_register(&m->members, rep.node, c->reg.boot,
                            (struct wire_list){ .count = c->reg.volumes.count,
                                                .items = slice_of(c->volume_bytes, c->volume_len) },
                            master_now_ms(m), &was) == 0);
    mapdb_each_block_of(ns_map(m->ns), t, rep.node, 0, look_one, m);
    mdb_txn_abort(t);
    out.node = rep.node;
    wire_out_init(&body, LIMIT_MSG);
    server_register_rep_put(&body, &out);
    master_send_reply(m, c->from, RPC_server_register, c->id, 0, wire_out_slice(&body));
    wire_out_fini(&body);
}

/* The record says what is wanted of a server: the leader learns it. */
static void intended(struct sim_master *m, uint32_t node)
{
    struct server_rec rec;
    MDB_txn *t;

    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    ASSERT(mapdb_server_get(ns_map(m->ns), t, node, &rec) == 0);
    sim_trace(&m->cl->sim, "master: server %u: intent %u, maintenance %u", node, rec.intent,
              rec.maintenance);
    members_intend(&m->members, node, &rec, (int64_t)m->cl->sim.now_us * 1000, master_now_ms(m));
    mapdb_each_block_of(ns_map(m->ns), t, node, 0, look_one, m);
    mdb_txn_abort(t);
}

void master_intend(struct sim_master *m, uint32_t node, uint8_t fields,
                   const struct server_rec *want)
{
    struct cmd *c = master_submit(m, FROM_INTENT, RPC_map_intent);

    if (c == NULL) {
        return;
    }
    c->reg.node = node;
    map_intent_req_put(&c->msg, &(struct map_intent_req){ .node = node,
                                                          .fields = fields,
                                                          .intent = want->intent,
                                                          .maintenance = want->maintenance,
                                                          .until_ns = want->until_ns });
}

static void on_applied(void *arg, uint32_t i, int status, struct slice reply)
{
    struct sim_master *m = arg;
    struct cmd *c;

    if (m->flying_count == 0) {
        return; /* replay: nobody waits */
    }
    ASSERT(i < m->flying_count);
    c = m->flying[i];
    if (status == DFS_EREPLAYED) {
        return; /* a late copy of a command that was answered: the client does not wait either */
    }
    switch (c->origin) {
    case FROM_CLIENT:
        if (c->type == RPC_session_open && status == 0) {
            struct session_open_rep rep;

            ASSERT(session_open_rep_get(reply, &rep) == 0 && m->session_count < MAX_SESSIONS);
            m->sessions[m->session_count].session = rep.session;
            m->sessions[m->session_count++].seen_ms = master_now_ms(m);
        }
        master_send_reply(m, c->from, c->type, c->id, status, reply);
        break;
    case FROM_CHANGE:
        repair_changed(m->repair, &c->change, status, master_now_ms(m));
        break;
    case FROM_FORGET:
        repair_forgotten(m->repair, c->block);
        break;
    case FROM_REGISTER:
        registered(m, c, status, reply);
        break;
    case FROM_INTENT:
        intended(m, c->reg.node);
        break;
    case FROM_TASK:
        break;
    }
}

int master_get_block(void *arg, uint64_t block, struct block_rec *ret)
{
    struct sim_master *m = arg;
    MDB_txn *t;
    int err = kv_read_begin(ns_kv(m->ns), &t);

    if (err == 0) {
        err = mapdb_get(ns_map(m->ns), t, block, ret);
        mdb_txn_abort(t);
    }
    return err;
}

static void block_changed(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct sim_master *m = arg;

    if (m->repair != NULL && m->changed_count < ARRAY_LEN(m->changed)) {
        m->sealed[m->changed_count] = rec->state == BLOCK_SEALED && rec->changed_ns == m->wall_ns;
        m->changed[m->changed_count++] = block;
    }
}

void master_settle(struct sim_master *m)
{
    struct why why = { "" };

    if (ns_flush(m->ns, &why) != 0) {
        sim_fail(&m->cl->sim, "flush: %s", why.text);
    }
    for (size_t i = 0; i < m->changed_count; i++) {
        struct block_rec rec;

        if (master_get_block(m, m->changed[i], &rec) == 0) {
            repair_look(m->repair, m->changed[i], &rec, master_now_ms(m));
            if (m->sealed[i] && rec.state == BLOCK_SEALED) {
                repair_sealed(m->repair, m->changed[i], &rec, master_now_ms(m));
            }
        }
    }
    m->changed_count = 0;
}

static void settle(void *arg, uint64_t unused)
{
    struct sim_master *m = arg;

    (void)unused;
    m->settling = false;
    master_settle(m);
}

static void apply_one(struct sim_master *m, uint64_t index)
{
    struct why why = { "" };

    if (ns_apply(m->ns, index, slice_of(m->log[index - 1].p, m->log[index - 1].len), on_applied, m,
                 &why) != 0) {
        sim_fail(&m->cl->sim, "apply %ju: %s", (uintmax_t)index, why.text);
    }
    if (!kv_has_kept(ns_kv(m->ns))) {
        master_settle(m);
    } else if (!m->settling) {
        m->settling = true;
        sim_after(&m->cl->sim, SIM_MASTER, 10 * SIM_MS, settle, m, 0);
    }
}

static void checkpoint_done(void *arg, uint64_t unused)
{
    struct sim_master *m = arg;
    struct why why = { "" };

    (void)unused;
    if (kv_checkpoint_sync(ns_kv(m->ns), &why) != 0) {
        sim_fail(&m->cl->sim, "checkpoint: %s", why.text);
    }
    kv_checkpoint_end(ns_kv(m->ns));
    m->trimmed = m->begun;
}

static void on_durable(void *arg, uint64_t index)
{
    struct sim_master *m = arg;

    m->durable = index;
    apply_one(m, index);
    for (size_t i = 0; i < m->flying_count; i++) {
        cmd_free(m->flying[i]);
    }
    m->flying_count = 0;
    if (index % 200 == 0) { /* commits go on while it is made */
        struct why why = { "" };

        master_settle(m);
        if (kv_checkpoint_begin(ns_kv(m->ns), &why) != 0) {
            sim_fail(&m->cl->sim, "checkpoint: %s", why.text);
        }
        m->begun = index;
        sim_after(&m->cl->sim, SIM_MASTER, 30 * SIM_MS, checkpoint_done, m, 0);
    }
    if (m->gathering_count != 0) {
        sim_after(&m->cl->sim, SIM_MASTER, 50, flush, m, 0);
    }
}

/* What block_alloc's servers are is decided here, before the log. False: answered already. */
static bool choose(struct sim_master *m, struct cmd *c)
{
    struct block_alloc_req req;
    struct placement_ask ask = { .bytes = SIM_BLOCK_SIZE };
    uint32_t avoid[16], nodes[LIMIT_REPLICATION];
    struct wire_out refs, choices;
    struct wire_in in;
    size_t n = 0;
    int err = block_alloc_req_get(wire_out_slice(&c->msg), &req);

    if (err != 0) {
        sim_fail(&m->cl->sim, "undecodable block_alloc");
    }
    in = wire_in_of(req.avoid.items);
    for (uint32_t i = 0; i < MIN(req.avoid.count, 16u); i++) {
        struct node_ref r;

        (void)node_ref_get(&in, &r);
        avoid[ask.avoid_count++] = r.node;
    }
    ask.avoid = avoid;
    ask.copies = req.want;
    err = placement_pick(&m->members, &ask, &m->rng, nodes, &n);
    if (err != 0) {
        master_send_reply(m, c->from, c->type, c->id, err, SLICE_EMPTY);
        return false;
    }
    wire_out_init(&refs, LIMIT_MSG);
    wire_out_init(&choices, LIMIT_MSG);
    for (size_t i = 0; i < n; i++) {
        node_ref_put(&refs, &(struct node_ref){ .node = nodes[i] });
    }
    block_choice_put(&choices,
                     &(struct block_choice){ .nodes = wire_out_list(&refs, (uint32_t)n) });
    wire_put_list(&c->choice, wire_out_list(&choices, 1));
    wire_out_fini(&refs);
    wire_out_fini(&choices);
    return true;
}

static void flush(void *arg, uint64_t unused)
{
    struct sim_master *m = arg;
    struct ns_batch_head head = { .repl_default = 3,
                                  .lease_ms = LEASE_MS,
                                  .block_size = SIM_BLOCK_SIZE };
    struct wire_out out;
    struct entry e;

    (void)unused;
    if (m->flying_count != 0 || m->gathering_count == 0) {
        return;
    }
    for (size_t i = 0; i < m->gathering_count; i++) {
        struct cmd *c = m->gathering[i];

        if (c->type == RPC_block_alloc && !choose(m, c)) {
            cmd_free(c);
            continue;
        }
        m->flying[m->flying_count++] = c;
    }
    m->gathering_count = 0;
    if (m->flying_count == 0) {
        return;
    }
    /* the wall clock may jump; the leader never goes back */
    m->wall_ns = MAX(m->wall_ns + 1, (int64_t)m->cl->sim.now_us * 1000);
    head.now_ns = m->wall_ns;
    wire_out_init(&out, LIMIT_MSG);
    ns_batch_begin(&out, &head);
    for (size_t i = 0; i < m->flying_count; i++) {
        struct cmd *c = m->flying[i];

        ns_batch_add(&out, &(struct ns_command){ .type = c->type,
                                                 .hdr = wire_out_slice(&c->hdr),
                                                 .msg = wire_out_slice(&c->msg),
                                                 .choice = wire_out_slice(&c->choice) });
    }
    ns_batch_end(&out, (uint32_t)m->flying_count);
    if (m->log_len == MAX_ENTRIES) {
        sim_fail(&m->cl->sim, "the log is full");
    }
    e = (struct entry){ .p = x_alloc(out.len), .len = out.len };
    memcpy(e.p, out.p, out.len);
    wire_out_fini(&out);
    m->log[m->log_len++] = e;
    sim_after(&m->cl->sim, SIM_MASTER, 100 + sim_below(&m->cl->sim, 2000), on_durable, m,
              m->log_len);
}

/* ---- what repair asks for ---- */

static void change(void *arg, const struct repair_change *ch)
{
    struct sim_master *m = arg;
    struct cmd *c = master_submit(m, FROM_CHANGE, RPC_map_replicas);
    struct wire_out items;

    if (c == NULL) {
        sim_fail(&m->cl->sim, "too many changes at once");
    }
    c->change = *ch;
    wire_out_init(&items, LIMIT_MSG);
    replica_change_put(
        &items, &(struct replica_change){ .block = ch->block, .node = ch->node, .op = ch->op });
    map_replicas_req_put(&c->msg,
                         &(struct map_replicas_req){ .changes = wire_out_list(&items, 1) });
    wire_out_fini(&items);
}

static void forget(void *arg, uint64_t block)
{
    struct sim_master *m = arg;
    struct cmd *c = master_submit(m, FROM_FORGET, RPC_map_forget);
    struct wire_out items;

    if (c == NULL) {
        sim_fail(&m->cl->sim, "too many changes at once");
    }
    c->block = block;
    wire_out_init(&items, LIMIT_MSG);
    block_ref_put(&items, &(struct block_ref){ .block = block });
    map_forget_req_put(&c->msg, &(struct map_forget_req){ .blocks = wire_out_list(&items, 1) });
    wire_out_fini(&items);
}

/* ---- the leader's tasks ---- */

static void member_moved(void *arg, const struct member *mem, uint8_t was)
{
    struct sim_master *m = arg;
    MDB_txn *t;

    (void)was;
    if (member_state(mem) == MEMBER_DEAD) {
        if (mem->rec.until_ns > (int64_t)(m->cl->sim.now_us * 1000)) {
            sim_fail(&m->cl->sim, "server %u is dead before its maintenance ends", mem->node);
        }
        repair_node_dead(m->repair, mem->node, master_now_ms(m));
        ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
        mapdb_each_block_of(ns_map(m->ns), t, mem->node, 0, look_one, m);
        mdb_txn_abort(t);
    }
}

static bool delete_one(void *arg, uint64_t block, int64_t since_ns)
{
    struct sim_master *m = arg;
    struct block_rec rec;

    (void)since_ns;
    return master_get_block(m, block, &rec) != 0 ||
           repair_delete(m->repair, block, &rec, master_now_ms(m));
}

static bool count_one(void *arg, uint64_t block, const struct block_rec *rec)
{
    (void)block;
    (void)rec;
    (*(uint64_t *)arg)++;
    return true;
}

static uint64_t count_of(struct sim_master *m, uint32_t node)
{
    uint64_t n = 0;
    MDB_txn *t;

    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    mapdb_each_block_of(ns_map(m->ns), t, node, 0, count_one, &n);
    mdb_txn_abort(t);
    return n;
}

static bool count_sealed(void *arg, uint64_t block, const struct block_rec *rec)
{
    (void)block;
    *(uint64_t *)arg += rec->state != BLOCK_OPEN;
    return true;
}

/* Without those that a client keeps open. */
static uint64_t sealed_of(struct sim_master *m, uint32_t node)
{
    uint64_t n = 0;
    MDB_txn *t;

    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    mapdb_each_block_of(ns_map(m->ns), t, node, 0, count_sealed, &n);
    mdb_txn_abort(t);
    return n;
}

/* As the keeper does. */
static void look_at_leaving(struct sim_master *m)
{
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];
        struct server_rec want = { .intent = INTENT_DECOMMISSIONED };

        if (member_leaving(s)) {
            want.intent = count_of(m, s->node) == 0 ? INTENT_DECOMMISSIONED : INTENT_DECOMMISSION;
            if (want.intent != s->rec.intent) {
                master_intend(m, s->node, INTENT_FIELD_INTENT | INTENT_FIELD_LEAVING, &want);
            }
        }
    }
}

struct first_block {
    uint64_t block;
    struct block_rec rec;
};

static bool take_first(void *arg, uint64_t block, const struct block_rec *rec)
{
    *(struct first_block *)arg = (struct first_block){ block, *rec };
    return false;
}

bool master_emptied(struct sim_master *m, char *ret_why, size_t cap)
{
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];

        if (member_leaving(s) && sealed_of(m, s->node) != 0) {
            struct first_block f = { 0 };
            MDB_txn *t;

            ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
            mapdb_each_block_of(ns_map(m->ns), t, s->node, 0, take_first, &f);
            mdb_txn_abort(t);
            snprintf(ret_why, cap,
                     "server %u has intent %u and %ju blocks; block %ju: state %u, %u bytes, %u "
                     "copies, wants %u",
                     s->node, s->rec.intent, (uintmax_t)count_of(m, s->node), (uintmax_t)f.block,
                     f.rec.state, f.rec.len, f.rec.node_count, block_rec_want(&f.rec));
            return false;
        }
    }
    return true;
}

static void every_second(struct sim_master *m)
{
    uint64_t orphans[32];
    size_t n = ns_orphans(m->reader, 0, orphans, ARRAY_LEN(orphans));
    struct wire_out items;
    struct cmd *c;
    MDB_txn *t;

    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    mapdb_each_deleted(ns_map(m->ns), t, (int64_t)m->cl->sim.now_us * 1000 - GRACE_MS * NS_PER_MS,
                       delete_one, m);
    mdb_txn_abort(t);
    wire_out_init(&items, LIMIT_MSG);
    for (size_t i = 0; i < n; i++) {
        ino_ref_put(&items, &(struct ino_ref){ .ino = orphans[i] });
    }
    c = n != 0 ? master_submit(m, FROM_TASK, RPC_ns_reap) : NULL;
    if (c != NULL) {
        ns_reap_req_put(&c->msg,
                        &(struct ns_reap_req){ .inodes = wire_out_list(&items, (uint32_t)n),
                                               .max_extents = 8 });
    }
    wire_out_reset(&items);
    n = 0;
    for (size_t i = 0; i < m->session_count;) {
        if (master_now_ms(m) - m->sessions[i].seen_ms > LEASE_MS) {
            session_ref_put(&items, &(struct session_ref){ .session = m->sessions[i].session });
            m->sessions[i] = m->sessions[--m->session_count];
            n++;
        } else {
            i++;
        }
    }
    c = n != 0 ? master_submit(m, FROM_TASK, RPC_session_expire) : NULL;
    if (c != NULL) {
        session_expire_req_put(&c->msg, &(struct session_expire_req){
                                            .sessions = wire_out_list(&items, (uint32_t)n) });
    }
    wire_out_fini(&items);
}

static void tick(void *arg, uint64_t unused)
{
    struct sim_master *m = arg;
    uint64_t block;
    uint32_t node;
    MDB_txn *t;

    (void)unused;
    members_step(&m->members, master_now_ms(m), member_moved, m);
    while (strays_due(&m->strays, master_now_ms(m), GRACE_MS, &block, &node)) {
        repair_stray(m->repair, block, node, master_now_ms(m));
    }
    if (m->gathering_count < MAX_CMDS / 4) {
        repair_step(m->repair, 16, master_now_ms(m));
    }
    if (repair_wants_scan(m->repair)) {
        ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
        mapdb_each_block(ns_map(m->ns), t, 0, look_one, m);
        mdb_txn_abort(t);
    }
    if (ns_quota_work(m->reader) != 0 && m->gathering_count < MAX_CMDS / 4) {
        struct cmd *c = master_submit(m, FROM_TASK, RPC_quota_step);

        quota_step_req_put(&c->msg, &(struct quota_step_req){ .max = 8 });
    }
    if (++m->ticks % 5 == 0) {
        look_at_leaving(m);
        every_second(m);
    }
    sim_after(&m->cl->sim, SIM_MASTER, 200 * SIM_MS, tick, m, 0);
}

/* ---- life ---- */

struct sim_master *master_new(struct cluster *cl, const char *dir)
{
    struct sim_master *m = x_alloc(sizeof(*m));

    m->cl = cl;
    m->dir = x_strdup(dir);
    return m;
}

static bool load_server(void *arg, uint32_t node, const struct server_rec *rec)
{
    struct sim_master *m = arg;

    ASSERT(members_load(&m->members, node, rec, master_now_ms(m)) == 0);
    members_intend(&m->members, node, rec, (int64_t)m->cl->sim.now_us * 1000, master_now_ms(m));
    return true;
}

static bool load_session(void *arg, uint64_t session, struct slice host, struct slice name)
{
    struct sim_master *m = arg;

    (void)host;
    (void)name;
    ASSERT(m->session_count < MAX_SESSIONS);
    m->sessions[m->session_count].session = session;
    m->sessions[m->session_count++].seen_ms = master_now_ms(m);
    return true;
}

void master_boot(struct sim_master *m)
{
    struct sim *s = &m->cl->sim;
    struct why why = { "" };
    struct ns_events ev = { .map = { .arg = m, .block_changed = block_changed }, .arg = m };
    struct repair_conf rc = { .streams = 4, .stale_ms = 5000 };
    struct repair_env env = {
        .get = master_get_block, .change = change, .forget = forget, .arg = m
    };
    struct members_conf mc = { .suspect_ms = SUSPECT_MS, .dead_ms = DEAD_MS, .report_ms = 30000 };
    MDB_txn *t;

    if (ns_open(m->dir, MAP_BYTES, &m->ns, &why) != 0) {
        sim_fail(s, "the master does not start again: %s", why.text);
    }
    ns_set_events(m->ns, &ev);
    ns_keep(m->ns, sim_below(s, 20));
    m->changed_count = 0;
    m->settling = false;
    if (ns_applied(m->ns) < m->trimmed) {
        sim_fail(s, "the database goes back to entry %ju, the log behind %ju",
                 (uintmax_t)ns_applied(m->ns), (uintmax_t)m->trimmed);
    }
    if (m->log_len > m->durable && sim_chance(s, 0.5)) { /* did the last write reach the disk? */
        free(m->log[--m->log_len].p);
    }
    m->durable = m->log_len;
    for (uint64_t i = ns_applied(m->ns) + 1; i <= m->log_len; i++) {
        apply_one(m, i);
    }
    master_settle(m);
    m->reader = ns_reader_new(m->ns);
    m->epoch++;
    members_init(&m->members, &mc, master_now_ms(m));
    strays_init(&m->strays);
    rng_init(&m->rng, sim_rand(s));
    m->session_count = 0;
    sim_up(s, SIM_MASTER, master_receive, m);
    m->repair = repair_new(&rc, &env, &m->members, m->epoch, sim_rand(s));
    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    ASSERT(mapdb_each_server(ns_map(m->ns), t, load_server, m) == 0);
    mapdb_each_block(ns_map(m->ns), t, 0, look_one, m);
    mdb_txn_abort(t);
    ASSERT(ns_each_session(m->reader, load_session, m) == 0);
    if (m->log_len == 0) {
        struct cmd *c = master_submit(m, FROM_TASK, RPC_ns_init);

        ns_init_req_put(&c->msg, &(struct ns_init_req){ .cluster = slice_str("simulated cluste") });
    }
    sim_after(s, SIM_MASTER, 200 * SIM_MS, tick, m, 0);
}

static void forget_memory(struct sim_master *m)
{
    for (size_t i = 0; i < m->gathering_count; i++) {
        cmd_free(m->gathering[i]);
    }
    for (size_t i = 0; i < m->flying_count; i++) {
        cmd_free(m->flying[i]);
    }
    m->gathering_count = m->flying_count = 0;
    ns_reader_free(m->reader);
    ns_close(m->ns);
    repair_free(m->repair);
    strays_fini(&m->strays);
    members_fini(&m->members);
    m->repair = NULL;
    m->reader = NULL;
    m->ns = NULL;
}

void master_crash(struct sim_master *m)
{
    sim_crash(&m->cl->sim, SIM_MASTER);
    forget_memory(m);
}

void master_free(struct sim_master *m)
{
    if (m->ns != NULL) {
        forget_memory(m);
    }
    for (uint64_t i = 0; i < m->log_len; i++) {
        free(m->log[i].p);
    }
    free(m->dir);
    free(m);
}

struct whole {
    struct sim_master *m;
    char *why;
    size_t cap;
    bool ok;
};

static bool check_block(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct whole *w = arg;
    struct cluster *cl = w->m->cl;
    uint8_t good = 0;

    if (rec->state != BLOCK_SEALED) {
        return true;
    }
    for (uint8_t i = 0; i < rec->node_count; i++) {
        struct sim_replica *r = server_find(&cl->servers[rec->nodes[i]], block);

        if (cl->sim.nodes[server_node(rec->nodes[i])].up && r != NULL &&
            r->rule.state == RULE_SEALED && r->rule.len == rec->len) {
            good++;
        }
    }
    if (good != block_rec_want(rec)) {
        w->ok = false;
        snprintf(w->why, w->cap, "block %ju (%u bytes) has %u good copies of %u recorded, wants %u",
                 (uintmax_t)block, rec->len, good, rec->node_count, block_rec_want(rec));
    }
    return w->ok;
}

bool master_converged(struct sim_master *m, char *ret_why, size_t cap)
{
    struct whole w = { .m = m, .why = ret_why, .cap = cap, .ok = true };
    MDB_txn *t;

    master_settle(m);
    if (kv_read_begin(ns_kv(m->ns), &t) != 0) {
        return false;
    }
    mapdb_each_block(ns_map(m->ns), t, 0, check_block, &w);
    mdb_txn_abort(t);
    for (uint32_t i = 1; w.ok && i <= SIM_SERVERS; i++) { /* nothing on disk that nobody knows */
        for (struct sim_replica *r = m->cl->servers[i].replicas; w.ok && r != NULL; r = r->next) {
            struct block_rec rec;
            bool listed = false;

            if (master_get_block(m, r->block, &rec) == 0) {
                for (uint8_t k = 0; k < rec.node_count; k++) {
                    listed = listed || rec.nodes[k] == i;
                }
            }
            if (!listed) {
                w.ok = false;
                snprintf(ret_why, cap, "server %u has a stray copy of block %ju", i,
                         (uintmax_t)r->block);
            }
        }
    }
    return w.ok;
}
