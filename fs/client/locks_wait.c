/* Requests that wait: asked once by their own thread, then parked. A thread asks again when the
 * masters say so (EVENT_LOCK), and every few seconds in case that was lost.
 *
 * A request that is interrupted is over at once for its program. The master is told behind it; if it
 * has granted the lock meanwhile, what the owner did not have before is given back. */
#include "cluster/base/base.h"

#include <signal.h>

#include "cluster/base/log.h"

#include "fs/client/locks.h"
#include "fs/client/locks_int.h"

#define REASK_MS 3000
#define GRACE_MS 100  /* between questions to a master that has just started */
#define RETRY_MS 1000 /* after a failure */
#define STEP_MS  3000 /* for one question */
#define LEARN_MS 1000 /* for a commit of our own */

#define TOLD_MS 10 /* between looks whether all are told */

struct lock_call *client_lock_new(struct client *c, const struct lock_want *want, bool wait,
                                  lock_done_fn *done, void *arg)
{
    struct lock_call *k = x_alloc(sizeof(*k));

    k->c = c;
    k->want = *want;
    k->done = done;
    k->arg = arg;
    list_init(&k->list);
    pthread_mutex_lock(&c->locks->mu);
    k->ticket = wait ? ++c->locks->tickets : 0;
    pthread_mutex_unlock(&c->locks->mu);
    return k;
}

static bool temporary(int err)
{
    return err == DFS_ETIMEOUT || err == DFS_ECONN || err == DFS_ESESSION;
}

/* locks.mu is held. */
static void park(struct locks *l, struct lock_call *k, uint64_t pause)
{
    k->due_ms = k->again ? 0 : clock_mono_ms() + pause;
    pthread_cond_signal(&l->wake);
}

/* What the holders before have left is seen from now on. */
static void learn(struct client *c, struct attr *a)
{
    struct node *n = node_find(c, a->ino);

    if (n != NULL) {
        uint64_t until_ms = clock_mono_ms() + LEARN_MS;

        pthread_mutex_lock(&n->mu);
        /* What a commit of our own has changed is not somebody else's doing. */
        while (n->committing && cond_wait_until(&n->committed, &n->mu, until_ms) == 0) {
        }
        node_learn_attr_locked(n, a);
        node_overlay_locked(n, a);
        pthread_mutex_unlock(&n->mu);
        node_put(n);
    }
}

/* An answer, or a failure. True: the request has come to its end, *ret_err. locks.mu is held. */
static bool answered(struct lock_call *k, int err, uint8_t state, int *ret_err)
{
    struct locks *l = k->c->locks;
    uint64_t now = clock_mono_ms();

    *ret_err = err;
    if (k->over) {
        k->again = true; /* the master may have it: it is told now */
        park(l, k, 0);
        return false;
    }
    if (l->stopping) {
        *ret_err = DFS_ESHUTDOWN;
        return true;
    }
    if (err == 0 && state == LOCK_WAITING) {
        k->until_ms = now + k->c->conf->client_timeout;
        park(l, k, REASK_MS);
        return false;
    }
    if ((err == 0 && state == LOCK_GRACE) || temporary(err)) {
        if (now < k->until_ms) {
            park(l, k, err == 0 ? GRACE_MS : RETRY_MS);
            return false;
        }
        *ret_err = err != 0 ? err : DFS_EAGAIN;
    } else if (err == 0) {
        *ret_err = state == LOCK_GRANTED ? DFS_OK : DFS_EAGAIN;
    }
    return true;
}

/* What is left of a request whose program was told of a failure. locks.mu is held. */
static void leave_over(const struct lock_call *k)
{
    struct locks *l = k->c->locks;
    struct lock_call *rest = x_alloc(sizeof(*rest));

    rest->c = k->c;
    rest->want = k->want;
    rest->ticket = k->ticket;
    rest->over = true;
    list_init(&rest->list);
    list_push_back(&l->waiting, &rest->list);
    park(l, rest, RETRY_MS);
}

