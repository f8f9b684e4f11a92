/* Trees that change from one quota directory to another.
 *
 * The rule: an inode is charged to what its directory is charged to, unless it is a quota directory
 * itself. Names come and go only where that holds. A directory that becomes (or ceases to be) a quota
 * directory breaks it for all that is below; it is put on a list of work, and steps that the leader
 * puts into the log look at the entries of the listed directories, charge them anew and list those
 * that are directories. So what is added to a listed directory meanwhile is right already, and what
 * leaves it is made right when it arrives.
 *
 * A renamed tree is charged anew at once when it is small; a larger one has to be copied.
 */
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

#define TREE_MAX    4096 /* inodes of a tree that are charged anew by one rename */
#define SOURCES_MAX 16   /* quota directories that these were charged to */
#define STEP_MAX    4096 /* names that one step looks at */

/* ---- the list of work ---- */

static int put_work(struct ns_tx *tx, uint64_t ino, uint64_t cursor)
{
    struct ns_key8 key = ns_key8(ino);
    struct ns_key8 val = ns_key8(cursor);

    return ns_db_put(tx, DB_QUOTA_WORK, KEY_SLICE(key), KEY_SLICE(val));
}

static int drop_work(struct ns_tx *tx, const struct attr *dir)
{
    struct ns_key8 key = ns_key8(dir->ino);
    int err = ns_db_del(tx, DB_QUOTA_WORK, KEY_SLICE(key));

    if (err != 0) {
        return err == DFS_ENOENT ? 0 : err;
    }
    return ns_quota_move(tx, dir->quota, 0, &(struct ns_use){ .pending = 1 });
}

int ns_quota_push(struct ns_tx *tx, const struct attr *dir)
{
    struct ns_key8 key = ns_key8(dir->ino);
    struct slice old;
    bool empty = true;
    int err = ns_dir_is_empty(&tx->v, dir->ino, &empty);

    if (err != 0 || empty) {
        return err != 0 ? err : drop_work(tx, dir);
    }
    err = ns_db_get(&tx->v, DB_QUOTA_WORK, KEY_SLICE(key), &old);
    if (err == DFS_ENOENT) {
        err = ns_quota_move(tx, 0, dir->quota, &(struct ns_use){ .pending = 1 });
    }
    return err != 0 ? err : put_work(tx, dir->ino, 0);
}

/* ---- steps ---- */

struct step {
    struct ns_tx *tx;
    struct attr dir;
    uint64_t last; /* hash of the name looked at last */
    uint32_t left;
    bool full;
};

/* Charges an entry of the directory to what the directory is charged to. */
static int conform(struct ns_tx *tx, uint64_t ino, uint64_t quota)
{
    struct attr a;
    int err = ns_must(ns_inode_get(&tx->v, ino, &a));

    if (err != 0) {
        return err;
    }
    if (ns_is_quota_dir(&a)) {
        return ns_quota_reparent(tx, ino, quota);
    }
    if (a.quota == quota) {
        return 0;
    }
    err = ns_quota_retag(tx, &a, quota);
    return err == 0 && S_ISDIR(a.mode) ? ns_quota_push(tx, &a) : err;
}

static bool step_entry(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct step *s = arg;
    struct ns_dentry d;
    uint64_t hash;

    *ret_err = key.len <= 16 ? DFS_EDAMAGED : ns_dentry_decode(val, &d);
    if (*ret_err != 0 || key_get_u64(key.p) != s->dir.ino) {
        return false;
    }
    hash = key_get_u64(key.p + 8);
    if (s->left == 0 && hash != s->last) {
        s->full = true;
        return false;
    }
    s->left -= s->left != 0;
    s->last = hash;
    *ret_err = conform(s->tx, d.ino, s->dir.quota);
    return *ret_err == 0;
}

static int step_dir(struct ns_tx *tx, uint64_t ino, uint64_t cursor, uint32_t *left)
{
    struct ns_key16 from = ns_key16(ino, cursor + 1);
    struct step s = { .tx = tx, .last = cursor, .left = *left };
    int err = ns_must(ns_inode_get(&tx->v, ino, &s.dir));

    err = err != 0 ? err : ns_db_each(&tx->v, DB_DENTRIES, KEY_SLICE(from), step_entry, &s);
    if (err != 0) {
        return err;
    }
    *left = s.left;
    return s.full ? put_work(tx, ino, s.last) : drop_work(tx, &s.dir);
}

struct work {
    uint64_t ino;
    uint64_t cursor;
};

static bool first_work(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct work *w = arg;

    if (key.len != 8 || val.len != 8) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    *w = (struct work){ key_get_u64(key.p), key_get_u64(val.p) };
    return false;
}

int ns_do_quota_step(struct ns_tx *tx, const struct quota_step_req *req, struct quota_step_rep *rep)
{
    uint32_t left = MIN(req->max, STEP_MAX);
    int err = 0;

    while (err == 0 && left != 0) {
        struct work w = { 0 };
        uint32_t before = left;

        err = ns_db_each(&tx->v, DB_QUOTA_WORK, SLICE_EMPTY, first_work, &w);
        if (w.ino == 0) {
            break;
        }
        err = err != 0 ? err : step_dir(tx, w.ino, w.cursor, &left);
        left -= left == before; /* one that got empty meanwhile is work, too */
    }
    rep->left = ns_db_count(&tx->v, DB_QUOTA_WORK);
    return err;
}

