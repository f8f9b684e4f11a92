#include "replication/map/balance.h"

#define TARGETS_TRIED 4u     /* for one block */
#define REST_MS       30000u /* for a server after a round over its blocks without a move */

void balance_init(struct balance *b, const struct balance_conf *conf, struct members *members,
                  struct repair *repair)
{
    *b = (struct balance){ .conf = *conf, .members = members, .repair = repair };
    b->bucket.rate = conf->rate;
}

void balance_set(struct balance *b, uint32_t threshold, uint64_t rate)
{
    b->conf.threshold = threshold;
    b->conf.rate = rate;
    b->bucket.rate = rate;
}

/* ---- how full ---- */

/* Bytes of copies, with moves that heartbeats do not show yet. */
static double used(const struct balance *b, const struct member *m)
{
    double bytes = (double)m->used;

    for (size_t i = 0; i < b->move_count; i++) {
        bytes += b->moves[i].to == m->node ? (double)b->moves[i].len : 0;
        bytes -= b->moves[i].from == m->node ? (double)b->moves[i].len : 0;
    }
    return MAX(bytes, 0.0);
}

static double capacity(const struct member *m)
{
    return (double)m->used + (double)m->free;
}

static bool counts(const struct member *m)
{
    return member_takes(m) && m->used + m->free != 0;
}

static double mean(const struct balance *b)
{
    double sum = 0, all = 0;

    for (size_t i = 0; i < b->members->count; i++) {
        const struct member *m = b->members->all[i];

        if (counts(m)) {
            sum += used(b, m);
            all += capacity(m);
        }
    }
    return all > 0 ? sum / all : 0;
}

void balance_get_counts(const struct balance *b, struct balance_counts *ret)
{
    double middle = mean(b), threshold = b->conf.threshold / 100.0, over = 0, under = 0;

    *ret = (struct balance_counts){ .rate = b->meter.rate };
    for (size_t i = 0; i < b->move_count; i++) {
        ret->moving += b->moves[i].ended_ms == 0;
    }
    for (size_t i = 0; i < b->members->count && b->conf.threshold != 0; i++) {
        const struct member *m = b->members->all[i];
        double off = counts(m) ? used(b, m) / capacity(m) - middle : 0;

        over += off > threshold ? (off - threshold) * capacity(m) : 0;
        under += off < -threshold ? (-threshold - off) * capacity(m) : 0;
    }
    ret->bytes = (uint64_t)MAX(over, under);
}

/* ---- steps ---- */

static void forget_ended(struct balance *b, uint64_t now_ms)
{
    size_t kept = 0;

    for (size_t i = 0; i < b->move_count; i++) {
        struct balance_move *m = &b->moves[i];

        if (m->ended_ms == 0 && !repair_is_moving(b->repair, m->block)) {
            m->ended_ms = MAX(now_ms, UINT64_C(1));
            b->meter.units += m->len;
        }
        if (m->ended_ms == 0 || now_ms - m->ended_ms < b->conf.settle_ms) {
            b->moves[kept++] = *m;
        }
    }
    b->move_count = kept;
}

static bool is_tired(const struct balance *b, uint32_t node, uint64_t now_ms)
{
    for (size_t i = 0; i < BALANCE_TIRED; i++) {
        if (b->tired[i].node == node && now_ms < b->tired[i].until_ms) {
            return true;
        }
    }
    return false;
}

/* The fullest server that has something to give, when there is a reason to move anything: one is too
 * far from the mean. Where racks or labels keep the fullest from giving the next ones do. */
static uint32_t find_source(const struct balance *b, uint64_t now_ms)
{
    double middle = mean(b), threshold = b->conf.threshold / 100.0, most = 0, least = 1;
    bool reason = false;
    uint32_t source = 0;

    for (size_t i = 0; i < b->members->count; i++) {
        const struct member *m = b->members->all[i];
        double full;

        if (!counts(m)) {
            continue;
        }
        full = used(b, m) / capacity(m);
        least = MIN(least, full);
        reason = reason || full > middle + threshold || full < middle - threshold;
        if (full > most && !is_tired(b, m->node, now_ms)) {
            most = full;
            source = m->node;
        }
    }
    return reason && most > least + threshold ? source : 0;
}

uint32_t balance_step(struct balance *b, uint64_t now_ms, uint64_t *ret_from)
{
    uint32_t source;

    forget_ended(b, now_ms);
    meter_step(&b->meter, now_ms);
    if (b->conf.threshold == 0 || b->move_count == BALANCE_MOVES ||
        !bucket_open(&b->bucket, now_ms) || !repair_is_idle(b->repair, now_ms)) {
        return 0;
    }
    source = find_source(b, now_ms);
    if (source != b->source) {
        b->source = source;
        b->from = 0;
        b->began = 0;
    }
    *ret_from = b->from;
    return source;
}

/* The emptiest server that is clearly emptier than the source and not in tried[]. */
static const struct member *find_target(const struct balance *b, const struct member *source,
                                        double bytes, const uint32_t *tried, size_t tried_count)
{
    double full_source = used(b, source) / capacity(source);
    double after = full_source - bytes / capacity(source);
    double least = full_source - b->conf.threshold / 100.0;
    const struct member *best = NULL;

    for (size_t i = 0; i < b->members->count; i++) {
        const struct member *m = b->members->all[i];
        bool out = m == source || !counts(m);
        double full;

        for (size_t k = 0; k < tried_count && !out; k++) {
            out = tried[k] == m->node;
        }
        if (out) {
            continue;
        }
        full = used(b, m) / capacity(m);
        /* Still not fuller than the source afterwards: never a reason to move back. */
        if (full < least && full + bytes / capacity(m) <= after) {
            least = full;
            best = m;
        }
    }
    return best;
}

bool balance_offer(struct balance *b, uint64_t block, const struct block_rec *rec, uint64_t now_ms)
{
    const struct member *source = members_get(b->members, b->source);
    uint32_t tried[TARGETS_TRIED];

    b->from = block + 1;
    if (source == NULL || rec->state != BLOCK_SEALED || rec->len == 0) {
        return source != NULL;
    }
    for (size_t n = 0; n < TARGETS_TRIED; n++) {
        const struct member *to = find_target(b, source, rec->len, tried, n);

        if (to == NULL) {
            return true; /* a smaller block may fit */
        }
        if (repair_move(b->repair, block, b->source, to->node, now_ms)) {
            b->moves[b->move_count++] = (struct balance_move){
                .block = block, .from = b->source, .to = to->node, .len = rec->len
            };
            b->began++;
            bucket_take(&b->bucket, rec->len);
            return false; /* the fullest may be another one now */
        }
        tried[n] = to->node;
    }
    return true;
}

void balance_end_of_blocks(struct balance *b, uint64_t now_ms)
{
    if (b->began == 0) {
        b->tired[b->tired_next].node = b->source;
        b->tired[b->tired_next].until_ms = now_ms + REST_MS;
        b->tired_next = (b->tired_next + 1) % BALANCE_TIRED;
    }
    b->source = 0;
}
