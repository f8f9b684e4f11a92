/* Copies that are enough but in the wrong places, and moves; rules; what the cluster looks like. */
#include "replication/map/repair_state.h"

#define TOPOLOGY_MS 1000

/* ---- rules ---- */

void repair_set_rule(struct repair *r, uint16_t number, struct slice text)
{
    struct rule rule;

    if (number == 0 || rule_parse(text, &rule, NULL) != DFS_OK) {
        return;
    }
    if (number > r->rule_count) {
        r->rules = x_realloc(r->rules, number * sizeof(struct rule *));
        while (r->rule_count < number) {
            r->rules[r->rule_count++] = NULL;
        }
    }
    if (r->rules[number - 1] == NULL) {
        r->rules[number - 1] = x_alloc(sizeof(rule));
    }
    *r->rules[number - 1] = rule;
}

const struct rule *repair_rule(const struct repair *r, uint16_t number)
{
    return number != 0 && number <= r->rule_count ? r->rules[number - 1] : NULL;
}

void repair_set_rate(struct repair *r, uint64_t bytes_per_second)
{
    r->rate.rate = bytes_per_second;
}

/* ---- what there is ---- */

/* Which labels have room, whatever the order of the servers. */
static uint64_t label_sum(const struct member *m)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < m->volume_count; i++) {
        uint64_t h = 1;

        for (const char *p = m->volumes[i].label; *p != '\0'; p++) {
            h = htab_mix(h ^ (uint8_t)*p);
        }
        sum |= h != 1 && m->volumes[i].state == VOLUME_OK ? UINT64_C(1) << (h >> 58) : 0;
    }
    return sum;
}

void repair_look_at_topology(struct repair *r, uint64_t now_ms)
{
    uint64_t was = r->topology;

    if (r->topology != 0 && now_ms - r->topology_ms < TOPOLOGY_MS) {
        return;
    }
    r->topology_ms = now_ms;
    r->two_racks = placement_two_racks(r->members);
    r->topology = 1;
    for (size_t i = 0; i < r->members->count; i++) {
        if (member_takes(r->members->all[i])) {
            r->topology |= label_sum(r->members->all[i]) << 2;
        }
    }
    r->topology |= r->two_racks ? 2 : 0;
    /* What was well placed may not be any more when there is more to choose from. */
    r->overflow = r->overflow || (was != 0 && (r->topology & ~was) != 0);
}

unsigned int standing_misplaced(const struct repair *r, const struct standing *s)
{
    return placement_judge(r->members, s->good_nodes, s->good, s->rule, s->want, r->two_racks);
}

unsigned int repair_misplaced(const struct repair *r, uint64_t block, const struct block_rec *rec)
{
    struct standing s;

    if (rec->state != BLOCK_SEALED) {
        return 0;
    }
    standing_of(r, block, rec, &s);
    return s.good == s.want && s.leaving == 0 ? standing_misplaced(r, &s) : 0;
}

bool repair_is_idle(struct repair *r, uint64_t now_ms)
{
    return !r->overflow && r->orders.copies == r->orders.moves &&
           (r->copied_ms == 0 || now_ms - r->copied_ms >= REPAIR_IDLE_MS) &&
           (r->counts.bytes == 0 || bucket_open(&r->rate, now_ms));
}

bool repair_is_urgent(const struct repair *r, uint64_t now_ms)
{
    return r->members->silent != 0 || r->orders.copies > r->orders.moves ||
           (r->copied_ms != 0 && now_ms - r->copied_ms < REPAIR_PAUSE_MS);
}

/* ---- mending ---- */

bool repair_plan_mend(struct repair *r, struct problem *p, const struct block_rec *rec,
                      const struct standing *s, uint64_t now_ms)
{
    uint32_t source = repair_source(r, p->block, s);
    uint32_t rest[LIMIT_REPLICATION + 1];
    bool keep[LIMIT_REPLICATION] = { false };
    struct placement_ask ask;
    uint32_t target;
    size_t worst, n = 0;

    if (source == 0 || p->copies != 0 || rec->node_count == LIMIT_REPLICATION) {
        return false;
    }
    worst = placement_excess(r->members, s->good_nodes, keep, s->good, s->rule, s->want);
    for (size_t i = 0; i < s->good; i++) {
        if (i != worst) {
            rest[n++] = s->good_nodes[i];
        }
    }
    if (repair_target(r, p, rec, s, rest, n, &ask, &target) != DFS_OK) {
        return false;
    }
    rest[n] = target;
    if (placement_score(r->members, rest, n + 1, s->rule, s->want, r->two_racks) >=
        placement_score(r->members, s->good_nodes, s->good, s->rule, s->want, r->two_racks)) {
        return false;
    }
    repair_order_copy(r, p, rec, source, target, placement_label(r->members, &ask, target), now_ms);
    return true;
}

void repair_cancel_copies(struct repair *r, struct problem *p, const struct block_rec *rec)
{
    for (uint8_t i = 0; i < rec->node_count; i++) {
        struct order_entry *e = orders_of(&r->orders, ORDER_COPY, p->block, rec->nodes[i]);

        if (e != NULL) {
            orders_remove(&r->orders, e);
            p->copies--;
        }
    }
}

/* ---- moves ---- */

bool repair_is_moving(const struct repair *r, uint64_t block)
{
    const struct problem *p = problem_find(r, block);

    return p != NULL && p->move_from != 0;
}

/* The places after the move are no worse than those before. */
static bool stays_well(const struct repair *r, const struct standing *s, uint32_t from, uint32_t to)
{
    uint32_t after[LIMIT_REPLICATION];
    bool holds = false;

    for (size_t i = 0; i < s->good; i++) {
        if (s->good_nodes[i] == to) {
            return false;
        }
        holds = holds || s->good_nodes[i] == from;
        after[i] = s->good_nodes[i] == from ? to : s->good_nodes[i];
    }
    return holds &&
           placement_score(r->members, after, s->good, s->rule, s->want, r->two_racks) <=
               placement_score(r->members, s->good_nodes, s->good, s->rule, s->want, r->two_racks);
}

bool repair_move(struct repair *r, uint64_t block, uint32_t from, uint32_t to, uint64_t now_ms)
{
    const struct member *target = members_get(r->members, to);
    struct placement_ask ask = { 0 };
    uint32_t rest[LIMIT_REPLICATION];
    struct block_rec rec;
    struct standing s;
    struct problem *p;
    uint32_t source;
    size_t n = 0;

    if (target == NULL || problem_find(r, block) != NULL || repair_is_deleting(r, block) ||
        r->env.get(r->env.arg, block, &rec) != DFS_OK || rec.state != BLOCK_SEALED ||
        rec.node_count == LIMIT_REPLICATION) {
        return false;
    }
    standing_of(r, block, &rec, &s);
    source = repair_source(r, block, &s);
    if (source == 0 || s.good != s.want || s.bad + s.dead + s.leaving != 0 ||
        !stays_well(r, &s, from, to) || !member_takes(target) || target->roomiest < rec.len ||
        orders_busy(&r->orders, to, r->conf.streams) ||
        orders_of(&r->orders, ORDER_DELETE, block, to) != NULL) {
        return false;
    }
    for (size_t i = 0; i < s.good; i++) {
        if (s.good_nodes[i] != from) {
            rest[n++] = s.good_nodes[i];
        }
    }
    ask = (struct placement_ask){ .want = s.want, .rule = s.rule, .have = rest, .have_count = n };
    p = problem_get(r, block);
    p->move_from = from;
    repair_order_copy(r, p, &rec, source, to, placement_label(r->members, &ask, to), now_ms);
    return true;
}
