/* The file master.data/identity: which cluster the data is of, and that there is data.
 *
 *   dfs-master 1
 *   cluster 0123456789abcdef0123456789abcdef
 *
 * Written before the first client is served. From then on a missing log or database is a loss, never
 * a first start.
 */
#ifndef DFS_FS_ROLE_MASTER_IDENTITY_H
#define DFS_FS_ROLE_MASTER_IDENTITY_H

#include "cluster/base/base.h"

#include "cluster/msgs.h"

/* *ret_exists false: there is none. Errors: DFS_EDAMAGED, DFS_EVERSION, DFS_EIO. */
int master_identity_load(const char *data, bool *ret_exists, uint8_t ret_cluster[CLUSTER_ID_BYTES],
                         struct why *why);
int master_identity_store(const char *data, const uint8_t cluster[CLUSTER_ID_BYTES],
                          struct why *why);

#endif
