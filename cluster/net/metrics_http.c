#include "cluster/net/metrics_http.h"

#include <microhttpd.h>
#include <netdb.h>

#include "cluster/base/addr.h"
#include "cluster/base/err.h"
#include "cluster/base/log.h"
#include "cluster/net/sock.h"

#define CONNECTIONS_MAX 16u
#define IDLE_SECONDS    10u

struct metrics_http {
    struct MHD_Daemon *daemon;
    enum metric_role role;
    metrics_collect_fn *collect;
    void *arg;
    char addr[ADDR_TEXT];
};

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type,
                              char *text, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
    enum MHD_Result done = MHD_NO;

    if (r == NULL) {
        free(text);
        return MHD_NO;
    }
    if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES) {
        done = MHD_queue_response(c, status, r);
    }
    MHD_destroy_response(r);
    return done;
}

static enum MHD_Result answer_line(struct MHD_Connection *c, unsigned status, const char *line)
{
    return answer(c, status, "text/plain; charset=utf-8", x_strdup(line), strlen(line));
}

/* The first call of a request comes with its head only, the next ones with pieces of its body, which
 * nobody wants; it is answered in the last one. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version UNUSED,
                                  const char *body UNUSED, size_t *body_len, void **seen)
{
    const struct metrics_http *h = arg;
    size_t len;
    char *text;

    if (*seen == NULL) {
        *seen = arg;
        return MHD_YES;
    }
    if (*body_len != 0) {
        *body_len = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return answer_line(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET is served here\n");
    }
    if (strcmp(url, "/metrics") != 0) {
        return answer_line(c, MHD_HTTP_NOT_FOUND, "dfs: the numbers are at /metrics\n");
    }
    text = metrics_print(h->role, h->collect, h->arg, &len);
    return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, len);
}

/* DFS_EBUSY when nothing can listen there. */
static int listen_on(struct metrics_http *h, const struct addr *at, struct why *why)
{
    const union MHD_DaemonInfo *port;
    char text[ADDR_TEXT];
    struct addrinfo *found;
    struct addr got = *at;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD;
    int err = sock_lookup(addr_format(at, text), true, &found, why);

    if (err != 0) {
        return err;
    }
    flags |= found->ai_family == AF_INET6 ? (unsigned)MHD_USE_IPv6 : 0;
    h->daemon = MHD_start_daemon(flags, at->port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR,
                                 found->ai_addr, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
    freeaddrinfo(found);
    if (h->daemon == NULL) {
        return why_set(why, DFS_EBUSY,
                       "metrics: cannot listen on %s: in use, or not this machine's", text);
    }
    port = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    got.port = port != NULL ? port->port : at->port;
    addr_format(&got, h->addr);
    return 0;
}

static int listen_near(struct metrics_http *h, const char *near, unsigned step, struct why *why)
{
    struct addr at;
    int err = addr_parse(near, &at, why);

    if (err != 0) {
        return err;
    }
    at.port = (uint16_t)(at.port + step);
    err = listen_on(h, &at, why);
    if (err == DFS_EBUSY) {
        at.port = 0;
        err = listen_on(h, &at, why);
    }
    return err;
}

int metrics_http_start(const char *listen, const char *near, unsigned step, enum metric_role role,
                       metrics_collect_fn *collect, void *arg, struct metrics_http **ret,
                       struct why *why)
{
    struct metrics_http *h;
    struct addr at;
    int err;

    if (strcmp(listen, "off") == 0) {
        *ret = NULL;
        return 0;
    }
    h = x_alloc(sizeof(*h));
    h->role = role;
    h->collect = collect;
    h->arg = arg;
    if (strcmp(listen, "auto") == 0) {
        err = listen_near(h, near, step, why);
    } else {
        err = addr_parse(listen, &at, why);
        err = err != 0 ? err : listen_on(h, &at, why);
    }
    if (err != 0) {
        free(h);
        return err;
    }
    log_event(LOG_INFO, "metrics.ready", "url=\"http://%s/metrics\"", h->addr);
    *ret = h;
    return 0;
}

void metrics_http_stop(struct metrics_http *h)
{
    if (h != NULL) {
        MHD_stop_daemon(h->daemon);
        free(h);
    }
}
