/* Copies on disk, looked at through the servers that hold them: every byte is read and its sums are
 * compared there. What is found damaged is also repaired, because the server reports it. */
#ifndef DFS_FS_CLI_DEEP_H
#define DFS_FS_CLI_DEEP_H

#include "fs/cli/remote.h"

struct deep;

struct deep *deep_new(const struct remote *r);
void deep_free(struct deep *d); /* NULL is fine */

/* Notes a copy: at least len bytes of the block on the server at addr. */
void deep_add(struct deep *d, uint64_t block, uint32_t len, uint32_t node, struct slice addr);

/* A copy that is not as it should be: damaged, too short, not there, or its server does not answer. */
typedef void deep_bad_fn(void *arg, uint64_t block, const char *addr, int err);
/* Looks at all that is noted, the servers beside each other, and forgets them. */
void deep_run(struct deep *d, deep_bad_fn *bad, void *arg);

uint64_t deep_copies(const struct deep *d); /* looked at so far */
uint64_t deep_bytes(const struct deep *d);

#endif
