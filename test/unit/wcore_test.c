/* Writing sessions against model blocks that lose answers, fail at every step and are sealed. */
#include "fs/client/wcore.h"

#include "cluster/base/base.h"

#include "test/unit/tap.h"

#define LIMIT  1000u
#define WINDOW 300u
#define BLOCKS 4000u

/* A block as its servers have it: bytes are packet ids. */
struct model {
    uint64_t bytes[LIMIT];
    uint32_t len;
    uint32_t synced;
    uint32_t sealed;      /* length + 1, 0 = open */
    uint32_t answers[64]; /* end offsets on the way back */
    uint32_t first, count;
    bool dead;
};

static struct model *blocks;
static uint64_t block_count;
static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % below;
}

static void model_send(const struct wcore_action *a)
{
    struct model *b = &blocks[a->block];

    CHECK(b->sealed == 0);
    CHECK_INT(a->off, b->len);
    for (uint32_t i = 0; i < a->len; i++) {
        b->bytes[b->len + i] = a->id;
    }
    b->len += a->len;
    if ((a->flags & WRITE_SYNC) != 0) {
        b->synced = b->len;
    }
    b->answers[(b->first + b->count++) % 64] = b->len;
}

/* One step of the shell, with trouble `odds` times in 100. */
static void perform(struct wcore *w, const struct wcore_action *a, uint32_t odds)
{
    bool trouble = rnd(100) < odds;

    switch (a->what) {
    case WCORE_IDLE:
        break;
    case WCORE_ALLOC: {
        uint64_t id = ++block_count;

        CHECK(id < BLOCKS);
        wcore_opened(w, id, 0, LIMIT);
        if (trouble) {
            wcore_failed(w, id, 1);
        }
        break;
    }
    case WCORE_SEND:
        if (trouble) {
            if (rnd(2) == 0) {
                model_send(a); /* it arrived, but we do not know */
            }
            wcore_failed(w, a->block, 2);
        } else {
            model_send(a);
            wcore_sent(w, a);
        }
        break;
    case WCORE_AWAIT: {
        struct model *b = &blocks[a->block];

        CHECK(b->count > 0);
        uint32_t end = b->answers[b->first];

        b->first = (b->first + 1) % 64;
        b->count--;
        if (trouble || wcore_answered(w, a->block, end) != 0) {
            wcore_failed(w, a->block, 0);
        }
        break;
    }
    case WCORE_SEAL: {
        struct model *b = &blocks[a->block];

        CHECK(a->len <= b->len);
        b->sealed = a->len + 1;
        b->synced = MIN(b->synced, a->len);
        b->count = 0;
        wcore_sealed(w, a->block);
        break;
    }
    case WCORE_SYNC_COPIES:
        blocks[a->block].synced = a->len;
        wcore_synced(w, a->block, a->len);
        break;
    }
}

static uint64_t next_retired;
static uint32_t lens[100000];

/* What comes out is in order, and its bytes are where the core says, for good. */
static void retire(struct wcore *w, bool synced)
{
    struct wcore_packet p;

    while (wcore_retire(w, &p)) {
        const struct model *b = &blocks[p.block];

        CHECK_INT(p.id, next_retired);
        CHECK_INT(p.len, lens[p.id]);
        next_retired++;
        CHECK(p.off + p.len <= b->len);
        CHECK(b->sealed == 0 || p.off + p.len < b->sealed);
        for (uint32_t i = 0; i < p.len; i++) {
            CHECK(b->bytes[p.off + i] == p.id);
        }
        CHECK(!synced || p.off + p.len <= b->synced);
    }
}

static void run(struct wcore *w, enum wcore_goal goal, uint32_t odds)
{
    struct wcore_action a;
    int steps = 0;

    do {
        a = wcore_next(w, goal);
        perform(w, &a, odds);
        CHECK(w->in_flight <= WINDOW);
        CHECK(++steps < 2000);
        if (goal != WCORE_SYNC) {
            retire(w, false);
        }
    } while (a.what != WCORE_IDLE && !tap_case_bad);
    if (goal != WCORE_PUSH) {
        CHECK_INT(w->in_flight, 0);
    }
}

