#include "replication/path/buf_pool.h"

static void pbuf_free(struct pbuf *b)
{
    free(b->data);
    free(b);
}

void buf_pool_init(struct buf_pool *p, size_t keep)
{
    pthread_mutex_init(&p->mu, NULL);
    list_init(&p->idle);
    p->idle_count = 0;
    p->keep = keep;
}

void buf_pool_fini(struct buf_pool *p)
{
    struct list *item;

    while ((item = list_pop_front(&p->idle)) != NULL) {
        pbuf_free(CONTAINER_OF(item, struct pbuf, link));
    }
    pthread_mutex_destroy(&p->mu);
}

struct pbuf *buf_pool_get(struct buf_pool *p)
{
    struct list *item;
    struct pbuf *b;

    pthread_mutex_lock(&p->mu);
    item = list_pop_front(&p->idle);
    p->idle_count -= item != NULL ? 1 : 0;
    pthread_mutex_unlock(&p->mu);
    if (item != NULL) {
        return CONTAINER_OF(item, struct pbuf, link);
    }
    b = x_alloc(sizeof(*b));
    list_init(&b->link);
    b->data = aligned_alloc(CHUNK_BYTES, PBUF_BYTES);
    ASSERT(b->data != NULL);
    return b;
}

void buf_pool_put(struct buf_pool *p, struct pbuf *b)
{
    bool keep;

    if (b == NULL) {
        return;
    }
    pthread_mutex_lock(&p->mu);
    keep = p->idle_count < p->keep;
    if (keep) {
        list_push_front(&p->idle, &b->link);
        p->idle_count++;
    }
    pthread_mutex_unlock(&p->mu);
    if (!keep) {
        pbuf_free(b);
    }
}
