#include "fs/client/extmap.h"

#include "cluster/base/base.h"

#define LEAF_MAX   256u
#define LEAF_FIRST 4u

struct pos {
    size_t leaf;
    uint32_t i;
};

static uint64_t end_of(const struct extent *e)
{
    return e->off + e->len;
}

static bool pos_ok(const struct extmap *m, struct pos p)
{
    return p.leaf < m->leaves;
}

static struct extent *at(const struct extmap *m, struct pos p)
{
    return &m->leaf[p.leaf].e[p.i];
}

/* The first extent that ends behind off. */
static struct pos find(const struct extmap *m, uint64_t off)
{
    size_t lo = 0;
    size_t hi = m->leaves;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct extmap_leaf *l = &m->leaf[mid];

        if (end_of(&l->e[l->count - 1]) > off) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    struct pos p = { lo, 0 };

    if (!pos_ok(m, p)) {
        return p;
    }
    const struct extmap_leaf *l = &m->leaf[lo];
    uint32_t a = 0;
    uint32_t b = l->count - 1;

    while (a < b) {
        uint32_t mid = (a + b) / 2;

        if (end_of(&l->e[mid]) > off) {
            b = mid;
        } else {
            a = mid + 1;
        }
    }
    p.i = a;
    return p;
}

static struct pos next(const struct extmap *m, struct pos p)
{
    p.i++;
    if (p.i >= m->leaf[p.leaf].count) {
        p.leaf++;
        p.i = 0;
    }
    return p;
}

/* The extent before p; false at the first. */
static bool prev(const struct extmap *m, struct pos p, struct pos *ret)
{
    if (p.leaf < m->leaves && p.i > 0) {
        *ret = (struct pos){ p.leaf, p.i - 1 };
        return true;
    }
    if (p.leaf == 0) {
        return false;
    }
    *ret = (struct pos){ p.leaf - 1, m->leaf[p.leaf - 1].count - 1 };
    return true;
}

static void leaf_add(struct extmap *m, size_t index)
{
    if (m->leaves == m->cap) {
        m->cap = m->cap == 0 ? 1 : m->cap * 2;
        m->leaf = x_realloc(m->leaf, m->cap * sizeof(*m->leaf));
    }
    memmove(&m->leaf[index + 1], &m->leaf[index], (m->leaves - index) * sizeof(*m->leaf));
    m->leaf[index] = (struct extmap_leaf){ 0 };
    m->leaves++;
}

static void leaf_reserve(struct extmap_leaf *l, uint32_t want)
{
    if (want > l->cap) {
        l->cap = MIN(LEAF_MAX, MAX(want, MAX(LEAF_FIRST, l->cap * 2)));
        l->e = x_realloc(l->e, l->cap * sizeof(*l->e));
    }
}

/* Moves the upper half of a full leaf into a new one behind it. */
static void leaf_split(struct extmap *m, size_t index)
{
    leaf_add(m, index + 1);
    struct extmap_leaf *from = &m->leaf[index];
    struct extmap_leaf *to = &m->leaf[index + 1];
    uint32_t half = from->count / 2;

    leaf_reserve(to, from->count - half);
    to->count = from->count - half;
    memcpy(to->e, &from->e[half], to->count * sizeof(*to->e));
    from->count = half;
}

/* Puts e before p. */
static void insert_at(struct extmap *m, struct pos p, const struct extent *e)
{
    if (m->leaves == 0) {
        leaf_add(m, 0);
        p = (struct pos){ 0, 0 };
    } else if (!pos_ok(m, p)) {
        p.leaf = m->leaves - 1;
        p.i = m->leaf[p.leaf].count;
    }
    if (m->leaf[p.leaf].count == LEAF_MAX) {
        if (p.leaf == m->leaves - 1 && p.i == LEAF_MAX) {
            leaf_add(m, m->leaves); /* appending leaves full leaves behind */
            p = (struct pos){ m->leaves - 1, 0 };
        } else {
            leaf_split(m, p.leaf);
            if (p.i > m->leaf[p.leaf].count) {
                p.i -= m->leaf[p.leaf].count;
                p.leaf++;
            }
        }
    }
    struct extmap_leaf *l = &m->leaf[p.leaf];

    leaf_reserve(l, l->count + 1);
    memmove(&l->e[p.i + 1], &l->e[p.i], (l->count - p.i) * sizeof(*l->e));
    l->e[p.i] = *e;
    l->count++;
    m->count++;
    m->bytes += e->len;
}

