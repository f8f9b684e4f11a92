/* What files hold: commits, truncation, replication, the life of blocks. */
#include "test/unit/ns_rig.h"

#define ROOT INODE_ROOT

static struct rig r;

/* Everything that extents says, in one line: "off+len=block@off ..." */
static const char *map_of(uint64_t ino)
{
    static char text[2000];
    struct extents_rep rep;
    struct extents_req req = { .ino = ino, .max = 50 };
    struct wire_in in;
    size_t n = 0;

    text[0] = '\0';
    CHECK_INT(ask_extents(&r, &req, &rep), 0);
    CHECK_INT(rep.more, 0);
    in = wire_in_of(rep.extents.items);
    for (uint32_t i = 0; i < rep.extents.count; i++) {
        struct extent e;

        CHECK_INT(extent_get(&in, &e), 0);
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%ju+%ju=%ju@%u", i == 0 ? "" : " ",
                              (uintmax_t)e.off, (uintmax_t)e.len, (uintmax_t)e.block, e.block_off);
    }
    return text;
}

static bool is_map(uint64_t ino, const char *want)
{
    const char *got = map_of(ino);

    if (strcmp(got, want) != 0) {
        printf("# %s, expected %s\n", got, want);
        return false;
    }
    return true;
}

static const char *text(const char *fmt, ...) PRINTF_LIKE(1, 2);
static const char *text(const char *fmt, ...)
{
    static char buf[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    return buf;
}

static struct attr file(const char *name)
{
    return rig_mkfile(&r, ROOT, name);
}

/* One extent of one block whose committed length grows to its end. */
static int put(uint64_t ino, uint64_t off, uint64_t len, uint64_t block, uint32_t block_off,
               struct attr *ret)
{
    struct extent e = { off, len, block, block_off };

    return rig_commit(&r,
                      (struct rig_commit){ .ino = ino,
                                           .size = off + len,
                                           .extents = &e,
                                           .count = 1,
                                           .block = block,
                                           .len = (uint32_t)(block_off + len) },
                      ret);
}

static int truncate_to(uint64_t ino, uint64_t size)
{
    return do_setattr(&r, &(struct setattr_req){ .ino = ino, .valid = SET_SIZE, .size = size },
                      NULL);
}

static int seal(uint64_t block, uint32_t len)
{
    struct wire_out b;
    int err;

    wire_out_init(&b, 64);
    commit_block_put(&b, &(struct commit_block){ block, len, 1 });
    err = do_commit(&r, &(struct commit_req){ .blocks = wire_out_list(&b, 1) }, NULL);
    wire_out_fini(&b);
    return err;
}

static uint64_t live(uint64_t block)
{
    struct block_rec rec = rig_block(&r, block);

    return block_rec_live(&rec);
}

static void alloc_gives_blocks_on_chosen_servers(void)
{
    uint64_t b = rig_alloc(&r, 3);
    struct block_alloc_req req = { .want = 2, .kind = BLOCK_STREAM, .count = 1 };
    struct wire_out nodes, choices;
    struct locate_rep rep;
    struct wire_out refs;
    struct block_loc loc;
    struct node_addr addr;
    struct wire_in in;

    CHECK_INT(rig_block(&r, b + 2).session, r.hdr.session);
    CHECK_INT(rig_block(&r, b).state, BLOCK_OPEN);
    wire_out_init(&refs, 64);
    block_ref_put(&refs, &(struct block_ref){ b + 1 });
    block_ref_put(&refs, &(struct block_ref){ 999999 });
    CHECK_INT(ask_locate(&r, &(struct locate_req){ .blocks = wire_out_list(&refs, 2) }, &rep), 0);
    CHECK_INT(rep.blocks.count, 1);
    in = wire_in_of(rep.blocks.items);
    CHECK_INT(block_loc_get(&in, &loc), 0);
    CHECK_INT(loc.block, b + 1);
    CHECK_INT(loc.nodes.count, 2);
    in = wire_in_of(loc.nodes.items);
    CHECK_INT(node_addr_get(&in, &addr), 0);
    CHECK_INT(addr.node, 1);
    CHECK(slice_eq(addr.addr, slice_str("10.0.0.1:9700")));
    wire_out_fini(&refs);

    CHECK_INT(do_block_alloc(&r, &req, NULL), DFS_ENOSERVERS); /* the leader chose none */
    wire_out_init(&nodes, 64);
    wire_out_init(&choices, 256);
    node_ref_put(&nodes, &(struct node_ref){ 77 }); /* nobody knows it */
    block_choice_put(&choices, &(struct block_choice){ wire_out_list(&nodes, 1) });
    wire_put_list(&r.choice, wire_out_list(&choices, 1));
    CHECK_INT(do_block_alloc(&r, &req, NULL), DFS_ENOSERVERS);
    req.kind = 9;
    CHECK_INT(do_block_alloc(&r, &req, NULL), DFS_EINVAL);
    wire_out_reset(&r.choice);
    wire_out_fini(&nodes);
    wire_out_fini(&choices);
}

static void a_stream_stays_one_extent(void)
{
    struct attr f = file("stream");
    uint64_t b = rig_alloc(&r, 2);
    struct attr a;

    for (uint32_t i = 0; i < 64; i++) {
        CHECK_INT(put(f.ino, i * 100, 100, b, i * 100, &a), 0);
    }
    CHECK(is_map(f.ino, text("0+6400=%ju@0", (uintmax_t)b)));
    CHECK_INT(a.size, 6400);
    CHECK_INT(a.bytes, 6400);
    CHECK_INT(live(b), 6400);
    CHECK_INT(rig_block(&r, b).live[2], 6400);
    CHECK_INT(put(f.ino, 6400, 100, b + 1, 0, &a), 0);
    CHECK(is_map(f.ino, text("0+6400=%ju@0 6400+100=%ju@0", (uintmax_t)b, (uintmax_t)(b + 1))));
    CHECK_INT(a.data_version, f.data_version + 65);
}

static void overwriting_cuts_what_was_there(void)
{
    struct attr f = file("over");
    uint64_t b = rig_alloc(&r, 4);
    uintmax_t b0 = b, b1 = b + 1, b2 = b + 2, b3 = b + 3;
    struct attr a;

    CHECK_INT(put(f.ino, 0, 1000, b, 0, &a), 0);
    CHECK_INT(put(f.ino, 400, 200, b + 1, 0, &a), 0); /* the middle */
    CHECK(is_map(f.ino, text("0+400=%ju@0 400+200=%ju@0 600+400=%ju@600", b0, b1, b0)));
    CHECK_INT(live(b), 800);
    CHECK_INT(a.bytes, 1000);
    CHECK_INT(put(f.ino, 0, 100, b + 2, 0, &a), 0); /* the front */
    CHECK(is_map(
        f.ino, text("0+100=%ju@0 100+300=%ju@100 400+200=%ju@0 600+400=%ju@600", b2, b0, b1, b0)));
    CHECK_INT(put(f.ino, 900, 300, b + 2, 100, &a), 0); /* the tail, and beyond */
    CHECK_INT(a.size, 1200);
    CHECK_INT(put(f.ino, 50, 1000, b + 3, 0, &a), 0); /* several at a time */
    CHECK(is_map(f.ino, text("0+50=%ju@0 50+1000=%ju@0 1050+150=%ju@250", b2, b3, b2)));
    CHECK_INT(live(b), 0);
    CHECK_INT(live(b + 1), 0);
    CHECK_INT(live(b + 2), 200);
    CHECK_INT(live(b + 3), 1000);
    CHECK_INT(a.bytes, 1200);
    CHECK_INT(rig_block(&r, b).state, BLOCK_OPEN); /* open ones stay */
}

static void neighbours_join_on_both_sides(void)
{
    struct attr f = file("join");
    uint64_t b = rig_alloc(&r, 1);

    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    CHECK_INT(put(f.ino, 200, 100, b, 200, NULL), 0);
    CHECK(is_map(f.ino, text("0+100=%ju@0 200+100=%ju@200", (uintmax_t)b, (uintmax_t)b)));
    CHECK_INT(put(f.ino, 100, 100, b, 100, NULL), 0);
    CHECK(is_map(f.ino, text("0+300=%ju@0", (uintmax_t)b)));
    CHECK_INT(put(f.ino, 100, 50, b, 100, NULL), 0); /* the same bytes once more */
    CHECK(is_map(f.ino, text("0+300=%ju@0", (uintmax_t)b)));
    CHECK_INT(live(b), 300);
}

static void truncate_cuts_and_leaves_holes(void)
{
    struct attr f = file("trunc");
    uint64_t b = rig_alloc(&r, 2);
    struct attr a;

    CHECK_INT(put(f.ino, 0, 1000, b, 0, NULL), 0);
    CHECK_INT(put(f.ino, 1000, 1000, b + 1, 0, NULL), 0);
    CHECK_INT(truncate_to(f.ino, 1500), 0);
    CHECK_INT(truncate_to(f.ino, 700), 0);
    CHECK(is_map(f.ino, text("0+700=%ju@0", (uintmax_t)b)));
    CHECK_INT(live(b), 700);
    CHECK_INT(live(b + 1), 0);
    CHECK_INT(truncate_to(f.ino, 5000), 0); /* zeroes, not the old bytes */
    a = rig_stat(&r, f.ino);
    CHECK_INT(a.size, 5000);
    CHECK_INT(a.bytes, 700);
    CHECK_INT(put(f.ino, 4000, 10, b + 1, 1000, NULL), 0);
    CHECK_INT(rig_stat(&r, f.ino).size, 5000); /* a commit never shortens */
    CHECK_INT(truncate_to(f.ino, 0), 0);
    CHECK(is_map(f.ino, ""));
    CHECK_INT(live(b), 0);
}

/* One command does not go through any number of extents: what is left is seen in the size. */
static void truncate_goes_in_steps(void)
{
    const uint32_t each = LIMIT_COMMIT_EXTENTS, commits = LIMIT_SHIFT_EXTENTS / each + 1;
    struct extent *e = x_alloc(each * sizeof(*e));
    struct attr f = rig_mkfile(&r, ROOT, "very-many");
    uint64_t block = rig_alloc(&r, 1);
    uint32_t len = 0;

    for (uint32_t n = 0; n < commits; n++) {
        for (uint32_t i = 0; i < each; i++, len += 16) { /* apart from each other */
            e[i] = (struct extent){
                .off = (uint64_t)len * 2, .len = 16, .block = block, .block_off = len
            };
        }
        CHECK_INT(
            rig_commit(&r,
                       (struct rig_commit){
                           .ino = f.ino, .extents = e, .count = each, .block = block, .len = len },
                       &f),
            0);
    }
    CHECK_INT(f.bytes, len);
    CHECK_INT(truncate_to(f.ino, 40), 0);
    f = rig_stat(&r, f.ino);
    CHECK_INT(f.size, (commits * each - LIMIT_SHIFT_EXTENTS) * 32 - 16);
    CHECK_INT(f.bytes, (commits * each - LIMIT_SHIFT_EXTENTS) * 16);
    CHECK_INT(truncate_to(f.ino, 40), 0);
    f = rig_stat(&r, f.ino);
    CHECK_INT(f.size, 40);
    CHECK_INT(f.bytes, 24);
    CHECK_INT(rig_block(&r, block).live[2], 24);
    free(e);
}

static void appends_go_to_the_end(void)
{
    struct attr f = file("append");
    uint64_t b = rig_alloc(&r, 1);
    struct extent e = { 0, 10, b, 0 };
    struct rig_commit c = {
        .ino = f.ino, .flags = COMMIT_APPEND, .extents = &e, .count = 1, .block = b, .len = 10
    };
    struct attr a;

    CHECK_INT(truncate_to(f.ino, 25), 0);
    CHECK_INT(rig_commit(&r, c, &a), 0);
    CHECK_INT(a.size, 35);
    e.block_off = 10;
    c.len = 20;
    CHECK_INT(rig_commit(&r, c, &a), 0);
    CHECK_INT(a.size, 45);
    CHECK(is_map(f.ino, text("25+20=%ju@0", (uintmax_t)b)));
}

static void times_and_sizes_of_a_commit(void)
{
    struct attr f = file("times");
    struct attr a;

    CHECK_INT(rig_commit(&r, (struct rig_commit){ .ino = f.ino }, &a), 0);
    CHECK_INT(a.version, f.version); /* nothing to do */
    CHECK_INT(rig_commit(&r, (struct rig_commit){ .ino = f.ino, .size = 9, .mtime = 4 }, &a), 0);
    CHECK_INT(a.size, 9);
    CHECK_INT(a.mtime, 4);
    CHECK(a.ctime == r.head.now_ns);
    CHECK_INT(rig_commit(&r, (struct rig_commit){ .ino = f.ino, .size = 10 }, &a), 0);
    CHECK(a.mtime == r.head.now_ns);
    CHECK_INT(a.data_version, f.data_version + 2);
    CHECK_INT(rig_commit(&r, (struct rig_commit){ .ino = f.ino, .size = UINT64_MAX }, &a),
              DFS_EFBIG);
}

static void bad_extents_are_refused(void)
{
    struct attr f = file("bad");
    uint64_t b = rig_alloc(&r, 2);
    uint64_t mine = r.hdr.session;
    struct extent two[] = { { 100, 100, b, 0 }, { 50, 51, b, 100 } };
    struct rig_commit c = { .ino = f.ino, .extents = two, .count = 2, .block = b, .len = 200 };
    struct attr a;

    CHECK_INT(rig_commit(&r, c, &a), DFS_EINVAL); /* they overlap */
    two[1].len = 50;
    CHECK_INT(rig_commit(&r, c, &a), 0); /* in any order */
    CHECK_INT(a.bytes, 150);
    c.count = 1;
    two[0] = (struct extent){ 0, 100, b, 101 };
    CHECK_INT(rig_commit(&r, c, &a), DFS_EOFFSET); /* beyond what is committed of the block */
    two[0] = (struct extent){ 0, 0, b, 0 };
    CHECK_INT(rig_commit(&r, c, &a), DFS_EINVAL);
    two[0] = (struct extent){ 0, 10, 424242, 0 };
    CHECK_INT(rig_commit(&r, c, &a), DFS_ENOBLOCK);
    two[0] = (struct extent){ LIMIT_FILE_SIZE - 5, 10, b, 0 };
    CHECK_INT(rig_commit(&r, c, &a), DFS_EFBIG);
    two[0] = (struct extent){ UINT64_MAX - 5, 10, b, 0 };
    CHECK_INT(rig_commit(&r, c, &a), DFS_EFBIG);
    two[0] = (struct extent){ 0, UINT64_MAX, b, 0 };
    CHECK_INT(rig_commit(&r, c, &a), DFS_EINVAL);
    two[0] = (struct extent){ 0, 10, b, UINT32_MAX };
    CHECK_INT(rig_commit(&r, c, &a), DFS_EOFFSET);
    two[0] = (struct extent){ 0, 10, b, 0 };
    r.hdr.session = rig_session(&r);
    CHECK_INT(rig_commit(&r, c, &a), DFS_ESESSION); /* another session's block */
    r.hdr.session = mine;
    CHECK_INT(rig_stat(&r, f.ino).bytes, 150);
    CHECK_INT(live(b), 150);
    c.ino = ROOT;
    CHECK_INT(rig_commit(&r, c, &a), DFS_EISDIR);
    c.ino = 55555;
    CHECK_INT(rig_commit(&r, c, &a), DFS_ESTALE);
}

static void one_file_gone_does_not_stop_the_others(void)
{
    struct attr f = file("gone1");
    struct attr g = file("gone2");
    uint64_t b = rig_alloc(&r, 1);
    struct extent e[] = { { 0, 10, b, 0 }, { 0, 10, b, 10 } };
    struct wire_out blocks, files, x0, x1;
    struct commit_result res;
    struct commit_rep rep;
    struct wire_in in;

    wire_out_init(&blocks, 64);
    wire_out_init(&files, 512);
    wire_out_init(&x0, 64);
    wire_out_init(&x1, 64);
    extent_put(&x0, &e[0]);
    extent_put(&x1, &e[1]);
    commit_block_put(&blocks, &(struct commit_block){ b, 20, 1 });
    commit_file_put(&files,
                    &(struct commit_file){ .ino = 31337, .extents = wire_out_list(&x0, 1) });
    commit_file_put(&files,
                    &(struct commit_file){ .ino = f.ino, .extents = wire_out_list(&x0, 1) });
    commit_file_put(&files,
                    &(struct commit_file){ .ino = g.ino, .extents = wire_out_list(&x1, 1) });
    CHECK_INT(do_commit(&r,
                        &(struct commit_req){ .blocks = wire_out_list(&blocks, 1),
                                              .files = wire_out_list(&files, 3) },
                        &rep),
              0);
    in = wire_in_of(rep.results.items);
    CHECK_INT(rep.results.count, 3);
    CHECK(commit_result_get(&in, &res) == 0 && res.status == DFS_ESTALE && res.ino == 31337);
    CHECK(commit_result_get(&in, &res) == 0 && res.status == 0 && res.ino == f.ino);
    CHECK(commit_result_get(&in, &res) == 0 && res.status == 0);
    CHECK_INT(rig_attr(res.attr).size, 10);
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED); /* after the extents were counted */
    CHECK_INT(live(b), 20);
    wire_out_fini(&blocks);
    wire_out_fini(&files);
    wire_out_fini(&x0);
    wire_out_fini(&x1);
}

