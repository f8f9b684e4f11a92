/* Operators' questions: status of the cluster, health of blocks. */
#include "cluster/base/clock.h"

#include "fs/role/master_int.h"

/* Time to the last byte at the speed so far; 0 when that tells nothing yet. */
static uint64_t time_left(const struct member_left *l)
{
    uint64_t done = l->first_bytes > l->bytes ? l->first_bytes - l->bytes : 0;
    uint64_t spent = l->counted_ms - l->first_ms;

    return done != 0 ? (uint64_t)((double)l->bytes / (double)done * (double)spent) : 0;
}

static void put_intent(const struct member *s, uint64_t now, struct server_info *si)
{
    if (s->away_until_ms > now) {
        si->maintenance = s->rec.maintenance;
        si->away_ms = s->away_until_ms - now;
    }
    if (member_leaving(s) && s->left.known) {
        si->left_known = 1;
        si->left_blocks = s->left.blocks;
        si->left_open = s->left.open;
        si->left_bytes = s->left.bytes;
        si->left_ms = time_left(&s->left);
    }
}

/* map_mu is held. */
static uint32_t put_servers(struct master *m, struct wire_out *out)
{
    uint64_t now = clock_mono_ms();
    struct wire_out volumes;

    wire_out_init(&volumes, LIMIT_REPLY);
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];
        struct server_info si = {
            .node = s->node,
            .addr = slice_str(s->rec.addr),
            .host = slice_str(s->rec.host),
            .rack = slice_str(s->rec.rack),
            .state = member_state(s),
            .last_seen_ms = now > s->seen_ms ? now - s->seen_ms : 0,
            .total = s->total,
            .used = s->used,
            .free = s->free,
            .blocks = s->blocks,
            .intent = s->rec.intent,
            .trouble = s->trouble,
        };
        uint32_t n;

        put_intent(s, now, &si);
        wire_out_reset(&volumes);
        n = member_put_volumes(s, &volumes);
        si.volumes = wire_out_list(&volumes, n);
        server_info_put(out, &si);
    }
    wire_out_fini(&volumes);
    return (uint32_t)m->members.count;
}

static int count_deleted(struct master *m, uint64_t *ret)
{
    MDB_stat st;
    MDB_txn *txn;
    int err = kv_read_begin(ns_kv(m->ns), &txn);

    if (err != DFS_OK) {
        return err;
    }
    err = kv_err(mdb_stat(txn, ns_map(m->ns)->deleted, &st));
    mdb_txn_abort(txn);
    if (err == DFS_OK) {
        *ret = st.ms_entries;
    }
    return err;
}

int master_admin_status(struct master *m, struct wire_out *rep)
{
    struct master_info mi = { .id = 1,
                              .addr = slice_str(m->conf->master_listen),
                              .leader = atomic_load(&m->leads),
                              .applied = ns_applied(m->ns) };
    struct status_rep out = { .cluster = slice_of(m->cluster, sizeof(m->cluster)),
                              .scanning = atomic_load(&m->scanning) };
    struct ns_reader *reader = ns_reader_new(m->ns);
    struct balance_counts bc;
    struct repair_counts rc;
    struct compact_census census;
    struct ns_counts nc = { 0 };
    struct wire_out masters, servers;
    int err = ns_get_counts(reader, &nc);

    ns_reader_free(reader);
    err = err != DFS_OK ? err : count_deleted(m, &out.deleting);
    if (err != DFS_OK) {
        return err;
    }
    wire_out_init(&masters, 4 * KIB);
    wire_out_init(&servers, LIMIT_MSG - 64 * KIB);
    master_info_put(&masters, &mi);
    pthread_mutex_lock(&m->map_mu);
    out.servers.count = put_servers(m, &servers);
    repair_get_counts(m->repair, &rc);
    balance_get_counts(&m->balance, &bc);
    master_space_census(m, &census);
    pthread_mutex_unlock(&m->map_mu);
    out.masters = wire_out_list(&masters, 1);
    out.servers.items = wire_out_slice(&servers);
    out.files = nc.inodes;
    out.file_bytes = nc.file_bytes;
    out.blocks = nc.blocks;
    out.sessions = nc.sessions;
    out.under_replicated = rc.under;
    out.missing = rc.missing;
    out.corrupt = rc.corrupt;
    out.repairing = rc.repairing;
    out.misplaced = rc.misplaced;
    out.repair_bytes = rc.bytes;
    out.repair_rate = rc.rate;
    out.moving = bc.moving;
    out.balance_bytes = bc.bytes;
    out.balance_rate = bc.rate;
    out.live_bytes = census.live;
    out.garbage_bytes = census.garbage;
    out.open_bytes = census.open;
    status_rep_put(rep, &out);
    err = servers.err;
    wire_out_fini(&masters);
    wire_out_fini(&servers);
    return err;
}

/* map_mu is held. */
static void put_health(struct master *m, uint64_t block, const struct block_rec *rec,
                       struct wire_out *nodes, struct wire_out *out)
{
    struct block_health h = { .block = block,
                              .state = rec->state,
                              .len = rec->len,
                              .want = block_rec_want(rec),
                              .misplaced = (uint8_t)repair_misplaced(m->repair, block, rec) };
    uint32_t count = 0;

    wire_out_reset(nodes);
    for (uint8_t i = 0; i < rec->node_count; i++) {
        const struct member *s = members_get(&m->members, rec->nodes[i]);
        bool bad = repair_is_bad(m->repair, block, rec->nodes[i]);

        h.corrupt = (uint8_t)(h.corrupt + bad);
        if (!bad && members_counts(&m->members, rec->nodes[i])) {
            h.live++;
        }
        if (s != NULL) {
            struct node_addr a = { .node = s->node,
                                   .state = member_state(s),
                                   .addr = slice_str(s->rec.addr),
                                   .host = slice_str(s->rec.host) };

            node_addr_put(nodes, &a);
            count++;
        }
    }
    h.nodes = wire_out_list(nodes, count);
    block_health_put(out, &h);
}

int master_admin_health(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct health_rep out = { 0 };
    struct health_req q;
    struct wire_out nodes, list;
    struct wire_in in;
    MDB_txn *txn;
    int err = health_req_get(msg, &q);

    err = err != DFS_OK ? err : kv_read_begin(ns_kv(m->ns), &txn);
    if (err != DFS_OK) {
        return err;
    }
    in = wire_in_of(q.blocks.items);
    wire_out_init(&nodes, LIMIT_REPLICATION * sizeof(struct server_rec));
    wire_out_init(&list, LIMIT_MSG - KIB);
    for (uint32_t i = 0; err == DFS_OK && i < q.blocks.count; i++) {
        struct block_rec rec;
        struct block_ref r;

        err = block_ref_get(&in, &r);
        err = err != DFS_OK ? err : mapdb_get(ns_map(m->ns), txn, r.block, &rec);
        if (err == DFS_OK) {
            pthread_mutex_lock(&m->map_mu);
            put_health(m, r.block, &rec, &nodes, &list);
            pthread_mutex_unlock(&m->map_mu);
            out.blocks.count++;
            err = list.err;
        } else if (err == DFS_ENOBLOCK) {
            err = DFS_OK;
        }
    }
    mdb_txn_abort(txn);
    out.blocks.items = wire_out_slice(&list);
    if (err == DFS_OK) {
        health_rep_put(rep, &out);
    }
    wire_out_fini(&nodes);
    wire_out_fini(&list);
    return err;
}
