#include "replication/store/scrub.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#include "replication/store/replica_impl.h"

#define ALIGN      4096u /* of direct reads: buffer, offset and length */
#define READ_BYTES (1u << 20)
#define TRIES      4 /* while it changes under way */

_Static_assert(LAYOUT_SUMS_BYTES % ALIGN == 0 && CHUNK_BYTES % ALIGN == 0 &&
                   LAYOUT_GROUP_BYTES % READ_BYTES == 0,
               "every read begins at a multiple of ALIGN");

/* What decides what the file should hold. */
struct view {
    int state; /* enum rule_state */
    uint32_t len;
    uint32_t synced;
    uint32_t cuts;
    bool unsaved;
};

struct check {
    struct replica *r;
    struct view view;
    uint32_t limit; /* bytes whose sums are final */
    int fd;
    bool direct;
    void *memory;
    uint8_t *data;  /* READ_BYTES, aligned */
    uint32_t *sums; /* of one group, aligned */
    scrub_pace_fn *pace;
    void *arg;
};

bool scrub_is_damage(int err)
{
    return err == DFS_ECHECKSUM || err == DFS_EOFFSET || err == DFS_ENOBLOCK || err == DFS_EIO;
}

static struct view look(struct replica *r)
{
    struct view v;

    replica_lock(r);
    while (r->busy || r->cutting) {
        replica_wait_locked(r);
    }
    v = (struct view){ r->sm.now, r->len, MIN(r->synced, r->len), r->cuts, r->seal_unsaved };
    replica_unlock(r);
    return v;
}

static bool same(const struct view *a, const struct view *b)
{
    return a->state == b->state && a->cuts == b->cuts && a->unsaved == b->unsaved &&
           (a->len == b->len || a->state == RULE_OPEN);
}

/* ---- reading ---- */

