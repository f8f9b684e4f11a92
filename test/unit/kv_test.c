#include "cluster/store/kv.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/base/rng.h"

#include "test/unit/tap.h"

#define MAP  (UINT64_C(256) << 20)
#define KEYS 3000

static const char *const names[] = { "things", "other" };

/* The database under test and what should be in it: key -> index of the commit that wrote it. */
static struct kv *kv;
static uint64_t model[KEYS];
static uint64_t saved[KEYS]; /* the model at the checkpoint */
static uint64_t last_index;
static uint64_t saved_index;
static uint64_t keep_of_8; /* so many of eight writes are kept, not committed */
static struct rng rng;

static const char *in(const char *dir, const char *file)
{
    static char path[4][300];
    static unsigned turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof(path[0]), "%s/%s/%s", tap_tmp(), dir, file);
    return path[turn];
}

static int open_in(const char *dir, struct why *why)
{
    return kv_open(in(dir, ""), MAP, names, 2, &kv, why);
}

static void must_open(const char *dir)
{
    struct why why = { "" };
    int err = open_in(dir, &why);

    if (err != 0) {
        printf("# %s: %s\n", dir, why.text);
        exit(1);
    }
}

/* One write: n random keys and the index. */
static void commit_keys(int n)
{
    uint8_t value[300] = { 0 };
    uint64_t key;
    MDB_txn *t;
    MDB_val k = { sizeof(key), &key };
    MDB_val v = { sizeof(value), value };

    last_index++;
    memcpy(value, &last_index, sizeof(last_index));
    CHECK_INT(kv_write_begin(kv, &t), 0);
    for (int i = 0; i < n; i++) {
        key = rng_below(&rng, KEYS);
        if (rng_chance(&rng, 1, 8)) {
            int rc = mdb_del(t, kv_dbi(kv, 0), &k, NULL);

            CHECK(rc == 0 || rc == MDB_NOTFOUND);
            model[key] = 0;
        } else {
            v.mv_size = 100 + rng_below(&rng, 200);
            CHECK_INT(mdb_put(t, kv_dbi(kv, 0), &k, &v, 0), 0);
            model[key] = last_index;
        }
    }
    key = UINT64_MAX;
    v.mv_size = sizeof(last_index);
    CHECK_INT(mdb_put(t, kv_dbi(kv, 1), &k, &v, 0), 0);
    if (rng_chance(&rng, keep_of_8, 8)) {
        kv_keep(kv);
    } else {
        CHECK_INT(kv_commit(kv), 0);
    }
}

static void commit_many(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        commit_keys(3);
    }
}

static void remember(void)
{
    memcpy(saved, model, sizeof(model));
    saved_index = last_index;
}

static void forget(void)
{
    memset(model, 0, sizeof(model));
    last_index = 0;
    remember();
}

/* What kv_open goes back to is what was saved. */
static void go_back(void)
{
    memcpy(model, saved, sizeof(model));
    last_index = saved_index;
}

static void checkpoint(void)
{
    struct why why = { "" };

    CHECK_INT(kv_checkpoint_begin(kv, &why), 0);
    remember();
    commit_many(20); /* commits go on while it is written */
    CHECK_INT(kv_checkpoint_sync(kv, &why), 0);
    kv_checkpoint_end(kv);
}

/* The database holds the model, no more and no less. */
static bool holds_model(void)
{
    struct kv_view view = { 0 };
    MDB_txn *t;
    MDB_cursor *c;
    MDB_val k, v;
    uint64_t want = 0, have = 0, key, index;
    bool same = true;
    int rc;

    for (size_t i = 0; i < KEYS; i++) {
        want += model[i] != 0;
    }
    CHECK_INT(kv_view_begin(kv, &view), 0);
    t = view.txn;
    CHECK_INT(mdb_cursor_open(t, kv_dbi(kv, 0), &c), 0);
    while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
        memcpy(&key, k.mv_data, sizeof(key));
        memcpy(&index, v.mv_data, sizeof(index));
        same = same && key < KEYS && model[key] == index;
        have++;
    }
    mdb_cursor_close(c);
    key = UINT64_MAX;
    k = (MDB_val){ sizeof(key), &key };
    index = 0;
    if (mdb_get(t, kv_dbi(kv, 1), &k, &v) == 0) {
        memcpy(&index, v.mv_data, sizeof(index));
    }
    kv_view_end(kv, &view);
    kv_view_fini(&view);
    return same && rc == MDB_NOTFOUND && have == want && index == last_index;
}

