/* Start: identity, volumes and scan; the port; registration, tried until a master takes it; then
 * serving, orders and heartbeats. A clean stop says goodbye, ends the connections, syncs and closes.
 *
 * What goes wrong while it runs:
 *   a master forgets it (restart)     HEARTBEAT_REGISTER: it registers again and reports when asked
 *   no master answers                 before it can count as dead it begins no new writes: they
 *                                     would land on a server whose blocks are being copied elsewhere
 *   a volume fails                    its replicas vanish from the reports; the rest goes on
 */
#include "fs/role/block_server.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "cluster/base/addr.h"
#include "cluster/base/clock.h"
#include "cluster/base/daemon.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/log.h"
#include "cluster/base/rng.h"
#include "cluster/net/metrics_http.h"

#include "fs/role/block_chores.h"
#include "fs/role/block_master.h"
#include "fs/role/role_metrics.h"

#define RETRY_MS            500u
#define COMPLAIN_MS         10000u
#define SOONER_MS           100u /* a heartbeat that has results to tell, or that the masters wait for */
#define HOST_NAME_MAX_BYTES 256

struct role {
    const struct conf *conf;
    int signals;
    struct store *store;
    struct blk_server *server;
    struct control_client *client;
    struct block_orders *orders;
    struct block_master master;
    struct block_metrics told;
    struct metrics_http *metrics;
    struct block_chores chores;
    char addr[ADDR_TEXT];
    char host[HOST_NAME_MAX_BYTES];
    pthread_t beat;
    bool beating;
    pthread_mutex_t mu;
    pthread_cond_t cv; /* monotonic clock */
    _Atomic bool stop;
    bool told_failed[LIMIT_VOLUMES]; /* of the heartbeat thread, as all below */
    bool silent;                     /* for so long that new writes are refused */
    bool report;
    bool soon; /* the masters wait for the next one */
    uint64_t answered_ms;
};

/* ---- orders ---- */

static int pace(void *arg, uint32_t bytes UNUSED)
{
    const struct role *r = arg;

    return atomic_load(&r->stop) ? DFS_ESHUTDOWN : 0;
}

static int seal(struct role *r, const struct block_order *o, uint32_t *ret_len)
{
    struct replica *replica;
    int err = store_get(r->store, o->block, &replica);

    if (err != 0) {
        return err;
    }
    err = replica_seal(replica, o->len);
    *ret_len = replica_look(replica).len;
    /* The masters may be about to count on it. */
    if (err == 0 && replica_is_damaged(replica)) {
        err = DFS_ECHECKSUM;
    }
    if (err == DFS_ECHECKSUM) {
        store_damaged(r->store, replica, err);
    }
    store_put(r->store, replica);
    return err;
}

static int carry_out(void *arg, const struct block_order *o, uint32_t *ret_len)
{
    struct role *r = arg;
    struct blk_copy copy = { .block = o->block,
                             .len = o->len,
                             .addr = o->addr,
                             .node = o->node,
                             .label = o->label,
                             .pace = pace,
                             .arg = r };
    int err = 0;

    /* The threads are few: one disk must not take them all. The master asks again. */
    if (store_hangs(r->store, o->block)) {
        return DFS_EBUSY;
    }
    switch (o->kind) {
    case ORDER_COPY:
        err = blk_server_copy(r->server, &copy);
        metric_add(err == 0 ? METRIC_copies : METRIC_copies_failed, 1);
        break;
    case ORDER_DELETE:
        err = store_delete(r->store, o->block);
        break;
    case ORDER_SEAL:
        err = seal(r, o, ret_len);
        break;
    default:
        err = DFS_EUNKNOWNRPC;
        break;
    }
    log_event(err == 0 ? LOG_DEBUG : LOG_WARN, "block.order",
              "order=%" PRIu64 " kind=%d block=%" PRIu64 " node=%" PRIu32 " err=\"%s\"", o->id,
              (int)o->kind, o->block, o->node, err_text(err));
    return err;
}

static void order_done(void *arg)
{
    struct role *r = arg;

    pthread_mutex_lock(&r->mu);
    pthread_cond_signal(&r->cv);
    pthread_mutex_unlock(&r->mu);
}

/* ---- chores ---- */

static bool doubt(void *arg, uint64_t block)
{
    struct role *r = arg;

    return scrubber_check(r->chores.scrubber, block);
}