/* ---- names that move ---- */

/* What is at and below an inode, down to quota directories. */
struct tree {
    const struct ns_view *v;
    uint64_t ino[TREE_MAX];
    uint32_t count;
    uint64_t dir; /* whose entries are being added */
    struct ns_source from[SOURCES_MAX];
    uint32_t from_count;
};

static int count_use(struct tree *t, uint64_t quota, const struct ns_use *use)
{
    struct ns_source *s = NULL;

    for (uint32_t i = 0; s == NULL && i < t->from_count; i++) {
        s = t->from[i].quota == quota ? &t->from[i] : NULL;
    }
    if (s == NULL) {
        if (t->from_count == SOURCES_MAX) {
            return DFS_EXDEV;
        }
        s = &t->from[t->from_count++];
        *s = (struct ns_source){ .quota = quota };
    }
    s->use.bytes += use->bytes;
    s->use.inodes += use->inodes;
    return 0;
}

static int add_inode(struct tree *t, uint64_t ino)
{
    struct ns_use use = { .inodes = 1 };
    struct ns_quota q;
    struct attr a;
    int err = ns_must(ns_inode_get(t->v, ino, &a));

    if (err == 0 && t->count == TREE_MAX) {
        err = DFS_EXDEV;
    }
    if (err == 0 && !S_ISDIR(a.mode) && a.nlink > 1) {
        err = DFS_EXDEV; /* its other names may be elsewhere */
    }
    if (err != 0) {
        return err;
    }
    t->ino[t->count++] = ino;
    if (ns_is_quota_dir(&a)) {
        err = ns_must(ns_quota_get(t->v, ino, &q));
        return err != 0 ? err : count_use(t, q.parent, &q.used);
    }
    use.bytes = a.bytes;
    return count_use(t, a.quota, &use);
}

static bool tree_entry(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct tree *t = arg;
    struct ns_dentry d;

    *ret_err = key.len <= 16 ? DFS_EDAMAGED : ns_dentry_decode(val, &d);
    if (*ret_err != 0 || key_get_u64(key.p) != t->dir) {
        return false;
    }
    *ret_err = add_inode(t, d.ino);
    return *ret_err == 0;
}

static int gather(struct tree *t, uint64_t top)
{
    int err = add_inode(t, top);

    for (uint32_t i = 0; err == 0 && i < t->count; i++) {
        struct ns_key8 from = ns_key8(t->ino[i]);
        struct attr a;

        err = ns_must(ns_inode_get(t->v, t->ino[i], &a));
        if (err == 0 && S_ISDIR(a.mode) && !ns_is_quota_dir(&a)) {
            t->dir = a.ino;
            err = ns_db_each(t->v, DB_DENTRIES, KEY_SLICE(from), tree_entry, t);
        }
    }
    return err;
}

int ns_quota_may_enter(const struct ns_tx *tx, uint64_t ino, const struct attr *from_dir,
                       const struct attr *dir)
{
    struct ns_quota q = { 0 };
    struct ns_source one;
    struct tree *t;
    struct attr a;
    int err = ns_must(ns_inode_get(&tx->v, ino, &a));

    if (err == 0 && ns_is_quota_dir(&a)) {
        err = ns_must(ns_quota_get(&tx->v, ino, &q));
        one = (struct ns_source){ .quota = q.parent, .use = q.used };
        return err != 0 ? err : ns_quota_room(&tx->v, dir->quota, &one, 1);
    }
    if (err != 0 || a.quota == dir->quota) {
        return err;
    }
    if (!S_ISDIR(a.mode) && a.nlink > 1 && from_dir->quota == dir->quota) {
        return 0; /* charged to where another of its names is, before as after */
    }
    t = x_alloc(sizeof(*t));
    t->v = &tx->v;
    err = gather(t, ino);
    err = err != 0 ? err : ns_quota_room(&tx->v, dir->quota, t->from, t->from_count);
    free(t);
    return err;
}

/* Charges one of a gathered tree to `quota`; with all of them done no work is left in it. */
static int enter_one(struct ns_tx *tx, uint64_t ino, uint64_t quota)
{
    struct attr a;
    int err = ns_must(ns_inode_get(&tx->v, ino, &a));

    if (err != 0) {
        return err;
    }
    if (ns_is_quota_dir(&a)) {
        return ns_quota_reparent(tx, ino, quota);
    }
    err = S_ISDIR(a.mode) ? drop_work(tx, &a) : 0;
    return err != 0 || a.quota == quota ? err : ns_quota_retag(tx, &a, quota);
}

int ns_quota_enter(struct ns_tx *tx, uint64_t ino, const struct attr *dir)
{
    struct tree *t;
    struct attr a;
    int err = ns_must(ns_inode_get(&tx->v, ino, &a));

    if (err == 0 && ns_is_quota_dir(&a)) {
        return ns_quota_reparent(tx, ino, dir->quota);
    }
    if (err != 0 || a.quota == dir->quota || (!S_ISDIR(a.mode) && a.nlink > 1)) {
        return err;
    }
    t = x_alloc(sizeof(*t));
    t->v = &tx->v;
    err = gather(t, ino);
    for (uint32_t i = 0; err == 0 && i < t->count; i++) {
        err = enter_one(tx, t->ino[i], dir->quota);
    }
    free(t);
    return err;
}
