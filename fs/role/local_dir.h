/* The directory of a local cluster: its lock, its configuration, the processes it remembers. */
#ifndef DFS_FS_ROLE_LOCAL_DIR_H
#define DFS_FS_ROLE_LOCAL_DIR_H

#include "fs/role/local.h"
#include "fs/role/local_conf.h"
#include "fs/role/local_proc.h"

#define LOCAL_PROCS_MAX (1 + LOCAL_LIST_MAX + LOCAL_LIST_MAX)

struct local {
    char dir[LIMIT_PATH]; /* absolute */
    int lock;             /* descriptor, or -1 */
    struct local_conf conf;
    struct local_proc procs[LOCAL_PROCS_MAX]; /* masters, block servers, mounts: order of start */
    size_t count;
};

struct local *local_new(void);
void local_free(struct local *l); /* NULL is fine */

/* Reads the directory, which must be there; with lock also keeps other calls out until local_free().
 * *stop (may be NULL) ends the wait for the lock when it becomes true. */
int local_open(struct local *l, const char *dir, bool lock, volatile int *stop, struct why *why);
/* Adds to a directory that was opened what the options ask for and is not there yet; nothing is
 * written but directories for mounts and volumes. Errors: DFS_EINVAL, DFS_ECONFIG, DFS_EBUSY. */
int local_plan(struct local *l, const struct local_options *o, struct why *why);

#endif
