/* The life of the state machine itself: its beginning, sessions, repeated commands, orphans, garbage. */
#include "cluster/store/key.h"

#include "test/unit/ns_rig.h"

#define ROOT INODE_ROOT

static struct rig r;

static int setx(uint64_t ino, const char *name)
{
    return do_setxattr(
        &r, &(struct setxattr_req){ .ino = ino, .name = slice_str(name), .value = slice_str("v") },
        NULL);
}

static void nothing_works_before_init(void)
{
    struct rig n;
    uint8_t id[CLUSTER_ID_BYTES];
    uint8_t other[CLUSTER_ID_BYTES] = { 1 };

    rig_init(&n, "uninit");
    CHECK(!ns_cluster(n.ns, id));
    CHECK_INT(do_session_open(&n, &(struct session_open_req){ 0 }, NULL), DFS_EAGAIN);
    CHECK_INT(do_ns_init(&n, &(struct ns_init_req){ .cluster = slice_of(id, 3) }, NULL),
              DFS_EINVAL);
    CHECK_INT(do_ns_init(&n, &(struct ns_init_req){ .cluster = slice_of(rig_cluster, 16) }, NULL),
              0);
    CHECK_INT(do_ns_init(&n, &(struct ns_init_req){ .cluster = slice_of(rig_cluster, 16) }, NULL),
              0);
    CHECK_INT(do_ns_init(&n, &(struct ns_init_req){ .cluster = slice_of(other, 16) }, NULL),
              DFS_EEXIST);
    CHECK(ns_cluster(n.ns, id) && memcmp(id, rig_cluster, 16) == 0);
    CHECK_INT(rig_stat(&n, ROOT).mode, S_IFDIR | 0755);
    CHECK_INT(rig_stat(&n, ROOT).nlink, 2);
    rig_fini(&n);
}

static void orphans_go_when_they_are_reaped(void)
{
    struct attr f, l, d;
    uint64_t list[64];
    struct ns_counts before, after;
    struct wire_out refs;
    size_t n;

    wire_out_init(&refs, 4096);
    f = rig_mkfile(&r, ROOT, "of");
    CHECK_INT(rig_make(&r, ROOT, "ol", S_IFLNK | 0777, &l), 0);
    d = rig_mkdir(&r, ROOT, "od");
    CHECK_INT(setx(f.ino, "user.a"), 0);
    CHECK_INT(ns_get_counts(r.rd, &before), 0);
    CHECK_INT(rig_unlink(&r, ROOT, "of", 0), 0);
    CHECK_INT(rig_unlink(&r, ROOT, "ol", 0), 0);
    CHECK_INT(rig_unlink(&r, ROOT, "od", 1), 0);
    n = ns_orphans(r.rd, 0, list, 64);
    CHECK_INT(n, before.orphans + 3);
    CHECK_INT(list[n - 1], d.ino);
    CHECK_INT(ns_orphans(r.rd, f.ino, list, 64), 2);
    CHECK_INT(list[0], l.ino);
    CHECK_INT(ns_orphans(r.rd, d.ino, list, 64), 0);
    CHECK_INT(setx(f.ino, "user.b"), 0); /* open and alive */
    ino_ref_put(&refs, &(struct ino_ref){ f.ino });
    ino_ref_put(&refs, &(struct ino_ref){ l.ino });
    ino_ref_put(&refs, &(struct ino_ref){ d.ino });
    ino_ref_put(&refs, &(struct ino_ref){ ROOT }); /* is no orphan: stays */
    ino_ref_put(&refs, &(struct ino_ref){ 424242 });
    CHECK_INT(do_ns_reap(
                  &r, &(struct ns_reap_req){ .inodes = wire_out_list(&refs, 5), .max_extents = 10 },
                  NULL),
              0);
    CHECK_INT(ns_get_counts(r.rd, &after), 0);
    CHECK_INT(after.inodes, before.inodes - 3);
    CHECK_INT(after.orphans, before.orphans);
    CHECK_INT(ask_getattr(&r, &(struct getattr_req){ .ino = f.ino }, NULL), DFS_ESTALE);
    CHECK_INT(ask_getattr(&r, &(struct getattr_req){ .ino = ROOT }, NULL), 0);
    wire_out_fini(&refs);
}

