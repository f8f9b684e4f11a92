/* What the writing session's core asks for, done on real streams and masters. */
#include "cluster/base/base.h"

#include "cluster/base/log.h"

#include "fs/client/reader.h"
#include "fs/client/writer_int.h"

#define ACK_MS        10000 /* for one answer of a chain */
#define NOSERVER_MS   200   /* before the master is asked again */
#define CHAIN_MS      20    /* before another chain is tried */
#define LAST_WORDS_MS 1000  /* for the answers of a peer that has closed */
#define CONNECT_MS    1000
#define DOUBT_MS      600 /* for the answer of one copy, before it is asked whether its server hangs */

static size_t slot_of(const struct writer *w, uint64_t block)
{
    for (size_t i = 0; i < WCORE_LIVE; i++) {
        if (w->stream[i] != NULL && w->stream[i]->block == block) {
            return i;
        }
    }
    ASSERT(!"a stream of this writer");
    return 0;
}

static struct stream *take_stream_locked(struct writer *w, uint64_t block)
{
    size_t i = slot_of(w, block);
    struct stream *s = w->stream[i];

    w->stream[i] = NULL;
    w->stream_count--;
    return s;
}

static void put_stream_locked(struct writer *w, struct stream *s)
{
    for (size_t i = 0; i < WCORE_LIVE; i++) {
        if (w->stream[i] == NULL) {
            w->stream[i] = s;
            w->stream_count++;
            return;
        }
    }
    ASSERT(!"room for a stream");
}

struct stream *writer_detach_locked(struct node *n)
{
    struct writer *w = n->writer;
    const struct wcore_block *b = w != NULL ? wcore_open_block(&w->core) : NULL;

    if (b == NULL || b->sent != b->acked || b->control != 0) {
        return NULL;
    }
    struct stream *s = take_stream_locked(w, b->id);

    wcore_detach(&w->core);
    return s;
}

/* The buffer's bytes are no longer the newest place of any byte. */
static void undirty(struct extmap *dirty, const struct wbuf *b)
{
    for (uint32_t i = 0; i < b->piece_count; i++) {
        uint64_t pos = b->piece[i].off;
        uint64_t end = pos + b->piece[i].len;
        struct extent e;

        while (pos < end && extmap_find(dirty, pos, &e) && e.off < end) {
            uint64_t from = MAX(pos, e.off);
            uint64_t to = MIN(end, e.off + e.len);

            if (e.block == b->id) {
                extmap_punch(dirty, from, to - from);
            }
            pos = to;
        }
    }
}

void writer_retire_locked(struct node *n)
{
    struct writer *w = n->writer;
    struct wcore_packet p;

    while (wcore_retire(&w->core, &p)) {
        struct wbuf *b = w->buf[p.id % WRITER_BUFS];

        w->buf[p.id % WRITER_BUFS] = NULL;
        for (uint32_t i = 0; i < b->piece_count; i++) {
            struct extent e = { b->piece[i].off, b->piece[i].len, p.block, p.off + b->piece[i].at };

            extmap_insert(&n->map, &e);
            extmap_insert(&n->todo, &e);
        }
        undirty(&w->dirty, b);
        wbuf_free(n->c, b);
        node_count_locked(n);
    }
}

static void stream_failed(struct node *n, uint64_t block, uint32_t bad, int err)
{
    struct stream *s;

    pthread_mutex_lock(&n->mu);
    s = take_stream_locked(n->writer, block);
    wcore_failed(&n->writer->core, block, bad);
    pthread_mutex_unlock(&n->mu);
    if (bad != 0) {
        peers_mark_bad(n->c->peers, bad);
    }
    log_event(LOG_INFO, "client.stream", "block=%ju bad=%u err=%s", (uintmax_t)block, bad,
              err_name(err));
    stream_close(s);
}

/* ---- the actions ---- */

/* A new block, or why there is none. DFS_OK with *ret NULL: the core tries again. */
static int open_block(struct node *n, uint8_t kind, uint8_t want, uint16_t rule,
                      uint64_t deadline_ms, struct stream **ret)
{
    struct client *c = n->c;
    uint64_t block;
    uint32_t bad;
    int err = streams_open(c->streams, want, rule, kind, deadline_ms, ret, &block, &bad);

    if (err != 0 && block != 0) {
        pthread_mutex_lock(&n->mu);
        wcore_opened(&n->writer->core, block, 0, meta_block_size(c->meta));
        wcore_failed(&n->writer->core, block, bad);
        pthread_mutex_unlock(&n->mu);
        *ret = NULL;
        return pause_ms(CHAIN_MS, deadline_ms) ? DFS_OK : err;
    }
    if (err == DFS_ENOSERVERS && pause_ms(NOSERVER_MS, deadline_ms) &&
        clock_mono_ms() < deadline_ms) {
        *ret = NULL;
        return DFS_OK;
    }
    return err;
}

