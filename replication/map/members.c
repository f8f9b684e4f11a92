#include "replication/map/members.h"

static const struct sm_state states[] = {
    [0] = { "none", 0 },
    [MEMBER_LIVE] = { "live", SM_BIT(MEMBER_SUSPECT) },
    [MEMBER_SUSPECT] = { "suspect", SM_BIT(MEMBER_LIVE) | SM_BIT(MEMBER_DEAD) },
    [MEMBER_DEAD] = { "dead", SM_BIT(MEMBER_LIVE) },
};

void members_init(struct members *t, const struct members_conf *conf, uint64_t now_ms)
{
    *t = (struct members){ .conf = *conf, .start_ms = now_ms, .step_ms = now_ms };
}

static void member_free(struct member *m)
{
    if (m != NULL) {
        free(m->volumes);
        free(m);
    }
}

void members_fini(struct members *t)
{
    for (size_t i = 0; i < t->count; i++) {
        member_free(t->all[i]);
    }
    free(t->all);
    *t = (struct members){ 0 };
}

/* Where the node is, or where it belongs. */
static size_t find(const struct members *t, uint32_t node)
{
    size_t lo = 0, hi = t->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (t->all[mid]->node < node) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

struct member *members_get(const struct members *t, uint32_t node)
{
    size_t i = find(t, node);

    return i < t->count && t->all[i]->node == node ? t->all[i] : NULL;
}

uint8_t members_state(const struct members *t, uint32_t node)
{
    const struct member *m = members_get(t, node);

    return m != NULL ? member_state(m) : (uint8_t)MEMBER_DEAD;
}

bool members_counts(const struct members *t, uint32_t node)
{
    return members_state(t, node) != MEMBER_DEAD;
}

uint8_t member_reader_state(const struct member *m)
{
    uint8_t state = member_state(m);

    return state == MEMBER_LIVE && (m->away_until_ms != 0 || m->trouble != TROUBLE_NONE)
               ? (uint8_t)MEMBER_SUSPECT
               : state;
}

bool members_leaving(const struct members *t, uint32_t node)
{
    const struct member *m = members_get(t, node);

    return m != NULL && member_leaving(m);
}

void members_doubt(struct members *t, uint32_t node)
{
    struct member *m = members_get(t, node);

    if (m != NULL) {
        m->unsure = true;
        m->told = false;
        m->ranges_due = 0;
    }
}

bool members_unsure(const struct members *t, uint32_t node)
{
    const struct member *m = members_get(t, node);

    return m != NULL && m->unsure;
}

static void settle(struct member *m)
{
    if (m->told && m->ranges_due == 0) {
        m->unsure = false;
    }
}

void members_told(struct members *t, uint32_t node, bool first, bool last, uint32_t differ)
{
    struct member *m = members_get(t, node);

    if (m == NULL) {
        return;
    }
    if (first) {
        m->told = false;
        m->ranges_due = 0;
    }
    m->ranges_due += differ;
    m->told = m->told || last;
    settle(m);
}

void members_told_range(struct members *t, uint32_t node)
{
    struct member *m = members_get(t, node);

    if (m != NULL && m->ranges_due != 0) {
        m->ranges_due--;
        settle(m);
    }
}

bool members_intend(struct members *t, uint32_t node, const struct server_rec *rec, int64_t wall_ns,
                    uint64_t now_ms)
{
    struct member *m = members_get(t, node);
    uint64_t until = 0;
    bool changed;

    if (m == NULL) {
        return false;
    }
    if (rec->maintenance != MAINTENANCE_NONE && rec->until_ns > wall_ns) {
        until = now_ms + (uint64_t)(rec->until_ns - wall_ns) / NS_PER_MS;
    }
    changed = m->rec.intent != rec->intent || (m->away_until_ms != 0) != (until != 0);
    if (rec->intent == INTENT_NONE) {
        m->left = (struct member_left){ 0 };
    }
    m->rec.intent = rec->intent;
    m->rec.maintenance = rec->maintenance;
    m->rec.until_ns = rec->until_ns;
    m->away_until_ms = until;
    return changed;
}

/* "3": an id. */
static uint32_t number_of(struct slice s)
{
    uint64_t v = 0;

    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || v > UINT32_MAX) {
            return 0;
        }
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    return v <= UINT32_MAX ? (uint32_t)v : 0;
}

int members_find(const struct members *t, struct slice name, struct member **ret, struct why *why)
{
    struct member *found = members_get(t, number_of(name));

    for (size_t i = 0; i < t->count && found == NULL; i++) {
        found = slice_eq(slice_str(t->all[i]->rec.addr), name) ? t->all[i] : NULL;
    }
    for (size_t i = 0, hosts = 0; i < t->count && (found == NULL || hosts != 0); i++) {
        struct member *m = t->all[i];

        if (!slice_eq(slice_str(m->rec.host), name)) {
            continue;
        }
        if (hosts++ != 0) {
            return why_set(why, DFS_EINVAL,
                           "several block servers on host %s: name one by its address, such as %s",
                           m->rec.host, m->rec.addr);
        }
        found = m;
    }
    if (found == NULL) {
        return why_set(why, DFS_ENOENT,
                       "no block server \"%.*s\": dfs status lists ids, addresses and hosts",
                       (int)MIN(name.len, 255), (const char *)name.p);
    }
    *ret = found;
    return DFS_OK;
}

