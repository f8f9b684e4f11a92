#include "replication/map/placement.h"

/* A volume with less than this takes no more blocks, whatever their size. */
#define LEAST_ROOM MIB

#define HOLDERS_MAX (2 * LIMIT_REPLICATION)

/* What a candidate may be, from the best on; the first level that has one decides. */
enum level { SPREAD_RACK, SPREAD_HOST, LITTLE_ROOM, LEVELS };

struct picking {
    const struct placement_ask *ask;
    struct member **candidates; /* live, with room, not excluded; less those of holders' hosts */
    size_t count;
    const struct member *holders[HOLDERS_MAX]; /* have and chosen */
    size_t holder_count;
    size_t want;
    bool two_racks; /* candidates and holders are in more than one rack */
};

/* ---- labels ---- */

static bool has_label(const struct member *m, const char *label)
{
    for (size_t i = 0; i < m->volume_count; i++) {
        if (m->volumes[i].state != VOLUME_FAILED && strcmp(m->volumes[i].label, label) == 0) {
            return true;
        }
    }
    return false;
}

uint64_t placement_room(const struct member *m, const char *label)
{
    uint64_t room = 0;

    if (*label == '\0') {
        return m->roomiest;
    }
    for (size_t i = 0; i < m->volume_count; i++) {
        const struct member_volume *v = &m->volumes[i];

        if (v->state == VOLUME_OK && strcmp(v->label, label) == 0) {
            room = MAX(room, v->free);
        }
    }
    return room;
}

/* Which holder fills which slot of a rule. */
struct matching {
    const struct rule *rule;
    const struct member *const *holders;
    size_t holder_count;
    size_t slots;
    size_t filled;
    uint8_t by_slot[LIMIT_REPLICATION]; /* holder + 1; 0: nobody */
    uint64_t seen;                      /* holders asked in this round */
};

/* A holder for slot i, for which others may have to move to other slots (Kuhn's algorithm). */
static bool fill_slot(struct matching *m, size_t i)
{
    for (size_t h = 0; h < m->holder_count; h++) {
        size_t other = 0;

        if ((m->seen >> h & 1) != 0 || !has_label(m->holders[h], rule_label(m->rule, i))) {
            continue;
        }
        m->seen |= UINT64_C(1) << h;
        while (other < m->slots && m->by_slot[other] != h + 1) {
            other++;
        }
        if (other == m->slots || fill_slot(m, other)) {
            m->by_slot[i] = (uint8_t)(h + 1);
            return true;
        }
    }
    return false;
}

/* As many of the slots with a label as the holders can fill. */
static void match(struct matching *m, const struct rule *rule, size_t want,
                  const struct member *const *holders, size_t count)
{
    *m = (struct matching){ .rule = rule,
                            .holders = holders,
                            .holder_count = MIN(count, (size_t)HOLDERS_MAX),
                            .slots = MIN(want, (size_t)LIMIT_REPLICATION) };
    for (size_t i = 0; rule != NULL && i < m->slots; i++) {
        m->seen = 0;
        m->filled += *rule_label(rule, i) != '\0' && fill_slot(m, i);
    }
}

static bool slot_is_open(const struct matching *m, size_t i)
{
    return *rule_label(m->rule, i) != '\0' && m->by_slot[i] == 0;
}

static size_t open_slots(const struct matching *m)
{
    size_t n = 0;

    for (size_t i = 0; i < m->slots; i++) {
        n += slot_is_open(m, i);
    }
    return n;
}

/* Copies that are in nobody's place: how many more may be anywhere. */
static size_t any_slots(const struct matching *m)
{
    size_t labelled = m->filled + open_slots(m);
    size_t others = m->holder_count - m->filled;

    return m->slots - labelled > others ? m->slots - labelled - others : 0;
}

/* ---- candidates ---- */

static bool listed(const uint32_t *nodes, size_t count, uint32_t node)
{
    for (size_t i = 0; i < count; i++) {
        if (nodes[i] == node) {
            return true;
        }
    }
    return false;
}

static bool same_host(const struct member *a, const struct member *b)
{
    return a == b || strcmp(a->rec.host, b->rec.host) == 0;
}

