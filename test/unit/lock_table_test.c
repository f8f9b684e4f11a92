/* The lock table against a model that knows every byte of every owner. */
#include "cluster/base/err.h"
#include "cluster/base/rng.h"

#include "fs/lock/table.h"

#include "test/unit/tap.h"

#define OWNERS 6 /* two sessions of three */
#define BYTES  48
#define OPS    60000

struct grant {
    uint64_t session, ino, owner;
};

static struct lock_table t;
static struct grant grants[64];
static size_t grant_count;
static uint64_t seq;

static void on_granted(void *arg, uint64_t session, uint64_t ino, uint64_t owner)
{
    (void)arg;
    CHECK(grant_count < 64);
    grants[grant_count++ % 64] = (struct grant){ session, ino, owner };
}

static void begin(void)
{
    lock_table_init(&t, on_granted, NULL);
    lock_table_session(&t, 1, true);
    lock_table_session(&t, 2, true);
    grant_count = 0;
    seq = 1;
}

static struct lock_ask ask(uint64_t session, uint64_t owner, uint8_t type, uint64_t first,
                           uint64_t last)
{
    return (struct lock_ask){
        .seq = ++seq,
        .ino = 7,
        .kind = LOCK_POSIX,
        .who = { .session = session, .owner = owner, .type = type, .first = first, .last = last }
    };
}

/* -1: an error */
static int set_of(struct lock_ask a, uint64_t ticket, uint64_t now)
{
    uint8_t state = 0;

    a.ticket = ticket;
    return lock_table_set(&t, &a, now, &state) == 0 ? state : -1;
}

static int set(uint64_t session, uint64_t owner, uint8_t type, uint64_t first, uint64_t last)
{
    return set_of(ask(session, owner, type, first, last), 0, 0);
}

static int wait_for(uint64_t session, uint64_t owner, uint8_t type, uint64_t ticket)
{
    return set_of(ask(session, owner, type, 0, LOCK_LAST), ticket, 0);
}

static void clear(uint64_t session, uint64_t owner, uint64_t first, uint64_t last)
{
    struct lock_ask a = ask(session, owner, LOCK_NONE, first, last);

    CHECK_INT(lock_table_clear(&t, &a, 0), 0);
}

/* ---- the model ---- */

struct want {
    uint64_t ticket; /* 0: does not wait */
    uint8_t type;
    uint32_t first, last;
};

static uint8_t model[OWNERS][BYTES];
static struct want waits[OWNERS];

static uint64_t session_of(uint32_t o)
{
    return 1 + o / 3;
}

static bool model_free(uint32_t o, const struct want *w)
{
    for (uint32_t b = w->first; b <= w->last; b++) {
        for (uint32_t k = 0; k < OWNERS; k++) {
            if (k != o && model[k][b] != LOCK_NONE &&
                (model[k][b] == LOCK_EXCLUSIVE || w->type == LOCK_EXCLUSIVE)) {
                return false;
            }
        }
    }
    return true;
}

static void model_set(uint32_t o, const struct want *w)
{
    memset(model[o] + w->first, w->type, w->last - w->first + 1);
}

static void model_grants(void)
{
    for (size_t i = 0; i < grant_count; i++) {
        uint32_t o = (uint32_t)grants[i].owner;

        CHECK(waits[o].ticket != 0);
        CHECK(model_free(o, &waits[o]));
        model_set(o, &waits[o]);
        waits[o].ticket = 0;
    }
    grant_count = 0;
}

struct seen {
    uint8_t bytes[OWNERS][BYTES];
    uint32_t waiters, ranges;
    struct lock_range before;
};

static bool see(void *arg, const struct lock_item *item)
{
    struct seen *s = arg;

    CHECK_INT(item->ino, 7);
    if (item->waits) {
        CHECK(waits[item->who->owner].ticket != 0);
        s->waiters++;
        return true;
    }
    CHECK(s->ranges == 0 || s->before.first <= item->who->first);
    s->before = *item->who;
    s->ranges++;
    for (uint64_t b = item->who->first; b <= item->who->last; b++) {
        CHECK_INT(s->bytes[item->who->owner][b], LOCK_NONE); /* own ranges do not overlap */
        s->bytes[item->who->owner][b] = item->who->type;
    }
    return true;
}

