/* Assembly: what is started in which order, and stopped in the reverse one.
 *
 * First what was logged is applied; then, once this node leads, the cluster's id is there (made at
 * the very first start) and servers and sessions are loaded; only then the ports are opened.
 */
#include "fs/role/master.h"

#include "cluster/base/addr.h"
#include "cluster/base/clock.h"
#include "cluster/base/daemon.h"
#include "cluster/base/io.h"
#include "cluster/base/log.h"

#include "fs/role/master_identity.h"
#include "fs/role/master_int.h"
#include "fs/role/role_metrics.h"

#define REPORT_MS  (10 * 60 * 1000) /* replicas are compared again after this time */
#define COPY_STALE (10 * 60 * 1000)
#define LOCAL_RAFT "127.0.0.1"

#define CONTROL_CONNECTIONS (LIMIT_BLOCK_SERVERS + 1024) /* each has one, operators some */

void master_stop(struct master *m, int err, const char *text)
{
    if (!m->stopping) {
        m->stopping = true;
        m->err = err;
        why_set(&m->why, err, "%s", text);
    }
    uv_stop(&m->core.loop);
}

void master_fail(struct master *m, int err, const char *text)
{
    atomic_store(&m->leads, false);
    master_stop(m, err, text);
}

/* ---- the log's side ---- */

static uint64_t fsm_applied(void *arg)
{
    struct master *m = arg;

    return ns_applied(m->ns);
}

static int fsm_checkpoint_begin(void *arg, struct why *why)
{
    struct master *m = arg;
    int err = master_keep_flush(m, why);

    return err != DFS_OK ? err : kv_checkpoint_begin(ns_kv(m->ns), why);
}

static int fsm_checkpoint_sync(void *arg, struct why *why)
{
    struct master *m = arg;

    return kv_checkpoint_sync(ns_kv(m->ns), why);
}

static void fsm_checkpoint_end(void *arg)
{
    struct master *m = arg;

    kv_checkpoint_end(ns_kv(m->ns));
}

static uint64_t fsm_pending(void *arg)
{
    struct master *m = arg;
    uint64_t bytes = 0;

    return kv_pending_bytes(ns_kv(m->ns), &bytes) == DFS_OK ? bytes : 0;
}

static void fsm_failed(void *arg, int err, const char *text)
{
    master_fail(arg, err, text);
}

/* ---- leading ---- */

static bool load_server(void *arg, uint32_t node, const struct server_rec *r)
{
    struct master *m = arg;
    uint64_t now = clock_mono_ms();

    if (members_load(&m->members, node, r, now) != DFS_OK) {
        return false;
    }
    members_intend(&m->members, node, r, master_now_ns(m), now);
    return true;
}

static bool load_session(void *arg, uint64_t session, struct slice host, struct slice name)
{
    struct master *m = arg;

    (void)host;
    (void)name;
    sessions_add(&m->sessions, session, clock_mono_ms());
    master_locks_session(m, session, false);
    return true;
}

static void load_rule(void *arg, uint16_t number, struct slice text)
{
    struct master *m = arg;

    repair_set_rule(m->repair, number, text);
}