static bool same_rack(const struct member *a, const struct member *b)
{
    return strcmp(a->rec.rack, b->rec.rack) == 0;
}

static bool host_is_free(const struct picking *p, const struct member *m)
{
    for (size_t i = 0; i < p->holder_count; i++) {
        if (same_host(p->holders[i], m)) {
            return false;
        }
    }
    return true;
}

static void gather(struct picking *p, const struct members *t)
{
    const struct placement_ask *ask = p->ask;
    const struct member *first = p->holder_count != 0 ? p->holders[0] : NULL;

    for (size_t i = 0; i < p->holder_count; i++) {
        p->two_racks = p->two_racks || !same_rack(first, p->holders[i]);
    }
    p->candidates = x_alloc((t->count + 1) * sizeof(struct member *));
    for (size_t i = 0; i < t->count; i++) {
        struct member *m = t->all[i];

        if (!member_takes(m) || m->roomiest < LEAST_ROOM || !host_is_free(p, m) ||
            listed(ask->avoid, ask->avoid_count, m->node) ||
            (ask->skip != NULL && ask->skip(ask->arg, m))) {
            continue;
        }
        first = first != NULL ? first : m;
        p->two_racks = p->two_racks || !same_rack(first, m);
        p->candidates[p->count++] = m;
    }
}

/* A candidate became a holder: its host is out. */
static void take(struct picking *p, struct member *m)
{
    size_t kept = 0;

    m->promised++;
    p->holders[p->holder_count++] = m;
    for (size_t i = 0; i < p->count; i++) {
        if (!same_host(p->candidates[i], m)) {
            p->candidates[kept++] = p->candidates[i];
        }
    }
    p->count = kept;
}

/* All copies so far are in one rack, and it is the candidate's. */
static bool crowds_rack(const struct picking *p, const struct member *m)
{
    for (size_t i = 0; i < p->holder_count; i++) {
        if (!same_rack(p->holders[i], m)) {
            return false;
        }
    }
    return p->holder_count != 0;
}

static bool qualifies(const struct picking *p, const struct member *m, enum level level,
                      const char *label)
{
    uint64_t least = level == LITTLE_ROOM ? LEAST_ROOM : p->ask->bytes;

    return placement_room(m, label) >= MAX(least, LEAST_ROOM) &&
           !(level == SPREAD_RACK && p->two_racks && crowds_rack(p, m));
}

/* ---- choosing ---- */

/* Less is better; promised counts what heartbeats do not show yet. */
static uint64_t load(const struct member *m)
{
    return (uint64_t)m->writers + m->promised;
}

/* One of those that qualify, drawn by free space; NULL when there are none. */
static struct member *draw(const struct picking *p, enum level level, const char *label,
                           struct rng *rng)
{
    uint64_t sum = 0, at;

    /* In MiB, so that the sum of all servers fits. */
    for (size_t i = 0; i < p->count; i++) {
        if (qualifies(p, p->candidates[i], level, label)) {
            sum += p->candidates[i]->free / MIB + 1;
        }
    }
    if (sum == 0) {
        return NULL;
    }
    at = rng_below(rng, sum);
    for (size_t i = 0; i < p->count; i++) {
        struct member *m = p->candidates[i];

        if (qualifies(p, m, level, label)) {
            if (at < m->free / MIB + 1) {
                return m;
            }
            at -= m->free / MIB + 1;
        }
    }
    return NULL;
}

static struct member *draw_two(const struct picking *p, enum level level, const char *label,
                               struct rng *rng)
{
    struct member *a = draw(p, level, label, rng);
    struct member *b = a != NULL ? draw(p, level, label, rng) : NULL;

    return b != NULL && load(b) < load(a) ? b : a;
}

/* With a label that is still wanted. */
static struct member *draw_labelled(const struct picking *p, const struct matching *match,
                                    enum level level, struct rng *rng)
{
    struct member *m = NULL;

    for (size_t i = 0; m == NULL && i < match->slots; i++) {
        const char *label = rule_label(match->rule, i);

        /* The same label again would give the same. */
        if (slot_is_open(match, i) &&
            (i == 0 || strcmp(label, rule_label(match->rule, i - 1)) != 0 ||
             match->by_slot[i - 1] != 0)) {
            m = draw_two(p, level, label, rng);
        }
    }
    return m;
}