static void commit_all(struct wcore *w)
{
    struct commit_block c;
    size_t i = 0;

    while (wcore_uncommitted(w, &i, &c)) {
        CHECK(c.len <= blocks[c.block].len);
        wcore_committed(w, &c);
        i = 0;
    }
}

static void start(struct wcore *w, uint64_t s)
{
    seed = s;
    block_count = 0;
    next_retired = 1;
    memset(blocks, 0, BLOCKS * sizeof(*blocks));
    wcore_init(w, WINDOW);
}

static void story(uint64_t s, uint32_t odds)
{
    struct wcore w;
    uint64_t id = 0;

    start(&w, s);
    for (int step = 0; step < 1500 && !tap_case_bad; step++) {
        uint32_t len = 1 + rnd(rnd(5) == 0 ? 100 : 30);

        lens[id + 1] = len;
        if (wcore_add(&w, id + 1, len)) {
            id++;
        }
        if (rnd(3) == 0 || w.count == WCORE_PACKETS) {
            run(&w, WCORE_PUSH, odds);
        }
        if (rnd(40) == 0) {
            run(&w, WCORE_SYNC, odds);
            retire(&w, true);
            CHECK(!wcore_unsynced(&w));
            CHECK_INT(next_retired, id + 1);
        }
        if (rnd(40) == 0) {
            run(&w, WCORE_DRAIN, odds);
            CHECK_INT(next_retired, id + 1);
            if (rnd(2) == 0) {
                wcore_detach(&w);
            }
        }
        if (rnd(20) == 0) {
            commit_all(&w);
        }
    }
    run(&w, WCORE_SYNC, odds);
    retire(&w, true);
    CHECK_INT(next_retired, id + 1);
    wcore_detach(&w);
    commit_all(&w);
    CHECK_INT(w.gone_count, 0);
    CHECK_INT(w.live_count, 0);
    wcore_fini(&w);
}

static void without_trouble(void)
{
    for (uint64_t s = 1; s <= 20; s++) {
        story(s, 0);
    }
}

static void with_trouble(void)
{
    for (uint64_t s = 1; s <= 100; s++) {
        story(s, 1 + (uint32_t)(s % 12));
        if (tap_case_bad) {
            printf("# seed %d\n", (int)s);
            break;
        }
    }
}

static void full_blocks(void)
{
    struct wcore w;

    start(&w, 1);
    for (uint64_t id = 1; id <= 40; id++) {
        lens[id] = 50;
        CHECK(wcore_add(&w, id, 50));
    }
    run(&w, WCORE_DRAIN, 0);
    CHECK_INT(block_count, 2);
    CHECK_INT(blocks[1].len, LIMIT);
    CHECK_INT(blocks[2].len, LIMIT);
    struct commit_block c;
    size_t i = 0;

    CHECK(wcore_uncommitted(&w, &i, &c));
    CHECK_INT(c.len, LIMIT);
    CHECK_INT(c.seal, 0);
    CHECK(wcore_unsynced(&w));
    run(&w, WCORE_SYNC, 0);
    CHECK_INT(blocks[1].synced, LIMIT);
    commit_all(&w);
    CHECK_INT(w.gone_count, 0);
    wcore_fini(&w);
}

static void room_ends_at_boundaries(void)
{
    struct wcore w;

    wcore_init(&w, 8 * PACKET_BYTES);
    CHECK_INT(wcore_room(&w), PACKET_BYTES);
    wcore_opened(&w, 1, 100, 3 * PACKET_BYTES / 2);
    CHECK_INT(wcore_room(&w), PACKET_BYTES - 100);
    wcore_add(&w, 1, PACKET_BYTES - 100);
    CHECK_INT(wcore_room(&w), PACKET_BYTES / 2);
    wcore_add(&w, 2, PACKET_BYTES / 2);
    CHECK_INT(wcore_room(&w), PACKET_BYTES / 2);
    wcore_fini(&w);
}