/* What a leader keeps in memory, made anew; before anybody else runs. */
static int load(struct master *m)
{
    const struct members_conf mc = { .suspect_ms = m->conf->server_suspect_after,
                                     .dead_ms = m->conf->server_dead_after,
                                     .report_ms = REPORT_MS,
                                     .hung_ms = m->conf->server_hung_after };
    const struct repair_conf rc = { .streams = (uint32_t)m->conf->repair_streams,
                                    .stale_ms = COPY_STALE,
                                    .rate = m->conf->repair_rate };
    const struct balance_conf bc = { .threshold = (uint32_t)m->conf->balance_threshold,
                                     .rate = m->conf->balance_rate,
                                     .settle_ms = 3 * m->conf->heartbeat };
    const struct repair_env env = { master_keeper_env_get, master_keeper_env_change,
                                    master_keeper_env_forget, m };
    struct ns_reader *reader;
    MDB_txn *txn;
    int err;

    members_init(&m->members, &mc, clock_mono_ms());
    rng_init(&m->space_rng, rng_system_u64());
    scrub_book_init(&m->scrubs, (uint32_t)atomic_load(&m->epoch));
    m->repair =
        repair_new(&rc, &env, &m->members, (uint32_t)atomic_load(&m->epoch), rng_system_u64());
    balance_init(&m->balance, &bc, &m->members, m->repair);
    err = kv_read_begin(ns_kv(m->ns), &txn);
    if (err != DFS_OK) {
        return err;
    }
    err = mapdb_each_server(ns_map(m->ns), txn, load_server, m);
    mdb_txn_abort(txn);
    reader = ns_reader_new(m->ns);
    err = err != DFS_OK ? err : ns_each_session(reader, load_session, m);
    err = err != DFS_OK ? err : ns_each_rule(reader, load_rule, m);
    ns_reader_free(reader);
    return err;
}

/* "host:port" of one of the ports behind the clients'. */
static int port_of(const struct conf *conf, enum master_port which, const char *host,
                   char ret[ADDR_TEXT], struct why *why)
{
    struct addr a;
    int err = addr_parse(conf->master_listen, &a, why);

    if (err != DFS_OK) {
        return err;
    }
    if (a.port == 0 || a.port > UINT16_MAX - MASTER_RAFT) {
        return why_set(why, DFS_EINVAL, "master.listen: port %u: want one from 1 to %d", a.port,
                       UINT16_MAX - MASTER_RAFT);
    }
    a.port = (uint16_t)(a.port + which);
    if (host != NULL) {
        snprintf(a.host, sizeof(a.host), "%s", host);
    }
    addr_format(&a, ret);
    return DFS_OK;
}

/* A quarter of the descriptors stays for files: a log that cannot open its next one ends the master. */
static int open_ports(struct master *m, struct why *why)
{
    uint64_t files = daemon_descriptors();
    const struct rpc_server_conf rc = { .listen = m->conf->master_listen,
                                        .query_loops = (int)m->conf->query_threads,
                                        .on_query = master_query_on,
                                        .on_command = master_core_on_command,
                                        .on_woken = master_events_on_woken,
                                        .arg = m,
                                        .cluster = slice_of(m->cluster, sizeof(m->cluster)),
                                        .connections_max = (int)MIN(files / 2, LIMIT_CONNECTIONS) };
    struct control_server_conf cc = { .parallel = MASTER_CONTROL_THREADS,
                                      .connections_max =
                                          (unsigned)MIN(files / 4, CONTROL_CONNECTIONS),
                                      .fn = master_control_on,
                                      .arg = m };
    char control[ADDR_TEXT];
    int err = port_of(m->conf, MASTER_CONTROL, NULL, control, why);

    err = err != DFS_OK ? err : rpc_server_start(&rc, &m->rpc, why);
    if (err != DFS_OK) {
        return err;
    }
    master_core_serve(m);
    cc.listen = control;
    return control_server_start(&cc, &m->control, why);
}

/* What is here is what was here before. */
static int check_identity(struct master *m, struct why *why)
{
    uint8_t before[CLUSTER_ID_BYTES];
    bool exists = false;
    int err = master_identity_load(m->conf->master_data, &exists, before, why);

    if (err == DFS_OK && !exists) {
        return master_identity_store(m->conf->master_data, m->cluster, why);
    }
    if (err == DFS_OK && memcmp(before, m->cluster, sizeof(before)) != 0) {
        err = why_set(why, DFS_EDAMAGED, "%s: the database is of another cluster than %s/identity",
                      m->conf->master_data, m->conf->master_data);
    }
    return err;
}

