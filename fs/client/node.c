#include "fs/client/node.h"

#include "cluster/base/base.h"

#include "fs/client/client_int.h"
#include "fs/client/memory.h"
#include "fs/client/readahead.h"
#include "fs/client/writer.h"

#define IO_SLICE_MS 100 /* of waiting, between looks whether somebody still does */

static struct node *find_locked(struct client *c, uint64_t ino)
{
    struct hnode *h = htab_find(&c->nodes, htab_mix(ino));

    while (h != NULL && CONTAINER_OF(h, struct node, by_ino)->ino != ino) {
        h = htab_next(h);
    }
    return h != NULL ? CONTAINER_OF(h, struct node, by_ino) : NULL;
}

struct node *node_find(struct client *c, uint64_t ino)
{
    struct node *n;

    pthread_mutex_lock(&c->mu);
    n = find_locked(c, ino);
    if (n != NULL) {
        n->refs++;
    }
    pthread_mutex_unlock(&c->mu);
    return n;
}

struct node *node_get(struct client *c, uint64_t ino)
{
    struct node *n;

    pthread_mutex_lock(&c->mu);
    n = find_locked(c, ino);
    if (n == NULL) {
        n = x_alloc(sizeof(*n));
        n->c = c;
        n->ino = ino;
        list_init(&n->dirty_link);
        pthread_mutex_init(&n->io, NULL);
        pthread_mutex_init(&n->mu, NULL);
        cond_init(&n->committed);
        htab_add(&c->nodes, &n->by_ino, htab_mix(ino));
    }
    n->refs++;
    pthread_mutex_unlock(&c->mu);
    return n;
}

static int lock_until(pthread_mutex_t *mu, uint64_t until_ms)
{
    struct timespec t = { .tv_sec = (time_t)(until_ms / 1000),
                          .tv_nsec = (long)(until_ms % 1000) * NS_PER_MS };

#ifdef __SANITIZE_THREAD__ /* knows the one with the clock of the day only */
    int64_t wall_ns = clock_wall_ns() + ((int64_t)until_ms - (int64_t)clock_mono_ms()) * NS_PER_MS;

    t = (struct timespec){ wall_ns / NS_PER_SEC, wall_ns % NS_PER_SEC };
    return pthread_mutex_timedlock(mu, &t);
#else
    return pthread_mutex_clocklock(mu, CLOCK_MONOTONIC, &t);
#endif
}

int node_io_lock(struct node *n, uint64_t deadline_ms)
{
    uint64_t since = clock_mono_ms();

    for (uint64_t now = since;;) {
        if (lock_until(&n->io, MIN(deadline_ms, now + IO_SLICE_MS)) == 0) {
            return DFS_OK;
        }
        now = clock_mono_ms();
        if (cancel_pending() && now - since >= CANCEL_AFTER_MS) {
            return DFS_EINTR;
        }
        if (now >= deadline_ms) {
            return DFS_ETIMEOUT;
        }
    }
}

struct node **node_all(struct client *c, size_t *ret_count)
{
    struct node **nodes;
    size_t count = 0;

    pthread_mutex_lock(&c->mu);
    nodes = x_alloc((c->nodes.count + 1) * sizeof(struct node *));
    HTAB_FOREACH (h, &c->nodes) {
        nodes[count] = CONTAINER_OF(h, struct node, by_ino);
        nodes[count++]->refs++;
    }
    pthread_mutex_unlock(&c->mu);
    *ret_count = count;
    return nodes;
}

void node_ref(struct node *n)
{
    pthread_mutex_lock(&n->c->mu);
    n->refs++;
    pthread_mutex_unlock(&n->c->mu);
}

/* The last user is gone: the masters hear of it with the next ping. c->mu is held. */
static void retire_locked(struct client *c, struct node *n)
{
    struct seen *s = &c->seen[htab_mix(n->ino) % SEEN_SLOTS];

    htab_remove(&c->nodes, &n->by_ino);
    *s = (struct seen){ n->ino, n->stale || n->foreign != n->renewed ? 0 : n->attr.data_version };
    if (c->closed_count == c->closed_cap) {
        c->closed_cap = c->closed_cap == 0 ? 64 : c->closed_cap * 2;
        c->closed = x_realloc(c->closed, c->closed_cap * sizeof(*c->closed));
    }
    c->closed[c->closed_count++] = n->ino;
}