static void a_sealed_block_dies_with_its_last_byte(void)
{
    struct attr f = file("die");
    uint64_t b = rig_alloc(&r, 3);
    struct ns_counts before, after;

    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    CHECK_INT(put(f.ino, 100, 100, b + 1, 0, NULL), 0);
    CHECK_INT(seal(b, 100), 0);
    CHECK_INT(seal(b, 100), 0);
    CHECK_INT(seal(b, 101), DFS_ESEALED);
    CHECK_INT(seal(b + 2, 50), 0); /* nothing was ever kept in it */
    CHECK_INT(rig_block(&r, b + 2).state, BLOCK_DELETED);
    CHECK_INT(ns_get_counts(r.rd, &before), 0);
    CHECK_INT(put(f.ino, 0, 100, b + 1, 100, NULL), 0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_DELETED);
    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), DFS_ENOBLOCK); /* no way back */
    CHECK_INT(ns_get_counts(r.rd, &after), 0);
    CHECK_INT(after.blocks, before.blocks - 1);
    CHECK_INT(after.file_bytes, before.file_bytes);
    CHECK_INT(after.next_block, b + 3);
}

static void moving_extents_inside_one_sealed_block(void)
{
    struct attr f = file("move");
    uint64_t b = rig_alloc(&r, 2);
    struct extent e[] = { { 0, 100, b + 1, 0 }, { 200, 100, b, 0 } };

    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    CHECK_INT(seal(b, 100), 0);
    /* its bytes go at offset 0 and come at 200: it never was without */
    CHECK_INT(rig_commit(&r,
                         (struct rig_commit){
                             .ino = f.ino, .extents = e, .count = 2, .block = b + 1, .len = 100 },
                         NULL),
              0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED);
    CHECK_INT(live(b), 100);
}

