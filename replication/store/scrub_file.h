/* What is remembered of a volume's scrub: VOLUME/dfs-scrub, text, replaced as a whole.
 *
 *   format 1
 *   cursor 4711           the next block id
 *   began 1700000000000   ms since 1970; 0: no pass was begun
 *   ended 0               of the last complete pass
 *   done 123              bytes of this pass
 *   found 0               damaged copies, ever
 *   order 0               number of the last order
 *   ordered 0             this pass belongs to it
 */
#ifndef DFS_REPLICATION_STORE_SCRUB_FILE_H
#define DFS_REPLICATION_STORE_SCRUB_FILE_H

#include "cluster/base/base.h"

struct scrub_state {
    uint64_t cursor;
    uint64_t began_ms;
    uint64_t ended_ms;
    uint64_t done;
    uint64_t found;
    uint64_t order;
    uint64_t ordered;
};

/* A file that is missing, damaged or newer costs a pass, nothing else: then all is 0. */
void scrub_file_load(const char *volume, struct scrub_state *ret);
int scrub_file_save(const char *volume, const struct scrub_state *s, struct why *why);
/* The text of the file; false when it is not one. */
bool scrub_file_parse(const char *text, struct scrub_state *ret);

#endif
