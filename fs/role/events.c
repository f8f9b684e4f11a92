#include "fs/role/events.h"

#include "cluster/base/err.h"
#include "cluster/base/rng.h"

#define SAME_LOOK 16 /* so many of the newest events are compared with a new one */

struct item {
    struct list list;
    struct event ev; /* name: behind the struct */
    uint8_t name[];
};

struct queue {
    struct hnode h;
    struct list due; /* in events.due */
    uint64_t session;
    uint64_t channel;
    uint64_t first; /* number of the oldest item */
    uint64_t next;  /* of the item that comes */
    uint64_t sent;  /* items below were in an answer */
    struct list items;
    struct rpc_loop *loop; /* of the held request; NULL: none */
    struct rpc_token token;
    uint64_t hold_until_ms;
    bool ended;
};

void events_init(struct events *e, uint64_t hold_ms)
{
    *e = (struct events){ .hold_ms = hold_ms, .channel = rng_system_u64() };
    pthread_mutex_init(&e->mu, NULL);
    htab_init(&e->queues);
    list_init(&e->due);
}

static void drop_items(struct queue *q, uint64_t before)
{
    while (q->first < before) {
        free(CONTAINER_OF(list_pop_front(&q->items), struct item, list));
        q->first++;
    }
}

static void queue_free(struct queue *q)
{
    drop_items(q, q->next);
    list_remove(&q->due);
    free(q);
}

void events_fini(struct events *e)
{
    struct hnode *h;

    LIST_FOREACH (l, &e->due) {
        struct queue *q = CONTAINER_OF(l, struct queue, due);

        if (q->ended) { /* in no table any more */
            queue_free(q);
        }
    }
    while ((h = htab_pop(&e->queues)) != NULL) {
        queue_free(CONTAINER_OF(h, struct queue, h));
    }
    htab_fini(&e->queues);
    pthread_mutex_destroy(&e->mu);
}

static struct queue *find_locked(const struct events *e, uint64_t session)
{
    for (struct hnode *h = htab_find(&e->queues, htab_mix(session)); h != NULL; h = htab_next(h)) {
        struct queue *q = CONTAINER_OF(h, struct queue, h);

        if (q->session == session) {
            return q;
        }
    }
    return NULL;
}

static void wake_locked(struct events *e, struct queue *q)
{
    if (q->loop != NULL && list_empty(&q->due)) {
        list_push_back(&e->due, &q->due);
        if (!e->closed) {
            rpc_loop_wake(q->loop);
        }
    }
}

/* ---- posting ---- */

/* An inode that changed again has changed: the older event takes over what is new. */
static bool merge(struct event *to, const struct event *ev)
{
    bool same = to->kind == ev->kind && to->ino == ev->ino && slice_eq(to->name, ev->name) &&
                (to->arg == ev->arg || ev->kind == EVENT_INODE);

    if (same) {
        to->arg = MAX(to->arg, ev->arg);
    }
    return same;
}

/* Will the session hear of this anyway? */
static bool known(const struct queue *q, const struct event *ev)
{
    uint64_t number = q->next;

    for (struct list *l = q->items.prev; l != &q->items && q->next - number < SAME_LOOK;
         l = l->prev) {
        if (--number < q->sent) {
            break;
        }
        if (merge(&CONTAINER_OF(l, struct item, list)->ev, ev)) {
            return true;
        }
    }
    return false;
}

static void put(struct queue *q, const struct event *ev)
{
    struct item *it = x_alloc(sizeof(*it) + ev->name.len);

    it->ev = *ev;
    if (ev->name.len != 0) {
        memcpy(it->name, ev->name.p, ev->name.len);
        it->ev.name.p = it->name;
    }
    list_push_back(&q->items, &it->list);
    q->next++;
}

static void put_all(struct queue *q)
{
    drop_items(q, q->next);
    put(q, &(struct event){ .kind = EVENT_ALL });
}

void events_post(struct events *e, uint64_t session, const struct event *ev)
{
    struct queue *q;

    if (!events_wanted(e)) {
        return;
    }
    pthread_mutex_lock(&e->mu);
    q = find_locked(e, session);
    if (q != NULL && !known(q, ev)) {
        if (q->next - q->first == EVENTS_QUEUE_MAX) {
            put_all(q);
        } else {
            put(q, ev);
        }
        wake_locked(e, q);
    }
    pthread_mutex_unlock(&e->mu);
}