static char *slurp(const char *path, size_t *ret_len)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    char *p;

    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    *ret_len = (size_t)st.st_size;
    p = x_alloc(*ret_len);
    CHECK_INT(io_pread(fd, p, *ret_len, 0), 0);
    close(fd);
    return p;
}

static void spill(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    CHECK_INT(io_pwrite(fd, p, n, 0), 0);
    close(fd);
}

static void sh(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void sh(const char *fmt, ...)
{
    char cmd[900];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof(cmd), fmt, ap);
    va_end(ap);
    CHECK_INT(system(cmd), 0);
}

/* ---- cases ---- */

static void opening_goes_back_to_the_checkpoint(void)
{
    forget();
    sh("rm -rf '%s'", in("back", ""));
    must_open("back");
    CHECK(holds_model());
    commit_many(50);
    kv_close(kv);
    go_back();
    must_open("back");
    CHECK(holds_model()); /* nothing was checkpointed */
    commit_many(100);
    checkpoint();
    commit_many(100);
    kv_close(kv);
    go_back();
    for (int i = 0; i < 3; i++) { /* also again and again */
        must_open("back");
        CHECK(holds_model());
        commit_many(30);
        CHECK(holds_model());
        kv_close(kv);
        go_back();
    }
}

/* The power fails: of the pages written since `old` was synced, each is on disk or is not. */
static void crash(const char *dir, const char *old, size_t old_len)
{
    size_t len;
    char *now = slurp(in(dir, "data.mdb"), &len);

    for (size_t at = 0; at < len; at += 4096) {
        if (rng_chance(&rng, 1, 2)) {
            if (at < old_len) {
                memcpy(now + at, old + at, 4096);
            } else {
                memset(now + at, 0, 4096);
            }
        }
    }
    kv_close(kv);
    spill(in(dir, "data.mdb"), now, len);
    free(now);
}

static void a_power_cut_loses_nothing_of_the_checkpoint(void)
{
    for (int trial = 0; trial < 4; trial++) {
        struct why why = { "" };
        size_t old_len;
        char *old;

        forget();
        sh("rm -rf '%s'", in("live", ""));
        must_open("live");
        commit_many(600);
        checkpoint();
        commit_many((unsigned)rng_below(&rng, 300));
        CHECK_INT(kv_checkpoint_begin(kv, &why), 0);
        remember();
        commit_many((unsigned)rng_below(&rng, 100));
        CHECK_INT(kv_checkpoint_sync(kv, &why), 0);
        old = slurp(in("live", "data.mdb"), &old_len);
        kv_checkpoint_end(kv);
        for (int round = 0; round < 3; round++) {
            /* round 0: after the process that made the checkpoint; then twice after one that only
             * opened it and went on: its pages must be pinned from the first commit on */
            commit_many(20 + (unsigned)rng_below(&rng, 400));
            crash("live", old, old_len);
            go_back();
            must_open("live");
            CHECK(holds_model());
        }
        commit_many(200);
        CHECK(holds_model());
        kv_close(kv);
        free(old);
    }
}

/* ---- what is kept ---- */

static void put_number(MDB_txn *t, size_t db, uint64_t key, uint64_t number)
{
    MDB_val k = { sizeof(key), &key }, v = { sizeof(number), &number };

    CHECK_INT(mdb_put(t, kv_dbi(kv, db), &k, &v, 0), 0);
}

static uint64_t get_number(MDB_txn *t, size_t db, uint64_t key)
{
    MDB_val k = { sizeof(key), &key }, v;
    uint64_t number = 0;

    if (mdb_get(t, kv_dbi(kv, db), &k, &v) == 0) {
        memcpy(&number, v.mv_data, sizeof(number));
    }
    return number;
}

static void write_number(uint64_t number)
{
    MDB_txn *t;

    CHECK_INT(kv_write_begin(kv, &t), 0);
    put_number(t, 0, 1, number);
    put_number(t, 1, 1, number);
}

static uint64_t committed_number(void)
{
    uint64_t number;
    MDB_txn *t;

    CHECK_INT(kv_read_begin(kv, &t), 0);
    number = get_number(t, 0, 1);
    mdb_txn_abort(t);
    return number;
}

static uint64_t seen_number(struct kv_view *v)
{
    uint64_t number;

    CHECK_INT(kv_view_begin(kv, v), 0);
    number = get_number(v->txn, 0, 1);
    CHECK_INT(get_number(v->txn, 1, 1), number);
    kv_view_end(kv, v);
    return number;
}

