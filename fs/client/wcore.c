/* The happy path: ALLOC, then SEND packet after packet, AWAIT when the window is full; the packet
 * that fills the block carries WRITE_LAST and makes it CLOSING, the next one asks for a new block
 * while the old one's answers still come. A drained goal awaits all answers; a synced one marks the
 * last packet WRITE_SYNC, or sends a sync of its own when there is none to mark.
 *
 * What can fail:
 *   opening, sending, an answer    the block is FAILED: sealed at what was acknowledged, its
 *                                  unanswered packets go to the next block
 *   a sync after the block is GONE asked of each copy (SYNC_COPIES)
 *   the session                    wcore_lost(): what is not committed must be written again
 */
#include "fs/client/wcore.h"

#include "cluster/base/base.h"

void wcore_init(struct wcore *w, uint32_t window)
{
    *w = (struct wcore){ .window = window };
}

void wcore_fini(struct wcore *w)
{
    free(w->gone);
    free(w->ring);
    w->gone = NULL;
    w->ring = NULL;
}

void wcore_slim(struct wcore *w)
{
    ASSERT(w->count == 0);
    free(w->ring);
    w->ring = NULL;
}

static struct wcore_packet *packet(const struct wcore *w, uint32_t i)
{
    return (struct wcore_packet *)(uintptr_t)&w->ring[(w->head + i) % WCORE_PACKETS];
}

static struct wcore_block *live_block(struct wcore *w, uint64_t block)
{
    for (size_t i = 0; i < w->live_count; i++) {
        if (w->live[i].id == block) {
            return &w->live[i];
        }
    }
    ASSERT(!"a block of this session");
    return NULL;
}

const struct wcore_block *wcore_block(const struct wcore *w, uint64_t block)
{
    for (size_t i = 0; i < w->live_count; i++) {
        if (w->live[i].id == block) {
            return &w->live[i];
        }
    }
    for (size_t i = w->gone_count; i > 0; i--) {
        if (w->gone[i - 1].id == block) {
            return &w->gone[i - 1];
        }
    }
    return NULL;
}

const struct wcore_block *wcore_open_block(const struct wcore *w)
{
    for (size_t i = 0; i < w->live_count; i++) {
        if (w->live[i].state == WCORE_OPEN) {
            return &w->live[i];
        }
    }
    return NULL;
}

/* ---- the queue ---- */

bool wcore_add(struct wcore *w, uint64_t id, uint32_t len)
{
    ASSERT(id != 0 && len != 0);
    if (w->count == WCORE_PACKETS) {
        return false;
    }
    if (w->ring == NULL) {
        w->ring = x_alloc(WCORE_PACKETS * sizeof(*w->ring));
    }
    *packet(w, w->count++) = (struct wcore_packet){ .id = id, .len = len };
    return true;
}

bool wcore_retire(struct wcore *w, struct wcore_packet *ret)
{
    if (w->count == 0 || !packet(w, 0)->acked) {
        return false;
    }
    return wcore_drop(w, ret);
}

bool wcore_drop(struct wcore *w, struct wcore_packet *ret)
{
    if (w->count == 0) {
        return false;
    }
    *ret = *packet(w, 0);
    if (ret->block != 0 && !ret->acked) {
        w->in_flight -= ret->len;
    }
    w->head = (w->head + 1) % WCORE_PACKETS;
    w->count--;
    return true;
}

static const struct wcore_packet *first_queued(const struct wcore *w, bool *ret_last)
{
    const struct wcore_packet *found = NULL;

    for (uint32_t i = 0; i < w->count; i++) {
        if (packet(w, i)->block != 0) {
            continue;
        }
        if (found != NULL) {
            *ret_last = false;
            return found;
        }
        found = packet(w, i);
    }
    *ret_last = true;
    return found;
}

/* The oldest packet that was sent (on block, if that is not 0) and not answered. */
static struct wcore_packet *first_sent(const struct wcore *w, uint64_t block)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct wcore_packet *p = packet(w, i);

        if (p->block != 0 && !p->acked && (block == 0 || p->block == block)) {
            return p;
        }
    }
    return NULL;
}

