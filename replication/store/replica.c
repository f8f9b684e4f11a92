/* The happy path: replica_create, replica_append again and again, replica_seal, replica_sync by the
 * background; reads at any time. Then what goes wrong:
 *   the process dies in an append   the sums tell how much of it counts (recover.c)
 *   power fails                     the same; a partial chunk that was synced has a mark of its own
 *   the disk is full                the append fails, the replica stays as it was
 *   a write or a sync fails         the volume is failed: after a failed sync nobody knows what
 *                                   the disk holds, and the kernel reports it only once
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/base/metrics.h"

#include "replication/store/replica_impl.h"

#define MUCH_BYTES (8 * MIB) /* not on disk: it is worth a sync of its own */

struct rule_replica replica_look_locked(const struct replica *r)
{
    return (struct rule_replica){ .state = (enum rule_state)r->sm.now, .len = r->len };
}

struct rule_replica replica_look(struct replica *r)
{
    struct rule_replica v;

    replica_lock(r);
    v = replica_look_locked(r);
    replica_unlock(r);
    return v;
}

bool replica_is_damaged(struct replica *r)
{
    bool damaged;

    replica_lock(r);
    damaged = r->damage != 0;
    replica_unlock(r);
    return damaged;
}

int replica_get_fd(struct replica *r, int *ret_fd)
{
    char path[REPLICA_PATH_MAX];
    int err;

    if (atomic_load(&r->vol->failed)) {
        return DFS_EVOLUME;
    }
    err = fd_cache_get(&r->env->fds, &r->fd, volume_replica_path(r->vol, r->block, path), ret_fd);
    return err == DFS_ENOENT ? DFS_ENOBLOCK : err;
}

int replica_read_failed(struct replica *r, int err)
{
    bool counted;

    replica_lock(r);
    counted = r->unreadable;
    r->unreadable = true;
    replica_unlock(r);
    return counted ? DFS_EIO : volume_read_failed(r->vol, err, "read a replica");
}

void replica_put_fd(struct replica *r)
{
    fd_cache_put(&r->env->fds, &r->fd);
}

int replica_open_to_read(struct replica *r, int *ret_fd)
{
    char path[REPLICA_PATH_MAX];
    int fd;

    if (atomic_load(&r->vol->failed)) {
        return DFS_EVOLUME;
    }
    fd = open(volume_replica_path(r->vol, r->block, path), O_RDONLY | O_CLOEXEC | O_NOATIME);
    if (fd < 0) {
        return errno == ENOENT ? DFS_ENOBLOCK : err_from_errno(errno);
    }
    *ret_fd = fd;
    return DFS_OK;
}

/* The descriptor stays open as long as something is not on disk: an error that the kernel finds when
 * it writes back is reported to those who had the file open. */
void replica_mark_dirty(struct replica *r)
{
    bool tell;
    int fd;

    replica_lock(r);
    tell = !r->is_dirty;
    r->is_dirty = true;
    replica_unlock(r);
    if (tell) {
        r->pinned = replica_get_fd(r, &fd) == 0;
        r->env->dirty(r->env->arg, r);
    }
}

bool replica_clean(struct replica *r)
{
    bool clean, pinned = false;

    replica_lock(r);
    clean = r->sm.now == RULE_GONE || atomic_load(&r->vol->failed) ||
            (r->synced == r->len && !r->seal_unsaved && r->named);
    if (clean) {
        pinned = r->pinned;
        r->is_dirty = false;
        r->pinned = false;
    }
    replica_unlock(r);
    if (pinned) {
        replica_put_fd(r);
    }
    return clean;
}

/* ---- creating, removing ---- */

int replica_write_header(struct replica *r, int fd, enum layout_state state, uint32_t sealed_len)
{
    struct layout_header h = { .state = state, .block = r->block, .sealed_len = sealed_len };
    uint8_t record[LAYOUT_RECORD_BYTES];

    memcpy(h.cluster, r->env->cluster, sizeof(h.cluster));
    layout_header_put(record, &h);
    return io_pwrite(fd, record, sizeof(record), 0);
}

