/* The extents of a file: ordered, never overlapping, as long as possible. Every change is counted in
 * the file's bytes and in the live bytes of the blocks. */
#include "fs/ns/ns_core.h"

int ns_extent_decode(struct slice key, struct slice val, uint64_t *ret_ino, struct extent *ret)
{
    struct wire_in in = wire_in_of(val);
    struct extent e = { .len = wire_get_u64(&in) };

    e.block = wire_get_u64(&in);
    e.block_off = wire_get_u32(&in);
    if (in.err != 0 || in.left != 0 || key.len != 16) {
        return DFS_EDAMAGED;
    }
    e.off = key_get_u64(key.p + 8);
    if (e.len == 0 || e.off > LIMIT_FILE_SIZE || e.len > LIMIT_FILE_SIZE - e.off ||
        e.len > UINT32_MAX) {
        return DFS_EDAMAGED;
    }
    *ret_ino = key_get_u64(key.p);
    *ret = e;
    return 0;
}

static int put(struct ns_tx *tx, uint64_t ino, const struct extent *e)
{
    struct ns_key16 key = ns_key16(ino, e->off);
    uint8_t rec[NS_EXTENT_BYTES];
    struct wire_out out = wire_out_over(rec, sizeof(rec));

    wire_put_u64(&out, e->len);
    wire_put_u64(&out, e->block);
    wire_put_u32(&out, e->block_off);
    ASSERT(out.err == 0);
    return ns_db_put(tx, DB_EXTENTS, KEY_SLICE(key), wire_out_slice(&out));
}

static int del(struct ns_tx *tx, uint64_t ino, uint64_t off)
{
    struct ns_key16 key = ns_key16(ino, off);

    return ns_must(ns_db_del(tx, DB_EXTENTS, KEY_SLICE(key)));
}

/* The extent under the cursor, when it is one of ino. */
static int current(uint64_t ino, MDB_val key, MDB_val val, struct extent *ret)
{
    uint64_t owner;
    struct extent e;
    int err = ns_extent_decode(key_slice(key), key_slice(val), &owner, &e);

    if (err == 0 && owner != ino) {
        err = DFS_ENOENT;
    }
    if (err == 0) {
        *ret = e;
    }
    return err;
}

int ns_extent_find(MDB_cursor *c, uint64_t ino, uint64_t off, struct extent *ret)
{
    struct ns_key16 k = ns_key16(ino, off);
    MDB_val key = key_val(k.b, sizeof(k.b));
    MDB_val val;
    struct extent e;
    int rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);
    bool at_end = rc == MDB_NOTFOUND;
    int err;

    if (rc != 0 && !at_end) {
        return kv_err(rc);
    }
    if (!at_end && memcmp(key.mv_data, k.b, sizeof(k.b)) == 0) {
        return current(ino, key, val, ret);
    }
    rc = mdb_cursor_get(c, &key, &val, at_end ? MDB_LAST : MDB_PREV);
    if (rc == 0) { /* the one before may reach over off */
        err = current(ino, key, val, &e);
        if (err == 0 && e.off + e.len > off) {
            *ret = e;
            return 0;
        }
        if (err != 0 && err != DFS_ENOENT) {
            return err;
        }
    } else if (rc != MDB_NOTFOUND) {
        return kv_err(rc);
    }
    if (at_end) {
        return DFS_ENOENT;
    }
    key = key_val(k.b, sizeof(k.b));
    rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);
    return rc != 0 ? kv_err(rc) : current(ino, key, val, ret);
}

int ns_live_flush(struct ns_tx *tx)
{
    int64_t delta = tx->live_delta;

    tx->live_delta = 0;
    if (delta == 0) {
        return 0;
    }
    return ns_must(mapdb_live(&tx->ns->map, tx->v.txn, &tx->ns->ev.map, tx->live_block,
                              tx->live_repl, tx->live_rule, delta, tx->head->now_ns));
}

/* Gathers changes that concern one block one after the other. */
static int live_add(struct ns_tx *tx, uint64_t block, uint8_t repl, uint16_t rule, int64_t delta)
{
    int err = 0;

    if (tx->live_block != block || tx->live_repl != repl || tx->live_rule != rule) {
        err = ns_live_flush(tx);
        tx->live_block = block;
        tx->live_repl = repl;
        tx->live_rule = rule;
    }
    tx->live_delta += delta;
    return err;
}