uint32_t wcore_room(const struct wcore *w)
{
    const struct wcore_block *b = wcore_open_block(w);
    uint64_t tail = b != NULL ? b->sent : 0;

    for (uint32_t i = 0; i < w->count; i++) {
        tail += packet(w, i)->block == 0 ? packet(w, i)->len : 0;
    }
    uint32_t room = PACKET_BYTES - (uint32_t)(tail % PACKET_BYTES);

    return b != NULL && tail < b->limit ? MIN(room, b->limit - (uint32_t)tail) : room;
}

/* ---- what to do next ---- */

static bool await_any(const struct wcore *w, struct wcore_action *ret)
{
    const struct wcore_packet *p = first_sent(w, 0);

    ret->what = WCORE_AWAIT;
    if (p != NULL) {
        ret->block = p->block;
        return true;
    }
    for (size_t i = 0; i < w->live_count; i++) {
        if (w->live[i].control != 0) {
            ret->block = w->live[i].id;
            return true;
        }
    }
    return false;
}

static struct wcore_action next_packet(const struct wcore *w, const struct wcore_packet *p,
                                       bool sync)
{
    const struct wcore_block *b = wcore_open_block(w);
    struct wcore_action a = { .what = WCORE_ALLOC, .len = p->len };

    if (b == NULL) {
        bool wait = w->live_count == WCORE_LIVE && await_any(w, &a);

        ASSERT(wait || w->live_count < WCORE_LIVE);
        return a;
    }
    if (b->control != 0) {
        return (struct wcore_action){ .what = WCORE_AWAIT, .block = b->id };
    }
    a = (struct wcore_action){ .what = WCORE_SEND, .block = b->id, .off = b->sent };
    if (p->len > b->limit - b->sent) {
        a.flags = WRITE_LAST;
        return a;
    }
    a.id = p->id;
    a.len = p->len;
    a.flags = (uint8_t)((sync ? WRITE_SYNC : 0) | (b->sent + p->len == b->limit ? WRITE_LAST : 0));
    return a;
}

static struct wcore_action next_sync(const struct wcore *w)
{
    const struct wcore_block *b = wcore_open_block(w);

    if (b != NULL && b->synced < b->acked) {
        return (struct wcore_action){
            .what = WCORE_SEND, .block = b->id, .off = b->sent, .flags = WRITE_SYNC
        };
    }
    for (size_t i = w->gone_count; i > 0; i--) {
        b = &w->gone[i - 1];
        if (b->synced < b->acked) {
            return (
                struct wcore_action){ .what = WCORE_SYNC_COPIES, .block = b->id, .len = b->acked };
        }
    }
    return (struct wcore_action){ .what = WCORE_IDLE };
}

struct wcore_action wcore_next(const struct wcore *w, enum wcore_goal goal)
{
    struct wcore_action a = { .what = WCORE_IDLE };
    bool last;

    for (size_t i = 0; i < w->live_count; i++) {
        const struct wcore_block *b = &w->live[i];

        if (b->state == WCORE_FAILED) {
            return (struct wcore_action){
                .what = WCORE_SEAL, .block = b->id, .len = b->acked, .bad = b->bad
            };
        }
    }
    const struct wcore_packet *p = first_queued(w, &last);

    if (p != NULL) {
        if (w->in_flight > 0 && p->len > w->window - MIN(w->window, w->in_flight)) {
            await_any(w, &a);
            return a;
        }
        return next_packet(w, p, last && goal == WCORE_SYNC);
    }
    if (goal == WCORE_PUSH) {
        return a;
    }
    if (await_any(w, &a)) {
        return a;
    }
    return goal == WCORE_SYNC ? next_sync(w) : (struct wcore_action){ .what = WCORE_IDLE };
}

/* ---- what happened ---- */

