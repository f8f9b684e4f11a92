/* Another version of the program under a mount that is in use. */
#ifndef DFS_FS_CLI_MOUNT_UPGRADE_H
#define DFS_FS_CLI_MOUNT_UPGRADE_H

#include "fs/cli/cli.h"

/* Asks the process that serves dir to make room for the program file as it is now, and waits until
 * another one serves. Returns the exit status. */
int mount_upgrade(struct cli *cli, const char *dir);

#endif
