/* Asks the master to compare the counts in its block records with what files use. */
#ifndef DFS_FS_CLI_COUNTS_H
#define DFS_FS_CLI_COUNTS_H

#include "fs/cli/remote.h"

struct counts {
    struct audit_rep rep;
    struct wire_out reply; /* rep borrows from it */
};

/* Waits for the answer. repair: wrong counts are set right, blocks that nothing uses deleted. */
int counts_check(const struct remote *r, bool repair, struct counts *ret);
void counts_fini(struct counts *c);

#endif