/* Takes the extent at p out; p then names the one that followed it. */
static struct pos remove_at(struct extmap *m, struct pos p)
{
    struct extmap_leaf *l = &m->leaf[p.leaf];

    m->bytes -= l->e[p.i].len;
    l->count--;
    m->count--;
    memmove(&l->e[p.i], &l->e[p.i + 1], (l->count - p.i) * sizeof(*l->e));
    if (l->count == 0) {
        free(l->e);
        m->leaves--;
        memmove(l, l + 1, (m->leaves - p.leaf) * sizeof(*l));
        p.i = 0;
    } else if (p.i == l->count) {
        p = (struct pos){ p.leaf + 1, 0 };
    }
    return p;
}

void extmap_clear(struct extmap *m)
{
    for (size_t i = 0; i < m->leaves; i++) {
        free(m->leaf[i].e);
    }
    free(m->leaf);
    *m = (struct extmap){ 0 };
}

static void cut_front(struct extent *e, uint64_t n)
{
    e->off += n;
    e->block_off += (uint32_t)n;
    e->len -= n;
}

void extmap_punch(struct extmap *m, uint64_t off, uint64_t len)
{
    uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;
    struct pos p = find(m, off);

    while (off < end && pos_ok(m, p) && at(m, p)->off < end) {
        struct extent *e = at(m, p);

        if (e->off < off) {
            struct extent right = *e;

            m->bytes -= end_of(e) - off;
            e->len = off - e->off;
            p = next(m, p);
            if (end_of(&right) > end) {
                cut_front(&right, end - right.off);
                insert_at(m, p, &right);
                return;
            }
        } else if (end_of(e) > end) {
            m->bytes -= end - e->off;
            cut_front(e, end - e->off);
            return;
        } else {
            p = remove_at(m, p);
        }
    }
}

/* Does b go on where a ends, in the file and in the block? */
static bool continues(const struct extent *a, const struct extent *b)
{
    return a->block == b->block && end_of(a) == b->off && a->block_off + a->len == b->block_off;
}

void extmap_insert(struct extmap *m, const struct extent *e)
{
    if (e->len == 0) {
        return;
    }
    extmap_punch(m, e->off, e->len);
    struct pos after = find(m, e->off);
    struct pos before;

    if (prev(m, after, &before) && continues(at(m, before), e)) {
        struct extent *left = at(m, before);

        left->len += e->len;
        m->bytes += e->len;
        if (pos_ok(m, after) && continues(left, at(m, after))) {
            left->len += at(m, after)->len;
            m->bytes += at(m, after)->len;
            remove_at(m, after);
        }
    } else if (pos_ok(m, after) && continues(e, at(m, after))) {
        struct extent *right = at(m, after);

        right->off = e->off;
        right->block_off = e->block_off;
        right->len += e->len;
        m->bytes += e->len;
    } else {
        insert_at(m, after, e);
    }
}

void extmap_overlay(struct extmap *m, const struct extmap *src)
{
    for (size_t i = 0; i < src->leaves; i++) {
        for (uint32_t k = 0; k < src->leaf[i].count; k++) {
            extmap_insert(m, &src->leaf[i].e[k]);
        }
    }
}

bool extmap_find(const struct extmap *m, uint64_t off, struct extent *ret)
{
    struct pos p = find(m, off);

    if (!pos_ok(m, p)) {
        return false;
    }
    *ret = *at(m, p);
    return true;
}

uint64_t extmap_beside(const struct extmap *m, const struct extmap *below)
{
    uint64_t sum = m->bytes;
    struct extent e;
    struct extent b;

    for (uint64_t pos = 0; extmap_find(m, pos, &e); pos = end_of(&e)) {
        for (uint64_t at = e.off; extmap_find(below, at, &b) && b.off < end_of(&e);
             at = end_of(&b)) {
            sum -= MIN(end_of(&e), end_of(&b)) - MAX(e.off, b.off);
        }
    }
    return sum;
}

uint64_t extmap_end(const struct extmap *m)
{
    if (m->leaves == 0) {
        return 0;
    }
    const struct extmap_leaf *l = &m->leaf[m->leaves - 1];

    return end_of(&l->e[l->count - 1]);
}
