/* What to do about one block, and what comes back. */
#include "replication/map/repair_state.h"

/* The record does not name it (any more). */
static void delete_copy(struct repair *r, uint64_t block, uint32_t node, uint64_t now_ms)
{
    if (members_counts(r->members, node)) {
        orders_add(&r->orders, ORDER_DELETE, block, node, 0, 0, now_ms);
    }
}

void repair_change(struct repair *r, const struct repair_change *c)
{
    struct problem *p = problem_find(r, c->block);

    /* Drops one at a time: each decision has to see the result of the one before. A copy that is
     * about to be deleted does not become a holder. */
    if (c->op == REPLICA_DROP ? p != NULL && p->changes != 0
                              : orders_of(&r->orders, ORDER_DELETE, c->block, c->node) != NULL) {
        return;
    }
    p = p != NULL ? p : problem_get(r, c->block);
    p->changes++;
    r->env.change(r->env.arg, c);
}

void repair_changed(struct repair *r, const struct repair_change *c, int status, uint64_t now_ms)
{
    struct problem *p = problem_get(r, c->block);

    if (p->changes != 0) {
        p->changes--;
    }
    p->wait_ms = status == DFS_OK ? now_ms : now_ms + REPAIR_PAUSE_MS;
    if (status == DFS_OK && c->op == REPLICA_DROP) {
        bad_remove(r, c->block, c->node);
        if (c->then_delete) {
            delete_copy(r, c->block, c->node, now_ms);
        }
    }
    repair_look_again(r, c->block, now_ms);
}

void repair_seal_copy(struct repair *r, uint64_t block, uint32_t node, uint32_t len,
                      uint64_t now_ms)
{
    if (members_counts(r->members, node)) {
        orders_add(&r->orders, ORDER_SEAL, block, node, 0, len, now_ms);
    }
}

void repair_delete_stray(struct repair *r, uint64_t block, uint32_t node, uint64_t now_ms)
{
    struct problem *p = problem_find(r, block);
    struct block_rec rec;
    struct standing s;
    int err = r->env.get(r->env.arg, block, &rec);

    if ((err != DFS_OK && err != DFS_ENOBLOCK) || (p != NULL && p->changes + p->copies != 0)) {
        return; /* a change under way may make it a holder */
    }
    for (uint8_t i = 0; err == DFS_OK && i < rec.node_count; i++) {
        if (rec.nodes[i] == node) {
            return;
        }
    }
    if (err == DFS_OK && rec.state != BLOCK_DELETED && rec.len != 0) {
        standing_of(r, block, &rec, &s);
        if (s.sure + s.leaving == 0) {
            return; /* short or damaged, but it may be all that is left */
        }
    }
    delete_copy(r, block, node, now_ms);
}

void repair_stray(struct repair *r, uint64_t block, uint32_t node, uint64_t now_ms)
{
    if (!repair_adopt(r, block, node, false, now_ms)) {
        repair_delete_stray(r, block, node, now_ms);
    }
}

void repair_sealed(struct repair *r, uint64_t block, const struct block_rec *rec, uint64_t now_ms)
{
    for (uint8_t i = 0; i < rec->node_count; i++) {
        repair_seal_copy(r, block, rec->nodes[i], rec->len, now_ms);
    }
}

/* ---- planning ---- */

uint32_t repair_source(const struct repair *r, uint64_t block, const struct standing *s)
{
    uint32_t best = 0, best_streams = UINT32_MAX;

    for (size_t i = 0; i < s->good + s->leaving; i++) {
        uint32_t node = i < s->good ? s->good_nodes[i] : s->leaving_nodes[i - s->good];
        uint32_t streams = orders_streams(&r->orders, node);

        if (streams < best_streams && !orders_busy(&r->orders, node, r->conf.streams) &&
            members_state(r->members, node) == MEMBER_LIVE &&
            orders_of(&r->orders, ORDER_COPY, block, node) == NULL) {
            best = node;
            best_streams = streams;
        }
    }
    return best;
}

/* Whom a block's next copy cannot go to. */
struct targeting {
    struct repair *r;
    const struct problem *p;
    const struct block_rec *rec;
    bool shun; /* the one that failed last */
    bool busy; /* there are busy ones */
};

