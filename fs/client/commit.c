#include "fs/client/commit.h"

#include "cluster/base/base.h"

#include "cluster/base/fault.h"
#include "cluster/base/log.h"

#include "fs/client/client_int.h"
#include "fs/client/writer.h"

#define GONE_MAX 1024u /* blocks that a writer remembers to sync */

/* What one command tells of one node. */
struct part {
    struct node *node;
    struct commit_block *blocks;
    size_t block_count;
    bool more; /* than fits into it */
};

/* Claims the node for a commit. *ret_mine false: there is nothing to do, all from before the call is
 * committed. */
static int claim(struct node *n, bool append, uint64_t deadline_ms, bool *ret_mine)
{
    int err = DFS_OK;

    pthread_mutex_lock(&n->mu);
    while (err == 0 && (n->committing || n->appending != append)) {
        err = cond_wait_until(&n->committed, &n->mu, deadline_ms);
    }
    if (err == 0) {
        *ret_mine = n->committing = n->todo.count > 0;
    }
    pthread_mutex_unlock(&n->mu);
    return err;
}

/* Up to max extents go from todo to flying. */
static void take_off_locked(struct node *n, size_t max)
{
    struct extent e;

    ASSERT(n->flying.count == 0);
    if (n->todo.count <= max) {
        n->flying = n->todo;
        n->todo = (struct extmap){ 0 };
        return;
    }
    for (size_t i = 0; i < max && extmap_find(&n->todo, 0, &e); i++) {
        extmap_insert(&n->flying, &e);
        extmap_punch(&n->todo, e.off, e.len);
    }
}

/* Are the blocks of all nodes the session's? If not they must be written again. */
static bool same_session(const struct part *parts, size_t count, uint64_t session)
{
    bool same = true;

    for (size_t i = 0; i < count; i++) {
        struct node *n = parts[i].node;

        pthread_mutex_lock(&n->mu);
        same = same && n->writer->session == session;
        pthread_mutex_unlock(&n->mu);
    }
    return same;
}

/* Encodes the node's part of the command. Returns how many extents it has. */
static size_t gather(struct part *p, size_t max, struct wire_out *files, struct wire_out *blocks,
                     uint32_t *block_count)
{
    struct node *n = p->node;
    struct commit_file f = { .ino = n->ino };
    struct wire_out extents;
    struct extent e;
    size_t count;
    size_t i = 0;
    struct commit_block b;

    wire_out_init(&extents, LIMIT_MSG);
    pthread_mutex_lock(&n->mu);
    take_off_locked(n, max);
    p->more = n->todo.count > 0;
    count = n->flying.count;
    for (uint64_t pos = 0; extmap_find(&n->flying, pos, &e); pos = e.off + e.len) {
        if (n->appending) {
            struct extent behind = e;

            ASSERT(e.off >= n->append_from);
            behind.off -= n->append_from;
            extent_put(&extents, &behind);
        } else {
            extent_put(&extents, &e);
        }
    }
    f.flags = n->appending ? COMMIT_APPEND : 0;
    f.size = extmap_end(&n->flying);
    f.mtime = n->mtime;
    while (wcore_uncommitted(&n->writer->core, &i, &b)) {
        p->blocks = x_realloc(p->blocks, (p->block_count + 1) * sizeof(b));
        p->blocks[p->block_count++] = b;
        commit_block_put(blocks, &b);
        ++*block_count;
    }
    pthread_mutex_unlock(&n->mu);
    f.extents = wire_out_list(&extents, (uint32_t)count);
    commit_file_put(files, &f);
    wire_out_fini(&extents);
    return count;
}

/* What did not fly is to be done again, under what came since. */
static void put_back_locked(struct node *n)
{
    extmap_overlay(&n->flying, &n->todo);
    extmap_clear(&n->todo);
    n->todo = n->flying;
    n->flying = (struct extmap){ 0 };
}

/* Can the same commit succeed later? */
static bool temporary(int err)
{
    return err == DFS_ETIMEOUT || err == DFS_ECONN || err == DFS_ESESSION;
}

static bool other_handles(struct node *n)
{
    bool others;

    pthread_mutex_lock(&n->c->mu);
    others = n->handles > 1;
    pthread_mutex_unlock(&n->c->mu);
    return others;
}

static void land(struct part *p, int err, const struct attr *a)
{
    struct node *n = p->node;

    pthread_mutex_lock(&n->mu);
    if (err == 0) {
        for (size_t i = 0; i < p->block_count; i++) {
            wcore_committed(&n->writer->core, &p->blocks[i]);
        }
        if (n->writer->core.gone_count > GONE_MAX && wcore_forget_committed(&n->writer->core) > 0) {
            node_unsynced_locked(n);
        }
        uint64_t end = extmap_end(&n->flying);

        extmap_clear(&n->flying);
        /* One more than before: nobody else has changed the content meanwhile. An append may have
         * landed behind what others appended all the same, and was learned of since it was sent. */
        if (a->version < n->attr.version) {
            n->stale = n->stale || n->appending;
        } else {
            if (a->data_version != n->attr.data_version + 1 || (n->appending && a->size != end)) {
                n->stale = true;
                node_foreign_locked(n);
            } else if (n->appending && (atomic_load(&n->cached) || other_handles(n))) {
                node_foreign_locked(n); /* the kernel did not put it into its pages */
            }
            n->attr = *a;
        }
        if (n->todo.count == 0 && extmap_end(&n->writer->dirty) == 0) {
            n->mtime = 0;
        }
    } else if (temporary(err)) {
        put_back_locked(n);
    } else {
        extmap_clear(&n->flying);
        n->stale = true;
        node_foreign_locked(n); /* caches above have what is lost */
        node_fail_locked(n, err);
        log_event(LOG_ERROR, "client.commit", "inode=%ju err=%s", (uintmax_t)n->ino, err_name(err));
    }
    node_resize_locked(n);
    n->committing = false;
    pthread_cond_broadcast(&n->committed);
    pthread_mutex_unlock(&n->mu);
    free(p->blocks);
}