/* A stream that was opened ahead of time, if it is still good. */
static struct stream *take_prepared(struct client *c, struct writer *w)
{
    struct stream *s = w->prepared;

    w->prepared = NULL;
    if (s != NULL && peers_known_hung(c->peers, s->chain, s->chain_count)) {
        streams_end(c->streams, s, s->off);
        s = NULL;
    }
    return s;
}

static int step_alloc(struct node *n, const struct wcore_action *a, uint64_t deadline_ms)
{
    struct client *c = n->c;
    struct writer *w = n->writer;
    struct stream *s = NULL;
    bool streaming;
    uint8_t want;
    uint16_t rule;
    int err = DFS_OK;

    pthread_mutex_lock(&n->mu);
    want = n->attr.repl;
    rule = n->attr.storage;
    streaming = w->streaming;
    pthread_mutex_unlock(&n->mu);
    if (streaming) {
        s = take_prepared(c, w);
    } else {
        s = streams_take(c->streams, want, rule, a->len);
    }
    if (s == NULL) {
        err = open_block(n, streaming ? BLOCK_STREAM : BLOCK_PACK, want, rule, deadline_ms, &s);
    }
    if (err != 0 || s == NULL) {
        return err;
    }
    pthread_mutex_lock(&n->mu);
    wcore_opened(&w->core, s->block, s->off, s->limit);
    put_stream_locked(w, s);
    pthread_mutex_unlock(&n->mu);
    return DFS_OK;
}

static int step_await(struct node *n, uint64_t block, uint64_t deadline_ms)
{
    struct writer *w = n->writer;
    struct stream *s = w->stream[slot_of(w, block)];
    struct stream *done = NULL;
    uint32_t end = 0;
    uint32_t bad;
    int err = stream_recv(s, MIN(deadline_ms, clock_mono_ms() + ACK_MS), &end, &bad);

    if (err == 0) {
        pthread_mutex_lock(&n->mu);
        err = wcore_answered(&w->core, block, end);
        if (err == 0) {
            bool live = false;

            writer_retire_locked(n);
            for (size_t i = 0; i < w->core.live_count; i++) {
                live = live || w->core.live[i].id == block;
            }
            done = live ? NULL : take_stream_locked(w, block);
        }
        pthread_mutex_unlock(&n->mu);
    }
    if (err != 0) {
        stream_failed(n, block, bad, err);
    }
    if (done != NULL) {
        streams_end(n->c->streams, done, end);
    }
    return DFS_OK;
}

static bool attached(const struct node *n, uint64_t block)
{
    for (size_t i = 0; i < WCORE_LIVE; i++) {
        if (n->writer->stream[i] != NULL && n->writer->stream[i]->block == block) {
            return true;
        }
    }
    return false;
}

static int step_send(struct node *n, const struct wcore_action *a, uint64_t deadline_ms)
{
    struct writer *w = n->writer;
    struct stream *s = w->stream[slot_of(w, a->block)];
    const struct wbuf *b = a->id != 0 ? w->buf[a->id % WRITER_BUFS] : NULL;
    int err = stream_send(s, b != NULL ? b->p : NULL, a->len, a->flags,
                          MIN(deadline_ms, clock_mono_ms() + ACK_MS));

    if (err == DFS_ECONN) {
        /* The peer closed; what it said before names who is to blame. */
        while (attached(n, a->block)) {
            step_await(n, a->block, MIN(deadline_ms, clock_mono_ms() + LAST_WORDS_MS));
        }
        return DFS_OK;
    }
    if (err != 0) {
        stream_failed(n, a->block, stream_blame(s), err);
        return DFS_OK;
    }
    atomic_fetch_add(&n->c->packets, 1);
    pthread_mutex_lock(&n->mu);
    wcore_sent(&w->core, a);
    pthread_mutex_unlock(&n->mu);
    return DFS_OK;
}