static bool skip_target(void *arg, const struct member *m)
{
    struct targeting *t = arg;

    for (uint8_t i = 0; i < t->rec->node_count; i++) {
        if (t->rec->nodes[i] == m->node && members_counts(t->r->members, m->node)) {
            return true;
        }
    }
    if (orders_busy(&t->r->orders, m->node, t->r->conf.streams)) {
        t->busy = true;
        return true;
    }
    return orders_of(&t->r->orders, ORDER_DELETE, t->p->block, m->node) != NULL ||
           (t->shun && m->node == t->p->shunned);
}

int repair_target(struct repair *r, const struct problem *p, const struct block_rec *rec,
                  const struct standing *s, const uint32_t *have, size_t have_count,
                  struct placement_ask *ret_ask, uint32_t *ret)
{
    struct targeting t = { .r = r, .p = p, .rec = rec, .shun = p->shunned != 0 };
    struct placement_ask ask = { .copies = 1,
                                 .want = s->want,
                                 .rule = s->rule,
                                 .bytes = rec->len,
                                 .skip = skip_target,
                                 .arg = &t,
                                 .have = have,
                                 .have_count = have_count };
    uint32_t nodes[LIMIT_REPLICATION];
    size_t n;
    int err = placement_pick(r->members, &ask, &r->rng, nodes, &n);

    if (err != DFS_OK && t.shun) {
        t.shun = false;
        err = placement_pick(r->members, &ask, &r->rng, nodes, &n);
    }
    if (err == DFS_OK) {
        *ret = nodes[0];
        *ret_ask = ask;
    }
    return err != DFS_OK && t.busy ? DFS_EAGAIN : err;
}

void repair_order_copy(struct repair *r, struct problem *p, const struct block_rec *rec,
                       uint32_t source, uint32_t target, const char *label, uint64_t now_ms)
{
    struct order_entry *e =
        orders_add(&r->orders, ORDER_COPY, p->block, source, target, rec->len, now_ms);

    snprintf(e->label, sizeof(e->label), "%s", label);
    p->copies++;
    if (p->move_from != 0) {
        e->move = true;
        r->orders.moves++;
    } else {
        bucket_take(&r->rate, rec->len);
        r->copied_ms = now_ms;
    }
}

static bool plan_copy(struct repair *r, struct problem *p, const struct block_rec *rec,
                      const struct standing *s, uint64_t now_ms)
{
    uint32_t source = repair_source(r, p->block, s);
    struct placement_ask ask;
    uint32_t target;
    int err;

    if (source == 0 || s->good + p->copies >= s->want) {
        return false;
    }
    err = repair_target(r, p, rec, s, s->good_nodes, s->good, &ask, &target);
    if (err == DFS_EAGAIN) {
        return false;
    }
    if (err != DFS_OK) {
        /* The only server left holds a damaged copy: make room for a good one. */
        struct repair_change c = { p->block, s->bad != 0 ? s->bad_nodes[0] : 0, REPLICA_DROP,
                                   true };

        if (s->bad == 0 || s->live == 0 || s->sure + s->leaving == 0 || p->copies != 0) {
            return false;
        }
        repair_change(r, &c);
        return true;
    }
    repair_order_copy(r, p, rec, source, target, placement_label(r->members, &ask, target), now_ms);
    return true;
}

/* Who gives a copy up; 0: nobody. The one that is being moved away, unless the rest would be placed
 * worse without it. */
static uint32_t excess_of(const struct repair *r, const struct problem *p, const struct standing *s,
                          const bool *keep)
{
    uint32_t rest[LIMIT_REPLICATION];
    size_t n = 0, i;

    for (i = 0; i < s->good; i++) {
        if (s->good_nodes[i] != p->move_from || keep[i]) {
            rest[n++] = s->good_nodes[i];
        }
    }
    if (n + 1 == s->good &&
        placement_judge(r->members, rest, n, s->rule, s->want, r->two_racks) == 0) {
        return p->move_from;
    }
    i = placement_excess(r->members, s->good_nodes, keep, s->good, s->rule, s->want);
    return i < s->good ? s->good_nodes[i] : 0;
}

