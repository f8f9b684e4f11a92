/* What commands that work on paths of dfs share: a client, whose name it acts in, walks over trees. */
#ifndef DFS_FS_CLI_REMOTE_H
#define DFS_FS_CLI_REMOTE_H

#include "cluster/base/limits.h"

#include "fs/cli/cli.h"
#include "fs/client/client.h"

struct remote {
    struct cli *cli;
    struct client *c;
    struct cred cr; /* of the user who runs the command */
    uint32_t groups[LIMIT_GROUPS];
};

/* Connects with cli->conf. Complains and returns CLI_FAILED when no master answers. */
int remote_open(struct cli *cli, struct remote *ret);
void remote_close(struct remote *r); /* copes with a zeroed one */

/* Resolves a path that begins with a slash; complains. Returns an enum cli_status. */
int remote_resolve(const struct remote *r, const char *path, struct attr *ret);

/* Calls fn for the inode at path and, if it is a directory, for everything below it, a directory
 * before its entries. path is borrowed during fn. A result other than 0 ends the walk and is
 * returned. unread (may be NULL) is told of directories that cannot be listed; the walk goes on.
 * What vanishes meanwhile is left out. */
typedef int remote_walk_fn(void *arg, const char *path, const struct attr *a);
typedef void remote_unread_fn(void *arg, const char *path, int err);
int remote_walk(const struct remote *r, const char *path, const struct attr *a, remote_walk_fn *fn,
                remote_unread_fn *unread, void *arg);

/* A question over the control plane. Complains. rep is initialised by the caller. */
int remote_admin(const struct remote *r, uint16_t type, struct slice msg, struct wire_out *rep);

/* "file", "directory", "symlink" ... for a mode. */
const char *remote_type(uint32_t mode);
/* Prints a path with control characters as "?", so that it stays on its line. */
void remote_print_path(FILE *to, const char *path);

#endif