void node_put(struct node *n)
{
    struct client *c;
    bool last;

    if (n == NULL) {
        return;
    }
    c = n->c;
    pthread_mutex_lock(&c->mu);
    last = --n->refs == 0;
    if (last) {
        retire_locked(c, n);
    }
    pthread_mutex_unlock(&c->mu);
    if (!last) {
        return;
    }
    readahead_drop(n, 0, UINT64_MAX);
    writer_free(n);
    atomic_fetch_sub(&c->map_extents, n->counted);
    extmap_clear(&n->map);
    extmap_clear(&n->todo);
    extmap_clear(&n->flying);
    pthread_mutex_destroy(&n->io);
    pthread_mutex_destroy(&n->mu);
    pthread_cond_destroy(&n->committed);
    free(n);
}

void node_mark_dirty(struct node *n)
{
    struct client *c = n->c;

    pthread_mutex_lock(&c->mu);
    if (!n->dirty_listed) {
        n->dirty_listed = true;
        n->refs++;
        list_push_back(&c->dirty, &n->dirty_link);
    }
    pthread_mutex_unlock(&c->mu);
}

bool node_clean_locked(const struct node *n)
{
    return n->todo.count == 0 && !n->committing && writer_idle_locked(n);
}

void node_resize_locked(struct node *n)
{
    n->size = MAX(n->attr.size, extmap_end(&n->todo));
    n->size = MAX(n->size, extmap_end(&n->flying));
    n->size = MAX(n->size, writer_end_locked(n));
}

void node_foreign_locked(struct node *n)
{
    struct client *c = n->c;

    n->foreign++;
    if (c->on_content != NULL) {
        c->on_content(c->on_content_arg, n->ino);
    }
}

uint64_t node_visible_locked(const struct node *n)
{
    return n->appending ? MIN(n->append_from, n->size) : n->size;
}

void node_learn_attr_locked(struct node *n, const struct attr *a)
{
    if (a->version < n->attr.version) {
        return;
    }
    if (a->data_version != n->attr.data_version) {
        n->stale = true;
        node_foreign_locked(n);
    }
    n->attr = *a;
    node_resize_locked(n);
}

void node_count_locked(struct node *n)
{
    atomic_fetch_add(&n->c->map_extents, n->map.count - n->counted);
    n->counted = n->map.count;
}

bool node_learn_locked(struct node *n, const struct attr *a, struct wire_list extents, bool more,
                       uint64_t from, bool fresh)
{
    struct wire_in in = wire_in_of(extents.items);
    bool other = a->data_version != n->attr.data_version;
    bool changed = n->stale || other;
    uint64_t end = n->known;

    if (a->version < n->attr.version || (changed && !fresh)) {
        n->stale = n->stale || a->version >= n->attr.version;
        return false;
    }
    if (fresh) {
        extmap_clear(&n->map);
        n->from = end = from;
        n->stale = false;
    }
    if (changed) {
        readahead_drop(n, 0, UINT64_MAX);
        node_unsynced_locked(n);
    }
    if (other && n->attr.version != 0) {
        node_foreign_locked(n);
    }
    n->attr = *a;
    for (uint32_t i = 0; i < extents.count; i++) {
        struct extent e;

        if (extent_get(&in, &e) != 0) {
            break;
        }
        extmap_insert(&n->map, &e);
        end = e.off + e.len;
    }
    n->known = more && in.err == 0 ? end : UINT64_MAX;
    extmap_overlay(&n->map, &n->flying);
    extmap_overlay(&n->map, &n->todo);
    node_count_locked(n);
    node_resize_locked(n);
    return true;
}

static bool knows_locked(const struct node *n, uint64_t off, uint64_t end)
{
    return !n->stale && n->from <= off && n->known >= end;
}

/* Bytes that are no holes, when the masters know of `committed`. As long as the map is not known, what
 * is written over counts twice. */
static uint64_t bytes_locked(const struct node *n, uint64_t committed)
{
    static const struct extmap none;
    const struct extmap *dirty = writer_dirty_locked(n);

    dirty = dirty != NULL ? dirty : &none;
    return knows_locked(n, 0, UINT64_MAX)
               ? n->map.bytes + extmap_beside(dirty, &n->map)
               : committed + n->todo.bytes + n->flying.bytes + dirty->bytes;
}

void node_overlay_locked(const struct node *n, struct attr *a)
{
    if (a->version < n->attr.version) {
        *a = n->attr;
    }
    if (n->mtime != 0) {
        a->size = MAX(a->size, node_visible_locked(n));
        a->bytes = bytes_locked(n, a->bytes);
        a->mtime = n->mtime;
        a->ctime = MAX(a->ctime, n->mtime);
    }
}

