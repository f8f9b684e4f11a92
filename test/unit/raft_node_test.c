#include "cluster/node/raft_node.h"

#include <fcntl.h>
#include <glob.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/node/raft_files.h"

#include "test/unit/tap.h"

/* A state machine of numbers: the sum of what was applied, kept in memory, and what a checkpoint
 * would have made durable. */
struct fsm {
    uint64_t applied, sum, count;
    uint64_t saved_applied, saved_sum, saved_count;
    uint64_t begun_applied, begun_sum, begun_count;
    int checkpoints;
    int submitted_seen;
    bool leads, stopped, failed;
    int apply_error;
    char text[600];
};

/* libraft leaks some of a damaged segment that it refuses. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libraft.so";
}

static struct fsm f;
static uv_loop_t loop;
static struct raft_node *node;
static int answers, last_status;

static int apply(void *arg, uint64_t index, struct slice entry, void *submitted, struct why *why)
{
    uint64_t v;

    (void)arg;
    if (f.apply_error != 0) {
        return why_set(why, f.apply_error, "no more");
    }
    if (index <= f.applied) {
        return DFS_OK;
    }
    memcpy(&v, entry.p, 8);
    f.sum += v;
    f.count++;
    f.applied = index;
    f.submitted_seen += submitted != NULL;
    return DFS_OK;
}

static uint64_t applied(void *arg)
{
    (void)arg;
    return f.applied;
}

static int begin(void *arg, struct why *why)
{
    (void)arg, (void)why;
    f.begun_applied = f.applied;
    f.begun_sum = f.sum;
    f.begun_count = f.count;
    return DFS_OK;
}

static int sync_it(void *arg, struct why *why)
{
    (void)arg, (void)why;
    return DFS_OK;
}

static void end(void *arg)
{
    (void)arg;
    f.saved_applied = f.begun_applied;
    f.saved_sum = f.begun_sum;
    f.saved_count = f.begun_count;
    f.checkpoints++;
}

static void leads(void *arg, bool it_does)
{
    (void)arg;
    f.leads = it_does;
}

static void failed(void *arg, int err, const char *text)
{
    (void)arg, (void)err;
    f.failed = true;
    snprintf(f.text, sizeof(f.text), "%s", text);
}

static void stopped(void *arg)
{
    (void)arg;
    f.stopped = true;
}

static int start(const char *name, struct why *why)
{
    const struct raft_node_fsm fsm = { apply, applied, begin,  sync_it, end,
                                       NULL,  leads,   failed, NULL };
    char dir[128];
    struct raft_node_conf conf = { .dir = dir,
                                   .id = 1,
                                   .address = "127.0.0.1:0",
                                   .bind = "127.0.0.1:0",
                                   .snapshot_entries = 100,
                                   .snapshot_bytes = 100000,
                                   .segment_bytes = 65536 };
    int err;

    snprintf(dir, sizeof(dir), "%s/%s", tap_tmp(), name);
    /* the process is new: what is in memory is the last checkpoint */
    f = (struct fsm){ .applied = f.saved_applied,
                      .sum = f.saved_sum,
                      .count = f.saved_count,
                      .saved_applied = f.saved_applied,
                      .saved_sum = f.saved_sum,
                      .saved_count = f.saved_count,
                      .apply_error = f.apply_error };
    uv_loop_init(&loop);
    err = raft_node_start(&loop, &conf, &fsm, &node, why);
    if (err != DFS_OK) {
        uv_run(&loop, UV_RUN_NOWAIT);
        uv_loop_close(&loop);
    }
    while (err == DFS_OK && !f.leads && !f.failed) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    return err;
}

static void stop(void)
{
    raft_node_stop(node, stopped, NULL);
    while (!f.stopped) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_loop_close(&loop);
}

static void done(void *arg, int status)
{
    (void)arg;
    answers++;
    last_status = status;
}

static void submit(uint64_t v, size_t bytes)
{
    struct wire_out out;

    wire_out_init(&out, MIB);
    wire_put_u64(&out, v);
    memset(wire_reserve(&out, bytes), 1, bytes);
    raft_node_submit(node, &out, done, &f);
}

