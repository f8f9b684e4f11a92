/* fallocate, clone_range and accessed: limits, errors, attributes. Their effect on bytes is compared
 * with a model in ns_model_test.c. */
#include <linux/falloc.h>

#include "test/unit/ns_rig.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct rig r;

static int allocate(uint64_t ino, uint32_t mode, uint64_t off, uint64_t len, uint64_t *ret_done)
{
    struct fallocate_rep rep = { 0 };
    int err = do_fallocate(
        &r, &(struct fallocate_req){ .ino = ino, .mode = mode, .off = off, .len = len }, &rep);

    if (ret_done != NULL) {
        *ret_done = rep.done;
    }
    return err;
}

static int clone(uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off, uint64_t len,
                 uint64_t *ret_done)
{
    struct clone_range_rep rep = { 0 };
    int err = do_clone_range(
        &r,
        &(struct clone_range_req){
            .src = src, .src_off = src_off, .dst = dst, .dst_off = dst_off, .len = len },
        &rep);

    if (ret_done != NULL) {
        *ret_done = rep.done;
    }
    return err;
}

/* count extents of a byte each, at every second offset: they cannot become one. Returns the block. */
static uint64_t scatter(uint64_t ino, uint64_t from, uint32_t count)
{
    struct extent *e = x_alloc(LIMIT_COMMIT_EXTENTS * sizeof(*e));
    uint64_t block = rig_alloc(&r, 1);

    for (uint32_t done = 0; done < count;) {
        uint32_t n = MIN(count - done, (uint32_t)LIMIT_COMMIT_EXTENTS);

        for (uint32_t i = 0; i < n; i++) {
            e[i] = (struct extent){ from + (uint64_t)(done + i) * 2, 1, block, done + i };
        }
        done += n;
        CHECK_INT(rig_commit(&r,
                             (struct rig_commit){ .ino = ino,
                                                  .extents = e,
                                                  .count = n,
                                                  .block = block,
                                                  .len = done,
                                                  .seal = done == count },
                             NULL),
                  0);
    }
    free(e);
    return block;
}

static uint64_t write_file(uint64_t ino, uint64_t off, uint32_t len)
{
    uint64_t block = rig_alloc(&r, 1);
    struct extent e = { off, len, block, 0 };

    CHECK_INT(
        rig_commit(
            &r,
            (struct rig_commit){
                .ino = ino, .extents = &e, .count = 1, .block = block, .len = len, .seal = 1 },
            NULL),
        0);
    return block;
}

static void holes_are_made_piece_by_piece(void)
{
    struct attr a = rig_mkfile(&r, INODE_ROOT, "scattered");
    uint64_t block = scatter(a.ino, 0, LIMIT_COMMIT_EXTENTS + 10);
    uint64_t len = 2 * (LIMIT_COMMIT_EXTENTS + 10);
    uint64_t done = 0;

    CHECK_INT(allocate(a.ino, PUNCH, 0, len, &done), 0);
    CHECK_INT(done, 2 * LIMIT_COMMIT_EXTENTS);
    CHECK_INT(rig_stat(&r, a.ino).bytes, 10);
    CHECK_INT(allocate(a.ino, FALLOC_FL_ZERO_RANGE, done, len, &done), 0);
    CHECK_INT(done, len);
    CHECK_INT(rig_stat(&r, a.ino).bytes, 0);
    CHECK_INT(rig_stat(&r, a.ino).size, 2 * LIMIT_COMMIT_EXTENTS + len);
    CHECK_INT(rig_block(&r, block).state, BLOCK_DELETED);
}

static void clones_are_made_piece_by_piece(void)
{
    struct attr src = rig_mkfile(&r, INODE_ROOT, "many");
    struct attr dst = rig_mkfile(&r, INODE_ROOT, "many too");
    uint64_t len = 2 * (LIMIT_COMMIT_EXTENTS + 10) - 1;
    uint64_t done = 0;

    scatter(src.ino, 0, LIMIT_COMMIT_EXTENTS + 10);
    CHECK_INT(clone(src.ino, 0, dst.ino, 7, len, &done), 0);
    CHECK_INT(done, 2 * LIMIT_COMMIT_EXTENTS);
    CHECK_INT(clone(src.ino, done, dst.ino, 7 + done, len - done, &done), 0);
    CHECK_INT(rig_stat(&r, dst.ino).bytes, LIMIT_COMMIT_EXTENTS + 10);
    CHECK_INT(rig_stat(&r, dst.ino).size, 7 + len);
    /* one extent over many: bounded by what is in the way */
    src = rig_mkfile(&r, INODE_ROOT, "one");
    write_file(src.ino, 0, (uint32_t)len + 100);
    CHECK_INT(clone(src.ino, 0, dst.ino, 7, len, &done), 0);
    CHECK_INT(done, 2 * LIMIT_COMMIT_EXTENTS);
    CHECK_INT(clone(src.ino, done, dst.ino, 7 + done, len - done, NULL), 0);
    CHECK_INT(rig_stat(&r, dst.ino).bytes, len);
}