static void an_early_seal_keeps_uncommitted_bytes(void)
{
    struct attr f = file("early");
    uint64_t b = rig_alloc(&r, 1);
    struct wire_out bad;

    wire_out_init(&bad, 64);
    node_ref_put(&bad, &(struct node_ref){ 2 });
    CHECK_INT(do_block_seal(
                  &r,
                  &(struct block_seal_req){ .block = b, .len = 300, .bad = wire_out_list(&bad, 1) },
                  NULL),
              0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED);
    CHECK_INT(rig_block(&r, b).node_count, 1);
    CHECK_INT(put(f.ino, 0, 301, b, 0, NULL), DFS_ESEALED);
    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    CHECK_INT(truncate_to(f.ino, 0), 0); /* others may still need it */
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED);
    CHECK_INT(put(f.ino, 0, 100, b, 200, NULL), 0);
    CHECK_INT(seal(b, 300), 0);
    CHECK_INT(truncate_to(f.ino, 0), 0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_DELETED);
    wire_out_fini(&bad);
}

static void the_end_of_a_session_seals_its_blocks(void)
{
    struct attr f = file("left");
    uint64_t mine = r.hdr.session;
    uint64_t b;

    r.hdr.session = rig_session(&r);
    b = rig_alloc(&r, 3);
    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    CHECK_INT(seal(b + 2, 0), 0);
    CHECK_INT(rig_block(&r, b + 2).state, BLOCK_DELETED); /* at once: nothing can be in it */
    CHECK_INT(do_session_close(&r, &(struct session_close_req){ 0 }, NULL), 0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED);
    CHECK_INT(rig_block(&r, b).len, 100);
    CHECK_INT(rig_block(&r, b + 1).state, BLOCK_DELETED); /* never used */
    r.hdr.session = mine;
    CHECK(is_map(f.ino, text("0+100=%ju@0", (uintmax_t)b)));
}

