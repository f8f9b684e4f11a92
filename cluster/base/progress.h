/* A line on stderr that tells how far a long copy is; only on a terminal, silent otherwise.
 *
 *   photos.tar   1.2 GiB of 4.0 GiB   30%   211 MiB/s   13 s left
 */
#ifndef DFS_CLUSTER_BASE_PROGRESS_H
#define DFS_CLUSTER_BASE_PROGRESS_H

#include "cluster/base/base.h"

struct progress {
    const char *what; /* borrowed until progress_end() */
    uint64_t total;   /* bytes; 0 = not known */
    uint64_t done;
    uint64_t start_ms;
    uint64_t drawn_ms; /* when the line was drawn last */
    bool shown;
};

/* stderr is a terminal that can take a line back. */
bool progress_wanted(void);

void progress_begin(struct progress *p, const char *what, uint64_t total);
/* n bytes more; draws five times a second at most. One thread. */
void progress_add(struct progress *p, uint64_t n);
void progress_end(struct progress *p); /* wipes the line */

/* The line as it is at now_ms, cut to size - 1 bytes. */
void progress_line(const struct progress *p, uint64_t now_ms, char *buf, size_t size);

#endif