static bool serving(void *arg)
{
    struct role *r = arg;
    struct blk_stats stats;

    blk_server_stats(r->server, &stats);
    return stats.readers + stats.writers != 0;
}

static int start_chores(struct role *r, struct why *why)
{
    struct scrubber_conf sc = {
        .store = r->store,
        .period_ms = r->conf->scrub_period,
        .ceiling = r->conf->scrub_rate,
        .busy = serving,
        .arg = r,
    };

    r->chores = (struct block_chores){ .master = &r->master,
                                       .scrubber = scrubber_start(&sc),
                                       .compact = block_compact_start(r->server) };
    return r->chores.scrubber != NULL && r->chores.compact != NULL
               ? 0
               : why_set(why, DFS_ENOMEM, "cannot start a thread");
}

/* ---- heartbeats ---- */

/* Logs a volume's failure once, and has the master compare what is left. */
static void look_at_volumes(struct role *r)
{
    struct store_volume *v = x_alloc(sizeof(*v) * LIMIT_VOLUMES);
    size_t n = store_volumes(r->store, v);

    for (size_t i = 0; i < n; i++) {
        if (v[i].state == VOLUME_FAILED && !r->told_failed[v[i].slot]) {
            r->told_failed[v[i].slot] = true;
            r->report = true;
            store_report_lost(r->store, v[i].slot);
            log_event(LOG_ERROR, "volume.failed", "path=\"%s\" err=\"%s\"", v[i].path,
                      v[i].failure.text);
        }
    }
    free(v);
}

/* Silence after which new writes are refused: well before the masters count it as dead. */
static uint64_t fence_after(const struct role *r)
{
    return r->master.dead_ms - r->master.dead_ms / 4;
}

/* A master answered what was sent then, so that it knows of this server since then at least. */
static void answered(struct role *r, uint64_t sent_ms)
{
    r->answered_ms = sent_ms;
    atomic_store(&r->told.registered, true);
    blk_server_fence(r->server, sent_ms + fence_after(r));
    if (r->silent) {
        r->silent = false;
        log_event(LOG_INFO, "block.unfenced", "node=%" PRIu32, r->master.node);
    }
}

static void not_answered(struct role *r, int err)
{
    uint64_t silent = clock_mono_ms() - r->answered_ms;

    atomic_store(&r->told.registered, false);
    log_event(LOG_DEBUG, "block.heartbeat", "err=\"%s\"", err_text(err));
    if (!r->silent && silent >= fence_after(r) && !atomic_load(&r->stop)) {
        r->silent = true;
        log_event(LOG_WARN, "block.fenced", "silent_ms=%" PRIu64 " err=\"%s\"", silent,
                  err_text(err));
    }
}

/* Between the messages of a report: the heartbeat that is due. */
static int beat_meanwhile(void *arg)
{
    struct role *r = arg;
    uint64_t sent = clock_mono_ms();
    uint8_t flags = 0;
    int err;

    if (atomic_load(&r->stop)) {
        return DFS_ESHUTDOWN;
    }
    if (sent - r->answered_ms < r->master.heartbeat_ms) {
        return 0;
    }
    err = block_master_heartbeat(&r->master, &flags);
    if (err == 0 && (flags & HEARTBEAT_REGISTER) != 0) {
        return DFS_ENOENT; /* told again with the next one */
    }
    if (err != 0) {
        not_answered(r, err);
    } else {
        answered(r, sent);
    }
    return err;
}

static void beat_once(struct role *r)
{
    uint64_t sent = clock_mono_ms();
    struct why why;
    uint8_t flags = 0;
    int err;

    look_at_volumes(r);
    err = block_master_heartbeat(&r->master, &flags);
    if (err == 0 && (flags & HEARTBEAT_REGISTER) != 0) {
        sent = clock_mono_ms();
        err = block_master_register(&r->master, &why);
        store_tell_damaged(r->store);
        log_event(err == 0 ? LOG_INFO : LOG_WARN, "block.registered_again",
                  "node=%" PRIu32 " err=\"%s\"", r->master.node, err_text(err));
    }
    r->soon = err == 0 && (flags & HEARTBEAT_SOON) != 0;
    if (err != 0) {
        not_answered(r, err);
        return;
    }
    answered(r, sent);
    r->report = r->report || (flags & HEARTBEAT_REPORT) != 0;
    if (r->report && (flags & HEARTBEAT_REGISTER) == 0) {
        r->report = block_master_report(&r->master, beat_meanwhile, r) != 0;
    }
    scrubber_look(r->chores.scrubber);
    if ((flags & HEARTBEAT_REGISTER) == 0) {
        (void)!block_chores_tell(&r->chores); /* again with the next heartbeat */
    }
}