static bool plan_drop(struct repair *r, struct problem *p, const struct standing *s)
{
    struct repair_change c = { p->block, 0, REPLICA_DROP, true };
    bool keep[LIMIT_REPLICATION] = { false };
    bool sure = s->sure >= s->want;

    if (s->good < s->want || s->live == 0) {
        return false;
    }
    if (s->bad != 0 && sure) {
        c.node = s->bad_nodes[0];
    } else if (s->dead != 0) {
        c.node = s->dead_nodes[0]; /* when it comes back, its copy is a stray */
        c.then_delete = false;
    } else if (s->leaving != 0 && s->live >= s->want && sure) {
        c.node = s->leaving_nodes[0];
    } else if (s->good > s->want && s->live > s->want && s->sure == s->good && p->copies == 0) {
        for (size_t i = 0; i < s->good; i++) {
            /* A suspect one may not hear of it: trim what is there. */
            keep[i] = members_state(r->members, s->good_nodes[i]) != MEMBER_LIVE;
        }
        c.node = excess_of(r, p, s, keep);
        if (c.node == 0) {
            return false;
        }
    } else {
        return false;
    }
    repair_change(r, &c);
    return true;
}

bool repair_plan(struct repair *r, struct problem *p, const struct block_rec *rec, uint64_t now_ms)
{
    struct standing s;

    standing_of(r, p->block, rec, &s);
    if (rec->state != BLOCK_SEALED || s.good + s.leaving == 0) {
        return false;
    }
    if (s.good < s.want) {
        return plan_copy(r, p, rec, &s, now_ms);
    }
    return (p->flags & PROBLEM_MISPLACED) != 0 ? repair_plan_mend(r, p, rec, &s, now_ms)
                                               : plan_drop(r, p, &s);
}

/* ---- deleted blocks ---- */

static struct deletion *deletion_find(const struct repair *r, uint64_t block)
{
    struct hnode *h = htab_find(&r->deletions, htab_mix(block));

    for (; h != NULL; h = htab_next(h)) {
        struct deletion *d = CONTAINER_OF(h, struct deletion, h);

        if (d->block == block) {
            return d;
        }
    }
    return NULL;
}

bool repair_is_deleting(const struct repair *r, uint64_t block)
{
    return deletion_find(r, block) != NULL;
}

bool repair_delete(struct repair *r, uint64_t block, const struct block_rec *rec, uint64_t now_ms)
{
    struct deletion *d = deletion_find(r, block);

    if (d != NULL) {
        return true;
    }
    if (r->deletions.count >= REPAIR_MAX_DELETIONS) {
        return false;
    }
    d = x_alloc(sizeof(*d));
    d->block = block;
    for (uint8_t i = 0; i < rec->node_count; i++) {
        bad_remove(r, block, rec->nodes[i]);
        /* A dead one that comes back holds a block that nobody knows: reconciling sees to it. */
        if (members_counts(r->members, rec->nodes[i])) {
            d->nodes[d->count++] = rec->nodes[i];
            delete_copy(r, block, rec->nodes[i], now_ms);
        }
    }
    htab_add(&r->deletions, &d->h, htab_mix(block));
    if (d->count == 0) {
        r->env.forget(r->env.arg, block);
    }
    return true;
}

void deletion_done(struct repair *r, uint64_t block, uint32_t node)
{
    struct deletion *d = deletion_find(r, block);

    for (uint8_t i = 0; d != NULL && i < d->count; i++) {
        if (d->nodes[i] == node) {
            d->nodes[i] = d->nodes[--d->count];
            if (d->count == 0) {
                r->env.forget(r->env.arg, block);
            }
            return;
        }
    }
}

void repair_forgotten(struct repair *r, uint64_t block)
{
    struct deletion *d = deletion_find(r, block);

    if (d != NULL) {
        htab_remove(&r->deletions, &d->h);
        free(d);
    }
}

/* ---- answers of servers ---- */