int replica_create(struct replica *r)
{
    bool copy = r->sm.now == RULE_COPY;
    char path[REPLICA_PATH_MAX];
    int err = volume_take(r->vol, LAYOUT_HEADER_BYTES + LAYOUT_SUMS_BYTES);
    int fd;

    if (err != 0) {
        return err;
    }
    /* A file that the index does not know is what a crash left of a creation, or damaged. */
    volume_replica_path(r->vol, r->block, path);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 && errno == ENOENT && volume_make_dir(r->vol, r->block) == 0) {
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    }
    if (fd < 0) {
        return volume_write_failed(r->vol, err_from_errno(errno), "create a replica");
    }
    err = FAULT("replica.create.header");
    if (err == 0) {
        err = replica_write_header(r, fd, copy ? LAYOUT_COPY : LAYOUT_OPEN, 0);
    }
    if (err == 0 && ftruncate(fd, LAYOUT_HEADER_BYTES) != 0) {
        err = err_from_errno(errno);
    }
    if (err != 0) {
        io_close(fd);
        unlink(path);
        return volume_write_failed(r->vol, err, "write a replica's header");
    }
    r->tail_known = true;
    fd_cache_add(&r->env->fds, &r->fd, fd);
    atomic_fetch_add(&r->vol->blocks, 1);
    replica_mark_dirty(r);
    replica_put_fd(r);
    return 0;
}

bool replica_unlink(struct replica *r)
{
    char path[REPLICA_PATH_MAX];

    replica_lock(r);
    while (r->busy) {
        replica_wait_locked(r);
    }
    if (r->sm.now == RULE_GONE) {
        replica_unlock(r);
        return false;
    }
    sm_move(&r->sm, RULE_GONE);
    replica_changed_locked(r);
    replica_unlock(r);
    atomic_fetch_sub(&r->vol->used, r->len);
    atomic_fetch_sub(&r->vol->blocks, 1);
    if (FAULT("replica.unlink") == 0) {
        unlink(volume_replica_path(r->vol, r->block, path));
    }
    return true;
}

/* ---- appending ---- */

/* One part of an append that lies in one group: data, then sums. */
static int write_part(int fd, uint32_t offset, struct slice data, const uint32_t *sums)
{
    uint32_t count = layout_chunks_touched(offset, (uint32_t)data.len);
    int err = FAULT("replica.append.data");

    if (err == 0) {
        err = io_pwrite(fd, data.p, data.len, layout_data_at(offset));
    }
    if (err == 0) {
        err = FAULT("replica.append.sums");
    }
    if (err == 0) {
        err = io_pwrite(fd, sums, (size_t)count * 4, layout_sum_at(offset / CHUNK_BYTES));
    }
    return err;
}

static int write_parts(int fd, uint32_t offset, struct slice data, const uint32_t *sums)
{
    size_t done = 0;
    int err = 0;

    while (done < data.len && err == 0) {
        uint32_t at = offset + (uint32_t)done;
        size_t n = MIN(LAYOUT_GROUP_BYTES - at % LAYOUT_GROUP_BYTES, data.len - done);

        err = write_part(fd, at, slice_of(data.p + done, n),
                         sums + (at / CHUNK_BYTES - offset / CHUNK_BYTES));
        done += n;
    }
    return err;
}

static int append_busy(struct replica *r, uint32_t offset, struct slice data, uint32_t *sums)
{
    uint32_t in_chunk = offset % CHUNK_BYTES;
    int err = volume_take(r->vol, data.len);
    struct latency_op op;
    int fd;

    if (err == 0) {
        err = replica_get_fd(r, &fd);
    }
    if (err != 0) {
        return err;
    }
    if (in_chunk != 0) {
        sums[0] = crc32c(r->tail_sum, data.p, MIN(CHUNK_BYTES - in_chunk, data.len));
    }
    op = latency_begin(&r->vol->latency, clock_mono_us());
    err = write_parts(fd, offset, data, sums);
    latency_end(&r->vol->latency, LATENCY_WRITE, &op, clock_mono_us());
    replica_put_fd(r);
    return err != 0 ? volume_write_failed(r->vol, err, "append to a replica") : 0;
}

