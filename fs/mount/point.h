/* The mount point as the kernel sees it: what is mounted there, may we mount, how to leave. Asks the
 * mount table wherever it can, never a file system that may be ours and hang.
 */
#ifndef DFS_FS_MOUNT_POINT_H
#define DFS_FS_MOUNT_POINT_H

#include "cluster/base/base.h"

struct point_info {
    unsigned dev_major, dev_minor; /* of the file system */
    bool dfs;                      /* it is a dfs mount */
};

/* What is mounted on dir (absolute, without symlinks), the topmost mount. DFS_ENOENT: nothing. */
int point_find(const char *dir, struct point_info *ret);
/* The same from a given table, for tests. */
int point_find_in(FILE *table, const char *dir, struct point_info *ret);

/* Is dir fit for a mount: a directory, empty unless nonempty, no living dfs on it? What a dead dfs
 * mount left there is detached first. *ret_dir is the path without symlinks, to be freed.
 * DFS_EINVAL, DFS_ENOENT, DFS_ENOTDIR, DFS_ENOTEMPTY, DFS_EBUSY with why. */
int point_check(const char *dir, bool nonempty, char **ret_dir, struct why *why);

/* Takes the mount out of the tree; files that are still open keep it alive behind the scenes. Once
 * the last is closed the kernel flushes and ends the connection. May block until then. */
int point_detach(const char *dir);

/* Gives the dfs mount at dir other options of the kernel's: "ro,noatime". DFS_ENOENT, DFS_EBUSY (files are
 * open for writing), DFS_EPERM with why. */
int point_remount(const char *dir, const char *options, struct why *why);

/* Lets the kernel read ahead 1 MiB at a time on the file system mounted at dir; needs root. */
int point_raise_read_ahead(const char *dir);

#endif
