#include "fs/client/dir_news.h"

#include "cluster/base/clock.h"

void dir_news_init(struct dir_news *d)
{
    ASSERT(pthread_mutex_init(&d->mu, NULL) == 0);
}

void dir_news_fini(struct dir_news *d)
{
    pthread_mutex_destroy(&d->mu);
}

uint64_t dir_news_before(struct dir_news *d, uint64_t ino)
{
    uint64_t changes;

    pthread_mutex_lock(&d->mu);
    changes = d->slot[ino % DIR_NEWS_SLOTS].changes;
    pthread_mutex_unlock(&d->mu);
    return changes;
}

void dir_news_put(struct dir_news *d, uint64_t before, struct slice attr)
{
    struct wire_in in = wire_in_of(attr);
    struct attr a;

    if (attr.len == 0 || attr_get(&in, &a) != 0) {
        return;
    }
    pthread_mutex_lock(&d->mu);
    size_t i = a.ino % DIR_NEWS_SLOTS;

    if (d->slot[i].changes == before &&
        (d->slot[i].attr.ino != a.ino || d->slot[i].attr.version < a.version)) {
        d->slot[i].attr = a;
        d->slot[i].at_ms = clock_mono_ms();
    }
    pthread_mutex_unlock(&d->mu);
}

void dir_news_drop(struct dir_news *d, uint64_t ino)
{
    pthread_mutex_lock(&d->mu);
    for (size_t i = 0; i < DIR_NEWS_SLOTS; i++) {
        if (ino == 0 || i == ino % DIR_NEWS_SLOTS) {
            d->slot[i].changes++;
            d->slot[i].attr.ino = 0;
        }
    }
    pthread_mutex_unlock(&d->mu);
}

bool dir_news_get(struct dir_news *d, uint64_t ino, uint64_t max_age_ms, struct attr *ret)
{
    size_t i = ino % DIR_NEWS_SLOTS;
    bool found;

    pthread_mutex_lock(&d->mu);
    found = d->slot[i].attr.ino == ino && clock_mono_ms() - d->slot[i].at_ms < max_age_ms;
    if (found) {
        *ret = d->slot[i].attr;
    }
    pthread_mutex_unlock(&d->mu);
    return found;
}
