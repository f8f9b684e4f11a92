/* Moving a sealed replica to another volume of the same server.
 *
 * The bytes are copied and checked while readers go on with the old file; a crash leaves an
 * unfinished copy, which the start-up scan removes. Then the new file is made durable as sealed, and
 * readers are held for the moment that it takes to exchange the descriptor.
 */
#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#include "replication/store/replica_impl.h"

#define COPY_BYTES (1u << 20)

/* Waits for its turn at the replica; DFS_EAGAIN: not everything is on disk yet. */
static int move_begin(struct replica *r, uint32_t *ret_len)
{
    int err = 0;

    replica_lock(r);
    while (r->busy) {
        replica_wait_locked(r);
    }
    if (r->sm.now != RULE_SEALED || r->writer || r->is_dirty || r->seal_unsaved) {
        err = r->sm.now == RULE_GONE ? DFS_ENOBLOCK : DFS_EAGAIN;
    } else {
        r->busy = true;
        *ret_len = r->len;
    }
    replica_unlock(r);
    return err;
}

/* What goes wrong with the new file says something about its volume, and nothing about the replica. */
static int of_target(struct volume *to, int err)
{
    return err != 0 ? volume_write_failed(to, err, "move a replica") : 0;
}

static int copy_bytes(struct replica *r, int from, struct volume *to, int fd, uint64_t size)
{
    uint8_t *buf = x_alloc(COPY_BYTES);
    int err = 0;

    for (uint64_t at = LAYOUT_HEADER_BYTES; at < size && err == 0; at += COPY_BYTES) {
        size_t n = (size_t)MIN(COPY_BYTES, size - at);

        err = io_pread(from, buf, n, at);
        if (err != 0) {
            err = replica_read_failed(r, err);
        } else {
            err = FAULT("replica.move.copy");
            err = of_target(to, err != 0 ? err : io_pwrite(fd, buf, n, at));
        }
    }
    free(buf);
    return err;
}

/* The copy against the sums that came with it. */
static int check_bytes(struct volume *to, int fd, uint32_t len)
{
    uint8_t *data = x_alloc(PACKET_BYTES);
    uint32_t sums[LAYOUT_SUMS_OF(PACKET_BYTES)];
    int err = 0;

    for (uint32_t at = 0; at < len && err == 0; at += PACKET_BYTES) {
        uint32_t n = MIN(PACKET_BYTES, len - at);

        err = of_target(to, replica_read_parts(fd, at, n, data, sums));
        if (err == 0) {
            err = rule_check_sums(at, slice_of(data, n), sums);
        }
    }
    free(data);
    return err;
}

static int open_new(struct replica *r, struct volume *to, const char *path, int *ret_fd)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 && errno == ENOENT && volume_make_dir(to, r->block) == 0) {
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    }
    if (fd < 0) {
        return volume_write_failed(to, err_from_errno(errno), "create a replica");
    }
    *ret_fd = fd;
    return 0;
}

static int make_durable(struct replica *r, int fd, const char *path, uint32_t len)
{
    int err = replica_write_header(r, fd, LAYOUT_SEALED, len);

    err = err != 0 ? err : FAULT("replica.move.sync");
    err = err != 0 ? err : io_fdatasync(fd);
    return err != 0 ? err : io_sync_parent(path, NULL);
}

/* The whole file on the other volume, durable. */
static int make_copy(struct replica *r, struct volume *to, const char *path, uint32_t len,
                     int *ret_fd)
{
    uint64_t size = layout_file_bytes(len);
    int from = -1, fd = -1, err;

    err = volume_take(to, size);
    err = err != 0 ? err : replica_get_fd(r, &from);
    if (err != 0) {
        return err;
    }
    err = open_new(r, to, path, &fd);
    if (err != 0) {
        replica_put_fd(r);
        return err;
    }
    err = of_target(to, replica_write_header(r, fd, LAYOUT_COPY, 0));
    err = err != 0 ? err : copy_bytes(r, from, to, fd, size);
    err = err != 0 ? err : check_bytes(to, fd, len);
    err = err != 0 ? err : of_target(to, make_durable(r, fd, path, len));
    replica_put_fd(r);
    if (err != 0) {
        io_close(fd);
        unlink(path);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

/* From the old file to the new one. */
static void exchange(struct replica *r, struct volume *to, int fd, uint32_t len)
{
    char path[REPLICA_PATH_MAX];
    struct volume *from = r->vol;

    volume_replica_path(from, r->block, path);
    replica_lock(r);
    r->cutting = true;
    r->cuts++;
    while (r->syncing) {
        replica_wait_locked(r);
    }
    replica_unlock(r);
    fd_cache_exchange(&r->env->fds, &r->fd, fd);
    replica_lock(r);
    r->vol = to;
    r->cutting = false;
    r->busy = false;
    replica_changed_locked(r);
    replica_unlock(r);
    atomic_fetch_sub(&from->used, len);
    atomic_fetch_sub(&from->blocks, 1);
    atomic_fetch_add(&to->used, len);
    atomic_fetch_add(&to->blocks, 1);
    if (FAULT("replica.move.unlink") == 0) {
        unlink(path);
    }
    replica_put_fd(r);
}

int replica_move(struct replica *r, struct volume *to)
{
    char path[REPLICA_PATH_MAX];
    uint32_t len = 0;
    int fd = -1, err;

    err = move_begin(r, &len);
    if (err != 0) {
        return err;
    }
    volume_replica_path(to, r->block, path);
    err = make_copy(r, to, path, len, &fd);
    if (err == 0) {
        exchange(r, to, fd, len);
        return 0;
    }
    replica_lock(r);
    r->busy = false;
    replica_changed_locked(r);
    replica_unlock(r);
    return err;
}
