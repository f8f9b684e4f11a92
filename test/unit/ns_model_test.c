/* Random operations against a model so simple that it is right: names in one flat table, files as
 * arrays that tell for each byte where it is stored. Same seed, same run. */
#include <linux/falloc.h>
#include <linux/fs.h>

#include "cluster/base/rng.h"

#include "test/unit/ns_rig.h"

#define INODES  100
#define NAMES   40
#define BLOCKS  900
#define BYTES   64  /* of a file */
#define BLOCK   150 /* bytes until a block is full */
#define STEPS   25000
#define KINDS   19
#define LETTERS 4 /* names: "a" to "d" */

struct node {
    uint64_t ino; /* 0: free */
    uint32_t type;
    uint32_t nlink;
    uint64_t parent;
    uint64_t size;
    uint8_t repl;
    uint32_t at[BYTES]; /* where each byte is: block * 1000 + offset + 1; 0 = hole */
};

struct name {
    uint64_t parent; /* 0: free */
    uint64_t ino;
    char text[2];
};

struct block {
    uint64_t owner; /* session, 0 once released */
    uint32_t len;
    bool open;
    bool dead;
};

static struct rig r;
static struct rng rng;
static struct node nodes[INODES];
static struct name names[NAMES];
static struct block blocks[BLOCKS]; /* by id */
static uint64_t current;            /* block being appended to */
static int done[KINDS];             /* operations that succeeded, by kind */

static uint64_t below(uint64_t n)
{
    return rng_below(&rng, n);
}

static struct node *node_of(uint64_t ino)
{
    for (size_t i = 0; i < INODES; i++) {
        if (nodes[i].ino == ino) {
            return &nodes[i];
        }
    }
    return NULL;
}

