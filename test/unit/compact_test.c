/* Compaction: which blocks, which extents together, and the commands that move them. */
#include "fs/role/compact.h"

#include "test/unit/ns_rig.h"

#define NOW (INT64_C(100) * NS_PER_SEC)

/* ---- the plan ---- */

static struct block_rec sealed(uint32_t len, uint64_t live)
{
    struct block_rec r = { .state = BLOCK_SEALED, .len = len, .node_count = 2 };

    r.live[2] = live;
    return r;
}

static void gains(void)
{
    struct block_rec r = sealed(1000, 499);

    CHECK_INT(compact_gain(&r, 50, NOW), 501);
    r = sealed(1000, 500);
    CHECK_INT(compact_gain(&r, 50, NOW), 0);
    r = sealed(1000, 1); /* none at all */
    CHECK_INT(compact_gain(&r, 0, NOW), 0);
    r = sealed(1000, 0); /* dies by itself */
    CHECK_INT(compact_gain(&r, 50, NOW), 0);
    r = sealed(1000, 3000); /* many files share its bytes */
    CHECK_INT(compact_gain(&r, 95, NOW), 0);
    r = sealed(1000, 10);
    r.changed_ns = NOW - NS_PER_SEC; /* just sealed */
    CHECK_INT(compact_gain(&r, 50, NOW), 0);
    r.changed_ns = 0;
    r.session = 3; /* its writer may still commit more of it */
    CHECK_INT(compact_gain(&r, 50, NOW), 0);
    r.session = 0;
    r.state = BLOCK_OPEN;
    CHECK_INT(compact_gain(&r, 50, NOW), 0);
}

static void counts(void)
{
    struct compact_census c = { 0 };
    struct block_rec r = sealed(1000, 300);

    compact_count(&c, &r);
    r.state = BLOCK_OPEN;
    compact_count(&c, &r);
    r.state = BLOCK_DELETED;
    compact_count(&c, &r);
    r = sealed(1000, 5000);
    compact_count(&c, &r);
    CHECK(c.live == 600 + 2000 && c.open == 2000 && c.garbage == 1400 + 2000);
}

/* Block b has copies on servers b and b + 1; block 9 nowhere. */
static uint32_t holder(void *arg, uint64_t block, uint32_t node)
{
    (void)arg;
    if (block == 9 || (node != 0 && node != block && node != block + 1)) {
        return 0;
    }
    return node != 0 ? node : (uint32_t)block;
}

static void add(struct compact_round *r, uint64_t ino, uint64_t from, uint32_t from_off,
                uint32_t len, uint8_t repl)
{
    struct compact_item i = {
        .ino = ino, .off = from_off, .from = from, .from_off = from_off, .len = len, .repl = repl
    };

    CHECK(compact_add_item(r, &i));
}

static void groups(void)
{
    struct compact_round *r = x_alloc(sizeof(*r));
    struct compact_group *g = x_alloc(sizeof(*g));

    add(r, 5, 2, 0, 100, 2);
    add(r, 4, 1, 300, 100, 2);
    add(r, 3, 1, 200, 100, 2);
    add(r, 6, 1, 200, 100, 2); /* shares these bytes */
    add(r, 7, 1, 0, 100, 3);
    add(r, 8, 9, 0, 100, 2);
    add(r, 9, 4, 0, 100, 2);
    compact_sort(r);
    compact_take(r, 250, holder, NULL, g);
    CHECK(g->node == 1 && g->repl == 2 && g->bytes == 200 && g->count == 3);
    CHECK_INT(g->range_count, 1); /* neighbours are read at once */
    CHECK(g->ranges[0].block == 1 && g->ranges[0].off == 200 && g->ranges[0].len == 200);
    CHECK(g->items[0].to_off == 0 && g->items[1].to_off == 0 && g->items[2].to_off == 100);
    compact_take(r, 250, holder, NULL, g);
    CHECK(g->node == 2 && g->bytes == 100 && g->count == 1);
    compact_take(r, 250, holder, NULL, g); /* what nobody has is dropped */
    CHECK(g->node == 4 && g->bytes == 100 && g->count == 1);
    compact_take(r, 250, holder, NULL, g);
    CHECK(g->node == 1 && g->repl == 3 && g->count == 1);
    compact_take(r, 250, holder, NULL, g);
    CHECK(g->node == 0 && g->count == 0 && r->count == 0);
    compact_fini(r);
    free(r);
    free(g);
}

