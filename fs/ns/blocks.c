/* Commands about blocks and block servers: what replication/map keeps, and who owns a block. */
#include "fs/ns/ns_core.h"

#define BAD_MAX 64 /* servers named bad in one seal */

static int own(struct ns_tx *tx, uint64_t session, uint64_t block)
{
    struct ns_key16 key = ns_key16(session, block);

    return ns_db_put(tx, DB_SESSION_BLOCKS, KEY_SLICE(key), SLICE_EMPTY);
}

int ns_block_release(struct ns_tx *tx, uint64_t session, uint64_t block)
{
    struct ns_key16 key = ns_key16(session, block);
    int err = ns_db_del(tx, DB_SESSION_BLOCKS, KEY_SLICE(key));

    return err == DFS_ENOENT ? 0 : err;
}

struct placed {
    uint32_t node;
    uint8_t state;
};

/* By state, those of one state in the order they came. */
static void sort_placed(struct placed *p, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct placed x = p[i];
        size_t j = i;

        for (; j > 0 && p[j - 1].state > x.state; j--) {
            p[j] = p[j - 1];
        }
        p[j] = x;
    }
}

int ns_block_nodes(const struct ns_view *v, const struct block_rec *r, const struct rule *rule,
                   ns_node_state_fn *state, void *arg, struct wire_out *out, uint32_t *ret_count)
{
    struct placed at[LIMIT_REPLICATION];
    uint32_t count = 0;

    for (size_t i = 0; i < r->node_count; i++) {
        at[i].node = r->nodes[i];
        at[i].state = state != NULL ? state(arg, r->nodes[i]) : MEMBER_LIVE;
    }
    sort_placed(at, r->node_count);
    for (size_t i = 0; i < r->node_count; i++) {
        struct server_rec s;
        struct node_addr a = { .node = at[i].node, .state = at[i].state };
        int err = mapdb_server_get(&v->ns->map, v->txn, at[i].node, &s);

        if (err == DFS_ENOENT) {
            continue;
        }
        if (err != 0) {
            return err;
        }
        a.addr = slice_str(s.addr);
        a.host = slice_str(s.host);
        a.label = slice_str(rule_label(rule, i));
        node_addr_put(out, &a);
        count++;
    }
    *ret_count = count;
    return 0;
}

/* The servers that the leader chose for one block. */
static int get_choice(const struct ns_tx *tx, struct wire_in *in, struct block_rec *ret)
{
    struct block_choice choice;
    struct wire_in nodes;
    int err = block_choice_get(in, &choice);

    if (err != 0 || choice.nodes.count == 0 || choice.nodes.count > LIMIT_REPLICATION) {
        return DFS_EMALFORMED;
    }
    *ret = (struct block_rec){ .node_count = (uint8_t)choice.nodes.count };
    nodes = wire_in_of(choice.nodes.items);
    for (size_t i = 0; i < ret->node_count; i++) {
        struct node_ref ref;
        struct server_rec s;

        err = node_ref_get(&nodes, &ref);
        err = err != 0 ? err : mapdb_server_get(&tx->ns->map, tx->v.txn, ref.node, &s);
        if (err != 0) {
            return err == DFS_ENOENT ? DFS_ENOSERVERS : err;
        }
        for (size_t j = 0; j < i; j++) {
            if (ret->nodes[j] == ref.node) {
                return DFS_EMALFORMED;
            }
        }
        ret->nodes[i] = ref.node;
    }
    return 0;
}

/* Rules are numbered from 1 on without gaps. */
static uint64_t tx_rules(const struct ns_tx *tx)
{
    return ns_db_count(&tx->v, DB_RULES);
}

static int check_alloc(struct ns_tx *tx, const struct block_alloc_req *req,
                       struct wire_list choices)
{
    struct wire_in in = wire_in_of(choices.items);
    int err = 0;

