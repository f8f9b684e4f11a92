/* What a block server does beside serving, and its dealings with the master about that: scrubbing,
 * compaction.
 * The heartbeat thread calls tell; one thread at a time. */
#ifndef DFS_FS_ROLE_BLOCK_CHORES_H
#define DFS_FS_ROLE_BLOCK_CHORES_H

#include "replication/store/scrubber.h"

#include "fs/role/block_compact.h"
#include "fs/role/block_master.h"

struct block_chores {
    struct block_master *master;
    struct scrubber *scrubber;
    struct block_compact *compact;
};

/* Tells how far things are and takes what there is to do. A master that is too old to know this is
 * not asked again by mistake: its error changes nothing. */
int block_chores_tell(struct block_chores *c);

#endif
