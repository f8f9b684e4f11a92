#include "fs/client/readahead.h"

#include "cluster/base/base.h"

#include "fs/client/reader.h"

#define THREADS     3
#define WINDOW_MIN  MIB
#define PAGES_LEAST 4
#define SLACK       (2 * MIB) /* the kernel's requests of one reader arrive in any order */

enum page_state { PAGE_QUEUED, PAGE_LOADING, PAGE_READY, PAGE_FAILED };

struct page {
    struct hnode by_key;
    struct list lru;   /* READY: oldest first */
    struct list job;   /* QUEUED */
    struct node *node; /* counted while QUEUED or LOADING */
    uint64_t index;
    uint8_t state;
    bool dropped; /* out of the table; freed by its last user */
    uint32_t users;
    uint8_t *p;
    uint32_t cap;
    uint32_t len; /* less than BUF_BYTES at the end of the file */
};

struct readahead {
    struct client *c;
    pthread_mutex_t mu; /* guards all below, and the pages */
    pthread_cond_t work;
    pthread_cond_t loaded;
    struct htab pages;
    struct list lru;
    struct list jobs;
    size_t count;
    bool stopping;
    pthread_t thread[THREADS];
    int threads;
};

static uint64_t key(uint64_t ino, uint64_t index)
{
    return htab_mix(ino ^ htab_mix(index));
}

static struct page *find_locked(const struct readahead *ra, const struct node *n, uint64_t index)
{
    struct hnode *h = htab_find(&ra->pages, key(n->ino, index));

    for (; h != NULL; h = htab_next(h)) {
        struct page *p = CONTAINER_OF(h, struct page, by_key);

        if (p->node == n && p->index == index) {
            return p;
        }
    }
    return NULL;
}

static void free_page(struct readahead *ra, struct page *p)
{
    bufs_free(&ra->c->bufs, p->p, p->cap);
    free(p);
}

/* Out of the table. */
static void unlink_locked(struct readahead *ra, struct page *p)
{
    htab_remove(&ra->pages, &p->by_key);
    list_remove(&p->lru);
    atomic_fetch_sub(&p->node->pages, 1);
    ra->count--;
    p->dropped = true;
}

/* The same by somebody who does not use it: freed now or by its last user. */
static void drop_locked(struct readahead *ra, struct page *p)
{
    unlink_locked(ra, p);
    if (p->users == 0) {
        free_page(ra, p);
    }
}

static void unuse_locked(struct readahead *ra, struct page *p)
{
    if (--p->users == 0 && p->dropped) {
        free_page(ra, p);
    }
}

/* A new page in the table, with one user; NULL when there is no room for it. */
static struct page *add_locked(struct readahead *ra, struct node *n, uint64_t index)
{
    struct page *p;

    if (ra->count >= MAX(bufs_budget(&ra->c->bufs) / 2 / BUF_BYTES, PAGES_LEAST) ||
        bufs_tight(&ra->c->bufs)) {
        struct list *oldest = list_first(&ra->lru);

        if (oldest == NULL) {
            return NULL;
        }
        drop_locked(ra, CONTAINER_OF(oldest, struct page, lru));
    }
    p = x_alloc(sizeof(*p));
    list_init(&p->lru);
    list_init(&p->job);
    p->node = n;
    p->index = index;
    p->users = 1;
    htab_add(&ra->pages, &p->by_key, key(n->ino, index));
    atomic_fetch_add(&n->pages, 1);
    ra->count++;
    return p;
}

/* Fills a page that this thread uses; ra->mu is held before and after. */
static void load_locked(struct readahead *ra, struct page *p, uint64_t deadline_ms)
{
    size_t len = 0;
    int err;

    p->state = PAGE_LOADING;
    pthread_mutex_unlock(&ra->mu);
    p->cap = bufs_grow(&ra->c->bufs, &p->p, p->cap, BUF_BYTES);
    err = reader_read(p->node, p->p, BUF_BYTES, p->index * BUF_BYTES, &len, deadline_ms);
    pthread_mutex_lock(&ra->mu);
    p->len = (uint32_t)len;
    p->state = err == 0 && len > 0 ? PAGE_READY : PAGE_FAILED;
    if (!p->dropped && p->state == PAGE_READY) {
        list_push_back(&ra->lru, &p->lru);
    } else if (!p->dropped) {
        unlink_locked(ra, p);
    }
    pthread_cond_broadcast(&ra->loaded);
}

static void *run(void *arg)
{
    struct readahead *ra = arg;

    pthread_mutex_lock(&ra->mu);
    while (!ra->stopping) {
        struct list *item = list_pop_front(&ra->jobs);

        if (item == NULL) {
            pthread_cond_wait(&ra->work, &ra->mu);
            continue;
        }
        struct page *p = CONTAINER_OF(item, struct page, job);
        struct node *n = p->node;

        if (!p->dropped) {
            load_locked(ra, p, client_deadline(ra->c));
        }
        unuse_locked(ra, p);
        pthread_mutex_unlock(&ra->mu);
        node_put(n);
        pthread_mutex_lock(&ra->mu);
    }
    pthread_mutex_unlock(&ra->mu);
    return NULL;
}