static int results(struct slice rep, struct part *parts, size_t count)
{
    struct commit_rep r;
    int first = commit_rep_get(rep, &r);

    if (first == 0 && r.results.count != count) {
        first = DFS_EMALFORMED;
    }
    if (first != 0) {
        for (size_t i = 0; i < count; i++) {
            land(&parts[i], first, NULL);
        }
        return first;
    }
    struct wire_in in = wire_in_of(r.results.items);

    for (size_t i = 0; i < count; i++) {
        struct commit_result one;
        struct attr a = { 0 };
        int err = commit_result_get(&in, &one);

        err = err != 0 ? err : (int)one.status;
        if (err == 0) {
            struct wire_in attr_in = wire_in_of(one.attr);

            err = attr_get(&attr_in, &a);
        }
        land(&parts[i], err, &a);
        first = first != 0 ? first : err;
    }
    return first;
}

/* One command for claimed nodes. */
static int commit_some(struct part *parts, size_t count, uint64_t deadline_ms)
{
    struct client *c = parts[0].node->c;
    struct wire_out files;
    struct wire_out blocks;
    struct commit_req q = { 0 };
    struct meta_call call;
    struct slice rep;
    uint32_t block_count = 0;
    size_t left = LIMIT_COMMIT_EXTENTS;
    int err;

    wire_out_init(&files, LIMIT_MSG / 2);
    wire_out_init(&blocks, LIMIT_MSG / 4);
    for (size_t i = 0; i < count; i++) {
        left -= gather(&parts[i], MAX(left / (count - i), 1), &files, &blocks, &block_count);
    }
    q.blocks = wire_out_list(&blocks, block_count);
    q.files = wire_out_list(&files, (uint32_t)count);
    err = files.err != 0 ? files.err : blocks.err;
    err = err != 0 ? err : meta_begin(c->meta, META_BOUND, NULL, deadline_ms, &call);
    if (err == 0) {
        commit_req_put(call.out, &q);
        err = same_session(parts, count, call.session) ? FAULT("client.commit.send") : DFS_ESESSION;
        err = err != 0 ? err : meta_run(&call, RPC_commit, &rep);
        if (err == 0) {
            err = results(rep, parts, count);
            count = 0;
        }
        meta_end(&call);
        atomic_fetch_add(&c->commits, 1);
    }
    for (size_t i = 0; i < count; i++) {
        land(&parts[i], err, NULL);
    }
    wire_out_fini(&files);
    wire_out_fini(&blocks);
    return err;
}

static int commit_one(struct node *n, bool append, uint64_t deadline_ms)
{
    struct part p = { .more = true };
    int err = DFS_OK;

    /* What others add after a command has taken all there was is theirs to wait for. */
    while (err == 0 && p.more) {
        bool mine = false;

        p = (struct part){ .node = n };
        err = claim(n, append, deadline_ms, &mine);
        if (err == 0 && mine) {
            err = commit_some(&p, 1, deadline_ms);
        }
    }
    return err;
}

int commit_node(struct node *n, uint64_t deadline_ms)
{
    return commit_one(n, false, deadline_ms);
}

int commit_append(struct node *n, uint64_t deadline_ms)
{
    return commit_one(n, true, deadline_ms);
}

static int by_inode(const void *a, const void *b)
{
    uint64_t x = (*(struct node *const *)a)->ino;
    uint64_t y = (*(struct node *const *)b)->ino;

    return (x > y) - (x < y);
}

int commit_nodes(struct node **nodes, size_t count, uint64_t deadline_ms)
{
    int first = DFS_OK;

    /* Two threads that claim several nodes claim them in the same order. */
    qsort(nodes, count, sizeof(struct node *), by_inode);
    for (size_t i = 0; i < count;) {
        struct part parts[COMMIT_FILES];
        size_t n = 0;
        int err = DFS_OK;

        for (; i < count && n < COMMIT_FILES; i++) {
            bool mine = false;

            if (claim(nodes[i], false, deadline_ms, &mine) == 0 && mine) {
                parts[n++] = (struct part){ .node = nodes[i] };
            }
        }
        if (n > 0) {
            err = commit_some(parts, n, deadline_ms);
        }
        for (size_t k = 0; k < n && err == 0; k++) { /* or it would only grow */
            err = parts[k].more ? commit_node(parts[k].node, deadline_ms) : DFS_OK;
        }
        first = first != 0 ? first : err;
    }
    return first;
}