/* Bytes of f come (sign 1) or go (-1). */
static int live_range(struct ns_tx *tx, const struct attr *f, uint64_t block, uint64_t off,
                      uint64_t len, int sign)
{
    int err = 0;

    while (err == 0 && len != 0) {
        uint64_t until, n;
        uint16_t rule;
        uint8_t repl;

        err = ns_recount_at(&tx->v, f, off, &repl, &rule, &until);
        n = err == 0 ? MIN(len, until - off) : 0;
        err = err != 0 ? err : live_add(tx, block, repl, rule, sign * (int64_t)n);
        off += n;
        len -= n;
    }
    return err;
}

static int lose(struct ns_tx *tx, struct attr *f, uint64_t block, uint64_t off, uint64_t len)
{
    f->bytes -= len;
    tx->ns->state.file_bytes -= len;
    return live_range(tx, f, block, off, len, -1);
}

/* Takes [from, to) out of one extent that lies in it at least partly. */
static int cut_one(struct ns_tx *tx, struct attr *f, struct extent e, uint64_t from, uint64_t to)
{
    uint64_t end = e.off + e.len;
    uint64_t cut_from = MAX(e.off, from);
    uint64_t cut_to = MIN(end, to);
    int err = 0;

    if (e.off < from) {
        struct extent front = e;

        front.len = from - e.off;
        err = put(tx, f->ino, &front);
    } else {
        err = del(tx, f->ino, e.off);
    }
    if (err == 0 && end > to) {
        struct extent tail = e;

        tail.off = to;
        tail.len = end - to;
        tail.block_off = (uint32_t)(e.block_off + (to - e.off));
        err = put(tx, f->ino, &tail);
    }
    return err != 0 ? err : lose(tx, f, e.block, cut_from, cut_to - cut_from);
}

static int cut(struct ns_tx *tx, MDB_cursor *c, struct attr *f, uint64_t from, uint64_t to)
{
    struct extent e;
    int err;

    while ((err = ns_extent_find(c, f->ino, from, &e)) == 0 && e.off < to) {
        err = cut_one(tx, f, e, from, to);
        if (err != 0) {
            return err;
        }
    }
    return err == DFS_ENOENT ? 0 : err;
}

static int open_cursor(struct ns_tx *tx, MDB_cursor **ret)
{
    return kv_err(mdb_cursor_open(tx->v.txn, tx->ns->db[DB_EXTENTS], ret));
}

int ns_extent_covered(const struct ns_view *v, const struct attr *f, uint64_t from, uint64_t to,
                      uint64_t *sum)
{
    struct extent e;
    MDB_cursor *c;
    int err;

    if (f->bytes == 0) {
        return 0;
    }
    err = kv_err(mdb_cursor_open(v->txn, v->ns->db[DB_EXTENTS], &c));
    if (err != 0) {
        return err;
    }
    while ((err = ns_extent_find(c, f->ino, from, &e)) == 0 && e.off < to) {
        *sum += MIN(e.off + e.len, to) - MAX(e.off, from);
        from = e.off + e.len;
    }
    mdb_cursor_close(c);
    return err == DFS_ENOENT ? 0 : err;
}

int ns_extent_cut(struct ns_tx *tx, struct attr *f, uint64_t from, uint64_t to)
{
    MDB_cursor *c;
    int err;

    if (f->bytes == 0) {
        return 0;
    }
    err = open_cursor(tx, &c);
    if (err == 0) {
        err = cut(tx, c, f, from, to);
        mdb_cursor_close(c);
    }
    return err;
}

int ns_extent_reach(struct ns_tx *tx, const struct attr *f, uint64_t from, uint64_t to,
                    uint32_t max, uint64_t *ret_to)
{
    uint64_t pos = from;
    struct extent e;
    MDB_cursor *c;
    int err = open_cursor(tx, &c);

    if (err != 0) {
        return err;
    }
    for (uint32_t i = 0; (err = ns_extent_find(c, f->ino, pos, &e)) == 0 && e.off < to; i++) {
        if (i == max) {
            to = MAX(e.off, from);
            break;
        }
        pos = e.off + e.len;
    }
    mdb_cursor_close(c);
    if (err == 0 || err == DFS_ENOENT) {
        *ret_to = to;
        return 0;
    }
    return err;
}

int ns_extent_list(struct ns_tx *tx, const struct attr *f, uint64_t from, uint64_t to,
                   struct extent *ret, uint32_t *ret_count)
{
    uint32_t count = 0;
    struct extent e;
    MDB_cursor *c;
    int err = open_cursor(tx, &c);