static struct member *choose(const struct picking *p, struct rng *rng)
{
    const struct rule *rule = p->ask->rule;
    struct matching slots;
    struct member *m = NULL;

    match(&slots, rule, p->want, p->holders, p->holder_count);
    if (rule != NULL && rule->strict) {
        for (int level = 0; m == NULL && level < LEVELS; level++) {
            m = draw_labelled(p, &slots, (enum level)level, rng);
        }
        if (m == NULL && any_slots(&slots) == 0) {
            return NULL;
        }
    }
    for (int level = 0; m == NULL && level < LEVELS; level++) {
        m = draw_labelled(p, &slots, (enum level)level, rng);
        m = m != NULL ? m : draw_two(p, (enum level)level, "", rng);
    }
    return m;
}

/* The writer's own server, when it can take a whole block. */
static struct member *local(const struct picking *p)
{
    if (p->ask->host.len == 0) {
        return NULL;
    }
    for (size_t i = 0; i < p->count; i++) {
        struct member *m = p->candidates[i];

        if (slice_eq(slice_str(m->rec.host), p->ask->host) &&
            qualifies(p, m, SPREAD_HOST, rule_label(p->ask->rule, 0))) {
            return m;
        }
    }
    return NULL;
}

/* Why nobody could be chosen. */
static int none(const struct members *t, const struct picking *p)
{
    const char *label =
        p->ask->rule != NULL && p->ask->rule->strict ? rule_label(p->ask->rule, 0) : "";
    bool full = false;

    for (size_t i = 0; i < t->count; i++) {
        const struct member *m = t->all[i];

        if (member_takes(m)) {
            if (placement_room(m, label) >= LEAST_ROOM) {
                return DFS_ENOSERVERS; /* excluded by the ask, not for space */
            }
            full = true;
        }
    }
    return full ? DFS_ENOSPC : DFS_ENOSERVERS;
}

static size_t find_holders(const struct members *t, const uint32_t *nodes, size_t count,
                           const struct member **ret)
{
    size_t n = 0;

    for (size_t i = 0; i < count && n < LIMIT_REPLICATION; i++) {
        const struct member *m = members_get(t, nodes[i]);

        if (m != NULL) {
            ret[n++] = m;
        }
    }
    return n;
}

int placement_pick(struct members *t, const struct placement_ask *ask, struct rng *rng,
                   uint32_t ret[LIMIT_REPLICATION], size_t *ret_count)
{
    struct picking p = { .ask = ask };
    size_t n = 0;
    int err = DFS_OK;

    ASSERT(ask->copies <= LIMIT_REPLICATION && ask->have_count <= LIMIT_REPLICATION);
    p.want = ask->want != 0 ? ask->want : ask->copies + ask->have_count;
    p.holder_count = find_holders(t, ask->have, ask->have_count, p.holders);
    gather(&p, t);
    while (n < ask->copies) {
        struct member *m = n == 0 && ask->have_count == 0 ? local(&p) : NULL;

        m = m != NULL ? m : choose(&p, rng);
        if (m == NULL) {
            break;
        }
        take(&p, m);
        ret[n++] = m->node;
    }
    if (n == 0) {
        err = none(t, &p);
    } else {
        *ret_count = n;
    }
    free(p.candidates);
    return err;
}

const char *placement_label(const struct members *t, const struct placement_ask *ask, uint32_t node)
{
    const struct member *m = members_get(t, node);
    const struct member *holders[LIMIT_REPLICATION];
    struct matching slots;

    match(&slots, ask->rule, ask->want != 0 ? ask->want : ask->copies + ask->have_count, holders,
          find_holders(t, ask->have, ask->have_count, holders));
    for (size_t i = 0; m != NULL && i < slots.slots; i++) {
        const char *label = rule_label(ask->rule, i);

        if (slot_is_open(&slots, i) && placement_room(m, label) >= LEAST_ROOM) {
            return label;
        }
    }
    return "";
}

/* ---- judging ---- */