/* Until the next heartbeat is due: sooner when there are results or orders, so that a repair does not
 * go at the pace of the heartbeats. */
static void wait_beat(struct role *r, uint64_t sent_ms)
{
    pthread_mutex_lock(&r->mu);
    while (!atomic_load(&r->stop)) {
        uint64_t pause = r->master.heartbeat_ms;
        struct timespec t;
        uint64_t at;

        if (r->soon || block_orders_has_done(r->orders)) {
            pause = MIN(pause, SOONER_MS);
        }
        at = sent_ms + pause;
        if (clock_mono_ms() >= at) {
            break;
        }
        t = (struct timespec){ .tv_sec = (time_t)(at / 1000),
                               .tv_nsec = (long)(at % 1000 * NS_PER_MS) };
        pthread_cond_timedwait(&r->cv, &r->mu, &t);
    }
    pthread_mutex_unlock(&r->mu);
}

static void *beat_run(void *arg)
{
    struct role *r = arg;

    while (!atomic_load(&r->stop)) {
        uint64_t sent = clock_mono_ms();

        beat_once(r);
        wait_beat(r, sent);
    }
    return NULL;
}

/* ---- start and stop ---- */

static void log_found(const struct store_found *f)
{
    bool odd = f->shortened + f->damaged + f->duplicates + f->volumes_failed != 0;

    log_event(odd ? LOG_WARN : LOG_INFO, "store.opened",
              "replicas=%" PRIu64 " open=%" PRIu64 " removed=%" PRIu64 " cut=%" PRIu64
              " cut_bytes=%" PRIu64 " shortened=%" PRIu64 " damaged=%" PRIu64 " duplicates=%" PRIu64
              " volumes_failed=%" PRIu64,
              f->replicas, f->open, f->removed, f->cut, f->cut_bytes, f->shortened, f->damaged,
              f->duplicates, f->volumes_failed);
}

static int open_store(struct role *r, struct why *why)
{
    struct store_conf sc = {
        .dir = r->conf->block_data,
        .volumes = r->conf->block_volumes,
        .label = r->conf->block_label,
        .reserve = r->conf->block_reserve,
    };
    struct store_found found;
    int err = store_open(&sc, &r->store, &found, why);

    if (err == 0) {
        log_found(&found);
    }
    return err;
}

/* Takes the port, and makes the address that others are told. */
static int open_server(struct role *r, struct why *why)
{
    struct blk_server_conf bc = {
        .listen = r->conf->block_listen,
        .connections = r->conf->block_connections,
        .store = r->store,
        .doubt = doubt,
        .arg = r,
    };
    struct addr a;
    int err = blk_server_start(&bc, &r->server, why);

    if (err == 0) {
        err = addr_parse(r->conf->block_listen, &a, why);
    }
    if (err != 0) {
        why_prefix(why, "block.listen");
        return err;
    }
    if (gethostname(r->host, sizeof(r->host)) != 0) {
        snprintf(r->host, sizeof(r->host), "localhost");
    }
    r->host[sizeof(r->host) - 1] = '\0';
    a.port = blk_server_port(r->server);
    if (strcmp(a.host, "") == 0 || strcmp(a.host, "0.0.0.0") == 0 || strcmp(a.host, "::") == 0) {
        snprintf(a.host, sizeof(a.host), "%s", r->host);
    }
    if (*r->conf->block_host != '\0') {
        snprintf(r->host, sizeof(r->host), "%s", r->conf->block_host);
    }
    addr_format(&a, r->addr);
    return 0;
}

static int open_client(struct role *r, struct why *why)
{
    char *masters;
    int err = addr_masters(r->conf->masters, MASTER_CONTROL, &masters, why);

    if (err == 0) {
        err = control_client_open(masters, &r->client, why);
        free(masters);
    }
    if (err != 0) {
        why_prefix(why, "masters");
        return err;
    }
    r->master = (struct block_master){
        .client = r->client,
        .store = r->store,
        .server = r->server,
        .addr = r->addr,
        .host = r->host,
        .rack = r->conf->block_rack,
        .boot = rng_system_u64(),
    };
    return 0;
}