    if (err != 0) {
        return err;
    }
    for (uint64_t pos = from; (err = ns_extent_find(c, f->ino, pos, &e)) == 0 && e.off < to;) {
        uint64_t skip = e.off < from ? from - e.off : 0;

        pos = e.off + e.len;
        ret[count++] = (struct extent){ .off = e.off + skip,
                                        .len = MIN(pos, to) - (e.off + skip),
                                        .block = e.block,
                                        .block_off = (uint32_t)(e.block_off + skip) };
    }
    mdb_cursor_close(c);
    if (err == 0 || err == DFS_ENOENT) {
        *ret_count = count;
        return 0;
    }
    return err;
}

/* b goes on where a ends, in the file and in the block. Lengths stay within a block's. */
static bool joins(const struct extent *a, const struct extent *b)
{
    return a->off + a->len == b->off && a->block == b->block &&
           a->block_off + a->len == b->block_off;
}

/* Grows e by its neighbours and removes the record of the one behind. */
static int merge(struct ns_tx *tx, MDB_cursor *c, uint64_t ino, struct extent *e)
{
    struct extent n;
    int err = DFS_ENOENT;

    if (e->off != 0) {
        err = ns_extent_find(c, ino, e->off - 1, &n);
        if (err == 0 && joins(&n, e)) {
            e->len += n.len;
            e->off = n.off;
            e->block_off = n.block_off;
        }
    }
    if (err != 0 && err != DFS_ENOENT) {
        return err;
    }
    err = ns_extent_find(c, ino, e->off + e->len, &n);
    if (err == 0 && joins(e, &n)) {
        e->len += n.len;
        err = del(tx, ino, n.off);
    }
    return err == DFS_ENOENT ? 0 : err;
}

/* Two extents instead of one that reaches over off. */
static int split(struct ns_tx *tx, MDB_cursor *c, uint64_t ino, uint64_t off)
{
    struct extent e;
    int err = ns_extent_find(c, ino, off, &e);

    if (err != 0 || e.off >= off) {
        return err == DFS_ENOENT ? 0 : err;
    }
    struct extent tail = { .off = off,
                           .len = e.off + e.len - off,
                           .block = e.block,
                           .block_off = (uint32_t)(e.block_off + (off - e.off)) };

    e.len = off - e.off;
    err = put(tx, ino, &e);
    return err != 0 ? err : put(tx, ino, &tail);
}

/* The last extent of ino that begins below `end`. */
static int last_below(MDB_cursor *c, uint64_t ino, uint64_t end, struct extent *ret)
{
    struct ns_key16 k = ns_key16(ino, end);
    MDB_val key = key_val(k.b, sizeof(k.b));
    MDB_val val;
    int rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);

    if (rc == 0 || rc == MDB_NOTFOUND) {
        rc = mdb_cursor_get(c, &key, &val, rc == 0 ? MDB_PREV : MDB_LAST);
    }
    return rc != 0 ? kv_err(rc) : current(ino, key, val, ret);
}

int ns_extent_reach_back(struct ns_tx *tx, const struct attr *f, uint64_t from, uint32_t max,
                         uint64_t *ret_from)
{
    uint64_t end = LIMIT_FILE_SIZE;
    struct extent e;
    MDB_cursor *c;
    int err = open_cursor(tx, &c);

    if (err != 0) {
        return err;
    }
    for (uint32_t i = 0; (err = last_below(c, f->ino, end, &e)) == 0 && e.off + e.len > from; i++) {
        if (i == max) {
            from = MAX(e.off + e.len, from);
            break;
        }
        end = e.off;
    }
    mdb_cursor_close(c);
    if (err == 0 || err == DFS_ENOENT) {
        *ret_from = from;
        return 0;
    }
    return err;
}

static int move(struct ns_tx *tx, uint64_t ino, const struct extent *e, uint64_t to)
{
    struct extent moved = *e;
    int err = del(tx, ino, e->off);

    moved.off = to;
    return err != 0 ? err : put(tx, ino, &moved);
}

