/* Ranges of files: which are data, which are holes, and who else has the same bytes. */
#include "cluster/base/base.h"

#include <linux/falloc.h>

#include "fs/client/call.h"
#include "fs/client/readahead.h"
#include "fs/client/writer.h"

DEFINE_CALL(fallocate)
DEFINE_CALL(clone_range)

/* The content was changed by a command of this client's, and by nobody else in between if the count
 * says so. n->mu is held. */
static void learn_change_locked(struct node *n, const struct attr *a)
{
    if (a->version >= n->attr.version) {
        if (a->data_version != n->attr.data_version + 1) {
            n->stale = true;
            node_foreign_locked(n);
        }
        n->attr.data_version = a->data_version;
    }
    node_learn_attr_locked(n, a);
}

/* ---- fallocate ---- */

/* Bytes of the range that nothing is stored for yet. */
static int count_holes(struct node *n, uint64_t off, uint64_t len, uint64_t *ret)
{
    uint64_t end = off + len;
    uint64_t holes = len;
    struct extent e;
    int err = node_fetch_locked(n, off, end, client_deadline(n->c));

    if (err != 0) {
        return err;
    }
    for (uint64_t pos = off; extmap_find(&n->map, pos, &e) && e.off < end; pos = e.off + e.len) {
        holes -= MIN(e.off + e.len, end) - MAX(e.off, off);
    }
    pthread_mutex_unlock(&n->mu);
    *ret = holes;
    return DFS_OK;
}

/* Nothing is reserved, but what can never fit is refused. */
static int check_room(struct node *n, uint64_t off, uint64_t len)
{
    struct statfs_rep room;
    uint64_t holes = 0;
    int err = client_statfs(n->c, n->ino, &room);

    if (err != 0 || len <= room.free_bytes) {
        return err;
    }
    err = count_holes(n, off, len, &holes);
    return err != 0 ? err : holes > room.free_bytes ? DFS_ENOSPC : DFS_OK;
}