static void what_is_kept_views_see(void)
{
    struct kv_view v = { 0 };
    struct why why = { "" };

    must_open("kept");
    write_number(1);
    CHECK_INT(kv_commit(kv), 0);
    for (uint64_t i = 2; i < 5; i++) {
        write_number(i);
        kv_keep(kv);
        CHECK(kv_has_kept(kv));
        CHECK_INT(seen_number(&v), i);
        CHECK_INT(committed_number(), 1);
    }
    CHECK_INT(kv_flush(kv), 0);
    CHECK(!kv_has_kept(kv));
    CHECK_INT(committed_number(), 4);
    CHECK_INT(seen_number(&v), 4);
    CHECK_INT(kv_flush(kv), 0); /* nothing */
    write_number(5);
    kv_keep(kv);
    write_number(6);
    CHECK_INT(kv_commit(kv), 0); /* both */
    CHECK_INT(committed_number(), 6);
    write_number(7);
    kv_keep(kv);
    CHECK_INT(kv_checkpoint_begin(kv, &why), 0); /* with what is kept */
    CHECK_INT(committed_number(), 7);
    write_number(8);
    kv_keep(kv); /* beside the checkpoint */
    CHECK_INT(kv_checkpoint_sync(kv, &why), 0);
    kv_checkpoint_end(kv);
    CHECK_INT(seen_number(&v), 8);
    kv_view_fini(&v);
    kv_close(kv); /* as a crash does */
    must_open("kept");
    CHECK_INT(seen_number(&v), 7);
    kv_view_fini(&v);
    kv_close(kv);
}

static _Atomic uint64_t answered; /* writes up to this one have ended */
static atomic_bool enough;

static void *look(void *arg)
{
    struct kv_view v = { 0 };
    uint64_t last = 0, looks = 0;

    (void)arg;
    while (!atomic_load(&enough) || looks == 0) {
        uint64_t least = atomic_load(&answered);
        uint64_t now = seen_number(&v);

        CHECK(now >= least && now >= last);
        CHECK(committed_number() <= atomic_load(&answered) + 1);
        last = now;
        looks++;
    }
    kv_view_fini(&v);
    return NULL;
}

static void others_see_every_write_that_has_ended(void)
{
    pthread_t threads[2];

    must_open("threads");
    atomic_store(&answered, 0);
    atomic_store(&enough, false);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, look, NULL), 0);
    }
    for (uint64_t n = 1; n <= 3000; n++) {
        write_number(n);
        if (rng_chance(&rng, 3, 4)) {
            kv_keep(kv);
        } else {
            CHECK_INT(kv_commit(kv), 0);
        }
        atomic_store(&answered, n);
        if (rng_chance(&rng, 1, 20)) {
            CHECK_INT(kv_flush(kv), 0);
        }
    }
    atomic_store(&enough, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    kv_close(kv);
}

static void nothing_is_answered_from_less_than_was_kept(void)
{
    struct kv_view v = { 0 };
    struct why why = { "" };
    MDB_txn *t;

    must_open("lost");
    write_number(1);
    kv_abort(kv); /* alone: nobody knew of it */
    CHECK(!kv_is_lost(kv));
    CHECK_INT(seen_number(&v), 0);
    write_number(2);
    kv_keep(kv);
    write_number(3);
    kv_abort(kv);
    CHECK(kv_is_lost(kv));
    CHECK_INT(kv_view_begin(kv, &v), DFS_EIO);
    CHECK_INT(kv_read_begin(kv, &t), DFS_EIO);
    CHECK_INT(kv_write_begin(kv, &t), DFS_EIO);
    CHECK_INT(kv_flush(kv), DFS_EIO);
    CHECK_INT(kv_checkpoint_begin(kv, &why), DFS_EIO);
    kv_view_fini(&v);
    kv_close(kv);
    must_open("lost");
    CHECK_INT(seen_number(&v), 0);
    kv_view_fini(&v);
    kv_close(kv);
}