static void worth(void)
{
    struct compact_round *r = x_alloc(sizeof(*r));

    CHECK(!compact_is_worth(r, 0, true));
    for (uint64_t b = 1; b <= COMPACT_BLOCKS_MAX; b++) {
        CHECK(compact_add_block(r, b * 2, 1024));
    }
    CHECK(!compact_add_block(r, 1 << 20, 1));
    CHECK(compact_has_block(r, 2) && compact_has_block(r, 2048) && !compact_has_block(r, 7));
    CHECK(compact_is_worth(r, 64 * MIB, false));
    CHECK(!compact_is_worth(r, 64 * GIB, false));
    CHECK(compact_is_worth(r, 64 * GIB, true));
    free(r);
}

/* ---- the commands ---- */

static struct rig r;

static uint64_t begin(void)
{
    struct compact_begin_req req = { .want = 2 };
    struct compact_begin_rep rep = { 0 };
    struct wire_out nodes;

    wire_out_init(&nodes, 64);
    node_ref_put(&nodes, &(struct node_ref){ 2 });
    node_ref_put(&nodes, &(struct node_ref){ 3 });
    req.nodes = wire_out_list(&nodes, 2);
    CHECK_INT(do_compact_begin(&r, &req, &rep), 0);
    wire_out_fini(&nodes);
    return rep.block;
}

static int do_switch(uint64_t block, uint32_t len, const struct compact_move *m, uint32_t n,
                     uint32_t *ret_moved)
{
    struct compact_switch_req req = { .block = block, .len = len };
    struct compact_switch_rep rep = { 0 };
    struct wire_out moves;
    int err;

    wire_out_init(&moves, 4096);
    for (uint32_t i = 0; i < n; i++) {
        compact_move_put(&moves, &m[i]);
    }
    req.moves = wire_out_list(&moves, n);
    err = do_compact_switch(&r, &req, &rep);
    wire_out_fini(&moves);
    *ret_moved = rep.moved;
    return err;
}

/* A file whose bytes are [0, len) of a block, at block_off; sealing ends the block there. */
static struct attr put(const char *name, uint64_t block, uint32_t block_off, uint32_t len,
                       uint32_t block_len)
{
    struct attr f = rig_mkfile(&r, INODE_ROOT, name);
    struct extent e = { 0, len, block, block_off };
    struct rig_commit c = {
        .ino = f.ino, .size = len, .extents = &e, .count = 1, .block = block, .len = block_len
    };

    CHECK_INT(rig_commit(&r, c, &f), 0);
    return f;
}

static void seal(uint64_t block, uint32_t len)
{
    struct wire_out b;

    wire_out_init(&b, 64);
    commit_block_put(&b, &(struct commit_block){ block, len, 1 });
    CHECK_INT(do_commit(&r, &(struct commit_req){ .blocks = wire_out_list(&b, 1) }, NULL), 0);
    wire_out_fini(&b);
}

static struct extent extent_of(uint64_t ino)
{
    struct extents_rep rep;
    struct extents_req req = { .ino = ino, .max = 50 };
    struct extent e = { 0 };
    struct wire_in in;

    CHECK_INT(ask_extents(&r, &req, &rep), 0);
    CHECK_INT(rep.extents.count, 1);
    in = wire_in_of(rep.extents.items);
    CHECK_INT(extent_get(&in, &e), 0);
    return e;
}

static bool is_wanted(void *arg, uint64_t block)
{
    return block == *(uint64_t *)arg;
}

static int found;

static void find(void *arg, const struct attr *file, const struct extent *e)
{
    (void)arg;
    CHECK(file->ino != 0 && file->repl == 2 && e->len == 100);
    found++;
}