static void serve(struct master *m)
{
    struct why why = { "" };
    int err = check_identity(m, &why);

    err = err != DFS_OK ? err : master_restored_note(m, &why);
    if (err != DFS_OK) {
        master_stop(m, err, why.text);
        return;
    }
    err = load(m);
    if (err != DFS_OK) {
        master_stop(m, err, "cannot read servers and sessions from the database");
        return;
    }
    atomic_store(&m->leads, true);
    master_keeper_start(m);
    err = open_ports(m, &why);
    if (err != DFS_OK) {
        master_stop(m, err, why.text);
        return;
    }
    err = metrics_http_start(m->conf->master_metrics, m->conf->master_listen, MASTER_METRICS,
                             ROLE_MASTER, master_metrics_collect, m, &m->metrics, &why);
    if (err != DFS_OK) {
        why_prefix(&why, "master.metrics");
        master_stop(m, err, why.text);
        return;
    }
    log_event(LOG_INFO, "master.ready", "listen=%s applied=%ju servers=%zu sessions=%zu",
              m->conf->master_listen, (uintmax_t)ns_applied(m->ns), m->members.count,
              m->sessions.by_id.count);
}

static void on_leapt(struct master_cmd *cmd, int status, struct slice reply)
{
    struct master *m = cmd->arg;

    (void)reply;
    wire_out_fini(&cmd->msg);
    free(cmd);
    if (status != DFS_OK) {
        master_stop(m, status, "ids could not go on behind those of a newer database");
        return;
    }
    log_event(LOG_WARN, "master.restored",
              "data=%s err=\"is a copy: ids go on behind those that the original gave\"",
              m->conf->master_data);
    serve(m);
}

static void leap_and_serve(struct master *m)
{
    struct master_cmd *cmd = x_alloc(sizeof(*cmd));

    cmd->type = RPC_ns_leap;
    cmd->done = on_leapt;
    cmd->arg = m;
    wire_out_init(&cmd->msg, KIB);
    master_restored_put(&cmd->msg, 0);
    master_core_submit(m, cmd);
}

static void on_initialised(struct master_cmd *cmd, int status, struct slice reply)
{
    struct master *m = cmd->arg;

    (void)reply;
    wire_out_fini(&cmd->msg);
    free(cmd);
    if (status != DFS_OK || !ns_cluster(m->ns, m->cluster)) {
        master_stop(m, status != DFS_OK ? status : DFS_EDAMAGED,
                    "the cluster's id could not be stored");
        return;
    }
    log_event(LOG_INFO, "master.created", "data=%s", m->conf->master_data);
    serve(m);
}

static void initialise(struct master *m)
{
    struct master_cmd *cmd = x_alloc(sizeof(*cmd));
    struct ns_init_req req = { .cluster = slice_of(m->cluster, sizeof(m->cluster)) };

    rng_system(m->cluster, sizeof(m->cluster));
    cmd->type = RPC_ns_init;
    cmd->done = on_initialised;
    cmd->arg = m;
    wire_out_init(&cmd->msg, KIB);
    ns_init_req_put(&cmd->msg, &req);
    master_core_submit(m, cmd);
}

static void start_empty(struct master *m)
{
    if (m->exists) {
        master_stop(m, DFS_EDAMAGED, "the log and the database are empty, though they were not");
    } else {
        initialise(m);
    }
}

static void fsm_leads(void *arg, bool leads)
{
    struct master *m = arg;
    struct why why = { "" };

    if (!leads) {
        master_fail(m, DFS_ENOTLEADER, "this master lost the lead");
    } else if (master_keep_flush(m, &why) != DFS_OK) { /* of the replay */
        master_fail(m, DFS_EIO, why.text);
    } else {
        atomic_store(&m->epoch, raft_node_epoch(m->node));
        if (!ns_cluster(m->ns, m->cluster)) {
            start_empty(m);
        } else if (master_restored_is_copy(m)) {
            leap_and_serve(m);
        } else {
            serve(m);
        }
    }
}

