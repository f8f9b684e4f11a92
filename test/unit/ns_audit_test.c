/* Counts in block records that are wrong are found, and set right; nothing else is touched. */
#include "test/unit/ns_rig.h"

#define LEN 10000u

static struct rig r;
static struct live_count found[16];
static size_t found_count;

static void take(void *arg, const struct live_count *c)
{
    (void)arg;
    CHECK(found_count < ARRAY_LEN(found));
    found[found_count++] = *c;
}

static struct ns_audit audit(void)
{
    struct ns_audit a;

    found_count = 0;
    CHECK_INT(ns_audit(r.rd, NULL, &a, take, NULL), 0);
    return a;
}

static uint32_t repair(void)
{
    struct map_recount_rep rep;
    struct wire_out list;

    wire_out_init(&list, 4096);
    for (size_t i = 0; i < found_count; i++) {
        live_count_put(&list, &found[i]);
    }
    CHECK_INT(
        do_map_recount(
            &r, &(struct map_recount_req){ .counts = wire_out_list(&list, (uint32_t)found_count) },
            &rep),
        0);
    wire_out_fini(&list);
    return rep.changed;
}

/* A file with one extent in a sealed block of its own. */
static uint64_t file_with_block(const char *name, uint64_t *ret_ino)
{
    uint64_t block = rig_alloc(&r, 1);
    const struct extent e = { .off = 0, .len = LEN, .block = block };

    *ret_ino = rig_mkfile(&r, 1, name).ino;
    CHECK_INT(rig_commit(&r,
                         (struct rig_commit){ .ino = *ret_ino,
                                              .size = LEN,
                                              .extents = &e,
                                              .count = 1,
                                              .block = block,
                                              .len = LEN,
                                              .seal = 1 },
                         NULL),
              0);
    return block;
}

/* What no command does. */
static void spoil(uint64_t block, const struct block_rec *rec)
{
    MDB_txn *t;

    CHECK_INT(kv_write_begin(ns_kv(r.ns), &t), 0);
    CHECK_INT(mapdb_put(ns_map(r.ns), t, block, rec), 0);
    CHECK_INT(kv_commit(ns_kv(r.ns)), 0);
}

static void right_counts_are_left_alone(void)
{
    uint64_t ino, clone;
    struct ns_audit a;

    rig_start(&r, "right");
    CHECK(file_with_block("a", &ino) != 0);
    clone = rig_mkfile(&r, 1, "b").ino;
    CHECK_INT(do_setrep(&r, &(struct setrep_req){ .ino = ino, .repl = 3 }, NULL), 0);
    CHECK_INT(
        do_clone_range(&r, &(struct clone_range_req){ .src = ino, .dst = clone, .len = LEN }, NULL),
        0);
    a = audit();
    CHECK_INT(a.blocks, 1);
    CHECK_INT(a.extents, 2);
    CHECK_INT(a.wrong + a.unused + a.dangling, 0);
    CHECK_INT(found_count, 0);
    rig_fini(&r);
}

static void wrong_counts_are_set_right(void)
{
    struct block_rec rec, was[3];
    uint64_t ino, block[3];
    struct ns_audit a;

    rig_start(&r, "wrong");
    for (size_t i = 0; i < ARRAY_LEN(block); i++) {
        block[i] = file_with_block((const char *[]){ "a", "b", "c" }[i], &ino);
        was[i] = rig_block(&r, block[i]);
    }
    rec = was[0]; /* too many, at another number of copies */
    rec.live[2] -= 100;
    rec.live[5] += 300;
    spoil(block[0], &rec);
    rec = was[1]; /* to be deleted, as it stands */
    rec.live[2] = 0;
    spoil(block[1], &rec);
    a = audit();
    CHECK_INT(a.blocks, 3);
    CHECK_INT(a.wrong, 2);
    CHECK_INT(a.unused, 0);
    CHECK_INT(found_count, 3);
    /* One changes meanwhile: it is left to the next audit. */
    rec = rig_block(&r, block[0]);
    rec.live[5] += 1;
    spoil(block[0], &rec);
    CHECK_INT(repair(), 2);
    a = audit();
    CHECK_INT(a.wrong, 1);
    CHECK_INT(repair(), 1);
    CHECK_INT(audit().wrong, 0);
    for (size_t i = 0; i < ARRAY_LEN(block); i++) {
        rec = rig_block(&r, block[i]);
        CHECK(memcmp(&rec, &was[i], sizeof(rec)) == 0);
    }
    rig_fini(&r);
}

