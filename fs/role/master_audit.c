/* An operator's check of the counts in block records (dfs fsck), on a thread of its own: it may take longer
 * than a question may. */
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define FOUND_MAX    256u /* that are told */
#define REPAIRS_ONCE 512u /* in one command */

struct audit {
    struct master *m;
    pthread_mutex_t mu;
    pthread_t thread;
    atomic_bool stop;
    bool joinable; /* guarded by: mu, as all below */
    uint64_t token;
    bool repair;
    struct audit_rep rep;
    struct live_count *found; /* the thread's alone while it runs */
    size_t count, cap;
};

void master_audit_init(struct master *m)
{
    m->audit = x_alloc(sizeof(*m->audit));
    m->audit->m = m;
    pthread_mutex_init(&m->audit->mu, NULL);
}

void master_audit_fini(struct master *m)
{
    pthread_mutex_destroy(&m->audit->mu);
    free(m->audit->found);
    free(m->audit);
}

void master_audit_stop(struct master *m)
{
    struct audit *a = m->audit;

    atomic_store(&a->stop, true);
    if (a->joinable) {
        pthread_join(a->thread, NULL);
        a->joinable = false;
    }
}

static void take(void *arg, const struct live_count *c)
{
    struct audit *a = arg;

    if (a->count == a->cap) {
        a->cap = MAX(a->cap * 2, 64);
        a->found = x_realloc(a->found, a->cap * sizeof(*a->found));
    }
    a->found[a->count++] = *c;
    log_event(LOG_WARN, "audit.wrong", "block=%ju copies=%u counted=%ju used=%ju",
              (uintmax_t)c->block, c->repl, (uintmax_t)c->was, (uintmax_t)c->used);
}

struct quotas {
    uint64_t all, wrong;
    struct wire_out list; /* the first REPAIRS_ONCE wrong ones */
};

static bool take_quota(void *arg, const struct quota_info *q, uint64_t bytes, uint64_t inodes,
                       bool same)
{
    struct quotas *s = arg;

    s->all++;
    s->wrong += !same;
    if (!same && s->wrong <= REPAIRS_ONCE) {
        quota_sum_put(&s->list,
                      &(struct quota_sum){ q->ino, q->used_bytes, q->used_inodes, bytes, inodes });
    }
    if (!same) {
        log_event(LOG_WARN, "audit.quota",
                  "inode=%ju charged_bytes=%ju bytes=%ju charged_inodes=%ju inodes=%ju",
                  (uintmax_t)q->ino, (uintmax_t)q->used_bytes, (uintmax_t)bytes,
                  (uintmax_t)q->used_inodes, (uintmax_t)inodes);
    }
    return true;
}

static uint32_t put_found(const struct audit *a, size_t from, size_t max, struct wire_out *out)
{
    size_t n = MIN(a->count - from, max);

    for (size_t i = 0; i < n; i++) {
        live_count_put(out, &a->found[from + i]);
    }
    return (uint32_t)n;
}

static int repair(struct audit *a, uint64_t *ret_repaired)
{
    struct wire_out list, msg, reply;
    int err = DFS_OK;

    wire_out_init(&list, LIMIT_BATCH_BYTES);
    wire_out_init(&msg, LIMIT_BATCH_BYTES);
    wire_out_init(&reply, KIB);
    for (size_t at = 0; at < a->count && err == DFS_OK; at += REPAIRS_ONCE) {
        struct map_recount_req req = { 0 };
        struct map_recount_rep rep;
        uint32_t n;

        wire_out_reset(&list);
        wire_out_reset(&msg);
        wire_out_reset(&reply);
        n = put_found(a, at, REPAIRS_ONCE, &list);
        req.counts = wire_out_list(&list, n);
        map_recount_req_put(&msg, &req);
        err = master_core_call(a->m, RPC_map_recount, wire_out_slice(&msg), &reply);
        err = err != DFS_OK ? err : map_recount_rep_get(wire_out_slice(&reply), &rep);
        *ret_repaired += err == DFS_OK ? rep.changed : 0;
    }
    wire_out_fini(&list);
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    return err;
}

