#include "fs/role/block_orders.h"

#include <pthread.h>

#include "cluster/base/addr.h"
#include "cluster/base/daemon.h"
#include "cluster/base/err.h"
#include "cluster/base/htab.h"

#define THREADS_MAX 64u

struct entry {
    struct hnode node; /* in known */
    struct list link;  /* in waiting or done; in neither while it runs */
    struct block_order order;
    char addr[ADDR_TEXT];
    char label[LIMIT_LABEL + 1];
    int status;
    uint32_t len;
};

struct block_orders {
    struct block_orders_conf conf;
    pthread_t threads[THREADS_MAX];
    unsigned thread_count;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    struct htab known; /* by id; guarded by: mu, as all below */
    struct list waiting;
    struct list done;
    bool stop;
};

static struct entry *find_locked(struct block_orders *b, uint64_t id)
{
    for (struct hnode *n = htab_find(&b->known, htab_mix(id)); n != NULL; n = htab_next(n)) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);

        if (e->order.id == id) {
            return e;
        }
    }
    return NULL;
}

static struct entry *next(struct block_orders *b)
{
    struct list *item;

    pthread_mutex_lock(&b->mu);
    while (!b->stop && list_empty(&b->waiting)) {
        pthread_cond_wait(&b->cv, &b->mu);
    }
    item = b->stop ? NULL : list_pop_front(&b->waiting);
    pthread_mutex_unlock(&b->mu);
    return item != NULL ? CONTAINER_OF(item, struct entry, link) : NULL;
}

static void *run(void *arg)
{
    struct block_orders *b = arg;
    struct entry *e;

    daemon_background_thread();
    while ((e = next(b)) != NULL) {
        uint32_t len = e->order.len;
        int status = b->conf.fn(b->conf.arg, &e->order, &len);

        pthread_mutex_lock(&b->mu);
        e->status = status;
        e->len = len;
        list_push_back(&b->done, &e->link);
        pthread_mutex_unlock(&b->mu);
        b->conf.done(b->conf.arg);
    }
    return NULL;
}

struct block_orders *block_orders_start(const struct block_orders_conf *conf)
{
    struct block_orders *b = x_alloc(sizeof(*b));

    b->conf = *conf;
    pthread_mutex_init(&b->mu, NULL);
    pthread_cond_init(&b->cv, NULL);
    htab_init(&b->known);
    list_init(&b->waiting);
    list_init(&b->done);
    while (b->thread_count < MIN(conf->threads, THREADS_MAX) &&
           pthread_create(&b->threads[b->thread_count], NULL, run, b) == 0) {
        b->thread_count++;
    }
    if (b->thread_count == 0) {
        block_orders_stop(b);
        return NULL;
    }
    return b;
}

void block_orders_stop(struct block_orders *b)
{
    struct hnode *n;

    if (b == NULL) {
        return;
    }
    pthread_mutex_lock(&b->mu);
    b->stop = true;
    pthread_cond_broadcast(&b->cv);
    pthread_mutex_unlock(&b->mu);
    for (unsigned i = 0; i < b->thread_count; i++) {
        pthread_join(b->threads[i], NULL);
    }
    while ((n = htab_pop(&b->known)) != NULL) {
        free(CONTAINER_OF(n, struct entry, node));
    }
    htab_fini(&b->known);
    pthread_cond_destroy(&b->cv);
    pthread_mutex_destroy(&b->mu);
    free(b);
}

/* A copy's target. */
static int take_target(struct entry *e, struct wire_list nodes)
{
    struct wire_in in = wire_in_of(nodes.items);
    struct node_addr to;
    int err = node_addr_get(&in, &to);

    if (err != 0 || to.addr.len >= sizeof(e->addr)) {
        return DFS_EMALFORMED;
    }
    memcpy(e->addr, to.addr.p, to.addr.len);
    snprintf(e->label, sizeof(e->label), "%.*s", (int)to.label.len, (const char *)to.label.p);
    e->order.node = to.node;
    return 0;
}

static void take_one_locked(struct block_orders *b, const struct order *o)
{
    struct entry *e;

    if (b->known.count >= BLOCK_ORDERS_MAX || find_locked(b, o->order) != NULL) {
        return;
    }
    e = x_alloc(sizeof(*e));
    e->order = (struct block_order){
        .id = o->order, .kind = (enum order_kind)o->kind, .block = o->block, .len = o->len
    };
    e->order.addr = e->addr;
    e->order.label = e->label;
    htab_add(&b->known, &e->node, htab_mix(o->order));
    if (o->kind == ORDER_COPY && take_target(e, o->nodes) != 0) {
        e->status = DFS_EMALFORMED;
        list_push_back(&b->done, &e->link);
        return;
    }
    list_push_back(&b->waiting, &e->link);
    pthread_cond_signal(&b->cv);
}

int block_orders_take(struct block_orders *b, struct wire_list orders)
{
    struct wire_in in = wire_in_of(orders.items);
    int err = 0;

    pthread_mutex_lock(&b->mu);
    for (uint32_t i = 0; i < orders.count && err == 0; i++) {
        struct order o;

        err = order_get(&in, &o);
        if (err == 0) {
            take_one_locked(b, &o);
        }
    }
    pthread_mutex_unlock(&b->mu);
    return err;
}

uint32_t block_orders_put_done(struct block_orders *b, uint32_t max, struct wire_out *out)
{
    uint32_t n = 0;

    pthread_mutex_lock(&b->mu);
    LIST_FOREACH (item, &b->done) {
        const struct entry *e = CONTAINER_OF(item, struct entry, link);
        struct order_done d = {
            .order = e->order.id,
            .kind = (uint8_t)e->order.kind,
            .block = e->order.block,
            .node = e->order.node,
            .status = (uint32_t)e->status,
            .len = e->len,
        };

        if (n == max) {
            break;
        }
        order_done_put(out, &d);
        n++;
    }
    pthread_mutex_unlock(&b->mu);
    return n;
}

void block_orders_told(struct block_orders *b, uint32_t n)
{
    pthread_mutex_lock(&b->mu);
    for (; n > 0; n--) {
        struct list *item = list_pop_front(&b->done);
        struct entry *e;

        ASSERT(item != NULL);
        e = CONTAINER_OF(item, struct entry, link);
        htab_remove(&b->known, &e->node);
        free(e);
    }
    pthread_mutex_unlock(&b->mu);
}

bool block_orders_has_done(struct block_orders *b)
{
    bool has;

    pthread_mutex_lock(&b->mu);
    has = !list_empty(&b->done);
    pthread_mutex_unlock(&b->mu);
    return has;
}
