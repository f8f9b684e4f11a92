#include "fs/role/watches.h"

#include <pthread.h>

#include "cluster/base/htab.h"

#define WAYS    32u
#define BUCKETS (WATCHES_MAX / WAYS)
#define STRIPES 64u

struct watch {
    uint64_t ino; /* 0: free */
    uint64_t session;
};

struct bucket {
    struct watch at[WAYS];
    uint8_t left[WAYS]; /* times to be told */
    uint8_t victim;     /* the next one that makes room */
};

struct watches {
    pthread_mutex_t mu[STRIPES]; /* of every STRIPES-th bucket */
    struct bucket bucket[BUCKETS];
};

struct watches *watches_new(void)
{
    struct watches *w = x_alloc(sizeof(*w));

    for (size_t i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&w->mu[i], NULL);
    }
    return w;
}

void watches_free(struct watches *w)
{
    for (size_t i = 0; w != NULL && i < STRIPES; i++) {
        pthread_mutex_destroy(&w->mu[i]);
    }
    free(w);
}

void watches_add(struct watches *w, uint64_t session, uint64_t ino)
{
    size_t nr = htab_mix(ino) % BUCKETS;
    struct bucket *b = &w->bucket[nr];
    size_t place = WAYS;

    pthread_mutex_lock(&w->mu[nr % STRIPES]);
    for (size_t i = 0; i < WAYS; i++) {
        if (b->at[i].ino == ino && b->at[i].session == session) {
            place = i;
            break;
        }
        if (b->left[i] == 0 && place == WAYS) {
            place = i;
        }
    }
    if (place == WAYS) {
        place = b->victim++ % WAYS;
    }
    b->at[place] = (struct watch){ ino, session };
    b->left[place] = WATCH_TOLD;
    pthread_mutex_unlock(&w->mu[nr % STRIPES]);
}

size_t watches_tell(struct watches *w, uint64_t ino, uint64_t except, uint64_t *ret, size_t max)
{
    size_t nr = htab_mix(ino) % BUCKETS;
    struct bucket *b = &w->bucket[nr];
    size_t n = 0;

    pthread_mutex_lock(&w->mu[nr % STRIPES]);
    for (size_t i = 0; i < WAYS && n < max; i++) {
        if (b->at[i].ino == ino && b->left[i] != 0 && b->at[i].session != except) {
            b->left[i]--;
            ret[n++] = b->at[i].session;
        }
    }
    pthread_mutex_unlock(&w->mu[nr % STRIPES]);
    return n;
}
