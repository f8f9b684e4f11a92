#include "cluster/net/control_nng.h"

#include <nng/supplemental/util/platform.h>
#include <pthread.h>

#include "cluster/base/addr.h"
#include "cluster/base/log.h"

#define QUIET_MS 20   /* for what is still on its way when a socket is closed */
#define CLOSE_MS 1000 /* before a close that does not end is left alone */

int control_err(int rv)
{
    switch (rv) {
    case 0:
        return DFS_OK;
    case NNG_ETIMEDOUT:
        return DFS_ETIMEOUT;
    case NNG_ECLOSED:
    case NNG_ECANCELED:
        return DFS_ESHUTDOWN;
    case NNG_ENOMEM:
        return DFS_ENOMEM;
    case NNG_EADDRINUSE:
        return DFS_EBUSY;
    case NNG_EMSGSIZE:
        return DFS_ETOOBIG;
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
        return DFS_EINVAL;
    default:
        return DFS_ECONN;
    }
}

int control_url(const char *addr, char out[CONTROL_URL_BYTES], struct why *why)
{
    struct addr a;
    char text[ADDR_TEXT];
    int err = addr_parse(addr, &a, why);

    if (err == 0) {
        snprintf(out, CONTROL_URL_BYTES, "tcp://%s", addr_format(&a, text));
    }
    return err;
}

nng_msg *control_put(const struct frame *f, struct slice msg)
{
    struct frame full = *f;
    nng_msg *m = NULL;
    uint8_t *p;

    if (nng_msg_alloc(&m, FRAME_HEADER_BYTES + msg.len) != 0) {
        return NULL;
    }
    p = nng_msg_body(m);
    full.msg_len = (uint32_t)msg.len;
    frame_header_put(p, &full, msg);
    if (msg.len != 0) {
        memcpy(p + FRAME_HEADER_BYTES, msg.p, msg.len);
    }
    return m;
}

int control_get(nng_msg *m, struct frame *ret, struct slice *ret_msg)
{
    const uint8_t *p = nng_msg_body(m);
    size_t n = nng_msg_len(m);
    struct frame f;
    struct slice msg;
    int err = n >= FRAME_HEADER_BYTES ? frame_header_get(p, &f) : DFS_EMALFORMED;

    if (err != 0) {
        return err;
    }
    if (f.data_len != 0 || n != FRAME_HEADER_BYTES + f.msg_len) {
        return DFS_EMALFORMED;
    }
    msg = slice_of(p + FRAME_HEADER_BYTES, f.msg_len);
    err = frame_check(p, msg);
    if (err == 0) {
        *ret = f;
        *ret_msg = msg;
    }
    return err;
}

int control_wait(nng_ctx ctx, nng_aio *aio, void (*op)(nng_ctx, nng_aio *), nng_duration within)
{
    nng_aio_set_timeout(aio, within);
    op(ctx, aio);
    nng_aio_wait(aio);
    return nng_aio_result(aio);
}

struct closing {
    nng_socket sock;
    pthread_mutex_t mu;
    pthread_cond_t ended;
    bool done;  /* guarded by: mu */
    bool alone; /* guarded by: mu; nobody waits any more */
};

static void closing_free(struct closing *c)
{
    pthread_cond_destroy(&c->ended);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

static void *close_thread(void *arg)
{
    struct closing *c = arg;
    bool alone;

    nng_close(c->sock);
    pthread_mutex_lock(&c->mu);
    c->done = true;
    alone = c->alone;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->mu);
    if (alone) {
        closing_free(c);
    }
    return NULL;
}

void control_close(nng_socket sock)
{
    struct closing *c = x_alloc(sizeof(*c));
    struct timespec until;
    pthread_condattr_t attr;
    pthread_t thread;
    bool done;

    c->sock = sock;
    pthread_mutex_init(&c->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->ended, &attr);
    pthread_condattr_destroy(&attr);
    nng_msleep(QUIET_MS);
    if (pthread_create(&thread, NULL, close_thread, c) != 0) {
        closing_free(c);
        return; /* the process is out of threads: it ends without */
    }
    pthread_detach(thread);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += CLOSE_MS / 1000;
    pthread_mutex_lock(&c->mu);
    while (!c->done && pthread_cond_timedwait(&c->ended, &c->mu, &until) == 0) {
    }
    done = c->done;
    c->alone = !done;
    pthread_mutex_unlock(&c->mu);
    if (done) {
        closing_free(c);
    } else {
        log_event(LOG_WARN, "net.control_close", "err=\"nng does not let go of a connection\"");
    }
}
