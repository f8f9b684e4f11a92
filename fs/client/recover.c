/* After the client's session ended (it was away for longer than its lease) the masters have sealed
 * its blocks at what was committed. What was acknowledged since then is still on the block servers
 * for a while: it is read back and written to blocks of the new session. */
#include "cluster/base/base.h"

#include "cluster/base/log.h"

#include "fs/client/reader.h"
#include "fs/client/writer_int.h"

/* Sends len bytes as one packet of a stream that is for this alone. */
static int copy_part(struct node *n, const struct extent *e, uint8_t *buf, uint64_t deadline_ms,
                     struct stream **s, struct extmap *moved)
{
    struct client *c = n->c;
    uint32_t len = (uint32_t)e->len;
    uint64_t block;
    uint32_t bad;
    uint32_t end;
    int err = reader_fetch(c, e->block, e->block_off, len, buf, deadline_ms);

    if (err == 0 && (*s == NULL || (*s)->limit - (*s)->off < len)) {
        streams_give(c->streams, *s);
        *s = NULL;
        err = streams_open(c->streams, n->attr.repl, n->attr.storage, BLOCK_PACK, deadline_ms, s,
                           &block, &bad);
    }
    if (err != 0) {
        return err;
    }
    struct extent to = { e->off, e->len, (*s)->block, (*s)->off };

    err = stream_send(*s, buf, len, 0, deadline_ms);
    err = err != 0 ? err : stream_recv(*s, deadline_ms, &end, &bad);
    if (err != 0) {
        stream_close(*s);
        *s = NULL;
        return err;
    }
    extmap_insert(moved, &to);
    return DFS_OK;
}

/* Everything in `lost` at new places; what cannot be read is left out. */
static int copy_all(struct node *n, const struct extmap *lost, struct extmap *moved,
                    uint64_t deadline_ms)
{
    struct stream *s = NULL;
    uint8_t *buf = NULL;
    uint32_t cap = bufs_grow(&n->c->bufs, &buf, 0, BUF_BYTES);
    struct extent e;
    int first = DFS_OK;

    for (uint64_t pos = 0; extmap_find(lost, pos, &e);) {
        uint64_t skip = pos > e.off ? pos - e.off : 0;
        struct extent part = { e.off + skip, MIN(e.len - skip, (uint64_t)BUF_BYTES), e.block,
                               e.block_off + (uint32_t)skip };
        int err = copy_part(n, &part, buf, deadline_ms, &s, moved);

        first = first != 0 ? first : err;
        pos = part.off + part.len;
    }
    streams_give(n->c->streams, s);
    bufs_free(&n->c->bufs, buf, cap);
    return first;
}

/* The new places' blocks are told with the next commit, as the session's own. */
static void adopt_locked(struct node *n, const struct extmap *moved)
{
    struct wcore *core = &n->writer->core;
    struct extent e;

    for (uint64_t pos = 0; extmap_find(moved, pos, &e); pos = e.off + e.len) {
        wcore_adopt(core, e.block, e.block_off + (uint32_t)e.len);
    }
    extmap_overlay(&n->map, moved);
}

int writer_recover(struct node *n, uint64_t deadline_ms)
{
    struct writer *w = n->writer;
    uint64_t session = meta_session(n->c->meta);
    struct extmap lost;
    struct extmap moved = { 0 };
    int err = DFS_OK;

    if (w->session == session) {
        return DFS_OK;
    }
    pthread_mutex_lock(&n->mu);
    while (n->committing && err == 0) {
        err = cond_wait_until(&n->committed, &n->mu, deadline_ms);
    }
    if (err != 0) {
        pthread_mutex_unlock(&n->mu);
        return err;
    }
    wcore_lost(&w->core);
    for (size_t i = 0; i < WCORE_LIVE; i++) {
        stream_close(w->stream[i]);
        w->stream[i] = NULL;
    }
    w->stream_count = 0;
    stream_close(w->prepared);
    w->prepared = NULL;
    lost = n->todo;
    n->todo = (struct extmap){ 0 };
    n->flying = lost; /* stays readable, and nobody commits it */
    n->committing = lost.count > 0;
    w->session = session;
    pthread_mutex_unlock(&n->mu);
    if (lost.count == 0) {
        return DFS_OK;
    }
    err = copy_all(n, &lost, &moved, deadline_ms);
    log_event(LOG_WARN, "client.recover", "inode=%ju extents=%zu err=%s", (uintmax_t)n->ino,
              lost.count, err_name(err));
    pthread_mutex_lock(&n->mu);
    adopt_locked(n, &moved);
    extmap_clear(&n->flying);
    extmap_clear(&n->todo);
    n->todo = moved;
    if (err != 0) {
        n->stale = true;
        node_foreign_locked(n);
        node_fail_locked(n, err);
        err = DFS_OK; /* of writes that had returned: told by the next flush */
    }
    n->committing = false;
    pthread_cond_broadcast(&n->committed);
    pthread_mutex_unlock(&n->mu);
    return err;
}