static int seal(struct client *c, const struct wcore_action *a, uint64_t deadline_ms)
{
    struct block_seal_req q = { .block = a->block, .len = a->len };
    struct wire_out bad;
    struct meta_call call;
    struct slice rep;
    int err = meta_begin(c->meta, META_BOUND, NULL, deadline_ms, &call);

    if (err != 0) {
        return err;
    }
    wire_out_init(&bad, 64);
    if (a->bad != 0) {
        node_ref_put(&bad, &(struct node_ref){ .node = a->bad });
    }
    q.bad = wire_out_list(&bad, a->bad != 0 ? 1 : 0);
    block_seal_req_put(call.out, &q);
    err = meta_run(&call, RPC_block_seal, &rep);
    meta_end(&call);
    wire_out_fini(&bad);
    return err;
}

static int step_seal(struct node *n, const struct wcore_action *a, uint64_t deadline_ms)
{
    struct client *c = n->c;
    int err = seal(c, a, deadline_ms);

    if (err == DFS_ESESSION || err == DFS_ETIMEOUT || err == DFS_ECONN) {
        return err;
    }
    atomic_fetch_add(&c->sealed_early, 1);
    log_event(err == 0 ? LOG_INFO : LOG_WARN, "client.seal", "block=%ju len=%u bad=%u err=%s",
              (uintmax_t)a->block, a->len, a->bad, err_name(err));
    if (a->bad != 0) {
        peers_forget(c->peers, a->block, a->bad);
    }
    pthread_mutex_lock(&n->mu);
    wcore_sealed(&n->writer->core, a->block);
    pthread_mutex_unlock(&n->mu);
    if (err == 0) {
        streams_ended(c->streams, a->block, a->len);
    }
    /* Without any bytes in it nothing is lost with the block. */
    return a->len == 0 ? DFS_OK : err;
}

/* A block that is no more was committed, and then its bytes were cut off, written over or moved: what is
 * left of them is where the extents say. */
static int step_sync_copies(struct node *n, const struct wcore_action *a, uint64_t deadline_ms)
{
    struct wcore *core = &n->writer->core;
    int err = writer_sync_block(n->c, a->block, a->len, deadline_ms);

    pthread_mutex_lock(&n->mu);
    if (err == DFS_ENOBLOCK) {
        const struct wcore_block *b = wcore_block(core, a->block);

        if (b != NULL && b->committed >= b->acked) {
            node_unsynced_locked(n);
            err = DFS_OK;
        }
    }
    if (err == 0) {
        wcore_synced(core, a->block, a->len);
    }
    pthread_mutex_unlock(&n->mu);
    return err;
}

int writer_step(struct node *n, const struct wcore_action *a, uint64_t deadline_ms)
{
    int err = DFS_OK;

    switch (a->what) {
    case WCORE_IDLE:
        break;
    case WCORE_ALLOC:
        err = step_alloc(n, a, deadline_ms);
        break;
    case WCORE_SEND:
        err = step_send(n, a, deadline_ms);
        break;
    case WCORE_AWAIT:
        err = step_await(n, a->block, deadline_ms);
        break;
    case WCORE_SEAL:
        err = step_seal(n, a, deadline_ms);
        break;
    case WCORE_SYNC_COPIES:
        err = step_sync_copies(n, a, deadline_ms);
        break;
    }
    if (err == 0 && a->what != WCORE_SEND && clock_mono_ms() >= deadline_ms) {
        return DFS_ETIMEOUT;
    }
    return err;
}

void writer_poll(struct node *n)
{
    struct writer *w = n->writer;

    for (size_t i = 0; i < WCORE_LIVE; i++) {
        while (w->stream[i] != NULL && conn_readable(w->stream[i]->conn)) {
            const struct wcore_block *b;

            b = wcore_block(&w->core, w->stream[i]->block);
            if (b->sent == b->acked && b->control == 0) {
                break; /* an end of stream: the next use will find out */
            }
            step_await(n, b->id, clock_mono_ms() + ACK_MS);
        }
    }
}

void writer_prepare(struct node *n, uint64_t deadline_ms)
{
    struct client *c = n->c;
    struct writer *w = n->writer;
    struct stream *s;
    uint64_t block;
    uint32_t bad;
    bool wanted;
    uint8_t want;
    uint16_t rule;

    pthread_mutex_lock(&n->mu);
    const struct wcore_block *b = wcore_open_block(&w->core);

    wanted = w->streaming && w->prepared == NULL && b != NULL && b->sent >= b->limit / 2;
    want = n->attr.repl;
    rule = n->attr.storage;
    pthread_mutex_unlock(&n->mu);
    if (!wanted) {
        return;
    }
    if (streams_open(c->streams, want, rule, BLOCK_STREAM, deadline_ms, &s, &block, &bad) == 0) {
        w->prepared = s;
    } else if (block != 0) {
        streams_ended(c->streams, block, 0);
    }
}

