#include "replication/store/syncer.h"

#include "cluster/base/clock.h"

#define SYNC_AFTER_MS 1000u

struct syncer {
    void (*put)(void *arg, struct replica *r);
    void *arg;
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    struct list dirty; /* oldest first, before them who is in a hurry; guarded by: mu */
    bool stop;         /* guarded by: mu */
};

static void wait_until_locked(struct syncer *s, uint64_t at_ms)
{
    struct timespec t = { .tv_sec = (time_t)(at_ms / 1000),
                          .tv_nsec = (long)(at_ms % 1000 * NS_PER_MS) };

    pthread_cond_timedwait(&s->cv, &s->mu, &t);
}

/* The next replica whose time has come; NULL at the end. */
static struct replica *next(struct syncer *s)
{
    struct replica *r = NULL;

    pthread_mutex_lock(&s->mu);
    for (;;) {
        struct list *item = list_first(&s->dirty);

        if (item == NULL && s->stop) {
            break;
        }
        if (item == NULL) {
            pthread_cond_wait(&s->cv, &s->mu);
            continue;
        }
        r = CONTAINER_OF(item, struct replica, dirty);
        if (s->stop || clock_mono_ms() >= r->dirty_ms + SYNC_AFTER_MS) {
            list_remove(item);
            break;
        }
        wait_until_locked(s, r->dirty_ms + SYNC_AFTER_MS);
        r = NULL;
    }
    pthread_mutex_unlock(&s->mu);
    return r;
}

static void *run(void *arg)
{
    struct syncer *s = arg;
    struct replica *r;

    while ((r = next(s)) != NULL) {
        /* A failure has marked the volume, and then nothing counts as dirty any more. */
        (void)!replica_sync_all(r);
        if (replica_clean(r)) {
            s->put(s->arg, r);
        } else {
            syncer_add(s, r);
        }
    }
    return NULL;
}

struct syncer *syncer_start(void (*put)(void *arg, struct replica *r), void *arg)
{
    struct syncer *s = x_alloc(sizeof(*s));
    pthread_condattr_t attr;

    s->put = put;
    s->arg = arg;
    pthread_mutex_init(&s->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->cv, &attr);
    pthread_condattr_destroy(&attr);
    list_init(&s->dirty);
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        pthread_cond_destroy(&s->cv);
        pthread_mutex_destroy(&s->mu);
        free(s);
        return NULL;
    }
    return s;
}

void syncer_add(struct syncer *s, struct replica *r)
{
    pthread_mutex_lock(&s->mu);
    r->dirty_ms = clock_mono_ms();
    list_push_back(&s->dirty, &r->dirty);
    pthread_cond_signal(&s->cv);
    pthread_mutex_unlock(&s->mu);
}

void syncer_hurry(struct syncer *s, struct replica *r)
{
    pthread_mutex_lock(&s->mu);
    if (!list_empty(&r->dirty) &&
        r->dirty_ms != 0) { /* else it is being synced, or is next already */
        list_remove(&r->dirty);
        r->dirty_ms = 0;
        list_push_front(&s->dirty, &r->dirty);
        pthread_cond_signal(&s->cv);
    }
    pthread_mutex_unlock(&s->mu);
}

void syncer_stop(struct syncer *s)
{
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->mu);
    s->stop = true;
    pthread_cond_signal(&s->cv);
    pthread_mutex_unlock(&s->mu);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->cv);
    pthread_mutex_destroy(&s->mu);
    free(s);
}
