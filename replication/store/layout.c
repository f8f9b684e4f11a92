#include "replication/store/layout.h"

#include "cluster/base/crc32c.h"

static const uint8_t magic[8] = { 'D', 'F', 'S', 'R', 'E', 'P', 'L', '1' };

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

uint32_t layout_len_of_file(uint64_t file_bytes)
{
    uint64_t groups, rest;

    if (file_bytes <= LAYOUT_HEADER_BYTES) {
        return 0;
    }
    groups = (file_bytes - LAYOUT_HEADER_BYTES) / LAYOUT_GROUP_STRIDE;
    rest = (file_bytes - LAYOUT_HEADER_BYTES) % LAYOUT_GROUP_STRIDE;
    rest = rest > LAYOUT_SUMS_BYTES ? rest - LAYOUT_SUMS_BYTES : 0;
    return (uint32_t)MIN(groups * LAYOUT_GROUP_BYTES + rest, LAYOUT_REPLICA_MAX);
}

void layout_header_put(uint8_t out[LAYOUT_RECORD_BYTES], const struct layout_header *h)
{
    memcpy(out, magic, sizeof(magic));
    put32(out + 8, LAYOUT_VERSION);
    put32(out + 12, (uint32_t)h->state);
    memcpy(out + 16, h->cluster, CLUSTER_ID_BYTES);
    memcpy(out + 32, &h->block, sizeof(h->block));
    put32(out + 40, h->sealed_len);
    put32(out + 44, crc32c(0, out, 44));
}

int layout_header_get(const uint8_t in[LAYOUT_RECORD_BYTES], struct layout_header *ret)
{
    struct layout_header h = { .sealed_len = get32(in + 40) };
    uint32_t state = get32(in + 12);

    if (memcmp(in, magic, sizeof(magic)) != 0 || crc32c(0, in, 44) != get32(in + 44)) {
        return DFS_EDAMAGED;
    }
    if (get32(in + 8) != LAYOUT_VERSION) {
        return DFS_EVERSION;
    }
    if (state < LAYOUT_OPEN || state > LAYOUT_COPY || h.sealed_len > LAYOUT_REPLICA_MAX) {
        return DFS_EDAMAGED;
    }
    h.state = (enum layout_state)state;
    memcpy(h.cluster, in + 16, CLUSTER_ID_BYTES);
    memcpy(&h.block, in + 32, sizeof(h.block));
    *ret = h;
    return 0;
}

void layout_mark_put(uint8_t out[LAYOUT_MARK_BYTES], const struct layout_mark *m)
{
    put32(out, m->number);
    put32(out + 4, m->len);
    put32(out + 8, m->sum);
    put32(out + 12, crc32c(0, out, 12));
}

int layout_mark_get(const uint8_t in[LAYOUT_MARK_BYTES], struct layout_mark *ret)
{
    struct layout_mark m = { .number = get32(in), .len = get32(in + 4), .sum = get32(in + 8) };

    if (m.number == 0 || m.len > LAYOUT_REPLICA_MAX || crc32c(0, in, 12) != get32(in + 12)) {
        return DFS_EDAMAGED;
    }
    *ret = m;
    return 0;
}