static void the_leader_seals_forgets_and_moves_replicas(void)
{
    struct attr f = file("lead");
    uint64_t b = rig_alloc(&r, 2);
    struct wire_out refs, changes;

    wire_out_init(&refs, 256);
    wire_out_init(&changes, 256);
    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    block_ref_put(&refs, &(struct block_ref){ b });
    block_ref_put(&refs, &(struct block_ref){ b + 1 });
    block_ref_put(&refs, &(struct block_ref){ 777777 });
    CHECK_INT(do_map_seal(&r, &(struct map_seal_req){ .blocks = wire_out_list(&refs, 3) }, NULL),
              0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED);
    CHECK_INT(rig_block(&r, b + 1).state, BLOCK_DELETED);
    replica_change_put(&changes, &(struct replica_change){ b, 3, REPLICA_ADD });
    replica_change_put(&changes, &(struct replica_change){ 777777, 3, REPLICA_ADD });
    replica_change_put(&changes, &(struct replica_change){ b, 1, REPLICA_DROP });
    CHECK_INT(do_map_replicas(
                  &r, &(struct map_replicas_req){ .changes = wire_out_list(&changes, 3) }, NULL),
              0);
    CHECK_INT(rig_block(&r, b).node_count, 2);
    CHECK_INT(rig_block(&r, b).nodes[1], 3);
    CHECK_INT(
        do_map_forget(&r, &(struct map_forget_req){ .blocks = wire_out_list(&refs, 3) }, NULL), 0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_SEALED); /* in use: stays */
    CHECK_INT(truncate_to(f.ino, 0), 0);
    CHECK_INT(
        do_map_forget(&r, &(struct map_forget_req){ .blocks = wire_out_list(&refs, 3) }, NULL), 0);
    wire_out_fini(&refs);
    wire_out_fini(&changes);
}

