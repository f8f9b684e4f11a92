/* Quotas: limits, what is charged where, trees that change from one quota directory to another. */
#include <linux/fs.h>

#include "cluster/base/rng.h"

#include "fs/ns/ns_core.h"

#include "test/unit/ns_rig.h"

#define ROOT INODE_ROOT

static struct rig r;
static struct rng rng;

static int set(uint64_t ino, uint64_t bytes, uint64_t inodes)
{
    return do_quota_set(
        &r,
        &(struct quota_set_req){
            .ino = ino, .valid = QUOTA_BYTES | QUOTA_INODES, .bytes = bytes, .inodes = inodes },
        NULL);
}

static int clear(uint64_t ino)
{
    return do_quota_clear(&r, &(struct quota_clear_req){ .ino = ino }, NULL);
}

/* All steps, few names each. */
static void count(void)
{
    struct quota_step_rep rep = { .left = 1 };

    while (rep.left != 0 && !tap_case_bad) {
        CHECK_INT(do_quota_step(&r, &(struct quota_step_req){ .max = 3 }, &rep), 0);
    }
    CHECK_INT(ns_quota_work(r.rd), 0);
}

/* The nearest quota directory of an inode; ino 0: there is none. */
static struct quota_info quota(uint64_t ino)
{
    struct quota_info q = { 0 };
    struct quota_get_rep rep;

    CHECK_INT(ask_quota_get(&r, &(struct quota_get_req){ .ino = ino, .paths = 1 }, &rep), 0);
    if (rep.quotas.count != 0) {
        struct wire_in in = wire_in_of(rep.quotas.items);

        CHECK_INT(quota_info_get(&in, &q), 0);
    }
    return q;
}

static void check_used(uint64_t ino, uint64_t bytes, uint64_t inodes)
{
    struct quota_info q = quota(ino);

    CHECK_INT(q.ino, ino);
    CHECK_INT(q.used_bytes, bytes);
    CHECK_INT(q.used_inodes, inodes);
}

/* len bytes at off, from a block of their own. */
static int fill(uint64_t ino, uint64_t off, uint32_t len)
{
    uint64_t b = rig_alloc(&r, 1);
    struct extent e = { .off = off, .len = len, .block = b };

    return rig_commit(
        &r,
        (struct rig_commit){
            .ino = ino, .extents = &e, .count = 1, .block = b, .len = len, .seal = 1 },
        NULL);
}

static int cut(uint64_t ino, uint64_t size)
{
    return do_setattr(&r, &(struct setattr_req){ .ino = ino, .valid = SET_SIZE, .size = size },
                      NULL);
}

static void limits_hold(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "limits"), f, g;

    CHECK_INT(set(d.ino, 1000, 3), 0);
    check_used(d.ino, 0, 1);
    f = rig_mkfile(&r, d.ino, "f");
    g = rig_mkfile(&r, d.ino, "g");
    CHECK_INT(rig_make(&r, d.ino, "h", S_IFLNK | 0777, NULL), DFS_EDQUOT);
    CHECK_INT(fill(f.ino, 0, 600), 0);
    CHECK_INT(fill(g.ino, 0, 401), DFS_EDQUOT);
    CHECK_INT(fill(g.ino, 0, 400), 0);
    check_used(d.ino, 1000, 3);
    CHECK_INT(fill(f.ino, 100, 300), 0); /* nothing grows */
    CHECK_INT(fill(f.ino, 500, 101), DFS_EDQUOT);
    CHECK_INT(cut(f.ino, 1 << 20), 0); /* holes are free */
    CHECK_INT(cut(f.ino, 50), 0);
    check_used(d.ino, 450, 3);
    CHECK_INT(fill(f.ino, 1000, 550), 0);
    CHECK_INT(set(d.ino, 100, 0), 0); /* below what is used */
    CHECK_INT(fill(f.ino, 1000, 550), 0);
    CHECK_INT(fill(f.ino, 0, 60), DFS_EDQUOT);
    CHECK_INT(rig_make(&r, d.ino, "h", S_IFREG | 0644, NULL), 0);
    CHECK_INT(quota(g.ino).ino, d.ino);
    CHECK(slice_eq(quota(g.ino).path, slice_str("/limits")));
    CHECK_INT(rig_quotas_add_up(&r), 1);
}