static void wrong_answers(void)
{
    struct wcore w;

    start(&w, 1);
    wcore_add(&w, 1, 10);
    struct wcore_action a = wcore_next(&w, WCORE_PUSH);

    CHECK_INT(a.what, WCORE_ALLOC);
    wcore_opened(&w, 5, 0, LIMIT);
    a = wcore_next(&w, WCORE_PUSH);
    CHECK_INT(a.what, WCORE_SEND);
    wcore_sent(&w, &a);
    CHECK_INT(wcore_answered(&w, 5, 11), DFS_EMALFORMED);
    CHECK_INT(wcore_answered(&w, 5, 0), DFS_EMALFORMED);
    CHECK_INT(wcore_answered(&w, 5, 10), 0);
    CHECK_INT(wcore_answered(&w, 5, 10), DFS_EMALFORMED);
    wcore_fini(&w);
}

/* A session that never syncs, and takes its block from a pool again and again. */
static void little_is_remembered(void)
{
    struct wcore w;
    uint32_t at = 0;

    start(&w, 1);
    for (uint64_t id = 1; id <= 20; id++) {
        struct wcore_packet p;

        lens[id] = 10;
        CHECK(wcore_add(&w, id, 10));
        if (at == 0) {
            run(&w, WCORE_DRAIN, 0);
        } else {
            wcore_opened(&w, 1, at, LIMIT);
            run(&w, WCORE_DRAIN, 0);
        }
        while (wcore_retire(&w, &p)) {
        }
        at += 10;
        wcore_detach(&w);
        if (id % 3 == 0) {
            commit_all(&w);
        }
    }
    CHECK_INT(w.gone_count, 1);
    CHECK_INT(wcore_forget_committed(&w), 0);
    struct commit_block c;
    size_t i = 0;

    CHECK(wcore_uncommitted(&w, &i, &c));
    CHECK_INT(c.block, 1);
    CHECK_INT(c.len, 200);
    commit_all(&w);
    CHECK_INT(w.gone_count, 1);
    CHECK(wcore_unsynced(&w));
    run(&w, WCORE_SYNC, 0);
    CHECK_INT(blocks[1].synced, 200);
    CHECK_INT(w.gone_count, 0);
    wcore_fini(&w);
}

/* A lost session: what was committed stays, everything else is queued again in order. */
static void lost_session(void)
{
    struct wcore w;
    struct wcore_packet p;
    struct commit_block c;
    size_t i = 0;

    start(&w, 1);
    for (uint64_t id = 1; id <= 4; id++) {
        lens[id] = 50;
        wcore_add(&w, id, 50);
        if (id == 2) {
            run(&w, WCORE_DRAIN, 0);
            commit_all(&w);
        }
    }
    run(&w, WCORE_PUSH, 0);
    wcore_lost(&w);
    CHECK_INT(w.in_flight, 0);
    CHECK_INT(w.live_count, 0);
    CHECK_INT(w.gone_count, 1); /* committed, and not synced */
    CHECK(!wcore_uncommitted(&w, &i, &c));
    CHECK(!wcore_retire(&w, &p));
    run(&w, WCORE_SYNC, 0);
    CHECK_INT(block_count, 2);
    CHECK_INT(blocks[1].synced, 100);
    CHECK_INT(blocks[2].len, 100);
    CHECK_INT(next_retired, 3);
    retire(&w, true);
    CHECK_INT(next_retired, 5);
    wcore_fini(&w);
}

int main(void)
{
    blocks = x_alloc(BLOCKS * sizeof(*blocks));
    tap_run("packets come out in order when nothing fails", without_trouble);
    tap_run("nothing is lost or misplaced when anything fails", with_trouble);
    tap_run("a long stream fills its blocks", full_blocks);
    tap_run("packets end at packet and block boundaries", room_ends_at_boundaries);
    tap_run("an answer that was not asked for is refused", wrong_answers);
    tap_run("little is remembered of a block that is used again", little_is_remembered);
    tap_run("a lost session writes again what was not committed", lost_session);
    free(blocks);
    return tap_done();
}