static void compare(void)
{
    static struct seen s;
    uint32_t waiting = 0;

    memset(&s, 0, sizeof(s));
    lock_table_each(&t, 7, see, &s);
    CHECK_INT(memcmp(s.bytes, model, sizeof(model)), 0);
    for (uint32_t o = 0; o < OWNERS; o++) {
        waiting += waits[o].ticket != 0;
        for (uint32_t b = 0; b < BYTES; b++) { /* the promise */
            struct want w = { .type = model[o][b], .first = b, .last = b };

            CHECK(w.type == LOCK_NONE || model_free(o, &w));
        }
    }
    CHECK_INT(s.waiters, waiting);
    CHECK_INT(t.range_count, s.ranges);
    CHECK_INT(t.waiter_count, waiting);
}

static void model_do_set(struct rng *r, uint32_t o, const struct want *w, uint64_t now)
{
    struct lock_ask a = ask(session_of(o), o, w->type, w->first, w->last);
    bool wait = rng_below(r, 3) == 0 && waits[o].ticket == 0;
    bool free_now = model_free(o, w);
    int state = set_of(a, wait ? seq : 0, now);

    if (!wait) {
        CHECK_INT(state, free_now ? LOCK_GRANTED : LOCK_BUSY);
    }
    if (state == LOCK_GRANTED) {
        CHECK(free_now);
        model_set(o, w);
    } else if (state == LOCK_WAITING) {
        CHECK(wait);
        waits[o] = (struct want){ a.seq, w->type, w->first, w->last };
    } else {
        CHECK(state == LOCK_BUSY || (wait && !free_now)); /* a circle */
    }
    if (rng_below(r, 4) == 0 && state != -1) { /* its answer was lost */
        model_grants();
        free_now = model_free(o, w);
        CHECK_INT(set_of(a, wait ? a.seq : 0, now), state);
    }
}

static void model_cancel(uint32_t o)
{
    struct lock_ask a = ask(session_of(o), o, waits[o].type, waits[o].first, waits[o].last);
    bool granted = true;

    a.ticket = waits[o].ticket;
    if (a.ticket != 0) {
        waits[o].ticket = 0;
        CHECK_INT(lock_table_cancel(&t, &a, 0, &granted), 0);
        CHECK(!granted);
    }
}

static void model_end_session(uint64_t session)
{
    for (uint32_t o = 0; o < OWNERS; o++) {
        if (session_of(o) == session) {
            memset(model[o], LOCK_NONE, BYTES);
            waits[o].ticket = 0;
        }
    }
    lock_table_end(&t, session, 0);
    lock_table_session(&t, session, true);
}

static void test_model(void)
{
    struct rng r;

    begin();
    rng_init(&r, 20);
    for (uint32_t i = 0; i < OPS && tap_case_bad == 0; i++) {
        uint32_t o = (uint32_t)rng_below(&r, OWNERS);
        struct want w = { .first = (uint32_t)rng_below(&r, BYTES) };
        uint64_t now = i;

        w.last = w.first + (uint32_t)rng_below(&r, MIN(BYTES - w.first, 12u));
        switch (rng_below(&r, 16)) {
        case 0:
            model_cancel(o);
            break;
        case 1:
            if (i % 8 == 0) {
                model_end_session(session_of(o));
            }
            break;
        case 2:
            lock_table_tick(&t, now);
            break;
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
        case 8:
            model_set(o, &w); /* LOCK_NONE */
            clear(session_of(o), o, w.first, w.last);
            break;
        default:
            w.type = rng_below(&r, 2) == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE;
            model_do_set(&r, o, &w, now);
        }
        model_grants();
        compare();
    }
    lock_table_tick(&t, OPS + LOCK_FAIR_MS);
    model_grants();
    for (uint32_t o = 0; o < OWNERS; o++) {
        CHECK(waits[o].ticket == 0 || !model_free(o, &waits[o]));
    }
    lock_table_fini(&t);
}

/* ---- stories ---- */

