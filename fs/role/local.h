/* A whole cluster on this machine: one real process for each role, on loopback, in one directory.
 *
 *   DIR/dfs.conf              what all processes share; other commands take it with --conf
 *   DIR/run/NAME.args, .pid   see local_proc.h; NAME is master-1, block-1.., mount-1..
 *   DIR/run/lock              held while processes are started or stopped
 *   DIR/log/NAME.log
 *   DIR/data/NAME/            metadata, blocks
 *
 * Starting is idempotent: what runs is left alone, what was remembered and does not run is started
 * again, what is asked for and not there yet is added. A start that fails takes back all it did.
 */
#ifndef DFS_FS_ROLE_LOCAL_H
#define DFS_FS_ROLE_LOCAL_H

#include "cluster/base/base.h"

#include <sys/types.h>

#include "cluster/base/limits.h"

#define LOCAL_LIST_MAX            64
#define LOCAL_BLOCKS_DEFAULT      3
#define LOCAL_REPLICATION_DEFAULT 2

/* Strings are borrowed. Numbers: 0 = not given. */
struct local_options {
    const char *dir;
    unsigned blocks;
    unsigned replication;
    const char *conf; /* file with more keys, or NULL */
    const char *sets[LOCAL_LIST_MAX];
    size_t set_count;
    const char *mounts[LOCAL_LIST_MAX];
    size_t mount_count;
    const char *volumes[LOCAL_LIST_MAX];
    size_t volume_count;
    unsigned racks;     /* block servers take turns on rack-1 .. rack-N */
    const char *labels; /* of their volumes, by turns, comma separated; NULL: none */
};

enum local_state { LOCAL_RUNNING, LOCAL_STOPPED, LOCAL_STUCK /* a mount that does not answer */ };

struct local_info {
    char name[24];
    pid_t pid; /* 0: not running */
    enum local_state state;
    char where[LIMIT_PATH]; /* address or mount point */
};

/* Returns 0 when the master answers, all block servers are registered and every mount answers. Tells
 * its progress on stderr, and on a failure the last lines of the log of the process that failed.
 * Errors: DFS_EINVAL, DFS_ECONFIG (usage, nothing was touched), anything else (a process failed,
 * all that this call started is stopped). */
int local_start(const struct local_options *o, struct why *why);

/* Unmounts, then stops block servers, then the master, and waits for each. Stopping what does not
 * run is fine. DFS_EBUSY with why: a process had to be killed or a mount torn off. */
int local_stop(const char *dir, struct why *why);

/* Called once for each process, in order of their start. Errors: DFS_ENOENT: no cluster there. */
typedef void local_info_fn(void *arg, const struct local_info *info);
int local_status(const char *dir, local_info_fn *fn, void *arg, struct why *why);

#endif
