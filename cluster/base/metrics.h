/* Numbers for Prometheus: one table (cluster/metrics.def), counted with relaxed atomics where things
 * happen, printed in the text format 0.0.4 when somebody asks.
 *
 * Any thread. Counting never blocks and never fails.
 */
#ifndef DFS_CLUSTER_BASE_METRICS_H
#define DFS_CLUSTER_BASE_METRICS_H

#include "cluster/base/base.h"

enum metric_role {
    ROLE_MASTER = 1,
    ROLE_BLOCK = 2,
    ROLE_MOUNT = 4,
    ROLE_ALL = ROLE_MASTER | ROLE_BLOCK | ROLE_MOUNT
};

enum metric {
#define METRIC(kind, id, name, roles, help) METRIC_##id,
#include "cluster/metrics.def"
#undef METRIC
    METRIC_COUNT
};

void metric_add(enum metric m, uint64_t n); /* COUNTER */
uint64_t metric_value(enum metric m);       /* COUNTER: what was added up; TIMING: how often */
void metric_observe(enum metric m, uint64_t usec); /* TIMING */

struct metrics_out;

/* A role's own numbers: called for each scrape, on the thread that answers it. It may take short
 * locks and must not wait for a network or a disk. */
typedef void metrics_collect_fn(void *arg, struct metrics_out *out);

/* GAUGE and TOTAL: inside a metrics_collect_fn. label NULL: none. Bytes that would break the format
 * are escaped. */
void metrics_tell(struct metrics_out *out, enum metric m, const char *label,
                  const char *label_value, double value);

/* All that the role shows, as text. Metrics that nobody told are left out. The caller frees it. */
char *metrics_print(enum metric_role role, metrics_collect_fn *collect, void *arg, size_t *ret_len);

/* The table for people: docs/metrics.md. */
void metrics_print_doc(FILE *to);

#endif