static void a_damaged_file_is_refused_by_name(void)
{
    static const struct {
        const char *damage; /* a command, run inside the directory */
        const char *file;   /* that the message names */
    } cases[] = {
        { "rm checkpoint", "checkpoint" },
        { "truncate -s 100 checkpoint", "checkpoint" },
        { "truncate -s 0 checkpoint", "checkpoint" },
        { "printf x | dd of=checkpoint bs=1 seek=30 conv=notrunc status=none", "checkpoint" },
        { "printf x | dd of=checkpoint bs=1 seek=2000 conv=notrunc status=none", "checkpoint" },
        { "printf more >> checkpoint", "checkpoint" },
        { "rm data.mdb", "data.mdb" },
        { "truncate -s 8192 data.mdb", "data.mdb" },
        { "truncate -s 0 data.mdb", "data.mdb" },
        { "rm state", "state" },
        { "echo hello > state", "state" },
        { "truncate -s 5000 state", "state" },
    };

    forget();
    must_open("good");
    commit_many(500);
    checkpoint();
    kv_close(kv);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct why why = { "" };
        int err;

        sh("rm -rf '%s' && cp -r '%s' '%s' && cd '%s' && %s", in("hurt", ""), in("good", ""),
           in("hurt", ""), in("hurt", ""), cases[i].damage);
        err = open_in("hurt", &why);
        if (err != DFS_EDAMAGED || strstr(why.text, cases[i].file) == NULL) {
            printf("# %s: %s: %s\n", cases[i].damage, err_name(err), why.text);
            tap_case_bad = 1;
        }
        if (err == 0) {
            kv_close(kv);
        }
    }
}

static void put_page(const char *path, uint64_t page, const void *p)
{
    int fd = open(path, O_WRONLY);

    CHECK(fd >= 0);
    CHECK_INT(io_pwrite(fd, p, 4096, page * 4096), 0);
    close(fd);
}

/* A page is lost, is another one, or is noise: opening says so, or it was a free page. */
static void a_damaged_page_is_noticed(void)
{
    struct why why = { "" };
    uint8_t noise[4096];
    char *good;
    size_t len;
    int noticed = 0;

    forget();
    must_open("pages");
    commit_keys(2000);
    CHECK_INT(kv_checkpoint_begin(kv, &why), 0);
    CHECK_INT(kv_checkpoint_sync(kv, &why), 0);
    kv_checkpoint_end(kv);
    kv_close(kv);
    good = slurp(in("pages", "data.mdb"), &len);
    for (int i = 0; i < 100; i++) {
        uint64_t page = 2 + rng_below(&rng, len / 4096 - 2);
        const void *damage = noise;
        int err;

        memset(noise, 0, sizeof(noise));
        if (i % 3 == 1) {
            damage = good + 4096 * (2 + rng_below(&rng, len / 4096 - 2));
        } else if (i % 3 == 2) {
            rng_system(noise, sizeof(noise));
        }
        put_page(in("pages", "data.mdb"), page, damage);
        err = open_in("pages", &why);
        if (err == 0) {
            CHECK(holds_model());
            kv_close(kv);
        } else {
            CHECK_INT(err, DFS_EDAMAGED);
            CHECK(strstr(why.text, "data.mdb") != NULL);
            noticed++;
        }
        put_page(in("pages", "data.mdb"), page, good + 4096 * page);
    }
    CHECK(noticed > 50);
    must_open("pages");
    CHECK(holds_model());
    kv_close(kv);
    free(good);
}

static void damaged_meta_pages_heal(void)
{
    forget();
    must_open("heal");
    commit_many(100);
    checkpoint();
    kv_close(kv);
    go_back();
    sh("dd if=/dev/urandom of='%s' bs=4096 count=2 conv=notrunc status=none",
       in("heal", "data.mdb"));
    must_open("heal");
    CHECK(holds_model());
    kv_close(kv);
}

static void one_process_at_a_time(void)
{
    struct why why = { "" };
    struct kv *first;

    forget();
    must_open("busy");
    first = kv;
    CHECK_INT(open_in("busy", &why), DFS_EBUSY);
    CHECK(strstr(why.text, "busy") != NULL);
    kv_close(first);
    must_open("busy");
    kv_close(kv);
}

static void an_unfinished_creation_starts_again(void)
{
    forget();
    sh("mkdir -p '%s' && echo garbage > '%s'", in("half", ""), in("half", "data.mdb"));
    spill(in("half", "state"), "dfs-kv 1 creating\n", 18);
    must_open("half");
    CHECK(holds_model());
    commit_many(10);
    CHECK(holds_model());
    kv_close(kv);
}

static void pending_bytes_count_what_a_checkpoint_frees(void)
{
    uint64_t before = 0, after = 0;

    forget();
    must_open("pending");
    commit_many(100);
    CHECK_INT(kv_pending_bytes(kv, &before), 0);
    CHECK(before > 100 * 3 * 4096);
    CHECK(before < UINT64_C(100) * 40 * 4096);
    checkpoint();
    CHECK_INT(kv_pending_bytes(kv, &after), 0);
    CHECK(after < before / 2); /* the commits made meanwhile */
    kv_close(kv);
}

