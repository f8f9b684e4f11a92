#include "replication/store/replica_rules.h"

#include "cluster/base/crc32c.h"

#include "replication/store/layout.h"

const struct sm_state rule_states[RULE_GONE + 1] = {
    [RULE_COPY] = { "copy", SM_BIT(RULE_SEALED) | SM_BIT(RULE_GONE) },
    [RULE_OPEN] = { "open", SM_BIT(RULE_SEALED) | SM_BIT(RULE_GONE) },
    [RULE_SEALED] = { "sealed", SM_BIT(RULE_GONE) },
    [RULE_GONE] = { "gone", 0 },
};

int rule_open(const struct rule_replica *r, uint32_t offset, uint8_t flags,
              enum rule_open *ret_what)
{
    bool copy = (flags & WRITE_COPY) != 0;

    if (r == NULL || r->state == RULE_GONE) {
        if (offset != 0) {
            return DFS_ENOBLOCK;
        }
        *ret_what = RULE_CREATE;
        return 0;
    }
    if (r->state == RULE_COPY) {
        /* Its writer is gone, or the store would still wait for it. */
        if (!copy || offset != 0) {
            return DFS_EBUSY;
        }
        *ret_what = RULE_REPLACE;
        return 0;
    }
    if (copy) {
        return DFS_EEXIST;
    }
    if (r->state == RULE_SEALED) {
        return DFS_ESEALED;
    }
    if (offset != r->len) {
        return DFS_EOFFSET;
    }
    *ret_what = RULE_CONTINUE;
    return 0;
}

int rule_append(const struct rule_replica *r, uint32_t offset, uint32_t len)
{
    if (r->state == RULE_GONE) {
        return DFS_ENOBLOCK;
    }
    if (r->state == RULE_SEALED) {
        return DFS_ESEALED;
    }
    if (offset != r->len) {
        return DFS_EOFFSET;
    }
    return len > LAYOUT_REPLICA_MAX - offset ? DFS_EFBIG : 0;
}

int rule_seal(const struct rule_replica *r, uint32_t len, bool *ret_cut)
{
    if (r->state == RULE_GONE) {
        return DFS_ENOBLOCK;
    }
    if (r->len < len) {
        return DFS_EOFFSET;
    }
    *ret_cut = r->len > len;
    return 0;
}

int rule_packet(uint32_t offset, uint32_t len, uint32_t data_len, uint32_t *ret_sums)
{
    uint32_t sums;

    if (len > PACKET_BYTES || offset > LAYOUT_REPLICA_MAX || len > LAYOUT_REPLICA_MAX - offset) {
        return DFS_EFBIG;
    }
    sums = layout_chunks_touched(offset, len);
    if (data_len != sums * 4 + len) {
        return DFS_EMALFORMED;
    }
    *ret_sums = sums;
    return 0;
}

int rule_check_sums(uint32_t offset, struct slice data, const uint32_t *sums)
{
    size_t done = 0;

    for (uint32_t i = 0; done < data.len; i++) {
        size_t n = MIN(CHUNK_BYTES - (offset + done) % CHUNK_BYTES, data.len - done);

        if (crc32c(0, data.p + done, n) != sums[i]) {
            return DFS_ECHECKSUM;
        }
        done += n;
    }
    return 0;
}

uint32_t rule_make_sums(uint32_t offset, struct slice data, uint32_t *sums)
{
    size_t done = 0;
    uint32_t count = 0;

    while (done < data.len) {
        size_t n = MIN(CHUNK_BYTES - (offset + done) % CHUNK_BYTES, data.len - done);

        sums[count++] = crc32c(0, data.p + done, n);
        done += n;
    }
    return count;
}
