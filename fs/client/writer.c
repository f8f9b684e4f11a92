/* The happy path: bytes are copied into the current buffer; when it is full the calling thread sends
 * it down the node's stream and takes the answers that have come; a flush sends the rest, waits for
 * all answers and commits.
 *
 * What can fail:
 *   a stream              the core has the block sealed and sends again (wcore.c, writer_io.c)
 *   the session           writer_recover()
 *   everything else, or the same for longer than client.timeout: what is buffered is given up, the
 *   caller gets the error and every other handle gets it once
 */
#include "fs/client/writer.h"

#include "cluster/base/base.h"

#include "cluster/base/log.h"

#include "fs/client/commit.h"
#include "fs/client/readahead.h"
#include "fs/client/writer_int.h"

#define WINDOW         (8 * PACKET_BYTES)
#define PIECES_MAX     1024
#define STREAM_IDLE_MS 2000

void wbuf_free(struct client *c, struct wbuf *b)
{
    if (b != NULL) {
        bufs_free(&c->bufs, b->p, b->cap);
        free(b->piece);
        free(b);
    }
}

static struct writer *get_writer_locked(struct node *n)
{
    if (n->writer == NULL) {
        n->writer = x_alloc(sizeof(*n->writer));
        wcore_init(&n->writer->core, WINDOW);
    }
    return n->writer;
}

static void give_streams(struct node *n)
{
    struct writer *w = n->writer;

    for (size_t i = 0; i < WCORE_LIVE; i++) {
        stream_close(w->stream[i]);
        w->stream[i] = NULL;
    }
    w->stream_count = 0;
    streams_give(n->c->streams, w->prepared);
    w->prepared = NULL;
}

void writer_free(struct node *n)
{
    struct writer *w = n->writer;

    if (w == NULL) {
        return;
    }
    give_streams(n);
    for (size_t i = 0; w->buf != NULL && i < WRITER_BUFS; i++) {
        wbuf_free(n->c, w->buf[i]);
    }
    free(w->buf);
    wbuf_free(n->c, w->cur);
    extmap_clear(&w->dirty);
    wcore_fini(&w->core);
    free(w);
    n->writer = NULL;
}

void writer_slim_locked(struct node *n)
{
    struct writer *w = n->writer;

    if (w != NULL && w->core.count == 0) {
        wcore_slim(&w->core);
        free(w->buf);
        w->buf = NULL;
    }
}

const struct extmap *writer_dirty_locked(const struct node *n)
{
    return n->writer != NULL ? &n->writer->dirty : NULL;
}

bool writer_idle_locked(const struct node *n)
{
    const struct writer *w = n->writer;

    return w == NULL || (w->cur == NULL && w->core.count == 0 && w->core.live_count == 0 &&
                         w->stream_count == 0 && w->prepared == NULL);
}

uint64_t writer_end_locked(const struct node *n)
{
    return n->writer != NULL ? extmap_end(&n->writer->dirty) : 0;
}

const uint8_t *writer_peek_locked(const struct node *n, uint64_t off, uint64_t *ret_len)
{
    const struct writer *w = n->writer;
    struct extent e;

    if (w == NULL || !extmap_find(&w->dirty, off, &e)) {
        *ret_len = UINT64_MAX;
        return NULL;
    }
    if (e.off > off) {
        *ret_len = e.off - off;
        return NULL;
    }
    const struct wbuf *b =
        w->cur != NULL && w->cur->id == e.block ? w->cur : w->buf[e.block % WRITER_BUFS];

    *ret_len = e.len - (off - e.off);
    return b->p + e.block_off + (off - e.off);
}

/* ---- filling ---- */

static struct wbuf *current_locked(struct writer *w)
{
    if (w->cur == NULL) {
        w->cur = x_alloc(sizeof(*w->cur));
        w->cur->id = ++w->next_id;
        w->cur->max = wcore_room(&w->core);
        w->cur->born_ms = clock_mono_ms();
    }
    return w->cur;
}

