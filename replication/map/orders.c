#include "replication/map/orders.h"

/* Copies ordered ahead: this many times the streams, while they are this small together. */
#define AHEAD       16u
#define AHEAD_BYTES (16 * MIB)

/* A server that has orders, or is the target of some. */
struct order_node {
    struct hnode h;
    struct list orders; /* but for deletions */
    struct list deletes;
    struct list incoming;
    uint32_t node;
    uint32_t streams;
    uint64_t bytes; /* of the streams */
};

void orders_init(struct orders *o, uint32_t epoch)
{
    *o = (struct orders){ .next_id = ((uint64_t)epoch << 32) + 1 };
    htab_init(&o->by_id);
    htab_init(&o->by_what);
    htab_init(&o->nodes);
    list_init(&o->copying);
}

static struct order_entry *entry_of(struct hnode *h)
{
    return CONTAINER_OF(h, struct order_entry, by_id);
}

void orders_fini(struct orders *o)
{
    struct hnode *h;

    while ((h = htab_pop(&o->by_id)) != NULL) {
        free(entry_of(h));
    }
    while ((h = htab_pop(&o->nodes)) != NULL) {
        free(CONTAINER_OF(h, struct order_node, h));
    }
    htab_fini(&o->by_id);
    htab_fini(&o->by_what);
    htab_fini(&o->nodes);
}

static struct order_node *node_find(const struct orders *o, uint32_t node)
{
    for (struct hnode *h = htab_find(&o->nodes, htab_mix(node)); h != NULL; h = htab_next(h)) {
        struct order_node *n = CONTAINER_OF(h, struct order_node, h);

        if (n->node == node) {
            return n;
        }
    }
    return NULL;
}

static struct order_node *node_get(struct orders *o, uint32_t node)
{
    struct order_node *n = node_find(o, node);

    if (n == NULL) {
        n = x_alloc(sizeof(*n));
        n->node = node;
        list_init(&n->orders);
        list_init(&n->deletes);
        list_init(&n->incoming);
        htab_add(&o->nodes, &n->h, htab_mix(node));
    }
    return n;
}

static uint64_t what_hash(enum order_kind kind, uint64_t block, uint32_t node)
{
    return htab_mix(htab_mix(block) ^ ((uint64_t)kind << 32 | node));
}

struct order_entry *orders_of(const struct orders *o, enum order_kind kind, uint64_t block,
                              uint32_t node)
{
    struct hnode *h = htab_find(&o->by_what, what_hash(kind, block, node));

    for (; h != NULL; h = htab_next(h)) {
        struct order_entry *e = CONTAINER_OF(h, struct order_entry, by_what);

        if (e->kind == kind && e->block == block && e->node == node) {
            return e;
        }
    }
    return NULL;
}

struct order_entry *orders_add(struct orders *o, enum order_kind kind, uint64_t block,
                               uint32_t node, uint32_t target, uint32_t len, uint64_t now_ms)
{
    struct order_entry *e = orders_of(o, kind, block, node);
    struct order_node *n;

    if (e != NULL) {
        if (kind == ORDER_SEAL) {
            e->len = len;
        }
        return e;
    }
    n = node_get(o, node);
    e = x_alloc(sizeof(*e));
    *e = (struct order_entry){ .id = o->next_id++,
                               .block = block,
                               .since_ms = now_ms,
                               .node = node,
                               .target = target,
                               .len = len,
                               .kind = (uint8_t)kind };
    htab_add(&o->by_id, &e->by_id, htab_mix(e->id));
    htab_add(&o->by_what, &e->by_what, what_hash(kind, block, node));
    list_init(&e->of_node);
    list_init(&e->of_target);
    list_init(&e->of_age);
    list_push_back(kind == ORDER_DELETE ? &n->deletes : &n->orders, &e->of_node);
    if (kind == ORDER_COPY) {
        struct order_node *to = node_get(o, target);

        list_push_back(&to->incoming, &e->of_target);
        list_push_back(&o->copying, &e->of_age);
        n->streams++;
        n->bytes += len;
        to->streams++;
        to->bytes += len;
        o->copies++;
    }
    return e;
}

