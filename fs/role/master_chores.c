/* The block servers' chores: what they tell, and what operators order. On the control plane's
 * threads. */
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define CHECKS_MAX 4096u /* blocks passed on with one answer */

int master_chores_told(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct server_chores_rep out = { 0 };
    struct server_chores_req q;
    struct wire_out checks, tasks;
    int err = server_chores_req_get(msg, &q);

    if (err != DFS_OK) {
        return err;
    }
    if (!master_control_boot_known(m, q.node, q.boot)) {
        return DFS_ENOENT;
    }
    wire_out_init(&checks, LIMIT_REPLY);
    wire_out_init(&tasks, LIMIT_REPLY);
    pthread_mutex_lock(&m->map_mu);
    if (scrub_book_told(&m->scrubs, &q)) {
        struct scrub_entry *e = scrub_book_get(&m->scrubs, q.node);
        uint32_t n = scrub_book_take(e, CHECKS_MAX, &checks);

        out.check = wire_out_list(&checks, n);
        out.scrub_order = e->order;
        err = master_space_done(m, q.node, q.moved);
        n = master_space_put_task(m, q.node, &tasks);
        out.compact = wire_out_list(&tasks, n);
    } else {
        err = DFS_EMALFORMED;
    }
    pthread_mutex_unlock(&m->map_mu);
    if (err == DFS_OK) {
        server_chores_rep_put(rep, &out);
    }
    wire_out_fini(&checks);
    wire_out_fini(&tasks);
    return err;
}

/* ---- operators ---- */

/* map_mu is held. */
static void order_all(struct master *m, uint32_t node, struct scrub_order_rep *out)
{
    out->order = scrub_book_number(&m->scrubs);
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];

        if ((node == 0 || s->node == node) && member_state(s) != MEMBER_DEAD) {
            scrub_book_get(&m->scrubs, s->node)->order = out->order;
            out->servers++;
        }
    }
}

/* map_mu is held. */
static int order_block(struct master *m, uint32_t node, const struct block_rec *rec, uint64_t block,
                       struct scrub_order_rep *out)
{
    for (uint8_t i = 0; i < rec->node_count; i++) {
        if ((node != 0 && rec->nodes[i] != node) || !members_counts(&m->members, rec->nodes[i])) {
            continue;
        }
        if (!scrub_book_check(&m->scrubs, rec->nodes[i], block)) {
            return DFS_EBUSY;
        }
        out->copies++;
    }
    return DFS_OK;
}

int master_chores_order(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct scrub_order_rep out = { 0 };
    struct scrub_order_req q;
    struct wire_in in;
    int err = scrub_order_req_get(msg, &q);

    if (err != DFS_OK) {
        return err;
    }
    in = wire_in_of(q.blocks.items);
    pthread_mutex_lock(&m->map_mu);
    if (q.blocks.count == 0) {
        order_all(m, q.node, &out);
    }
    for (uint32_t i = 0; err == DFS_OK && i < q.blocks.count; i++) {
        struct block_rec rec;
        struct block_ref b;

        err = block_ref_get(&in, &b);
        err = err != DFS_OK ? err : master_keeper_env_get(m, b.block, &rec);
        err = err != DFS_OK ? err : order_block(m, q.node, &rec, b.block, &out);
        err = err == DFS_ENOBLOCK ? DFS_OK : err;
    }
    pthread_mutex_unlock(&m->map_mu);
    if (q.blocks.count == 0) {
        log_event(LOG_INFO, "scrub.ordered", "node=%u servers=%u", q.node, out.servers);
    }
    if (err == DFS_OK && q.node != 0 && q.blocks.count == 0 && out.servers == 0) {
        err = DFS_ENOENT;
    }
    if (err == DFS_OK) {
        scrub_order_rep_put(rep, &out);
    }
    return err;
}

int master_chores_status(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct scrub_status_rep out = { 0 };
    struct scrub_status_req q;
    struct wire_out list;
    int err = scrub_status_req_get(msg, &q);

    if (err != DFS_OK) {
        return err;
    }
    wire_out_init(&list, LIMIT_MSG - KIB);
    pthread_mutex_lock(&m->map_mu);
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];
        struct scrub_entry *e;
        struct scrub_server ss;

        if (q.node != 0 && s->node != q.node) {
            continue;
        }
        e = scrub_book_get(&m->scrubs, s->node);
        ss = (struct scrub_server){ .node = s->node,
                                    .addr = slice_str(s->rec.addr),
                                    .host = slice_str(s->rec.host),
                                    .state = member_state(s),
                                    .order = e->order,
                                    .waiting = e->waiting + (uint32_t)e->count,
                                    .volumes = wire_out_list(&e->told, e->told_count) };
        scrub_server_put(&list, &ss);
        out.servers.count++;
    }
    pthread_mutex_unlock(&m->map_mu);
    out.servers.items = wire_out_slice(&list);
    err = q.node != 0 && out.servers.count == 0 ? DFS_ENOENT : list.err;
    if (err == DFS_OK) {
        scrub_status_rep_put(rep, &out);
    }
    wire_out_fini(&list);
    return err;
}
