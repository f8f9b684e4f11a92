/* LMDB 0.9's file, native byte order; a page:
 *
 *   0  u64 its own number
 *  10  u16 flags: 1 branch, 2 leaf, 4 overflow
 *  12  u16 end of the offsets that follow the header   (overflow: u32 pages)
 *  14  u16 start of the nodes, which fill the page from its end
 *  16  u16 each: offset of a node
 *
 * a node: u16 low, u16 high, u16 flags, u16 key bytes, key, data. In a branch the first three are the
 * child's page; in a leaf low and high are the data's bytes, and the data is a page number (flag 1:
 * it is kept in overflow pages) or the record of a named tree (flag 2).
 */
#include "cluster/store/kv_check.h"

#include <fcntl.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define HEADER_BYTES  16
#define NODE_BYTES    8
#define PAGE_BRANCH   1
#define PAGE_LEAF     2
#define PAGE_OVERFLOW 4
#define NODE_BIG      1
#define NODE_TREE     2
#define NO_PAGE       UINT64_MAX
#define DEPTH_MAX     32 /* LMDB's own limit of a cursor */
#define LEAVES_MAX    65536

/* The record of a tree, in the meta page and in the leaves of the tree of names. */
#define TREE_BYTES    48
#define TREE_DEPTH_AT 6
#define TREE_ROOT_AT  40

/* The meta page: two trees (free pages, names), then the last page in use. */
#define META_FREE_AT  40
#define META_NAMES_AT 88
#define META_LAST_AT  136

/* A page whose nodes are being looked at. */
struct level {
    uint8_t *page;  /* owned */
    unsigned below; /* levels of the tree under this one; 0: a leaf */
    bool of_names;  /* of the tree of names: its leaves hold trees */
    size_t next;    /* node */
    size_t count;
};

struct walk {
    int fd;
    size_t page_bytes;
    uint64_t last;    /* highest page in use */
    uint64_t visited; /* in a tree no page comes twice */
    uint64_t leaves;
    uint64_t at;                       /* the page read last, for the message */
    struct level stack[2 * DEPTH_MAX]; /* the tree of names, and one below it */
    size_t depth;
};

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Reads the first n bytes of a page that must have a flag. */
static int read_page(struct walk *w, uint64_t pgno, uint16_t flag, uint8_t *page, size_t n)
{
    int err;

    w->at = pgno;
    if (pgno < 2 || pgno > w->last || w->visited++ > w->last) {
        return DFS_EDAMAGED;
    }
    err = io_pread(w->fd, page, n, pgno * w->page_bytes);
    if (err == 0 && (get64(page) != pgno || (get16(page + 10) & 7) != flag)) {
        err = DFS_EDAMAGED;
    }
    return err;
}

/* Node i, when all of it lies inside the page; its data begins at *ret_data. */
static int get_node(const struct walk *w, const uint8_t *page, bool leaf, size_t i,
                    const uint8_t **ret, size_t *ret_data)
{
    size_t lower = get16(page + 12);
    size_t upper = get16(page + 14);
    size_t at = get16(page + HEADER_BYTES + 2 * i);
    size_t data = at + NODE_BYTES;
    size_t len = 0;

    if (at < upper || upper < lower || data > w->page_bytes) {
        return DFS_EDAMAGED;
    }
    data += get16(page + at + 6);
    if (leaf) {
        len = get16(page + at) | (size_t)get16(page + at + 2) << 16;
        len = (get16(page + at + 4) & NODE_BIG) != 0 ? sizeof(uint64_t) : len;
    }
    if (data > w->page_bytes || len > w->page_bytes - data) {
        return DFS_EDAMAGED;
    }
    *ret = page + at;
    *ret_data = data;
    return 0;
}

static int check_big(struct walk *w, const uint8_t *node, uint64_t pgno)
{
    size_t len = get16(node) | (size_t)get16(node + 2) << 16;
    uint64_t pages = (HEADER_BYTES + len + w->page_bytes - 1) / w->page_bytes;
    uint8_t header[HEADER_BYTES];
    int err = read_page(w, pgno, PAGE_OVERFLOW, header, sizeof(header));

    return err != 0 ? err : pages > w->last - pgno + 1 ? DFS_EDAMAGED : 0;
}

