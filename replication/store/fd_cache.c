#include "replication/store/fd_cache.h"

#include <fcntl.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

void fd_cache_init(struct fd_cache *c, size_t limit)
{
    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->unused, NULL);
    c->waiting = 0;
    list_init(&c->idle);
    c->open = 0;
    c->limit = limit;
}

void fd_cache_fini(struct fd_cache *c)
{
    ASSERT(c->open == 0);
    pthread_cond_destroy(&c->unused);
    pthread_mutex_destroy(&c->mu);
}

void fd_slot_init(struct fd_slot *s)
{
    list_init(&s->idle);
    s->fd = -1;
    s->users = 0;
}

/* Takes the oldest idle descriptor out when there are too many; the caller closes it unlocked. */
static int evict_locked(struct fd_cache *c)
{
    struct list *item = c->open > c->limit ? list_pop_front(&c->idle) : NULL;
    struct fd_slot *s;
    int fd;

    if (item == NULL) {
        return -1;
    }
    s = CONTAINER_OF(item, struct fd_slot, idle);
    fd = s->fd;
    s->fd = -1;
    c->open--;
    return fd;
}

int fd_cache_get(struct fd_cache *c, struct fd_slot *s, const char *path, int *ret_fd)
{
    int fd, extra = -1;

    pthread_mutex_lock(&c->mu);
    if (s->fd < 0) {
        pthread_mutex_unlock(&c->mu);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            return err_from_errno(errno);
        }
        pthread_mutex_lock(&c->mu);
        if (s->fd < 0) {
            s->fd = fd;
            c->open++;
        } else {
            extra = fd; /* another thread was faster */
        }
    }
    list_remove(&s->idle);
    s->users++;
    *ret_fd = s->fd;
    fd = evict_locked(c);
    pthread_mutex_unlock(&c->mu);
    io_close(extra);
    io_close(fd);
    return 0;
}

void fd_cache_add(struct fd_cache *c, struct fd_slot *s, int fd)
{
    pthread_mutex_lock(&c->mu);
    ASSERT(s->fd < 0 && s->users == 0);
    s->fd = fd;
    s->users = 1;
    c->open++;
    fd = evict_locked(c);
    pthread_mutex_unlock(&c->mu);
    io_close(fd);
}

void fd_cache_put(struct fd_cache *c, struct fd_slot *s)
{
    int fd = -1;

    pthread_mutex_lock(&c->mu);
    ASSERT(s->users > 0);
    if (--s->users == 0) {
        list_push_back(&c->idle, &s->idle);
        fd = evict_locked(c);
        if (c->waiting != 0) {
            pthread_cond_broadcast(&c->unused);
        }
    }
    pthread_mutex_unlock(&c->mu);
    io_close(fd);
}

void fd_cache_exchange(struct fd_cache *c, struct fd_slot *s, int fd)
{
    int old;

    pthread_mutex_lock(&c->mu);
    c->waiting++;
    while (s->users != 0) {
        pthread_cond_wait(&c->unused, &c->mu);
    }
    c->waiting--;
    list_remove(&s->idle);
    old = s->fd;
    s->fd = fd;
    s->users = 1;
    c->open += old < 0 ? 1 : 0;
    pthread_mutex_unlock(&c->mu);
    io_close(old);
}

void fd_cache_drop(struct fd_cache *c, struct fd_slot *s)
{
    int fd;

    pthread_mutex_lock(&c->mu);
    ASSERT(s->users == 0);
    list_remove(&s->idle);
    fd = s->fd;
    s->fd = -1;
    c->open -= fd >= 0 ? 1 : 0;
    pthread_mutex_unlock(&c->mu);
    io_close(fd);
}