static void test_ranges(void)
{
    struct lock_ask a;
    struct lock_range who;

    begin();
    CHECK_INT(set(1, 1, LOCK_EXCLUSIVE, 0, LOCK_LAST), LOCK_GRANTED);
    CHECK_INT(set(2, 1, LOCK_SHARED, 5, 5), LOCK_BUSY);
    clear(1, 1, 10, 19);
    CHECK_INT(set(2, 1, LOCK_EXCLUSIVE, 10, 19), LOCK_GRANTED);
    CHECK_INT(set(2, 1, LOCK_EXCLUSIVE, 10, 20), LOCK_BUSY);
    a = ask(2, 1, LOCK_SHARED, 15, LOCK_LAST);
    CHECK_INT(lock_table_get(&t, &a, &who), 0);
    CHECK_INT(who.type, LOCK_EXCLUSIVE);
    CHECK_INT(who.first, 20);
    CHECK_INT(who.last, LOCK_LAST);
    a = ask(2, 1, LOCK_SHARED, 12, 13);
    CHECK_INT(lock_table_get(&t, &a, &who), 0);
    CHECK_INT(who.type, LOCK_NONE);
    CHECK_INT(t.range_count, 3);
    CHECK_INT(set(2, 1, LOCK_NONE, 0, 1), -1);
    CHECK_INT(set(2, 1, LOCK_SHARED, 2, 1), -1);
    CHECK_INT(set(3, 1, LOCK_SHARED, 0, 0), -1);
    lock_table_fini(&t);
}

static void test_order(void)
{
    begin();
    CHECK_INT(set(1, 1, LOCK_SHARED, 0, LOCK_LAST), LOCK_GRANTED);
    CHECK_INT(wait_for(2, 2, LOCK_EXCLUSIVE, 100), LOCK_WAITING);
    CHECK_INT(wait_for(1, 3, LOCK_SHARED, 101), LOCK_WAITING); /* behind the writer */
    CHECK_INT(wait_for(1, 4, LOCK_SHARED, 102), LOCK_WAITING);
    CHECK_INT(wait_for(1, 1, LOCK_SHARED, 103), LOCK_GRANTED); /* keeps it waiting anyway */
    CHECK_INT(set(1, 5, LOCK_SHARED, 0, 0), LOCK_GRANTED);     /* does not wait */
    clear(1, 5, 0, LOCK_LAST);
    clear(1, 1, 0, LOCK_LAST);
    CHECK_INT(grant_count, 1);
    CHECK_INT(grants[0].owner, 2);
    CHECK_INT(wait_for(2, 2, LOCK_EXCLUSIVE, 100), LOCK_GRANTED);
    clear(2, 2, 0, LOCK_LAST);
    CHECK_INT(grant_count, 3);
    CHECK_INT(grants[1].owner, 3);
    CHECK_INT(grants[2].owner, 4);
    lock_table_fini(&t);
}

static void test_fair_for_a_while(void)
{
    begin();
    CHECK_INT(set(1, 1, LOCK_SHARED, 0, LOCK_LAST), LOCK_GRANTED);
    CHECK_INT(wait_for(2, 2, LOCK_EXCLUSIVE, 100), LOCK_WAITING);
    CHECK_INT(wait_for(1, 3, LOCK_SHARED, 101), LOCK_WAITING);
    lock_table_tick(&t, LOCK_FAIR_MS - 1);
    CHECK_INT(grant_count, 0);
    lock_table_tick(&t, LOCK_FAIR_MS);
    CHECK_INT(grant_count, 1);
    CHECK_INT(grants[0].owner, 3);
    lock_table_fini(&t);
}

static void test_circles(void)
{
    struct lock_ask a;
    bool granted = true;

    begin();
    for (uint64_t o = 1; o <= 4; o++) {
        CHECK_INT(set(1 + o % 2, o, LOCK_EXCLUSIVE, o, o), LOCK_GRANTED);
    }
    CHECK_INT(set_of(ask(2, 1, LOCK_SHARED, 2, 2), 901, 0), LOCK_WAITING);
    CHECK_INT(set_of(ask(1, 2, LOCK_EXCLUSIVE, 3, 3), 902, 0), LOCK_WAITING);
    CHECK_INT(set_of(ask(2, 3, LOCK_EXCLUSIVE, 4, 4), 903, 0), LOCK_WAITING);
    a = ask(1, 4, LOCK_EXCLUSIVE, 0, 1);
    a.ticket = 904;
    CHECK_INT(lock_table_set(&t, &a, 0, &(uint8_t){ 0 }), DFS_EDEADLK);
    CHECK_INT(t.waiter_count, 3);
    a.ticket = 0;
    CHECK_INT(set_of(a, 0, 0), LOCK_BUSY); /* does not wait: no circle */
    a = ask(1, 2, LOCK_EXCLUSIVE, 3, 3);
    a.ticket = 902;
    CHECK_INT(lock_table_cancel(&t, &a, 0, &granted), 0);
    CHECK(!granted);
    CHECK_INT(set_of(ask(1, 4, LOCK_EXCLUSIVE, 0, 1), 905, 0), LOCK_WAITING);
    CHECK_INT(set_of(ask(1, 2, LOCK_EXCLUSIVE, 3, 3), 906, 0), -1);
    lock_table_fini(&t);
}