const struct member *members_twin(const struct members *t, const struct server_rec *rec,
                                  uint64_t boot)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct member *m = t->all[i];

        if (memcmp(m->rec.uuid, rec->uuid, sizeof(rec->uuid)) == 0) {
            return member_state(m) == MEMBER_LIVE && m->boot != 0 && m->boot != boot &&
                           strcmp(m->rec.addr, rec->addr) != 0
                       ? m
                       : NULL;
        }
    }
    return NULL;
}

int members_load(struct members *t, uint32_t node, const struct server_rec *rec, uint64_t now_ms)
{
    size_t i = find(t, node);
    struct member *m = members_get(t, node);

    if (m != NULL) {
        const struct server_rec old = m->rec;

        m->rec = *rec;
        m->rec.intent = old.intent;
        m->rec.maintenance = old.maintenance;
        m->rec.until_ns = old.until_ns;
        return DFS_OK;
    }
    if (t->count == LIMIT_BLOCK_SERVERS) {
        return DFS_ENOSPC;
    }
    if (t->count == t->cap) {
        t->cap = MAX(t->cap * 2, 16);
        t->all = x_realloc(t->all, t->cap * sizeof(struct member *));
    }
    m = x_alloc(sizeof(*m));
    m->node = node;
    m->rec = *rec;
    m->seen_ms = now_ms;
    SM_INIT(&m->sm, states, MEMBER_SUSPECT);
    memmove(&t->all[i + 1], &t->all[i], (t->count - i) * sizeof(struct member *));
    t->all[i] = m;
    t->count++;
    return DFS_OK;
}

static void put_text(char *to, size_t cap, struct slice s)
{
    size_t n = MIN(s.len, cap - 1);

    if (n != 0) {
        memcpy(to, s.p, n);
    }
    to[n] = '\0';
}

/* Decodes a list of volume_info into an array of the caller's. */
static int volumes_get(struct wire_list list, struct member_volume **ret, size_t *ret_count)
{
    struct wire_in in = wire_in_of(list.items);
    struct member_volume *v;

    if (list.count > LIMIT_VOLUMES) {
        return DFS_EMALFORMED;
    }
    v = x_alloc(list.count * sizeof(*v));
    for (uint32_t i = 0; i < list.count; i++) {
        struct volume_info vi;

        if (volume_info_get(&in, &vi) != DFS_OK) {
            free(v);
            return DFS_EMALFORMED;
        }
        v[i].uuid_len = (uint8_t)MIN(vi.uuid.len, sizeof(v[i].uuid));
        if (v[i].uuid_len != 0) {
            memcpy(v[i].uuid, vi.uuid.p, v[i].uuid_len);
        }
        put_text(v[i].path, sizeof(v[i].path), vi.path);
        put_text(v[i].label, sizeof(v[i].label), vi.label);
        v[i].total = vi.total;
        v[i].free = vi.free;
        v[i].used = vi.used;
        v[i].errors = vi.errors;
        v[i].blocks = vi.blocks;
        v[i].state = vi.state;
        v[i].write_us = vi.write_us;
        v[i].sync_us = vi.sync_us;
        v[i].read_us = vi.read_us;
        v[i].stuck_ms = vi.stuck_ms;
    }
    *ret = v;
    *ret_count = list.count;
    return DFS_OK;
}

/* Replicas may have come or gone without an order when a volume fails, comes or goes. */
static bool volumes_changed(const struct member *m, const struct member_volume *v, size_t count)
{
    if (m->volume_count != count) {
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        bool was_failed = m->volumes[i].state == VOLUME_FAILED;

        if (memcmp(m->volumes[i].uuid, v[i].uuid, sizeof(v[i].uuid)) != 0 ||
            was_failed != (v[i].state == VOLUME_FAILED)) {
            return true;
        }
    }
    return false;
}

/* What was found out about a volume stays with it. */
static void keep_trouble(const struct member *m, struct member_volume *v, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < m->volume_count; k++) {
            const struct member_volume *old = &m->volumes[k];

            if (memcmp(old->uuid, v[i].uuid, sizeof(old->uuid)) == 0) {
                v[i].trouble = old->trouble;
                v[i].slow_seconds = old->slow_seconds;
                v[i].trouble_ms = old->trouble_ms;
            }
        }
    }
}