static void only_root_sets_them(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "rights"), f = rig_mkfile(&r, ROOT, "file");

    r.hdr.uid = 1000;
    CHECK_INT(set(d.ino, 1, 1), DFS_EPERM);
    CHECK_INT(clear(d.ino), DFS_EPERM);
    CHECK_INT(ask_quota_list(&r, &(struct quota_list_req){ 0 }, NULL), DFS_EPERM);
    r.hdr.uid = 0;
    CHECK_INT(set(f.ino, 1, 1), DFS_ENOTDIR);
    CHECK_INT(set(987654, 1, 1), DFS_ESTALE);
    CHECK_INT(clear(d.ino), DFS_ENODATA);
    CHECK_INT(do_quota_set(&r, &(struct quota_set_req){ .ino = d.ino }, NULL), DFS_EINVAL);
    CHECK_INT(do_quota_set(&r, &(struct quota_set_req){ .ino = d.ino, .valid = 4 }, NULL),
              DFS_EINVAL);
    CHECK_INT(ask_quota_list(&r, &(struct quota_list_req){ 0 }, NULL), 0);
}

static void what_has_no_name_is_charged_until_reaped(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "orphans"), f, e;

    CHECK_INT(set(d.ino, 0, 0), 0);
    f = rig_mkfile(&r, d.ino, "f");
    e = rig_mkdir(&r, d.ino, "e");
    CHECK_INT(fill(f.ino, 0, 77), 0);
    CHECK_INT(rig_unlink(&r, d.ino, "f", 0), 0);
    CHECK_INT(rig_unlink(&r, d.ino, "e", 1), 0);
    check_used(d.ino, 77, 3);
    rig_reap(&r, e.ino);
    CHECK_INT(rig_unlink(&r, ROOT, "orphans", 1), 0);
    rig_reap(&r, d.ino); /* the directory is gone, the file is not */
    CHECK_INT(quota(f.ino).ino, d.ino);
    CHECK_INT(quota(f.ino).state, QUOTA_CLEARING);
    CHECK_INT(quota(f.ino).used_inodes, 1);
    rig_quotas_add_up(&r);
    rig_reap(&r, f.ino);
    CHECK_INT(do_quota_clear(&r, &(struct quota_clear_req){ .ino = d.ino }, NULL), DFS_ESTALE);
    rig_quotas_add_up(&r);
}

/* /NAME/sub/x and /NAME/sub/deep/y of 10 bytes each, and n empty files in sub. */
static struct attr make_tree(const char *name, int n)
{
    struct attr top = rig_mkdir(&r, ROOT, name);
    struct attr sub = rig_mkdir(&r, top.ino, "sub"), deep = rig_mkdir(&r, sub.ino, "deep");
    char text[16];

    CHECK_INT(fill(rig_mkfile(&r, sub.ino, "x").ino, 0, 10), 0);
    CHECK_INT(fill(rig_mkfile(&r, deep.ino, "y").ino, 0, 10), 0);
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof(text), "f%d", i);
        rig_mkfile(&r, sub.ino, text);
    }
    return top;
}

static struct attr at(uint64_t parent, const char *name)
{
    struct attr a = { 0 };

    CHECK_INT(rig_lookup(&r, parent, name, &a), 0);
    return a;
}

static void what_is_there_is_counted(void)
{
    struct attr top = make_tree("counted", 20), sub = at(top.ino, "sub");

    CHECK_INT(set(top.ino, 1000, 0), 0);
    CHECK_INT(quota(top.ino).state, QUOTA_COUNTING);
    check_used(top.ino, 0, 1);
    CHECK_INT(do_quota_step(&r, &(struct quota_step_req){ .max = 4 }, NULL), 0);
    rig_quotas_add_up(&r);
    rig_mkfile(&r, sub.ino, "while"); /* whether sub was told or not */
    count();
    CHECK_INT(quota(top.ino).state, QUOTA_ACTIVE);
    check_used(top.ino, 20, 26);
    CHECK_INT(clear(top.ino), 0);
    CHECK_INT(quota(sub.ino).state, QUOTA_CLEARING);
    rig_quotas_add_up(&r);
    count();
    CHECK_INT(quota(sub.ino).ino, 0);
    CHECK_INT(clear(top.ino), DFS_ENODATA);
    CHECK_INT(set(top.ino, 0, 50), 0);
    CHECK_INT(clear(top.ino), 0);
    CHECK_INT(set(top.ino, 0, 60), 0); /* again before it was gone */
    count();
    check_used(top.ino, 20, 26);
    CHECK_INT(quota(top.ino).limit_inodes, 60);
}

