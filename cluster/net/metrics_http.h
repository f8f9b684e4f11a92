/* GET /metrics: a role's numbers over HTTP, by libmicrohttpd, on one thread of its own. */
#ifndef DFS_CLUSTER_NET_METRICS_HTTP_H
#define DFS_CLUSTER_NET_METRICS_HTTP_H

#include "cluster/base/metrics.h"

struct metrics_http;

/* Serves the role's numbers on listen ("host:port", port 0: any free one) until it is stopped.
 *
 * listen "off": nothing is started and *ret is NULL. "auto": on host and port of near ("host:port",
 * the role's own address) plus step; when that port is taken on any free one, which the log tells.
 * collect is called on the server's thread, one call at a time.
 * Errors, with why: DFS_EINVAL (not an address), DFS_EBUSY (port in use), DFS_ECONN. */
int metrics_http_start(const char *listen, const char *near, unsigned step, enum metric_role role,
                       metrics_collect_fn *collect, void *arg, struct metrics_http **ret,
                       struct why *why);
/* NULL is fine. No call of collect runs afterwards. */
void metrics_http_stop(struct metrics_http *h);

#endif
