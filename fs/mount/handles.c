#include "fs/mount/handles.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define MAGIC UINT64_C(0x326c646e68736664) /* "dfshndl2" */

enum { SLOT_USED = 1, SLOT_DIRTY = 2 };

struct slot {
    _Atomic uint64_t ino;
    _Atomic int32_t flags;
    _Atomic uint32_t state;
};

struct shared {
    uint64_t magic;
    _Atomic uint32_t high; /* slots at and above it were never used */
    _Atomic uint32_t left; /* bytes behind all this */
    uint8_t spare[HANDLES_SPARE];
    struct slot slots[HANDLES_MAX];
};

struct handles {
    int fd;
    struct shared *s;
    void *objs_map;        /* pages of it exist once they are touched */
    _Atomic(void *) *objs; /* in it */
    pthread_mutex_t mu;
    uint32_t *free; /* guarded by: mu, as both below */
    uint32_t free_count, free_cap;
    uint32_t limit;
};

static void free_slot_locked(struct handles *h, uint32_t i)
{
    if (h->free_count == h->free_cap) {
        h->free_cap = h->free_cap == 0 ? 64 : h->free_cap * 2;
        h->free = x_realloc(h->free, h->free_cap * sizeof(*h->free));
    }
    h->free[h->free_count++] = i;
}

static int by_value(const void *pa, const void *pb)
{
    const uint64_t *a = pa;
    const uint64_t *b = pb;

    return *a < *b ? -1 : *a > *b;
}

/* What was written through one handle is missing from the file, whoever syncs it: all handles of the
 * inode are to tell. */
static void spread_dirty(struct handles *h, uint32_t high)
{
    uint64_t *inos = NULL;
    size_t count = 0;

    for (uint32_t i = 0; i < high; i++) {
        if ((atomic_load(&h->s->slots[i].state) & SLOT_DIRTY) != 0) {
            inos = x_realloc(inos, (count + 1) * sizeof(*inos));
            inos[count++] = atomic_load(&h->s->slots[i].ino);
        }
    }
    if (count > 1) {
        qsort(inos, count, sizeof(*inos), by_value);
    }
    for (uint32_t i = 0; i < high && count > 0; i++) {
        struct slot *slot = &h->s->slots[i];
        uint64_t ino = atomic_load(&slot->ino);

        if (atomic_load(&slot->state) != 0 &&
            bsearch(&ino, inos, count, sizeof(*inos), by_value) != NULL) {
            atomic_fetch_or(&slot->state, SLOT_DIRTY);
        }
    }
    free(inos);
}

/* Of the process before: its free slots, and what it did not get to disk. */
static int take_over(struct handles *h, struct why *why)
{
    if (h->s->magic != MAGIC || atomic_load(&h->s->high) > HANDLES_MAX) {
        return why_set(why, DFS_EDAMAGED, "not the open files of a mount of this version");
    }
    for (uint32_t i = atomic_load(&h->s->high); i-- > 0;) {
        if (atomic_load(&h->s->slots[i].state) == 0) {
            free_slot_locked(h, i);
        }
    }
    spread_dirty(h, atomic_load(&h->s->high));
    return 0;
}