/* ---- durable copies ---- */

/* One copy that is to be durable. */
struct copy {
    struct peers *peers;
    struct conn *conn; /* NULL: nothing was asked */
    uint32_t node;
    bool hung;
};

static bool in_vain(void *arg)
{
    struct copy *copy = arg;

    copy->hung = peers_hung(copy->peers, &copy->node, 1) != 0;
    return copy->hung;
}

static int sync_ask(struct copy *copy, const struct block_sync_req *q, uint64_t deadline_ms)
{
    uint64_t patience_ms = peers_greeting_ms(copy->peers, copy->node, CONNECT_MS);
    struct frame f = { .type = RPC_block_sync, .req_id = q->block };
    struct wire_out out;
    bool reused;
    int err = peers_connect(copy->peers, copy->node, true,
                            MIN(deadline_ms, clock_mono_ms() + patience_ms), &copy->conn, &reused);

    if (err != 0) {
        return err != DFS_ETIMEOUT || in_vain(copy) ? DFS_ECONN : err;
    }
    conn_doubt(copy->conn, DOUBT_MS, in_vain, copy);
    wire_out_init(&out, 64);
    block_sync_req_put(&out, q);
    err = conn_send(copy->conn, &f, wire_out_slice(&out), NULL, 0, deadline_ms);
    wire_out_fini(&out);
    return err == 0 ? DFS_OK : DFS_ETIMEOUT;
}

/* DFS_ETIMEOUT: it may yet be synced. DFS_ECONN: its server does nothing now. */
static int sync_answer(struct copy *copy, uint64_t deadline_ms)
{
    struct frame f = { 0 };
    struct slice msg;

    if (conn_recv(copy->conn, &f, &msg, deadline_ms) != 0) {
        return copy->hung ? DFS_ECONN : DFS_ETIMEOUT;
    }
    return (int)f.status;
}

/* Asks every server at once, so that they sync at the same time. Returns how many did; *ret_unsure
 * tells that one may yet: it did not answer, but it is alive. A server that hangs is like one that is
 * down. */
static uint32_t sync_copies(struct client *c, const struct where *where,
                            const struct block_sync_req *q, uint64_t deadline_ms, bool *ret_unsure,
                            int *ret_err)
{
    struct copy copies[LIMIT_REPLICATION] = { { 0 } };
    int err[LIMIT_REPLICATION];
    uint32_t good = 0;

    for (uint32_t i = 0; i < where->count; i++) {
        copies[i].peers = c->peers;
        copies[i].node = where->node[i];
        err[i] = sync_ask(&copies[i], q, deadline_ms);
    }
    for (uint32_t i = 0; i < where->count; i++) {
        err[i] = err[i] != 0 ? err[i] : sync_answer(&copies[i], deadline_ms);
        conn_close(copies[i].conn);
        good += err[i] == 0 ? 1 : 0;
        *ret_unsure = *ret_unsure || err[i] == DFS_ETIMEOUT;
        *ret_err = err[i] != 0 ? err[i] : *ret_err;
    }
    return good;
}

int writer_sync_block(struct client *c, uint64_t block, uint32_t len, uint64_t deadline_ms)
{
    const struct block_sync_req q = { .block = block, .len = len };

    for (;;) {
        struct where where;
        uint32_t good = 0;
        bool unsure = false;
        int err = DFS_OK;

        if (!peers_where(c->peers, block, &where)) {
            err = reader_locate(c, block, deadline_ms);
            if (err == DFS_ENOBLOCK) {
                return err;
            }
            if (err == 0 && !peers_where(c->peers, block, &where)) {
                err = DFS_EMISSING;
            }
        }
        if (err == 0) {
            err = DFS_EMISSING;
            good = sync_copies(c, &where, &q, MIN(deadline_ms, clock_mono_ms() + ACK_MS), &unsure,
                               &err);
        }
        /* A server that is down has nothing in memory that could still be saved; one copy on disk
         * is what the masters make new ones from. */
        if (good > 0 && !unsure) {
            return DFS_OK;
        }
        peers_forget(c->peers, block, 0);
        if (!pause_ms(NOSERVER_MS, deadline_ms)) {
            return good > 0 ? DFS_OK : unsure ? DFS_ETIMEOUT : err;
        }
    }
}