static void all_above_are_charged(void)
{
    struct attr top = make_tree("nested", 0), sub = at(top.ino, "sub"), deep = at(sub.ino, "deep");
    struct quota_get_rep rep;

    CHECK_INT(set(deep.ino, 30, 0), 0);
    CHECK_INT(set(top.ino, 45, 0), 0);
    CHECK_INT(set(sub.ino, 1000, 0), 0);
    count();
    rig_quotas_add_up(&r);
    check_used(deep.ino, 10, 2);
    check_used(sub.ino, 20, 4);
    check_used(top.ino, 20, 5);
    CHECK_INT(ask_quota_get(&r, &(struct quota_get_req){ .ino = deep.ino }, &rep), 0);
    CHECK_INT(rep.quotas.count, 3);
    CHECK_INT(fill(at(deep.ino, "y").ino, 0, 31), DFS_EDQUOT); /* its own limit */
    CHECK_INT(fill(at(deep.ino, "y").ino, 0, 30), 0);
    CHECK_INT(fill(at(sub.ino, "x").ino, 0, 16), DFS_EDQUOT); /* that of the top */
    CHECK_INT(fill(at(sub.ino, "x").ino, 0, 15), 0);
    CHECK_INT(clear(sub.ino), 0); /* the one between */
    count();
    CHECK_INT(quota(deep.ino).parent, top.ino);
    check_used(top.ino, 45, 5);
    CHECK_INT(rig_rename(&r, sub.ino, "deep", ROOT, "moved", 0), 0); /* with its quota */
    check_used(deep.ino, 30, 2);
    check_used(top.ino, 15, 3);
    CHECK_INT(set(top.ino, 44, 0), 0);
    CHECK_INT(rig_rename(&r, ROOT, "moved", top.ino, "back", 0), DFS_EDQUOT);
    CHECK_INT(set(top.ino, 45, 0), 0);
    CHECK_INT(rig_rename(&r, ROOT, "moved", top.ino, "back", 0), 0);
    check_used(top.ino, 45, 5);
    rig_quotas_add_up(&r);
}

static void files_take_their_use_along(void)
{
    struct attr a = rig_mkdir(&r, ROOT, "from"), b = rig_mkdir(&r, ROOT, "to");
    struct attr f = rig_mkfile(&r, a.ino, "f"), g = rig_mkfile(&r, b.ino, "g");
    struct link_req link = { .ino = f.ino, .parent = b.ino, .name = slice_str("l") };

    CHECK_INT(fill(f.ino, 0, 100), 0);
    CHECK_INT(set(a.ino, 0, 0), 0);
    CHECK_INT(set(b.ino, 99, 0), 0);
    count();
    CHECK_INT(do_link(&r, &link, NULL), DFS_EXDEV);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "f", 0), DFS_EDQUOT);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "g", RENAME_EXCHANGE), DFS_EXDEV);
    CHECK_INT(set(b.ino, 100, 0), 0);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "g", 0), 0);
    check_used(a.ino, 0, 1);
    check_used(b.ino, 100, 3);
    rig_reap(&r, g.ino);
    check_used(b.ino, 100, 2);
    CHECK_INT(do_link(&r, &link, NULL), 0);
    CHECK_INT(rig_rename(&r, b.ino, "g", a.ino, "g", 0), DFS_EXDEV); /* l would stay */
    CHECK_INT(rig_rename(&r, b.ino, "g", b.ino, "h", 0), 0);
    rig_mkdir(&r, a.ino, "empty");
    CHECK_INT(rig_rename(&r, a.ino, "empty", b.ino, "empty", 0), 0);
    check_used(b.ino, 100, 3);
    rig_quotas_add_up(&r);
}

