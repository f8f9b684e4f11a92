/* Copies and storage rules of files: who wants what of the blocks.
 *
 * A change moves a file's bytes from one counter of each block to another. That is done a bounded
 * number of extents at a time: a file in between has ATTR_RECOUNT and a record that says up to which
 * offset its bytes are counted as it wants them now; those behind are counted as before. The leader
 * goes on with such files until none is left.
 */
#include <sys/stat.h>

#include "fs/ns/query.h"

#define RECOUNT_AT_ONCE 512u /* extents, by one command */
#define RECOUNT_BYTES   11

/* ---- rules by number ---- */

struct rule_search {
    struct slice text;
    uint16_t found; /* 0: nowhere */
    uint16_t last;
};

static bool match_rule(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct rule_search *s = arg;

    if (key.len != 4 || key_get_u32(key.p) > UINT16_MAX) {
        *ret_err = DFS_EDAMAGED;
        return false;
    }
    s->last = (uint16_t)key_get_u32(key.p);
    if (slice_eq(val, s->text)) {
        s->found = s->last;
    }
    return s->found == 0;
}

/* The number of a rule as rule_format() writes it; a new one when nobody has used it yet. */
static int rule_number(struct ns_tx *tx, struct slice text, uint16_t *ret)
{
    struct rule_search s = { .text = text };
    uint8_t key[4];
    int err = ns_db_each(&tx->v, DB_RULES, SLICE_EMPTY, match_rule, &s);

    if (err != 0 || s.found != 0) {
        *ret = s.found;
        return err;
    }
    if (s.last >= LIMIT_RULES) {
        return DFS_ETOOBIG;
    }
    *ret = (uint16_t)(s.last + 1);
    key_put_u32(key, *ret);
    err = ns_db_append(tx, DB_RULES, slice_of(key, sizeof(key)), text);
    if (err == 0 && tx->ns->ev.rule_added != NULL) {
        tx->ns->ev.rule_added(tx->ns->ev.arg, *ret, text);
    }
    return err;
}

int ns_rule_text(const struct ns_view *v, uint16_t number, struct slice *ret)
{
    uint8_t key[4];

    *ret = slice_str("none");
    key_put_u32(key, number);
    return number == 0 ? 0 : ns_must(ns_db_get(v, DB_RULES, slice_of(key, sizeof(key)), ret));
}

struct rule_walk {
    ns_rule_fn *fn;
    void *arg;
};

static bool walk_rule(void *arg, struct slice key, struct slice val, int *ret_err)
{
    struct rule_walk *w = arg;

    (void)ret_err;
    w->fn(w->arg, (uint16_t)key_get_u32(key.p), val);
    return true;
}

int ns_each_rule(struct ns_reader *r, ns_rule_fn *fn, void *arg)
{
    struct rule_walk w = { fn, arg };
    int err = ns_reader_begin(r);

    if (err == 0) {
        err = ns_db_each(&r->v, DB_RULES, SLICE_EMPTY, walk_rule, &w);
        ns_reader_end(r);
    }
    return err;
}

int ns_ask_getstorage(struct ns_reader *r, const struct getstorage_req *req,
                      struct getstorage_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&r->v, req->ino, &a);

    return err != 0 ? err : ns_rule_text(&r->v, a.storage, &rep->rule);
}

/* ---- files between two settings ---- */

/* Bytes from off on are counted as they were wanted before. */
struct recount {
    uint64_t off;
    uint8_t repl;
    uint16_t rule;
};

static int recount_get(const struct ns_view *v, uint64_t ino, struct recount *ret)
{
    struct ns_key8 key = ns_key8(ino);
    struct slice rec;
    struct wire_in in;
    int err = ns_must(ns_db_get(v, DB_RECOUNTS, KEY_SLICE(key), &rec));

    if (err != 0) {
        return err;
    }
    in = wire_in_of(rec);
    ret->off = wire_get_u64(&in);
    ret->repl = wire_get_u8(&in);
    ret->rule = wire_get_u16(&in);
    return in.err != 0 || ret->repl == 0 || ret->repl > LIMIT_REPLICATION ? DFS_EDAMAGED : 0;
}

static int recount_put(struct ns_tx *tx, uint64_t ino, const struct recount *r)
{
    struct ns_key8 key = ns_key8(ino);
    uint8_t rec[RECOUNT_BYTES];
    struct wire_out out = wire_out_over(rec, sizeof(rec));

    wire_put_u64(&out, r->off);
    wire_put_u8(&out, r->repl);
    wire_put_u16(&out, r->rule);
    ASSERT(out.err == 0);
    return ns_db_put(tx, DB_RECOUNTS, KEY_SLICE(key), wire_out_slice(&out));
}

int ns_recount_drop(struct ns_tx *tx, uint64_t ino)
{
    struct ns_key8 key = ns_key8(ino);

    return ns_must(ns_db_del(tx, DB_RECOUNTS, KEY_SLICE(key)));
}

int ns_recount_shift(struct ns_tx *tx, const struct attr *f, uint64_t off, uint64_t len,
                     bool insert)
{
    struct recount r;
    int err;

    if ((f->flags & ATTR_RECOUNT) == 0) {
        return 0;
    }
    err = recount_get(&tx->v, f->ino, &r);
    if (err != 0 || r.off <= off) {
        return err;
    }
    r.off = insert ? r.off + len : r.off - MIN(len, r.off - off);
    return recount_put(tx, f->ino, &r);
}