static void test_flock(void)
{
    struct lock_ask a, b;

    begin();
    CHECK_INT(set(1, 9, LOCK_EXCLUSIVE, 0, LOCK_LAST), LOCK_GRANTED); /* POSIX: another world */
    a = ask(1, 1, LOCK_SHARED, 0, LOCK_LAST);
    b = ask(2, 2, LOCK_SHARED, 0, LOCK_LAST);
    a.kind = b.kind = LOCK_FLOCK;
    CHECK_INT(set_of(a, 0, 0), LOCK_GRANTED);
    CHECK_INT(set_of(b, 0, 0), LOCK_GRANTED);
    a.who.type = b.who.type = LOCK_EXCLUSIVE;
    CHECK_INT(set_of(a, 11, 0), LOCK_WAITING); /* gives up its shared one */
    CHECK_INT(set_of(b, 12, 0), LOCK_GRANTED); /* what it has keeps the other waiting anyway */
    b.seq = ++seq;
    CHECK_INT(lock_table_clear(&t, &b, 0), 0);
    CHECK_INT(grant_count, 1);
    CHECK_INT(grants[0].owner, 1);
    a.who.first = 1;
    CHECK_INT(set_of(a, 0, 0), -1);
    lock_table_fini(&t);
}

static void test_late_requests(void)
{
    struct lock_ask lock, unlock;
    bool granted = false;

    begin();
    lock = ask(1, 1, LOCK_EXCLUSIVE, 0, 9);
    unlock = ask(1, 1, LOCK_NONE, 0, 9);
    unlock.done = unlock.seq; /* the answer to the first was seen */
    CHECK_INT(set_of(lock, 0, 0), LOCK_GRANTED);
    CHECK_INT(lock_table_clear(&t, &unlock, 0), 0);
    CHECK_INT(lock_table_clear(&t, &unlock, 0), 0);
    CHECK_INT(lock_table_set(&t, &lock, 0, &(uint8_t){ 0 }), DFS_EREPLAYED);
    CHECK_INT(t.range_count, 0);
    /* granted behind the client's back, and given up */
    CHECK_INT(set(2, 2, LOCK_EXCLUSIVE, 0, 9), LOCK_GRANTED);
    lock = ask(1, 1, LOCK_EXCLUSIVE, 0, 9);
    CHECK_INT(set_of(lock, 55, 0), LOCK_WAITING);
    clear(2, 2, 0, 9);
    CHECK_INT(grant_count, 1);
    lock.ticket = 55;
    CHECK_INT(lock_table_cancel(&t, &lock, 0, &granted), 0);
    CHECK(granted);
    CHECK_INT(lock_table_cancel(&t, &lock, 0, &granted), 0);
    CHECK(granted);
    lock_table_fini(&t);
}

static void test_sessions_end(void)
{
    begin();
    CHECK_INT(set(1, 1, LOCK_EXCLUSIVE, 0, LOCK_LAST), LOCK_GRANTED);
    CHECK_INT(wait_for(1, 2, LOCK_EXCLUSIVE, 50), LOCK_WAITING); /* of the same session */
    CHECK_INT(wait_for(2, 3, LOCK_EXCLUSIVE, 51), LOCK_WAITING);
    lock_table_end(&t, 1, 0);
    CHECK_INT(grant_count, 1);
    CHECK_INT(grants[0].owner, 3);
    CHECK_INT(t.range_count, 1);
    CHECK_INT(t.waiter_count, 0);
    CHECK_INT(set(1, 1, LOCK_SHARED, 0, 0), -1);
    lock_table_end(&t, 2, 0);
    CHECK_INT(t.spaces.count, 0);
    CHECK_INT(t.range_count, 0);
    lock_table_fini(&t);
}