static bool find_session(void *arg, uint64_t session, struct slice host, struct slice name)
{
    uint64_t *want = arg;

    if (session == *want) {
        *want = slice_eq(host, slice_str("here")) && name.len == 0 ? 0 : *want;
    }
    return true;
}

static void a_repeated_command_gets_its_first_answer(void)
{
    struct make_rep rep;
    struct make_req req = {
        .parent = ROOT, .name = slice_str("once"), .mode = S_IFREG | 0644, .flags = MAKE_EXCL
    };
    uint64_t ino, seen = r.hdr.session;

    r.hdr.slot = 3;
    CHECK_INT(do_make(&r, &req, &rep), 0);
    ino = rig_attr(rep.attr).ino;
    r.hdr.seq--; /* the same number again */
    CHECK_INT(do_make(&r, &req, &rep), 0);
    CHECK_INT(rig_attr(rep.attr).ino, ino);
    CHECK_INT(do_make(&r, &req, &rep), DFS_EEXIST);
    r.hdr.seq--;
    CHECK_INT(do_make(&r, &req, &rep), DFS_EEXIST); /* failures are remembered too */
    r.hdr.seq -= 2;
    CHECK_INT(do_make(&r, &req, &rep), DFS_EREPLAYED);
    r.hdr.seq += 5;
    r.hdr.slot = LIMIT_SLOTS;
    CHECK_INT(do_make(&r, &req, &rep), DFS_EINVAL);
    r.hdr.slot = 0;
    CHECK_INT(ns_each_session(r.rd, find_session, &seen), 0);
    CHECK_INT(seen, 0);
}

static uint64_t ended;

static void on_end(void *arg, uint64_t session)
{
    (void)arg;
    ended = session;
}

static void a_session_ends(void)
{
    struct ns_events ev = { .session_ended = on_end };
    struct wire_out refs;
    uint64_t mine = r.hdr.session;
    uint64_t s = rig_session(&r);

    ns_set_events(r.ns, &ev);
    r.hdr.session = s;
    rig_mkfile(&r, ROOT, "by s");
    CHECK_INT(do_session_close(&r, &(struct session_close_req){ 0 }, NULL), 0);
    CHECK_INT(ended, s);
    CHECK_INT(rig_make(&r, ROOT, "late", S_IFREG, NULL), DFS_ESESSION);
    CHECK_INT(do_session_close(&r, &(struct session_close_req){ 0 }, NULL), 0); /* it is closed */
    r.hdr.session = mine;
    s = rig_session(&r);
    wire_out_init(&refs, 64);
    session_ref_put(&refs, &(struct session_ref){ s });
    session_ref_put(&refs, &(struct session_ref){ 88888 });
    CHECK_INT(do_session_expire(
                  &r, &(struct session_expire_req){ .sessions = wire_out_list(&refs, 2) }, NULL),
              0);
    CHECK_INT(ended, s);
    r.hdr.session = s;
    CHECK_INT(rig_make(&r, ROOT, "late", S_IFREG, NULL), DFS_ESESSION);
    r.hdr.session = mine;
    wire_out_fini(&refs);
}