int replica_append(struct replica *r, uint32_t offset, struct slice data, uint32_t *sums)
{
    uint32_t len = (uint32_t)data.len;
    struct rule_replica view;
    bool much = false;
    int err;

    ASSERT(data.len > 0 && data.len <= LAYOUT_REPLICA_MAX);
    replica_lock(r);
    while (r->busy) {
        replica_wait_locked(r);
    }
    view = replica_look_locked(r);
    err = rule_append(&view, offset, len);
    ASSERT(err != 0 || r->tail_known);
    r->busy = err == 0;
    replica_unlock(r);
    if (err != 0) {
        return err;
    }
    err = append_busy(r, offset, data, sums);
    replica_lock(r);
    r->busy = false;
    if (err == 0) {
        uint32_t count = layout_chunks_touched(offset, len);

        r->len = offset + len;
        r->tail_sum = r->len % CHUNK_BYTES != 0 ? sums[count - 1] : 0;
        atomic_fetch_add(&r->vol->used, len);
        much = r->len - r->synced >= MUCH_BYTES;
    }
    replica_changed_locked(r);
    replica_unlock(r);
    if (err == 0) {
        replica_mark_dirty(r);
    }
    if (much && r->env->much != NULL) {
        r->env->much(r->env->arg, r);
    }
    return err;
}

/* ---- reading ---- */

/* A file that ends too soon is damaged, and says nothing about its disk. */
static int read_all(int fd, void *p, size_t n, uint64_t off)
{
    size_t got = 0;
    int err = io_pread_some(fd, p, n, off, &got);

    return err != 0 ? err : got == n ? 0 : DFS_ECHECKSUM;
}

int replica_read_parts(int fd, uint32_t offset, uint32_t len, uint8_t *data, uint32_t *sums)
{
    uint32_t done = 0;
    int err = FAULT("replica.read");

    while (done < len && err == 0) {
        uint32_t at = offset + done;
        uint32_t n = MIN(LAYOUT_GROUP_BYTES - at % LAYOUT_GROUP_BYTES, len - done);

        err = read_all(fd, sums + done / CHUNK_BYTES, (size_t)layout_chunks(n) * 4,
                       layout_sum_at(at / CHUNK_BYTES));
        if (err == 0) {
            err = read_all(fd, data + done, n, layout_data_at(at));
        }
        done += n;
    }
    return err;
}

static int moment_take(struct replica *r, struct replica_moment *ret)
{
    int err = 0;

    replica_lock(r);
    while (r->cutting) {
        replica_wait_locked(r);
    }
    if (r->sm.now == RULE_GONE) {
        err = DFS_ENOBLOCK;
    } else {
        *ret = (struct replica_moment){ r->len, r->tail_sum, r->cuts, r->tail_known };
    }
    replica_unlock(r);
    return err;
}

static bool moment_over(struct replica *r, const struct replica_moment *m)
{
    bool over;

    replica_lock(r);
    over = r->cuts != m->cuts;
    replica_unlock(r);
    return over;
}

int replica_read(struct replica *r, uint32_t offset, uint32_t len, void *data, uint32_t *sums,
                 struct replica_range *ret)
{
    struct replica_range g;
    struct replica_moment m;
    struct latency_op op;
    int fd, err;

    do {
        err = moment_take(r, &m);
        if (err != 0) {
            return err;
        }
        if (offset > m.len) {
            return DFS_EOFFSET;
        }
        g.offset = offset - offset % CHUNK_BYTES;
        g.len = MIN(layout_chunks(MIN(len, m.len - offset) + offset % CHUNK_BYTES) * CHUNK_BYTES,
                    m.len - g.offset);
        g.sum_count = layout_chunks(g.len);
        g.replica_len = m.len;
        err = replica_get_fd(r, &fd);
        if (err != 0) {
            return err;
        }
        op = latency_begin(&r->vol->latency, clock_mono_us());
        err = replica_read_parts(fd, g.offset, g.len, data, sums);
        latency_end(&r->vol->latency, LATENCY_READ, &op, clock_mono_us());
        replica_put_fd(r);
    } while (moment_over(r, &m));
    if (err != 0) {
        return err == DFS_ECHECKSUM ? err : replica_read_failed(r, err);
    }
    if (g.len % CHUNK_BYTES != 0 && m.use_tail) {
        sums[g.sum_count - 1] = m.tail_sum;
    }
    *ret = g;
    return 0;
}

