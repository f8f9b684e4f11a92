/* Ids after a backup was put back: none is given twice, and what was leapt over is remembered. */
#include "test/unit/ns_rig.h"

#define BY 1000u

static struct rig r;

struct gap {
    uint64_t from, to;
    int64_t since_ns;
};

static struct gap gaps[4];
static size_t gap_count;

static void take(void *arg, uint64_t from, uint64_t to, int64_t since_ns)
{
    (void)arg;
    CHECK(gap_count < ARRAY_LEN(gaps));
    gaps[gap_count++] = (struct gap){ from, to, since_ns };
}

static void load_gaps(void)
{
    gap_count = 0;
    CHECK_INT(ns_each_leap(r.rd, take, NULL), 0);
}

static uint64_t leap(uint64_t block)
{
    struct ns_leap_rep rep = { 0 };

    CHECK_INT(do_ns_leap(&r, &(struct ns_leap_req){ .block = block, .by = BY }, &rep), 0);
    return rep.next_block;
}

static uint64_t open_session(void)
{
    struct session_open_rep rep = { 0 };

    CHECK_INT(do_session_open(&r, &(struct session_open_req){ .host = slice_str("h") }, &rep), 0);
    return rep.session;
}

static void ids_go_on_behind(void)
{
    uint64_t block, ino, session;

    rig_start(&r, "leap");
    block = rig_alloc(&r, 1);
    ino = rig_mkfile(&r, 1, "a").ino;
    session = open_session();
    load_gaps();
    CHECK_INT(gap_count, 0);

    CHECK_INT(leap(block), block + 1); /* that one was given */
    load_gaps();
    CHECK_INT(gap_count, 0);
    CHECK_INT(rig_mkfile(&r, 1, "b").ino, ino + 1);

    CHECK_INT(leap(block + 50), block + 51 + BY);
    CHECK_INT(leap(block + 50), block + 51 + BY); /* told twice */
    CHECK_INT(rig_alloc(&r, 1), block + 51 + BY);
    CHECK_INT(rig_mkfile(&r, 1, "c").ino, ino + 2 + BY);
    CHECK_INT(open_session(), session + 1 + BY);
    load_gaps();
    CHECK_INT(gap_count, 1);
    CHECK_INT(gaps[0].from, block + 1);
    CHECK_INT(gaps[0].to, block + 51 + BY);

    CHECK_INT(leap(0), block + 52 + 2 * BY); /* a copy: in any case */
    load_gaps();
    CHECK_INT(gap_count, 2);
    CHECK_INT(gaps[1].from, block + 52 + BY);
    CHECK_INT(gaps[1].to, block + 52 + 2 * BY);
    rig_fini(&r);
}

static void nonsense_is_refused(void)
{
    rig_start(&r, "nonsense");
    CHECK_INT(do_ns_leap(&r, &(struct ns_leap_req){ .block = UINT64_MAX, .by = BY }, NULL),
              DFS_EINVAL);
    CHECK_INT(do_ns_leap(&r, &(struct ns_leap_req){ .block = 5 }, NULL), DFS_EINVAL);
    load_gaps();
    CHECK_INT(gap_count, 0);
    rig_fini(&r);
}

int main(void)
{
    tap_run("ids go on behind those that were given, and the gap is known", ids_go_on_behind);
    tap_run("ids that nobody gave are refused", nonsense_is_refused);
    return tap_done();
}