static void small_trees_move_large_ones_are_copied(void)
{
    struct attr top = make_tree("small", 5), sub = at(top.ino, "sub");
    struct attr big = rig_mkdir(&r, ROOT, "big");
    char text[16];

    CHECK_INT(set(top.ino, 0, 10), 0);
    CHECK_INT(rig_rename(&r, top.ino, "sub", ROOT, "sub", 0), 0); /* before it was counted */
    count();
    check_used(top.ino, 0, 1);
    CHECK_INT(set(top.ino, 19, 0), 0);
    CHECK_INT(rig_rename(&r, ROOT, "sub", top.ino, "sub", 0), DFS_EDQUOT);
    CHECK_INT(set(top.ino, 20, 0), 0);
    CHECK_INT(rig_rename(&r, ROOT, "sub", top.ino, "sub", 0), 0);
    check_used(top.ino, 20, 10);
    CHECK_INT(quota(at(sub.ino, "f3").ino).ino, top.ino);
    CHECK_INT(rig_rename(&r, top.ino, "sub", ROOT, "sub", 0), 0);
    check_used(top.ino, 0, 1);
    rig_quotas_add_up(&r);
    for (int i = 0; i < 4096; i++) {
        snprintf(text, sizeof(text), "%d", i);
        rig_mkfile(&r, big.ino, text);
    }
    CHECK_INT(rig_rename(&r, ROOT, "big", top.ino, "big", 0), DFS_EXDEV);
    CHECK_INT(rig_unlink(&r, big.ino, "7", 0), 0);
    CHECK_INT(rig_rename(&r, ROOT, "big", top.ino, "big", 0), 0);
    check_used(top.ino, 0, 4097);
}

static void half_counted_trees_move_whole(void)
{
    struct attr top = make_tree("half", 30), sub = at(top.ino, "sub");

    CHECK_INT(set(top.ino, 0, 0), 0);
    CHECK_INT(do_quota_step(&r, &(struct quota_step_req){ .max = 10 }, NULL), 0);
    CHECK(ns_quota_work(r.rd) != 0);
    CHECK_INT(quota(sub.ino).ino, top.ino);
    CHECK_INT(rig_rename(&r, top.ino, "sub", ROOT, "half-sub", 0), 0);
    CHECK_INT(ns_quota_work(r.rd), 0);
    check_used(top.ino, 0, 1);
    CHECK_INT(quota(at(sub.ino, "deep").ino).ino, 0);
    rig_quotas_add_up(&r);
}

static void room_is_what_the_tightest_leaves(void)
{
    struct attr top = rig_mkdir(&r, ROOT, "room"), sub = rig_mkdir(&r, top.ino, "sub");
    struct ns_space s;

    CHECK_INT(set(top.ino, 1000, 0), 0);
    CHECK_INT(set(sub.ino, 5000, 7), 0);
    count();
    CHECK_INT(fill(rig_mkfile(&r, top.ino, "f").ino, 0, 300), 0);
    CHECK_INT(ns_get_space(r.rd, sub.ino, &s), 0);
    CHECK(s.quota == sub.ino && s.total_bytes == 1000 && s.free_bytes == 700);
    CHECK(s.total_inodes == 7 && s.free_inodes == 6 && s.used_inodes == 1);
    CHECK_INT(ns_get_space(r.rd, top.ino, &s), 0);
    CHECK(s.quota == top.ino && s.free_bytes == 700 && s.free_inodes == UINT64_MAX);
    CHECK_INT(set(top.ino, 100, 0), 0);
    CHECK_INT(ns_get_space(r.rd, top.ino, &s), 0);
    CHECK(s.total_bytes == 100 && s.free_bytes == 0);
}

static void inodes_from_before_quotas_have_none(void)
{
    struct attr a = { .ino = 9, .mode = S_IFREG, .repl = 2, .quota = 5 }, b;
    struct wire_out out;

    wire_out_init(&out, 256);
    ns_inode_encode(&out, &a);
    CHECK_INT(ns_inode_decode(slice_of(out.p, out.len - 10), 9, &b), 0);
    CHECK(b.quota == 0 && b.repl == 2);
    CHECK_INT(ns_inode_decode(wire_out_slice(&out), 9, &b), 0);
    CHECK_INT(b.quota, 5);
    wire_out_fini(&out);
}

/* ---- random ---- */

