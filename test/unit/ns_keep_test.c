/* Batches that are kept in an open transaction: who sees them when, and what is left after a crash. */
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/fault.h"

#include "test/unit/ns_rig.h"

#define KEEP  20
#define FILES 400

static struct rig r;

static uint64_t committed_inodes(void)
{
    struct ns_counts counts = { 0 };

    CHECK_INT(ns_get_counts(r.rd, &counts), 0);
    return counts.inodes;
}

static const char *name_of(unsigned i)
{
    static _Thread_local char name[32];

    snprintf(name, sizeof(name), "file-%u", i);
    return name;
}

static void start(const char *name)
{
    rig_start(&r, name);
    ns_keep(r.ns, KEEP);
}

static void questions_see_what_is_kept(void)
{
    struct ns_space space;
    struct attr a;

    start("see");
    for (unsigned i = 0; i < 3; i++) {
        a = rig_mkfile(&r, INODE_ROOT, name_of(i));
        CHECK_INT(rig_lookup(&r, INODE_ROOT, name_of(i), NULL), 0);
        CHECK_INT(rig_stat(&r, a.ino).ino, a.ino);
        CHECK_INT(ns_get_space(r.rd, a.ino, &space), 0);
    }
    CHECK_INT(rig_unlink(&r, INODE_ROOT, name_of(1), 0), 0);
    CHECK_INT(rig_lookup(&r, INODE_ROOT, name_of(1), NULL), DFS_ENOENT);
    CHECK(kv_has_kept(ns_kv(r.ns)));
    CHECK_INT(committed_inodes(), 1);
    CHECK_INT(ns_flush(r.ns, NULL), 0);
    CHECK_INT(committed_inodes(), 4); /* one of them an orphan */
    rig_fini(&r);
}

static void the_leaders_own_commands_are_committed(void)
{
    struct attr a;

    start("own");
    a = rig_mkfile(&r, INODE_ROOT, "f");
    CHECK_INT(rig_unlink(&r, INODE_ROOT, "f", 0), 0);
    CHECK_INT(committed_inodes(), 1);
    rig_reap(&r, a.ino);
    CHECK(!kv_has_kept(ns_kv(r.ns)));
    rig_mkfile(&r, INODE_ROOT, "g");
    CHECK_INT(committed_inodes(), 1);
    rig_checkpoint(&r);
    CHECK_INT(committed_inodes(), 2);
    rig_fini(&r);
}

static void no_more_than_that_is_kept(void)
{
    unsigned kept = 0;

    start("limit");
    for (unsigned i = 0; i < FILES; i++) {
        rig_mkfile(&r, INODE_ROOT, name_of(i));
        kept = kv_has_kept(ns_kv(r.ns)) ? kept + 1 : 0;
        CHECK(kept <= KEEP);
    }
    /* a large batch is not kept at all */
    rig_mkfile(&r, INODE_ROOT, "one");
    CHECK(kv_has_kept(ns_kv(r.ns)));
    rig_begin(&r);
    for (unsigned i = 0; i <= KEEP; i++) {
        wire_out_reset(&r.msg);
        make_req_put(&r.msg, &(struct make_req){ .parent = INODE_ROOT,
                                                 .name = slice_str(name_of(FILES + i)),
                                                 .mode = S_IFREG });
        rig_add(&r, RPC_make);
    }
    ns_batch_end(&r.batch, KEEP + 1);
    rig_apply(&r);
    CHECK(!kv_has_kept(ns_kv(r.ns)));
    CHECK_INT(committed_inodes(), 1 + FILES + 1 + KEEP + 1);
    rig_fini(&r);
}

/* All names are listed, whether pages are cut short because the writer waits or not. */
static void lists_are_complete(void)
{
    struct readdir_req req = { .ino = INODE_ROOT, .max_bytes = LIMIT_REPLY, .plus = 1 };
    struct readdir_rep rep;
    unsigned count = 0, pages = 0;

    start("list");
    for (unsigned i = 0; i < 3 * FILES; i++) {
        rig_mkfile(&r, INODE_ROOT, name_of(i));
    }
    do {
        struct wire_in in;
        struct dir_entry e;

        if (!kv_has_kept(ns_kv(r.ns))) {
            rig_mkdir(&r, INODE_ROOT, "d");
        }
        CHECK_INT(ask_readdir(&r, &req, &rep), 0);
        in = wire_in_of(rep.entries.items);
        for (uint32_t i = 0; i < rep.entries.count; i++) {
            CHECK_INT(dir_entry_get(&in, &e), 0);
            req.cookie = e.cookie;
            count += e.name.len > 1;
        }
        pages++;
    } while (rep.eof == 0 && !tap_case_bad);
    CHECK_INT(count, 3 * FILES);
    CHECK(pages > 1);
    rig_fini(&r);
}

static _Atomic unsigned answered;
static atomic_bool enough;