static void garbage_is_an_answer_or_an_error(void)
{
    struct why why = { "" };
    uint64_t index = r.index;

    wire_out_reset(&r.msg);
    CHECK_INT(rig_send(&r, RPC_make), DFS_EMALFORMED);    /* an empty request */
    CHECK_INT(rig_send(&r, RPC_lookup), DFS_EUNKNOWNRPC); /* a question */
    CHECK_INT(rig_send(&r, 0xffff), DFS_EUNKNOWNRPC);
    CHECK_INT(r.index, index + 3);
    /* a broken log entry stops the master, and nothing of it stays */
    rig_begin(&r);
    ns_batch_end(&r.batch, 2);
    CHECK_INT(ns_apply(r.ns, r.index + 1, wire_out_slice(&r.batch), NULL, NULL, &why),
              DFS_EMALFORMED);
    CHECK(why.text[0] != '\0');
    CHECK_INT(ns_apply(r.ns, r.index + 1, slice_str("nonsense"), NULL, NULL, &why), DFS_EMALFORMED);
    CHECK_INT(ns_applied(r.ns), r.index);
    ns_batch_end(&r.batch, 0); /* an empty batch is fine */
    rig_apply(&r);
    CHECK_INT(ns_applied(r.ns), r.index);
    wire_out_reset(&r.reply);
    CHECK_INT(ns_query(r.rd, &r.hdr, RPC_lookup, slice_str("?"), NULL, NULL, &r.reply),
              DFS_EMALFORMED);
    CHECK_INT(ns_query(r.rd, &r.hdr, RPC_make, SLICE_EMPTY, NULL, NULL, &r.reply), DFS_EUNKNOWNRPC);
}

static void a_newer_format_is_refused(void)
{
    struct rig n;
    struct why why = { "" };
    struct ns *ns;
    MDB_txn *t;
    MDB_dbi dbi;
    MDB_val k = key_val("state", 5);
    MDB_val v;
    uint8_t rec[64];

    rig_start(&n, "newer");
    CHECK_INT(kv_write_begin(ns_kv(n.ns), &t), 0);
    CHECK_INT(mdb_dbi_open(t, "meta", 0, &dbi), 0);
    CHECK_INT(mdb_get(t, dbi, &k, &v), 0);
    memcpy(rec, v.mv_data, v.mv_size);
    rec[0] = 99;
    v.mv_data = rec;
    CHECK_INT(mdb_put(t, dbi, &k, &v, 0), 0);
    CHECK_INT(kv_commit(ns_kv(n.ns)), 0);
    rig_checkpoint(&n);
    rig_close_dir(&n);
    CHECK_INT(ns_open(n.dir, RIG_MAP, &ns, &why), DFS_EVERSION);
    CHECK(strstr(why.text, "newer") != NULL);
    rig_fini(&n);
}

/* The map is full: the entry is given up as a whole, and can be applied once there is room. */
static void a_full_database_says_so(void)
{
    struct rig n;
    struct why why = { "" };
    uint64_t hash;
    int err = 0;

    rig_start(&n, "full");
    rig_checkpoint(&n);
    rig_close_dir(&n);
    n.map_bytes = 4 << 20;
    rig_open_dir(&n);
    hash = ns_hash(n.ns);
    for (int i = 0; err == 0 && i < 2000; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%d", i);
        wire_out_reset(&n.msg);
        make_req_put(&n.msg, &(struct make_req){
                                 .parent = ROOT, .name = slice_str(name), .mode = S_IFREG | 0644 });
        rig_begin(&n);
        rig_add(&n, RPC_make);
        ns_batch_end(&n.batch, 1);
        hash = ns_hash(n.ns);
        err = ns_apply(n.ns, n.index + 1, wire_out_slice(&n.batch), NULL, NULL, &why);
        n.index += err == 0;
    }
    CHECK_INT(err, DFS_ENOSPC);
    CHECK(strstr(why.text, "metadata.max") != NULL);
    CHECK(ns_hash(n.ns) == hash);
    CHECK_INT(ns_applied(n.ns), n.index);
    rig_checkpoint(&n); /* room again: replaced pages may be used */
    CHECK_INT(ns_apply(n.ns, n.index + 1, wire_out_slice(&n.batch), NULL, NULL, &why), 0);
    rig_fini(&n);
}

int main(void)
{
    rig_start(&r, "ns");
    tap_run("nothing works before init", nothing_works_before_init);
    tap_run("orphans go when they are reaped", orphans_go_when_they_are_reaped);
    tap_run("a repeated command gets its first answer", a_repeated_command_gets_its_first_answer);
    tap_run("a session ends", a_session_ends);
    tap_run("garbage is an answer or an error", garbage_is_an_answer_or_an_error);
    tap_run("a newer format is refused", a_newer_format_is_refused);
    tap_run("a full database says so", a_full_database_says_so);
    rig_fini(&r);
    return tap_done();
}
