#include "replication/map/repair_state.h"

#define PROBLEMS_TO_COPY (PROBLEM_UNDER | PROBLEM_LEAVING | PROBLEM_MISPLACED)
#define GIVE_UP_AT_ONCE  128u /* orders, so that a step stays short */

struct repair *repair_new(const struct repair_conf *conf, const struct repair_env *env,
                          struct members *members, uint32_t epoch, uint64_t seed)
{
    struct repair *r = x_alloc(sizeof(*r));

    r->conf = *conf;
    r->env = *env;
    r->members = members;
    orders_init(&r->orders, epoch);
    rng_init(&r->rng, seed);
    r->rate.rate = conf->rate;
    htab_init(&r->problems);
    htab_reserve(&r->problems, REPAIR_MAX_PROBLEMS); /* no step may be held up by growing */
    htab_init(&r->deletions);
    htab_init(&r->bad);
    for (int i = 0; i < DANGERS; i++) {
        list_init(&r->queues[i]);
    }
    return r;
}

void repair_free(struct repair *r)
{
    struct hnode *h;

    if (r == NULL) {
        return;
    }
    while ((h = htab_pop(&r->problems)) != NULL) {
        free(CONTAINER_OF(h, struct problem, h));
    }
    while ((h = htab_pop(&r->deletions)) != NULL) {
        free(CONTAINER_OF(h, struct deletion, h));
    }
    while ((h = htab_pop(&r->bad)) != NULL) {
        free(CONTAINER_OF(h, struct bad_copy, h));
    }
    htab_fini(&r->problems);
    htab_fini(&r->deletions);
    htab_fini(&r->bad);
    orders_fini(&r->orders);
    for (size_t i = 0; i < r->rule_count; i++) {
        free(r->rules[i]);
    }
    free(r->rules);
    free(r);
}

void repair_get_counts(const struct repair *r, struct repair_counts *ret)
{
    *ret = r->counts;
    ret->repairing = r->orders.copies;
    ret->rate = r->meter.rate;
}

uint32_t repair_put_orders(const struct repair *r, uint32_t node, uint32_t max,
                           struct wire_out *out)
{
    return orders_put(&r->orders, r->members, node, max, out);
}

bool repair_wants_scan(struct repair *r)
{
    bool wants = r->overflow && r->problems.count < REPAIR_MAX_PROBLEMS / 2;

    if (wants) {
        r->overflow = false;
    }
    return wants;
}

/* ---- damaged copies ---- */

static struct bad_copy *bad_find(const struct repair *r, uint64_t block, uint32_t node)
{
    struct hnode *h = htab_find(&r->bad, htab_mix(htab_mix(block) ^ node));

    for (; h != NULL; h = htab_next(h)) {
        struct bad_copy *b = CONTAINER_OF(h, struct bad_copy, h);

        if (b->block == block && b->node == node) {
            return b;
        }
    }
    return NULL;
}

bool repair_is_bad(const struct repair *r, uint64_t block, uint32_t node)
{
    return bad_find(r, block, node) != NULL;
}

void bad_add(struct repair *r, uint64_t block, uint32_t node)
{
    struct bad_copy *b;

    /* Beyond the ceiling it is found again by the next reader or scrub. */
    if (bad_find(r, block, node) != NULL || r->bad.count >= REPAIR_MAX_BAD) {
        return;
    }
    b = x_alloc(sizeof(*b));
    b->block = block;
    b->node = node;
    htab_add(&r->bad, &b->h, htab_mix(htab_mix(block) ^ node));
}

void bad_remove(struct repair *r, uint64_t block, uint32_t node)
{
    struct bad_copy *b = bad_find(r, block, node);

    if (b != NULL) {
        htab_remove(&r->bad, &b->h);
        free(b);
    }
}

void repair_bad(struct repair *r, uint64_t block, uint32_t node, int status, uint64_t now_ms)
{
    const struct problem *p;
    struct block_rec rec;

    if (r->env.get(r->env.arg, block, &rec) != DFS_OK) {
        return;
    }
    p = problem_find(r, block);
    for (uint8_t i = 0; i < rec.node_count; i++) {
        if (rec.nodes[i] != node) {
            continue;
        }
        /* While another change is under way this one would be passed over, and the copy count. */
        if (status == DFS_ENOBLOCK && rec.state == BLOCK_SEALED && (p == NULL || p->changes == 0)) {
            struct repair_change c = { block, node, REPLICA_DROP, false };

            repair_change(r, &c);
            return;
        }
        bad_add(r, block, node);
        repair_look(r, block, &rec, now_ms);
    }
}

/* ---- problems ---- */

struct problem *problem_find(const struct repair *r, uint64_t block)
{
    struct hnode *h = htab_find(&r->problems, htab_mix(block));

    for (; h != NULL; h = htab_next(h)) {
        struct problem *p = CONTAINER_OF(h, struct problem, h);

        if (p->block == block) {
            return p;
        }
    }
    return NULL;
}