int ns_recount_at(const struct ns_view *v, const struct attr *f, uint64_t off, uint8_t *ret_repl,
                  uint16_t *ret_rule, uint64_t *ret_until)
{
    struct recount r;
    int err;

    *ret_repl = f->repl;
    *ret_rule = f->storage;
    *ret_until = UINT64_MAX;
    if ((f->flags & ATTR_RECOUNT) == 0) {
        return 0;
    }
    err = recount_get(v, f->ino, &r);
    if (err == 0 && off < r.off) {
        *ret_until = r.off;
    } else if (err == 0) {
        *ret_repl = r.repl;
        *ret_rule = r.rule;
    }
    return err;
}

/* Goes on with a file that has ATTR_RECOUNT; the caller writes it back. */
static int recount_step(struct ns_tx *tx, struct attr *f, uint32_t max)
{
    struct recount r;
    uint64_t end = 0;
    int err = recount_get(&tx->v, f->ino, &r);

    err = err != 0 ? err : ns_extent_recount(tx, f, r.off, max, r.repl, r.rule, &end);
    if (err != 0) {
        return err;
    }
    if (end == UINT64_MAX) {
        f->flags &= (uint8_t)~ATTR_RECOUNT;
        return ns_recount_drop(tx, f->ino);
    }
    r.off = end;
    return recount_put(tx, f->ino, &r);
}

/* DFS_EBUSY: an earlier change is not through yet. */
static int want(struct ns_tx *tx, struct attr *f, uint8_t repl, uint16_t rule)
{
    struct recount r = { .repl = f->repl, .rule = f->storage };
    int err = 0;

    if (f->repl == repl && f->storage == rule) {
        return 0;
    }
    if ((f->flags & ATTR_RECOUNT) != 0) {
        err = recount_step(tx, f, RECOUNT_AT_ONCE);
        if (err != 0 || (f->flags & ATTR_RECOUNT) != 0) {
            return err != 0 ? err : DFS_EBUSY;
        }
    }
    f->repl = repl;
    f->storage = rule;
    if (f->bytes == 0) {
        return 0;
    }
    f->flags |= ATTR_RECOUNT;
    err = recount_put(tx, f->ino, &r);
    return err != 0 ? err : recount_step(tx, f, RECOUNT_AT_ONCE);
}

/* ---- commands ---- */

static int change(struct ns_tx *tx, struct attr *a, uint8_t repl, uint16_t rule)
{
    int err, put;

    if (a->repl == repl && a->storage == rule) {
        return 0;
    }
    err = want(tx, a, repl, rule);
    if (ns_is_fatal(err)) {
        return err;
    }
    ns_inode_touch(tx, a);
    put = ns_inode_put(tx, a);
    return put != 0 ? put : err;
}

int ns_do_setrep(struct ns_tx *tx, const struct setrep_req *req, struct setrep_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    if (err == 0 && !perm_is_owner(&tx->hdr, &a)) {
        err = DFS_EPERM;
    }
    if (err != 0) {
        return err;
    }
    if (req->repl > LIMIT_REPLICATION ||
        !(S_ISDIR(a.mode) || (S_ISREG(a.mode) && req->repl != 0))) {
        return DFS_EINVAL;
    }
    err = change(tx, &a, req->repl, a.storage);
    rep->attr = ns_attr(tx, &a);
    return err;
}

int ns_do_setstorage(struct ns_tx *tx, const struct setstorage_req *req, struct setstorage_rep *rep)
{
    bool none = req->rule.len == 0 || slice_eq(req->rule, slice_str("none"));
    char text[RULE_TEXT];
    struct rule rule;
    uint16_t number = 0;
    uint8_t copies = 0;
    struct attr a;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    if (err == 0 && !perm_is_owner(&tx->hdr, &a)) {
        err = DFS_EPERM;
    }
    if (err == 0 && !S_ISDIR(a.mode) && !S_ISREG(a.mode)) {
        err = DFS_EINVAL;
    }
    if (err == 0 && !none) {
        err = rule_parse(req->rule, &rule, NULL);
    }
    if (err == 0 && !none) {
        copies = rule_copies(&rule);
        err = rule_number(tx, slice_str(rule_format(&rule, text)), &number);
    }
    if (err != 0) {
        return err;
    }
    err = change(tx, &a, copies != 0 ? copies : a.repl, number);
    rep->attr = ns_attr(tx, &a);
    return err;
}

/* ---- the leader's part ---- */

int ns_do_ns_recount(struct ns_tx *tx, const struct ns_recount_req *req, struct ns_recount_rep *rep)
{
    struct attr a;
    int err = ns_inode_get(&tx->v, req->ino, &a);

    (void)rep;
    if (err != 0 || (a.flags & ATTR_RECOUNT) == 0) {
        return err == DFS_ESTALE ? 0 : err; /* gone, or done meanwhile */
    }
    err = recount_step(tx, &a, MIN(req->max_extents, RECOUNT_AT_ONCE));
    return err != 0 ? err : ns_inode_put(tx, &a);
}

static bool first_recount(void *arg, struct slice key, struct slice val, int *ret_err)
{
    (void)val;
    (void)ret_err;
    *(uint64_t *)arg = key_get_u64(key.p);
    return false;
}

uint64_t ns_next_recount(struct ns_reader *r, uint64_t after)
{
    struct ns_key8 from = ns_key8(after + 1);
    uint64_t ino = 0;

    if (ns_reader_begin(r) == 0) {
        if (ns_db_each(&r->v, DB_RECOUNTS, KEY_SLICE(from), first_recount, &ino) != 0) {
            ino = 0;
        }
        ns_reader_end(r);
    }
    return ino;
}