static void add_piece(struct wbuf *b, uint64_t off, uint32_t len)
{
    struct buf_piece *last = b->piece_count > 0 ? &b->piece[b->piece_count - 1] : NULL;

    if (last != NULL && last->off + last->len == off && last->at + last->len == b->len) {
        last->len += len;
        return;
    }
    if (b->piece_count == b->piece_cap) {
        b->piece_cap = b->piece_cap == 0 ? 1 : b->piece_cap * 4;
        b->piece = x_realloc(b->piece, b->piece_cap * sizeof(*b->piece));
    }
    b->piece[b->piece_count++] = (struct buf_piece){ off, b->len, len };
}

/* Takes up to len bytes; returns how many. *ret_full: send before more. */
static size_t fill_locked(struct node *n, const uint8_t *p, size_t len, uint64_t off,
                          bool *ret_full)
{
    struct writer *w = get_writer_locked(n);
    struct wbuf *b = current_locked(w);
    struct extent e;

    /* Bytes that are in this buffer already are written over where they are. */
    if (extmap_find(&w->dirty, off, &e) && e.off <= off && e.block == b->id) {
        uint32_t k = (uint32_t)MIN(len, e.len - (off - e.off));

        memcpy(b->p + e.block_off + (off - e.off), p, k);
        *ret_full = false;
        return k;
    }
    uint32_t k = (uint32_t)MIN(len, (size_t)(b->max - b->len));

    b->cap = bufs_grow(&n->c->bufs, &b->p, b->cap, b->len + k);
    memcpy(b->p + b->len, p, k);
    extmap_insert(&w->dirty, &(struct extent){ off, k, b->id, b->len });
    add_piece(b, off, k);
    b->len += k;
    *ret_full = b->len == b->max || b->piece_count == PIECES_MAX;
    return k;
}

/* The current buffer becomes a packet. False when the queue is full. */
static bool enqueue_locked(struct writer *w)
{
    struct wbuf *b = w->cur;

    if (b == NULL || b->len == 0) {
        return true;
    }
    if (!wcore_add(&w->core, b->id, b->len)) {
        return false;
    }
    w->streaming = w->streaming || b->len >= PACKET_BYTES / 2;
    if (w->buf == NULL) {
        w->buf = x_alloc(WRITER_BUFS * sizeof(struct wbuf *));
    }
    w->buf[b->id % WRITER_BUFS] = b;
    w->cur = NULL;
    return true;
}

/* ---- sending ---- */

/* What is buffered goes, and so do the streams. n->io and n->mu are held. */
static void drop_buffered_locked(struct node *n)
{
    struct writer *w = n->writer;
    struct wcore_packet p;

    for (size_t i = 0; w != NULL && i < WCORE_LIVE; i++) {
        if (w->stream[i] != NULL) {
            wcore_failed(&w->core, w->stream[i]->block, 0);
        }
    }
    while (w != NULL && wcore_drop(&w->core, &p)) {
        wbuf_free(n->c, w->buf[p.id % WRITER_BUFS]);
        w->buf[p.id % WRITER_BUFS] = NULL;
    }
    if (w != NULL) {
        wbuf_free(n->c, w->cur);
        w->cur = NULL;
        extmap_clear(&w->dirty);
        give_streams(n);
    }
    node_resize_locked(n);
    node_foreign_locked(n); /* caches above have what is gone */
    readahead_drop(n, 0, UINT64_MAX);
}

/* Nothing helps. n->io is held. */
static void give_up(struct node *n, int err)
{
    pthread_mutex_lock(&n->mu);
    drop_buffered_locked(n);
    node_fail_locked(n, err);
    pthread_mutex_unlock(&n->mu);
    log_event(LOG_ERROR, "client.write", "inode=%ju err=%s", (uintmax_t)n->ino, err_name(err));
}