struct problem *problem_get(struct repair *r, uint64_t block)
{
    struct problem *p = problem_find(r, block);

    if (p == NULL) {
        p = x_alloc(sizeof(*p));
        p->block = block;
        p->danger = DANGER_TIDY;
        list_init(&p->queue);
        htab_add(&r->problems, &p->h, htab_mix(block));
    }
    return p;
}

static void count(struct repair *r, uint8_t flags, int delta)
{
    r->counts.under += (flags & PROBLEM_UNDER) != 0 ? (uint64_t)(int64_t)delta : 0;
    r->counts.missing += (flags & PROBLEM_MISSING) != 0 ? (uint64_t)(int64_t)delta : 0;
    r->counts.corrupt += (flags & PROBLEM_CORRUPT) != 0 ? (uint64_t)(int64_t)delta : 0;
    r->counts.misplaced += (flags & PROBLEM_MISPLACED) != 0 ? (uint64_t)(int64_t)delta : 0;
}

static void problem_set(struct repair *r, struct problem *p, uint8_t flags, enum danger danger,
                        uint64_t bytes)
{
    r->counts.bytes += bytes - p->bytes;
    p->bytes = bytes;
    count(r, p->flags, -1);
    count(r, flags, 1);
    p->flags = flags;
    list_remove(&p->queue);
    p->danger = (uint8_t)danger;
    if (flags == 0 && p->changes == 0 && p->copies == 0) {
        htab_remove(&r->problems, &p->h);
        free(p);
        return;
    }
    if (flags != 0) {
        list_push_back(&r->queues[danger], &p->queue);
    }
}

void standing_of(const struct repair *r, uint64_t block, const struct block_rec *rec,
                 struct standing *ret)
{
    *ret = (struct standing){ .want = MAX(block_rec_want(rec), 1),
                              .rule = repair_rule(r, block_rec_rule(rec)) };
    for (uint8_t i = 0; i < rec->node_count; i++) {
        uint32_t node = rec->nodes[i];

        if (!members_counts(r->members, node)) {
            ret->dead_nodes[ret->dead++] = node;
        } else if (r->bad.count != 0 && repair_is_bad(r, block, node)) {
            ret->bad_nodes[ret->bad++] = node;
        } else if (members_leaving(r->members, node)) {
            ret->leaving_nodes[ret->leaving++] = node;
        } else {
            ret->good_nodes[ret->good++] = node;
            ret->live += members_state(r->members, node) == MEMBER_LIVE;
            ret->sure += !members_unsure(r->members, node);
        }
    }
}

static uint8_t flags_of(const struct repair *r, const struct standing *s,
                        const struct block_rec *rec)
{
    uint8_t flags = s->bad != 0 ? PROBLEM_CORRUPT : 0;

    if (rec->state == BLOCK_DELETED) {
        return 0;
    }
    if (s->good + s->leaving == 0) {
        /* An open block that nobody has committed to holds nothing. */
        return rec->len != 0 && s->bad == 0 ? (uint8_t)(flags | PROBLEM_MISSING) : flags;
    }
    if (rec->state != BLOCK_SEALED) {
        return flags;
    }
    if (s->good + s->leaving < s->want) {
        flags |= PROBLEM_UNDER;
    } else if (s->good < s->want) {
        flags |= PROBLEM_LEAVING;
    } else if (s->good > s->want || s->bad != 0 || s->dead != 0 || s->leaving != 0) {
        flags |= PROBLEM_SURPLUS;
    } else if (standing_misplaced(r, s) != 0) {
        flags |= PROBLEM_MISPLACED;
    }
    return flags;
}

static enum danger danger_of(const struct repair *r, const struct standing *s, uint8_t flags)
{
    unsigned int bad = (flags & PROBLEMS_TO_COPY) != 0 ? standing_misplaced(r, s) : 0;
    bool spread = (bad & (MISPLACED_RACK | MISPLACED_HOST)) == 0;
    size_t copies = s->good + s->leaving;

    if ((flags & PROBLEM_UNDER) != 0) {
        return copies == 1   ? DANGER_ONE
               : copies == 2 ? (spread ? DANGER_TWO : DANGER_TWO_IN_RACK)
               : spread      ? DANGER_MORE
                             : DANGER_MORE_IN_RACK;
    }
    if ((flags & PROBLEM_LEAVING) != 0) {
        return DANGER_LEAVING;
    }
    if ((flags & PROBLEM_SURPLUS) != 0) {
        return DANGER_TIDY;
    }
    return (flags & PROBLEM_MISPLACED) == 0 ? DANGER_LOST : spread ? DANGER_LABEL : DANGER_SPREAD;
}

static uint64_t bytes_of(const struct standing *s, const struct block_rec *rec, uint8_t flags)
{
    if ((flags & (PROBLEM_UNDER | PROBLEM_LEAVING)) != 0) {
        return (uint64_t)(s->want - s->good) * rec->len;
    }
    return (flags & PROBLEM_MISPLACED) != 0 ? rec->len : 0;
}

