/* Memory of workers. Each has two buffers of a mebibyte, libfuse's, into which it reads a request, and its
 * own, for what it reads from a file. Only large requests touch more than their first pages.
 *
 * So that this has a bound, as many workers as there are places take requests, or carry out large ones;
 * others wait for a place, and the kernel keeps the requests. Not for long, and not at all when nothing
 * gets on: df must be answered, whatever hangs.
 *
 * What a worker touched it keeps for its next request as long as all of them keep little. */
#include <linux/fuse.h>
#include <sys/mman.h>

#include "cluster/base/clock.h"

#include "fs/client/memory.h"
#include "fs/client/wait.h"
#include "fs/mount/internal.h"

#define LARGE_BYTES (64u << 10)
#define STUCK_MS    200 /* without a large request begun or done */
#define PAGE        ((uintptr_t)4096)

enum { TOUCHED_OWN = 1, TOUCHED_FUSE = 2 };

struct worker {
    uint8_t *own;
    bool placed;
    bool large;
    unsigned touched; /* by the request that is carried out */
    unsigned kept;
};

static struct {
    pthread_once_t once;
    pthread_key_t key;
    pthread_mutex_t mu; /* guards all below */
    pthread_cond_t free;
    uint64_t places;
    uint64_t taken; /* may be more */
    uint64_t kept_max;
    uint64_t kept; /* buffers that were touched, of workers that wait */
    uint64_t moved_ms;
} work = { .once = PTHREAD_ONCE_INIT, .mu = PTHREAD_MUTEX_INITIALIZER };

static unsigned count(unsigned touched)
{
    return (touched & 1) + (touched >> 1 & 1);
}

/* ---- places ---- */

static void give_place(struct worker *w)
{
    (void)pthread_mutex_lock(&work.mu);
    work.taken--;
    if (w->large) {
        work.moved_ms = clock_mono_ms();
    }
    (void)pthread_cond_signal(&work.free);
    (void)pthread_mutex_unlock(&work.mu);
    w->placed = w->large = false;
}

static void take_place(struct worker *w)
{
    int old;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old); /* libfuse ends workers that way */
    (void)pthread_mutex_lock(&work.mu);
    if (work.taken >= work.places) {
        uint64_t until_ms = work.moved_ms + STUCK_MS;

        while (work.taken >= work.places && cond_wait_until(&work.free, &work.mu, until_ms) == 0) {
        }
    }
    if (work.taken < work.places) {
        work.moved_ms = clock_mono_ms();
    }
    work.taken++;
    (void)pthread_mutex_unlock(&work.mu);
    (void)pthread_setcancelstate(old, NULL);
    w->placed = true;
}

/* ---- workers ---- */

static void worker_free(void *arg)
{
    struct worker *w = arg;

    if (w->placed) {
        give_place(w);
    }
    (void)pthread_mutex_lock(&work.mu);
    work.kept -= count(w->kept);
    (void)pthread_mutex_unlock(&work.mu);
    free(w->own);
    free(w);
}

static void set_up(void)
{
    ASSERT(pthread_key_create(&work.key, worker_free) == 0);
    cond_init(&work.free);
    work.places = UINT64_MAX;
}

static struct worker *self(void)
{
    struct worker *w;

    (void)pthread_once(&work.once, set_up);
    w = pthread_getspecific(work.key);
    if (w == NULL) {
        w = x_alloc(sizeof(*w));
        ASSERT(pthread_setspecific(work.key, w) == 0);
    }
    return w;
}

void *thread_buffer(void)
{
    struct worker *w = self();

    if (w->own == NULL) {
        w->own = aligned_alloc(PAGE, WRITE_BYTES);
        ASSERT(w->own != NULL);
    }
    return w->own;
}

static void drop_pages(void *p, size_t size)
{
    uintptr_t from = ((uintptr_t)p + PAGE - 1) & ~(PAGE - 1);
    uintptr_t to = ((uintptr_t)p + size) & ~(PAGE - 1);

    if (p != NULL && from < to) {
        (void)madvise((uint8_t *)p + (from - (uintptr_t)p), to - from, MADV_DONTNEED);
    }
}

/* The worker's request is answered. */
static void rest(struct worker *w, void *p, size_t size)
{
    unsigned all = w->touched | w->kept;
    bool drop;

    if (w->placed) {
        give_place(w);
    }
    if (w->touched == 0) {
        return;
    }
    (void)pthread_mutex_lock(&work.mu);
    work.kept -= count(w->kept);
    drop = work.kept + count(all) > work.kept_max;
    w->kept = drop ? 0 : all;
    work.kept += count(w->kept);
    (void)pthread_mutex_unlock(&work.mu);
    if (drop) {
        drop_pages(p, size);
        drop_pages(w->own, WRITE_BYTES);
    }
    w->touched = 0;
}

void work_set_up(uint64_t memory)
{
    (void)self();
    (void)pthread_mutex_lock(&work.mu);
    work.places = memory_places(memory);
    work.kept_max = memory_kept(memory);
    (void)pthread_mutex_unlock(&work.mu);
}

void work_wait(void *p, size_t size)
{
    struct worker *w = self();

    rest(w, p, size);
    take_place(w);
}

void work_took(const void *p, ssize_t n)
{
    const struct fuse_in_header *head = p;
    const struct fuse_read_in *read = (const void *)(head + 1);
    struct worker *w = self();

    if (n > (ssize_t)LARGE_BYTES) {
        w->touched |= TOUCHED_FUSE;
    } else if (n >= (ssize_t)(sizeof(*head) + sizeof(*read)) && head->opcode == FUSE_READ &&
               read->size > LARGE_BYTES) {
        w->touched |= TOUCHED_OWN;
    }
    w->large = w->touched != 0;
    if (!w->large) {
        give_place(w);
    }
}