static void moves(void)
{
    struct ns_place at = { 0, 0 };
    struct attr a, b, c;
    struct block_rec rec;
    uint64_t old, new;
    uint32_t moved;
    bool end = false;

    rig_start(&r, "moves");
    old = rig_alloc(&r, 1);
    a = put("a", old, 0, 100, 300);
    b = put("b", old, 100, 100, 300);
    c = put("c", old, 200, 100, 300);
    seal(old, 300);
    for (found = 0; !end;) {
        CHECK_INT(ns_each_extent(r.rd, &at, 2, is_wanted, find, &old, &end), 0);
    }
    CHECK_INT(found, 3);
    new = begin();
    rec = rig_block(&r, new);
    CHECK(rec.state == BLOCK_OPEN && rec.session == NS_COMPACTOR && rec.node_count == 2);
    /* b changes before the switch, c goes */
    CHECK_INT(
        do_setattr(&r, &(struct setattr_req){ .ino = b.ino, .valid = SET_SIZE, .size = 50 }, NULL),
        0);
    CHECK_INT(rig_unlink(&r, INODE_ROOT, "c", 0), 0);
    struct compact_move m[] = { { a.ino, 0, 100, old, 0, 0 },
                                { b.ino, 0, 100, old, 100, 100 },
                                { c.ino + 100, 0, 100, old, 200, 200 },
                                { a.ino, 0, 100, old, 0, 250 } };

    CHECK_INT(do_switch(new, 300, m, 4, &moved), 0);
    CHECK_INT(moved, 1);
    CHECK_INT(extent_of(a.ino).block, new);
    CHECK_INT(extent_of(b.ino).block, old);
    CHECK_INT(rig_stat(&r, a.ino).version, a.version); /* nothing that a program could see */
    CHECK_INT(rig_stat(&r, a.ino).bytes, 100);
    rec = rig_block(&r, new);
    CHECK(rec.state == BLOCK_SEALED && rec.session == 0 && rec.live[2] == 100 && rec.len == 300);
    rec = rig_block(&r, old);
    CHECK_INT(rec.live[2], 150);                     /* b, and c that is not reaped yet */
    CHECK_INT(do_switch(new, 300, m, 4, &moved), 0); /* again: all is as it should be */
    CHECK_INT(moved, 0);
    /* the last bytes move: the old block dies */
    new = begin();
    struct compact_move rest[] = { { b.ino, 0, 50, old, 100, 0 }, { c.ino, 0, 100, old, 200, 50 } };

    CHECK_INT(do_switch(new, 150, rest, 2, &moved), 0);
    CHECK_INT(moved, 2);
    CHECK_INT(rig_block(&r, old).state, BLOCK_DELETED);
    rig_fini(&r);
}

static void given_up(void)
{
    struct compact_drop_req all = { 0 };
    struct wire_out refs;
    struct attr a;
    uint64_t old, one, two;
    uint32_t moved;

    rig_start(&r, "given_up");
    old = rig_alloc(&r, 1);
    a = put("a", old, 0, 100, 100);
    one = begin();
    two = begin();
    wire_out_init(&refs, 64);
    block_ref_put(&refs, &(struct block_ref){ one });
    block_ref_put(&refs, &(struct block_ref){ one });
    block_ref_put(&refs, &(struct block_ref){ old }); /* a client's: not touched */
    CHECK_INT(
        do_compact_drop(&r, &(struct compact_drop_req){ .blocks = wire_out_list(&refs, 3) }, NULL),
        0);
    wire_out_fini(&refs);
    CHECK_INT(rig_block(&r, one).state, BLOCK_DELETED);
    CHECK_INT(rig_block(&r, two).state, BLOCK_OPEN);
    CHECK_INT(rig_block(&r, old).state, BLOCK_OPEN);
    struct compact_move m = { a.ino, 0, 100, old, 0, 0 };

    CHECK_INT(do_switch(one, 100, &m, 1, &moved), DFS_ENOBLOCK); /* too late */
    CHECK_INT(extent_of(a.ino).block, old);
    CHECK_INT(do_compact_drop(&r, &all, NULL), 0);
    CHECK_INT(rig_block(&r, two).state, BLOCK_DELETED);
    rig_fini(&r);
}

int main(void)
{
    tap_run("blocks of which little is used are worth moving", gains);
    tap_run("the census tells used bytes, garbage and what is being written", counts);
    tap_run("extents are grouped by copies and by who has them", groups);
    tap_run("a round begins when enough is won, or space is short", worth);
    tap_run("unchanged extents move, changed ones stay", moves);
    tap_run("a block that was given up dies", given_up);
    return tap_done();
}