static int setrep(uint64_t ino, uint8_t repl)
{
    return do_setrep(&r, &(struct setrep_req){ .ino = ino, .repl = repl }, NULL);
}

static void setrep_moves_live_bytes(void)
{
    struct attr f = file("repf");
    struct attr g = file("repg");
    struct attr d = rig_mkdir(&r, ROOT, "repd");
    uint64_t b = rig_alloc(&r, 1);
    struct ns_space space;
    struct block_rec rec;

    CHECK_INT(put(f.ino, 0, 100, b, 0, NULL), 0);
    CHECK_INT(put(g.ino, 0, 50, b, 100, NULL), 0);
    CHECK_INT(seal(b, 150), 0);
    CHECK_INT(setrep(f.ino, 3), 0);
    rec = rig_block(&r, b);
    CHECK_INT(rec.state, BLOCK_SEALED);
    CHECK_INT(rec.live[3], 100);
    CHECK_INT(rec.live[2], 50);
    CHECK_INT(block_rec_want(&rec), 3);
    CHECK_INT(rig_stat(&r, f.ino).repl, 3);
    CHECK_INT(setrep(f.ino, 0), DFS_EINVAL);
    CHECK_INT(setrep(f.ino, 17), DFS_EINVAL);
    CHECK_INT(setrep(d.ino, 5), 0);
    CHECK_INT(rig_stat(&r, rig_mkfile(&r, d.ino, "f").ino).repl, 5);
    CHECK_INT(rig_stat(&r, rig_mkdir(&r, d.ino, "d").ino).repl, 5);
    CHECK_INT(setrep(d.ino, 0), 0);
    CHECK_INT(rig_stat(&r, rig_mkfile(&r, d.ino, "g").ino).repl, 2);
    CHECK_INT(ns_get_space(r.rd, d.ino, &space), 0);
    CHECK_INT(space.repl, 0);
    CHECK(space.quota == 0 && space.free_bytes == UINT64_MAX && space.free_inodes == UINT64_MAX);
}

