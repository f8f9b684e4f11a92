/* Keeps a process that serves a large database small.
 *
 * LMDB reads through one mapping of its file, and every page that was ever looked at counts as this
 * process's memory, though it is only the page cache. Unmapping the pages for a moment loses nothing:
 * they are mapped again when they are looked at.
 */
#ifndef DFS_CLUSTER_STORE_TRIM_H
#define DFS_CLUSTER_STORE_TRIM_H

#include "cluster/store/kv.h"

/* Lets go of the mapping's pages when more than max_bytes of files are mapped in by this process.
 * Any thread. */
void trim(struct kv *kv, uint64_t max_bytes);

#endif
