#include "cluster/base/clock.h"

#include "fs/mount/internal.h"

/* Did a master answer at all? Then its error is the truth. */
static bool answered(int err)
{
    return err == 0 || (err_retry(err) == RETRY_NEVER && err != DFS_ESESSION && err != DFS_EIO);
}

/* mu is held, but not during the call. */
static void call_root(struct mount *m)
{
    struct keeper *k = &m->keeper;
    struct attr root;
    int err;

    (void)pthread_mutex_unlock(&k->mu);
    err = client_getattr(m->client, &cred_root, m->root, &root);
    (void)pthread_mutex_lock(&k->mu);
    if (answered(err)) {
        k->ask_root.err = err;
    }
    if (err == 0) {
        k->root = root;
    }
}

/* The same. */
static void call_list(struct mount *m)
{
    struct keeper *k = &m->keeper;
    struct dir_page page = { 0 };
    struct dir_page old;
    int err;

    (void)pthread_mutex_unlock(&k->mu);
    err = dir_page_read(m, m->root, true, &page);
    (void)pthread_mutex_lock(&k->mu);
    if (answered(err)) {
        k->ask_list.err = err;
    }
    old = page;
    k->list_fresh = err == 0;
    if (err == 0) {
        old = k->list;
        k->list = page;
        k->list_known = true;
    }
    dir_page_fini(&old);
}

/* The same. The slot stays this inode's: it is asked about. */
static void call_space(struct mount *m, struct keeper_space *s)
{
    struct keeper *k = &m->keeper;
    struct statfs_rep statfs;
    uint64_t ino = s->ino;
    int err;

    (void)pthread_mutex_unlock(&k->mu);
    err = client_statfs(m->client, ino, &statfs);
    (void)pthread_mutex_lock(&k->mu);
    if (answered(err)) {
        s->ask.err = err;
    }
    if (err == 0) {
        s->statfs = statfs;
        s->known = true;
    }
}

/* Answers one question if it is asked; s: which statfs it is about, if it is one. False: it is not. */
static bool serve(struct mount *m, struct keeper_ask *ask, struct keeper_space *s)
{
    struct keeper *k = &m->keeper;
    uint64_t asked = ask->asked;

    if (asked == ask->done) {
        return false;
    }
    k->busy_since_ms = clock_mono_ms();
    if (s != NULL) {
        call_space(m, s);
    } else if (ask == &k->ask_list) {
        call_list(m);
    } else {
        call_root(m);
    }
    k->busy_since_ms = 0;
    ask->done = asked;
    (void)pthread_cond_broadcast(&k->cond);
    return true;
}

static void *keeper_main(void *arg)
{
    struct mount *m = arg;
    struct keeper *k = &m->keeper;

    (void)pthread_mutex_lock(&k->mu);
    while (!k->stop) {
        bool busy = serve(m, &k->ask_root, NULL);

        busy = serve(m, &k->ask_list, NULL) || busy;

        for (int i = 0; i < KEEPER_SPACES && !k->stop; i++) {
            busy = serve(m, &k->space[i].ask, &k->space[i]) || busy;
        }
        if (!busy && !k->stop) {
            (void)pthread_cond_wait(&k->cond, &k->mu);
        }
    }
    (void)pthread_mutex_unlock(&k->mu);
    return NULL;
}

int keeper_start(struct mount *m, const struct attr *root)
{
    struct keeper *k = &m->keeper;
    pthread_condattr_t attr;

    k->root = *root;
    k->space[0].ino = m->root;
    k->space[0].ask.asked = k->ask_list.asked =
        1; /* so that there is something to tell when no master is */
    ASSERT(pthread_mutex_init(&k->mu, NULL) == 0 && pthread_condattr_init(&attr) == 0 &&
           pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
           pthread_cond_init(&k->cond, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    return err_from_errno(pthread_create(&k->thread, NULL, keeper_main, m));
}

void keeper_stop(struct mount *m)
{
    struct keeper *k = &m->keeper;

    (void)pthread_mutex_lock(&k->mu);
    k->stop = true;
    (void)pthread_cond_broadcast(&k->cond);
    (void)pthread_mutex_unlock(&k->mu);
    (void)pthread_join(k->thread, NULL);
    dir_page_fini(&k->list);
    (void)pthread_cond_destroy(&k->cond);
    (void)pthread_mutex_destroy(&k->mu);
}

/* Waits for an answer to a question asked now; mu is held. False: there was none. */
static bool ask_locked(struct keeper *k, struct keeper_ask *ask)
{
    uint64_t now = clock_mono_ms(), deadline = now + ROOT_WAIT_MS;
    uint64_t mine = ++ask->asked;
    struct timespec until;

    (void)pthread_cond_broadcast(&k->cond);
    if (k->busy_since_ms != 0 && now - k->busy_since_ms >= ROOT_BUSY_MS) {
        return false; /* somebody waited in vain already */
    }
    until = (struct timespec){ (time_t)(deadline / 1000), (long)(deadline % 1000) * NS_PER_MS };
    while (ask->done < mine && pthread_cond_timedwait(&k->cond, &k->mu, &until) != ETIMEDOUT) {
    }
    return ask->done >= mine;
}

int keeper_get_root(struct mount *m, struct attr *ret)
{
    struct keeper *k = &m->keeper;
    int err;

    (void)pthread_mutex_lock(&k->mu);
    ask_locked(k, &k->ask_root);
    err = k->ask_root.err;
    if (err == 0) {
        *ret = k->root;
    }
    (void)pthread_mutex_unlock(&k->mu);
    return err;
}

int keeper_get_list(struct mount *m, struct dir_page *ret, bool *ret_late)
{
    struct keeper *k = &m->keeper;
    int err;

    (void)pthread_mutex_lock(&k->mu);
    *ret_late = !ask_locked(k, &k->ask_list) || !k->list_fresh;
    err = k->ask_list.err != 0 || k->list_known ? k->ask_list.err : DFS_ETIMEOUT;
    if (err == 0) {
        dir_page_copy(ret, &k->list);
    }
    (void)pthread_mutex_unlock(&k->mu);
    return err;
}

/* The inode's slot, made when there is none: in place of the oldest that nobody waits for. NULL: there
 * is no such. */
static struct keeper_space *space_locked(struct keeper *k, uint64_t ino)
{
    struct keeper_space *oldest = NULL;

    for (int i = 0; i < KEEPER_SPACES; i++) {
        struct keeper_space *s = &k->space[i];

        if (s->ino == ino) {
            return s;
        }
        if (i != 0 && s->ask.asked == s->ask.done && (oldest == NULL || s->used < oldest->used)) {
            oldest = s;
        }
    }
    if (oldest != NULL) {
        *oldest = (struct keeper_space){ .ino = ino };
    }
    return oldest;
}

int keeper_get_statfs(struct mount *m, uint64_t ino, struct statfs_rep *ret)
{
    struct keeper *k = &m->keeper;
    struct keeper_space *s;
    int err;

    (void)pthread_mutex_lock(&k->mu);
    s = space_locked(k, ino);
    if (s != NULL) {
        s->used = ++k->requests;
        ask_locked(k, &s->ask);
    }
    if (s == NULL || s->ino != ino || (!s->known && s->ask.err == 0)) {
        s = &k->space[0];
    }
    err = s->ask.err;
    if (err == 0) {
        *ret = s->statfs;
    }
    (void)pthread_mutex_unlock(&k->mu);
    return err;
}
