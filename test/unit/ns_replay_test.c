/* One log, applied twice, gives one database; also after going back to a checkpoint. The log is random
 * commands, most of them wrong in some way. */
#include "cluster/base/rng.h"

#include "fs/ns/acl.h"

#include "test/unit/ns_rig.h"

#define ENTRIES 1200

static struct rng rng;
static struct rig a;
static struct wire_out log_bytes;
static uint64_t sessions; /* opened so far */

static uint64_t below(uint64_t n)
{
    return rng_below(&rng, n);
}

static struct slice any_name(void)
{
    static const char *const names[] = { "a", "b", "c", "d", "e", "f", ".", "..", "", "x/y" };

    return slice_str(names[below(below(8) == 0 ? 10 : 6)]);
}

static struct slice any_xattr(void)
{
    static const char *const names[] = { "user.a",
                                         "user.b",
                                         "trusted.c",
                                         "security.d",
                                         "system.posix_acl_access",
                                         "system.posix_acl_default",
                                         "system.no",
                                         "e" };

    return slice_str(names[below(8)]);
}

/* An access list that says what a mode could, or one with a named user; now and then damaged. */
static struct slice any_list(void)
{
    static uint8_t buf[ACL_BYTES_MAX];
    struct wire_out out = wire_out_over(buf, sizeof(buf));
    uint16_t perm = (uint16_t)below(8);
    const struct acl plain = {
        .count = 3, .e = { { ACL_USER_OBJ, 7, 0 }, { ACL_GROUP_OBJ, perm, 0 }, { ACL_OTHER, 5, 0 } }
    };
    const struct acl named = { .count = 5,
                               .e = { { ACL_USER_OBJ, 7, 0 },
                                      { ACL_USER, 7, (uint32_t)below(3) },
                                      { ACL_GROUP_OBJ, 5, 0 },
                                      { ACL_MASK, perm, 0 },
                                      { ACL_OTHER, 5, 0 } } };

    acl_put(&out, below(3) == 0 ? &plain : &named);
    return slice_of(buf, out.len - (below(10) == 0));
}

static uint64_t any_ino(void)
{
    return 1 + below(below(3) == 0 ? 200 : 12);
}

/* One of the last blocks, or one that was or will be. */
static uint64_t any_block(void)
{
    struct ns_counts counts = { 0 };

    CHECK_INT(ns_get_counts(a.rd, &counts), 0);
    return below(8) == 0 ? 1 + below(counts.next_block + 1)
                         : counts.next_block - MIN(below(6), counts.next_block);
}

static struct wire_list refs(struct wire_out *out, size_t count, uint64_t max)
{
    wire_out_reset(out);
    for (size_t i = 0; i < count; i++) {
        wire_put_u64(out, 1 + below(max));
    }
    return wire_out_list(out, (uint32_t)count);
}

static uint16_t put_name_command(void)
{
    static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, 0 };

    switch (below(4)) {
    case 0: {
        uint32_t type = types[below(6)];

        make_req_put(&a.msg, &(struct make_req){ .parent = any_ino(),
                                                 .name = any_name(),
                                                 .mode = type | 02755,
                                                 .target = slice_str(type == S_IFLNK ? "t" : ""),
                                                 .flags = (uint8_t)below(2),
                                                 .umask = below(2) == 0 ? 022 : 077 });
        return RPC_make;
    }
    case 1:
        link_req_put(&a.msg, &(struct link_req){
                                 .ino = any_ino(), .parent = any_ino(), .name = any_name() });
        return RPC_link;
    case 2:
        unlink_req_put(&a.msg, &(struct unlink_req){ .parent = any_ino(),
                                                     .name = any_name(),
                                                     .dir = (uint8_t)below(2) });
        return RPC_unlink;
    default:
        rename_req_put(&a.msg, &(struct rename_req){ .parent = any_ino(),
                                                     .name = any_name(),
                                                     .new_parent = any_ino(),
                                                     .new_name = any_name(),
                                                     .flags = (uint32_t)below(4) });
        return RPC_rename;
    }
}

static uint16_t put_attr_command(void)
{
    switch (below(4)) {
    case 0:
        setattr_req_put(&a.msg, &(struct setattr_req){ .ino = any_ino(),
                                                       .valid = (uint32_t)below(512),
                                                       .mode = 06777,
                                                       .size = 1500 + below(3000) });
        return RPC_setattr;
    case 1:
        setxattr_req_put(&a.msg, &(struct setxattr_req){ .ino = any_ino(),
                                                         .name = any_xattr(),
                                                         .value = any_list(),
                                                         .flags = (uint8_t)below(3) });
        return RPC_setxattr;
    case 2:
        removexattr_req_put(&a.msg,
                            &(struct removexattr_req){ .ino = any_ino(), .name = any_xattr() });
        return RPC_removexattr;
    default:
        setrep_req_put(&a.msg, &(struct setrep_req){ .ino = any_ino(), .repl = (uint8_t)below(5) });
        return RPC_setrep;
    }
}

