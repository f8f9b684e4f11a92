#include "fs/client/bufs.h"

#include "cluster/base/base.h"

#include <malloc.h>

#include "cluster/base/clock.h"
#include "cluster/base/io.h"

#include "fs/client/memory.h"

#define MEASURE_MS   200
#define BUDGET_LEAST (4 * MIB)
#define FORGET       16 /* the rest's highest use is forgotten by this part a measurement */
#define GIVE_BACK    8  /* of what nobody needed, this part goes each time */
#define ARENAS       4
#define PAGE         4096
#define MAPPED_BYTES (256 << 10) /* what is larger goes back to the system when it is freed */

struct buf_spare {
    struct buf_spare *next;
};

/* Small files stay small; what outgrows the second step is a stream. */
static const uint32_t steps[] = { 8u << 10, 64u << 10, BUF_BYTES };

/* What was freed is not to stay with the process: few arenas, large pieces by themselves. */
static void tune(void)
{
    (void)mallopt(M_ARENA_MAX, ARENAS);
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 2 * MAPPED_BYTES);
}

/* What the rest of the process is expected to take. */
static uint64_t reserve(const struct bufs *b)
{
    return MEMORY_BASE + (memory_places(b->total) + memory_kept(b->total)) * MIB;
}

static uint64_t budget_of(const struct bufs *b)
{
    uint64_t taken = MAX(b->rest, reserve(b)) + memory_places(b->total) * MIB;

    return MAX(b->total - MIN(b->total, taken), BUDGET_LEAST);
}

void bufs_init(struct bufs *b, uint64_t total)
{
    *b = (struct bufs){ .total = total };
    b->budget = budget_of(b);
    pthread_mutex_init(&b->mu, NULL);
    tune();
}

static void free_all(struct buf_spare *s)
{
    while (s != NULL) {
        struct buf_spare *next = s->next;

        free(s);
        s = next;
    }
}

void bufs_fini(struct bufs *b)
{
    free_all(b->spare);
    pthread_mutex_destroy(&b->mu);
}

/* Resident pages of the process, in bytes; 0 when that cannot be known, or tells nothing. */
static uint64_t resident(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* they keep what is freed */
    return 0;
#else
    uint64_t all, files;

    return io_resident(&all, &files) == 0 ? all : 0;
#endif
}

/* Returns what the rest of the process takes now. */
static uint64_t measure(struct bufs *b)
{
    uint64_t all = resident();
    uint64_t rest;

    pthread_mutex_lock(&b->mu);
    rest = all - MIN(all, b->used + b->spare_count * BUF_BYTES);
    b->rest = MAX(rest, b->rest - b->rest / FORGET);
    b->budget = budget_of(b);
    pthread_mutex_unlock(&b->mu);
    return rest;
}

static struct buf_spare *take_spare_locked(struct bufs *b)
{
    struct buf_spare *s = b->spare;

    if (s != NULL) {
        b->spare = s->next;
        b->spare_count--;
        b->spare_least = MIN(b->spare_least, b->spare_count);
    }
    return s;
}

uint32_t bufs_grow(struct bufs *b, uint8_t **p, uint32_t cap, uint32_t want)
{
    uint64_t now_ms = clock_mono_ms();
    struct buf_spare *fresh = NULL, *over = NULL;
    uint32_t to = BUF_BYTES;
    bool old = false;

    ASSERT(want <= BUF_BYTES);
    if (want <= cap) {
        return cap;
    }
    for (size_t i = ARRAY_LEN(steps); i > 0 && steps[i - 1] >= want; i--) {
        to = steps[i - 1];
    }
    pthread_mutex_lock(&b->mu);
    b->used += to - cap;
    if (to == BUF_BYTES) {
        fresh = take_spare_locked(b);
    } else if (b->used + b->spare_count * BUF_BYTES > b->budget) {
        over = take_spare_locked(b);
    }
    if (now_ms - b->measured_ms >= MEASURE_MS) {
        b->measured_ms = now_ms;
        old = true;
    }
    pthread_mutex_unlock(&b->mu);
    if (old) {
        (void)measure(b);
    }
    free(over);
    if (to < BUF_BYTES) {
        *p = x_realloc(*p, to);
        return to;
    }
    if (fresh == NULL) { /* the kernel copies faster to whole pages */
        fresh = aligned_alloc(PAGE, BUF_BYTES);
        ASSERT(fresh != NULL);
    }
    if (cap > 0) {
        memcpy(fresh, *p, cap);
    }
    free(*p);
    *p = (uint8_t *)fresh;
    return to;
}

void bufs_free(struct bufs *b, uint8_t *p, uint32_t cap)
{
    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&b->mu);
    b->used -= cap;
    if (cap == BUF_BYTES && b->used + (b->spare_count + 1) * BUF_BYTES <= b->budget) {
        struct buf_spare *s = (struct buf_spare *)(void *)p;

        s->next = b->spare;
        b->spare = s;
        b->spare_count++;
        p = NULL;
    }
    pthread_mutex_unlock(&b->mu);
    free(p);
}

bool bufs_tight(struct bufs *b)
{
    bool tight;

    pthread_mutex_lock(&b->mu);
    tight = b->used > b->budget / 4 * 3;
    pthread_mutex_unlock(&b->mu);
    return tight;
}

uint64_t bufs_used(struct bufs *b)
{
    uint64_t used;

    pthread_mutex_lock(&b->mu);
    used = b->used;
    pthread_mutex_unlock(&b->mu);
    return used;
}

uint64_t bufs_budget(struct bufs *b)
{
    uint64_t budget;

    pthread_mutex_lock(&b->mu);
    budget = b->budget;
    pthread_mutex_unlock(&b->mu);
    return budget;
}

void bufs_tick(struct bufs *b)
{
    struct buf_spare *drop = NULL;
    uint64_t rest = measure(b);
    uint64_t unneeded;

    pthread_mutex_lock(&b->mu);
    unneeded = (MIN(b->spare_least, b->spare_count) + GIVE_BACK - 1) / GIVE_BACK;
    while (unneeded-- > 0) {
        struct buf_spare *s = take_spare_locked(b);

        s->next = drop;
        drop = s;
    }
    b->spare_least = b->spare_count;
    pthread_mutex_unlock(&b->mu);
    free_all(drop);
    if (rest > reserve(b)) {
        (void)malloc_trim(0);
    }
}
