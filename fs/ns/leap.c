/* Ids after a backup was put back. Blocks, inodes and sessions that were given after it was made are
 * not known any more, but servers and clients still have them: the ids leap over these, and what was
 * leapt over is remembered. A block in there is no stray: the next backup that is put back may know it. */
#include "fs/ns/query.h"

#define PREFIX_BYTES 4u
#define BLOCK_MAX    (UINT64_C(1) << 62) /* a greater id is nobody's */

static const uint8_t prefix[PREFIX_BYTES] = { 'l', 'e', 'a', 'p' };

int ns_do_ns_leap(struct ns_tx *tx, const struct ns_leap_req *req, struct ns_leap_rep *rep)
{
    struct ns_state *s = &tx->ns->state;
    uint8_t key[PREFIX_BYTES + 8];
    uint8_t rec[16];
    struct wire_out out = wire_out_over(rec, sizeof(rec));
    uint64_t to;
    int err;

    if (req->by == 0 || req->by >= BLOCK_MAX || req->block >= BLOCK_MAX ||
        s->next_block >= BLOCK_MAX) {
        return DFS_EINVAL;
    }
    rep->next_block = s->next_block;
    if (req->block != 0 && req->block < s->next_block) {
        return 0;
    }
    to = MAX(s->next_block, req->block + 1) + req->by;
    memcpy(key, prefix, PREFIX_BYTES);
    key_put_u64(key + PREFIX_BYTES, s->next_block);
    wire_put_u64(&out, to);
    wire_put_u64(&out, (uint64_t)tx->head->now_ns);
    ASSERT(out.err == 0);
    err = ns_db_put(tx, DB_META, slice_of(key, sizeof(key)), wire_out_slice(&out));
    if (err == 0) {
        s->next_block = rep->next_block = to;
        s->next_ino += req->by;
        s->next_session += req->by;
    }
    return err;
}

struct walk {
    ns_leap_fn *fn;
    void *arg;
};

static bool take(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct walk *w = arg;
    struct wire_in in = wire_in_of(val);
    uint64_t to = wire_get_u64(&in);
    int64_t since_ns = (int64_t)wire_get_u64(&in);

    if (key.len < PREFIX_BYTES || memcmp(key.p, prefix, PREFIX_BYTES) != 0) {
        return false;
    }
    if (key.len != PREFIX_BYTES + 8 || in.err != 0) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    w->fn(w->arg, key_get_u64(key.p + PREFIX_BYTES), to, since_ns);
    return true;
}

int ns_each_leap(struct ns_reader *r, ns_leap_fn *fn, void *arg)
{
    struct walk w = { fn, arg };
    int err = ns_reader_begin(r);

    if (err == 0) {
        err = ns_db_each(&r->v, DB_META, slice_of(prefix, PREFIX_BYTES), take, &w);
        ns_reader_end(r);
    }
    return err;
}