static void test_grace(void)
{
    struct lock_ask a;
    struct lock_range who;

    begin();
    lock_table_session(&t, 3, false);
    lock_table_session(&t, 4, false);
    CHECK(lock_table_grace(&t));
    CHECK_INT(set(1, 1, LOCK_SHARED, 0, 0), LOCK_GRACE);
    CHECK_INT(wait_for(2, 2, LOCK_EXCLUSIVE, 60), LOCK_WAITING);
    a = ask(1, 1, LOCK_SHARED, 0, 0);
    CHECK_INT(lock_table_get(&t, &a, &who), DFS_EAGAIN);
    a = ask(3, 7, LOCK_EXCLUSIVE, 0, 99);
    CHECK_INT(lock_table_claim(&t, &a, 0), 0);
    CHECK_INT(lock_table_claim(&t, &a, 0), 0);
    CHECK_INT(set(3, 7, LOCK_SHARED, 0, 9), LOCK_GRANTED); /* less than it had */
    CHECK_INT(set(1, 1, LOCK_SHARED, 50, 50), LOCK_BUSY);
    a = ask(4, 8, LOCK_SHARED, 99, 100);
    CHECK_INT(lock_table_claim(&t, &a, 0), DFS_EBUSY);
    CHECK_INT(lock_table_told(&t, 3, 0), 0);
    CHECK(lock_table_grace(&t));
    lock_table_tick(&t, 100000);
    CHECK_INT(grant_count, 0);
    lock_table_end(&t, 4, 0);
    CHECK(!lock_table_grace(&t));
    CHECK_INT(grant_count, 0); /* session 3 has it */
    CHECK_INT(set(1, 1, LOCK_SHARED, 0, 0), LOCK_GRANTED);
    clear(1, 1, 0, 0);
    clear(3, 7, 0, LOCK_LAST);
    CHECK_INT(grant_count, 1);
    CHECK_INT(grants[0].owner, 2);
    lock_table_fini(&t);
}

static void test_limits(void)
{
    begin();
    for (uint64_t i = 0; i < LOCKS_OF_INODE - 1; i++) {
        if (set(1, 1, LOCK_EXCLUSIVE, i * 2, i * 2) != LOCK_GRANTED) {
            CHECK_INT(i, -1);
            break;
        }
    }
    CHECK_INT(set(1, 1, LOCK_EXCLUSIVE, 1000000, 1000000), -1);
    CHECK_INT(t.range_count, LOCKS_OF_INODE - 1);
    clear(1, 1, 0, LOCK_LAST);
    CHECK_INT(t.range_count, 0);
    CHECK_INT(set(1, 1, LOCK_EXCLUSIVE, 0, LOCK_LAST), LOCK_GRANTED);
    for (uint64_t i = 0; i < WAITERS_OF_SESSION; i++) {
        if (wait_for(2, 100 + i, LOCK_SHARED, 100 + i) != LOCK_WAITING) {
            CHECK_INT(i, -1);
            break;
        }
    }
    CHECK_INT(wait_for(2, 99, LOCK_SHARED, 99), -1);
    CHECK_INT(wait_for(1, 99, LOCK_SHARED, 99), LOCK_WAITING);
    grant_count = 0;
    lock_table_end(&t, 2, 0);
    CHECK_INT(t.waiter_count, 1);
    lock_table_fini(&t);
}

int main(void)
{
    tap_run("random requests agree with a model of every byte", test_model);
    tap_run("ranges are split, merged and told", test_ranges);
    tap_run("waiters are served in order, writers among readers", test_order);
    tap_run("who only waits behind others does so for a while", test_fair_for_a_while);
    tap_run("a circle of owners is refused, over sessions", test_circles);
    tap_run("flock is a world of its own, and lets go before it waits", test_flock);
    tap_run("requests that come twice or late change nothing", test_late_requests);
    tap_run("the end of a session frees what it held and wanted", test_sessions_end);
    tap_run("nothing is granted before every session has told", test_grace);
    tap_run("there are limits, and everything can be given back", test_limits);
    return tap_done();
}