int ns_extent_shift_up(struct ns_tx *tx, const struct attr *f, uint64_t off, uint64_t by)
{
    uint64_t end = LIMIT_FILE_SIZE;
    struct extent e;
    MDB_cursor *c;
    int err = open_cursor(tx, &c);

    if (err != 0) {
        return err;
    }
    err = split(tx, c, f->ino, off);
    while (err == 0 && end > off && (err = last_below(c, f->ino, end, &e)) == 0 && e.off >= off) {
        err = move(tx, f->ino, &e, e.off + by);
        end = e.off;
    }
    mdb_cursor_close(c);
    return err == DFS_ENOENT ? 0 : err;
}

int ns_extent_shift_down(struct ns_tx *tx, const struct attr *f, uint64_t off, uint64_t by)
{
    uint64_t pos = off;
    struct extent e;
    MDB_cursor *c;
    int err = open_cursor(tx, &c);

    if (err != 0) {
        return err;
    }
    while (err == 0 && (err = ns_extent_find(c, f->ino, pos, &e)) == 0) {
        pos = e.off + e.len;
        err = move(tx, f->ino, &e, e.off - by);
    }
    if (err == DFS_ENOENT) { /* what was apart may go on in the same block now */
        err = ns_extent_find(c, f->ino, off - by, &e);
        if (err == 0 && e.off == off - by) {
            err = del(tx, f->ino, e.off);
            err = err != 0 ? err : merge(tx, c, f->ino, &e);
            err = err != 0 ? err : put(tx, f->ino, &e);
        }
    }
    mdb_cursor_close(c);
    return err == DFS_ENOENT ? 0 : err;
}

int ns_extent_claim(struct ns_tx *tx, const struct attr *f, const struct extent *e)
{
    return live_range(tx, f, e->block, e->off, e->len, 1);
}

int ns_extent_insert(struct ns_tx *tx, struct attr *f, const struct extent *e)
{
    struct extent whole = *e;
    uint64_t before = f->bytes;
    MDB_cursor *c;
    int err;

    f->bytes += e->len;
    tx->ns->state.file_bytes += e->len;
    if (before == 0) {
        return put(tx, f->ino, e);
    }
    err = open_cursor(tx, &c);
    if (err != 0) {
        return err;
    }
    err = cut(tx, c, f, e->off, e->off + e->len);
    err = err != 0 ? err : merge(tx, c, f->ino, &whole);
    err = err != 0 ? err : put(tx, f->ino, &whole);
    mdb_cursor_close(c);
    return err;
}

int ns_extent_drop(struct ns_tx *tx, struct attr *f, uint32_t max)
{
    struct extent e;
    MDB_cursor *c;
    int err;

    if (f->bytes == 0) {
        return 0;
    }
    err = open_cursor(tx, &c);
    if (err != 0) {
        return err;
    }
    for (uint32_t i = 0; err == 0 && i < max; i++) {
        err = ns_extent_find(c, f->ino, 0, &e);
        err = err != 0 ? err : kv_err(mdb_cursor_del(c, 0));
        err = err != 0 ? err : lose(tx, f, e.block, e.off, e.len);
    }
    mdb_cursor_close(c);
    return err == DFS_ENOENT ? 0 : err;
}

/* Bytes of max extents at most, from `from` on; *ret_end as ns_extent_recount(). */
static int count_some(struct ns_tx *tx, MDB_cursor *c, uint64_t ino, uint64_t from, uint32_t max,
                      uint8_t repl, uint16_t rule, int sign, uint64_t *ret_end)
{
    struct extent e;
    uint64_t off = from;
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < max; i++) {
        err = ns_extent_find(c, ino, off, &e);
        if (err == 0) {
            uint64_t at = MAX(e.off, from); /* it may have grown to the front since */

            off = e.off + e.len;
            err = live_add(tx, e.block, repl, rule, sign * (int64_t)(off - at));
        }
    }
    if (err != 0 && err != DFS_ENOENT) {
        return err;
    }
    *ret_end = err == DFS_ENOENT ? UINT64_MAX : off;
    return ns_live_flush(tx);
}

int ns_extent_recount(struct ns_tx *tx, const struct attr *f, uint64_t from, uint32_t max,
                      uint8_t repl, uint16_t rule, uint64_t *ret_end)
{
    MDB_cursor *c;
    uint64_t end;
    int err = open_cursor(tx, &c);

    if (err != 0) {
        return err;
    }
    /* First up, then down: never without bytes. */
    err = count_some(tx, c, f->ino, from, max, f->repl, f->storage, 1, ret_end);
    err = err != 0 ? err : count_some(tx, c, f->ino, from, max, repl, rule, -1, &end);
    mdb_cursor_close(c);
    return err;
}
