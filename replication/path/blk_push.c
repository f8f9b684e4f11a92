#include "replication/path/blk_push.h"

#include <sys/uio.h>

#include "cluster/base/fault.h"

#define PUSH_WINDOW 4u

void blk_push_init(struct blk_push *p, struct blk_server *s, uint64_t block)
{
    *p = (struct blk_push){ .server = s, .block = block };
    wire_out_init(&p->msg, BLK_MSG_MAX);
    p->buf = buf_pool_get(&s->pool);
}

void blk_push_fini(struct blk_push *p)
{
    conn_close(p->conn);
    buf_pool_put(&p->server->pool, p->buf);
    wire_out_fini(&p->msg);
}

static int take_answer(struct blk_push *p)
{
    struct block_packet_rep rep = { 0 };
    struct window_entry e;
    struct frame f;
    struct slice msg;
    int err = conn_recv(p->conn, &f, &msg, clock_mono_ms() + BLK_PUSH_MS);

    if (err == 0 && (f.data_len != 0 || block_packet_rep_get(msg, &rep) != 0)) {
        err = DFS_EMALFORMED;
    }
    return err != 0 ? err : window_answer(&p->window, f.req_id, f.status, rep.offset, &e);
}

int blk_push_packet(struct blk_push *p, uint32_t offset, uint32_t len, bool last)
{
    struct block_packet_req req = {
        .block = p->block,
        .offset = offset,
        .len = len,
        .flags = (uint8_t)((last ? WRITE_LAST | WRITE_SYNC : 0) | (p->by_file ? WRITE_FILE : 0)),
    };
    struct frame f = { .type = RPC_block_packet, .req_id = ++p->id };
    struct iovec data[2] = {
        { .iov_base = p->buf->sums, .iov_len = (size_t)layout_chunks_touched(offset, len) * 4 },
        { .iov_base = p->buf->data, .iov_len = len },
    };
    struct window_entry e = { .req_id = p->id, .down_id = p->id, .end = offset + len };
    int err = p->window.count == PUSH_WINDOW ? take_answer(p) : 0;

    wire_out_reset(&p->msg);
    block_packet_req_put(&p->msg, &req);
    err = err != 0 ? err : FAULT("blk.copy.send");
    if (err == 0) {
        err = conn_send(p->conn, &f, wire_out_slice(&p->msg), data, p->by_file ? 0 : 2,
                        clock_mono_ms() + BLK_PUSH_MS);
    }
    if (err == 0) {
        window_push(&p->window, &e);
    }
    return err;
}

int blk_push_finish(struct blk_push *p)
{
    int err = 0;

    while (err == 0 && window_oldest(&p->window) != NULL) {
        err = take_answer(p);
    }
    return err;
}