/* ---- start and stop ---- */

static int lock_data(struct master *m, struct why *why)
{
    char *path = x_printf("%s/lock", m->conf->master_data);
    int err = io_mkdir_p(m->conf->master_data, 0700, why);

    err = err != DFS_OK ? err : io_lock_file(path, &m->lock_fd, why);
    if (err == DFS_EBUSY) {
        why_set(why, err, "%s: in use by a running master", m->conf->master_data);
    }
    free(path);
    return err;
}

static int start_log(struct master *m, struct why *why)
{
    const struct raft_node_fsm fsm = { .apply = master_core_apply,
                                       .applied = fsm_applied,
                                       .checkpoint_begin = fsm_checkpoint_begin,
                                       .checkpoint_sync = fsm_checkpoint_sync,
                                       .checkpoint_end = fsm_checkpoint_end,
                                       .pending = fsm_pending,
                                       .leads = fsm_leads,
                                       .failed = fsm_failed,
                                       .arg = m };
    char *dir = x_printf("%s/log", m->conf->master_data);
    char address[ADDR_TEXT];
    /* One voter talks to itself only, and listens to nobody. */
    struct raft_node_conf conf = { .dir = dir, .id = 1, .exists = m->exists, .address = address };
    int err = port_of(m->conf, MASTER_RAFT, NULL, address, why);

    if (err == DFS_OK && address[0] == '[') { /* libraft 0.15 knows IPv4 only */
        err = port_of(m->conf, MASTER_RAFT, LOCAL_RAFT, address, why);
    }
    err = err != DFS_OK ? err : raft_node_start(&m->core.loop, &conf, &fsm, &m->node, why);
    free(dir);
    return err;
}

static void reload(struct master *m)
{
    struct conf *c = conf_new();
    struct why why = { "" };
    int err = m->conf_path != NULL ? conf_load(c, m->conf_path, &why) : DFS_OK;

    err = err != DFS_OK ? err : log_configure(c->log_level, &why);
    if (err != DFS_OK) {
        log_event(LOG_ERROR, "master.reload_failed", "err=\"%s\"", why.text);
    } else if (m->conf_path != NULL) {
        atomic_store(&m->replication, (unsigned int)c->replication);
        pthread_mutex_lock(&m->map_mu);
        if (m->repair != NULL) {
            repair_set_rate(m->repair, c->repair_rate);
            balance_set(&m->balance, (uint32_t)c->balance_threshold, c->balance_rate);
        }
        pthread_mutex_unlock(&m->map_mu);
        log_event(LOG_INFO, "master.reloaded", "replication=%ju repair_rate=%ju balance_rate=%ju",
                  (uintmax_t)c->replication, (uintmax_t)c->repair_rate, (uintmax_t)c->balance_rate);
    }
    conf_free(c);
}

static void on_signal(uv_poll_t *p, int status, int events)
{
    struct master *m = p->data;
    enum daemon_event e;

    (void)status;
    (void)events;
    while ((e = daemon_next(m->signal_fd)) != DAEMON_NONE) {
        if (e == DAEMON_STOP) {
            log_event(LOG_INFO, "master.stopping", "reason=signal");
            master_stop(m, DFS_OK, "");
        } else {
            reload(m);
        }
    }
}

static void on_raft_stopped(void *arg)
{
    struct master *m = arg;

    m->raft_stopped = true;
}

static void free_all(struct master *m)
{
    struct list *l;

    while ((l = list_pop_front(&m->scans)) != NULL) {
        free(CONTAINER_OF(l, struct node_scan, list));
    }
    repair_free(m->repair);
    members_fini(&m->members);
    scrub_book_fini(&m->scrubs);
    strays_fini(&m->strays);
    sessions_fini(&m->sessions);
    master_locks_fini(m);
    events_fini(&m->events);
    watches_free(m->watches);
    free(m->wishes.changes);
    free(m->wishes.forgets);
    master_query_fini(m);
    master_keeper_fini(m);
    master_space_fini(m);
    master_audit_fini(m);
    ns_close(m->ns);
    io_close(m->lock_fd);
    pthread_mutex_destroy(&m->map_mu);
    pthread_mutex_destroy(&m->sessions_mu);
}