static uint16_t put_quota_command(void)
{
    switch (below(4)) {
    case 0:
        quota_clear_req_put(&a.msg, &(struct quota_clear_req){ .ino = any_ino() });
        return RPC_quota_clear;
    case 1:
        quota_set_req_put(&a.msg, &(struct quota_set_req){ .ino = any_ino(),
                                                           .valid = (uint32_t)below(4),
                                                           .bytes = below(9) * 700,
                                                           .inodes = below(4) * 10 });
        return RPC_quota_set;
    default:
        quota_step_req_put(&a.msg, &(struct quota_step_req){ .max = (uint32_t)below(6) });
        return RPC_quota_step;
    }
}

static uint16_t put_alloc(void)
{
    struct wire_out nodes, choices;

    wire_out_init(&nodes, 64);
    wire_out_init(&choices, 256);
    node_ref_put(&nodes, &(struct node_ref){ (uint32_t)(1 + below(4)) }); /* 4 is not there */
    block_choice_put(&choices, &(struct block_choice){ wire_out_list(&nodes, 1) });
    wire_put_list(&a.choice, wire_out_list(&choices, 1));
    block_alloc_req_put(&a.msg,
                        &(struct block_alloc_req){ .kind = BLOCK_STREAM, .count = 1, .want = 1 });
    wire_out_fini(&nodes);
    wire_out_fini(&choices);
    return RPC_block_alloc;
}

static uint16_t put_commit(void)
{
    struct wire_out blocks, files, extents;
    uint64_t block = any_block();

    wire_out_init(&blocks, 64);
    wire_out_init(&files, 4096);
    wire_out_init(&extents, 4096);
    commit_block_put(&blocks,
                     &(struct commit_block){ block, 1200 + (uint32_t)below(1000), below(6) == 0 });
    for (int i = 0; i < 2; i++) {
        uint32_t count = (uint32_t)below(4);

        wire_out_reset(&extents);
        for (uint32_t k = 0; k < count; k++) {
            extent_put(&extents, &(struct extent){ 1000 * k + below(900), 1 + below(120),
                                                   below(6) != 0 ? block : any_block(),
                                                   (uint32_t)below(1100) });
        }
        commit_file_put(&files, &(struct commit_file){ .ino = any_ino(),
                                                       .flags = (uint8_t)below(2),
                                                       .size = below(3000),
                                                       .extents = wire_out_list(&extents, count) });
    }
    commit_req_put(&a.msg, &(struct commit_req){ .blocks = wire_out_list(&blocks, 1),
                                                 .files = wire_out_list(&files, 2) });
    wire_out_fini(&blocks);
    wire_out_fini(&files);
    wire_out_fini(&extents);
    return RPC_commit;
}

static uint16_t put_leader_command(void)
{
    struct wire_out list;
    uint16_t type;

    wire_out_init(&list, 1024);
    switch (below(4)) {
    case 0:
        ns_reap_req_put(&a.msg, &(struct ns_reap_req){ .inodes = refs(&list, 3, 60),
                                                       .max_extents = (uint32_t)below(4) });
        type = RPC_ns_reap;
        break;
    case 1:
        map_seal_req_put(&a.msg, &(struct map_seal_req){ .blocks = refs(&list, 1, 40) });
        type = RPC_map_seal;
        break;
    case 2:
        map_forget_req_put(&a.msg, &(struct map_forget_req){ .blocks = refs(&list, 3, 40) });
        type = RPC_map_forget;
        break;
    default:
        replica_change_put(&list, &(struct replica_change){ any_block(), 1 + (uint32_t)below(5),
                                                            1 + (uint8_t)below(2) });
        map_replicas_req_put(&a.msg,
                             &(struct map_replicas_req){ .changes = wire_out_list(&list, 1) });
        type = RPC_map_replicas;
        break;
    }
    wire_out_fini(&list);
    return type;
}

static uint16_t put_session_command(void)
{
    struct wire_out list;
    uint16_t type = RPC_session_open;

    if (below(3) == 0) {
        wire_out_init(&list, 64);
        session_expire_req_put(
            &a.msg, &(struct session_expire_req){ .sessions = refs(&list, 1, sessions) });
        wire_out_fini(&list);
        type = RPC_session_expire;
    } else {
        session_open_req_put(&a.msg, &(struct session_open_req){ .host = slice_str("h") });
        sessions++;
    }
    return type;
}