static void a_nameless_file_lives_until_reaped(void)
{
    struct attr f = file("nameless");
    uint64_t b = rig_alloc(&r, 1);
    struct wire_out refs;
    struct ns_reap_req reap = { .max_extents = 2 };

    wire_out_init(&refs, 64);
    ino_ref_put(&refs, &(struct ino_ref){ f.ino });
    reap.inodes = wire_out_list(&refs, 1);
    CHECK_INT(put(f.ino, 0, 10, b, 0, NULL), 0);
    CHECK_INT(put(f.ino, 100, 10, b, 10, NULL), 0);
    CHECK_INT(rig_unlink(&r, ROOT, "nameless", 0), 0);
    CHECK_INT(put(f.ino, 200, 10, b, 20, NULL), 0); /* it is open */
    CHECK_INT(seal(b, 30), 0);
    CHECK_INT(do_ns_reap(&r, &reap, NULL), 0);
    CHECK_INT(rig_stat(&r, f.ino).bytes, 10); /* two extents a time */
    CHECK_INT(live(b), 10);
    CHECK_INT(do_ns_reap(&r, &reap, NULL), 0);
    CHECK_INT(rig_block(&r, b).state, BLOCK_DELETED);
    CHECK_INT(put(f.ino, 0, 10, b, 0, NULL), DFS_ESTALE);
    CHECK_INT(do_ns_reap(&r, &reap, NULL), 0); /* again: nothing */
    wire_out_fini(&refs);
}

