/* What must hold of the simulated master's database when a run is over. */
#include "test/sim/master_int.h"

static bool check_quota(void *arg, const struct quota_info *q, uint64_t bytes, uint64_t inodes,
                        bool same)
{
    struct sim_master *m = arg;

    if (!same) {
        sim_fail(&m->cl->sim, "quota %ju: %ju bytes and %ju inodes, counted %ju and %ju",
                 (uintmax_t)q->ino, (uintmax_t)q->used_bytes, (uintmax_t)q->used_inodes,
                 (uintmax_t)bytes, (uintmax_t)inodes);
    }
    return true;
}

void master_check_quotas(struct sim_master *m)
{
    int err = ns_quota_recount(m->reader, check_quota, m);

    if (err != 0) {
        sim_fail(&m->cl->sim, "quotas cannot be counted: %s", err_text(err));
    }
}

/* ---- what blocks are counted to hold ---- */

struct live_sums {
    struct sim_master *m;
    uint64_t *bytes; /* by block, below next_block */
    uint64_t next_block;
};

static bool any_block(void *arg, uint64_t block)
{
    (void)arg;
    (void)block;
    return true;
}

static void add_extent(void *arg, const struct attr *file, const struct extent *e)
{
    struct live_sums *l = arg;

    if (e->block >= l->next_block) {
        sim_fail(&l->m->cl->sim, "inode %ju names block %ju, which was never given",
                 (uintmax_t)file->ino, (uintmax_t)e->block);
    }
    l->bytes[e->block] += e->len;
}

static bool session_lives(const struct sim_master *m, uint64_t session)
{
    for (size_t i = 0; i < m->session_count; i++) {
        if (m->sessions[i].session == session) {
            return true;
        }
    }
    return false;
}

static bool check_live(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct live_sums *l = arg;
    uint64_t live = block_rec_live(rec), named = l->bytes[block];

    if (live != named) {
        sim_fail(&l->m->cl->sim, "block %ju counts %ju bytes, extents name %ju", (uintmax_t)block,
                 (uintmax_t)live, (uintmax_t)named);
    }
    if (rec->state == BLOCK_DELETED || (live == 0 && rec->session == 0)) {
        sim_fail(&l->m->cl->sim, "block %ju is still there, in state %u, with %ju bytes",
                 (uintmax_t)block, rec->state, (uintmax_t)live);
    }
    if (rec->session != 0 && !session_lives(l->m, rec->session)) {
        sim_fail(&l->m->cl->sim, "block %ju belongs to session %ju, which has ended",
                 (uintmax_t)block, (uintmax_t)rec->session);
    }
    l->bytes[block] = 0;
    return true;
}

void master_check_live(struct sim_master *m)
{
    struct live_sums l = { .m = m };
    struct ns_place at = { 0, 0 };
    struct ns_counts counts;
    MDB_txn *t;
    bool end = false;

    ASSERT(ns_get_counts(m->reader, &counts) == 0);
    l.next_block = counts.next_block;
    l.bytes = x_alloc(l.next_block * sizeof(*l.bytes));
    while (!end) {
        ASSERT(ns_each_extent(m->reader, &at, 4096, any_block, add_extent, &l, &end) == 0);
    }
    ASSERT(kv_read_begin(ns_kv(m->ns), &t) == 0);
    ASSERT(mapdb_each_block(ns_map(m->ns), t, 0, check_live, &l) == 0);
    mdb_txn_abort(t);
    for (uint64_t b = 0; b < l.next_block; b++) {
        if (l.bytes[b] != 0) {
            sim_fail(&m->cl->sim, "extents name block %ju, which is gone", (uintmax_t)b);
        }
    }
    free(l.bytes);
}

static void wrong_count(void *arg, const struct live_count *c)
{
    struct sim_master *m = arg;

    sim_fail(&m->cl->sim, "block %ju: %ju bytes with %u copies counted, %ju used",
             (uintmax_t)c->block, (uintmax_t)c->was, c->repl, (uintmax_t)c->used);
}

void master_check_audit(struct sim_master *m)
{
    struct ns_audit a;
    int err = ns_audit(m->reader, NULL, &a, wrong_count, m);

    if (err != 0 || a.dangling != 0) {
        sim_fail(&m->cl->sim, "blocks cannot be counted: %s", err_text(err));
    }
}

void master_check_log(struct sim_master *m)
{
    char *dir = x_printf("%s-again", m->dir);
    struct why why = { "" };
    struct ns *again;

    if (ns_open(dir, MAP_BYTES, &again, &why) != 0) {
        sim_fail(&m->cl->sim, "%s", why.text);
    }
    for (uint64_t i = 1; i <= ns_applied(m->ns); i++) {
        if (ns_apply(again, i, slice_of(m->log[i - 1].p, m->log[i - 1].len), NULL, NULL, &why) !=
            0) {
            sim_fail(&m->cl->sim, "apply %ju again: %s", (uintmax_t)i, why.text);
        }
    }
    if (ns_hash(again) != ns_hash(m->ns)) {
        sim_fail(&m->cl->sim, "the log applied again gives another database");
    }
    ns_close(again);
    free(dir);
}