#ifdef DFS_FAULTS
static void a_failed_commit_loses_what_was_kept(void)
{
    struct kv_view v = { 0 };
    struct why why = { "" };
    MDB_txn *t;

    must_open("commit");
    CHECK_INT(fault_arm("kv.commit=NOSPC times=1", &why), 0);
    write_number(1);
    CHECK_INT(kv_commit(kv), DFS_ENOSPC);
    CHECK(!kv_is_lost(kv)); /* nobody was told */
    CHECK_INT(seen_number(&v), 0);
    CHECK_INT(fault_arm("kv.commit=NOSPC times=1", &why), 0);
    write_number(2);
    kv_keep(kv);
    CHECK_INT(kv_flush(kv), DFS_ENOSPC);
    CHECK(kv_is_lost(kv) && !kv_has_kept(kv));
    CHECK_INT(kv_view_begin(kv, &v), DFS_EIO);
    CHECK_INT(kv_write_begin(kv, &t), DFS_EIO);
    CHECK_INT(fault_arm("", &why), 0);
    kv_view_fini(&v);
    kv_close(kv);
}

static void a_failed_sync_stops_checkpoints(void)
{
    static const char *const faults[] = {
        "kv.checkpoint.pages=IO times=1", "kv.checkpoint.sync=IO times=1",
        "kv.checkpoint.write=IO times=1", "io.file.fsync=IO times=1",
        "io.file.rename=IO times=1",      "io.dir.fsync=IO times=1"
    };

    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        struct why why = { "" };
        char dir[32];

        snprintf(dir, sizeof(dir), "sync%zu", i);
        forget();
        must_open(dir);
        commit_many(50);
        checkpoint();
        commit_many(50);
        CHECK_INT(fault_arm(faults[i], &why), 0);
        CHECK_INT(kv_checkpoint_begin(kv, &why), 0);
        CHECK_INT(kv_checkpoint_sync(kv, &why), DFS_EIO);
        kv_checkpoint_end(kv);
        CHECK_INT(kv_checkpoint_begin(kv, &why), DFS_EIO);
        if (strncmp(faults[i], "io.dir", 6) == 0) {
            remember(); /* it was in place already */
        }
        commit_many(50);
        CHECK(holds_model());
        kv_close(kv);
        go_back();
        must_open(dir);
        kv_close(kv);
        CHECK_INT(fault_arm("", &why), 0);
    }
}

static void a_failed_creation_can_be_repeated(void)
{
    struct why why = { "" };
    bool done = false;

    for (int skip = 0; !done && skip < 20; skip++) {
        char spec[64];

        snprintf(spec, sizeof(spec), "io.file.fsync=IO skip=%d times=1", skip);
        CHECK_INT(fault_arm(spec, &why), 0);
        done = open_in("create", &why) == 0;
        if (done) {
            kv_close(kv);
        }
        CHECK_INT(fault_arm("", &why), 0);
        forget();
        must_open("create");
        CHECK(holds_model());
        kv_close(kv);
        sh("rm -rf '%s'", in("create", ""));
    }
    CHECK(done);
}
#endif

int main(void)
{
    rng_init(&rng, 42);
    tap_run("opening goes back to the last checkpoint", opening_goes_back_to_the_checkpoint);
    tap_run("a power cut loses nothing of the checkpoint",
            a_power_cut_loses_nothing_of_the_checkpoint);
    keep_of_8 = 5;
    tap_run("opening goes back, with writes that are kept", opening_goes_back_to_the_checkpoint);
    tap_run("a power cut loses nothing, with writes that are kept",
            a_power_cut_loses_nothing_of_the_checkpoint);
    keep_of_8 = 0;
    tap_run("what is kept views see", what_is_kept_views_see);
    tap_run("others see every write that has ended", others_see_every_write_that_has_ended);
    tap_run("nothing is answered from less than was kept",
            nothing_is_answered_from_less_than_was_kept);
    tap_run("a damaged file is refused by name", a_damaged_file_is_refused_by_name);
    tap_run("a damaged page is noticed", a_damaged_page_is_noticed);
    tap_run("damaged meta pages heal", damaged_meta_pages_heal);
    tap_run("one process at a time", one_process_at_a_time);
    tap_run("an unfinished creation starts again", an_unfinished_creation_starts_again);
    tap_run("pending bytes count what a checkpoint frees",
            pending_bytes_count_what_a_checkpoint_frees);
#ifdef DFS_FAULTS
    tap_run("a failed commit loses what was kept", a_failed_commit_loses_what_was_kept);
    tap_run("a failed sync stops checkpoints", a_failed_sync_stops_checkpoints);
    tap_run("a failed creation can be repeated", a_failed_creation_can_be_repeated);
#endif
    return tap_done();
}