static void shifts_are_whole_or_refused(void)
{
    struct attr a = rig_mkfile(&r, INODE_ROOT, "shifted");
    uint64_t size;

    scatter(a.ino, 10, LIMIT_SHIFT_EXTENTS + 1);
    size = rig_stat(&r, a.ino).size;
    CHECK_INT(allocate(a.ino, FALLOC_FL_INSERT_RANGE, 5, 100, NULL), DFS_ENOTSUP);
    CHECK_INT(allocate(a.ino, FALLOC_FL_COLLAPSE_RANGE, 5, 3, NULL), DFS_ENOTSUP);
    CHECK_INT(rig_stat(&r, a.ino).size, size);
    CHECK_INT(allocate(a.ino, FALLOC_FL_INSERT_RANGE, 11, 100, NULL), 0);
    CHECK_INT(rig_stat(&r, a.ino).size, size + 100);
    CHECK_INT(allocate(a.ino, FALLOC_FL_COLLAPSE_RANGE, 11, 100, NULL), 0);
    CHECK_INT(rig_stat(&r, a.ino).size, size);
    CHECK_INT(allocate(a.ino, FALLOC_FL_COLLAPSE_RANGE, 0, size, NULL), DFS_EINVAL);
    CHECK_INT(allocate(a.ino, FALLOC_FL_INSERT_RANGE, size, 1, NULL), DFS_EINVAL);
    CHECK_INT(allocate(a.ino, FALLOC_FL_INSERT_RANGE, 0, LIMIT_FILE_SIZE, NULL), DFS_EFBIG);
}

static void what_makes_no_sense_is_refused(void)
{
    struct attr a = rig_mkfile(&r, INODE_ROOT, "plain");
    struct attr d = rig_mkdir(&r, INODE_ROOT, "dir");

    CHECK_INT(allocate(a.ino, 0, 0, 0, NULL), DFS_EINVAL);
    CHECK_INT(allocate(a.ino, FALLOC_FL_PUNCH_HOLE, 0, 1, NULL), DFS_ENOTSUP);
    CHECK_INT(allocate(a.ino, FALLOC_FL_UNSHARE_RANGE, 0, 1, NULL), DFS_ENOTSUP);
    CHECK_INT(allocate(a.ino, 0, LIMIT_FILE_SIZE, 1, NULL), DFS_EFBIG);
    CHECK_INT(allocate(a.ino, 0, 1, UINT64_MAX, NULL), DFS_EFBIG);
    CHECK_INT(allocate(d.ino, 0, 0, 1, NULL), DFS_EISDIR);
    CHECK_INT(allocate(999999, 0, 0, 1, NULL), DFS_ESTALE);
    CHECK_INT(allocate(a.ino, 0, 0, LIMIT_FILE_SIZE, NULL), 0);
    CHECK_INT(rig_stat(&r, a.ino).size, LIMIT_FILE_SIZE);
    CHECK_INT(rig_stat(&r, a.ino).bytes, 0);
    CHECK_INT(clone(a.ino, 0, d.ino, 0, 1, NULL), DFS_EISDIR);
    CHECK_INT(clone(a.ino, 0, a.ino, 1, LIMIT_FILE_SIZE, NULL), DFS_EFBIG);
    CHECK_INT(clone(a.ino, 0, a.ino, 9, 10, NULL), DFS_EINVAL);
    CHECK_INT(clone(a.ino, 0, a.ino, 10, 10, NULL), 0);
}

