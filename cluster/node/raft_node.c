#include "cluster/node/raft_node.h"

#include <netdb.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdatomic.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/list.h"
#include "cluster/base/log.h"
#include "cluster/node/raft_boot.h"
#include "cluster/node/raft_guard.h"
#include "cluster/node/raft_reached.h"

#define SEGMENT_BYTES    (8 * MIB)
#define SNAPSHOT_ENTRIES 16384
#define SNAPSHOT_BYTES   (8 * MIB)
#define PENDING_BYTES    (32 * MIB)
#define TRAILING_BYTES   (2 * MIB) /* kept behind a snapshot, for followers that lag a little */
#define TRAILING_ENTRIES 1024
#define HEARTBEAT_MS     50
#define ELECTION_MS      300
#define STOP_MS          5000
#define WORTH_ENTRIES    1000 /* replay of less is not worth a checkpoint at the stop */
#define WORTH_BYTES      MIB

static const char magic[8] = { 'd', 'f', 's', 's', 'n', 'a', 'p', '1' };

/* What raft stores as the snapshot. */
struct reference {
    char magic[8];
    uint64_t applied;
};

struct submission {
    struct raft_apply req;
    struct list list;
    struct raft_node *node;
    raft_node_done *done;
    void *arg;
};

struct raft_node {
    struct raft_guard guard; /* raft.data points at it */
    struct raft raft;
    struct raft_io io;
    struct raft_uv_transport transport;
    struct raft_fsm raft_fsm;
    struct raft_node_fsm fsm;
    int (*append)(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
                  unsigned n, raft_io_append_cb cb);
    uv_loop_t *loop;
    char *dir;
    struct raft_reached reached;
    struct list submitted;
    unsigned snapshot_entries;
    uint64_t snapshot_bytes;
    uint64_t entries; /* applied since the last snapshot began */
    uint64_t bytes;
    uint64_t snapshot_index;
    bool snapshotting;
    atomic_bool sync_failed;
    struct why why; /* of the checkpoint's sync, and of a refused snapshot */
    bool starting;
    bool failed;
    struct raft_barrier last;
    uv_timer_t stop_timer;
    uint64_t stop_at;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static struct raft_node *node_of(struct raft_fsm *fsm)
{
    return fsm->data;
}

static void fail(struct raft_node *n, int err, const char *what, const char *text)
{
    char line[600];

    if (n->failed) {
        return;
    }
    n->failed = true;
    if (n->starting) {
        why_set(&n->why, err, "%s: %s", what, text);
        return;
    }
    snprintf(line, sizeof(line), "%s: %s: %s", n->dir, what, text);
    n->fsm.failed(n->fsm.arg, err, line);
}

/* ---- the state machine's side ---- */

static struct submission *find_submission(struct raft_node *n, uint64_t index)
{
    LIST_FOREACH (l, &n->submitted) {
        struct submission *s = CONTAINER_OF(l, struct submission, list);

        if (s->req.index == index) {
            return s;
        }
    }
    return NULL;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct raft_node *n = node_of(fsm);
    uint64_t index = raft_last_applied(&n->raft) + 1;
    struct submission *s = find_submission(n, index);
    struct why why = { "" };
    int err;

    *result = NULL;
    if (n->failed) {
        return RAFT_IOERR;
    }
    err = n->fsm.apply(n->fsm.arg, index, slice_of(buf->base, buf->len), s != NULL ? s->arg : NULL,
                       &why);
    if (err != DFS_OK) {
        fail(n, err, "cannot apply the log", why.text[0] != '\0' ? why.text : err_text(err));
        return RAFT_IOERR;
    }
    raft_reached_set(&n->reached, index);
    n->entries++;
    n->bytes += buf->len;
    if (n->bytes >= n->snapshot_bytes ||
        (n->fsm.pending != NULL && n->fsm.pending(n->fsm.arg) >= PENDING_BYTES)) {
        raft_set_snapshot_threshold(&n->raft, 1);
    }
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_node *n = node_of(fsm);
    uint64_t each = n->bytes / MAX(n->entries, 1) + 1;
    struct why why = { "" };
    int err;

