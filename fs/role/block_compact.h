/* Compaction on a block server: one task of the master at a time, on a thread of its own. Any thread. */
#ifndef DFS_FS_ROLE_BLOCK_COMPACT_H
#define DFS_FS_ROLE_BLOCK_COMPACT_H

#include "replication/path/blk_server.h"

struct block_compact;

/* NULL when no thread could be started. */
struct block_compact *block_compact_start(struct blk_server *server);
/* Ends what runs, and the thread. NULL is fine. */
void block_compact_stop(struct block_compact *c);

/* Takes tasks (a list of compact_task): one that is known already, or comes while another one runs,
 * is left to the master to repeat. */
int block_compact_take(struct block_compact *c, struct wire_list tasks);
/* Appends the result that was not told yet, as a list of compact_done; returns their number. */
uint32_t block_compact_put_done(struct block_compact *c, struct wire_out *out);
void block_compact_told(struct block_compact *c, uint32_t n);

#endif