    if (req->want > LIMIT_REPLICATION || (req->kind != BLOCK_STREAM && req->kind != BLOCK_PACK) ||
        req->count == 0 || req->count > LIMIT_ALLOC || choices.count > req->count ||
        req->rule > tx_rules(tx)) {
        return DFS_EINVAL;
    }
    for (uint32_t i = 0; err == 0 && i < choices.count; i++) {
        struct block_rec r;

        err = get_choice(tx, &in, &r);
    }
    return err != 0 ? err : choices.count == 0 ? DFS_ENOSERVERS : 0;
}

/* *ret_rule: into buf, NULL when there is none. */
static int get_rule(const struct ns_tx *tx, uint16_t number, struct rule *buf,
                    const struct rule **ret_rule)
{
    struct slice text;
    int err = ns_rule_text(&tx->v, number, &text);

    if (err == 0 && number != 0) {
        err = rule_parse(text, buf, NULL) != 0 ? DFS_EDAMAGED : 0;
        *ret_rule = buf;
    }
    return err;
}

static int alloc_one(struct ns_tx *tx, const struct block_alloc_req *req, const struct block_rec *r,
                     struct wire_out *list)
{
    uint8_t buf[LIMIT_REPLICATION * sizeof(struct server_rec)];
    struct wire_out nodes = wire_out_over(buf, sizeof(buf));
    uint8_t want = req->want != 0 ? req->want : tx->head->repl_default;
    struct block_loc loc = { .block = tx->ns->state.next_block, .state = BLOCK_OPEN, .want = want };
    const struct rule *rule = NULL;
    struct rule rule_buf;
    uint32_t count = 0;
    int err = mapdb_alloc(&tx->ns->map, tx->v.txn, loc.block, req->kind, want, req->rule,
                          tx->hdr.session, r->nodes, r->node_count, tx->head->now_ns);

    err = err != 0 ? err : own(tx, tx->hdr.session, loc.block);
    err = err != 0 ? err : get_rule(tx, req->rule, &rule_buf, &rule);
    err = err != 0 ? err : ns_block_nodes(&tx->v, r, rule, NULL, NULL, &nodes, &count);
    if (err != 0) {
        return err == DFS_EEXIST ? DFS_EDAMAGED : err;
    }
    tx->ns->state.next_block++;
    loc.nodes = wire_out_list(&nodes, count);
    block_loc_put(list, &loc);
    return 0;
}

int ns_do_block_alloc(struct ns_tx *tx, const struct block_alloc_req *req,
                      struct block_alloc_rep *rep)
{
    struct wire_in in = wire_in_of(tx->choice);
    struct wire_list choices = wire_get_list(&in);
    struct wire_out *list = &tx->ns->list;
    int err = in.err != 0 ? DFS_ENOSERVERS : check_alloc(tx, req, choices);

    in = wire_in_of(choices.items);
    wire_out_reset(list);
    for (uint32_t i = 0; err == 0 && i < choices.count; i++) {
        struct block_rec r;

        err = get_choice(tx, &in, &r);
        err = err != 0 ? err : alloc_one(tx, req, &r, list);
    }
    rep->blocks = wire_out_list(list, choices.count);
    return err;
}

static int seal_orphan(struct ns_tx *tx, uint64_t block)
{
    struct block_rec r;
    int err = mapdb_get(&tx->ns->map, tx->v.txn, block, &r);

    if (err != 0) {
        return err == DFS_ENOBLOCK ? 0 : err;
    }
    err = ns_block_release(tx, r.session, block);
    return err != 0 ? err
                    : mapdb_seal_orphan(&tx->ns->map, tx->v.txn, &tx->ns->ev.map, block,
                                        tx->head->now_ns);
}

int ns_do_block_seal(struct ns_tx *tx, const struct block_seal_req *req, struct block_seal_rep *rep)
{
    struct wire_in in = wire_in_of(req->bad.items);
    uint32_t bad[BAD_MAX];
    int err;

    (void)rep;
    if (req->bad.count > BAD_MAX) {
        return DFS_EINVAL;
    }
    for (uint32_t i = 0; i < req->bad.count; i++) {
        struct node_ref ref;

        if (node_ref_get(&in, &ref) != 0) {
            return DFS_EMALFORMED;
        }
        bad[i] = ref.node;
    }
    err = mapdb_seal(&tx->ns->map, tx->v.txn, &tx->ns->ev.map, req->block, tx->hdr.session,
                     req->len, bad, req->bad.count, tx->head->now_ns);
    /* Nothing will ever be committed in an empty block: the session is done with it. */
    return err == 0 && req->len == 0 ? seal_orphan(tx, req->block) : err;
}

