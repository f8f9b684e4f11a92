#include "fs/role/scrub_book.h"

#define TOLD_MAX (256 * KIB)

void scrub_book_init(struct scrub_book *b, uint32_t epoch)
{
    htab_init(&b->nodes);
    b->next_order = ((uint64_t)epoch << 32) + 1;
}

void scrub_book_fini(struct scrub_book *b)
{
    struct hnode *h;

    while ((h = htab_pop(&b->nodes)) != NULL) {
        struct scrub_entry *e = CONTAINER_OF(h, struct scrub_entry, by_node);

        wire_out_fini(&e->told);
        free(e->blocks);
        free(e);
    }
    htab_fini(&b->nodes);
}

struct scrub_entry *scrub_book_get(struct scrub_book *b, uint32_t node)
{
    struct hnode *h = htab_find(&b->nodes, htab_mix(node));
    struct scrub_entry *e;

    for (; h != NULL; h = htab_next(h)) {
        e = CONTAINER_OF(h, struct scrub_entry, by_node);
        if (e->node == node) {
            return e;
        }
    }
    e = x_alloc(sizeof(*e));
    e->node = node;
    wire_out_init(&e->told, TOLD_MAX);
    htab_add(&b->nodes, &e->by_node, htab_mix(node));
    return e;
}

uint64_t scrub_book_number(struct scrub_book *b)
{
    return b->next_order++;
}

bool scrub_book_check(struct scrub_book *b, uint32_t node, uint64_t block)
{
    struct scrub_entry *e = scrub_book_get(b, node);

    if (e->count == SCRUB_BLOCKS_MAX) {
        return false;
    }
    if (e->count == e->cap) {
        e->cap = MAX(e->cap * 2, 64);
        e->blocks = x_realloc(e->blocks, e->cap * sizeof(*e->blocks));
    }
    e->blocks[e->count++] = block;
    return true;
}

bool scrub_book_told(struct scrub_book *b, const struct server_chores_req *q)
{
    struct wire_in in = wire_in_of(q->scrubs.items);
    struct scrub_entry *e;

    if (q->scrubs.count > LIMIT_VOLUMES || q->scrubs.items.len > TOLD_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < q->scrubs.count; i++) {
        struct scrub_info info;

        if (scrub_info_get(&in, &info) != 0) {
            return false;
        }
    }
    e = scrub_book_get(b, q->node);
    e->waiting = q->waiting;
    wire_out_reset(&e->told);
    if (q->scrubs.count != 0) {
        wire_put_raw(&e->told, q->scrubs.items.p, q->scrubs.items.len);
    }
    e->told_count = q->scrubs.count;
    return true;
}

uint32_t scrub_book_take(struct scrub_entry *e, uint32_t max, struct wire_out *out)
{
    uint32_t n = (uint32_t)MIN(e->count, max);

    for (uint32_t i = 0; i < n; i++) {
        block_ref_put(out, &(struct block_ref){ e->blocks[i] });
    }
    e->count -= n;
    e->waiting += n; /* until the server tells what is left of them */
    if (e->count != 0) {
        memmove(e->blocks, e->blocks + n, e->count * sizeof(*e->blocks));
    }
    return n;
}