/* Tries until a master takes it or a signal comes: then *ret_stop. */
static int register_first(struct role *r, bool *ret_stop, struct why *why)
{
    uint64_t complained = 0;

    for (;;) {
        int err = block_master_register(&r->master, why);
        uint64_t now = clock_mono_ms();

        if (err == DFS_EWRONGCLUSTER || err == DFS_EVERSION) {
            why_prefix(why, "%s", r->conf->block_data);
        }
        if (err == 0 || err == DFS_EWRONGCLUSTER || err == DFS_EVERSION) {
            return err;
        }
        if (complained == 0 || now - complained >= COMPLAIN_MS) {
            complained = now;
            log_event(LOG_WARN, "block.not_registered", "masters=\"%s\" err=\"%s\"",
                      r->conf->masters, why->text);
        }
        if (daemon_wait(r->signals, RETRY_MS) == DAEMON_STOP) {
            *ret_stop = true;
            return 0;
        }
    }
}

static int start_threads(struct role *r, struct why *why)
{
    struct block_orders_conf oc = {
        .threads = (unsigned)r->conf->repair_streams,
        .fn = carry_out,
        .done = order_done,
        .arg = r,
    };

    r->orders = block_orders_start(&oc);
    r->master.orders = r->orders;
    answered(r, clock_mono_ms());
    if (r->orders == NULL || pthread_create(&r->beat, NULL, beat_run, r) != 0) {
        return why_set(why, DFS_ENOMEM, "cannot start a thread");
    }
    r->beating = true;
    return 0;
}

static int start(struct role *r, bool *ret_stop, struct why *why)
{
    int err = open_store(r, why);

    if (err == 0) {
        err = open_server(r, why);
    }
    if (err == 0) {
        err = open_client(r, why);
    }
    if (err == 0) {
        err = register_first(r, ret_stop, why);
    }
    if (err != 0 || *ret_stop) {
        return err;
    }
    err = store_adopt(r->store, r->master.cluster, r->master.node, why);
    if (err == 0) {
        err = start_chores(r, why);
    }
    if (err == 0) {
        err = blk_server_serve(r->server, r->master.cluster, r->master.node, why);
    }
    if (err == 0) {
        r->told.store = r->store;
        r->told.server = r->server;
        r->told.scrubber = r->chores.scrubber;
        err = metrics_http_start(r->conf->block_metrics, r->addr, 1, ROLE_BLOCK,
                                 block_metrics_collect, &r->told, &r->metrics, why);
        if (err != 0) {
            why_prefix(why, "block.metrics");
        }
    }
    if (err == 0) {
        err = start_threads(r, why);
    }
    if (err == 0) {
        log_event(LOG_INFO, "block.started", "node=%" PRIu32 " addr=%s host=\"%s\"", r->master.node,
                  r->addr, r->host);
    }
    return err;
}

static void stop(struct role *r)
{
    metrics_http_stop(r->metrics);
    atomic_store(&r->stop, true);
    pthread_mutex_lock(&r->mu);
    pthread_cond_signal(&r->cv);
    pthread_mutex_unlock(&r->mu);
    if (r->beating) {
        /* A heartbeat may be waiting for a master that does not answer. */
        block_master_bye(&r->master);
        control_client_stop(r->client);
        pthread_join(r->beat, NULL);
    }
    block_orders_stop(r->orders);
    control_client_close(r->client);
    block_compact_stop(r->chores.compact);
    scrubber_stop(r->chores.scrubber); /* it asks the server, and the server asks it */
    blk_server_stop(r->server);
    scrubber_free(r->chores.scrubber);
    store_close(r->store);
    io_close(r->signals);
}

int block_server_run(const struct conf *conf, struct why *why)
{
    struct role r = { .conf = conf };
    pthread_condattr_t attr;
    bool stopped = false;
    int err;

    pthread_mutex_init(&r.mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r.cv, &attr);
    pthread_condattr_destroy(&attr);
    r.signals = daemon_signals();
    (void)daemon_descriptors();
    err = start(&r, &stopped, why);
    while (err == 0 && !stopped) {
        stopped = daemon_wait(r.signals, -1) == DAEMON_STOP;
    }
    stop(&r);
    if (err == 0) {
        log_event(LOG_INFO, "block.stopped", "node=%" PRIu32, r.master.node);
    }
    pthread_cond_destroy(&r.cv);
    pthread_mutex_destroy(&r.mu);
    return err;
}