bool placement_two_racks(const struct members *t)
{
    const struct member *first = NULL;

    for (size_t i = 0; i < t->count; i++) {
        const struct member *m = t->all[i];

        if (member_takes(m) && m->roomiest >= LEAST_ROOM) {
            if (first != NULL && !same_rack(first, m)) {
                return true;
            }
            first = m;
        }
    }
    return false;
}

struct flaws {
    size_t host_pairs;
    size_t rack_pairs;
    bool one_rack;
    size_t labels; /* slots that nobody fills */
};

static void find_flaws(const struct member *const *h, size_t n, const struct rule *rule,
                       uint32_t want, bool two_racks, struct flaws *ret)
{
    struct matching slots;

    *ret = (struct flaws){ .one_rack = two_racks && n > 1 };
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            ret->host_pairs += same_host(h[i], h[j]);
            ret->rack_pairs += same_rack(h[i], h[j]);
        }
        ret->one_rack = ret->one_rack && same_rack(h[0], h[i]);
    }
    match(&slots, rule, want, h, n);
    ret->labels = open_slots(&slots);
}

/* Some server could take a copy that fills an open slot. */
static bool label_to_be_had(const struct members *t, const struct member *const *h, size_t n,
                            const struct rule *rule, uint32_t want)
{
    struct placement_ask ask = { .rule = rule };
    struct picking p = { .ask = &ask, .holder_count = n };
    struct matching slots;

    memcpy(p.holders, h, n * sizeof(struct member *));
    match(&slots, rule, want, h, n);
    for (size_t i = 0; i < t->count; i++) {
        for (size_t s = 0; s < slots.slots; s++) {
            if (slot_is_open(&slots, s) && member_takes(t->all[i]) &&
                placement_room(t->all[i], rule_label(rule, s)) >= LEAST_ROOM &&
                host_is_free(&p, t->all[i])) {
                return true;
            }
        }
    }
    return false;
}

unsigned int placement_judge(const struct members *t, const uint32_t *nodes, size_t count,
                             const struct rule *rule, uint32_t want, bool two_racks)
{
    const struct member *h[LIMIT_REPLICATION];
    size_t n = find_holders(t, nodes, count, h);
    unsigned int bad = 0;
    struct flaws f;

    find_flaws(h, n, rule, want, two_racks, &f);
    bad |= f.host_pairs != 0 ? MISPLACED_HOST : 0u;
    bad |= f.one_rack ? MISPLACED_RACK : 0u;
    if (f.labels != 0 && (rule->strict || label_to_be_had(t, h, n, rule, want))) {
        bad |= MISPLACED_LABEL;
    }
    return bad;
}

static uint64_t score_of(const struct flaws *f, bool strict)
{
    return ((uint64_t)f->host_pairs << 48) + ((uint64_t)(strict ? f->labels : 0) << 40) +
           ((uint64_t)f->one_rack << 32) + ((uint64_t)(strict ? 0 : f->labels) << 16) +
           f->rack_pairs;
}

uint64_t placement_score(const struct members *t, const uint32_t *nodes, size_t count,
                         const struct rule *rule, uint32_t want, bool two_racks)
{
    const struct member *h[LIMIT_REPLICATION];
    struct flaws f;

    find_flaws(h, find_holders(t, nodes, count, h), rule, want, two_racks, &f);
    return score_of(&f, rule != NULL && rule->strict);
}

static uint64_t fullness(const struct members *t, uint32_t node)
{
    const struct member *m = members_get(t, node);

    if (m == NULL || m->total == 0) {
        return UINT64_MAX;
    }
    return 1000 - MIN(m->free / (m->total / 1000 + 1), 1000);
}

size_t placement_excess(const struct members *t, const uint32_t *nodes, const bool *keep,
                        size_t count, const struct rule *rule, uint32_t want)
{
    size_t best = count;
    uint64_t best_score = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t rest[LIMIT_REPLICATION];
        uint64_t score;
        size_t n = 0;

        for (size_t j = 0; j < count; j++) {
            if (j != i) {
                rest[n++] = nodes[j];
            }
        }
        score = placement_score(t, rest, n, rule, want, true);
        if (!keep[i] &&
            (best == count || score < best_score ||
             (score == best_score && fullness(t, nodes[i]) > fullness(t, nodes[best])))) {
            best = i;
            best_score = score;
        }
    }
    return best;
}
