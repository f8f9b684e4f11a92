#include "fs/role/block_compact.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/log.h"

#define NICE 10

enum { NOTHING, WAITING, RUNNING, DONE };

struct block_compact {
    struct blk_server *server;
    pthread_t thread;
    bool started;
    pthread_mutex_t mu;
    pthread_cond_t cv; /* monotonic clock */
    int state;         /* guarded by: mu, as all below */
    bool stop;
    struct wire_out copy; /* the task's message; read by the thread while it runs */
    struct compact_task task;
    struct compact_done done;
    uint64_t began_ms;
    uint64_t bytes;
};

/* Not faster than the master wants it. */
static int pace(void *arg, uint32_t bytes)
{
    struct block_compact *c = arg;
    uint64_t due;
    bool stop;

    pthread_mutex_lock(&c->mu);
    due = c->began_ms + c->bytes * 1000 / MAX(c->task.rate, 1);
    c->bytes += bytes;
    while (!c->stop && clock_mono_ms() < due) {
        struct timespec t = { .tv_sec = (time_t)(due / 1000),
                              .tv_nsec = (long)(due % 1000 * NS_PER_MS) };

        pthread_cond_timedwait(&c->cv, &c->mu, &t);
    }
    stop = c->stop;
    pthread_mutex_unlock(&c->mu);
    return stop ? DFS_ESHUTDOWN : 0;
}

static void carry_out(struct block_compact *c)
{
    const struct blk_compact ask = { .block = c->task.block,
                                     .nodes = c->task.nodes,
                                     .ranges = c->task.ranges,
                                     .pace = pace,
                                     .arg = c };
    uint32_t len = 0;
    int err = blk_server_compact(c->server, &ask, &len);

    log_event(err == 0 ? LOG_INFO : LOG_WARN, "block.compacted",
              "block=%" PRIu64 " ranges=%u bytes=%u err=\"%s\"", ask.block, ask.ranges.count, len,
              err_text(err));
    pthread_mutex_lock(&c->mu);
    c->done = (struct compact_done){ c->task.task, (uint32_t)err, len };
    c->state = DONE;
    pthread_mutex_unlock(&c->mu);
}

static void *run(void *arg)
{
    struct block_compact *c = arg;

    (void)!setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
    pthread_mutex_lock(&c->mu);
    while (!c->stop) {
        if (c->state != WAITING) {
            pthread_cond_wait(&c->cv, &c->mu);
            continue;
        }
        c->state = RUNNING;
        c->began_ms = clock_mono_ms();
        c->bytes = 0;
        pthread_mutex_unlock(&c->mu);
        carry_out(c);
        pthread_mutex_lock(&c->mu);
    }
    pthread_mutex_unlock(&c->mu);
    return NULL;
}

struct block_compact *block_compact_start(struct blk_server *server)
{
    struct block_compact *c = x_alloc(sizeof(*c));
    pthread_condattr_t attr;

    c->server = server;
    wire_out_init(&c->copy, LIMIT_MSG);
    pthread_mutex_init(&c->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->cv, &attr);
    pthread_condattr_destroy(&attr);
    c->started = pthread_create(&c->thread, NULL, run, c) == 0;
    if (!c->started) {
        block_compact_stop(c);
        return NULL;
    }
    return c;
}

void block_compact_stop(struct block_compact *c)
{
    if (c == NULL) {
        return;
    }
    pthread_mutex_lock(&c->mu);
    c->stop = true;
    pthread_cond_broadcast(&c->cv);
    pthread_mutex_unlock(&c->mu);
    if (c->started) {
        pthread_join(c->thread, NULL);
    }
    wire_out_fini(&c->copy);
    pthread_cond_destroy(&c->cv);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

int block_compact_take(struct block_compact *c, struct wire_list tasks)
{
    struct wire_in in = wire_in_of(tasks.items);
    struct compact_task task;
    int err = 0;

    if (tasks.count == 0) {
        return 0;
    }
    pthread_mutex_lock(&c->mu);
    if (c->state == NOTHING) {
        /* The task borrows from a copy that lives as long as it runs. */
        wire_out_reset(&c->copy);
        wire_put_raw(&c->copy, tasks.items.p, tasks.items.len);
        in = wire_in_of(wire_out_slice(&c->copy));
        err = c->copy.err != 0 ? c->copy.err : compact_task_get(&in, &task);
        if (err == 0 && task.task != c->done.task) {
            c->task = task;
            c->state = WAITING;
            pthread_cond_broadcast(&c->cv);
        }
    }
    pthread_mutex_unlock(&c->mu);
    return err;
}

uint32_t block_compact_put_done(struct block_compact *c, struct wire_out *out)
{
    uint32_t n;

    pthread_mutex_lock(&c->mu);
    n = c->state == DONE;
    if (n != 0) {
        compact_done_put(out, &c->done);
    }
    pthread_mutex_unlock(&c->mu);
    return n;
}

void block_compact_told(struct block_compact *c, uint32_t n)
{
    pthread_mutex_lock(&c->mu);
    if (n != 0 && c->state == DONE) {
        c->state = NOTHING; /* done.task stays: it is not to be done again */
    }
    pthread_mutex_unlock(&c->mu);
}
