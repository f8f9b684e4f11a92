#include "cluster/wire/frame.h"

#include "cluster/base/crc32c.h"

static const uint8_t magic[4] = { 'D', 'F', 'S', '1' };

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> (8 * i));
    }
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void frame_header_put(uint8_t out[FRAME_HEADER_BYTES], const struct frame *f, struct slice msg)
{
    ASSERT(f->msg_len == msg.len);
    memcpy(out, magic, sizeof(magic));
    out[4] = (uint8_t)f->type;
    out[5] = (uint8_t)(f->type >> 8);
    out[6] = (uint8_t)f->flags;
    out[7] = (uint8_t)(f->flags >> 8);
    put32(out + 8, f->status);
    put32(out + 12, f->msg_len);
    put32(out + 16, f->data_len);
    put32(out + 20, (uint32_t)f->req_id);
    put32(out + 24, (uint32_t)(f->req_id >> 32));
    put32(out + 28, crc32c(crc32c(0, out, 28), msg.p, msg.len));
}

int frame_header_get(const uint8_t in[FRAME_HEADER_BYTES], struct frame *ret)
{
    struct frame f = {
        .type = (uint16_t)(in[4] | in[5] << 8),
        .flags = (uint16_t)(in[6] | in[7] << 8),
        .status = get32(in + 8),
        .msg_len = get32(in + 12),
        .data_len = get32(in + 16),
        .req_id = get32(in + 20) | (uint64_t)get32(in + 24) << 32,
        .crc = get32(in + 28),
    };

    if (memcmp(in, magic, sizeof(magic)) != 0) {
        return DFS_EMALFORMED;
    }
    if (f.msg_len > LIMIT_MSG || f.data_len > LIMIT_DATA) {
        return DFS_ETOOBIG;
    }
    *ret = f;
    return DFS_OK;
}

int frame_check(const uint8_t header[FRAME_HEADER_BYTES], struct slice msg)
{
    return crc32c(crc32c(0, header, 28), msg.p, msg.len) == get32(header + 28) ? DFS_OK
                                                                               : DFS_ECHECKSUM;
}
