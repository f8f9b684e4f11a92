/* Error codes: 0 is success, everything else a DFS_E* number as on the wire. */
#ifndef DFS_CLUSTER_BASE_ERR_H
#define DFS_CLUSTER_BASE_ERR_H

#include "cluster/base/base.h"

enum dfs_err {
    DFS_OK = 0,
#define ERR(name, wire, no, http, java, retry, text) DFS_E##name = (wire),
#include "cluster/base/err.def"
#undef ERR
};

enum err_retry { RETRY_NEVER, RETRY_REPLICA, RETRY_LEADER, RETRY_LATER };

/* The errno to hand to the kernel or a libc caller; EIO for unknown codes. */
int err_errno(int err);
/* The nearest error for an errno of a local call; DFS_EIO for unknown ones. */
int err_from_errno(int no);
/* A short English phrase; never NULL. */
const char *err_text(int err);
/* "NOENT" for DFS_ENOENT; "?" for unknown codes. */
const char *err_name(int err);
enum err_retry err_retry(int err);

#endif