void wcore_opened(struct wcore *w, uint64_t block, uint32_t base, uint32_t limit)
{
    ASSERT(w->live_count < WCORE_LIVE && base <= limit && wcore_open_block(w) == NULL);
    w->live[w->live_count++] = (struct wcore_block){
        .id = block,
        .state = WCORE_OPEN,
        .limit = limit,
        .sent = base,
        .acked = base,
        .synced = base,
        .committed = base,
    };
}

void wcore_sent(struct wcore *w, const struct wcore_action *a)
{
    struct wcore_block *b = live_block(w, a->block);

    ASSERT(a->what == WCORE_SEND && b->state == WCORE_OPEN && a->off == b->sent);
    if (a->id == 0) {
        b->control = a->flags;
    } else {
        bool last;
        const struct wcore_packet *p = first_queued(w, &last);
        struct wcore_packet *mine = (struct wcore_packet *)(uintptr_t)p;

        ASSERT(p != NULL && p->id == a->id);
        mine->block = a->block;
        mine->off = a->off;
        mine->flags = a->flags;
        b->sent += p->len;
        w->in_flight += p->len;
    }
    if ((a->flags & WRITE_LAST) != 0) {
        b->state = WCORE_CLOSING;
    }
}

static bool settled(const struct wcore_block *b)
{
    return b->synced >= b->acked && b->committed >= b->acked;
}

/* a's committed length when b's turn at the same block is remembered with it. */
static uint32_t both_committed(const struct wcore_block *a, const struct wcore_block *b)
{
    uint32_t of_a = a->committed < a->acked ? a->committed : UINT32_MAX;
    uint32_t of_b = b->committed < b->acked ? b->committed : UINT32_MAX;

    return MIN(MIN(of_a, of_b), MAX(a->acked, b->acked));
}

static void remember(struct wcore *w, struct wcore_block b)
{
    b.state = WCORE_GONE;
    b.control = 0;
    if (settled(&b)) {
        return;
    }
    for (size_t i = 0; i < w->gone_count; i++) {
        struct wcore_block *old = &w->gone[i];

        if (old->id == b.id) { /* a stream that came back from the pool */
            old->committed = both_committed(old, &b);
            old->acked = MAX(old->acked, b.acked);
            old->synced = MIN(old->synced, b.synced);
            return;
        }
    }
    if (w->gone_count == w->gone_cap) {
        w->gone_cap = w->gone_cap == 0 ? 4 : w->gone_cap * 2;
        w->gone = x_realloc(w->gone, w->gone_cap * sizeof(*w->gone));
    }
    w->gone[w->gone_count++] = b;
}

/* The connection is no more; what the block still needs is remembered. */
static void go(struct wcore *w, struct wcore_block *b)
{
    struct wcore_block old = *b;

    *b = w->live[--w->live_count];
    remember(w, old);
}

void wcore_adopt(struct wcore *w, uint64_t block, uint32_t end)
{
    for (size_t i = 0; i < w->gone_count; i++) {
        if (w->gone[i].id == block) {
            w->gone[i].acked = MAX(w->gone[i].acked, end);
            return;
        }
    }
    remember(w, (struct wcore_block){ .id = block, .acked = end });
}

static void forget_settled(struct wcore *w, uint64_t block)
{
    for (size_t i = w->gone_count; i > 0; i--) {
        if (w->gone[i - 1].id == block && settled(&w->gone[i - 1])) {
            w->gone_count--;
            memmove(&w->gone[i - 1], &w->gone[i], (w->gone_count - i + 1) * sizeof(*w->gone));
        }
    }
}

int wcore_answered(struct wcore *w, uint64_t block, uint32_t end)
{
    struct wcore_block *b = live_block(w, block);
    struct wcore_packet *p = first_sent(w, block);
    uint8_t flags;

    if (p != NULL) {
        if (p->off + p->len != end) {
            return DFS_EMALFORMED;
        }
        flags = p->flags;
        p->acked = true;
        w->in_flight -= p->len;
        b->acked = end;
    } else {
        flags = b->control;
        if (flags == 0 || end != b->acked) {
            return DFS_EMALFORMED;
        }
        b->control = 0;
    }
    if ((flags & WRITE_SYNC) != 0) {
        b->synced = b->acked;
        wcore_synced(w, block, b->acked); /* what an earlier turn left in the same block */
    }
    if ((flags & WRITE_LAST) != 0) {
        go(w, b);
    }
    return DFS_OK;
}