struct readahead *readahead_start(struct client *c)
{
    struct readahead *ra = x_alloc(sizeof(*ra));

    ra->c = c;
    pthread_mutex_init(&ra->mu, NULL);
    cond_init(&ra->work);
    cond_init(&ra->loaded);
    htab_init(&ra->pages);
    list_init(&ra->lru);
    list_init(&ra->jobs);
    while (ra->threads < THREADS && pthread_create(&ra->thread[ra->threads], NULL, run, ra) == 0) {
        ra->threads++;
    }
    return ra;
}

void readahead_tick(struct readahead *ra)
{
    pthread_mutex_lock(&ra->mu);
    while (bufs_tight(&ra->c->bufs) && !list_empty(&ra->lru)) {
        drop_locked(ra, CONTAINER_OF(list_first(&ra->lru), struct page, lru));
    }
    pthread_mutex_unlock(&ra->mu);
}

void readahead_stop(struct readahead *ra)
{
    struct list *item;

    if (ra == NULL) {
        return;
    }
    pthread_mutex_lock(&ra->mu);
    ra->stopping = true;
    pthread_cond_broadcast(&ra->work);
    pthread_mutex_unlock(&ra->mu);
    for (int i = 0; i < ra->threads; i++) {
        pthread_join(ra->thread[i], NULL);
    }
    while ((item = list_pop_front(&ra->jobs)) != NULL) {
        struct page *p = CONTAINER_OF(item, struct page, job);
        struct node *n = p->node;

        pthread_mutex_lock(&ra->mu);
        if (!p->dropped) {
            unlink_locked(ra, p);
        }
        unuse_locked(ra, p);
        pthread_mutex_unlock(&ra->mu);
        node_put(n);
    }
}

void readahead_free(struct readahead *ra)
{
    if (ra == NULL) {
        return;
    }
    htab_fini(&ra->pages);
    pthread_mutex_destroy(&ra->mu);
    pthread_cond_destroy(&ra->work);
    pthread_cond_destroy(&ra->loaded);
    free(ra);
}

/* ---- who reads on ---- */

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

/* The reader that this request belongs to, or the one that was used least lately, made new. */
static struct ra_reader *match(struct file *f, uint64_t off)
{
    struct ra_reader *best = NULL;
    struct ra_reader *oldest = &f->reader[0];

    for (size_t i = 0; i < STREAMS_OF_FILE; i++) {
        struct ra_reader *r = &f->reader[i];

        if (r->used != 0 && distance(r->next, off) <= SLACK &&
            (best == NULL || distance(r->next, off) < distance(best->next, off))) {
            best = r;
        }
        oldest = r->used < oldest->used ? r : oldest;
    }
    if (best == NULL) {
        best = oldest;
        *best = (struct ra_reader){ .next = off };
    }
    best->used = ++f->reads;
    return best;
}

/* What to ask for after this read: [*ret_from, *ret_to). */
static void plan(struct file *f, uint64_t off, size_t len, uint64_t size, uint64_t *ret_from,
                 uint64_t *ret_to)
{
    uint64_t max = f->node->c->conf->read_ahead;
    struct ra_reader *r;

    pthread_mutex_lock(&f->mu);
    r = match(f, off);
    r->hits++;
    r->next = MAX(r->next, off + len);
    *ret_from = *ret_to = r->next;
    /* From the start of a file most readers go on; elsewhere two reads in a row tell. */
    if (r->hits >= 3 || (off == 0 && r->hits == 1) || r->window != 0) {
        if (r->window == 0) {
            r->window = MIN(WINDOW_MIN, max);
            r->issued = r->next;
        } else if (r->next + r->window / 2 >= r->issued) {
            r->window = MIN(r->window * 4, max);
        }
        *ret_from = MAX(r->issued, r->next);
        *ret_to = MIN(r->next + r->window, size);
        /* Whole pages, and not for every little read. */
        if (*ret_to > *ret_from) {
            r->issued = *ret_to = (*ret_to + BUF_BYTES - 1) / BUF_BYTES * BUF_BYTES;
        }
    }
    pthread_mutex_unlock(&f->mu);
}

void readahead_note(struct file *f, uint64_t off, size_t len, uint64_t size)
{
    struct readahead *ra = f->node->c->ra;
    uint64_t from;
    uint64_t to;

    if (f->node->c->conf->read_ahead == 0) {
        return;
    }
    plan(f, off, len, size, &from, &to);
    for (uint64_t i = from / BUF_BYTES; from < to && i < (to + BUF_BYTES - 1) / BUF_BYTES; i++) {
        struct page *p = NULL;

        if (i * BUF_BYTES >= size) {
            break;
        }
        node_ref(f->node);
        pthread_mutex_lock(&ra->mu);
        if (find_locked(ra, f->node, i) == NULL) {
            p = add_locked(ra, f->node, i);
        }
        if (p != NULL) {
            list_push_back(&ra->jobs, &p->job);
            pthread_cond_signal(&ra->work);
        }
        pthread_mutex_unlock(&ra->mu);
        if (p == NULL) {
            node_put(f->node);
        }
    }
}