/* One question. k is busy, by us. */
static void ask(struct lock_call *k)
{
    struct client *c = k->c;
    struct locks *l = c->locks;
    pthread_mutex_t *stripe = locks_stripe(c, k->want.ino);
    struct attr a = { 0 };
    uint8_t state = 0;
    bool finished;
    int err;

    pthread_mutex_lock(stripe);
    err = locks_ask_set(c, &k->want, k->ticket, clock_mono_ms() + STEP_MS, &state, &a);
    pthread_mutex_lock(&l->mu);
    k->busy = false;
    finished = answered(k, err, state, &err);
    if (finished && err == 0) {
        locks_note_set_locked(c, &k->want);
    }
    if (finished) {
        list_remove(&k->list);
    }
    if (finished && (temporary(err) || err == DFS_EINTR)) { /* a master may have heard of it */
        leave_over(k);
    }
    pthread_mutex_unlock(&l->mu);
    pthread_mutex_unlock(stripe);
    if (finished && err == 0) {
        learn(c, &a);
    }
    if (finished) {
        k->done(k->arg, err, &a);
        free(k);
    }
}

/* Tells the master that a request is over. k is busy, by us. */
static void settle(struct lock_call *k)
{
    struct client *c = k->c;
    struct locks *l = c->locks;
    pthread_mutex_t *stripe = locks_stripe(c, k->want.ino);
    uint64_t deadline_ms = clock_mono_ms() + STEP_MS;
    bool granted = k->ticket == 0, gone = false;
    int err = DFS_OK;

    pthread_mutex_lock(stripe);
    if (k->ticket != 0) {
        err = locks_ask_cancel(c, &k->want, k->ticket, deadline_ms, &granted);
    }
    if (err == 0 && granted) {
        err = locks_restore(c, &k->want, deadline_ms);
    }
    pthread_mutex_unlock(stripe);
    pthread_mutex_lock(&l->mu);
    k->busy = false;
    if (temporary(err)) {
        k->again = false;
        park(l, k, RETRY_MS);
    } else {
        list_remove(&k->list);
        gone = true;
    }
    pthread_mutex_unlock(&l->mu);
    if (gone) {
        free(k);
    }
}

/* ---- the thread ---- */

/* One that is to be asked about now; *ret_next: when the next one is. locks.mu is held. */
static struct lock_call *next_due(struct locks *l, uint64_t now, uint64_t *ret_next)
{
    *ret_next = now + REASK_MS;
    LIST_FOREACH (i, &l->waiting) {
        struct lock_call *k = CONTAINER_OF(i, struct lock_call, list);

        if (!k->busy && k->due_ms <= now) {
            return k;
        }
        if (!k->busy) {
            *ret_next = MIN(*ret_next, k->due_ms);
        }
    }
    return NULL;
}

static void *locks_main(void *arg)
{
    struct client *c = arg;
    struct locks *l = c->locks;
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all,
                    NULL); /* a signal to the thread that needed us first is not ours */

    pthread_mutex_lock(&l->mu);
    while (!l->stopping) {
        uint64_t next;
        struct lock_call *k = next_due(l, clock_mono_ms(), &next);

        if (k == NULL) {
            (void)cond_wait_until(&l->wake, &l->mu, next);
            continue;
        }
        list_remove(&k->list); /* behind the others */
        list_push_back(&l->waiting, &k->list);
        k->busy = true;
        k->again = false;
        bool over = k->over;

        pthread_mutex_unlock(&l->mu);
        if (over) {
            settle(k);
        } else {
            ask(k);
        }
        pthread_mutex_lock(&l->mu);
    }
    pthread_mutex_unlock(&l->mu);
    return NULL;
}

static void on_event(void *arg, const struct event *ev)
{
    struct client *c = arg;
    struct locks *l = c->locks;

    if (ev->kind != EVENT_LOCK && ev->kind != EVENT_ALL) {
        return;
    }
    pthread_mutex_lock(&l->mu);
    LIST_FOREACH (i, &l->waiting) {
        struct lock_call *k = CONTAINER_OF(i, struct lock_call, list);

        if (ev->kind == EVENT_ALL ||
            (ev->ino == k->want.ino && (ev->arg == 0 || ev->arg == k->want.owner))) {
            k->again = true;
            k->due_ms = 0;
        }
    }
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mu);
}

