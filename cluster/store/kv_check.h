/* Is data.mdb what LMDB wrote? LMDB itself trusts its file: a damaged page ends the process. So the
 * pages are looked at before it is opened: all branches of all trees, and leaves up to a bound, so
 * that a start does not grow with the database. Sums of the contents there are none; values are
 * checked by those who decode them.
 */
#ifndef DFS_CLUSTER_STORE_KV_CHECK_H
#define DFS_CLUSTER_STORE_KV_CHECK_H

#include "cluster/store/checkpoint.h"

/* Follows the snapshot of c through the closed file. DFS_EDAMAGED names file and page; DFS_EIO. */
int kv_check(const char *data, const struct checkpoint *c, struct why *why);

#endif