static uint8_t second_is_live(void *arg, uint32_t node)
{
    (void)arg;
    return node == 2 ? MEMBER_LIVE : MEMBER_DEAD;
}

static void open_tells_extents_and_where_they_are(void)
{
    struct attr f = file("opened");
    uint64_t b = rig_alloc(&r, 2);
    struct open_rep rep;
    struct extents_rep ext;
    struct block_loc loc;
    struct node_addr addr;
    struct extent e;
    struct wire_in in;

    for (uint32_t i = 0; i < 10; i++) { /* alternating blocks */
        CHECK_INT(put(f.ino, i * 10, 10, b + i % 2, i / 2 * 20, NULL), 0);
    }
    CHECK_INT(ask_open(&r, &(struct open_req){ .ino = f.ino, .max_extents = 4 }, &rep), 0);
    CHECK_INT(rig_attr(rep.attr).size, 100);
    CHECK_INT(rep.extents.count, 4);
    CHECK_INT(rep.blocks.count, 2); /* each once */
    CHECK_INT(rep.more, 1);
    CHECK_INT(ask_extents(&r, &(struct extents_req){ .ino = f.ino, .off = 45, .max = 100 }, &ext),
              0);
    CHECK_INT(ext.extents.count, 6);
    CHECK_INT(ext.more, 0);
    in = wire_in_of(ext.extents.items);
    CHECK(extent_get(&in, &e) == 0 && e.off == 40); /* the one that covers 45 */
    CHECK_INT(ask_extents(&r, &(struct extents_req){ .ino = f.ino, .off = 100, .max = 1 }, &ext),
              0);
    CHECK_INT(ext.extents.count, 0);
    /* live servers first */
    wire_out_reset(&r.msg);
    wire_out_reset(&r.reply);
    open_req_put(&r.msg, &(struct open_req){ .ino = f.ino, .max_extents = 4 });
    CHECK_INT(
        ns_query(r.rd, &r.hdr, RPC_open, wire_out_slice(&r.msg), second_is_live, NULL, &r.reply),
        0);
    CHECK_INT(open_rep_get(wire_out_slice(&r.reply), &rep), 0);
    in = wire_in_of(rep.blocks.items);
    CHECK_INT(block_loc_get(&in, &loc), 0);
    in = wire_in_of(loc.nodes.items);
    CHECK(node_addr_get(&in, &addr) == 0 && addr.node == 2 && addr.state == MEMBER_LIVE);
    CHECK(node_addr_get(&in, &addr) == 0 && addr.node == 1 && addr.state == MEMBER_DEAD);
    CHECK_INT(ask_open(&r, &(struct open_req){ .ino = ROOT }, &rep), 0);
    CHECK_INT(rep.extents.count, 0);
    CHECK_INT(ask_open(&r, &(struct open_req){ .ino = 666666 }, &rep), DFS_ESTALE);
}