void repair_look(struct repair *r, uint64_t block, const struct block_rec *rec, uint64_t now_ms)
{
    struct problem *p = problem_find(r, block);
    struct standing s;
    uint8_t flags;

    repair_look_at_topology(r, now_ms);
    standing_of(r, block, rec, &s);
    flags = flags_of(r, &s, rec);
    if (p == NULL) {
        if (flags == 0) {
            return;
        }
        if (r->problems.count >= REPAIR_MAX_PROBLEMS) {
            r->overflow = true;
            return;
        }
        p = problem_get(r, block);
    }
    if (p->copies != 0 && p->move_from == 0 && (flags & PROBLEMS_TO_COPY) == 0) {
        repair_cancel_copies(r, p, rec);
    }
    if ((flags & (PROBLEM_UNDER | PROBLEM_LEAVING)) != 0) {
        p->move_from = 0; /* what is being copied is needed now */
    }
    problem_set(r, p, flags, danger_of(r, &s, flags), bytes_of(&s, rec, flags));
}

void repair_look_again(struct repair *r, uint64_t block, uint64_t now_ms)
{
    struct block_rec rec = { .state = BLOCK_DELETED }; /* when it is gone */
    int err = r->env.get(r->env.arg, block, &rec);

    if (err == DFS_OK || err == DFS_ENOBLOCK) {
        repair_look(r, block, &rec, now_ms);
    }
}

/* ---- steps ---- */

/* Up to *looks problems of one queue; stops early when many in a row brought nothing, and paced ones
 * when the rate is used up. */
static bool step_queue(struct repair *r, struct list *queue, bool paced, size_t *looks,
                       uint64_t now_ms)
{
    struct list *last = list_last(queue);
    size_t idle = 0;
    bool again = last != NULL, acted = false;

    while (again && *looks > 0 && idle < 16 && (!paced || bucket_open(&r->rate, now_ms))) {
        struct list *first = list_first(queue);
        struct problem *p = CONTAINER_OF(first, struct problem, queue);
        struct block_rec rec;

        ASSERT(first != NULL); /* last is still in it */
        again = &p->queue != last;
        list_remove(&p->queue);
        list_push_back(queue, &p->queue);
        (*looks)--;
        if (p->wait_ms > now_ms || p->changes != 0) {
            continue;
        }
        p->wait_ms = now_ms + REPAIR_BUSY_MS;
        if (r->env.get(r->env.arg, p->block, &rec) != DFS_OK) {
            repair_look_again(r, p->block, now_ms);
        } else if (repair_plan(r, p, &rec, now_ms)) {
            p->wait_ms = now_ms;
            idle = 0;
            acted = true;
        } else {
            idle++;
        }
    }
    return acted && *looks == 0;
}

static void give_up(struct repair *r, struct order_entry *e, uint64_t now_ms)
{
    struct problem *p = e->kind == ORDER_COPY ? problem_find(r, e->block) : NULL;
    uint64_t block = e->block;

    if (e->kind == ORDER_DELETE) {
        deletion_done(r, e->block, e->node);
    }
    if (p != NULL) {
        p->copies--;
        p->shunned = e->target;
        p->wait_ms = now_ms + REPAIR_PAUSE_MS;
    }
    orders_remove(&r->orders, e);
    if (p != NULL) {
        repair_look_again(r, block, now_ms);
    }
}

/* What is left of the orders of servers that are dead. */
static void give_up_dead(struct repair *r, uint64_t now_ms)
{
    size_t left = GIVE_UP_AT_ONCE;

    for (size_t i = 0; i < r->members->count && left > 0; i++) {
        const struct member *m = r->members->all[i];
        struct order_entry *e;

        while (member_state(m) == MEMBER_DEAD && left > 0 &&
               (e = orders_first_of(&r->orders, m->node)) != NULL) {
            give_up(r, e, now_ms);
            left--;
        }
    }
}

bool repair_step(struct repair *r, size_t looks, uint64_t now_ms)
{
    struct order_entry *e;
    bool more = false;

    repair_look_at_topology(r, now_ms);
    meter_step(&r->meter, now_ms);
    for (size_t i = 0;
         i < GIVE_UP_AT_ONCE && (e = orders_stale(&r->orders, now_ms, r->conf.stale_ms)) != NULL;
         i++) {
        give_up(r, e, now_ms);
    }
    give_up_dead(r, now_ms);
    for (int i = 0; i < DANGER_LOST && looks > 0; i++) {
        more = step_queue(r, &r->queues[i], i != DANGER_TIDY, &looks, now_ms) || more;
    }
    return more;
}

void repair_node_dead(struct repair *r, uint32_t node, uint64_t now_ms)
{
    struct order_entry *e;

    for (size_t i = 0; i < GIVE_UP_AT_ONCE && (e = orders_first_of(&r->orders, node)) != NULL;
         i++) {
        give_up(r, e, now_ms);
    }
}