static void clones_count_as_their_file_wants(void)
{
    struct attr src = rig_mkfile(&r, INODE_ROOT, "two copies");
    struct attr dst = rig_mkfile(&r, INODE_ROOT, "three copies");
    uint64_t block = write_file(src.ino, 0, 1000);
    uint64_t done = 1;

    CHECK_INT(do_setrep(&r, &(struct setrep_req){ .ino = dst.ino, .repl = 3 }, NULL), 0);
    CHECK_INT(clone(src.ino, 100, dst.ino, 50, 5000, &done), 0);
    CHECK_INT(done, 900);
    CHECK_INT(rig_block(&r, block).live[2], 1000);
    CHECK_INT(rig_block(&r, block).live[3], 900);
    CHECK_INT(clone(src.ino, 1000, dst.ino, 0, 10, &done), 0); /* behind the end: nothing */
    CHECK_INT(done, 0);
    /* within the file, in a block that nobody else names any more */
    CHECK_INT(allocate(src.ino, PUNCH, 0, 1000, NULL), 0);
    CHECK_INT(clone(dst.ino, 50, dst.ino, 2000, 900, NULL), 0);
    CHECK_INT(rig_block(&r, block).live[2], 0);
    CHECK_INT(rig_block(&r, block).live[3], 1800);
    CHECK_INT(rig_block(&r, block).state, BLOCK_SEALED);
    /* a clone over itself, by another file: the block does not die in between */
    CHECK_INT(clone(dst.ino, 50, src.ino, 0, 900, NULL), 0);
    CHECK_INT(clone(src.ino, 0, dst.ino, 50, 900, NULL), 0);
    CHECK_INT(rig_block(&r, block).live[3], 1800);
}

static void changes_by_others_take_set_id_bits(void)
{
    struct attr src = rig_mkfile(&r, INODE_ROOT, "source");
    struct attr a = { 0 };
    struct attr before;

    CHECK_INT(rig_make(&r, INODE_ROOT, "suid", S_IFREG | 06755, &a), 0);
    write_file(src.ino, 0, 10);
    before = rig_stat(&r, a.ino);
    CHECK_INT(allocate(a.ino, 0, 0, 10, NULL), 0); /* by root */
    CHECK_INT(rig_stat(&r, a.ino).mode, S_IFREG | 06755);
    CHECK(rig_stat(&r, a.ino).mtime > before.mtime);
    CHECK(rig_stat(&r, a.ino).ctime > before.ctime);
    CHECK_INT(rig_stat(&r, a.ino).data_version, before.data_version + 1);
    r.hdr.uid = 1000;
    CHECK_INT(clone(src.ino, 0, a.ino, 0, 10, NULL), 0);
    r.hdr.uid = 0;
    CHECK_INT(rig_stat(&r, a.ino).mode, S_IFREG | 0755);
}

static int read_at(uint64_t ino, int64_t atime)
{
    struct wire_out list;
    int err;

    wire_out_init(&list, 64);
    access_put(&list, &(struct access){ ino, atime });
    err = do_accessed(&r, &(struct accessed_req){ .inodes = wire_out_list(&list, 1) }, NULL);
    wire_out_fini(&list);
    return err;
}

static void access_times_follow_relatime(void)
{
    const int64_t day = INT64_C(86400) * NS_PER_SEC;
    struct attr a = rig_mkfile(&r, INODE_ROOT, "read");
    int64_t first = a.mtime + 500;
    struct attr b;

    CHECK_INT(read_at(a.ino, first), 0);
    b = rig_stat(&r, a.ino);
    CHECK_INT(b.atime, first);
    CHECK_INT(b.ctime, a.ctime);
    CHECK_INT(b.data_version, a.data_version);
    CHECK(b.version > a.version);
    CHECK_INT(read_at(a.ino, first + 1000), 0); /* not changed since */
    CHECK_INT(rig_stat(&r, a.ino).atime, first);
    write_file(a.ino, 0, 10);
    CHECK_INT(read_at(a.ino, INT64_MAX), 0); /* no time is later than the leader's */
    CHECK_INT(rig_stat(&r, a.ino).atime, r.head.now_ns);
    first = r.head.now_ns;
    r.head.now_ns += day;
    CHECK_INT(read_at(a.ino, first + day - 1), 0);
    CHECK_INT(rig_stat(&r, a.ino).atime, first);
    CHECK_INT(read_at(a.ino, first + day), 0);
    CHECK_INT(rig_stat(&r, a.ino).atime, first + day);
    CHECK_INT(read_at(999999, first), 0);
}

int main(void)
{
    rig_start(&r, "range");
    tap_run("holes are made piece by piece", holes_are_made_piece_by_piece);
    tap_run("clones are made piece by piece", clones_are_made_piece_by_piece);
    tap_run("shifts are whole or refused", shifts_are_whole_or_refused);
    tap_run("what makes no sense is refused", what_makes_no_sense_is_refused);
    tap_run("clones count as their file wants", clones_count_as_their_file_wants);
    tap_run("changes by others take set-id bits", changes_by_others_take_set_id_bits);
    tap_run("access times follow relatime", access_times_follow_relatime);
    rig_fini(&r);
    return tap_done();
}