/* Takes the array over. */
static void member_set_volumes(struct member *m, struct member_volume *v, size_t count)
{
    if (volumes_changed(m, v, count)) {
        m->report = true;
    }
    keep_trouble(m, v, count);
    free(m->volumes);
    m->volumes = v;
    m->volume_count = count;
    m->total = m->free = m->used = m->blocks = m->roomiest = 0;
    for (size_t i = 0; i < count; i++) {
        if (v[i].state == VOLUME_FAILED) {
            continue;
        }
        m->total += v[i].total;
        m->free += v[i].free;
        m->used += v[i].used;
        m->blocks += v[i].blocks;
        if (v[i].state == VOLUME_OK) {
            m->roomiest = MAX(m->roomiest, v[i].free);
        }
    }
}

static void member_heard(struct member *m, uint64_t now_ms)
{
    m->seen_ms = now_ms;
    m->heard = true;
    m->promised = 0;
    if (member_state(m) != MEMBER_LIVE) {
        sm_move(&m->sm, MEMBER_LIVE);
    }
}

int members_register(struct members *t, uint32_t node, uint64_t boot, struct wire_list volumes,
                     uint64_t now_ms, uint8_t *ret_was)
{
    struct member *m = members_get(t, node);
    struct member_volume *v;
    size_t count;
    int err;

    if (m == NULL) {
        return DFS_ENOENT;
    }
    err = volumes_get(volumes, &v, &count);
    if (err != DFS_OK) {
        return err;
    }
    *ret_was = member_state(m);
    member_set_volumes(m, v, count);
    m->boot = boot;
    m->report = true;
    m->writers = m->readers = 0;
    member_heard(m, now_ms);
    return DFS_OK;
}

int members_heartbeat(struct members *t, const struct server_heartbeat_req *req, uint64_t now_ms)
{
    struct member *m = members_get(t, req->node);
    struct member_volume *v;
    size_t count;
    int err;

    /* One that was dead registers too: its copies have to be compared before they count. */
    if (m == NULL || m->boot == 0 || m->boot != req->boot || member_state(m) == MEMBER_DEAD) {
        return DFS_ENOENT;
    }
    err = volumes_get(req->volumes, &v, &count);
    if (err != DFS_OK) {
        return err;
    }
    member_set_volumes(m, v, count);
    m->writers = req->writers;
    m->readers = req->readers;
    if (now_ms - m->report_ms >= t->conf.report_ms) {
        m->report = true;
    }
    member_heard(m, now_ms);
    return DFS_OK;
}

bool members_bye(struct members *t, uint32_t node, uint64_t boot)
{
    struct member *m = members_get(t, node);

    if (m == NULL || m->boot == 0 || m->boot != boot) {
        return false;
    }
    m->boot = 0; /* a late heartbeat of this start must not revive it */
    if (member_state(m) == MEMBER_LIVE) {
        sm_move(&m->sm, MEMBER_SUSPECT);
    }
    return true;
}

void members_step(struct members *t, uint64_t now_ms, members_fn *fn, void *arg)
{
    uint64_t slept = now_ms - t->step_ms;

    t->step_ms = now_ms;
    t->silent = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct member *m = t->all[i];
        uint8_t was = member_state(m);
        uint64_t silent;

        if (slept > t->conf.suspect_ms - t->conf.suspect_ms / 4) {
            m->seen_ms = MIN(m->seen_ms + slept, now_ms);
        }
        silent = now_ms > m->seen_ms ? now_ms - m->seen_ms : 0;
        if (was == MEMBER_LIVE && silent >= t->conf.suspect_ms) {
            sm_move(&m->sm, MEMBER_SUSPECT);
        }
        if (m->away_until_ms <= now_ms) {
            m->away_until_ms = 0;
        }
        if (member_state(m) == MEMBER_SUSPECT && silent >= t->conf.dead_ms &&
            m->away_until_ms == 0) {
            sm_move(&m->sm, MEMBER_DEAD);
        }
        t->silent += member_state(m) == MEMBER_SUSPECT && m->away_until_ms == 0;
        if (member_state(m) != was) {
            fn(arg, m, was);
        }
    }
    members_judge(t, now_ms);
}

bool members_expected(const struct members *t, uint64_t now_ms)
{
    if (now_ms - t->start_ms >= t->conf.suspect_ms) {
        return false;
    }
    for (size_t i = 0; i < t->count; i++) {
        if (!t->all[i]->heard) {
            return true;
        }
    }
    return false;
}

uint32_t member_put_volumes(const struct member *m, struct wire_out *out)
{
    for (size_t i = 0; i < m->volume_count; i++) {
        const struct member_volume *v = &m->volumes[i];
        struct volume_info vi = {
            .uuid = slice_of(v->uuid, v->uuid_len),
            .path = slice_str(v->path),
            .total = v->total,
            .free = v->free,
            .used = v->used,
            .blocks = v->blocks,
            .state = v->state,
            .errors = v->errors,
            .label = slice_str(v->label),
            .write_us = v->write_us,
            .sync_us = v->sync_us,
            .read_us = v->read_us,
            .stuck_ms = v->stuck_ms,
            .trouble = v->trouble,
        };

        volume_info_put(out, &vi);
    }
    return (uint32_t)m->volume_count;
}