/* known: it is still wanted, as far as this leader knows. */
static void copy_done(struct repair *r, uint32_t node, const struct order_done *d, bool known,
                      uint64_t now_ms)
{
    struct problem *p = problem_find(r, d->block);
    struct repair_change c = { d->block, d->node, REPLICA_ADD, false };
    struct block_rec rec;

    if (d->status != DFS_OK) {
        if (p != NULL) {
            p->shunned = d->node;
            p->wait_ms = now_ms + REPAIR_PAUSE_MS;
        }
        /* The reader's own copy is what a checksum or a missing file is about. */
        if (d->status == DFS_ECHECKSUM || d->status == DFS_ENOBLOCK || d->status == DFS_EOFFSET) {
            repair_bad(r, d->block, node, (int)d->status, now_ms);
        }
        /* The target has one that the record does not name: a good one is taken on by sealing it,
         * a short one shows by that and goes. */
        if (d->status == DFS_EEXIST) {
            repair_adopt(r, d->block, d->node, false, now_ms);
        }
        return;
    }
    if (!known) {
        /* Of an earlier leader, or cancelled when it had begun. */
        if (!repair_adopt(r, d->block, d->node, true, now_ms)) {
            repair_delete_stray(r, d->block, d->node, now_ms);
        }
        return;
    }
    if (p == NULL || p->move_from == 0) {
        r->meter.units += d->len;
        r->copied_ms = now_ms;
    }
    if (r->env.get(r->env.arg, d->block, &rec) != DFS_OK || rec.state != BLOCK_SEALED) {
        return; /* reconciling finds the copy if it is one too many */
    }
    for (uint8_t i = 0; i < rec.node_count; i++) {
        if (rec.nodes[i] == d->node) {
            return;
        }
    }
    if (rec.node_count < LIMIT_REPLICATION) {
        repair_change(r, &c);
    }
}

bool repair_adopt(struct repair *r, uint64_t block, uint32_t node, bool sealed, uint64_t now_ms)
{
    struct repair_change c = { block, node, REPLICA_ADD, false };
    struct block_rec rec;
    struct standing s;

    if (r->env.get(r->env.arg, block, &rec) != DFS_OK || rec.state != BLOCK_SEALED ||
        rec.node_count >= LIMIT_REPLICATION ||
        orders_of(&r->orders, ORDER_DELETE, block, node) != NULL) {
        return false;
    }
    for (uint8_t i = 0; i < rec.node_count; i++) {
        if (rec.nodes[i] == node) {
            return true;
        }
    }
    standing_of(r, block, &rec, &s);
    /* On a server that is to be emptied only when there is no other copy. */
    if (s.good >= s.want || (members_leaving(r->members, node) && s.good + s.leaving != 0)) {
        return false;
    }
    if (sealed) {
        repair_change(r, &c);
    } else {
        repair_seal_copy(r, block, node, rec.len, now_ms); /* added when that is done */
    }
    return true;
}

static void seal_done(struct repair *r, uint32_t node, const struct order_done *d, uint64_t now_ms)
{
    if (d->status == DFS_ENOBLOCK || d->status == DFS_EOFFSET || d->status == DFS_ECHECKSUM) {
        repair_bad(r, d->block, node, (int)d->status, now_ms);
        repair_delete_stray(r, d->block, node, now_ms); /* unless it is a holder */
    } else if (d->status == DFS_OK) {
        repair_adopt(r, d->block, node, true, now_ms); /* unless it is a holder already */
    }
}

void repair_done(struct repair *r, uint32_t node, const struct order_done *d, uint64_t now_ms)
{
    struct order_entry *e = orders_find(&r->orders, d->order);
    struct problem *p;

    /* Answers to an earlier leader's orders are as good, but for the bookkeeping. */
    if (e != NULL) {
        if (e->node != node || e->kind != d->kind || e->block != d->block) {
            return;
        }
        p = e->kind == ORDER_COPY ? problem_find(r, e->block) : NULL;
        if (p != NULL) {
            p->copies--;
        }
        orders_remove(&r->orders, e);
    }
    if (d->kind == ORDER_COPY) {
        copy_done(r, node, d, e != NULL, now_ms);
        repair_look_again(r, d->block, now_ms);
    } else if (d->kind == ORDER_SEAL) {
        seal_done(r, node, d, now_ms);
    } else if (d->kind == ORDER_DELETE) {
        /* One that could not be deleted turns up as a stray again. */
        deletion_done(r, d->block, node);
    }
}
