/* Commands about what files hold: commit, and freeing what nameless inodes held. */
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

/* ---- commit ---- */

/* The last block looked at: packs and streams name one block many times. */
struct block_cache {
    uint64_t block;
    struct block_rec rec;
};

static int check_extent(const struct ns_tx *tx, const struct extent *e, struct block_cache *cache)
{
    if (e->len == 0 || e->len > UINT32_MAX) {
        return DFS_EINVAL;
    }
    if (e->off > LIMIT_FILE_SIZE || e->len > LIMIT_FILE_SIZE - e->off) {
        return DFS_EFBIG;
    }
    if (cache->block != e->block) {
        int err = mapdb_get(&tx->ns->map, tx->v.txn, e->block, &cache->rec);

        if (err != 0) {
            return err;
        }
        cache->block = e->block;
    }
    if (cache->rec.state == BLOCK_DELETED) {
        return DFS_ENOBLOCK;
    }
    if (cache->rec.state == BLOCK_OPEN && cache->rec.session != tx->hdr.session) {
        return DFS_ESESSION;
    }
    if (e->block_off > cache->rec.len || e->len > cache->rec.len - e->block_off) {
        return cache->rec.state == BLOCK_OPEN ? DFS_EOFFSET : DFS_ESEALED;
    }
    return 0;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct extent *a = pa;
    const struct extent *b = pb;

    return a->off < b->off ? -1 : a->off > b->off;
}

/* Decodes a file's extents into tx->ns->extents, in order, all of them acceptable. */
static int get_extents(struct ns_tx *tx, const struct commit_file *file, uint64_t base,
                       struct block_cache *cache)
{
    struct wire_in in = wire_in_of(file->extents.items);
    struct extent *all = tx->ns->extents;
    size_t n = file->extents.count;
    int err = 0;

    if (n > LIMIT_COMMIT_EXTENTS) {
        return DFS_ETOOBIG;
    }
    for (size_t i = 0; err == 0 && i < n; i++) {
        err = extent_get(&in, &all[i]);
        if (err == 0 && all[i].off > LIMIT_FILE_SIZE) {
            err = DFS_EFBIG;
        }
        all[i].off += base;
        err = err != 0 ? err : check_extent(tx, &all[i], cache);
    }
    if (err != 0) {
        return err;
    }
    qsort(all, n, sizeof(*all), by_offset);
    for (size_t i = 1; i < n; i++) {
        if (all[i - 1].off + all[i - 1].len > all[i].off) {
            return DFS_EINVAL;
        }
    }
    return 0;
}

int ns_content_room(const struct ns_tx *tx, const struct attr *f, size_t n)
{
    const struct extent *all = tx->ns->extents;
    uint64_t bytes = 0, covered = 0;
    int err;

    if (f->quota == 0) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        bytes += all[i].len;
    }
    err = ns_quota_grow(&tx->v, f->quota, bytes, 0);
    if (err != DFS_EDQUOT) {
        return err;
    }
    err = 0;
    for (size_t i = 0; err == 0 && i < n; i++) {
        err = ns_extent_covered(&tx->v, f, all[i].off, all[i].off + all[i].len, &covered);
    }
    return err != 0 ? err : ns_quota_grow(&tx->v, f->quota, bytes - covered, 0);
}

/* Puts n checked extents into the file and makes it long enough. */
static int store_extents(struct ns_tx *tx, struct attr *f, const struct commit_file *file)
{
    const struct extent *all = tx->ns->extents;
    size_t n = file->extents.count;
    uint64_t size = (file->flags & COMMIT_APPEND) != 0 ? 0 : file->size;
    int err = 0;

    for (size_t i = 0; err == 0 && i < n; i++) {
        err = ns_extent_claim(tx, f, &all[i]);
    }
    for (size_t i = 0; err == 0 && i < n; i++) {
        err = ns_extent_insert(tx, f, &all[i]);
    }
    if (n != 0) {
        size = MAX(size, all[n - 1].off + all[n - 1].len);
    }
    if (n == 0 && size <= f->size && file->mtime == 0) {
        return err;
    }
    if (n != 0 || size > f->size) {
        f->data_version++;
    }
    f->size = MAX(f->size, size);
    f->mtime = file->mtime != 0 ? file->mtime : tx->head->now_ns;
    ns_inode_touch(tx, f);
    return err != 0 ? err : ns_inode_put(tx, f);
}

static int commit_file(struct ns_tx *tx, const struct commit_file *file, struct attr *ret)
{
    struct block_cache cache = { 0 };
    bool append = (file->flags & COMMIT_APPEND) != 0;
    int err = ns_inode_get(&tx->v, file->ino, ret);

    if (err == 0 && !S_ISREG(ret->mode)) {
        err = S_ISDIR(ret->mode) ? DFS_EISDIR : DFS_EINVAL;
    }
    if (err == 0 && !append && file->size > LIMIT_FILE_SIZE) {
        err = DFS_EFBIG;
    }
    err = err != 0 ? err : get_extents(tx, file, append ? ret->size : 0, &cache);
    err = err != 0 ? err : ns_content_room(tx, ret, file->extents.count);
    return err != 0 ? err : store_extents(tx, ret, file);
}

/* With sealing: only those that are to be sealed, after their extents have been counted. A block that
 * cannot be committed shows in the status of the files that name it; *ret_first is for a commit
 * without files. Returns an error only when the database failed. */