static int run_core(struct node *n, enum wcore_goal goal, uint64_t deadline_ms)
{
    struct writer *w = n->writer;
    uint64_t began_ms = clock_mono_ms();
    int err = DFS_OK;

    if (w->session != meta_session(n->c->meta)) {
        err = writer_recover(n, deadline_ms);
    }
    while (err == 0) {
        struct wcore_action a;

        pthread_mutex_lock(&n->mu);
        a = wcore_next(&w->core, goal);
        pthread_mutex_unlock(&n->mu);
        if (a.what == WCORE_IDLE) {
            break;
        }
        err = writer_step(n, &a, deadline_ms);
        if (err == DFS_ESESSION) {
            err = writer_recover(n, deadline_ms);
        }
        if (err == 0 && a.what == WCORE_SEND && goal == WCORE_PUSH) {
            writer_poll(n);
        }
        if (err == 0 && cancel_pending() && clock_mono_ms() - began_ms >= CANCEL_AFTER_MS) {
            err = DFS_EINTR; /* what is not sent yet stays for the next flush */
        }
    }
    return err;
}

static int run(struct node *n, enum wcore_goal goal, uint64_t deadline_ms)
{
    struct writer *w;
    struct stream *s = NULL;
    int err;

    pthread_mutex_lock(&n->mu);
    w = n->writer;
    if (w != NULL && (w->cur != NULL || w->core.count > 0)) { /* closing a file is no use of it */
        w->used_ms = clock_mono_ms();
    }
    pthread_mutex_unlock(&n->mu);
    if (w == NULL) {
        return DFS_OK;
    }
    do {
        bool all;

        pthread_mutex_lock(&n->mu);
        all = enqueue_locked(w);
        pthread_mutex_unlock(&n->mu);
        err = run_core(n, goal, deadline_ms);
        if (all) {
            break;
        }
    } while (err == 0);
    if (err != 0) {
        return err;
    }
    if (goal == WCORE_PUSH) {
        writer_prepare(n, deadline_ms);
        return DFS_OK;
    }
    pthread_mutex_lock(&n->mu);
    if (!w->streaming) {
        s = writer_detach_locked(n);
    }
    pthread_mutex_unlock(&n->mu);
    streams_give(n->c->streams, s);
    return DFS_OK;
}

int writer_run(struct node *n, enum wcore_goal goal, uint64_t deadline_ms)
{
    int err = run(n, goal, deadline_ms);

    if (err != 0 && err != DFS_EINTR) {
        give_up(n, err);
    }
    return err;
}

/* The current buffer is full, or memory is short. n->io is held. */
static int push(struct node *n)
{
    int err = writer_run(n, WCORE_PUSH, client_deadline(n->c));

    return err == 0 && bufs_tight(&n->c->bufs) ? writer_run(n, WCORE_DRAIN, client_deadline(n->c))
                                               : err;
}

static int push_alone(struct node *n)
{
    int err = node_io_lock(n, client_deadline(n->c));

    if (err == 0) {
        err = push(n);
        pthread_mutex_unlock(&n->io);
    }
    return err;
}

/* `send` is called when the current buffer is full. */
static int copy_in(struct node *n, const uint8_t *p, size_t len, uint64_t off,
                   int (*send)(struct node *n))
{
    uint64_t deadline_ms = client_deadline(n->c);
    int err = DFS_OK;

    if (off >= (uint64_t)LIMIT_FILE_SIZE || len > (uint64_t)LIMIT_FILE_SIZE - off) {
        return DFS_EFBIG;
    }
    for (size_t done = 0; done < len && err == 0;) {
        bool full = false;

        pthread_mutex_lock(&n->mu);
        while (send == push_alone && n->append_only && err == 0) {
            err = cond_wait_until(&n->committed, &n->mu, deadline_ms);
        }
        if (err != 0) {
            pthread_mutex_unlock(&n->mu);
            return err;
        }
        if (done == 0 && !n->dirty_listed) {
            node_mark_dirty(n);
        }
        while (done < len && !full) {
            done += fill_locked(n, p + done, len - done, off + done, &full);
        }
        n->size = MAX(n->size, off + done);
        n->mtime = clock_wall_ns();
        readahead_drop(n, off, done);
        pthread_mutex_unlock(&n->mu);
        if (full || bufs_tight(&n->c->bufs)) {
            err = send(n);
        }
    }
    if (atomic_load(&n->shared) && send == push_alone) {
        client_hurry(n->c);
    }
    return err;
}