int ns_do_map_replicas(struct ns_tx *tx, const struct map_replicas_req *req,
                       struct map_replicas_rep *rep)
{
    struct wire_in in = wire_in_of(req->changes.items);
    int err = 0;

    (void)rep;
    for (uint32_t i = 0; err == 0 && i < req->changes.count; i++) {
        struct replica_change c;

        if (replica_change_get(&in, &c) != 0 || (c.op != REPLICA_ADD && c.op != REPLICA_DROP)) {
            return DFS_EMALFORMED;
        }
        err = mapdb_replica(&tx->ns->map, tx->v.txn, &tx->ns->ev.map, c.block, c.node,
                            (enum replica_op)c.op);
        err = ns_is_fatal(err) ? err : 0; /* forgotten meanwhile, or has copies enough */
    }
    return err;
}

static int get_text(struct slice s, char *p, size_t cap)
{
    if (s.len >= cap || (s.len != 0 && memchr(s.p, '\0', s.len) != NULL)) {
        return DFS_EINVAL;
    }
    if (s.len != 0) {
        memcpy(p, s.p, s.len);
    }
    p[s.len] = '\0';
    return 0;
}

int ns_do_map_server(struct ns_tx *tx, const struct map_server_req *req, struct map_server_rep *rep)
{
    struct server_rec s = { 0 };
    int err = req->uuid.len == sizeof(s.uuid) ? 0 : DFS_EINVAL;

    err = err != 0 ? err : get_text(req->addr, s.addr, sizeof(s.addr));
    err = err != 0 ? err : get_text(req->host, s.host, sizeof(s.host));
    err = err != 0 ? err : get_text(req->rack, s.rack, sizeof(s.rack));
    if (err != 0) {
        return err;
    }
    memcpy(s.uuid, req->uuid.p, sizeof(s.uuid));
    return mapdb_server_put(&tx->ns->map, tx->v.txn, req->node, &s, &rep->node);
}

int ns_do_map_intent(struct ns_tx *tx, const struct map_intent_req *req, struct map_intent_rep *rep)
{
    struct server_rec r = { .intent = req->intent,
                            .maintenance = req->maintenance,
                            .until_ns = req->until_ns };

    (void)rep;
    if (req->intent > INTENT_DECOMMISSIONED || req->maintenance > MAINTENANCE_STOP) {
        return DFS_EINVAL;
    }
    return mapdb_server_intend(&tx->ns->map, tx->v.txn, req->node, req->fields, &r);
}

int ns_do_map_seal(struct ns_tx *tx, const struct map_seal_req *req, struct map_seal_rep *rep)
{
    struct wire_in in = wire_in_of(req->blocks.items);
    int err = 0;

    (void)rep;
    for (uint32_t i = 0; err == 0 && i < req->blocks.count; i++) {
        struct block_ref ref;

        err = block_ref_get(&in, &ref);
        err = err != 0 ? err : seal_orphan(tx, ref.block);
    }
    return err;
}

int ns_do_map_forget(struct ns_tx *tx, const struct map_forget_req *req, struct map_forget_rep *rep)
{
    struct wire_in in = wire_in_of(req->blocks.items);
    int err = 0;

    (void)rep;
    for (uint32_t i = 0; err == 0 && i < req->blocks.count; i++) {
        struct block_ref ref;

        err = block_ref_get(&in, &ref);
        err = err != 0 ? err : mapdb_forget(&tx->ns->map, tx->v.txn, ref.block);
        err = err == DFS_ENOBLOCK || err == DFS_EBUSY ? 0 : err;
    }
    return err;
}
