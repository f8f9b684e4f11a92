/* The kernel's side of a local cluster's mounts: is it there, does it answer, take it away. */
#ifndef DFS_FS_ROLE_LOCAL_MOUNT_H
#define DFS_FS_ROLE_LOCAL_MOUNT_H

#include "cluster/base/base.h"

/* Is dfs mounted there? Asks the mount table, never the file system. */
bool local_mount_present(const char *path);
/* Does it answer within a second? Asked from a child process, so that one that hangs cannot hang
 * us. False when nothing is mounted there. */
bool local_mount_answers(const char *path);
/* Unmounts in an orderly way. 0, DFS_EBUSY (in use), DFS_EPERM. */
int local_mount_leave(const char *path);
/* Tears off what a dead process left behind. */
void local_mount_detach(const char *path);

#endif
