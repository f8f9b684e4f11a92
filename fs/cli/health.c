#include "fs/cli/health.h"

#include "cluster/base/err.h"

void health_init(struct health_cache *h, const struct remote *r)
{
    *h = (struct health_cache){ .r = r, .wanted = x_alloc(HEALTH_BATCH * sizeof(*h->wanted)) };
    htab_init(&h->known);
}

void health_forget(struct health_cache *h)
{
    struct hnode *n;

    while ((n = htab_pop(&h->known)) != NULL) {
        free(CONTAINER_OF(n, struct block_status, by_id));
    }
}

void health_fini(struct health_cache *h)
{
    health_forget(h);
    htab_fini(&h->known);
    free(h->wanted);
    free(h->bad);
    h->wanted = NULL;
    h->bad = NULL;
}

static struct block_status *find(const struct health_cache *h, uint64_t block)
{
    struct hnode *n = htab_find(&h->known, htab_mix(block));

    for (; n != NULL; n = htab_next(n)) {
        struct block_status *b = CONTAINER_OF(n, struct block_status, by_id);

        if (b->block == block) {
            return b;
        }
    }
    return NULL;
}

const struct block_status *health_find(const struct health_cache *h, uint64_t block)
{
    return find(h, block);
}

void health_drop(struct health_cache *h, uint64_t block)
{
    struct block_status *b = find(h, block);

    if (b != NULL) {
        htab_remove(&h->known, &b->by_id);
        free(b);
    }
}

static struct block_status *add(struct health_cache *h, uint64_t block)
{
    struct block_status *b = x_alloc(sizeof(*b));

    b->block = block;
    htab_add(&h->known, &b->by_id, htab_mix(block));
    return b;
}

bool health_want(struct health_cache *h, uint64_t block)
{
    if (find(h, block) != NULL) {
        return true;
    }
    if (h->wanted_count == HEALTH_BATCH) {
        return false;
    }
    (void)add(h, block); /* unknown until the master tells more */
    h->wanted[h->wanted_count++] = block;
    return true;
}

/* ---- questions ---- */

typedef int take_fn(struct health_cache *h, const struct block_health *one);

static int take_each(struct health_cache *h, struct slice answer, take_fn *take)
{
    struct block_health one;
    struct health_rep rep;
    struct wire_in in;
    int err = health_rep_get(answer, &rep);

    if (err == 0) {
        in = wire_in_of(rep.blocks.items);
        for (uint32_t i = 0; i < rep.blocks.count && err == 0; i++) {
            err = block_health_get(&in, &one);
            err = err != 0 ? err : take(h, &one);
        }
    }
    return err != 0 ? cli_fail(h->r->cli, err, NULL, "the master's answer") : CLI_DONE;
}

static int ask(struct health_cache *h, struct wire_list blocks, take_fn *take)
{
    struct health_req req = { .blocks = blocks };
    struct wire_out msg, rep;
    int status;

    wire_out_init(&msg, LIMIT_MSG);
    wire_out_init(&rep, LIMIT_MSG);
    health_req_put(&msg, &req);
    status = remote_admin(h->r, RPC_health, wire_out_slice(&msg), &rep);
    if (status == CLI_DONE) {
        status = take_each(h, wire_out_slice(&rep), take);
    }
    wire_out_fini(&msg);
    wire_out_fini(&rep);
    return status;
}

/* Copies on servers that are there; the master has counted the others as gone. */
static int look_deeper(struct health_cache *h, const struct block_health *one)
{
    struct wire_in in = wire_in_of(one->nodes.items);
    struct node_addr a;
    int err = 0;

    for (uint32_t i = 0; i < one->nodes.count && err == 0; i++) {
        err = node_addr_get(&in, &a);
        if (err == 0 && a.state == MEMBER_LIVE) {
            deep_add(h->deep, one->block, one->len, a.node, a.addr);
        }
    }
    return err;
}

/* ---- copies that are not as they should be ---- */

struct bad_copy {
    uint64_t block;
    char *addr;
    int err;
};

static void on_bad(void *arg, uint64_t block, const char *addr, int err)
{
    struct health_cache *h = arg;

    if (h->bad_count == h->bad_cap) {
        h->bad_cap = MAX(16, h->bad_cap * 2);
        h->bad = x_realloc(h->bad, h->bad_cap * sizeof(*h->bad));
    }
    h->bad[h->bad_count++] = (struct bad_copy){ block, x_strdup(addr), err };
}

static int take_state(struct health_cache *h, const struct block_health *one)
{
    struct block_status *b = find(h, one->block);

    if (b != NULL) {
        b->state = one->state;
    }
    return 0;
}

/* Of a block that nobody uses any more copies may be gone, and nothing is wrong. */
static int tell_bad(struct health_cache *h)
{
    struct wire_out refs;
    uint32_t count = 0;
    int status;

    if (h->bad_count == 0) {
        return CLI_DONE;
    }
    wire_out_init(&refs, LIMIT_MSG);
    for (size_t i = 0; i < h->bad_count; i++) {
        struct block_status *b = find(h, h->bad[i].block);

        if (b != NULL && b->state != 0) {
            b->state = 0; /* unless the masters still know it */
            block_ref_put(&refs, &(struct block_ref){ h->bad[i].block });
            count++;
        }
    }
    status = ask(h, wire_out_list(&refs, count), take_state);
    for (size_t i = 0; i < h->bad_count; i++) {
        const struct bad_copy *c = &h->bad[i];
        struct block_status *b = find(h, c->block);

        if (status == CLI_DONE && b != NULL && b->state != 0 && b->state != BLOCK_DELETED) {
            b->live = (uint8_t)(b->live - (b->live > 0));
            b->corrupt++;
            h->on_bad(h->arg, c->block, c->addr, c->err);
        }
        free(h->bad[i].addr);
    }
    h->bad_count = 0;
    wire_out_fini(&refs);
    return status;
}

static int take(struct health_cache *h, const struct block_health *one)
{
    struct block_status *b = find(h, one->block);

    if (b == NULL) {
        return 0;
    }
    b->len = one->len;
    b->state = one->state;
    b->want = one->want;
    b->live = one->live;
    b->corrupt = one->corrupt;
    b->misplaced = one->misplaced;
    return h->deep != NULL ? look_deeper(h, one) : 0;
}

int health_ask(struct health_cache *h)
{
    struct wire_out refs;
    int status;

    if (h->wanted_count == 0) {
        return CLI_DONE;
    }
    wire_out_init(&refs, LIMIT_MSG);
    for (size_t i = 0; i < h->wanted_count; i++) {
        block_ref_put(&refs, &(struct block_ref){ h->wanted[i] });
    }
    status = ask(h, wire_out_list(&refs, (uint32_t)h->wanted_count), take);
    if (status == CLI_DONE) {
        h->wanted_count = 0;
    }
    if (status == CLI_DONE && h->deep != NULL) {
        deep_run(h->deep, on_bad, h);
        status = tell_bad(h);
    }
    wire_out_fini(&refs);
    return status;
}

enum health_state health_of(const struct block_status *b)
{
    if (b->state == 0 || b->state == BLOCK_DELETED) {
        return HEALTH_MISSING;
    }
    if (b->live == 0) {
        return b->corrupt > 0 ? HEALTH_CORRUPT : HEALTH_MISSING;
    }
    return b->live < b->want ? HEALTH_UNDER : b->misplaced != 0 ? HEALTH_MISPLACED : HEALTH_FINE;
}

const char *health_name(enum health_state s)
{
    static const char *const names[] = { "healthy", "misplaced", "under-replicated", "corrupt",
                                         "missing" };

    return names[s];
}