static int repair_quotas(struct audit *a, const struct quotas *s, uint64_t *ret_repaired)
{
    struct quota_mend_req req = { .sums = wire_out_list(
                                      &s->list, (uint32_t)MIN(s->wrong, (uint64_t)REPAIRS_ONCE)) };
    struct quota_mend_rep rep = { 0 };
    struct wire_out msg, reply;
    int err;

    wire_out_init(&msg, LIMIT_BATCH_BYTES);
    wire_out_init(&reply, KIB);
    quota_mend_req_put(&msg, &req);
    err = master_core_call(a->m, RPC_quota_mend, wire_out_slice(&msg), &reply);
    err = err != DFS_OK ? err : quota_mend_rep_get(wire_out_slice(&reply), &rep);
    *ret_repaired += rep.changed;
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    return err;
}

static void *audit_main(void *arg)
{
    struct audit *a = arg;
    struct ns_reader *reader = ns_reader_new(a->m->ns);
    struct quotas quotas = { 0 };
    struct ns_audit sum;
    uint64_t repaired = 0;
    int err = ns_audit(reader, &a->stop, &sum, take, a);

    wire_out_init(&quotas.list, LIMIT_BATCH_BYTES);
    err = err != DFS_OK ? err : ns_quota_recount(reader, take_quota, &quotas);
    ns_reader_free(reader);
    if (err == DFS_OK && a->repair) {
        err = repair(a, &repaired);
        err = err != DFS_OK || quotas.wrong == 0 ? err : repair_quotas(a, &quotas, &repaired);
    }
    wire_out_fini(&quotas.list);
    log_event(LOG_INFO, "audit.done",
              "blocks=%ju extents=%ju wrong=%ju unused=%ju dangling=%ju repaired=%ju err=\"%s\"",
              (uintmax_t)sum.blocks, (uintmax_t)sum.extents, (uintmax_t)sum.wrong,
              (uintmax_t)sum.unused, (uintmax_t)sum.dangling, (uintmax_t)repaired, err_text(err));
    pthread_mutex_lock(&a->mu);
    a->rep = (struct audit_rep){ .status = (uint32_t)err,
                                 .blocks = sum.blocks,
                                 .extents = sum.extents,
                                 .wrong = sum.wrong,
                                 .unused = sum.unused,
                                 .dangling = sum.dangling,
                                 .repaired = repaired,
                                 .quotas = quotas.all,
                                 .quotas_wrong = quotas.wrong };
    pthread_mutex_unlock(&a->mu);
    return NULL;
}

/* mu is held. */
static int start(struct audit *a, const struct audit_req *q)
{
    if (a->joinable) {
        pthread_join(a->thread, NULL); /* has ended */
        a->joinable = false;
    }
    a->token = q->token;
    a->repair = q->repair != 0;
    a->count = 0;
    a->rep = (struct audit_rep){ .running = 1 };
    if (atomic_load(&a->stop) || pthread_create(&a->thread, NULL, audit_main, a) != 0) {
        a->rep.running = 0;
        a->token = 0;
        return DFS_EAGAIN;
    }
    a->joinable = true;
    return DFS_OK;
}

int master_audit_on(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct audit *a = m->audit;
    struct audit_req q;
    struct wire_out list;
    int err = audit_req_get(msg, &q);

    if (err != DFS_OK || q.token == 0) {
        return DFS_EMALFORMED;
    }
    wire_out_init(&list, 64 * KIB);
    pthread_mutex_lock(&a->mu);
    if (a->token != q.token) {
        err = a->rep.running != 0 ? DFS_EBUSY : start(a, &q);
    }
    if (err == DFS_OK) {
        struct audit_rep out = a->rep;

        if (out.running == 0) {
            out.found = wire_out_list(&list, put_found(a, 0, FOUND_MAX, &list));
        }
        audit_rep_put(rep, &out);
    }
    pthread_mutex_unlock(&a->mu);
    wire_out_fini(&list);
    return err;
}