/* Into the list; the thread starts with the first. False: the end has come. */
static bool enlist(struct lock_call *k)
{
    struct client *c = k->c;
    struct locks *l = c->locks;
    bool first, ok;

    pthread_mutex_lock(&l->mu);
    ok = !l->stopping && !k->over;
    first = ok && !l->running;
    if (first) {
        l->running = true;
        ASSERT(pthread_create(&l->thread, NULL, locks_main, c) == 0);
    }
    if (ok) {
        list_push_back(&l->waiting, &k->list);
    }
    pthread_mutex_unlock(&l->mu);
    if (first) {
        client_on_event(c, on_event, c);
    }
    return ok;
}

/* ---- calls ---- */

void client_lock_start(struct lock_call *k)
{
    struct client *c = k->c;

    if (k->want.type == LOCK_SHARED && locks_holds_exclusive(c, &k->want)) {
        locks_commit(c, k->want.ino, client_deadline(c)); /* others may read soon */
    }
    k->until_ms = client_deadline(c);
    k->busy = true;
    if (enlist(k)) {
        ask(k);
    } else {
        k->done(k->arg, k->over ? DFS_EINTR : DFS_ESHUTDOWN, NULL);
        free(k);
    }
}

bool client_lock_interrupt(struct lock_call *k)
{
    struct locks *l = k->c->locks;
    bool was;

    pthread_mutex_lock(&l->mu);
    was = !k->over && !list_empty(&k->list);
    k->over = true;
    k->again = true;
    k->due_ms = 0;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mu);
    return was;
}

/* One that is over from now on; false: there is none. */
static bool give_one_up(struct locks *l)
{
    lock_done_fn *done = NULL;
    void *arg = NULL;

    pthread_mutex_lock(&l->mu);
    LIST_FOREACH (i, &l->waiting) {
        struct lock_call *k = CONTAINER_OF(i, struct lock_call, list);

        if (done == NULL && !k->over) {
            k->over = k->again = true;
            k->due_ms = 0;
            done = k->done;
            arg = k->arg;
        }
    }
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mu);
    if (done != NULL) {
        done(arg, DFS_ENOLCK, NULL);
    }
    return done != NULL;
}

bool client_locks_give_up(struct client *c, uint64_t deadline_ms)
{
    struct locks *l = c->locks;
    bool told;

    while (give_one_up(l)) {
    }
    do {
        pthread_mutex_lock(&l->mu);
        told = list_empty(&l->waiting);
        pthread_mutex_unlock(&l->mu);
    } while (!told && pause_ms(TOLD_MS, deadline_ms));
    return told;
}

void locks_restore_later(struct client *c, const struct lock_want *want)
{
    struct lock_call *k = client_lock_new(c, want, false, NULL, NULL);
    struct locks *l = c->locks;

    k->busy = true;
    if (!enlist(k)) {
        free(k);
        return;
    }
    pthread_mutex_lock(&l->mu);
    k->busy = false;
    k->over = true;
    park(l, k, RETRY_MS);
    pthread_mutex_unlock(&l->mu);
}

void client_locks_end(struct client *c)
{
    struct locks *l = c->locks;
    struct list mine;
    struct list *i;
    bool running;

    list_init(&mine);
    pthread_mutex_lock(&l->mu);
    running = l->running && !l->stopping;
    l->stopping = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mu);
    if (running) {
        client_off_event(c, on_event, c);
        pthread_join(l->thread, NULL);
    }
    pthread_mutex_lock(&l->mu);
    LIST_FOREACH (j, &l->waiting) {
        if (!CONTAINER_OF(j, struct lock_call, list)->busy) {
            list_remove(j);
            list_push_back(&mine, j);
        }
    }
    pthread_mutex_unlock(&l->mu);
    while ((i = list_pop_front(&mine)) != NULL) {
        struct lock_call *k = CONTAINER_OF(i, struct lock_call, list);

        if (!k->over) {
            k->done(k->arg, DFS_ESHUTDOWN, NULL);
        }
        free(k);
    }
}