static struct name *name_of(uint64_t parent, const char *text)
{
    for (size_t i = 0; i < NAMES; i++) {
        if (names[i].parent == parent && strcmp(names[i].text, text) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

static bool has_entries(uint64_t ino)
{
    for (size_t i = 0; i < NAMES; i++) {
        if (names[i].parent == ino) {
            return true;
        }
    }
    return false;
}

static struct name *free_name(void)
{
    for (size_t i = 0; i < NAMES; i++) {
        if (names[i].parent == 0) {
            return &names[i];
        }
    }
    return NULL;
}

static void add_name(uint64_t parent, const char *text, uint64_t ino)
{
    struct name *n = free_name();

    CHECK(n != NULL);
    *n = (struct name){ .parent = parent, .ino = ino };
    memcpy(n->text, text, 2);
}

/* Any inode of a type (0: any), also nameless ones; NULL when there is none. */
static struct node *any(uint32_t type)
{
    struct node *found[INODES];
    size_t count = 0;

    for (size_t i = 0; i < INODES; i++) {
        if (nodes[i].ino != 0 && (type == 0 || nodes[i].type == type)) {
            found[count++] = &nodes[i];
        }
    }
    return count != 0 ? found[below(count)] : NULL;
}

static const char *letter(int slot)
{
    static char text[2][2];

    text[slot][0] = (char)('a' + below(LETTERS));
    return text[slot];
}

static void drop_link(struct node *n)
{
    n->nlink = n->type == S_IFDIR ? 0 : n->nlink - 1;
}

static uint64_t live_of(uint64_t block, uint64_t live[LIMIT_REPLICATION + 1])
{
    uint64_t sum = 0;

    memset(live, 0, (LIMIT_REPLICATION + 1) * sizeof(*live));
    for (size_t i = 0; i < INODES; i++) {
        for (size_t b = 0; nodes[i].ino != 0 && b < BYTES; b++) {
            if (nodes[i].at[b] != 0 && (nodes[i].at[b] - 1) / 1000 == block) {
                live[nodes[i].repl]++;
                sum++;
            }
        }
    }
    return sum;
}

/* After anything that could have taken a block's last byte. */
static void bury(void)
{
    uint64_t live[LIMIT_REPLICATION + 1];

    for (uint64_t b = 1; b < BLOCKS; b++) {
        if (!blocks[b].dead && !blocks[b].open && blocks[b].owner == 0 && blocks[b].len != 0 &&
            live_of(b, live) == 0) {
            blocks[b].dead = true;
        }
    }
}

/* ---- operations: what the model expects, what the state machine says ---- */

static void op_make(void)
{
    static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK };
    struct node *dir = any(S_IFDIR);
    uint32_t type = types[below(4)];
    const char *text = letter(0);
    struct attr a = { 0 };
    struct node *n = node_of(0);
    int want = dir->nlink == 0 ? DFS_ENOENT : name_of(dir->ino, text) != NULL ? DFS_EEXIST : 0;

    if (n == NULL || free_name() == NULL) {
        return;
    }
    CHECK_INT(rig_make(&r, dir->ino, text, type | 0644, &a), want);
    if (want == 0) {
        *n = (struct node){ .ino = a.ino,
                            .type = type,
                            .nlink = type == S_IFDIR ? 2 : 1,
                            .parent = type == S_IFDIR ? dir->ino : 0 };
        n->repl = type == S_IFREG   ? (dir->repl != 0 ? dir->repl : 2)
                  : type == S_IFDIR ? dir->repl
                                    : 0;
        n->size = type == S_IFLNK ? strlen("target") : 0;
        add_name(dir->ino, text, a.ino);
        dir->nlink += type == S_IFDIR;
        done[0]++;
    }
}

static void op_link(void)
{
    struct node *dir = any(S_IFDIR);
    struct node *n = any(0);
    const char *text = letter(0);
    int want = dir->nlink == 0                   ? DFS_ENOENT
               : n->type == S_IFDIR              ? DFS_EPERM
               : n->nlink == 0                   ? DFS_ENOENT
               : name_of(dir->ino, text) != NULL ? DFS_EEXIST
                                                 : 0;

    if (free_name() == NULL) {
        return;
    }
    CHECK_INT(
        do_link(&r,
                &(struct link_req){ .ino = n->ino, .parent = dir->ino, .name = slice_str(text) },
                NULL),
        want);
    if (want == 0) {
        add_name(dir->ino, text, n->ino);
        n->nlink++;
        done[1]++;
    }
}

static void op_unlink(void)
{
    struct node *dir = any(S_IFDIR);
    const char *text = letter(0);
    struct name *e = name_of(dir->ino, text);
    struct node *n = e != NULL ? node_of(e->ino) : NULL;
    uint8_t rmdir = (uint8_t)below(2);
    int want = e == NULL             ? DFS_ENOENT
               : !rmdir              ? (n->type == S_IFDIR ? DFS_EISDIR : 0)
               : n->type != S_IFDIR  ? DFS_ENOTDIR
               : has_entries(n->ino) ? DFS_ENOTEMPTY
                                     : 0;

    CHECK_INT(rig_unlink(&r, dir->ino, text, rmdir), want);
    if (want == 0) {
        drop_link(n);
        dir->nlink -= n->type == S_IFDIR;
        e->parent = 0;
        done[2]++;
    }
}

static bool is_below(uint64_t dir, uint64_t top)
{
    while (dir != top && dir != INODE_ROOT) {
        dir = node_of(dir)->parent;
    }
    return dir == top;
}

static int expect_rename(struct node *p, struct name *e, struct node *q, struct name *f,
                         uint32_t flags)
{
    struct node *n = e != NULL ? node_of(e->ino) : NULL;
    struct node *m = f != NULL ? node_of(f->ino) : NULL;

    if (n == NULL || q->nlink == 0 || (m == NULL && flags == RENAME_EXCHANGE)) {
        return DFS_ENOENT;
    }
    if (m != NULL && flags == RENAME_NOREPLACE) {
        return DFS_EEXIST;
    }
    if (n == m) {
        return 0;
    }
    if (n->type == S_IFDIR && p != q && is_below(q->ino, n->ino)) {
        return DFS_EINVAL;
    }
    if (flags == RENAME_EXCHANGE) {
        return m->type == S_IFDIR && p != q && is_below(p->ino, m->ino) ? DFS_EINVAL : 0;
    }
    if (m == NULL) {
        return 0;
    }
    if (m->type != S_IFDIR) {
        return n->type == S_IFDIR ? DFS_ENOTDIR : 0;
    }
    return n->type != S_IFDIR ? DFS_EISDIR : has_entries(m->ino) ? DFS_ENOTEMPTY : 0;
}

static void moved(uint64_t ino, struct node *from, struct node *to)
{
    struct node *n = node_of(ino);

    if (n->type == S_IFDIR) {
        n->parent = to->ino;
        from->nlink--;
        to->nlink++;
    }
}

static void op_rename(void)
{
    static const uint32_t all[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
    struct node *p = any(S_IFDIR);
    struct node *q = below(3) == 0 ? p : any(S_IFDIR);
    const char *a = letter(0);
    const char *b = letter(1);
    struct name *e = name_of(p->ino, a);
    struct name *f = name_of(q->ino, b);
    uint32_t flags = all[below(4)];
    int want = expect_rename(p, e, q, f, flags);

    CHECK_INT(rig_rename(&r, p->ino, a, q->ino, b, flags), want);
    if (want != 0 || (f != NULL && e->ino == f->ino)) {
        return;
    }
    moved(e->ino, p, q);
    if (flags == RENAME_EXCHANGE) {
        uint64_t ino = e->ino;

        moved(f->ino, q, p);
        e->ino = f->ino;
        f->ino = ino;
    } else {
        if (f != NULL) {
            drop_link(node_of(f->ino));
            q->nlink -= node_of(f->ino)->type == S_IFDIR;
            done[10] += node_of(f->ino)->type == S_IFDIR;
            f->parent = 0;
        }
        e->parent = q->ino;
        memcpy(e->text, b, 2);
    }
    done[3]++;
}

static void op_truncate(void)
{
    struct node *n = any(S_IFREG);
    uint64_t size = below(BYTES + 1);

    if (n == NULL) {
        return;
    }
    CHECK_INT(do_setattr(&r,
                         &(struct setattr_req){ .ino = n->ino, .valid = SET_SIZE, .size = size },
                         NULL),
              0);
    for (uint64_t i = size; i < BYTES; i++) {
        n->at[i] = 0;
    }
    n->size = size;
    bury();
    done[4]++;
}

/* New bytes at the end of the current block, or bytes that some block holds already. */
static struct extent pick_extent(uint64_t off, uint64_t len)
{
    struct extent e = { .off = off, .len = len };

    if (below(4) == 0) {
        uint64_t b = 1 + below(current);

        if (blocks[b].len >= len && (!blocks[b].open || b == current)) {
            e.block = b;
            e.block_off = (uint32_t)below(blocks[b].len - len + 1);
            return e;
        }
    }
    e.block = current;
    e.block_off = blocks[current].len;
    blocks[current].len += (uint32_t)len;
    return e;
}

static void op_commit(void)
{
    struct node *n = any(S_IFREG);
    struct extent e[3];
    uint32_t count = 0;
    uint64_t off = below(BYTES);
    int want = 0;
    uint8_t sealing;

    if (n == NULL || current == 0) {
        return;
    }
    for (; count < 3 && off < BYTES; count++) {
        uint64_t len = 1 + below(MIN(12, BYTES - off));

        e[count] = pick_extent(off, len);
        want = blocks[e[count].block].dead ? DFS_ENOBLOCK : want;
        off += len + below(3);
    }
    sealing = blocks[current].len > BLOCK || below(20) == 0;
    CHECK_INT(rig_commit(&r,
                         (struct rig_commit){ .ino = n->ino,
                                              .extents = e,
                                              .count = count,
                                              .block = current,
                                              .len = blocks[current].len,
                                              .seal = sealing },
                         NULL),
              want);
    for (uint32_t i = 0; want == 0 && i < count; i++) {
        for (uint64_t b = 0; b < e[i].len; b++) {
            n->at[e[i].off + b] = (uint32_t)(e[i].block * 1000 + e[i].block_off + b + 1);
        }
        n->size = MAX(n->size, e[i].off + e[i].len);
    }
    if (sealing) {
        blocks[current].open = false;
        blocks[current].owner = 0;
        blocks[current].dead = blocks[current].len == 0;
        current = 0;
    }
    bury();
    done[5] += want == 0;
}

static void op_alloc(void)
{
    if (current == 0) {
        current = rig_alloc(&r, 1);
        CHECK(current < BLOCKS);
        blocks[current] = (struct block){ .open = true, .owner = r.hdr.session };
        done[6]++;
    }
}

/* What fallocate() does to the bytes of a file that may have the range. */
static void model_fallocate(struct node *n, uint32_t mode, uint64_t off, uint64_t len)
{
    uint32_t at[BYTES] = { 0 };

    for (uint64_t i = 0; i < BYTES; i++) {
        bool behind = i >= off + len;

        if (mode == FALLOC_FL_COLLAPSE_RANGE) {
            at[i] = i < off ? n->at[i] : i + len < BYTES ? n->at[i + len] : 0;
        } else if (mode == FALLOC_FL_INSERT_RANGE) {
            at[i] = i < off ? n->at[i] : behind ? n->at[i - len] : 0;
        } else {
            bool hole = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;

            at[i] = hole && i >= off && !behind ? 0 : n->at[i];
        }
    }
    memcpy(n->at, at, sizeof(at));
    if (mode == FALLOC_FL_COLLAPSE_RANGE) {
        n->size -= len;
    } else if (mode == FALLOC_FL_INSERT_RANGE) {
        n->size += len;
    } else if ((mode & FALLOC_FL_KEEP_SIZE) == 0) {
        n->size = MAX(n->size, off + len);
    }
}

static void op_fallocate(void)
{
    static const uint32_t modes[] = { 0,
                                      FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_ZERO_RANGE,
                                      FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_COLLAPSE_RANGE,
                                      FALLOC_FL_INSERT_RANGE };
    struct node *n = any(S_IFREG);
    size_t which = below(ARRAY_LEN(modes));
    uint32_t mode = modes[which];
    uint64_t off = below(BYTES);
    uint64_t len = 1 + below(MIN(20, BYTES - off));
    struct fallocate_rep rep;
    int want = 0;

    if (n == NULL) {
        return;
    }
    if (mode == FALLOC_FL_COLLAPSE_RANGE) {
        want = off + len >= n->size ? DFS_EINVAL : 0;
    } else if (mode == FALLOC_FL_INSERT_RANGE) {
        if (n->size + len > BYTES) {
            return;
        }
        want = off >= n->size ? DFS_EINVAL : 0;
    }
    CHECK_INT(
        do_fallocate(&r,
                     &(struct fallocate_req){ .ino = n->ino, .mode = mode, .off = off, .len = len },
                     &rep),
        want);
    if (want == 0) {
        CHECK_INT(rep.done, len);
        model_fallocate(n, mode, off, len);
        bury();
        done[11 + which]++;
    }
}

static void op_clone(void)
{
    struct node *src = any(S_IFREG);
    struct node *dst = below(4) == 0 ? src : any(S_IFREG);
    uint64_t from = below(BYTES);
    uint64_t to = below(BYTES);
    uint64_t len = 1 + below(MIN(30, BYTES - to));
    uint32_t at[BYTES];
    struct clone_range_rep rep;
    uint64_t want_len;
    int want;

    if (src == NULL) {
        return;
    }
    want_len = from < src->size ? MIN(len, src->size - from) : 0;
    want = src == dst && want_len != 0 && from < to + want_len && to < from + want_len ? DFS_EINVAL
                                                                                       : 0;
    CHECK_INT(
        do_clone_range(
            &r,
            &(struct clone_range_req){
                .src = src->ino, .src_off = from, .dst = dst->ino, .dst_off = to, .len = len },
            &rep),
        want);
    if (want == 0) {
        CHECK_INT(rep.done, want_len);
        memcpy(at, src->at, sizeof(at));
        memcpy(&dst->at[to], &at[from], want_len * sizeof(at[0]));
        dst->size = want_len != 0 ? MAX(dst->size, to + want_len) : dst->size;
        bury();
        done[18] += want_len != 0;
    }
}

static void op_setrep(void)
{
    struct node *n = any(below(3) == 0 ? S_IFDIR : S_IFREG);
    uint8_t repl = (uint8_t)(1 + below(3));

    if (n != NULL) {
        CHECK_INT(do_setrep(&r, &(struct setrep_req){ .ino = n->ino, .repl = repl }, NULL), 0);
        n->repl = repl;
        done[7]++;
    }
}

static void op_reap(void)
{
    struct node *n = any(0);
    struct wire_out refs;

    if (n->nlink != 0) {
        return;
    }
    wire_out_init(&refs, 64);
    ino_ref_put(&refs, &(struct ino_ref){ n->ino });
    CHECK_INT(
        do_ns_reap(&r,
                   &(struct ns_reap_req){ .inodes = wire_out_list(&refs, 1), .max_extents = 1000 },
                   NULL),
        0);
    *n = (struct node){ 0 };
    bury();
    wire_out_fini(&refs);
    done[8]++;
}

static void op_session(void)
{
    if (below(10) != 0) {
        return;
    }
    CHECK_INT(do_session_close(&r, &(struct session_close_req){ 0 }, NULL), 0);
    if (current != 0) {
        blocks[current].open = false;
        blocks[current].owner = 0;
        blocks[current].dead = blocks[current].len == 0;
        current = 0;
    }
    bury();
    r.hdr.session = rig_session(&r);
    done[9]++;
}

/* ---- invariants ---- */

static void check_content(const struct node *n)
{
    struct extents_rep rep;
    uint32_t at[BYTES] = { 0 };
    struct extent e, last = { 0 };
    struct wire_in in;

    CHECK_INT(ask_extents(&r, &(struct extents_req){ .ino = n->ino, .max = 1000 }, &rep), 0);
    in = wire_in_of(rep.extents.items);
    for (uint32_t i = 0; i < rep.extents.count; i++) {
        CHECK_INT(extent_get(&in, &e), 0);
        CHECK(e.len > 0 && e.off + e.len <= n->size);
        CHECK(i == 0 || e.off >= last.off + last.len);
        for (uint64_t b = 0; b < e.len && e.off + b < BYTES; b++) {
            at[e.off + b] = (uint32_t)(e.block * 1000 + e.block_off + b + 1);
        }
        last = e;
    }
    CHECK(memcmp(at, n->at, sizeof(at)) == 0);
}

static void check_dir(const struct node *n)
{
    struct readdir_rep rep;
    struct dir_entry e;
    struct wire_in in;
    uint32_t want = 0;

    CHECK_INT(ask_readdir(&r, &(struct readdir_req){ .ino = n->ino, .max_bytes = 100000 }, &rep),
              0);
    in = wire_in_of(rep.entries.items);
    for (uint32_t i = 0; i < rep.entries.count; i++) {
        struct name *found;
        char text[2] = { 0 };

        CHECK_INT(dir_entry_get(&in, &e), 0);
        text[0] = (char)e.name.p[0];
        found = name_of(n->ino, text);
        CHECK(e.name.len == 1 && found != NULL && found->ino == e.ino);
        CHECK_INT(e.mode, node_of(e.ino)->type);
    }
    for (size_t i = 0; i < NAMES; i++) {
        want += names[i].parent == n->ino;
    }
    CHECK_INT(rep.entries.count, want);
}

static void check_blocks(void)
{
    uint64_t live[LIMIT_REPLICATION + 1];

    for (uint64_t b = 1; b < BLOCKS && blocks[b].len + blocks[b].owner != 0; b++) {
        struct block_rec rec = rig_block(&r, b);

        live_of(b, live);
        CHECK(memcmp(rec.live, live, sizeof(live)) == 0);
        CHECK_INT(rec.len, blocks[b].len);
        CHECK_INT(rec.state, blocks[b].open   ? BLOCK_OPEN
                             : blocks[b].dead ? BLOCK_DELETED
                                              : BLOCK_SEALED);
    }
}

static void check_all(void)
{
    struct ns_space space;
    struct ns_counts counts;
    uint64_t bytes = 0, inodes = 0, orphans = 0;

    for (size_t i = 0; i < INODES; i++) {
        const struct node *n = &nodes[i];
        uint64_t mapped = 0;
        struct attr a;

        if (n->ino == 0) {
            continue;
        }
        a = rig_stat(&r, n->ino);
        for (size_t b = 0; b < BYTES; b++) {
            mapped += n->at[b] != 0;
        }
        CHECK_INT(a.mode & S_IFMT, n->type);
        CHECK_INT(a.nlink, n->nlink);
        CHECK_INT(a.size, n->size);
        CHECK_INT(a.bytes, mapped);
        CHECK_INT(a.repl, n->repl);
        if (n->type == S_IFDIR) {
            CHECK_INT(a.parent, n->parent);
            check_dir(n);
        } else if (n->type == S_IFREG) {
            check_content(n);
        }
        bytes += mapped;
        inodes++;
        orphans += n->nlink == 0;
    }
    check_blocks();
    CHECK_INT(ns_get_counts(r.rd, &counts), 0);
    CHECK_INT(counts.inodes, inodes);
    CHECK_INT(counts.orphans, orphans);
    CHECK_INT(counts.file_bytes, bytes);
    CHECK_INT(rig_quotas_add_up(&r), 1);
    CHECK_INT(ns_get_space(r.rd, INODE_ROOT, &space), 0);
    CHECK_INT(space.used_inodes, inodes);
}

static void random_operations_match_the_model(void)
{
    static void (*const ops[])(
        void) = { op_make,   op_make,    op_make,      op_link,      op_unlink, op_unlink,
                  op_rename, op_rename,  op_rename,    op_truncate,  op_commit, op_commit,
                  op_commit, op_commit,  op_alloc,     op_alloc,     op_setrep, op_reap,
                  op_reap,   op_session, op_fallocate, op_fallocate, op_clone,  op_clone };

    nodes[0] =
        (struct node){ .ino = INODE_ROOT, .type = S_IFDIR, .nlink = 2, .parent = INODE_ROOT };
    for (int i = 0; i < STEPS && !tap_case_bad; i++) {
        ops[below(ARRAY_LEN(ops))]();
        if (i % 500 == 0) {
            check_all();
        }
        if (tap_case_bad) {
            printf("# at step %d\n", i);
        }
    }
    check_all();
    for (int i = 0; i < KINDS; i++) { /* each kind had its chance */
        if (done[i] < 10) {
            printf("# operation %d succeeded %d times\n", i, done[i]);
            tap_case_bad = 1;
        }
    }
}

int main(void)
{
    rng_init(&rng, 20240607);
    rig_start(&r, "model");
    CHECK_INT(
        do_quota_set(&r, &(struct quota_set_req){ .ino = INODE_ROOT, .valid = QUOTA_BYTES }, NULL),
        0); /* without a limit: everything is charged to it */
    tap_run("random operations match the model", random_operations_match_the_model);
    rig_fini(&r);
    return tap_done();
}