static int open_file(struct check *c)
{
    char path[REPLICA_PATH_MAX];
    int err = FAULT("scrub.open");

    volume_replica_path(c->r->vol, c->r->block, path);
    c->direct = true;
    c->fd = err == 0 ? open(path, O_RDONLY | O_CLOEXEC | O_DIRECT) : -1;
    if (err == 0 && c->fd < 0 && errno == EINVAL) {
        c->direct = false; /* a file system in memory, for one */
        c->fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (err == 0 && c->fd < 0) {
        err = errno == ENOENT ? DFS_ENOBLOCK : err_from_errno(errno);
    }
    return err == DFS_EIO || err == DFS_ENOBLOCK || err == 0 ? err : DFS_EAGAIN;
}

/* n bytes, of which the file has `have` at least. */
static int read_at(struct check *c, void *p, uint32_t n, uint32_t have, uint64_t off)
{
    size_t got = 0;
    int err = c->pace != NULL ? c->pace(c->arg, n) : 0;

    if (err != 0) {
        return err;
    }
    err = FAULT("scrub.read");
    if (err == 0) {
        err = io_pread_some(c->fd, p, n, off, &got);
    }
    if (!c->direct) {
        (void)!posix_fadvise(c->fd, (off_t)off, (off_t)n, POSIX_FADV_DONTNEED);
    }
    return err != 0 ? DFS_EIO : got < have ? DFS_EOFFSET : 0;
}

/* ---- one check ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

static bool header_is_right(const struct check *c, const struct layout_header *h)
{
    const struct replica *r = c->r;

    if (h->block != r->block || memcmp(h->cluster, r->env->cluster, CLUSTER_ID_BYTES) != 0) {
        return false;
    }
    if (c->view.state == RULE_OPEN) {
        return h->state == LAYOUT_OPEN;
    }
    return h->sealed_len == c->view.len &&
           (h->state == LAYOUT_SEALED || (h->state == LAYOUT_SEALING && c->view.unsaved));
}

/* The record, and nothing where nothing is ever written. */
static int check_header(struct check *c)
{
    const uint8_t *p = c->data;
    struct layout_header h;
    bool right;
    int err = read_at(c, c->data, LAYOUT_HEADER_BYTES, LAYOUT_HEADER_BYTES, 0);

    if (err != 0) {
        return err;
    }
    right = layout_header_get(p, &h) == 0 && header_is_right(c, &h) &&
            all_zero(p + LAYOUT_RECORD_BYTES, 512 - LAYOUT_RECORD_BYTES);
    for (uint32_t i = 0; i < LAYOUT_MARKS; i++) {
        uint32_t at = (uint32_t)layout_mark_at(i);
        struct layout_mark m;

        right = right && all_zero(p + at + LAYOUT_MARK_BYTES, 512 - LAYOUT_MARK_BYTES) &&
                (c->view.state == RULE_OPEN || all_zero(p + at, LAYOUT_MARK_BYTES) ||
                 layout_mark_get(p + at, &m) == 0);
    }
    right = right && all_zero(p + 512 * (1 + LAYOUT_MARKS),
                              LAYOUT_HEADER_BYTES - (size_t)512 * (1 + LAYOUT_MARKS));
    return right ? 0 : DFS_ECHECKSUM;
}

static int check_length(const struct check *c)
{
    uint64_t want = layout_file_bytes(c->view.state == RULE_OPEN ? c->limit : c->view.len);
    struct stat st;

    if (fstat(c->fd, &st) != 0) {
        return DFS_EIO;
    }
    /* A failed append may have left bytes behind the end of an open one. */
    return (uint64_t)st.st_size == want ||
                   ((uint64_t)st.st_size > want && c->view.state == RULE_OPEN)
               ? 0
               : DFS_EOFFSET;
}

/* The part of one group that lies below the limit. */
static int check_group(struct check *c, uint32_t start)
{
    uint32_t len = MIN(LAYOUT_GROUP_BYTES, c->limit - start);
    uint32_t used = layout_chunks(len) * 4;
    int err = read_at(c, c->sums, LAYOUT_SUMS_BYTES, LAYOUT_SUMS_BYTES,
                      layout_sum_at(start / CHUNK_BYTES));

    if (err == 0 && c->view.state == RULE_SEALED &&
        !all_zero((const uint8_t *)c->sums + used, LAYOUT_SUMS_BYTES - used)) {
        err = DFS_ECHECKSUM;
    }
    for (uint32_t done = 0; err == 0 && done < len; done += READ_BYTES) {
        uint32_t n = MIN(READ_BYTES, len - done);

        err = read_at(c, c->data, layout_chunks(n) * CHUNK_BYTES, n, layout_data_at(start + done));
        if (err == 0) {
            err = rule_check_sums(0, slice_of(c->data, n), c->sums + done / CHUNK_BYTES);
        }
    }
    return err;
}

static int check_once(struct check *c)
{
    int err;

    c->view = look(c->r);
    if (c->view.state != RULE_OPEN && c->view.state != RULE_SEALED) {
        return DFS_EAGAIN;
    }
    c->limit =
        c->view.state == RULE_SEALED ? c->view.len : c->view.synced - c->view.synced % CHUNK_BYTES;
    err = open_file(c);
    if (err != 0) {
        return err;
    }
    err = check_length(c);
    if (err == 0) {
        err = check_header(c);
    }
    for (uint32_t at = 0; err == 0 && at < c->limit; at += LAYOUT_GROUP_BYTES) {
        err = check_group(c, at);
    }
    io_close(c->fd);
    return err;
}

/* A failure that lasts: the replica is still as it was when the check began. */
static int check(struct check *c)
{
    int found = 0;

    for (int i = 0; i < TRIES; i++) {
        int err = check_once(c);
        struct view now = look(c->r);

        if (!scrub_is_damage(err)) {
            return err;
        }
        if (now.state == RULE_GONE) {
            return DFS_EAGAIN;
        }
        if (!same(&c->view, &now)) {
            found = 0;
            continue;
        }
        if (found == err) {
            return err;
        }
        found = err;
        c->pace = NULL;
    }
    return found != 0 ? found : DFS_EAGAIN;
}

int scrub_replica(struct replica *r, scrub_pace_fn *pace, void *arg)
{
    struct check c = { .r = r, .pace = pace, .arg = arg };
    int err;

    if (atomic_load(&r->vol->failed)) {
        return DFS_EVOLUME;
    }
    c.memory = x_alloc(READ_BYTES + LAYOUT_SUMS_BYTES + ALIGN);
    c.data = (uint8_t *)c.memory + (ALIGN - (uintptr_t)c.memory % ALIGN) % ALIGN;
    c.sums = (uint32_t *)(void *)(c.data + READ_BYTES);
    err = check(&c);
    free(c.memory);
    if (err == DFS_ENOBLOCK && !volume_is_there(r->vol)) {
        return volume_write_failed(r->vol, DFS_EIO, "find its own identity");
    }
    if (err == DFS_EIO) {
        err = replica_read_failed(r, err);
    }
    return atomic_load(&r->vol->failed) ? DFS_EVOLUME : err;
}
