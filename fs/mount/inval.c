/* What the kernel remembers is dropped when others change it.
 *
 * Two threads: one for names, which may wait for the kernel's lock on a directory, one for
 * attributes and pages, which may wait for a page that is being read. Neither lock's holder waits for
 * that thread: who looks up a name may wait for its answer from the thread for pages, never from the
 * one for names. The workers that serve the kernel wait for neither.
 *
 * A thread that waits so cannot be killed. If it had the workers' descriptors the requests that a killed
 * process had taken would never end, and neither would its wait for them. So both threads have
 * descriptors of their own: the connection's, which the guard has as well. Answers need a worker's; a
 * third thread gives them.
 *
 * Attributes that tell of a longer file must not reach the kernel before the old last page is gone:
 * the rest of that page is zeros that nobody wrote. So while pages are old, such answers go through
 * the thread that drops them.
 */
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/mount/internal.h"

#define QUEUE_MAX 8192 /* further hints are dropped: what is remembered ends by its timeout */

enum inval_kind { INVAL_ENTRY, INVAL_ATTR, INVAL_PAGES, INVAL_ANSWER, INVAL_RANGE };

struct inval_item {
    struct list list;
    enum inval_kind kind;
    uint64_t ino; /* of INVAL_ENTRY: the directory */
    fuse_req_t req;
    inval_answer_fn *answer;
    struct attr attr;
    off_t off, len; /* of INVAL_RANGE */
    char name[];    /* of INVAL_ENTRY */
};

static void push(struct inval_queue *q, struct inval_item *it)
{
    bool take;

    (void)pthread_mutex_lock(&q->mu);
    take = it->answer != NULL || (q->running && q->count < QUEUE_MAX);
    if (take) {
        list_push_back(&q->items, &it->list);
        q->count++;
        (void)pthread_cond_signal(&q->cond);
    }
    (void)pthread_mutex_unlock(&q->mu);
    if (!take) {
        free(it);
    }
}

static struct inval_item *item_new(enum inval_kind kind, uint64_t ino, struct slice name)
{
    struct inval_item *it = x_alloc(sizeof(*it) + name.len + 1);

    it->kind = kind;
    it->ino = ino;
    if (name.len != 0) {
        memcpy(it->name, name.p, name.len);
    }
    return it;
}

static void drop_entry(struct mount *m, const struct inval_item *it)
{
    fuse_ino_t dir = to_node(m, it->ino);
    size_t len = strlen(it->name);

    /* Expired, it is looked up again and stays what it is if nothing changed: a directory that
     * somebody works in, or has mounted on, is not taken away. */
    if (m->can_expire) {
        (void)fuse_lowlevel_notify_expire_entry(m->se, dir, it->name, len, FUSE_LL_EXPIRE_ONLY);
    } else {
        (void)fuse_lowlevel_notify_inval_entry(m->se, dir, it->name, len);
    }
}

static void drop_pages(struct mount *m, uint64_t ino)
{
    uint64_t mark;

    if (client_content_old(m->client, ino, &mark)) {
        (void)fuse_lowlevel_notify_inval_inode(m->se, to_node(m, ino), 0, 0);
        client_content_renewed(m->client, ino, mark);
    }
}

static void handle(struct mount *m, struct inval_item *it)
{
    switch (it->kind) {
    case INVAL_ENTRY:
        drop_entry(m, it);
        break;
    case INVAL_ATTR:
        (void)fuse_lowlevel_notify_inval_inode(m->se, to_node(m, it->ino), -1, 0);
        break;
    case INVAL_PAGES:
        drop_pages(m, it->ino);
        break;
    case INVAL_RANGE:
        (void)fuse_lowlevel_notify_inval_inode(m->se, to_node(m, it->ino), it->off, it->len);
        push(&m->inval_answers, it); /* this thread has no descriptor that an answer could go to */
        return;
    case INVAL_ANSWER:
        drop_pages(m, it->ino);
        push(&m->inval_answers, it);
        return;
    }
    free(it);
}

static void give_answer(struct mount *m UNUSED, struct inval_item *it)
{
    it->answer(it->req, &it->attr);
    free(it);
}

/* From now on this thread has no descriptor but that one. */
static void leave_descriptors(int but)
{
    if (unshare(CLONE_FILES) == 0) {
        (void)close_range(0, (unsigned)but - 1, 0);
        (void)close_range((unsigned)but + 1, ~0u, 0);
    }
}