static int commit_blocks(struct ns_tx *tx, const struct wire_list *blocks, bool sealing,
                         int *ret_first)
{
    struct wire_in in = wire_in_of(blocks->items);

    for (uint32_t i = 0; i < blocks->count; i++) {
        struct commit_block b;
        int err = commit_block_get(&in, &b);

        if (err == 0 && (!sealing || b.seal != 0)) {
            err = mapdb_commit(&tx->ns->map, tx->v.txn, &tx->ns->ev.map, b.block, tx->hdr.session,
                               b.len, sealing, tx->head->now_ns);
            if (err == 0 && sealing) {
                err = ns_block_release(tx, tx->hdr.session, b.block);
            }
        }
        if (ns_is_fatal(err)) {
            return err;
        }
        if (*ret_first == 0) {
            *ret_first = err;
        }
    }
    return 0;
}

/* All lists must be readable before the first change. */
static int check_commit(const struct commit_req *req)
{
    struct wire_in in = wire_in_of(req->blocks.items);
    uint64_t extents = 0;
    struct commit_block b;
    struct commit_file f;

    if (req->blocks.count > LIMIT_COMMIT_EXTENTS || req->files.count > LIMIT_COMMIT_EXTENTS) {
        return DFS_ETOOBIG;
    }
    for (uint32_t i = 0; i < req->blocks.count; i++) {
        if (commit_block_get(&in, &b) != 0) {
            return DFS_EMALFORMED;
        }
    }
    in = wire_in_of(req->files.items);
    for (uint32_t i = 0; i < req->files.count; i++) {
        if (commit_file_get(&in, &f) != 0) {
            return DFS_EMALFORMED;
        }
        extents += f.extents.count;
    }
    return extents > LIMIT_COMMIT_EXTENTS ? DFS_ETOOBIG : 0;
}

int ns_do_commit(struct ns_tx *tx, const struct commit_req *req, struct commit_rep *rep)
{
    struct wire_in in = wire_in_of(req->files.items);
    struct wire_out *results = &tx->ns->list;
    int first = 0;
    int err = check_commit(req);

    err = err != 0 ? err : commit_blocks(tx, &req->blocks, false, &first);
    wire_out_reset(results);
    for (uint32_t i = 0; err == 0 && i < req->files.count; i++) {
        struct commit_result result;
        struct commit_file file;
        struct attr a = { 0 };
        int flush;

        err = commit_file_get(&in, &file);
        if (err != 0) {
            return err;
        }
        result = (struct commit_result){ .ino = file.ino };
        err = commit_file(tx, &file, &a);
        flush = ns_live_flush(tx);
        err = flush != 0 ? flush : err;
        if (ns_is_fatal(err)) {
            return err;
        }
        result.status = (uint32_t)err;
        result.attr = err == 0 ? ns_attr(tx, &a) : SLICE_EMPTY;
        commit_result_put(results, &result);
        err = 0;
    }
    err = err != 0 ? err : commit_blocks(tx, &req->blocks, true, &first);
    rep->results = wire_out_list(results, req->files.count);
    return err != 0 || req->files.count != 0 ? err : first;
}

/* ---- freeing ---- */

static int remove_inode(struct ns_tx *tx, const struct attr *a)
{
    struct ns_key8 key = ns_key8(a->ino);
    int err = ns_quota_forget(tx, a);

    err = err != 0 ? err : ns_must(ns_db_del(tx, DB_INODES, KEY_SLICE(key)));
    err = err != 0 ? err : ns_must(ns_db_del(tx, DB_ORPHANS, KEY_SLICE(key)));
    if (err == 0 && S_ISLNK(a->mode)) {
        err = ns_must(ns_db_del(tx, DB_SYMLINKS, KEY_SLICE(key)));
    }
    if (err == 0 && (a->flags & ATTR_RECOUNT) != 0) {
        err = ns_recount_drop(tx, a->ino);
    }
    if (err == 0 && (a->flags & ATTR_XATTRS) != 0) {
        err = ns_db_del_prefix(tx, DB_XATTRS, KEY_SLICE(key), NULL);
    }
    return err;
}

static int reap(struct ns_tx *tx, uint64_t ino, uint32_t max_extents)
{
    struct ns_key8 key = ns_key8(ino);
    struct slice none;
    struct attr a;
    int flush;
    int err = ns_db_get(&tx->v, DB_ORPHANS, KEY_SLICE(key), &none);

    if (err != 0) {
        return err == DFS_ENOENT ? 0 : err; /* done before, or never without a name */
    }
    err = ns_must(ns_inode_get(&tx->v, ino, &a));
    if (err != 0) {
        return err;
    }
    err = ns_extent_drop(tx, &a, max_extents);
    flush = ns_live_flush(tx);
    err = err != 0 ? err : flush;
    if (err != 0) {
        return err;
    }
    return a.bytes != 0 ? ns_inode_put(tx, &a) : remove_inode(tx, &a);
}

int ns_do_ns_reap(struct ns_tx *tx, const struct ns_reap_req *req, struct ns_reap_rep *rep)
{
    struct wire_in in = wire_in_of(req->inodes.items);
    int err = 0;

    (void)rep;
    for (uint32_t i = 0; err == 0 && i < req->inodes.count; i++) {
        struct ino_ref ref;

        err = ino_ref_get(&in, &ref);
        err = err != 0 ? err : reap(tx, ref.ino, req->max_extents);
    }
    return err;
}
