/* Many small things at the same time: a bounded queue and a few threads that empty it.
 *
 * Copying a tree waits for one answer after the other; several files at a time share the waiting.
 */
#ifndef DFS_FS_CLI_JOBS_H
#define DFS_FS_CLI_JOBS_H

#include "cluster/base/base.h"

struct jobs;

/* fn is called for each item, on any of the threads, and owns it. */
typedef void job_fn(void *arg, void *item);

struct jobs *jobs_start(int threads, job_fn *fn, void *arg);
/* Waits while the queue is full. */
void jobs_add(struct jobs *j, void *item);
/* Waits until everything is done, and ends the threads. NULL is fine. */
void jobs_finish(struct jobs *j);

#endif