static void blocks_that_nothing_uses_are_deleted(void)
{
    uint64_t ino, gone, bare, kept;
    struct block_rec rec;
    struct ns_audit a;

    rig_start(&r, "unused");
    gone = file_with_block("a", &ino);
    rec = rig_block(&r, gone);
    CHECK_INT(rig_unlink(&r, 1, "a", 0), 0);
    rig_reap(&r, ino);
    CHECK_INT(rig_block(&r, gone).state, BLOCK_DELETED);
    bare = file_with_block("b", &ino);
    kept = file_with_block("c", &ino);
    CHECK_INT(audit().wrong, 0);
    spoil(gone, &rec); /* back, counted as used, and nobody names it */
    rec.live[2] = 0;   /* and one that was not deleted when its last byte went */
    CHECK_INT(rig_unlink(&r, 1, "b", 0), 0);
    CHECK_INT(rig_lookup(&r, 1, "c", NULL), 0);
    a = audit();
    CHECK_INT(a.wrong, 1);
    CHECK_INT(a.unused, 1);
    CHECK_INT(repair(), 1);
    CHECK_INT(rig_block(&r, gone).state, BLOCK_DELETED);
    spoil(gone, &rec);
    CHECK_INT(audit().unused, 1);
    CHECK_INT(repair(), 1);
    CHECK_INT(rig_block(&r, gone).state, BLOCK_DELETED);
    CHECK_INT(audit().wrong, 0);
    CHECK_INT(rig_block(&r, bare).state, BLOCK_SEALED); /* its file is not reaped yet */
    CHECK_INT(rig_block(&r, kept).state, BLOCK_SEALED);
    rig_fini(&r);
}

static void extents_without_a_block_are_counted(void)
{
    uint64_t ino, block;
    struct block_rec rec;

    rig_start(&r, "dangling");
    block = file_with_block("a", &ino);
    rec = rig_block(&r, block);
    rec.state = BLOCK_DELETED;
    spoil(block, &rec);
    CHECK_INT(audit().dangling, 1);
    CHECK_INT(found_count, 0);
    rig_fini(&r);
}

static void an_audit_can_be_stopped(void)
{
    const atomic_bool stop = true;
    struct ns_audit a;
    uint64_t ino;

    rig_start(&r, "stopped");
    CHECK(file_with_block("a", &ino) != 0);
    CHECK_INT(ns_audit(r.rd, &stop, &a, take, NULL), DFS_EINTR);
    rig_fini(&r);
}

struct quota_seen {
    uint32_t wrong;
    struct quota_sum sum;
};

static bool see_quota(void *arg, const struct quota_info *q, uint64_t bytes, uint64_t inodes,
                      bool same)
{
    struct quota_seen *s = arg;

    s->wrong += !same;
    if (!same) {
        s->sum = (struct quota_sum){ q->ino, q->used_bytes, q->used_inodes, bytes, inodes };
    }
    return true;
}

static struct quota_seen quotas_seen(void)
{
    struct quota_seen s = { 0 };

    CHECK_INT(ns_quota_recount(r.rd, see_quota, &s), 0);
    return s;
}

static uint32_t mend(const struct quota_sum *sum)
{
    struct quota_mend_rep rep = { 0 };
    struct wire_out list;

    wire_out_init(&list, 256);
    quota_sum_put(&list, sum);
    CHECK_INT(do_quota_mend(&r, &(struct quota_mend_req){ .sums = wire_out_list(&list, 1) }, &rep),
              0);
    wire_out_fini(&list);
    return rep.changed;
}

static void wrong_sums_of_quotas_are_set_right(void)
{
    struct quota_sum bad;
    struct quota_seen s;
    uint64_t ino;

    rig_start(&r, "quotas");
    CHECK_INT(do_quota_set(
                  &r,
                  &(struct quota_set_req){ .ino = INODE_ROOT, .valid = QUOTA_INODES, .inodes = 9 },
                  NULL),
              0);
    CHECK_INT(quotas_seen().wrong, 0);
    CHECK(rig_mkfile(&r, INODE_ROOT, "a").ino != 0);
    CHECK_INT(quotas_seen().wrong, 0);
    bad = (struct quota_sum){ INODE_ROOT, 0, 2, 500, 7 }; /* what no command does */
    CHECK_INT(mend(&bad), 1);
    s = quotas_seen();
    CHECK_INT(s.wrong, 1);
    CHECK_INT(s.sum.was_inodes, 7);
    CHECK_INT(s.sum.inodes, 2);
    /* It changes meanwhile: left to the next audit. */
    ino = rig_mkfile(&r, INODE_ROOT, "b").ino;
    CHECK_INT(mend(&s.sum), 0);
    s = quotas_seen();
    CHECK_INT(s.wrong, 1);
    CHECK_INT(mend(&s.sum), 1);
    CHECK_INT(quotas_seen().wrong, 0);
    s.sum.ino = ino; /* no quota */
    CHECK_INT(mend(&s.sum), 0);
    rig_fini(&r);
}

int main(void)
{
    tap_run("right counts are left alone", right_counts_are_left_alone);
    tap_run("wrong counts are found and set right", wrong_counts_are_set_right);
    tap_run("blocks that nothing uses are deleted", blocks_that_nothing_uses_are_deleted);
    tap_run("extents without a block are counted", extents_without_a_block_are_counted);
    tap_run("an audit can be stopped", an_audit_can_be_stopped);
    tap_run("wrong sums of quotas are set right", wrong_sums_of_quotas_are_set_right);
    return tap_done();
}
