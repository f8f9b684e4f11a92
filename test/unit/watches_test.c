#include "fs/role/watches.h"

#include <pthread.h>

#include "test/unit/tap.h"

static bool told(struct watches *w, uint64_t ino, uint64_t except, uint64_t session)
{
    uint64_t who[64];
    size_t n = watches_tell(w, ino, except, who, ARRAY_LEN(who));
    bool found = false;

    for (size_t i = 0; i < n; i++) {
        found = found || who[i] == session;
    }
    return found;
}

static void test_tell(void)
{
    struct watches *w = watches_new();
    uint64_t who[64];

    CHECK_INT(watches_tell(w, 5, 0, who, 64), 0);
    watches_add(w, 1, 5);
    watches_add(w, 2, 5);
    watches_add(w, 2, 5);
    watches_add(w, 3, 6);
    CHECK_INT(watches_tell(w, 5, 0, who, 64), 2);
    CHECK_INT(watches_tell(w, 5, 0, who, 1), 1);
    CHECK(!told(w, 5, 1, 1));
    CHECK(told(w, 5, 1, 2));
    CHECK(told(w, 6, 0, 3));
    watches_free(w);
}

static void test_forget(void)
{
    struct watches *w = watches_new();

    watches_add(w, 1, 5);
    for (int i = 0; i < WATCH_TOLD; i++) {
        CHECK(told(w, 5, 0, 1));
    }
    CHECK(!told(w, 5, 0, 1)); /* it did not look again */
    watches_add(w, 1, 5);
    CHECK(told(w, 5, 0, 1));
    /* more sessions than have room: the newest are kept */
    for (uint64_t s = 1; s <= 1000; s++) {
        watches_add(w, s, 7);
    }
    CHECK(told(w, 7, 0, 1000));
    CHECK(!told(w, 7, 0, 1));
    for (uint64_t ino = 100; ino < 100 + 4 * (uint64_t)WATCHES_MAX; ino++) {
        watches_add(w, 1, ino);
    }
    CHECK(told(w, 99 + 4 * (uint64_t)WATCHES_MAX, 0, 1));
    watches_free(w);
}

static void *look(void *arg)
{
    uint64_t who[64];

    for (uint64_t i = 0; i < 20000; i++) {
        watches_add(arg, i % 7, i % 1000);
        watches_tell(arg, i % 1000, 0, who, 64);
    }
    return NULL;
}

static void test_threads(void)
{
    struct watches *w = watches_new();
    pthread_t t[3];

    for (int i = 0; i < 3; i++) {
        pthread_create(&t[i], NULL, look, w);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
    }
    watches_add(w, 1, 1);
    CHECK(told(w, 1, 0, 1));
    watches_free(w);
}

int main(void)
{
    tap_run("those who looked are told, but not the one who did it", test_tell);
    tap_run("memory is bounded, interest ends", test_forget);
    tap_run("many threads", test_threads);
    return tap_done();
}
