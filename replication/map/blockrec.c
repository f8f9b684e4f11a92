/* Records of blocks and block servers as they are stored. The first byte is the format's number. */
#include "replication/map/mapdb.h"

#define BLOCK_FORMAT  1
#define SERVER_FORMAT 1

uint8_t block_rec_want(const struct block_rec *r)
{
    for (uint8_t i = LIMIT_REPLICATION; i > 0; i--) {
        if (r->live[i] != 0) {
            return i;
        }
    }
    return r->alloc_want;
}

uint16_t block_rec_rule(const struct block_rec *r)
{
    uint16_t rule = 0;
    uint64_t most = 0;

    for (size_t i = 0; i < r->rule_count; i++) {
        if (r->rules[i].live > most || (r->rules[i].live == most && r->rules[i].rule < rule)) {
            rule = r->rules[i].rule;
            most = r->rules[i].live;
        }
    }
    return rule != 0 || block_rec_live(r) != 0 ? rule : r->alloc_rule;
}

uint64_t block_rec_live(const struct block_rec *r)
{
    uint64_t sum = 0;

    for (size_t i = 1; i <= LIMIT_REPLICATION; i++) {
        sum += r->live[i];
    }
    return sum;
}

void block_rec_put(struct wire_out *out, const struct block_rec *r)
{
    uint8_t levels = 0;

    for (size_t i = 1; i <= LIMIT_REPLICATION; i++) {
        levels = (uint8_t)(levels + (r->live[i] != 0));
    }
    wire_put_u8(out, BLOCK_FORMAT);
    wire_put_u8(out, r->state);
    wire_put_u8(out, r->kind);
    wire_put_u8(out, r->alloc_want);
    wire_put_u32(out, r->len);
    wire_put_u64(out, r->session);
    wire_put_i64(out, r->changed_ns);
    wire_put_u8(out, r->node_count);
    for (size_t i = 0; i < r->node_count; i++) {
        wire_put_u32(out, r->nodes[i]);
    }
    wire_put_u8(out, levels);
    for (uint8_t i = 1; i <= LIMIT_REPLICATION; i++) {
        if (r->live[i] != 0) {
            wire_put_u8(out, i);
            wire_put_u64(out, r->live[i]);
        }
    }
    if (r->alloc_rule != 0 || r->rule_count != 0) {
        wire_put_u16(out, r->alloc_rule);
        wire_put_u8(out, r->rule_count);
        for (size_t i = 0; i < r->rule_count; i++) {
            wire_put_u16(out, r->rules[i].rule);
            wire_put_u64(out, r->rules[i].live);
        }
    }
}

/* Only where there are any; records of old end before. */
static int get_rules(struct wire_in *in, struct block_rec *r)
{
    if (in->err != 0 || in->left == 0) {
        return 0;
    }
    r->alloc_rule = wire_get_u16(in);
    r->rule_count = wire_get_u8(in);
    if (r->rule_count > BLOCK_RULES) {
        return DFS_EDAMAGED;
    }
    for (size_t i = 0; i < r->rule_count; i++) {
        r->rules[i].rule = wire_get_u16(in);
        r->rules[i].live = wire_get_u64(in);
    }
    return 0;
}

static int get_live(struct wire_in *in, struct block_rec *r)
{
    uint8_t levels = wire_get_u8(in);
    uint8_t last = 0;

    for (uint8_t i = 0; in->err == 0 && i < levels; i++) {
        uint8_t level = wire_get_u8(in);
        uint64_t live = wire_get_u64(in);

        if (level <= last || level > LIMIT_REPLICATION || live == 0) {
            return DFS_EDAMAGED;
        }
        r->live[level] = live;
        last = level;
    }
    return 0;
}

int block_rec_get(struct slice s, struct block_rec *ret)
{
    struct wire_in in = wire_in_of(s);
    uint8_t format = wire_get_u8(&in);
    struct block_rec r = { .state = wire_get_u8(&in) };

    r.kind = wire_get_u8(&in);
    r.alloc_want = wire_get_u8(&in);
    r.len = wire_get_u32(&in);
    r.session = wire_get_u64(&in);
    r.changed_ns = wire_get_i64(&in);
    r.node_count = wire_get_u8(&in);
    if (format != BLOCK_FORMAT || r.state < BLOCK_OPEN || r.state > BLOCK_DELETED ||
        r.node_count > LIMIT_REPLICATION || r.alloc_want > LIMIT_REPLICATION) {
        return DFS_EDAMAGED;
    }
    for (size_t i = 0; i < r.node_count; i++) {
        r.nodes[i] = wire_get_u32(&in);
    }
    if (get_live(&in, &r) != 0 || get_rules(&in, &r) != 0 || in.err != 0 || in.left != 0) {
        return DFS_EDAMAGED;
    }
    *ret = r;
    return 0;
}

void server_rec_put(struct wire_out *out, const struct server_rec *r)
{
    wire_put_u8(out, SERVER_FORMAT);
    wire_put_raw(out, r->uuid, sizeof(r->uuid));
    wire_put_bytes(out, slice_str(r->addr));
    wire_put_bytes(out, slice_str(r->host));
    wire_put_bytes(out, slice_str(r->rack));
    wire_put_u8(out, r->intent);
    wire_put_u8(out, r->maintenance);
    wire_put_i64(out, r->until_ns);
}

static int get_text(struct wire_in *in, char *p, size_t cap)
{
    struct slice s = wire_get_bytes(in);

    if (in->err != 0 || s.len >= cap || (s.len != 0 && memchr(s.p, '\0', s.len) != NULL)) {
        return DFS_EDAMAGED;
    }
    if (s.len != 0) {
        memcpy(p, s.p, s.len);
    }
    p[s.len] = '\0';
    return 0;
}

int server_rec_get(struct slice s, struct server_rec *ret)
{
    struct wire_in in = wire_in_of(s);
    uint8_t format = wire_get_u8(&in);
    struct slice uuid = wire_take(&in, sizeof(ret->uuid));
    struct server_rec r = { 0 };

    if (format != SERVER_FORMAT || in.err != 0) {
        return DFS_EDAMAGED;
    }
    memcpy(r.uuid, uuid.p, sizeof(r.uuid));
    if (get_text(&in, r.addr, sizeof(r.addr)) != 0 || get_text(&in, r.host, sizeof(r.host)) != 0 ||
        get_text(&in, r.rack, sizeof(r.rack)) != 0) {
        return DFS_EDAMAGED;
    }
    if (in.left != 0) { /* older records end here */
        r.intent = wire_get_u8(&in);
        r.maintenance = wire_get_u8(&in);
        r.until_ns = wire_get_i64(&in);
    }
    if (in.err != 0 || in.left != 0 || r.intent > INTENT_DECOMMISSIONED ||
        r.maintenance > MAINTENANCE_STOP) {
        return DFS_EDAMAGED;
    }
    *ret = r;
    return 0;
}