static void follow_fallocate(struct node *n, const struct fallocate_req *q, uint64_t done,
                             const struct attr *a)
{
    bool shifts = (q->mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) != 0;

    pthread_mutex_lock(&n->mu);
    if (shifts) {
        n->stale = true;
        readahead_drop(n, 0, UINT64_MAX);
    } else if ((q->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
        extmap_punch(&n->map, q->off, done);
        extmap_overlay(&n->map, &n->flying); /* what came meanwhile is newer */
        extmap_overlay(&n->map, &n->todo);
        readahead_drop(n, q->off, done);
    }
    learn_change_locked(n, a);
    pthread_mutex_unlock(&n->mu);
}

static int fallocate_some(struct node *n, const struct cred *cr, const struct fallocate_req *q,
                          uint64_t *ret_done)
{
    struct fallocate_rep r = { 0 };
    struct meta_call call;
    struct attr a;
    uint64_t done;
    int err = call_fallocate(n->c, META_COMMAND, cr, &call, q, &r);

    done = r.done;
    err = call_end_with_attr(&call, err, r.attr, &a);
    if (err == 0 && (done == 0 || done > q->len)) {
        err = DFS_EMALFORMED;
    }
    if (err == 0) {
        follow_fallocate(n, q, done, &a);
        *ret_done = done;
    }
    return err;
}

int file_fallocate(struct file *f, const struct cred *cr, uint32_t mode, uint64_t off, uint64_t len)
{
    struct node *n = f->node;
    struct fallocate_req q = { .ino = n->ino, .mode = mode, .off = off, .len = len };
    uint64_t deadline_ms = client_deadline(n->c);
    int err = DFS_OK;

    if (len == 0) {
        return DFS_EINVAL;
    }
    if (off > (uint64_t)LIMIT_FILE_SIZE || len > (uint64_t)LIMIT_FILE_SIZE - off) {
        return DFS_EFBIG;
    }
    err = node_io_lock(n, deadline_ms);
    if (err != 0) {
        return err;
    }
    err = writer_settle(n, deadline_ms);
    if (err == 0 && (mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE) == 0) {
        err = check_room(n, off, len);
    }
    while (err == 0 && q.len > 0) {
        uint64_t done = 0;

        err = clock_mono_ms() < deadline_ms ? fallocate_some(n, cr, &q, &done) : DFS_ETIMEOUT;
        q.off += done;
        q.len -= done;
    }
    pthread_mutex_unlock(&n->io);
    return err;
}

/* ---- clone ---- */

static int clone_some(struct node *n, const struct cred *cr, const struct clone_range_req *q,
                      uint64_t *ret_done)
{
    struct clone_range_rep r = { 0 };
    struct meta_call call;
    struct attr a;
    uint64_t done;
    int err = call_clone_range(n->c, META_COMMAND, cr, &call, q, &r);

    done = r.done;
    err = call_end_with_attr(&call, err, r.attr, &a);
    if (err == 0 && done > q->len) {
        err = DFS_EMALFORMED;
    }
    if (err == 0 && done > 0) {
        pthread_mutex_lock(&n->mu);
        n->stale = true;         /* where the bytes are only the masters know */
        node_unsynced_locked(n); /* and the source may not be on disk */
        readahead_drop(n, q->dst_off, done);
        node_learn_attr_locked(n, &a);
        pthread_mutex_unlock(&n->mu);
    }
    if (err == 0) {
        *ret_done = done;
    }
    return err;
}

int file_clone(struct file *src, uint64_t src_off, struct file *dst, const struct cred *cr,
               uint64_t dst_off, uint64_t len, uint64_t *ret_len)
{
    struct node *n = dst->node;
    struct clone_range_req q = {
        .src = src->node->ino, .src_off = src_off, .dst = n->ino, .dst_off = dst_off, .len = len
    };
    uint64_t deadline_ms = client_deadline(n->c);
    uint64_t all = 0;
    uint64_t done = 1;
    int err;

    (void)file_accessed(src);
    err = src->node != n ? writer_flush(src->node, false, deadline_ms) : DFS_OK;
    err = err != 0 ? err : node_io_lock(n, deadline_ms);
    if (err != 0) {
        return err;
    }
    err = writer_settle(n, deadline_ms);
    if (src->node == n) { /* its end may move while this goes on */
        pthread_mutex_lock(&n->mu);
        q.len = src_off < n->size ? MIN(len, n->size - src_off) : 0;
        pthread_mutex_unlock(&n->mu);
    }
    while (err == 0 && q.len > 0 && done > 0) {
        err = clock_mono_ms() < deadline_ms ? clone_some(n, cr, &q, &done) : DFS_ETIMEOUT;
        done = err == 0 ? done : 0;
        q.src_off += done;
        q.dst_off += done;
        q.len -= done;
        all += done;
    }
    pthread_mutex_unlock(&n->io);
    if (err != 0 && all == 0) {
        return err;
    }
    *ret_len = all;
    return DFS_OK;
}

/* ---- data and holes ---- */

/* The end of the run of holes (or of data) that begins at pos, by what is known; pos itself when that
 * is no hole (no data). n->mu is held. */
static uint64_t run_end_locked(const struct node *n, uint64_t pos, bool data)
{
    uint64_t run = 0;
    const uint8_t *buffered = writer_peek_locked(n, pos, &run);
    uint64_t buffer_end = run > UINT64_MAX - pos ? UINT64_MAX : pos + run;
    uint64_t map_end = UINT64_MAX;
    bool mapped = false;
    struct extent e;

    if (extmap_find(&n->map, pos, &e)) {
        mapped = e.off <= pos;
        map_end = mapped ? e.off + e.len : e.off;
    }
    if (!data) { /* both have to have one */
        return buffered != NULL || mapped ? pos : MIN(buffer_end, map_end);
    }
    return MAX(buffered != NULL ? buffer_end : pos, mapped ? map_end : pos);
}

int file_seek(struct file *f, bool data, uint64_t off, uint64_t *ret)
{
    struct node *n = f->node;
    uint64_t deadline_ms = client_deadline(n->c);
    uint64_t pos = MIN(off, (uint64_t)LIMIT_FILE_SIZE); /* no byte lies behind it */
    uint64_t size = 0;
    struct attr a;
    int err = client_getattr(n->c, NULL, n->ino, &a); /* somebody else may have changed it */

    for (bool found = false; err == 0 && !found;) {
        err = clock_mono_ms() < deadline_ms ? node_fetch_locked(n, pos, pos + 1, deadline_ms)
                                            : DFS_ETIMEOUT;
        if (err != 0) {
            break;
        }
        size = n->size;
        if (pos < size) {
            uint64_t end = run_end_locked(n, pos, !data);

            found = end == pos;
            pos = MIN(end, MAX(n->known, pos)); /* behind it the masters have to be asked */
        }
        found = found || pos >= size;
        pthread_mutex_unlock(&n->mu);
    }
    if (err != 0) {
        return err;
    }
    if (off >= size || (data && pos >= size)) {
        return DFS_ENOENT;
    }
    *ret = MIN(pos, size);
    return DFS_OK;
}
