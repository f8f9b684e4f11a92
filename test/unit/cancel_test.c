#include "cluster/base/cancel.h"

#include <pthread.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/net/sock.h"

#include "test/unit/tap.h"

static void *ask(void *arg)
{
    struct cancel *c = arg;

    atomic_store(&c->asked, true);
    return NULL;
}

/* How sock_wait() on something that never comes ends, and after what time. */
static int wait_for_nothing(uint64_t ms, uint64_t *ret_took)
{
    int fds[2];
    uint64_t from = clock_mono_ms();
    int err;

    CHECK(pipe(fds) == 0);
    err = sock_wait(fds[0], 1, from + ms);
    *ret_took = clock_mono_ms() - from;
    close(fds[0]);
    close(fds[1]);
    return err;
}

static void a_wait_is_broken_off_once_it_has_lasted(void)
{
    struct cancel c = { false };
    pthread_t t;
    uint64_t took;

    cancel_begin(&c);
    CHECK_INT(wait_for_nothing(20, &took), DFS_ETIMEOUT);
    CHECK(pthread_create(&t, NULL, ask, &c) == 0);
    pthread_join(t, NULL);
    CHECK(cancel_pending());
    CHECK_INT(wait_for_nothing(20, &took), DFS_ETIMEOUT); /* too short to mind */
    CHECK_INT(wait_for_nothing(60000, &took), DFS_EINTR);
    CHECK(took >= CANCEL_AFTER_MS);
    cancel_end();
    CHECK(!cancel_pending());
}

static void behind_a_shield_it_goes_on(void)
{
    struct cancel c = { true };
    uint64_t took;

    cancel_begin(&c);
    cancel_shield();
    cancel_shield();
    cancel_unshield();
    CHECK(cancel_pending());
    CHECK_INT(wait_for_nothing(CANCEL_AFTER_MS + 300, &took), DFS_ETIMEOUT);
    cancel_unshield();
    CHECK(cancel_now(0, CANCEL_AFTER_MS));
    CHECK(!cancel_now(0, CANCEL_AFTER_MS - 1));
    cancel_end();
}

int main(void)
{
    tap_run("a wait is broken off once it has lasted", a_wait_is_broken_off_once_it_has_lasted);
    tap_run("behind a shield it goes on", behind_a_shield_it_goes_on);
    return tap_done();
}
