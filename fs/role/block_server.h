/* The block server: stores blocks on its volumes, serves them, carries out the master's orders. */
#ifndef DFS_FS_ROLE_BLOCK_SERVER_H
#define DFS_FS_ROLE_BLOCK_SERVER_H

#include "cluster/base/conf.h"

/* Runs until SIGTERM or SIGINT. Errors, each with a sentence: as store_open(); DFS_EBUSY (port in
 * use), DFS_EWRONGCLUSTER, DFS_EVERSION. To be called before any thread starts. */
int block_server_run(const struct conf *conf, struct why *why);

#endif
