/* Comparing what a replica's file holds with what it should hold.
 *
 * Everything that has a meaning is checked: the header, the file's length, the bytes against their
 * sums. What a writer or a seal may change under way is left out (of an open replica only whole
 * chunks that were synced count) or looked at again: a difference counts only when two checks in a
 * row find it while the replica stays the same.
 */
#ifndef DFS_REPLICATION_STORE_SCRUB_H
#define DFS_REPLICATION_STORE_SCRUB_H

#include "replication/store/replica.h"

/* Called before bytes are read: may wait, may end the check with an error. */
typedef int scrub_pace_fn(void *arg, uint32_t bytes);

/* Reads past the page cache where the file system can do that, so that the disk is checked and the
 * cache stays as it is. pace: NULL for no pauses. Any thread; nothing is changed or reported.
 * Errors: DFS_ECHECKSUM (bytes, sums or header are damaged), DFS_EOFFSET (the file has the wrong
 * length), DFS_ENOBLOCK (the file is gone), DFS_EIO (unreadable): a damaged copy.
 * DFS_EAGAIN: it changed again and again, or is gone by now. DFS_EVOLUME; what pace returned. */
int scrub_replica(struct replica *r, scrub_pace_fn *pace, void *arg);

/* Is this what scrub_replica() says of a damaged copy? */
bool scrub_is_damage(int err);

#endif