int main(void)
{
    rig_start(&r, "ns");
    tap_run("alloc gives blocks on chosen servers", alloc_gives_blocks_on_chosen_servers);
    tap_run("a stream stays one extent", a_stream_stays_one_extent);
    tap_run("overwriting cuts what was there", overwriting_cuts_what_was_there);
    tap_run("neighbours join on both sides", neighbours_join_on_both_sides);
    tap_run("truncate cuts and leaves holes", truncate_cuts_and_leaves_holes);
    tap_run("truncate goes in steps", truncate_goes_in_steps);
    tap_run("appends go to the end", appends_go_to_the_end);
    tap_run("times and sizes of a commit", times_and_sizes_of_a_commit);
    tap_run("bad extents are refused", bad_extents_are_refused);
    tap_run("one file gone does not stop the others", one_file_gone_does_not_stop_the_others);
    tap_run("a sealed block dies with its last byte", a_sealed_block_dies_with_its_last_byte);
    tap_run("moving extents inside one sealed block", moving_extents_inside_one_sealed_block);
    tap_run("an early seal keeps uncommitted bytes", an_early_seal_keeps_uncommitted_bytes);
    tap_run("the end of a session seals its blocks", the_end_of_a_session_seals_its_blocks);
    tap_run("the leader seals, forgets and moves replicas",
            the_leader_seals_forgets_and_moves_replicas);
    tap_run("setrep moves live bytes", setrep_moves_live_bytes);
    tap_run("a nameless file lives until reaped", a_nameless_file_lives_until_reaped);
    tap_run("open tells extents and where they are", open_tells_extents_and_where_they_are);
    rig_fini(&r);
    return tap_done();
}
