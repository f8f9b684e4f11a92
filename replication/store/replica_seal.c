/* Ending a replica at a length, which may cut bytes off that a writer has left behind. */
#include <unistd.h>

#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#include "replication/store/replica_impl.h"

/* The sum of a last chunk that is to be cut at len, from its bytes, which must be right. */
static int cut_sum(struct replica *r, int fd, uint32_t len, const struct replica_moment *old,
                   uint32_t *ret_sum)
{
    uint8_t chunk[CHUNK_BYTES];
    uint32_t start = len - len % CHUNK_BYTES;
    uint32_t have = MIN(old->len - start, CHUNK_BYTES);
    uint32_t sum;
    int err = replica_read_parts(fd, start, have, chunk, &sum);

    if (err != 0) {
        return err == DFS_ECHECKSUM ? err : replica_read_failed(r, err);
    }
    if (have < CHUNK_BYTES && old->use_tail) {
        sum = old->tail_sum;
    }
    if (crc32c(0, chunk, have) != sum) {
        return DFS_ECHECKSUM;
    }
    *ret_sum = crc32c(0, chunk, len - start);
    return 0;
}

int replica_clear_sums(int fd, uint32_t len)
{
    static const uint8_t zeros[LAYOUT_SUMS_BYTES];
    uint32_t count = layout_chunks(len);
    uint32_t used = count % LAYOUT_GROUP_CHUNKS * 4;

    return used != 0 ? io_pwrite(fd, zeros, LAYOUT_SUMS_BYTES - used, layout_sum_at(count)) : 0;
}

/* Goes to the disk with the header, perhaps before the new sum does. */
static int write_mark(int fd, uint32_t number, uint32_t len, uint32_t tail_sum)
{
    uint8_t record[LAYOUT_MARK_BYTES];

    layout_mark_put(record, &(struct layout_mark){ number, len, tail_sum });
    return io_pwrite(fd, record, sizeof(record), layout_mark_at(number));
}

/* mark: the number of a new one, for bytes that are cut off. */
static int seal_busy(struct replica *r, uint32_t len, bool cut, uint32_t mark,
                     const struct replica_moment *old, uint32_t *tail_sum)
{
    int fd, err;

    err = replica_get_fd(r, &fd);
    if (err != 0) {
        return err;
    }
    if (cut && len % CHUNK_BYTES != 0) {
        err = cut_sum(r, fd, len, old, tail_sum);
        if (err != 0) {
            goto out;
        }
    }
    err = FAULT("replica.seal.header");
    /* An append that failed may have left a sum that covers more than the length. */
    if (err == 0 && len % CHUNK_BYTES != 0 && (cut || old->use_tail)) {
        err = io_pwrite(fd, tail_sum, 4, layout_sum_at(len / CHUNK_BYTES));
    }
    if (err == 0) {
        err = replica_clear_sums(fd, len);
    }
    if (err == 0 && cut && len % CHUNK_BYTES != 0) {
        err = write_mark(fd, mark, len, *tail_sum);
    }
    if (err == 0) {
        err = replica_write_header(r, fd, LAYOUT_SEALING, len);
    }
    if (err == 0 && ftruncate(fd, (off_t)layout_file_bytes(len)) != 0) {
        err = err_from_errno(errno);
    }
    if (err != 0) {
        err = volume_write_failed(r->vol, err, "seal a replica");
    }
out:
    replica_put_fd(r);
    return err;
}

/* Waits for the disk operations under way and tells what is to be done; busy is set when that is
 * anything. */
static int seal_begin(struct replica *r, uint32_t len, struct replica_moment *ret_old,
                      bool *ret_cut, bool *ret_todo, uint32_t *ret_mark)
{
    struct rule_replica view;
    int err;

    replica_lock(r);
    /* A sync that saves a seal must not do so over the header of a shorter one. */
    while (r->busy || (r->syncing && r->sm.now == RULE_SEALED)) {
        replica_wait_locked(r);
    }
    view = replica_look_locked(r);
    err = rule_seal(&view, len, ret_cut);
    *ret_old = (struct replica_moment){ r->len, r->tail_sum, r->cuts, r->tail_known };
    *ret_todo = err == 0 && (view.state != RULE_SEALED || *ret_cut);
    if (*ret_todo) {
        r->busy = true;
        r->cutting = *ret_cut;
        r->cuts += *ret_cut ? 1 : 0;
        r->mark = MAX(r->mark + 1, 1);
        *ret_mark = r->mark;
    }
    replica_unlock(r);
    return err;
}

int replica_seal(struct replica *r, uint32_t len)
{
    struct replica_moment old;
    uint32_t tail_sum, mark = 0;
    bool cut = false, todo;
    int err = seal_begin(r, len, &old, &cut, &todo, &mark);

    if (err != 0 || !todo) {
        return err;
    }
    tail_sum = cut ? 0 : old.tail_sum;
    err = seal_busy(r, len, cut, mark, &old, &tail_sum);
    replica_lock(r);
    r->busy = false;
    r->cutting = false;
    if (err == 0) {
        if (r->sm.now != RULE_SEALED) {
            sm_move(&r->sm, RULE_SEALED);
        }
        r->len = len;
        r->tail_sum = len % CHUNK_BYTES != 0 ? tail_sum : 0;
        r->tail_known = r->tail_known || cut;
        r->synced = MIN(r->synced, len);
        r->seal_unsaved = true;
        atomic_fetch_sub(&r->vol->used, old.len - len);
    }
    replica_changed_locked(r);
    replica_unlock(r);
    if (err == 0) {
        replica_mark_dirty(r);
    }
    return err;
}
