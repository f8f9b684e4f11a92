#include "replication/map/reconcile.h"

#define MAX_STRAYS (1u << 20)

void reconcile_digest_add(struct reconcile_digest *d, uint64_t block, uint32_t len)
{
    uint64_t range = block / RANGE_BLOCKS;
    struct reconcile_sum *s;

    if (d->count == 0 || d->sums[d->count - 1].range != range) {
        if (d->count == d->cap) {
            d->cap = MAX(d->cap * 2, 64);
            d->sums = x_realloc(d->sums, d->cap * sizeof(*d->sums));
        }
        d->sums[d->count++] = (struct reconcile_sum){ .range = range };
    }
    s = &d->sums[d->count - 1];
    s->count++;
    s->sum ^= replica_mix(block, len);
}

void reconcile_digest_fini(struct reconcile_digest *d)
{
    free(d->sums);
    *d = (struct reconcile_digest){ 0 };
}

static uint32_t put_range(struct wire_out *out, uint64_t range)
{
    struct range_ref r = { range };

    range_ref_put(out, &r);
    return 1;
}

uint32_t reconcile_differ(const struct reconcile_digest *ours, struct wire_list theirs,
                          uint64_t first, uint64_t last, struct wire_out *out)
{
    struct wire_in in = wire_in_of(theirs.items);
    uint32_t differ = 0;
    size_t i = 0;

    while (i < ours->count && ours->sums[i].range < first) {
        i++;
    }
    for (uint32_t n = 0; n < theirs.count; n++) {
        struct range_digest t;

        if (range_digest_get(&in, &t) != DFS_OK || t.range < first || t.range > last) {
            break;
        }
        while (i < ours->count && ours->sums[i].range < t.range) {
            differ += put_range(out, ours->sums[i++].range);
        }
        if (i == ours->count || ours->sums[i].range != t.range) {
            differ += put_range(out, t.range);
            continue;
        }
        if (ours->sums[i].count != t.count || ours->sums[i].sum != t.sum) {
            differ += put_range(out, t.range);
        }
        i++;
    }
    while (i < ours->count && ours->sums[i].range <= last) {
        differ += put_range(out, ours->sums[i++].range);
    }
    return differ;
}

enum verdict reconcile_judge(uint64_t block, const struct block_rec *rec, bool listed,
                             const struct replica_info *have, uint64_t next_block)
{
    bool sealed = rec != NULL && rec->state == BLOCK_SEALED;

    if (have == NULL) {
        /* The writer of an open block may not have come to this server yet, or tells us itself. */
        return sealed && listed ? VERDICT_LOST : VERDICT_FINE;
    }
    if (rec == NULL) {
        return block >= next_block ? VERDICT_FUTURE : VERDICT_STRAY;
    }
    if (!sealed) {
        /* Deleted blocks with holders are deleted in their own time. */
        return listed ? VERDICT_FINE : VERDICT_STRAY;
    }
    if (have->len < rec->len || have->state == REPLICA_DAMAGED) {
        return listed ? VERDICT_SHORT : VERDICT_STRAY;
    }
    if (have->len > rec->len || have->state == REPLICA_OPEN) {
        return listed ? VERDICT_SEAL : VERDICT_RESCUE;
    }
    return listed ? VERDICT_FINE : VERDICT_ADOPT;
}

/* ---- strays ---- */

struct stray {
    struct hnode h;
    struct list age;
    uint64_t block;
    uint64_t since_ms;
    uint32_t node;
};

void strays_init(struct strays *s)
{
    htab_init(&s->by_what);
    list_init(&s->by_age);
}

void strays_fini(struct strays *s)
{
    struct hnode *h;

    while ((h = htab_pop(&s->by_what)) != NULL) {
        free(CONTAINER_OF(h, struct stray, h));
    }
    htab_fini(&s->by_what);
}

void strays_note(struct strays *s, uint64_t block, uint32_t node, uint64_t now_ms)
{
    uint64_t hash = htab_mix(htab_mix(block) ^ node);
    struct stray *n;

    for (struct hnode *h = htab_find(&s->by_what, hash); h != NULL; h = htab_next(h)) {
        n = CONTAINER_OF(h, struct stray, h);
        if (n->block == block && n->node == node) {
            return;
        }
    }
    if (s->by_what.count >= MAX_STRAYS) {
        return;
    }
    n = x_alloc(sizeof(*n));
    n->block = block;
    n->node = node;
    n->since_ms = now_ms;
    htab_add(&s->by_what, &n->h, hash);
    list_init(&n->age);
    list_push_back(&s->by_age, &n->age);
}

bool strays_due(struct strays *s, uint64_t now_ms, uint64_t grace_ms, uint64_t *ret_block,
                uint32_t *ret_node)
{
    struct list *l = list_first(&s->by_age);
    struct stray *n = l != NULL ? CONTAINER_OF(l, struct stray, age) : NULL;

    if (n == NULL || now_ms - n->since_ms < grace_ms) {
        return false;
    }
    *ret_block = n->block;
    *ret_node = n->node;
    list_remove(&n->age);
    htab_remove(&s->by_what, &n->h);
    free(n);
    return true;
}