void node_overlay(struct client *c, struct attr *a)
{
    struct node *n = node_find(c, a->ino);

    if (n != NULL) {
        pthread_mutex_lock(&n->mu);
        /* Not while a commit is under way: this may be it, and its answer tells more. What is longer
         * than all that is known here is somebody else's: readers have to know before anybody does. */
        if (a->version > n->attr.version && (!n->committing || a->size > node_visible_locked(n))) {
            node_learn_attr_locked(n, a);
        }
        node_overlay_locked(n, a);
        pthread_mutex_unlock(&n->mu);
        node_put(n);
    }
    atime_overlay(c, a);
}

void node_unsynced_locked(struct node *n)
{
    n->synced_before = false;
    n->unsynced++;
}

void node_fail_locked(struct node *n, int err)
{
    n->error = err;
    n->error_seq++;
    n->error_told = false;
}

/* ---- extents ---- */

static bool much(const struct client *c)
{
    return atomic_load(&c->map_extents) > memory_extents(c->conf->client_cache);
}

/* What is not committed yet stays. */
static void drop_map(struct node *n)
{
    pthread_mutex_lock(&n->mu);
    extmap_clear(&n->map);
    extmap_overlay(&n->map, &n->flying);
    extmap_overlay(&n->map, &n->todo);
    n->from = n->known = 0;
    n->parted = true;
    node_count_locked(n);
    pthread_mutex_unlock(&n->mu);
}

void nodes_tick(struct client *c)
{
    struct node **nodes;
    size_t count;

    if (!much(c)) {
        return;
    }
    nodes = node_all(c, &count);
    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&c->map_extents) > memory_extents(c->conf->client_cache) / 2) {
            drop_map(nodes[i]);
        }
        node_put(nodes[i]);
    }
    free(nodes);
}

/* Where to ask next so that off gets known. *ret_fresh: in place of what is known. */
static uint64_t next_locked(const struct node *n, uint64_t off, bool *ret_fresh)
{
    *ret_fresh = n->stale || n->known <= n->from || n->known == UINT64_MAX || off < n->from ||
                 (n->parted && off > n->known);
    return !*ret_fresh ? n->known : n->parted ? off : 0;
}

/* One page of extents. *ret_again: the answer did not fit to what is known. */
static int fetch_page(struct node *n, uint64_t from, bool fresh, uint32_t max, uint64_t deadline_ms,
                      bool *ret_again)
{
    struct client *c = n->c;
    struct extents_req q = { .ino = n->ino, .off = from, .max = max };
    struct extents_rep r;
    struct meta_call call;
    struct slice rep;
    struct attr a;
    int err = meta_begin(c->meta, META_QUERY, NULL, deadline_ms, &call);

    if (err != 0) {
        return err;
    }
    extents_req_put(call.out, &q);
    err = meta_run(&call, RPC_extents, &rep);
    if (err == 0) {
        err = extents_rep_get(rep, &r);
    }
    if (err == 0) {
        struct wire_in in = wire_in_of(r.attr);

        err = attr_get(&in, &a);
    }
    if (err == 0) {
        err = peers_learn(c->peers, r.blocks);
    }
    if (err == 0) {
        pthread_mutex_lock(&n->mu);
        *ret_again = (!fresh && n->known != from) ||
                     !node_learn_locked(n, &a, r.extents, r.more != 0, from, fresh);
        pthread_mutex_unlock(&n->mu);
    }
    meta_end(&call);
    return err;
}

int node_fetch_locked(struct node *n, uint64_t off, uint64_t end, uint64_t deadline_ms)
{
    for (bool first = true;; first = false) {
        uint64_t from;
        bool again = false;
        bool fresh;
        uint32_t max;
        int err;

        pthread_mutex_lock(&n->mu);
        if (knows_locked(n, off, end)) {
            return DFS_OK;
        }
        pthread_mutex_unlock(&n->mu);
        if (first) { /* not later: it may be this node's map that goes */
            nodes_tick(n->c);
        }
        pthread_mutex_lock(&n->mu);
        from = next_locked(n, off, &fresh);
        max = fresh && n->parted ? PART_EXTENTS : PAGE_EXTENTS;
        pthread_mutex_unlock(&n->mu);
        err = fetch_page(n, from, fresh, max, deadline_ms, &again);
        if (err != 0) {
            return err;
        }
        if (again && clock_mono_ms() >= deadline_ms) {
            return DFS_ETIMEOUT;
        }
    }
}

int node_fetch(struct node *n, uint64_t off, uint64_t end, uint64_t deadline_ms)
{
    int err = node_fetch_locked(n, off, end, deadline_ms);

    if (err == 0) {
        pthread_mutex_unlock(&n->mu);
    }
    return err;
}