#define STEPS 6000

static uint64_t below(uint64_t n)
{
    return rng_below(&rng, n);
}

static struct attr any(uint64_t top, int depth)
{
    struct attr a = rig_stat(&r, top);
    char name[2] = "a";

    while (depth-- > 0 && S_ISDIR(a.mode)) {
        name[0] = (char)('a' + below(4));
        if (rig_lookup(&r, a.ino, name, &a) != 0) {
            break;
        }
    }
    return a;
}

static void random_operation(uint64_t top, bool links)
{
    struct attr a = any(top, (int)below(5)), b = any(top, (int)below(5));
    char from[2] = { (char)('a' + below(4)), 0 }, to[2] = { (char)('a' + below(4)), 0 };

    switch (below(12)) {
    case 0:
    case 1:
    case 2:
        rig_make(&r, a.ino, from, below(2) == 0 ? S_IFDIR | 0755 : S_IFREG | 0644, NULL);
        break;
    case 3:
        if (links) {
            do_link(&r, &(struct link_req){ .ino = a.ino, .parent = b.ino, .name = slice_str(to) },
                    NULL);
        }
        break;
    case 4:
        rig_unlink(&r, a.ino, from, (uint8_t)below(2));
        break;
    case 5:
    case 6:
        rig_rename(&r, a.ino, from, b.ino, to, below(4) == 0 ? RENAME_EXCHANGE : 0);
        break;
    case 7:
        set(a.ino, below(20) * 100, below(20));
        break;
    case 8:
        clear(a.ino);
        break;
    case 9:
        cut(a.ino, below(500));
        break;
    case 10:
        do_quota_step(&r, &(struct quota_step_req){ .max = (uint32_t)(1 + below(5)) }, NULL);
        break;
    default:
        if (S_ISREG(a.mode)) {
            fill(a.ino, below(500), (uint32_t)(1 + below(300)));
        }
    }
}

/* Nothing is left that is charged to something else than its directory, but for files with names in
 * several directories when one of these became a quota directory. */
static void check_tree(struct attr dir, bool links)
{
    for (char c = 'a'; c < 'e'; c++) {
        struct attr a;

        if (rig_lookup(&r, dir.ino, (char[2]){ c, 0 }, &a) != 0) {
            continue;
        }
        if (a.quota != a.ino && (S_ISDIR(a.mode) || !links)) {
            CHECK_INT(a.quota, dir.quota);
        }
        if (S_ISDIR(a.mode)) {
            check_tree(a, links);
        }
    }
}

static void random_trees(const char *name, bool links)
{
    struct attr top = rig_mkdir(&r, ROOT, name);

    for (int i = 0; i < STEPS && !tap_case_bad; i++) {
        random_operation(top.ino, links);
        if (i % 20 == 0) {
            rig_quotas_add_up(&r);
        }
        if (i % 300 == 299) {
            count();
            check_tree(rig_stat(&r, top.ino), links);
        }
        if (tap_case_bad) {
            printf("# at step %d\n", i);
        }
    }
    CHECK(rig_quotas_add_up(&r) > 3);
}

static void random_trees_add_up(void)
{
    random_trees("random", false);
}

static void random_trees_with_links_add_up(void)
{
    random_trees("linked", true);
}

int main(void)
{
    rng_init(&rng, 4711);
    rig_start(&r, "quota");
    tap_run("limits hold", limits_hold);
    tap_run("only root sets them", only_root_sets_them);
    tap_run("what has no name is charged until reaped", what_has_no_name_is_charged_until_reaped);
    tap_run("what is there is counted", what_is_there_is_counted);
    tap_run("all above are charged", all_above_are_charged);
    tap_run("files take their use along", files_take_their_use_along);
    tap_run("small trees move, large ones are copied", small_trees_move_large_ones_are_copied);
    tap_run("half counted trees move whole", half_counted_trees_move_whole);
    tap_run("room is what the tightest leaves", room_is_what_the_tightest_leaves);
    tap_run("inodes from before quotas have none", inodes_from_before_quotas_have_none);
    tap_run("random trees add up", random_trees_add_up);
    tap_run("random trees with links add up", random_trees_with_links_add_up);
    rig_fini(&r);
    return tap_done();
}
