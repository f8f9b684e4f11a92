#include "replication/map/reconcile.h"

#include "test/unit/tap.h"

static void put_digest(struct wire_out *out, uint64_t range, uint32_t count, uint64_t sum)
{
    struct range_digest d = { range, count, sum };

    range_digest_put(out, &d);
}

static void test_differ(void)
{
    struct reconcile_digest d = { 0 };
    struct wire_out theirs, out;
    struct wire_in in;
    struct range_ref r;
    const uint64_t want[] = { 1, 3, 4, 7 };
    uint64_t one = replica_mix(5, 10) ^ replica_mix(6, 20);

    /* range 0 equal, 1 ours only, 3 other sum, 4 theirs only, 7 ours only, 9 beyond last */
    reconcile_digest_add(&d, 5, 10);
    reconcile_digest_add(&d, 6, 20);
    reconcile_digest_add(&d, 1024, 1);
    reconcile_digest_add(&d, 3 * 1024, 1);
    reconcile_digest_add(&d, 7 * 1024 + 3, 1);
    reconcile_digest_add(&d, 9 * 1024, 1);
    wire_out_init(&theirs, 4096);
    wire_out_init(&out, 4096);
    put_digest(&theirs, 0, 2, one);
    put_digest(&theirs, 3, 1, 12345);
    put_digest(&theirs, 4, 1, 1);
    CHECK_INT(reconcile_differ(&d, wire_out_list(&theirs, 3), 0, 8, &out), 4);
    in = wire_in_of(wire_out_slice(&out));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        CHECK_INT(range_ref_get(&in, &r), DFS_OK);
        CHECK_INT(r.range, want[i]);
    }
    /* a later page: what is before it is not ours to tell */
    wire_out_reset(&out);
    wire_out_reset(&theirs);
    CHECK_INT(reconcile_differ(&d, wire_out_list(&theirs, 0), 8, 100, &out), 1);
    /* the length counts */
    wire_out_reset(&out);
    put_digest(&theirs, 9, 1, replica_mix(9 * 1024, 2));
    CHECK_INT(reconcile_differ(&d, wire_out_list(&theirs, 1), 9, 9, &out), 1);
    wire_out_fini(&theirs);
    wire_out_fini(&out);
    reconcile_digest_fini(&d);
}

static enum verdict judge(uint8_t state, uint32_t len, bool listed, uint8_t have_state,
                          uint32_t have_len)
{
    struct block_rec rec = { .state = state, .len = len };
    struct replica_info have = { .block = 5, .len = have_len, .state = have_state };

    return reconcile_judge(5, state != 0 ? &rec : NULL, listed, have_state != 0 ? &have : NULL, 10);
}

static void test_verdicts(void)
{
    struct replica_info future = { .block = 10, .len = 1, .state = REPLICA_SEALED };

    CHECK_INT(judge(BLOCK_SEALED, 7, true, REPLICA_SEALED, 7), VERDICT_FINE);
    CHECK_INT(judge(BLOCK_SEALED, 7, true, REPLICA_OPEN, 7), VERDICT_SEAL);
    CHECK_INT(judge(BLOCK_SEALED, 7, true, REPLICA_OPEN, 9), VERDICT_SEAL);
    CHECK_INT(judge(BLOCK_SEALED, 7, true, REPLICA_SEALED, 9), VERDICT_SEAL);
    CHECK_INT(judge(BLOCK_SEALED, 7, true, REPLICA_SEALED, 6), VERDICT_SHORT);
    CHECK_INT(judge(BLOCK_SEALED, 7, true, REPLICA_DAMAGED, 7), VERDICT_SHORT);
    CHECK_INT(judge(BLOCK_SEALED, 7, false, REPLICA_DAMAGED, 7), VERDICT_STRAY);
    CHECK_INT(judge(BLOCK_SEALED, 7, true, 0, 0), VERDICT_LOST);
    CHECK_INT(judge(BLOCK_SEALED, 7, false, REPLICA_SEALED, 7), VERDICT_ADOPT);
    CHECK_INT(judge(BLOCK_SEALED, 7, false, REPLICA_OPEN, 7), VERDICT_RESCUE);
    CHECK_INT(judge(BLOCK_SEALED, 7, false, REPLICA_OPEN, 6), VERDICT_STRAY);
    CHECK_INT(judge(BLOCK_OPEN, 7, true, 0, 0), VERDICT_FINE); /* its writer has not come yet */
    CHECK_INT(judge(BLOCK_OPEN, 7, true, REPLICA_OPEN, 9), VERDICT_FINE);
    CHECK_INT(judge(BLOCK_OPEN, 7, true, REPLICA_OPEN, 3), VERDICT_FINE); /* its writer tells */
    CHECK_INT(judge(BLOCK_OPEN, 7, false, REPLICA_OPEN, 7), VERDICT_STRAY);
    CHECK_INT(judge(BLOCK_DELETED, 7, true, REPLICA_SEALED, 7), VERDICT_FINE);
    CHECK_INT(judge(BLOCK_DELETED, 7, false, REPLICA_SEALED, 7), VERDICT_STRAY);
    CHECK_INT(judge(0, 0, false, REPLICA_SEALED, 7), VERDICT_STRAY);
    CHECK_INT(reconcile_judge(10, NULL, false, &future, 10), VERDICT_FUTURE);
}

static void test_strays(void)
{
    struct strays s;
    uint64_t block;
    uint32_t node;

    strays_init(&s);
    strays_note(&s, 1, 7, 1000);
    strays_note(&s, 1, 8, 2000);
    strays_note(&s, 1, 7, 5000); /* known: keeps its time */
    CHECK(!strays_due(&s, 60999, 60000, &block, &node));
    CHECK(strays_due(&s, 61000, 60000, &block, &node));
    CHECK_INT(block, 1);
    CHECK_INT(node, 7);
    CHECK(!strays_due(&s, 61000, 60000, &block, &node));
    CHECK(strays_due(&s, 62000, 60000, &block, &node));
    CHECK_INT(node, 8);
    CHECK(!strays_due(&s, 99999, 0, &block, &node));
    strays_note(&s, 3, 1, 1);
    strays_fini(&s);
}

int main(void)
{
    tap_run("ranges that differ", test_differ);
    tap_run("a verdict for every pair of record and replica", test_verdicts);
    tap_run("strays wait for their grace", test_strays);
    return tap_done();
}
