#include "fs/role/compact.h"

#define AGE_NS (5 * NS_PER_SEC) /* a block that was just sealed may lose more yet */
#define WORTH  64u              /* a round begins when so much of all, one part in it, is won ... */
#define LEAST  (1 * MIB)        /* ... and this much at least */

void compact_count(struct compact_census *c, const struct block_rec *rec)
{
    uint64_t live = MIN(block_rec_live(rec), rec->len);

    if (rec->state == BLOCK_OPEN) {
        c->open += (uint64_t)rec->len * rec->node_count;
    } else {
        live = rec->state == BLOCK_SEALED ? live : 0;
        c->live += live * rec->node_count;
        c->garbage += (rec->len - live) * rec->node_count;
    }
}

uint64_t compact_gain(const struct block_rec *rec, uint64_t threshold, int64_t now_ns)
{
    uint64_t live = block_rec_live(rec);

    if (rec->state != BLOCK_SEALED || rec->session != 0 || live == 0 || live >= rec->len ||
        live * 100 >= rec->len * threshold || now_ns - rec->changed_ns < AGE_NS) {
        return 0;
    }
    return rec->len - live;
}

bool compact_add_block(struct compact_round *r, uint64_t block, uint64_t gain)
{
    if (r->block_count == COMPACT_BLOCKS_MAX) {
        return false;
    }
    ASSERT(r->block_count == 0 || r->blocks[r->block_count - 1] < block);
    r->blocks[r->block_count++] = block;
    r->garbage += gain;
    return true;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

bool compact_has_block(const struct compact_round *r, uint64_t block)
{
    return r->block_count != 0 &&
           bsearch(&block, r->blocks, r->block_count, sizeof(block), by_id) != NULL;
}

bool compact_add_item(struct compact_round *r, const struct compact_item *item)
{
    if (r->count == COMPACT_MOVES_MAX) {
        return false;
    }
    if (r->count == r->cap) {
        r->cap = MAX(r->cap * 2, 256);
        r->items = x_realloc(r->items, r->cap * sizeof(*r->items));
    }
    r->items[r->count++] = *item;
    return true;
}

static int by_place(const void *pa, const void *pb)
{
    const struct compact_item *a = pa, *b = pb;

    if (a->repl != b->repl) {
        return a->repl < b->repl ? -1 : 1;
    }
    if (a->rule != b->rule) {
        return a->rule < b->rule ? -1 : 1;
    }
    if (a->from != b->from) {
        return a->from < b->from ? -1 : 1;
    }
    if (a->from_off != b->from_off) {
        return a->from_off < b->from_off ? -1 : 1;
    }
    if (a->len != b->len) {
        return a->len < b->len ? -1 : 1;
    }
    if (a->ino != b->ino) {
        return a->ino < b->ino ? -1 : 1;
    }
    return a->off < b->off ? -1 : a->off > b->off;
}

void compact_sort(struct compact_round *r)
{
    if (r->count != 0) {
        qsort(r->items, r->count, sizeof(*r->items), by_place);
    }
}

bool compact_is_worth(const struct compact_round *r, uint64_t total, bool pressed)
{
    return r->block_count != 0 && (pressed || r->garbage >= MAX(total / WORTH, LEAST));
}

void compact_reset(struct compact_round *r)
{
    r->block_count = r->count = 0;
    r->garbage = 0;
}

void compact_fini(struct compact_round *r)
{
    free(r->items);
    *r = (struct compact_round){ 0 };
}

/* Puts one item at the end of the group; two files that share bytes go on sharing them. */
static bool put(struct compact_group *g, struct compact_item item, uint32_t max_bytes)
{
    const struct compact_item *last = g->count != 0 ? &g->items[g->count - 1] : NULL;
    struct compact_range *range = g->range_count != 0 ? &g->ranges[g->range_count - 1] : NULL;

    if (g->count == LIMIT_COMMIT_EXTENTS) {
        return false;
    }
    if (last != NULL && last->from == item.from && last->from_off == item.from_off &&
        last->len == item.len) {
        item.to_off = last->to_off;
        g->items[g->count++] = item;
        return true;
    }
    if (item.len > max_bytes - MIN(g->bytes, max_bytes)) {
        return false;
    }
    item.to_off = g->bytes;
    if (range != NULL && range->block == item.from && range->off + range->len == item.from_off) {
        range->len += item.len;
    } else {
        g->ranges[g->range_count++] = (struct compact_range){ item.from, item.from_off, item.len };
    }
    g->bytes += item.len;
    g->items[g->count++] = item;
    return true;
}

void compact_take(struct compact_round *r, uint32_t max_bytes, compact_holder_fn *holder, void *arg,
                  struct compact_group *ret)
{
    size_t kept = 0;
    bool full = false;

    *ret = (struct compact_group){ 0 };
    for (size_t i = 0; i < r->count; i++) {
        const struct compact_item item = r->items[i];

        if (ret->node == 0) {
            ret->node = holder(arg, item.from, 0);
            ret->repl = item.repl;
            ret->rule = item.rule;
            if (ret->node == 0) {
                continue; /* of no use now */
            }
        }
        full = full || item.repl != ret->repl || item.rule != ret->rule;
        if (full || holder(arg, item.from, ret->node) == 0 || !put(ret, item, max_bytes)) {
            r->items[kept++] = item;
        }
    }
    r->count = kept;
}