void wcore_failed(struct wcore *w, uint64_t block, uint32_t bad)
{
    struct wcore_block *b = live_block(w, block);

    for (uint32_t i = 0; i < w->count; i++) {
        struct wcore_packet *p = packet(w, i);

        if (p->block == block && !p->acked) {
            p->block = 0;
            w->in_flight -= p->len;
        }
    }
    b->state = WCORE_FAILED;
    b->control = 0;
    b->bad = bad;
    b->sent = b->acked;
}

void wcore_sealed(struct wcore *w, uint64_t block)
{
    struct wcore_block *b = live_block(w, block);

    ASSERT(b->state == WCORE_FAILED);
    go(w, b);
}

void wcore_synced(struct wcore *w, uint64_t block, uint32_t len)
{
    for (size_t i = w->gone_count; i > 0; i--) {
        if (w->gone[i - 1].id == block) {
            w->gone[i - 1].synced = MAX(w->gone[i - 1].synced, len);
        }
    }
    forget_settled(w, block);
}

void wcore_detach(struct wcore *w)
{
    const struct wcore_block *open = wcore_open_block(w);

    if (open != NULL) {
        struct wcore_block *b = live_block(w, open->id);

        ASSERT(b->sent == b->acked && b->control == 0);
        go(w, b);
    }
}

void wcore_lost(struct wcore *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        packet(w, i)->block = 0;
        packet(w, i)->acked = false;
    }
    w->in_flight = 0;
    while (w->live_count > 0) {
        go(w, &w->live[0]);
    }
    size_t kept = 0;

    for (size_t i = 0; i < w->gone_count; i++) {
        struct wcore_block *b = &w->gone[i];

        /* The masters seal at the committed length; what is behind it does not count. */
        b->acked = MIN(b->acked, b->committed);
        if (!settled(b)) {
            w->gone[kept++] = *b;
        }
    }
    w->gone_count = kept;
}

/* ---- commits ---- */

bool wcore_uncommitted(const struct wcore *w, size_t *i, struct commit_block *ret)
{
    for (; *i < w->live_count + w->gone_count; ++*i) {
        const struct wcore_block *b =
            *i < w->live_count ? &w->live[*i] : &w->gone[*i - w->live_count];

        if (b->acked > b->committed) {
            *ret = (struct commit_block){ .block = b->id, .len = b->acked };
            ++*i;
            return true;
        }
    }
    return false;
}

void wcore_committed(struct wcore *w, const struct commit_block *c)
{
    for (size_t i = 0; i < w->live_count + w->gone_count; i++) {
        struct wcore_block *b = i < w->live_count ? &w->live[i] : &w->gone[i - w->live_count];

        if (b->id == c->block) {
            b->committed = MAX(b->committed, c->len);
        }
    }
    forget_settled(w, c->block);
}

size_t wcore_forget_committed(struct wcore *w)
{
    size_t kept = 0;
    size_t count = w->gone_count;

    for (size_t i = 0; i < count; i++) {
        if (w->gone[i].committed < w->gone[i].acked) {
            w->gone[kept++] = w->gone[i];
        }
    }
    w->gone_count = kept;
    return count - kept;
}

bool wcore_unsynced(const struct wcore *w)
{
    for (size_t i = 0; i < w->live_count; i++) {
        if (w->live[i].synced < w->live[i].acked) {
            return true;
        }
    }
    for (size_t i = 0; i < w->gone_count; i++) {
        if (w->gone[i].synced < w->gone[i].acked) {
            return true;
        }
    }
    return w->count > 0;
}
