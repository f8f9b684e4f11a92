#include "replication/store/recover.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#include "replication/store/replica_impl.h"

#define SCAN_CHUNKS 64u

struct scan {
    int fd;
    uint32_t limit; /* bytes of the block that the file can hold */
    struct layout_mark marks[LAYOUT_MARKS];
    size_t mark_count;
};

static uint32_t newest_mark(const struct scan *s)
{
    uint32_t newest = 0;

    for (size_t i = 0; i < s->mark_count; i++) {
        newest = MAX(newest, s->marks[i].number);
    }
    return newest;
}

/* The longest part of a chunk that begins at start and that its sum, or a sync mark, covers. */
static uint32_t longest_part(const struct scan *s, uint32_t start, struct slice chunk,
                             uint32_t stored, uint32_t *ret_sum)
{
    uint32_t best = 0, best_sum = 0;
    uint32_t crc = 0;

    for (uint32_t n = 1; n <= chunk.len; n++) {
        bool holds;

        crc = crc32c(crc, chunk.p + n - 1, 1);
        holds = crc == stored;
        for (size_t i = 0; i < s->mark_count; i++) {
            holds = holds || (s->marks[i].len == start + n && s->marks[i].sum == crc);
        }
        if (holds) {
            best = n;
            best_sum = crc;
        }
    }
    *ret_sum = best_sum;
    return best;
}

/* Finds how far the sums hold. */
static int scan_sums(const struct scan *s, uint32_t *ret_len, uint32_t *ret_sum)
{
    uint8_t data[SCAN_CHUNKS * CHUNK_BYTES];
    uint32_t sums[SCAN_CHUNKS];

    /* SCAN_CHUNKS divides a group, so one step lies in one. */
    for (uint32_t at = 0; at < s->limit; at += sizeof(data)) {
        uint32_t n = MIN((uint32_t)sizeof(data), s->limit - at);
        int err =
            io_pread(s->fd, sums, (size_t)layout_chunks(n) * 4, layout_sum_at(at / CHUNK_BYTES));

        if (err == 0) {
            err = io_pread(s->fd, data, n, layout_data_at(at));
        }
        if (err != 0) {
            return err;
        }
        for (uint32_t c = 0; c * CHUNK_BYTES < n; c++) {
            uint32_t start = c * CHUNK_BYTES;
            struct slice chunk = slice_of(data + start, MIN(CHUNK_BYTES, n - start));

            if (chunk.len < CHUNK_BYTES || crc32c(0, chunk.p, chunk.len) != sums[c]) {
                *ret_len = at + start + longest_part(s, at + start, chunk, sums[c], ret_sum);
                return 0;
            }
        }
    }
    *ret_len = s->limit;
    *ret_sum = 0;
    return 0;
}

/* Makes the file say what was found. */
static int cut(int fd, uint32_t len, uint32_t tail_sum)
{
    int err = FAULT("recover.cut");

    if (err == 0 && len % CHUNK_BYTES != 0) {
        err = io_pwrite(fd, &tail_sum, 4, layout_sum_at(len / CHUNK_BYTES));
    }
    if (err == 0) {
        err = replica_clear_sums(fd, len);
    }
    if (err == 0 && ftruncate(fd, (off_t)layout_file_bytes(len)) != 0) {
        err = err_from_errno(errno);
    }
    return err;
}

static int recover_unsealed(struct scan *s, uint32_t sealed_len, bool sealing,
                            struct recovered *ret)
{
    uint32_t held = s->limit;
    uint32_t len, sum;
    int err;

    if (sealing) {
        s->limit = MIN(s->limit, sealed_len);
    }
    err = scan_sums(s, &len, &sum);
    if (err == 0) {
        err = cut(s->fd, len, sum);
    }
    if (err != 0) {
        return err;
    }
    *ret = (struct recovered){
        .state = sealing ? RULE_SEALED : RULE_OPEN,
        .len = len,
        .tail_sum = len % CHUNK_BYTES != 0 ? sum : 0,
        .tail_known = true,
        .mark = newest_mark(s),
        .cut = held - len,
        .missing = sealing ? sealed_len - len : 0,
    };
    return 0;
}

int recover_replica(int fd, uint64_t block, const uint8_t *cluster, struct recovered *ret)
{
    uint8_t sectors[512 * (1 + LAYOUT_MARKS)] = { 0 };
    struct scan s = { .fd = fd };
    struct layout_header h;
    struct stat st;
    size_t got;
    int err;

    if (fstat(fd, &st) != 0) {
        return err_from_errno(errno);
    }
    err = io_pread_some(fd, sectors, sizeof(sectors), 0, &got);
    if (err != 0) {
        return err;
    }
    err = layout_header_get(sectors, &h);
    if (err == DFS_EDAMAGED && st.st_size <= LAYOUT_HEADER_BYTES) {
        *ret = (struct recovered){ .verdict = RECOVER_REMOVE };
        return 0;
    }
    if (err != 0) {
        return err;
    }
    if (h.block != block) {
        return DFS_EDAMAGED;
    }
    if (cluster != NULL && memcmp(cluster, h.cluster, CLUSTER_ID_BYTES) != 0) {
        return DFS_EWRONGCLUSTER;
    }
    if (h.state == LAYOUT_COPY) {
        *ret = (struct recovered){ .verdict = RECOVER_REMOVE };
        return 0;
    }
    s.limit = layout_len_of_file((uint64_t)st.st_size);
    if (h.state == LAYOUT_SEALED) {
        uint32_t len = MIN(s.limit, h.sealed_len);

        *ret = (struct recovered){
            .state = RULE_SEALED, .len = len, .durable = true, .missing = h.sealed_len - len
        };
        return 0;
    }
    for (uint32_t i = 0; i < LAYOUT_MARKS; i++) {
        if (layout_mark_get(sectors + layout_mark_at(i), &s.marks[s.mark_count]) == 0) {
            s.mark_count++;
        }
    }
    return recover_unsealed(&s, h.sealed_len, h.state == LAYOUT_SEALING, ret);
}
