/* Do the records of blocks count what files use of them?
 *
 * All extents are gone through once with one number for each block: the sum of bytes, each number of copies
 * weighed by a factor of its own, which is 0 in the end when all counts are right (or, once in 2^64
 * times, wrong). Only for blocks where it is not the extents are gone through again, and counted. */
#include "cluster/base/htab.h"

#include "fs/ns/query.h"

#define SUSPECTS_MAX 4096u /* at a time; the rest is found by the next audit */

struct sum {
    uint64_t block;
    uint64_t rest; /* what the record counts, less what extents use, weighed */
    bool dead;     /* nothing should be there any more */
};

struct suspect {
    uint64_t block;
    struct block_rec rec;
    uint64_t used[LIMIT_REPLICATION + 1];
};

struct audit {
    struct ns_view *v;
    const atomic_bool *stop;
    struct ns_audit *ret;
    struct sum *sums; /* by block */
    size_t count, cap;
    struct suspect *suspects; /* by block; NULL in the first round */
    size_t suspect_count;
    struct attr file; /* the last one looked up */
    int err;
};

static uint64_t weight(uint8_t repl)
{
    return htab_mix(repl) | 1;
}

static bool take_block(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct audit *a = arg;
    struct sum s = { .block = block };

    if (rec->state == BLOCK_DELETED) {
        return true;
    }
    for (uint8_t i = 1; i <= LIMIT_REPLICATION; i++) {
        s.rest += rec->live[i] * weight(i);
    }
    s.dead = rec->state == BLOCK_SEALED && rec->session == 0 && block_rec_live(rec) == 0;
    if (a->count == a->cap) {
        a->cap = MAX(a->cap * 2, 1024);
        a->sums = x_realloc(a->sums, a->cap * sizeof(*a->sums));
    }
    a->sums[a->count++] = s;
    a->ret->blocks++;
    return a->stop == NULL || !atomic_load(a->stop);
}

static int by_sum(const void *a, const void *b)
{
    uint64_t x = ((const struct sum *)a)->block, y = ((const struct sum *)b)->block;

    return x < y ? -1 : x > y;
}

static int by_suspect(const void *a, const void *b)
{
    uint64_t x = ((const struct suspect *)a)->block, y = ((const struct suspect *)b)->block;

    return x < y ? -1 : x > y;
}

/* Some bytes of an extent, all at one number of copies. */
static void count(struct audit *a, uint64_t block, uint8_t repl, uint64_t bytes)
{
    if (a->suspects == NULL) {
        const struct sum key = { .block = block };
        struct sum *s =
            a->count != 0 ? bsearch(&key, a->sums, a->count, sizeof(key), by_sum) : NULL;

        if (s != NULL) {
            s->rest -= bytes * weight(repl);
        } else {
            a->ret->dangling++;
        }
    } else {
        const struct suspect key = { .block = block };
        struct suspect *s = bsearch(&key, a->suspects, a->suspect_count, sizeof(key), by_suspect);

        if (s != NULL) {
            s->used[repl] += bytes;
        }
    }
}

static bool take_extent(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct audit *a = arg;
    struct extent e;
    uint64_t ino;
    int err = ns_extent_decode(key, val, &ino, &e);

    if (err == 0 && a->file.ino != ino) {
        err = ns_must(ns_inode_get(a->v, ino, &a->file));
    }
    a->ret->extents += a->suspects == NULL;
    for (uint64_t done = 0; err == 0 && done < e.len;) {
        uint16_t rule;
        uint64_t until, n;
        uint8_t repl;

        err = ns_recount_at(a->v, &a->file, e.off + done, &repl, &rule, &until);
        if (err == 0) {
            n = MIN(e.len - done, until - e.off - done);
            count(a, e.block, repl, n);
            done += n;
        }
    }
    *ret_err = err;
    return err == 0 && (a->stop == NULL || !atomic_load(a->stop));
}

static int each_extent(struct audit *a)
{
    int err;

    a->file.ino = 0;
    err = ns_db_each(a->v, DB_EXTENTS, SLICE_EMPTY, take_extent, a);
    return err == 0 && a->stop != NULL && atomic_load(a->stop) ? DFS_EINTR : err;
}

static int find_suspects(struct audit *a)
{
    int err = 0;

    a->suspects = x_alloc(SUSPECTS_MAX * sizeof(*a->suspects));
    for (size_t i = 0; i < a->count && err == 0; i++) {
        const struct sum *s = &a->sums[i];

        if (s->rest == 0 && !s->dead) {
            continue;
        }
        a->ret->wrong++;
        if (a->suspect_count < SUSPECTS_MAX) {
            struct suspect *x = &a->suspects[a->suspect_count++];

            x->block = s->block;
            err = mapdb_get(&a->v->ns->map, a->v->txn, s->block, &x->rec);
        }
    }
    return err;
}

static void tell(struct audit *a, const struct suspect *s, ns_audit_fn *fn, void *arg)
{
    struct live_count c = { .block = s->block, .repl = 1 };
    uint64_t used = 0;
    bool told = false;

    for (uint8_t i = 1; i <= LIMIT_REPLICATION; i++) {
        used += s->used[i];
        if (s->rec.live[i] != s->used[i]) {
            c = (struct live_count){ s->block, i, s->rec.live[i], s->used[i] };
            fn(arg, &c);
            told = true;
        }
    }
    if (!told) {
        fn(arg, &c);
    }
    a->ret->unused += used == 0;
}

int ns_audit(struct ns_reader *r, const atomic_bool *stop, struct ns_audit *ret, ns_audit_fn *fn,
             void *arg)
{
    struct audit a = { .v = &r->v, .stop = stop, .ret = ret };
    int err = ns_reader_begin(r);

    *ret = (struct ns_audit){ 0 };
    if (err != 0) {
        return err;
    }
    err = mapdb_each_block(&a.v->ns->map, a.v->txn, 0, take_block, &a);
    err = err != 0 ? err : each_extent(&a);
    err = err != 0 ? err : find_suspects(&a);
    if (err == 0 && a.suspect_count != 0) {
        err = each_extent(&a);
    }
    for (size_t i = 0; i < a.suspect_count && err == 0; i++) {
        tell(&a, &a.suspects[i], fn, arg);
    }
    ns_reader_end(r);
    free(a.sums);
    free(a.suspects);
    return err;
}

/* ---- setting right ---- */

int ns_do_map_recount(struct ns_tx *tx, const struct map_recount_req *req,
                      struct map_recount_rep *rep)
{
    struct wire_in in = wire_in_of(req->counts.items);
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < req->counts.count; i++) {
        struct live_count c;
        struct block_rec rec;

        err = live_count_get(&in, &c);
        if (err != 0 || c.repl < 1 || c.repl > LIMIT_REPLICATION) {
            return DFS_EMALFORMED;
        }
        err = mapdb_get(&tx->ns->map, tx->v.txn, c.block, &rec);
        if (err == 0 && rec.state != BLOCK_DELETED && rec.live[c.repl] == c.was) {
            err = mapdb_live(&tx->ns->map, tx->v.txn, &tx->ns->ev.map, c.block, c.repl, 0,
                             (int64_t)(c.used - c.was), tx->head->now_ns);
            rep->changed += err == 0;
        }
        err = err == DFS_ENOBLOCK ? 0 : err;
    }
    return err;
}
