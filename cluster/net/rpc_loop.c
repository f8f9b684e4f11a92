#include "cluster/net/rpc_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/net/rpc_priv.h"

#define EVENTS 256

/* ---- slots ---- */

void rpc_slot_take(struct rpc_loop *l, struct rpc_conn *c)
{
    if (l->free_slot == l->slot_count) {
        uint32_t count = MAX(l->slot_count * 2, 64);

        l->slots = x_realloc(l->slots, count * sizeof(*l->slots));
        for (uint32_t i = l->slot_count; i < count; i++) {
            l->slots[i] = (struct rpc_slot){ .next_free = i + 1 };
        }
        l->slot_count = count;
    }
    c->slot = l->free_slot;
    c->generation = ++l->generation;
    l->free_slot = l->slots[c->slot].next_free;
    l->slots[c->slot].c = c;
}

void rpc_slot_leave(struct rpc_loop *l, struct rpc_conn *c)
{
    l->slots[c->slot] = (struct rpc_slot){ .next_free = l->free_slot };
    l->free_slot = c->slot;
}

struct rpc_conn *rpc_slot_find(const struct rpc_loop *l, struct rpc_token t)
{
    struct rpc_conn *c = t.slot < l->slot_count ? l->slots[t.slot].c : NULL;

    return c != NULL && c->generation == t.generation ? c : NULL;
}

/* ---- arrivals ---- */

void rpc_loop_add(struct rpc_loop *l, int fd)
{
    struct rpc_conn *c = x_alloc(sizeof(*c));

    c->fd = fd;
    c->hello_by_ms = clock_mono_ms() + l->server->hello_timeout_ms;
    rpc_conn_attach(l, c);
}

void rpc_loop_wake(struct rpc_loop *l)
{
    uint64_t one = 1;

    /* Cannot fail but for a full counter, and then the loop wakes anyway. */
    if (write(l->wake_fd, &one, sizeof(one)) < 0) {
        ASSERT(errno == EAGAIN);
    }
}

void rpc_loop_adopt(struct rpc_loop *l, struct rpc_conn *c)
{
    pthread_mutex_lock(&l->mu);
    c->next = l->arrivals;
    l->arrivals = c;
    pthread_mutex_unlock(&l->mu);
    rpc_loop_wake(l);
}

static void welcome(struct rpc_loop *l)
{
    struct rpc_conn *c;
    uint64_t count;

    if (read(l->wake_fd, &count, sizeof(count)) < 0) {
        ASSERT(errno == EAGAIN || errno == EINTR);
    }
    pthread_mutex_lock(&l->mu);
    c = l->arrivals;
    l->arrivals = NULL;
    pthread_mutex_unlock(&l->mu);
    while (c != NULL) {
        struct rpc_conn *next = c->next;

        c->next = NULL;
        if (rpc_conn_attach(l, c)) {
            rpc_conn_resume(l, c);
        }
        c = next;
    }
    if (l->index >= 0 && l->server->conf.on_woken != NULL) {
        l->server->conf.on_woken(l->server->conf.arg, l);
    }
}

/* ---- the loop ---- */

void rpc_loop_listen(struct rpc_loop *l, bool on)
{
    int *fd = l->server->listen_fd;

    if (on == l->listening || !l->accepts) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(l->server->listen_fd); i++) {
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &fd[i] };

        if (fd[i] >= 0 &&
            epoll_ctl(l->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd[i], &ev) == 0) {
            l->listening = on;
        }
    }
}

/* Things that time brings: strangers leave, an accept that ran out of descriptors tries again. */
static void tick(struct rpc_loop *l)
{
    uint64_t now;

    rpc_loop_listen(l, true);
    if (l->strangers == 0) {
        return;
    }
    now = clock_mono_ms();
    for (uint32_t i = 0; i < l->slot_count; i++) {
        struct rpc_conn *c = l->slots[i].c;

        if (c != NULL && !c->ready && now >= c->hello_by_ms) {
            atomic_fetch_add(&l->server->refused_connections, 1);
            rpc_conn_close(l, c);
        }
    }
}

/* One wait and what it brings; returns the number of events. */
static int turn(struct rpc_loop *l, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->epoll_fd, events, EVENTS, timeout_ms);

    l->owner = pthread_self();
    l->owned = true;
    for (int i = 0; i < n; i++) {
        void *p = events[i].data.ptr;

        if (p == &l->wake_fd) {
            welcome(l);
        } else if (p == &l->server->listen_fd[0] || p == &l->server->listen_fd[1]) {
            rpc_server_accept(l->server, l, *(int *)p);
        } else {
            rpc_conn_event(l, p, events[i].events);
        }
    }
    while (l->closed != NULL) {
        struct rpc_conn *c = l->closed;

        l->closed = c->next;
        rpc_conn_free(c);
    }
    return n;
}

void rpc_loop_step(struct rpc_loop *l)
{
    while (turn(l, 0) == EVENTS) {
    }
}

void rpc_loop_run(struct rpc_loop *l)
{
    uint64_t next_tick = 0;
    int tick_ms = (int)MIN((uint64_t)RPC_TICK_MS, l->server->hello_timeout_ms);

    while (!atomic_load(&l->server->stopping)) {
        bool timed = l->strangers != 0 || (l->accepts && !l->listening);

        turn(l, timed ? tick_ms : -1);
        if (timed && clock_mono_ms() >= next_tick) {
            tick(l);
            next_tick = clock_mono_ms() + (uint64_t)tick_ms;
        }
    }
}

int rpc_loop_fd(const struct rpc_loop *l)
{
    return l->epoll_fd;
}

int rpc_loop_index(const struct rpc_loop *l)
{
    return l->index;
}

int rpc_loop_init(struct rpc_loop *l, struct rpc_server *s, int index, rpc_handler *handler,
                  struct why *why)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &l->wake_fd };

    *l = (struct rpc_loop){ .server = s, .handler = handler, .index = index };
    pthread_mutex_init(&l->mu, NULL);
    l->scratch = x_alloc(RPC_SCRATCH_BYTES);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->epoll_fd < 0 || l->wake_fd < 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) != 0) {
        return why_set(why, err_from_errno(errno), "cannot set up an event loop: %s",
                       strerror(errno));
    }
    return DFS_OK;
}

static void free_list(struct rpc_conn *c)
{
    while (c != NULL) {
        struct rpc_conn *next = c->next;

        rpc_conn_free(c);
        c = next;
    }
}

void rpc_loop_fini(struct rpc_loop *l)
{
    if (l->scratch == NULL) {
        return; /* never set up */
    }
    for (uint32_t i = 0; i < l->slot_count; i++) {
        if (l->slots[i].c != NULL) {
            rpc_conn_free(l->slots[i].c);
        }
    }
    free_list(l->arrivals);
    free_list(l->closed);
    free(l->slots);
    free(l->scratch);
    if (l->epoll_fd >= 0) {
        close(l->epoll_fd);
    }
    if (l->wake_fd >= 0) {
        close(l->wake_fd);
    }
    pthread_mutex_destroy(&l->mu);
}