/* ---- pages ---- */

/* The page at off with one more user once it is ready; NULL: not here. *ret_job: a job for it was
 * done, whose node the caller puts without the lock. */
static struct page *use_page_locked(struct readahead *ra, struct node *n, uint64_t off,
                                    uint64_t deadline_ms, bool *ret_job)
{
    struct page *page = find_locked(ra, n, off / BUF_BYTES);

    if (page == NULL) {
        return NULL;
    }
    page->users++;
    if (page->state == PAGE_QUEUED) { /* quicker than to wait for its turn */
        list_remove(&page->job);
        *ret_job = true;
        load_locked(ra, page, deadline_ms);
        page->users--; /* the job's; ours is left */
    }
    while (page->state == PAGE_LOADING && !page->dropped &&
           cond_wait_until(&ra->loaded, &ra->mu, deadline_ms) == 0) {
    }
    if (page->state == PAGE_READY && !page->dropped && off % BUF_BYTES < page->len) {
        return page;
    }
    unuse_locked(ra, page);
    return NULL;
}

/* Up to `end` of it was read. */
static void used_to_locked(struct readahead *ra, struct page *page, size_t end)
{
    if (end == page->len && !page->dropped && page->index > 0) {
        list_remove(&page->lru); /* used up: the first to go */
        list_push_front(&ra->lru, &page->lru);
    }
}

size_t readahead_view(struct node *n, size_t len, uint64_t off, uint64_t deadline_ms,
                      struct read_view *ret)
{
    struct readahead *ra = n->c->ra;
    size_t at = (size_t)(off % BUF_BYTES);
    struct page *page;
    bool job = false;
    size_t k = 0;

    *ret = (struct read_view){ 0 };
    if (atomic_load(&n->pages) == 0) {
        return 0;
    }
    pthread_mutex_lock(&ra->mu);
    page = use_page_locked(ra, n, off, deadline_ms, &job);
    if (page != NULL) {
        k = MIN(len, (size_t)page->len - at);
        *ret = (struct read_view){ .p = page->p + at, .page = page, .end = at + k };
    }
    pthread_mutex_unlock(&ra->mu);
    if (job) {
        node_put(n); /* the job's */
    }
    return k;
}

void readahead_unview(struct readahead *ra, struct read_view *v)
{
    if (v->page != NULL) {
        pthread_mutex_lock(&ra->mu);
        used_to_locked(ra, v->page, v->end);
        unuse_locked(ra, v->page);
        pthread_mutex_unlock(&ra->mu);
        *v = (struct read_view){ 0 };
    }
}

size_t readahead_read(struct node *n, void *p, size_t len, uint64_t off, uint64_t deadline_ms)
{
    struct read_view v;
    size_t k = readahead_view(n, len, off, deadline_ms, &v);

    if (k > 0) {
        memcpy(p, v.p, k);
        readahead_unview(n->c->ra, &v);
    }
    return k;
}

void readahead_load(struct node *n, uint64_t off, uint64_t deadline_ms)
{
    struct readahead *ra = n->c->ra;
    struct page *p = NULL;

    pthread_mutex_lock(&ra->mu);
    if (find_locked(ra, n, off / BUF_BYTES) == NULL) {
        p = add_locked(ra, n, off / BUF_BYTES);
    }
    if (p != NULL) {
        load_locked(ra, p, deadline_ms);
        unuse_locked(ra, p);
    }
    pthread_mutex_unlock(&ra->mu);
}

void readahead_drop(struct node *n, uint64_t off, uint64_t len)
{
    struct readahead *ra = n->c->ra;
    uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;

    if (len == 0 || atomic_load(&n->pages) == 0) {
        return;
    }
    pthread_mutex_lock(&ra->mu);
    if ((end - 1 - off) / BUF_BYTES < ra->count) {
        for (uint64_t i = off / BUF_BYTES; i <= (end - 1) / BUF_BYTES; i++) {
            struct page *p = find_locked(ra, n, i);

            if (p != NULL) {
                drop_locked(ra, p);
            }
        }
    } else {
        struct hnode *h = htab_each(&ra->pages, NULL);

        while (h != NULL) {
            struct page *p = CONTAINER_OF(h, struct page, by_key);

            if (p->node == n && p->index >= off / BUF_BYTES && p->index <= (end - 1) / BUF_BYTES) {
                drop_locked(ra, p);
                h = htab_each(&ra->pages, NULL); /* from the start: the table changed */
            } else {
                h = htab_each(&ra->pages, h);
            }
        }
    }
    pthread_mutex_unlock(&ra->mu);
}