int writer_write(struct node *n, const void *p, size_t len, uint64_t off)
{
    int err;

    cancel_shield();
    err = copy_in(n, p, len, off, push_alone);
    cancel_unshield();
    return err;
}

/* Sends and commits what is buffered, under a new session if that is needed. n->io is held. */
static int settle(struct node *n, bool append, uint64_t deadline_ms)
{
    int err = DFS_ESESSION;

    for (int tries = 0; err == DFS_ESESSION && tries < 3; tries++) {
        err = writer_run(n, WCORE_DRAIN, deadline_ms);
        err = err != 0 ? err : append ? commit_append(n, deadline_ms) : commit_node(n, deadline_ms);
    }
    return err;
}

int writer_settle(struct node *n, uint64_t deadline_ms)
{
    return settle(n, false, deadline_ms);
}

/* All that is buffered or uncommitted is this append. n->io is held. */
static int append_alone(struct node *n, const void *p, size_t len, uint64_t deadline_ms)
{
    uint64_t base;
    int err;

    pthread_mutex_lock(&n->mu);
    n->append_from = base = n->size;
    n->appending = true;
    pthread_mutex_unlock(&n->mu);
    err = copy_in(n, p, len, base, push);
    err = err != 0 ? err : settle(n, true, deadline_ms);
    pthread_mutex_lock(&n->mu);
    n->appending = false;
    if (err != 0) { /* its place is not known: it must not land anywhere later */
        extmap_clear(&n->todo);
        n->stale = true;
        drop_buffered_locked(n);
    }
    pthread_mutex_unlock(&n->mu);
    return err;
}

int writer_append(struct node *n, const void *p, size_t len)
{
    uint64_t deadline_ms = client_deadline(n->c);
    int err;

    cancel_shield();
    err = node_io_lock(n, deadline_ms);
    if (err != 0) {
        cancel_unshield();
        return err;
    }
    pthread_mutex_lock(&n->mu);
    n->append_only = true;
    pthread_mutex_unlock(&n->mu);
    err =
        settle(n, false, deadline_ms); /* what was written before stays what it is if this fails */
    err = err != 0 ? err : append_alone(n, p, len, deadline_ms);
    pthread_mutex_lock(&n->mu);
    n->append_only = false;
    pthread_cond_broadcast(&n->committed);
    pthread_mutex_unlock(&n->mu);
    pthread_mutex_unlock(&n->io);
    cancel_unshield();
    return err;
}

/* ---- flushing ---- */

/* The blocks of a file as it is now, and how far each is used. n->mu is held. */
static struct commit_block *blocks_locked(const struct node *n, size_t *ret_count)
{
    struct commit_block *blocks = NULL;
    size_t count = 0;
    uint64_t pos = 0;
    struct extent e;

    while (extmap_find(&n->map, pos, &e)) {
        uint32_t end = e.block_off + (uint32_t)e.len;
        size_t i = count;

        while (i > 0 && count - i < 64 && blocks[i - 1].block != e.block) {
            i--;
        }
        if (i > 0 && blocks[i - 1].block == e.block) {
            blocks[i - 1].len = MAX(blocks[i - 1].len, end);
        } else {
            blocks = x_realloc(blocks, (count + 1) * sizeof(*blocks));
            blocks[count++] = (struct commit_block){ .block = e.block, .len = end };
        }
        pos = e.off + e.len;
    }
    *ret_count = count;
    return blocks;
}

/* A file that was there before: its older blocks may be in the servers' memory only. */
static int sync_before(struct node *n, uint64_t deadline_ms)
{
    struct commit_block *blocks;
    size_t count;
    uint64_t mark;
    int err;

    do {
        err = node_fetch_locked(n, 0, UINT64_MAX, deadline_ms);
        if (err != 0) {
            return err;
        }
        mark = n->unsynced;
        blocks = blocks_locked(n, &count);
        pthread_mutex_unlock(&n->mu);
        for (size_t i = 0; i < count && err == 0; i++) {
            err = writer_sync_block(n->c, blocks[i].block, blocks[i].len, deadline_ms);
        }
        free(blocks);
        pthread_mutex_lock(&n->mu);
        if (err == DFS_ENOBLOCK) {
            n->stale = true; /* its bytes are elsewhere by now, or no longer in the file */
        } else if (err == 0 && n->unsynced == mark) {
            n->synced_before = true;
        }
        pthread_mutex_unlock(&n->mu);
    } while (err == DFS_ENOBLOCK && clock_mono_ms() < deadline_ms);
    return err;
}

