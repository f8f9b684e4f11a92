#include "fs/client/bufs.h"

#include "cluster/base/base.h"

/* Small files stay small; what outgrows the second step is a stream. */
static const uint32_t steps[] = { 8u << 10, 64u << 10, BUF_BYTES };

void bufs_init(struct bufs *b, uint64_t budget)
{
    *b = (struct bufs){ .budget = budget };
    pthread_mutex_init(&b->mu, NULL);
}

void bufs_fini(struct bufs *b)
{
    for (int i = 0; i < b->spare_count; i++) {
        free(b->spare[i]);
    }
    pthread_mutex_destroy(&b->mu);
}

uint32_t bufs_grow(struct bufs *b, uint8_t **p, uint32_t cap, uint32_t want)
{
    uint32_t to = BUF_BYTES;
    uint8_t *fresh = NULL;

    ASSERT(want <= BUF_BYTES);
    if (want <= cap) {
        return cap;
    }
    for (size_t i = ARRAY_LEN(steps); i > 0 && steps[i - 1] >= want; i--) {
        to = steps[i - 1];
    }
    pthread_mutex_lock(&b->mu);
    b->used += to - cap;
    if (to == BUF_BYTES && b->spare_count > 0) {
        fresh = b->spare[--b->spare_count];
    }
    pthread_mutex_unlock(&b->mu);
    if (fresh == NULL) {
        *p = x_realloc(*p, to);
        return to;
    }
    if (cap > 0) {
        memcpy(fresh, *p, cap);
    }
    free(*p);
    *p = fresh;
    return to;
}

void bufs_free(struct bufs *b, uint8_t *p, uint32_t cap)
{
    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&b->mu);
    b->used -= cap;
    if (cap == BUF_BYTES && b->spare_count < BUF_SPARE) {
        b->spare[b->spare_count++] = p;
        p = NULL;
    }
    pthread_mutex_unlock(&b->mu);
    free(p);
}

bool bufs_tight(struct bufs *b)
{
    bool tight;

    pthread_mutex_lock(&b->mu);
    tight = b->used > b->budget / 4 * 3;
    pthread_mutex_unlock(&b->mu);
    return tight;
}

uint64_t bufs_used(struct bufs *b)
{
    uint64_t used;

    pthread_mutex_lock(&b->mu);
    used = b->used;
    pthread_mutex_unlock(&b->mu);
    return used;
}