static void random_entry(void)
{
    uint32_t count = (uint32_t)below(12);

    rig_begin(&a);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t kind = below(100);
        uint16_t type;

        wire_out_reset(&a.msg);
        wire_out_reset(&a.choice);
        a.hdr.session = sessions - below(below(4) == 0 ? 3 : 1);
        a.hdr.slot = (uint32_t)below(3);
        a.hdr.uid = below(8) == 0 ? 1 + (uint32_t)below(2) : 0;
        a.hdr.seq -= below(10) == 0 ? below(3) : 0; /* repeats, and old ones */
        type = kind < 50   ? put_name_command()
               : kind < 55 ? put_quota_command()
               : kind < 60 ? put_attr_command()
               : kind < 88 ? put_commit()
               : kind < 92 ? put_alloc()
               : kind < 99 ? put_leader_command()
                           : put_session_command();
        if (below(50) == 0) {
            a.msg.len = below(a.msg.len); /* cut short */
        }
        rig_add(&a, type);
    }
    a.hdr.uid = 0;
    wire_out_reset(&a.choice);
    ns_batch_end(&a.batch, count);
    rig_apply(&a);
}

/* Applies the log to another database, from its first entry on; up to `until`. */
static void replay(struct rig *b, uint64_t until)
{
    struct wire_in in = wire_in_of(wire_out_slice(&log_bytes));
    struct why why = { "" };

    for (uint64_t index = 1; index <= until && in.left != 0; index++) {
        struct slice batch = wire_get_bytes(&in);

        CHECK_INT(ns_apply(b->ns, index, batch, NULL, NULL, &why), 0);
    }
    CHECK_INT(ns_flush(b->ns, &why), 0);
}

static void one_log_gives_one_database(void)
{
    struct rig b;
    uint32_t quotas = 0;

    while (sessions < 3) {
        sessions = rig_session(&a);
    }
    for (int i = 0; i < ENTRIES; i++) {
        random_entry();
        quotas += i % 50 == 0 ? rig_quotas_add_up(&a) : 0;
    }
    CHECK(quotas > 20); /* there were some */
    rig_init(&b, "b");
    ns_keep(b.ns, 1 + below(50));
    replay(&b, UINT64_MAX);
    CHECK_INT(ns_applied(b.ns), a.index);
    CHECK(ns_hash(a.ns) == ns_hash(b.ns));
    rig_fini(&b);
}

static void different_logs_give_different_hashes(void)
{
    struct rig b;

    rig_init(&b, "c");
    replay(&b, a.index - 1);
    CHECK(ns_hash(a.ns) != ns_hash(b.ns));
    rig_fini(&b);
}

static void replay_from_a_checkpoint_gives_the_same(void)
{
    struct rig b;
    uint64_t middle = a.index / 2;

    rig_init(&b, "d");
    ns_keep(b.ns, 16);
    replay(&b, middle);
    rig_checkpoint(&b);
    replay(&b, a.index - 10);
    rig_close_dir(&b);
    rig_open_dir(&b);
    CHECK_INT(ns_applied(b.ns), middle);
    replay(&b, UINT64_MAX); /* what is in the database already is skipped */
    CHECK(ns_hash(a.ns) == ns_hash(b.ns));
    replay(&b, UINT64_MAX);
    CHECK(ns_hash(a.ns) == ns_hash(b.ns));
    rig_fini(&b);
}

static void nothing_of_a_broken_entry_stays(void)
{
    struct why why = { "" };
    uint64_t before;

    a.hdr.session = rig_session(&a);
    before = ns_hash(a.ns);
    rig_begin(&a);
    wire_out_reset(&a.msg);
    make_req_put(&a.msg, &(struct make_req){
                             .parent = INODE_ROOT, .name = slice_str("half"), .mode = S_IFREG });
    rig_add(&a, RPC_make);
    ns_batch_end(&a.batch, 2); /* the second command is missing */
    CHECK_INT(ns_apply(a.ns, a.index + 1, wire_out_slice(&a.batch), NULL, NULL, &why),
              DFS_EMALFORMED);
    CHECK(ns_hash(a.ns) == before);
    ns_batch_end(&a.batch, 1);
    CHECK_INT(ns_apply(a.ns, ++a.index, wire_out_slice(&a.batch), NULL, NULL, &why), 0);
    CHECK_INT(rig_lookup(&a, INODE_ROOT, "half", NULL), 0);
}

int main(void)
{
    rng_init(&rng, 7);
    wire_out_init(&log_bytes, 64u << 20);
    rig_init(&a, "a");
    a.log = &log_bytes; /* from the first entry on */
    rig_fill(&a);
    tap_run("one log gives one database", one_log_gives_one_database);
    tap_run("different logs give different hashes", different_logs_give_different_hashes);
    tap_run("replay from a checkpoint gives the same", replay_from_a_checkpoint_gives_the_same);
    tap_run("nothing of a broken entry stays", nothing_of_a_broken_entry_stays);
    rig_fini(&a);
    wire_out_fini(&log_bytes);
    return tap_done();
}