static void submit_wait(uint64_t v, size_t bytes)
{
    int before = answers;

    submit(v, bytes);
    while (answers == before) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void test_restart(void)
{
    struct why why = { "" };

    f = (struct fsm){ 0 };
    CHECK_INT(start("a", &why), DFS_OK);
    answers = 0;
    for (uint64_t i = 1; i <= 50; i++) {
        submit_wait(i, 3);
    }
    CHECK_INT(answers, 50);
    CHECK_INT(last_status, DFS_OK);
    CHECK_INT(f.sum, 1275);
    CHECK_INT(f.submitted_seen, 50);
    CHECK_INT(f.checkpoints, 0);
    stop();
    for (int round = 0; round < 2; round++) { /* all of it is in the log only */
        CHECK_INT(start("a", &why), DFS_OK);
        CHECK_INT(f.sum, 1275);
        CHECK_INT(f.count, 50);
        CHECK_INT(f.submitted_seen, 0);
        stop();
    }
}

static void test_snapshots(void)
{
    struct why why = { "" };
    uint64_t sum = 0;

    f = (struct fsm){ 0 };
    CHECK_INT(start("b", &why), DFS_OK);
    for (uint64_t i = 1; i <= 350; i++) {
        submit_wait(i, 0);
        sum += i;
    }
    CHECK(f.checkpoints >=
          1); /* entries go on while one is written: how many depends on the disk */
    stop();
    CHECK(f.saved_count >= 100 && f.saved_count < 350);
    CHECK_INT(start("b", &why), DFS_OK);
    CHECK_INT(f.sum, sum);
    CHECK_INT(f.count, 350);
    /* by bytes: 20 entries of 10 kB are more than 100,000 */
    f.checkpoints = 0;
    for (uint64_t i = 0; i < 21; i++) {
        submit_wait(1, 10000);
        sum++;
    }
    CHECK(f.checkpoints >= 1);
    CHECK_INT(f.sum, sum);
    stop();
    CHECK_INT(start("b", &why), DFS_OK);
    CHECK_INT(f.sum, sum);
    stop();
    /* a database that is older than the snapshot */
    f.saved_applied = 3;
    CHECK_INT(start("b", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "older than its log") != NULL);
}

static void test_stop_checkpoints(void)
{
    struct why why = { "" };

    f = (struct fsm){ 0 };
    CHECK_INT(start("c", &why), DFS_OK);
    for (int i = 0; i < 90; i++) {
        submit_wait(1, 0);
    }
    stop();
    CHECK_INT(f.checkpoints, 0); /* not worth it */
    CHECK_INT(start("c", &why), DFS_OK);
    submit_wait(1, 99000);
    stop();
    CHECK_INT(f.count, 91);
}

static void test_refused(void)
{
    struct why why = { "" };
    char path[256];

    f = (struct fsm){ .saved_applied = 7 };
    CHECK_INT(start("none", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "/none: the log is missing") != NULL);
    f = (struct fsm){ 0 };
    snprintf(path, sizeof(path), "%s/empty", tap_tmp());
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(start("empty", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "metadata") != NULL);
    /* libraft would take the only one for a crash's leavings, and the term for 0 */
    snprintf(path, sizeof(path), "%s/empty/metadata1", tap_tmp());
    CHECK_INT(io_write_file(path, "\1\0\0\0", 4, 0600, &why), 0);
    CHECK_INT(start("empty", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "or cut") != NULL);
    /* an interrupted first start is no obstacle */
    snprintf(path, sizeof(path), "%s/d.new", tap_tmp());
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(start("d", &why), DFS_OK);
    submit_wait(1, 0);
    stop();
    /* the database says more than the log */
    f.saved_applied = 1000;
    CHECK_INT(start("d", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "ends at entry") != NULL);
    /* an entry that cannot be applied */
    f.saved_applied = 0;
    f.apply_error = DFS_ENOSPC;
    CHECK_INT(start("d", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "no more") != NULL);
    f.apply_error = 0;
}

static void flip(const char *pattern, long at)
{
    char path[256];
    glob_t g;
    int fd;
    char c;

    snprintf(path, sizeof(path), "%s/%s", tap_tmp(), pattern);
    CHECK_INT(glob(path, 0, NULL, &g), 0);
    fd = open(g.gl_pathv[0], O_RDWR);
    CHECK(fd >= 0 && pread(fd, &c, 1, at) == 1);
    c = (char)~c;
    CHECK(pwrite(fd, &c, 1, at) == 1);
    close(fd);
    globfree(&g);
}

static void test_damage(void)
{
    struct why why = { "" };

    f = (struct fsm){ 0 };
    CHECK_INT(start("e", &why), DFS_OK);
    for (int i = 0; i < 50; i++) {
        submit_wait(1, 100);
    }
    stop();
    f.saved_applied = 0;
    flip("e/0*-0*5?", 3000);
    CHECK_INT(start("e", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "/e") != NULL && strstr(why.text, "-00000000000000") != NULL);
    flip("e/0*-0*5?", 3000);
    CHECK_INT(start("e", &why), DFS_OK);
    CHECK_INT(f.count, 50);
    stop();
}

static void test_scan(void)
{
    static uint8_t image[65536];
    struct why why = { "" };
    char path[256], cmd[600];
    struct raft_segment seg;
    FILE *file;
    glob_t g;
    size_t len, end;

    /* the open segment of a running node: what kill -9 leaves */
    f = (struct fsm){ 0 };
    CHECK_INT(start("g", &why), DFS_OK);
    for (int i = 0; i < 50; i++) {
        submit_wait(1, 100);
    }
    snprintf(path, sizeof(path), "%s/g/open-1", tap_tmp());
    CHECK_INT(glob(path, 0, NULL, &g), 0);
    file = fopen(path, "r");
    len = fread(image, 1, sizeof(image), file);
    fclose(file);
    globfree(&g);
    raft_segment_scan(slice_of(image, len), &seg);
    CHECK_INT(seg.beyond, 0);
    CHECK_INT(seg.entries, 51); /* and the leader's barrier */
    CHECK(seg.good_end > 50 * 108 && seg.good_end < len);
    end = seg.good_end;
    image[end + 50] = 1; /* a torn write */
    raft_segment_scan(slice_of(image, len), &seg);
    CHECK_INT(seg.beyond, 0);
    CHECK_INT(seg.good_end, end);
    image[1000] ^= 0xff;
    raft_segment_scan(slice_of(image, len), &seg);
    CHECK(seg.beyond > 30);
    CHECK(seg.good_end < 1000);
    snprintf(cmd, sizeof(cmd), "cp -r %s/g %s/h", tap_tmp(), tap_tmp());
    CHECK_INT(system(cmd), 0);
    stop();
    f = (struct fsm){ 0 };
    flip("h/open-1", 1000);
    CHECK_INT(start("h", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "/h/open-1") != NULL);
    flip("h/open-1", 1000);
    CHECK_INT(start("h", &why), DFS_OK);
    CHECK_INT(f.count, 50);
    stop();
}

/* A copy of the directory `from`, as a crash leaves it, with something done to it. */
static void copy_and(const char *from, const char *to, const char *what)
{
    char cmd[800];

    snprintf(cmd, sizeof(cmd), "cd %s && rm -rf %s && cp -r %s %s && cd %s && %s", tap_tmp(), to,
             from, to, to, what);
    CHECK_INT(system(cmd), 0);
}

static void refused(const char *what)
{
    struct why why = { "" };

    copy_and("crashed", "bad", what);
    f = (struct fsm){ 0 };
    CHECK_INT(start("bad", &why), DFS_EDAMAGED);
    CHECK(strstr(why.text, "/bad") != NULL);
    copy_and("bad", "worse", "true"); /* the first attempt has not made it acceptable */
    f = (struct fsm){ 0 };
    CHECK_INT(start("worse", &why), DFS_EDAMAGED);
}

/* What is gone from the end of the log leaves a log that looks whole. */
static void test_lost(void)
{
    struct why why = { "" };

    f = (struct fsm){ 0 };
    CHECK_INT(start("l", &why), DFS_OK);
    for (int i = 0; i < 20; i++) {
        submit_wait(1, 100);
    }
    stop();
    CHECK_INT(start("l", &why), DFS_OK);
    for (int i = 0; i < 20; i++) {
        submit_wait(1, 100);
    }
    copy_and("l", "crashed", "true");
    stop();

    refused("rm open-1");
    refused("truncate -s 0 open-1");
    refused("truncate -s 8 open-1");
    /* the last acknowledged entry: else taken for what was being written */
    refused("at=$(LC_ALL=C grep -aboP '\\x01{100}' open-1 | tail -n 1 | cut -d: -f1) && "
            "printf x | dd of=open-1 bs=1 seek=$at conv=notrunc status=none");
    /* entries of open segments would move to the place of those that are gone */
    refused("rm 0*[1-9]-0*");

    copy_and("crashed", "fine",
             "rm reached"); /* of an earlier version, or lost: no reason to stop */
    f = (struct fsm){ 0 };
    CHECK_INT(start("fine", &why), DFS_OK);
    CHECK_INT(f.count, 40);
    stop();
    copy_and("crashed", "fine", "printf xxxxxxxxxxxxxxxx >reached");
    f = (struct fsm){ 0 };
    CHECK_INT(start("fine", &why), DFS_OK);
    CHECK_INT(f.count, 40);
    stop();
}

/* libraft would not come back from reading one. */
static void test_cut_snapshot(void)
{
    struct why why = { "" };

    f = (struct fsm){ 0 };
    CHECK_INT(start("s", &why), DFS_OK);
    while (f.checkpoints < 1) {
        submit_wait(1, 0);
    }
    copy_and("s", "crashed", "true");
    stop();
    refused("for s in snapshot-*[0-9]; do truncate -s 21 $s; done");
    refused("for s in snapshot-*[0-9]; do truncate -s -1 $s; done");
    refused("for s in snapshot-*.meta; do truncate -s 40 $s; done");
    refused("for s in snapshot-*.meta; do printf x | dd of=$s conv=notrunc status=none; done");
}

#ifdef DFS_FAULTS
static void test_write_failure(void)
{
    struct why why = { "" };

    f = (struct fsm){ 0 };
    CHECK_INT(start("w", &why), DFS_OK);
    submit_wait(1, 0);
    submit_wait(2, 0);
    CHECK_INT(fault_arm("raft.append.write=IO times=1", &why), 0);
    CHECK_INT(last_status, DFS_OK);
    submit_wait(4, 0);
    CHECK_INT(last_status, DFS_EIO);
    CHECK(f.failed);
    CHECK(strstr(f.text, "/w: cannot write the log") != NULL);
    submit_wait(8, 0); /* once is enough: what is in the log's tail is not known */
    CHECK_INT(last_status, DFS_EIO);
    CHECK_INT(f.sum, 3);
    stop();
    f.saved_applied = 0;
    CHECK_INT(fault_arm("raft.append.write=IO times=1", &why), 0);
    CHECK_INT(start("w", &why), DFS_OK); /* the barrier of the new leader is what fails */
    CHECK(f.failed && !f.leads);
    stop();
}
#endif

int main(void)
{
    tap_run("entries survive a restart", test_restart);
    tap_run("snapshots by entries and by bytes, replay from there", test_snapshots);
    tap_run("no checkpoint at a stop for little", test_stop_checkpoints);
    tap_run("a missing or foreign log is refused", test_refused);
    tap_run("a damaged log is refused", test_damage);
    tap_run("rot in the open segment is told from a torn write", test_scan);
    tap_run("a log that has lost its end is refused", test_lost);
    tap_run("a cut snapshot is refused", test_cut_snapshot);
#ifdef DFS_FAULTS
    tap_run("a write that fails ends the node", test_write_failure);
#endif
    return tap_done();
}