/* Reads a page to look at all of its nodes. */
static int push_page(struct walk *w, uint64_t pgno, unsigned below, bool of_names)
{
    struct level *l = &w->stack[w->depth];
    size_t lower;
    int err;

    if (below == 0 && w->leaves++ >= LEAVES_MAX) {
        return 0;
    }
    *l = (struct level){ .page = x_alloc(w->page_bytes), .below = below, .of_names = of_names };
    w->depth++;
    err = read_page(w, pgno, below == 0 ? PAGE_LEAF : PAGE_BRANCH, l->page, w->page_bytes);
    lower = get16(l->page + 12);
    if (err == 0 && (lower < HEADER_BYTES + 2 || lower % 2 != 0 || lower > w->page_bytes)) {
        err = DFS_EDAMAGED;
    }
    if (err == 0) {
        l->count = (lower - HEADER_BYTES) / 2;
    }
    return err;
}

static int push_tree(struct walk *w, const uint8_t *rec, bool of_names)
{
    unsigned depth = get16(rec + TREE_DEPTH_AT);
    uint64_t root = get64(rec + TREE_ROOT_AT);

    if (root == NO_PAGE) {
        return depth == 0 ? 0 : DFS_EDAMAGED;
    }
    return depth == 0 || depth > DEPTH_MAX ? DFS_EDAMAGED : push_page(w, root, depth - 1, of_names);
}

static int check_leaf_node(struct walk *w, const struct level *l, const uint8_t *node, size_t data)
{
    uint16_t flags = get16(node + 4);

    if ((flags & NODE_BIG) != 0) {
        return check_big(w, node, get64(l->page + data));
    }
    if (l->of_names) {
        bool whole = (flags & NODE_TREE) != 0 && w->page_bytes - data >= TREE_BYTES;

        return whole ? push_tree(w, l->page + data, false) : DFS_EDAMAGED;
    }
    return (flags & NODE_TREE) != 0 ? DFS_EDAMAGED : 0;
}

/* The next node of the page on top, and what it leads to; or the page is done. */
static int step(struct walk *w)
{
    struct level *l = &w->stack[w->depth - 1];
    const uint8_t *node = NULL;
    size_t data = 0;
    int err;

    if (l->next == l->count) {
        free(l->page);
        w->depth--;
        return 0;
    }
    err = get_node(w, l->page, l->below == 0, l->next++, &node, &data);
    if (err != 0) {
        w->at = get64(l->page);
        return err;
    }
    if (l->below == 0) {
        return check_leaf_node(w, l, node, data);
    }
    return push_page(
        w, get16(node) | (uint64_t)get16(node + 2) << 16 | (uint64_t)get16(node + 4) << 32,
        l->below - 1, l->of_names);
}

static int check_tree(struct walk *w, const uint8_t *rec, bool of_names)
{
    int err = push_tree(w, rec, of_names);

    while (err == 0 && w->depth > 0) {
        err = step(w);
    }
    while (w->depth > 0) {
        free(w->stack[--w->depth].page);
    }
    return err;
}

int kv_check(const char *data, const struct checkpoint *c, struct why *why)
{
    struct walk w = { .page_bytes = c->page_bytes, .last = get64(c->meta + META_LAST_AT) };
    int err;

    w.fd = open(data, O_RDONLY | O_CLOEXEC);
    if (w.fd < 0) {
        return why_set(why, err_from_errno(errno), "%s: %s", data, strerror(errno));
    }
    err = check_tree(&w, c->meta + META_FREE_AT, false);
    err = err != 0 ? err : check_tree(&w, c->meta + META_NAMES_AT, true);
    io_close(w.fd);
    if (err == DFS_EDAMAGED) {
        return why_set(why, err, "%s is damaged at page %ju (byte %ju)", data, (uintmax_t)w.at,
                       (uintmax_t)(w.at * w.page_bytes));
    }
    return err != 0 ? why_set(why, err, "%s: page %ju: %s", data, (uintmax_t)w.at, err_text(err))
                    : 0;
}
