/* Makes acknowledged bytes visible to everybody. */
#ifndef DFS_FS_CLIENT_COMMIT_H
#define DFS_FS_CLIENT_COMMIT_H

#include "fs/client/node.h"

#define COMMIT_FILES 30 /* in one command: their results fit into a remembered reply */

/* All that is acknowledged of one node; waits for a commit that is under way. Errors: the file's
 * own (DFS_ESTALE: it is gone), DFS_ESESSION: write it again; DFS_ETIMEOUT: nobody answered, the
 * bytes stay to be committed later. */
int commit_node(struct node *n, uint64_t deadline_ms);
/* The same for a node that is appending: its extents go behind the end of the file. */
int commit_append(struct node *n, uint64_t deadline_ms);
/* Several nodes, many to a command; sorts them. Returns the first error of any. */
int commit_nodes(struct node **nodes, size_t count, uint64_t deadline_ms);

#endif