    if (n->failed) {
        return RAFT_BUSY;
    }
    err = n->fsm.checkpoint_begin(n->fsm.arg, &why);
    if (err != DFS_OK) {
        fail(n, err, "cannot begin a checkpoint", why.text);
        return RAFT_IOERR;
    }
    n->snapshot_index = n->fsm.applied(n->fsm.arg);
    raft_set_snapshot_trailing(&n->raft,
                               (unsigned)MIN(TRAILING_BYTES / each + 1, TRAILING_ENTRIES));
    n->entries = n->bytes = 0;
    n->snapshotting = true;
    *bufs = NULL;
    *n_bufs = 0;
    return 0;
}

/* On a thread of the pool. */
static int fsm_snapshot_async(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_node *n = node_of(fsm);
    struct reference ref = { .applied = n->snapshot_index };
    int err = n->fsm.checkpoint_sync(n->fsm.arg, &n->why);

    if (err != DFS_OK) {
        atomic_store(&n->sync_failed, true);
        return RAFT_IOERR;
    }
    memcpy(ref.magic, magic, sizeof(magic));
    *bufs = raft_malloc(sizeof(**bufs));
    (*bufs)[0] = (struct raft_buffer){ .base = raft_malloc(sizeof(ref)), .len = sizeof(ref) };
    memcpy((*bufs)[0].base, &ref, sizeof(ref));
    *n_bufs = 1;
    return 0;
}

static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_node *n = node_of(fsm);

    if (*bufs != NULL) {
        raft_free((*bufs)[0].base);
        raft_free(*bufs);
    }
    *bufs = NULL;
    *n_bufs = 0;
    n->snapshotting = false;
    n->fsm.checkpoint_end(n->fsm.arg);
    raft_set_snapshot_threshold(&n->raft, n->snapshot_entries); /* until the next entry says more */
    if (atomic_load(&n->sync_failed)) {
        fail(n, DFS_EIO, "cannot write a checkpoint", n->why.text);
    }
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct raft_node *n = node_of(fsm);
    struct reference ref;