void replica_prefetch(struct replica *r, uint32_t offset, uint32_t len)
{
    int fd;

    if (replica_get_fd(r, &fd) == 0) {
        (void)!posix_fadvise(fd, (off_t)layout_data_at(offset), (off_t)len, POSIX_FADV_WILLNEED);
        replica_put_fd(r);
    }
}

/* ---- syncing ---- */

/* Everything up to a moment on disk. number: of the mark to write, 0 = none is needed. */
static int sync_file(struct replica *r, const struct replica_moment *m, uint32_t number, bool named)
{
    char path[REPLICA_PATH_MAX];
    uint8_t record[LAYOUT_MARK_BYTES];
    struct latency_op op;
    int fd, err;

    err = replica_get_fd(r, &fd);
    if (err != 0) {
        return err;
    }
    op = latency_begin(&r->vol->latency, clock_mono_us());
    if (number != 0) {
        layout_mark_put(record, &(struct layout_mark){ number, m->len, m->tail_sum });
        err = io_pwrite(fd, record, sizeof(record), layout_mark_at(number));
    }
    if (err == 0) {
        err = FAULT("replica.sync");
    }
    if (err == 0) {
        uint64_t from = clock_mono_us();

        err = io_fdatasync(fd);
        metric_observe(METRIC_sync_time, clock_mono_us() - from);
    }
    if (err == 0 && !named) {
        err = io_sync_parent(volume_replica_path(r->vol, r->block, path), NULL);
    }
    latency_end(&r->vol->latency, LATENCY_SYNC, &op, clock_mono_us());
    replica_put_fd(r);
    return err;
}

/* Says in the header that a seal is complete. Not synced: until it is on disk the replica is merely
 * checked at start. */
static int save_seal(struct replica *r, uint32_t len)
{
    int fd, err;

    err = replica_get_fd(r, &fd);
    if (err == 0) {
        err = FAULT("replica.seal.save");
        if (err == 0) {
            err = replica_write_header(r, fd, LAYOUT_SEALED, len);
        }
        replica_put_fd(r);
    }
    return err;
}

/* One turn of a thread that syncs for all who wait. */
static int sync_turn_locked(struct replica *r)
{
    struct replica_moment m = { r->len, r->tail_sum, r->cuts, r->tail_known };
    bool sealed = r->sm.now == RULE_SEALED;
    bool named = r->named;
    uint32_t number = 0;
    int err;

    if (!sealed && m.len % CHUNK_BYTES != 0 && r->synced < m.len) {
        r->mark = MAX(r->mark + 1, 1);
        number = r->mark;
    }
    r->syncing = true;
    replica_unlock(r);
    err = sync_file(r, &m, number, named);
    if (err == 0 && sealed) {
        err = save_seal(r, m.len);
    }
    replica_lock(r);
    r->syncing = false;
    if (err == 0 && r->cuts == m.cuts) {
        r->synced = MAX(r->synced, m.len);
        r->named = true;
        r->seal_unsaved = r->seal_unsaved && !sealed;
    }
    replica_changed_locked(r);
    if (err == DFS_ENOSPC) {
        err = DFS_EIO; /* bytes that were taken are lost: worse than a full disk */
    }
    return err == 0 || err == DFS_ENOBLOCK ? err : volume_write_failed(r->vol, err, "sync");
}

static int sync_to(struct replica *r, uint32_t len, bool all)
{
    int err = 0;

    replica_lock(r);
    len = all ? r->len : len;
    while (err == 0) {
        len = all ? MIN(len, r->len) : len; /* cut meanwhile */
        if (r->sm.now == RULE_GONE) {
            err = DFS_ENOBLOCK;
        } else if (atomic_load(&r->vol->failed)) {
            err = DFS_EVOLUME;
        } else if (r->len < len) {
            err = DFS_EOFFSET;
        } else if (r->syncing || (r->busy && r->sm.now == RULE_SEALED)) {
            replica_wait_locked(r);
        } else if (r->synced < len || !r->named || r->seal_unsaved) {
            err = sync_turn_locked(r);
        } else {
            break;
        }
    }
    replica_unlock(r);
    return err;
}

int replica_sync(struct replica *r, uint32_t len)
{
    return sync_to(r, len, false);
}

int replica_sync_all(struct replica *r)
{
    return sync_to(r, 0, true);
}