void orders_remove(struct orders *o, struct order_entry *e)
{
    if (e->kind == ORDER_COPY) {
        struct order_node *n = node_get(o, e->node), *to = node_get(o, e->target);

        n->streams--;
        n->bytes -= e->len;
        to->streams--;
        to->bytes -= e->len;
        o->copies--;
        o->moves -= e->move;
    }
    list_remove(&e->of_node);
    list_remove(&e->of_target);
    list_remove(&e->of_age);
    htab_remove(&o->by_id, &e->by_id);
    htab_remove(&o->by_what, &e->by_what);
    free(e);
}

struct order_entry *orders_find(const struct orders *o, uint64_t id)
{
    for (struct hnode *h = htab_find(&o->by_id, htab_mix(id)); h != NULL; h = htab_next(h)) {
        if (entry_of(h)->id == id) {
            return entry_of(h);
        }
    }
    return NULL;
}

uint32_t orders_streams(const struct orders *o, uint32_t node)
{
    const struct order_node *n = node_find(o, node);

    return n != NULL ? n->streams : 0;
}

bool orders_busy(const struct orders *o, uint32_t node, uint32_t streams)
{
    const struct order_node *n = node_find(o, node);

    return n != NULL && n->streams >= streams &&
           (n->streams >= streams * AHEAD || n->bytes >= streams * AHEAD_BYTES);
}

struct order_entry *orders_first_of(const struct orders *o, uint32_t node)
{
    const struct order_node *n = node_find(o, node);
    struct list *l;

    if (n == NULL) {
        return NULL;
    }
    l = list_first(&n->orders);
    l = l != NULL ? l : list_first(&n->deletes);
    if (l != NULL) {
        return CONTAINER_OF(l, struct order_entry, of_node);
    }
    l = list_first(&n->incoming);
    return l != NULL ? CONTAINER_OF(l, struct order_entry, of_target) : NULL;
}

struct order_entry *orders_stale(const struct orders *o, uint64_t now_ms, uint64_t age_ms)
{
    struct list *l = list_first(&o->copying);
    struct order_entry *e = l != NULL ? CONTAINER_OF(l, struct order_entry, of_age) : NULL;

    return e != NULL && now_ms - e->since_ms >= age_ms ? e : NULL;
}

static void entry_put(const struct order_entry *e, const struct members *t, struct wire_out *out)
{
    struct order rec = { .order = e->id, .kind = e->kind, .block = e->block, .len = e->len };
    const struct member *m = e->kind == ORDER_COPY ? members_get(t, e->target) : NULL;
    struct wire_out nodes;

    wire_out_init(&nodes, 2 * sizeof(struct server_rec));
    if (m != NULL) {
        struct node_addr a = { .node = m->node,
                               .state = member_state(m),
                               .addr = slice_str(m->rec.addr),
                               .host = slice_str(m->rec.host),
                               .label = slice_str(e->label) };

        node_addr_put(&nodes, &a);
    }
    rec.nodes = wire_out_list(&nodes, m != NULL ? 1 : 0);
    order_put(out, &rec);
    wire_out_fini(&nodes);
}

uint32_t orders_put(const struct orders *o, const struct members *t, uint32_t node, uint32_t max,
                    struct wire_out *out)
{
    const struct order_node *n = node_find(o, node);
    const struct list *const queues[] = { n != NULL ? &n->orders : NULL,
                                          n != NULL ? &n->deletes : NULL };
    uint32_t count = 0;

    for (size_t i = 0; n != NULL && i < ARRAY_LEN(queues); i++) {
        LIST_FOREACH (l, queues[i]) {
            if (count == max) {
                break;
            }
            entry_put(CONTAINER_OF(l, struct order_entry, of_node), t, out);
            count++;
        }
    }
    return count;
}