int handles_open(int fd, struct handles **ret, struct why *why)
{
    struct handles *h = x_alloc(sizeof(*h));
    bool fresh = fd < 0;
    int err = 0;

    pthread_mutex_init(&h->mu, NULL);
    h->limit = HANDLES_MAX;
    h->fd = fresh ? memfd_create("dfs-handles", MFD_CLOEXEC) : fd;
    h->objs_map = mmap(NULL, HANDLES_MAX * sizeof(*h->objs), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    h->objs = h->objs_map;
    h->s = MAP_FAILED;
    if (h->fd >= 0 && (!fresh || ftruncate(h->fd, sizeof(*h->s)) == 0)) {
        h->s = mmap(NULL, sizeof(*h->s), PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
    }
    if (h->s == MAP_FAILED || h->objs_map == MAP_FAILED) {
        err = why_set(why, DFS_ENOMEM, "memory for open files: %s", strerror(errno));
    } else if (fresh) {
        h->s->magic = MAGIC;
    } else {
        err = take_over(h, why);
    }
    if (err != 0) {
        handles_close(h);
        return err;
    }
    *ret = h;
    return 0;
}

void handles_close(struct handles *h)
{
    if (h == NULL) {
        return;
    }
    if (h->s != MAP_FAILED) {
        munmap(h->s, sizeof(*h->s));
    }
    if (h->objs_map != MAP_FAILED) {
        munmap(h->objs_map, HANDLES_MAX * sizeof(*h->objs));
    }
    io_close(h->fd);
    free(h->free);
    pthread_mutex_destroy(&h->mu);
    free(h);
}

void handles_limit(struct handles *h, uint64_t max)
{
    pthread_mutex_lock(&h->mu);
    h->limit = (uint32_t)MIN(max, HANDLES_MAX);
    pthread_mutex_unlock(&h->mu);
}

int handles_fd(const struct handles *h)
{
    return h->fd;
}

void *handles_spare(struct handles *h)
{
    return h->s->spare;
}

bool handles_known(int fd)
{
    struct stat st;
    uint64_t magic = 0;

    return fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct shared) &&
           pread(fd, &magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) && magic == MAGIC;
}

int handles_leave(struct handles *h, struct slice s)
{
    if (s.len > UINT32_MAX || ftruncate(h->fd, (off_t)(sizeof(*h->s) + s.len)) != 0 ||
        pwrite(h->fd, s.p, s.len, (off_t)sizeof(*h->s)) != (ssize_t)s.len) {
        return DFS_ENOMEM;
    }
    atomic_store(&h->s->left, (uint32_t)s.len);
    return 0;
}

int handles_left(struct handles *h, struct slice *ret)
{
    size_t len = atomic_exchange(&h->s->left, 0);
    uint8_t *p;

    if (len == 0) {
        return DFS_ENOENT;
    }
    p = x_alloc(len);
    if (pread(h->fd, p, len, (off_t)sizeof(*h->s)) != (ssize_t)len) {
        free(p);
        return DFS_EDAMAGED;
    }
    (void)!ftruncate(h->fd, (off_t)sizeof(*h->s));
    *ret = slice_of(p, len);
    return 0;
}

/* Handles are counted from 1: 0 is nobody's. */
static struct slot *slot_of(const struct handles *h, uint64_t fh)
{
    return fh - 1 < atomic_load(&h->s->high) ? &h->s->slots[fh - 1] : NULL;
}

int handles_add(struct handles *h, uint64_t ino, int flags, void *obj, uint64_t *ret_fh)
{
    struct slot *slot;
    uint32_t i;

    pthread_mutex_lock(&h->mu);
    if (atomic_load(&h->s->high) - h->free_count >= h->limit) {
        pthread_mutex_unlock(&h->mu);
        return DFS_ENFILE;
    }
    i = h->free_count > 0 ? h->free[--h->free_count] : atomic_load(&h->s->high);
    slot = &h->s->slots[i];
    atomic_store(&slot->ino, ino);
    atomic_store(&slot->flags, flags);
    atomic_store(&h->objs[i], obj);
    atomic_store(&slot->state, SLOT_USED);
    if (i == atomic_load(&h->s->high)) {
        atomic_store(&h->s->high, i + 1);
    }
    pthread_mutex_unlock(&h->mu);
    *ret_fh = (uint64_t)i + 1;
    return 0;
}

void *handles_get(const struct handles *h, uint64_t fh)
{
    return slot_of(h, fh) != NULL ? atomic_load(&h->objs[fh - 1]) : NULL;
}

int handles_look(const struct handles *h, uint64_t fh, struct handle *ret)
{
    const struct slot *slot = slot_of(h, fh);
    uint32_t state = slot != NULL ? atomic_load(&slot->state) : 0;

    if ((state & SLOT_USED) == 0) {
        return DFS_ESTALE;
    }
    *ret = (struct handle){ .ino = atomic_load(&slot->ino),
                            .flags = atomic_load(&slot->flags),
                            .lost = (state & SLOT_DIRTY) != 0 };
    return 0;
}

void handles_put(struct handles *h, uint64_t fh, void *obj)
{
    ASSERT(handles_get(h, fh) == NULL);
    atomic_store(&h->objs[fh - 1], obj);
}

void *handles_remove(struct handles *h, uint64_t fh)
{
    struct slot *slot = slot_of(h, fh);
    void *obj = handles_get(h, fh);

    if (slot == NULL || atomic_load(&slot->state) == 0) {
        return NULL;
    }
    pthread_mutex_lock(&h->mu);
    atomic_store(&h->objs[fh - 1], NULL);
    atomic_store(&slot->state, 0);
    free_slot_locked(h, (uint32_t)(fh - 1));
    pthread_mutex_unlock(&h->mu);
    return obj;
}

uint64_t handles_next_orphan(const struct handles *h, uint64_t fh)
{
    uint32_t high = atomic_load(&h->s->high);

    for (uint64_t i = fh > 0 ? fh - 1 : 0; i < high; i++) {
        if (atomic_load(&h->s->slots[i].state) != 0 && atomic_load(&h->objs[i]) == NULL) {
            return i + 1;
        }
    }
    return 0;
}

uint64_t handles_end(const struct handles *h)
{
    return (uint64_t)atomic_load(&h->s->high) + 1;
}

void handles_dirty(struct handles *h, uint64_t fh, bool dirty)
{
    struct slot *slot = slot_of(h, fh);

    ASSERT(slot != NULL);
    if (dirty) {
        atomic_fetch_or(&slot->state, SLOT_DIRTY);
    } else {
        atomic_fetch_and(&slot->state, ~(uint32_t)SLOT_DIRTY);
    }
}
