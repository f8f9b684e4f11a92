#include "cluster/node/raft_guard.h"

#include <raft.h>
#include <raft/fixture.h>

#include "test/unit/tap.h"

/* Figure 8 of the Raft paper on libraft's simulated cluster: a leader A stores X alone, B stores
 * Y alone in a newer term, A leads again with C and must not commit X by counting copies,
 * because B may lead next and overwrite it. */
#define NODES 3

static struct raft_fixture f;
static struct raft_guard guards[NODES];
static char applied[NODES][32];
static int led[NODES];

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *b, void **result)
{
    char *log = fsm->data;
    size_t n = strlen(log);

    log[n] = *(const char *)b->base;
    log[n + 1] = '\0';
    *result = NULL;
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *b[], unsigned *n)
{
    (void)fsm, (void)b, (void)n;
    return RAFT_BUSY;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *b)
{
    (void)fsm, (void)b;
    return 0;
}

static void leads(void *arg, bool it_does)
{
    int *n = arg;

    *n += it_does;
}

static void cut(unsigned a, unsigned b)
{
    raft_fixture_saturate(&f, a, b);
    raft_fixture_saturate(&f, b, a);
}

static void heal(unsigned a, unsigned b)
{
    raft_fixture_desaturate(&f, a, b);
    raft_fixture_desaturate(&f, b, a);
}

static void ignore(struct raft_apply *req, int status, void *result)
{
    (void)req, (void)status, (void)result;
}

static void submit(unsigned i, char c, struct raft_apply *req)
{
    struct raft_buffer b = { raft_malloc(8), 8 };

    memset(b.base, 0, 8);
    memcpy(b.base, &c, 1);
    CHECK_INT(raft_apply(raft_fixture_get(&f, i), req, &b, 1, ignore), 0);
}

/* Node i times out first; the others wait longer and know no leader, as after a restart. */
static void elect(unsigned i)
{
    for (unsigned j = 0; j < NODES; j++) {
        struct raft *r = raft_fixture_get(&f, j);
        unsigned timeout = j == i ? 1000 : 2000;

        raft_fixture_set_randomized_election_timeout(&f, j, timeout);
        r->election_timer_start = raft_fixture_time(&f);
        if (raft_state(r) == RAFT_FOLLOWER) {
            r->follower_state.randomized_election_timeout = timeout;
            if (j != i && r->follower_state.current_leader.id != 0) {
                r->follower_state.current_leader.id = 0;
                raft_free(r->follower_state.current_leader.address);
                r->follower_state.current_leader.address = NULL;
            }
        } else if (raft_state(r) == RAFT_CANDIDATE) {
            r->candidate_state.randomized_election_timeout = timeout;
        }
    }
    CHECK(raft_fixture_step_until_state_is(&f, i, RAFT_LEADER, 30000));
}

static void test_figure_8(void)
{
    static struct raft_fsm fsm[NODES];
    static struct raft_apply o, x, y;
    struct raft_configuration c;

    raft_fixture_initialize(&f);
    for (int i = 0; i < NODES; i++) {
        fsm[i] = (struct raft_fsm){ .version = 1,
                                    .data = applied[i],
                                    .apply = fsm_apply,
                                    .snapshot = fsm_snapshot,
                                    .restore = fsm_restore };
        CHECK_INT(raft_fixture_grow(&f, &fsm[i]), 0);
    }
    raft_fixture_configuration(&f, NODES, &c);
    raft_fixture_bootstrap(&f, &c);
    raft_configuration_close(&c);
    for (unsigned i = 0; i < NODES; i++) {
        guards[i].leads = leads;
        guards[i].arg = &led[i];
        raft_guard_install(&guards[i], raft_fixture_get(&f, i));
    }
    CHECK_INT(raft_fixture_start(&f), 0);
    elect(0);
    raft_fixture_step_until_elapsed(&f, 500);
    CHECK_INT(led[0], 1);
    submit(0, 'o', &o);
    raft_fixture_step_until_elapsed(&f, 500);
    cut(0, 1);
    cut(0, 2);
    submit(0, 'X', &x);
    CHECK(raft_fixture_step_until_state_is(&f, 0, RAFT_FOLLOWER, 20000));
    elect(1);
    cut(1, 2);
    submit(1, 'Y', &y);
    CHECK(raft_fixture_step_until_state_is(&f, 1, RAFT_FOLLOWER, 20000));
    /* Whatever C says before the barrier is on A's slow disk: X must wait for it. */
    raft_fixture_set_disk_latency(&f, 0, 700);
    heal(0, 2);
    elect(0);
    raft_fixture_step_until_elapsed(&f, 600);
    CHECK(strcmp(applied[0], "o") == 0);
    CHECK(guards[0].dropped > 0);
    raft_fixture_step_until_elapsed(&f, 4000);
    CHECK(strcmp(applied[0], "oX") == 0);
    cut(0, 2);
    CHECK(raft_fixture_step_until_state_is(&f, 0, RAFT_FOLLOWER, 20000));
    heal(1, 2);
    elect(2);
    raft_fixture_step_until_elapsed(&f, 3000);
    heal(0, 1);
    heal(0, 2);
    raft_fixture_step_until_elapsed(&f, 20000);
    for (int i = 1; i < NODES; i++) {
        CHECK(strcmp(applied[i], applied[0]) == 0);
    }
    CHECK(strcmp(applied[0], "oX") == 0);
    raft_fixture_close(&f);
}

static int closings;

static void count_closing(struct raft_io *io)
{
    (void)io;
    closings++;
}

static void close_twice(struct raft_io *io, raft_io_close_cb closed)
{
    closed(io);
    closed(io);
}

static void test_closed_once(void)
{
    struct raft_io io = { .close = close_twice };
    struct raft raft = { .io = &io };
    struct raft_guard g = { 0 };

    io.data = &raft;
    raft_guard_install(&g, &raft);
    io.close(&io, count_closing);
    CHECK_INT(closings, 1);
}

int main(void)
{
    tap_run("an older term's entry is not committed by counting", test_figure_8);
    tap_run("the end of the I/O is told once", test_closed_once);
    return tap_done();
}