bool events_wanted(const struct events *e)
{
    return atomic_load_explicit(&e->count, memory_order_relaxed) != 0;
}

/* ---- asking and answering ---- */

static void fill(struct queue *q, struct wire_out *rep)
{
    struct session_poll_rep r = { .channel = q->channel, .next = q->next };
    struct wire_out list;

    wire_out_init(&list, LIMIT_REPLY);
    LIST_FOREACH (l, &q->items) {
        event_put(&list, &CONTAINER_OF(l, struct item, list)->ev);
    }
    r.events = wire_out_list(&list, (uint32_t)(q->next - q->first));
    session_poll_rep_put(rep, &r);
    wire_out_fini(&list);
    q->sent = q->next;
}

static struct queue *queue_new_locked(struct events *e, uint64_t session)
{
    struct queue *q = x_alloc(sizeof(*q));

    q->session = session;
    q->channel = ++e->channel != 0 ? e->channel : ++e->channel;
    list_init(&q->items);
    list_init(&q->due);
    htab_add(&e->queues, &q->h, htab_mix(session));
    atomic_fetch_add(&e->count, 1);
    put_all(q);
    return q;
}

int events_poll(struct events *e, uint64_t session, const struct session_poll_req *req,
                struct rpc_loop *loop, struct rpc_token token, uint64_t now_ms,
                struct wire_out *rep, bool *ret_held)
{
    int err = DFS_OK;
    struct queue *q;

    pthread_mutex_lock(&e->mu);
    if (e->closed) {
        err = DFS_ESHUTDOWN;
        goto out;
    }
    q = find_locked(e, session);
    if (q == NULL) {
        q = queue_new_locked(e, session);
    } else if (req->channel == q->channel) {
        drop_items(q, MIN(req->seen, q->sent));
    } else {
        put_all(q);
    }
    list_remove(&q->due);
    q->loop = NULL; /* one that was held is of a connection given up */
    *ret_held = list_empty(&q->items);
    if (*ret_held) {
        q->loop = loop;
        q->token = token;
        q->hold_until_ms = now_ms + e->hold_ms;
    } else {
        fill(q, rep);
    }
out:
    pthread_mutex_unlock(&e->mu);
    return err;
}

bool events_answer(struct events *e, const struct rpc_loop *loop, struct rpc_token *ret_token,
                   int *ret_status, struct wire_out *rep)
{
    struct queue *q = NULL;

    pthread_mutex_lock(&e->mu);
    LIST_FOREACH (l, &e->due) {
        if (CONTAINER_OF(l, struct queue, due)->loop == loop) {
            q = CONTAINER_OF(l, struct queue, due);
            break;
        }
    }
    if (q != NULL) {
        list_remove(&q->due);
        *ret_token = q->token;
        *ret_status = q->ended ? DFS_ESESSION : DFS_OK;
        q->loop = NULL;
        if (q->ended) {
            queue_free(q);
        } else {
            fill(q, rep);
        }
    }
    pthread_mutex_unlock(&e->mu);
    return q != NULL;
}

void events_end(struct events *e, uint64_t session)
{
    struct queue *q;

    pthread_mutex_lock(&e->mu);
    q = find_locked(e, session);
    if (q != NULL) {
        htab_remove(&e->queues, &q->h);
        atomic_fetch_sub(&e->count, 1);
        if (q->loop != NULL && !e->closed) {
            q->ended = true;
            wake_locked(e, q);
        } else {
            queue_free(q);
        }
    }
    pthread_mutex_unlock(&e->mu);
}

void events_tick(struct events *e, uint64_t now_ms)
{
    pthread_mutex_lock(&e->mu);
    HTAB_FOREACH (h, &e->queues) {
        struct queue *q = CONTAINER_OF(h, struct queue, h);

        if (q->loop != NULL && now_ms >= q->hold_until_ms) {
            wake_locked(e, q);
        }
    }
    pthread_mutex_unlock(&e->mu);
}

void events_close(struct events *e)
{
    pthread_mutex_lock(&e->mu);
    e->closed = true;
    pthread_mutex_unlock(&e->mu);
}