    if (buf->len != sizeof(ref) || memcmp(buf->base, magic, sizeof(magic)) != 0) {
        why_set(&n->why, DFS_EDAMAGED, "the log's snapshot is damaged");
        return RAFT_CORRUPT;
    }
    memcpy(&ref, buf->base, sizeof(ref));
    if (n->fsm.applied(n->fsm.arg) < ref.applied) {
        why_set(&n->why, DFS_EDAMAGED,
                "the database ends at entry %" PRIu64 ", but the log begins behind entry %" PRIu64
                ": the database is older than its log",
                n->fsm.applied(n->fsm.arg), ref.applied);
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    return 0;
}

/* ---- the log's writes ---- */

struct append {
    struct raft_io_append req;
    struct raft_io_append *raft_req;
    raft_io_append_cb raft_cb;
    struct raft_node *node;
};

static void write_failed(struct raft_node *n, int rc)
{
    const char *text = n->io.errmsg[0] != '\0' ? n->io.errmsg : raft_strerror(rc);

    fail(n, rc == RAFT_NOSPACE ? DFS_ENOSPC : DFS_EIO, "cannot write the log", text);
}

static void on_written(struct raft_io_append *req, int status)
{
    struct append *a = req->data;

    /* libraft tells the submitter of a command, nobody for other entries. */
    if (status != 0 && status != RAFT_CANCELED) {
        write_failed(a->node, status);
    }
    a->raft_cb(a->raft_req, status);
    free(a);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned count, raft_io_append_cb cb)
{
    struct raft *r = io->data;
    struct raft_node *n = CONTAINER_OF(r, struct raft_node, raft);
    struct append *a;
    int rc = FAULT("raft.append.write") != 0 ? RAFT_IOERR : 0;

    if (rc == 0) {
        a = x_alloc(sizeof(*a));
        *a = (struct append){ .raft_req = req, .raft_cb = cb, .node = n };
        a->req.data = a;
        rc = n->append(io, &a->req, entries, count, on_written);
        if (rc == 0) {
            return 0;
        }
        free(a);
    }
    write_failed(n, rc);
    return rc;
}

/* ---- submitting ---- */

static void answer(struct submission *s, int status)
{
    list_remove(&s->list);
    s->done(s->arg, status);
    free(s);
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    struct submission *s = req->data;
    struct raft_node *n = s->node;

    (void)result;
    if (status == 0) {
        answer(s, DFS_OK);
        return;
    }
    answer(s, n->failed ? DFS_EIO : DFS_ENOTLEADER);
}

void raft_node_submit(struct raft_node *n, struct wire_out *entry, raft_node_done *done, void *arg)
{
    static const uint8_t zeros[8];
    struct raft_buffer buf;
    struct submission *s;
    int rc;

    wire_put_raw(entry, zeros, (8 - entry->len % 8) % 8); /* libraft wants multiples of 8 */
    ASSERT(entry->err == 0);
    buf = (struct raft_buffer){ .base = entry->p, .len = entry->len };
    *entry = (struct wire_out){ .max = entry->max };
    if (n->failed || n->stopped != NULL || !n->guard.leading) {
        raft_free(buf.base);
        done(arg, n->failed ? DFS_EIO : DFS_ENOTLEADER);
        return;
    }
    s = x_alloc(sizeof(*s));
    s->node = n;
    s->done = done;
    s->arg = arg;
    s->req.data = s;
    list_init(&s->list);
    list_push_back(&n->submitted, &s->list);
    rc = raft_apply(&n->raft, &s->req, &buf, 1, on_applied);
    if (rc != 0) {
        raft_free(buf.base);
        on_applied(&s->req, rc, NULL);
    }
}

uint64_t raft_node_epoch(const struct raft_node *n)
{
    return n->guard.index; /* its barrier's: a lead with an entry of its own at a higher index */
}

static void on_leads(void *arg, bool leads)
{
    struct raft_node *n = arg;

    n->fsm.leads(n->fsm.arg, leads);
}

/* ---- start ---- */

static void node_free(struct raft_node *n)
{
    raft_uv_close(&n->io);
    raft_uv_tcp_close(&n->transport);
    raft_reached_close(&n->reached);
    free(n->dir);
    free(n);
}

static void configure(struct raft_node *n, const struct raft_node_conf *conf)
{
    n->snapshot_entries =
        (unsigned)(conf->snapshot_entries != 0 ? conf->snapshot_entries : SNAPSHOT_ENTRIES);
    n->snapshot_bytes = conf->snapshot_bytes != 0 ? conf->snapshot_bytes : SNAPSHOT_BYTES;
    raft_uv_set_auto_recovery(&n->io, false); /* never drop a damaged tail by itself */
    raft_uv_set_segment_size(&n->io,
                             conf->segment_bytes != 0 ? conf->segment_bytes : SEGMENT_BYTES);
    raft_uv_set_connect_retry_delay(&n->io, HEARTBEAT_MS);
    raft_set_heartbeat_timeout(&n->raft, HEARTBEAT_MS);
    raft_set_election_timeout(&n->raft, ELECTION_MS);
    raft_set_pre_vote(&n->raft, true);
    raft_set_snapshot_threshold(&n->raft, n->snapshot_entries);
    n->guard.leads = on_leads;
    n->guard.arg = n;
    raft_guard_install(&n->guard, &n->raft);
    n->append = n->io.append;
    n->io.append = io_append;
}

/* libraft trusts its peers: lengths, addresses and terms are taken as they come. */
static int listen_to_nobody(struct raft_uv_transport *transport, raft_uv_accept_cb cb)
{
    (void)transport;
    (void)cb;
    return 0;
}

/* The ports are looked at here: libraft reports one in use without words. */
static int open_transport(struct raft_node *n, const char *bind, struct why *why)
{
    char numeric[NI_MAXHOST + 8];
    int err = bind != NULL ? raft_boot_resolve(bind, numeric, sizeof(numeric), why) : DFS_OK;

    err = err != DFS_OK || bind == NULL ? err : raft_boot_probe(numeric, why);
    if (err == DFS_OK && raft_uv_tcp_init(&n->transport, n->loop) != 0) {
        err = DFS_ENOMEM;
    }
    if (err == DFS_OK && bind == NULL) {
        n->transport.listen = listen_to_nobody;
    } else if (err == DFS_OK && raft_uv_tcp_set_bind_address(&n->transport, numeric) != 0) {
        err = DFS_EINVAL;
    }
    return err;
}

/* Replays what this node alone can know to be committed. */
static int open_log(struct raft_node *n, struct why *why)
{
    int rc = raft_start(&n->raft);

    if (n->why.text[0] != '\0') { /* the snapshot was refused, or an entry */
        return why_set(why, DFS_EDAMAGED, "%s: %s", n->dir, n->why.text);
    }
    if (rc != 0) {
        return raft_boot_failed(n->dir, rc, raft_errmsg(&n->raft), why);
    }
    if (raft_last_index(&n->raft) == 0 || raft_last_index(&n->raft) < n->fsm.applied(n->fsm.arg)) {
        return why_set(why, DFS_EDAMAGED,
                       "%s: the log ends at entry %llu, but the database holds %" PRIu64, n->dir,
                       raft_last_index(&n->raft), n->fsm.applied(n->fsm.arg));
    }
    return DFS_OK;
}

int raft_node_start(uv_loop_t *loop, const struct raft_node_conf *conf,
                    const struct raft_node_fsm *fsm, struct raft_node **ret, struct why *why)
{
    struct raft_node *n = x_alloc(sizeof(*n));
    char address[NI_MAXHOST + 8];
    int rc, err;

    n->fsm = *fsm;
    n->loop = loop;
    n->starting = true;
    n->reached.fd = -1;
    n->dir = x_strdup(conf->dir);
    list_init(&n->submitted);
    n->raft_fsm = (struct raft_fsm){ .version = 3,
                                     .data = n,
                                     .apply = fsm_apply,
                                     .snapshot = fsm_snapshot,
                                     .restore = fsm_restore,
                                     .snapshot_finalize = fsm_snapshot_finalize,
                                     .snapshot_async = fsm_snapshot_async };
    err = raft_boot_resolve(conf->address, address, sizeof(address), why);
    err = err != DFS_OK ? err : open_transport(n, conf->bind, why);
    err = err != DFS_OK ? err
                        : raft_boot_prepare(n->dir, conf->id, address,
                                            conf->exists || fsm->applied(fsm->arg) != 0, why);
    err = err != DFS_OK ? err : raft_reached_open(&n->reached, n->dir, why);
    if (err != DFS_OK) {
        goto fail;
    }
    rc = raft_uv_init(&n->io, loop, n->dir, &n->transport);
    n->io.version = 2; /* it has async_work, but 0.15 calls itself 1 */
    rc = rc != 0 ? rc : raft_init(&n->raft, &n->io, &n->raft_fsm, conf->id, address);
    if (rc != 0) {
        err = raft_boot_failed(n->dir, rc, n->io.errmsg, why);
        node_free(n);
        return err;
    }
    configure(n, conf);
    err = open_log(n, why);
    if (err != DFS_OK) {
        n->failed = true;
        raft_boot_close(&n->raft, loop);
        node_free(n);
        return err;
    }
    n->starting = false;
    *ret = n;
    raft_guard_look(&n->guard);
    return DFS_OK;
fail:
    if (n->transport.impl != NULL) {
        raft_uv_tcp_close(&n->transport);
    }
    raft_reached_close(&n->reached);
    free(n->dir);
    free(n);
    return err;
}

/* ---- stop ---- */

static void on_timer_closed(uv_handle_t *h)
{
    struct raft_node *n = h->data;
    void (*stopped)(void *) = n->stopped;
    void *arg = n->stopped_arg;

    node_free(n);
    stopped(arg);
}

static void on_closed(struct raft *raft)
{
    struct raft_node *n = CONTAINER_OF(raft, struct raft_node, raft);

    uv_close((uv_handle_t *)&n->stop_timer, on_timer_closed);
}

static void on_stop_timer(uv_timer_t *t)
{
    struct raft_node *n = t->data;

    /* libraft cannot be closed under a running snapshot: one that takes too long is left alone. */
    if ((n->snapshotting || !list_empty(&n->submitted)) && uv_now(n->loop) < n->stop_at) {
        return;
    }
    uv_timer_stop(t);
    if (n->snapshotting) {
        log_event(LOG_WARN, "raft.stop", "dir=%s err=\"checkpoint unfinished\"", n->dir);
        n->stopped(n->stopped_arg);
        return;
    }
    raft_close(&n->raft, on_closed);
}

static void on_last(struct raft_barrier *b, int status)
{
    (void)b;
    (void)status;
}

void raft_node_stop(struct raft_node *n, void (*stopped)(void *arg), void *arg)
{
    n->stopped = stopped;
    n->stopped_arg = arg;
    n->stop_at = uv_now(n->loop) + STOP_MS;
    uv_timer_init(n->loop, &n->stop_timer);
    n->stop_timer.data = n;
    if (!n->failed && n->guard.leading && !n->snapshotting &&
        (n->entries >= WORTH_ENTRIES || n->bytes >= WORTH_BYTES)) {
        raft_set_snapshot_threshold(&n->raft, 1); /* looked at after the barrier */
        if (raft_barrier(&n->raft, &n->last, on_last) == 0) {
            n->snapshotting = true;
        }
    }
    uv_timer_start(&n->stop_timer, on_stop_timer, 1, 10);
}