static void *look(void *arg)
{
    struct ns_reader *rd = ns_reader_new(r.ns);
    struct call_hdr hdr = { 0 };
    struct wire_out msg, rep;

    (void)arg;
    wire_out_init(&msg, KIB);
    wire_out_init(&rep, LIMIT_MSG);
    while (!atomic_load(&enough)) {
        unsigned n = atomic_load(&answered);
        struct lookup_req req = { .parent = INODE_ROOT, .name = slice_str(name_of(n)) };

        wire_out_reset(&msg);
        wire_out_reset(&rep);
        lookup_req_put(&msg, &req);
        CHECK_INT(ns_query(rd, &hdr, RPC_lookup, wire_out_slice(&msg), NULL, NULL, &rep), 0);
        (void)ns_next_recount(rd, 0);
    }
    wire_out_fini(&msg);
    wire_out_fini(&rep);
    ns_reader_free(rd);
    return NULL;
}

static void others_see_what_was_answered(void)
{
    pthread_t threads[2];

    start("threads");
    rig_mkfile(&r, INODE_ROOT, name_of(0));
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, look, NULL), 0);
    }
    for (unsigned i = 1; i < FILES * 3; i++) {
        rig_mkfile(&r, INODE_ROOT, name_of(i));
        atomic_store(&answered, i);
        if (i % 50 == 0) {
            rig_checkpoint(&r);
        }
    }
    atomic_store(&enough, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    rig_fini(&r);
}

static void a_crash_goes_back_to_the_checkpoint(void)
{
    struct wire_out log;
    struct why why = { "" };
    struct wire_in in;
    uint64_t hash, at;

    wire_out_init(&log, 16u << 20);
    rig_init(&r, "crash");
    r.log = &log;
    rig_fill(&r);
    ns_keep(r.ns, KEEP);
    rig_mkfile(&r, INODE_ROOT, "before");
    rig_checkpoint(&r);
    at = r.index;
    for (unsigned i = 0; i < KEEP + KEEP / 2; i++) {
        rig_mkfile(&r, INODE_ROOT, name_of(i));
    }
    CHECK(kv_has_kept(ns_kv(r.ns)));
    rig_close_dir(&r);
    rig_open_dir(&r);
    CHECK_INT(ns_applied(r.ns), at);
    CHECK_INT(rig_lookup(&r, INODE_ROOT, "before", NULL), 0);
    CHECK_INT(rig_lookup(&r, INODE_ROOT, name_of(0), NULL), DFS_ENOENT);
    in = wire_in_of(wire_out_slice(&log));
    for (uint64_t i = 1; in.left != 0; i++) { /* now each one alone */
        CHECK_INT(ns_apply(r.ns, i, wire_get_bytes(&in), NULL, NULL, &why), 0);
    }
    hash = ns_hash(r.ns);
    rig_close_dir(&r);
    rig_open_dir(&r);
    ns_keep(r.ns, KEEP);
    in = wire_in_of(wire_out_slice(&log));
    for (uint64_t i = 1; in.left != 0; i++) {
        CHECK_INT(ns_apply(r.ns, i, wire_get_bytes(&in), NULL, NULL, &why), 0);
    }
    CHECK_INT(ns_flush(r.ns, &why), 0);
    CHECK(ns_hash(r.ns) == hash);
    rig_fini(&r);
    wire_out_fini(&log);
}

#ifdef DFS_FAULTS
static void a_failed_commit_is_the_end(void)
{
    struct why why = { "" };
    struct lookup_rep rep;

    start("fail");
    rig_mkfile(&r, INODE_ROOT, "f");
    CHECK_INT(fault_arm("kv.commit=NOSPC times=1", &why), 0);
    CHECK_INT(ns_flush(r.ns, &why), DFS_ENOSPC);
    CHECK(strstr(why.text, "its disk is full") != NULL);
    CHECK_INT(
        ask_lookup(&r, &(struct lookup_req){ .parent = INODE_ROOT, .name = slice_str("f") }, &rep),
        DFS_EIO); /* and not ENOENT */
    CHECK_INT(ns_apply(r.ns, ++r.index, wire_out_slice(&r.batch), NULL, NULL, &why), DFS_EIO);
    CHECK_INT(fault_arm("", &why), 0);
    rig_fini(&r);
}
#endif

int main(void)
{
    tap_run("questions see what is kept", questions_see_what_is_kept);
    tap_run("the leader's own commands are committed", the_leaders_own_commands_are_committed);
    tap_run("no more than that is kept", no_more_than_that_is_kept);
    tap_run("lists are complete", lists_are_complete);
    tap_run("others see what was answered", others_see_what_was_answered);
    tap_run("a crash goes back to the checkpoint", a_crash_goes_back_to_the_checkpoint);
#ifdef DFS_FAULTS
    tap_run("a failed commit is the end", a_failed_commit_is_the_end);
#endif
    return tap_done();
}