static int flush(struct node *n, bool sync, uint64_t deadline_ms)
{
    int err;

    for (int tries = 0;; tries++) {
        bool before;

        err = node_io_lock(n, deadline_ms);
        if (err != 0) {
            return err; /* whoever has it is still trying */
        }
        err = writer_run(n, sync ? WCORE_SYNC : WCORE_DRAIN, deadline_ms);
        pthread_mutex_unlock(&n->io);
        err = err != 0 ? err : commit_node(n, deadline_ms);
        if (err == DFS_ESESSION && tries < 3) {
            continue; /* under the new one */
        }
        pthread_mutex_lock(&n->mu);
        before = n->synced_before;
        pthread_mutex_unlock(&n->mu);
        return err == 0 && sync && !before ? sync_before(n, deadline_ms) : err;
    }
}

int writer_flush(struct node *n, bool sync, uint64_t deadline_ms)
{
    int err;

    cancel_shield();
    err = flush(n, sync, deadline_ms);
    cancel_unshield();
    return err;
}

/* Nobody waits for the committing thread: it tries again with its next pass. */
static bool may_pass(int err)
{
    return err == DFS_ETIMEOUT || err == DFS_ECONN || err == DFS_ENOSERVERS || err == DFS_ESESSION;
}

int writer_tick(struct node *n, uint64_t age_ms, bool all, uint64_t deadline_ms)
{
    struct client *c = n->c;
    uint64_t now_ms = clock_mono_ms();
    int err = DFS_OK;
    bool send;
    bool open;

    if (all) {
        pthread_mutex_lock(&n->io);
    } else if (pthread_mutex_trylock(&n->io) != 0) {
        return DFS_OK; /* somebody is sending */
    }
    pthread_mutex_lock(&c->mu);
    open = n->writers > 0;
    pthread_mutex_unlock(&c->mu);
    pthread_mutex_lock(&n->mu);
    const struct writer *w = n->writer;

    send = w != NULL && (w->core.count > 0 || w->core.live_count > 0 ||
                         (n->todo.count > 0 && w->session != meta_session(c->meta)) ||
                         (w->cur != NULL && (all || now_ms - w->cur->born_ms >= age_ms)));
    pthread_mutex_unlock(&n->mu);
    if (send) {
        uint64_t used_ms = w->used_ms;

        err = run(n, WCORE_DRAIN, deadline_ms);
        if (err != 0 && !may_pass(err)) {
            give_up(n, err);
        }
        n->writer->used_ms = used_ms;
    }
    if (w != NULL && (!open || now_ms - w->used_ms > STREAM_IDLE_MS)) {
        struct stream *s;

        pthread_mutex_lock(&n->mu);
        s = writer_detach_locked(n);
        struct stream *prepared = n->writer->prepared;

        n->writer->prepared = NULL;
        pthread_mutex_unlock(&n->mu);
        streams_give(c->streams, s);
        streams_give(c->streams, prepared);
    }
    pthread_mutex_unlock(&n->io);
    return err;
}

void writer_release(struct node *n)
{
    struct stream *s = NULL;
    struct stream *prepared = NULL;

    if (pthread_mutex_trylock(&n->io) != 0) {
        return; /* the committing thread will */
    }
    pthread_mutex_lock(&n->mu);
    if (n->writer != NULL && n->writer->cur == NULL && n->writer->core.count == 0) {
        s = writer_detach_locked(n);
        prepared = n->writer->prepared;
        n->writer->prepared = NULL;
        n->writer->streaming = false;
    }
    pthread_mutex_unlock(&n->mu);
    pthread_mutex_unlock(&n->io);
    streams_give(n->c->streams, s);
    streams_give(n->c->streams, prepared);
}