/* Nobody is answered any more, then the threads end, then the log is closed. */
static void shut_down(struct master *m)
{
    struct core *c = &m->core;
    uint64_t until = uv_now(&c->loop) + 5000;

    metrics_http_stop(m->metrics);
    master_core_close(m);
    while (m->err == DFS_OK && c->in_flight != 0 && uv_now(&c->loop) < until) {
        uv_run(&c->loop, UV_RUN_ONCE);
    }
    master_core_abandon(m);
    control_server_stop(m->control);
    master_audit_stop(m);
    master_keeper_stop(m);
    if (m->serving) {
        uv_poll_stop(&c->clients);
    }
    events_close(&m->events);
    rpc_server_stop(m->rpc);
    m->rpc = NULL;
    if (m->node != NULL && m->err == DFS_OK) {
        raft_node_stop(m->node, on_raft_stopped, m);
        while (!m->raft_stopped) {
            uv_run(&c->loop, UV_RUN_ONCE);
        }
    }
}

static int start(struct master *m, struct why *why)
{
    char *db = x_printf("%s/db", m->conf->master_data);
    int err = lock_data(m, why);

    err = err != DFS_OK ? err
                        : master_identity_load(m->conf->master_data, &m->exists, m->cluster, why);
    err = err != DFS_OK ? err : ns_open(db, m->conf->metadata_max, &m->ns, why);
    free(db);
    if (err != DFS_OK) {
        return err;
    }
    master_query_init(m);
    master_core_init(m);
    uv_poll_init(&m->core.loop, &m->core.signals, m->signal_fd);
    m->core.signals.data = m;
    uv_poll_start(&m->core.signals, UV_READABLE, on_signal);
    return start_log(m, why);
}

/* What a failure leaves is no leak: it stays in reach. */
static struct master *volatile left;

int master_run(const struct conf *conf, const char *conf_path, struct why *why)
{
    struct master *m = x_alloc(sizeof(*m));
    int err;

    m->conf = conf;
    m->conf_path = conf_path;
    atomic_store(&m->replication, (unsigned int)conf->replication);
    m->lock_fd = -1;
    m->signal_fd = daemon_signals();
    pthread_mutex_init(&m->map_mu, NULL);
    pthread_mutex_init(&m->sessions_mu, NULL);
    list_init(&m->scans);
    strays_init(&m->strays);
    sessions_init(&m->sessions, conf->session_lease, clock_mono_ms());
    master_locks_init(m);
    events_init(&m->events, conf->session_lease / 3);
    m->watches = watches_new();
    master_keeper_init(m);
    master_space_init(m);
    master_room_init(m);
    master_audit_init(m);
    err = start(m, why);
    if (err == DFS_OK) {
        while (!m->stopping) {
            uv_run(&m->core.loop, UV_RUN_DEFAULT);
        }
        shut_down(m);
        err = m->err;
        if (err != DFS_OK && why != NULL) {
            *why = m->why;
        }
        log_event(err != DFS_OK ? LOG_ERROR : LOG_INFO, "master.stopped", "err=\"%s\"",
                  m->why.text);
    }
    if (err != DFS_OK) {
        left = m;
        return err; /* the process ends: what the log's library holds stays as it is */
    }
    uv_close((uv_handle_t *)&m->core.signals, NULL);
    master_core_fini(m);
    uv_loop_close(&m->core.loop);
    free_all(m);
    io_close(m->signal_fd);
    free(m);
    return DFS_OK;
}