static void *inval_main(void *arg)
{
    struct inval_queue *q = arg;
    struct list *l;

    if (q->handle != give_answer) {
        leave_descriptors(fuse_session_fd(q->m->se));
    }

    (void)pthread_mutex_lock(&q->mu);
    while (!q->stopping || !list_empty(&q->items)) {
        l = list_pop_front(&q->items);
        if (l == NULL) {
            (void)pthread_cond_wait(&q->cond, &q->mu);
            continue;
        }
        q->count--;
        q->busy = true;
        (void)pthread_mutex_unlock(&q->mu);
        q->handle(q->m, CONTAINER_OF(l, struct inval_item, list));
        (void)pthread_mutex_lock(&q->mu);
        q->busy = false;
    }
    (void)pthread_mutex_unlock(&q->mu);
    return NULL;
}

/* ---- what comes in ---- */

static void on_content(void *arg, uint64_t ino)
{
    struct mount *m = arg;

    push(&m->inval_pages, item_new(INVAL_PAGES, ino, SLICE_EMPTY));
}

static void on_event(void *arg, const struct event *ev)
{
    struct mount *m = arg;

    if (ev->kind == EVENT_INODE) {
        touch(m, ev->ino);
        xattr_memo_forget(m, ev->ino);
        push(&m->inval_pages, item_new(INVAL_ATTR, ev->ino, SLICE_EMPTY));
    } else if (ev->kind == EVENT_ENTRY && ev->name.len <= LIMIT_NAME) {
        touch(m, ev->ino);
        push(&m->inval_names, item_new(INVAL_ENTRY, ev->ino, ev->name));
    }
}

bool inval_answer(fuse_req_t req, const struct attr *a, inval_answer_fn *answer)
{
    struct mount *m = mount_of(req);
    struct inval_item *it;

    if (!S_ISREG(a->mode) || !client_content_old(m->client, a->ino, NULL)) {
        return false;
    }
    it = item_new(INVAL_ANSWER, a->ino, SLICE_EMPTY);
    it->req = req;
    it->answer = answer;
    it->attr = *a;
    push(&m->inval_pages, it);
    return true;
}

void inval_range_answer(fuse_req_t req, const struct attr *a, off_t off, size_t len,
                        inval_answer_fn *answer)
{
    struct inval_item *it = item_new(INVAL_RANGE, a->ino, SLICE_EMPTY);

    it->req = req;
    it->answer = answer;
    it->attr = *a;
    it->off = off;
    it->len = (off_t)len;
    push(&mount_of(req)->inval_pages, it);
}

/* ---- life ---- */

static void queue_start(struct mount *m, struct inval_queue *q,
                        void (*fn)(struct mount *m, struct inval_item *it))
{
    q->m = m;
    q->handle = fn;
    list_init(&q->items);
    ASSERT(pthread_mutex_init(&q->mu, NULL) == 0 && pthread_cond_init(&q->cond, NULL) == 0);
    q->running = true;
    ASSERT(pthread_create(&q->thread, NULL, inval_main, q) == 0);
}

static void queue_stop(struct inval_queue *q)
{
    (void)pthread_mutex_lock(&q->mu);
    q->running = false;
    q->stopping = true;
    (void)pthread_cond_signal(&q->cond);
    (void)pthread_mutex_unlock(&q->mu);
    (void)pthread_join(q->thread, NULL);
}

void inval_start(struct mount *m)
{
    queue_start(m, &m->inval_names, handle);
    queue_start(m, &m->inval_pages, handle);
    queue_start(m, &m->inval_answers, give_answer);
    client_on_content(m->client, on_content, m);
    client_on_event(m->client, on_event, m);
}

void inval_stop(struct mount *m)
{
    client_off_event(m->client, on_event, m);
    queue_stop(&m->inval_names);
    queue_stop(&m->inval_pages);
    queue_stop(&m->inval_answers);
}

static bool queue_idle(struct inval_queue *q)
{
    bool idle;

    (void)pthread_mutex_lock(&q->mu);
    idle = list_empty(&q->items) && !q->busy;
    (void)pthread_mutex_unlock(&q->mu);
    return idle;
}

static void queue_take(struct inval_queue *q, bool on)
{
    (void)pthread_mutex_lock(&q->mu);
    q->running = on;
    (void)pthread_mutex_unlock(&q->mu);
}

void inval_take(struct mount *m, bool on)
{
    queue_take(&m->inval_names, on);
    queue_take(&m->inval_pages, on);
}

bool inval_idle(struct mount *m)
{
    /* in the order in which an item goes through them */
    return queue_idle(&m->inval_names) && queue_idle(&m->inval_pages) &&
           queue_idle(&m->inval_answers);
}
