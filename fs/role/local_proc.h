/* One process of a local cluster: how it is started, found again and stopped.
 *
 * A process NAME (master-1, block-2, mount-1) of the cluster in DIR has
 *   DIR/run/NAME.args  its arguments, one a line: what "remembered" means
 *   DIR/run/NAME.pid   its process id, while it is meant to run
 *   DIR/log/NAME.log   what it printed, over all its starts
 * The process is ours when the id in the pid file runs with exactly the remembered arguments; a
 * number that the system has given to somebody else is never signalled.
 *
 * All functions: one thread, with the lock of the cluster's directory held (struct local).
 */
#ifndef DFS_FS_ROLE_LOCAL_PROC_H
#define DFS_FS_ROLE_LOCAL_PROC_H

#include "cluster/base/base.h"

#include <sys/types.h>

enum local_role { LOCAL_MASTER, LOCAL_BLOCK, LOCAL_MOUNT };

#define LOCAL_ARGS_MAX 24    /* arguments of one process */
#define LOCAL_STOP_MS  40000 /* from SIGTERM to SIGKILL: longer than a flush may take */
#define LOCAL_KILL_MS  5000  /* from SIGKILL to giving up */

struct local_proc {
    const char *dir; /* of the cluster; borrowed, absolute */
    enum local_role role;
    unsigned number; /* counts from 1 in each role */
    char name[24];
    char *argv[LOCAL_ARGS_MAX + 1]; /* owned; argv[0] is "dfs", NULL at the end */
    size_t argc;
    pid_t pid;            /* 0: not running */
    int pidfd;            /* of the same, or -1: the number may be given to somebody else */
    bool started;         /* by this call */
    bool added;           /* to the cluster by this call */
    bool made_mountpoint; /* by this call */
    off_t log_start;      /* where the log of this start begins */
    uint64_t started_ms;  /* clock_mono_ms() */
};

void local_proc_init(struct local_proc *p, const char *dir, enum local_role role, unsigned number);
void local_proc_fini(struct local_proc *p);
const char *local_role_name(enum local_role role);

/* Adds one argument; owned copy of the formatted text. */
void local_proc_arg(struct local_proc *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The value of the last "--set key=value" for this key, or NULL. Borrowed. */
const char *local_proc_setting(const struct local_proc *p, const char *key);
/* Of a mount: its path, the last argument. */
const char *local_proc_mountpoint(const struct local_proc *p);

/* Reads NAME.args and, if it runs, the process id. DFS_ENOENT: there is no such process here. */
int local_proc_load(struct local_proc *p, struct why *why);
int local_proc_save(const struct local_proc *p, struct why *why);
/* Removes the files in run/ that belong to it; the log and all data stay. */
void local_proc_forget(const struct local_proc *p);

/* Does it run? Also reaps it when it was a child of ours; pid is 0 from then on. */
bool local_proc_running(struct local_proc *p);
/* Starts it in a session of its own, output to its log, no descriptor inherited. */
int local_proc_spawn(struct local_proc *p, struct why *why);
/* Asks it to end; local_proc_wait() waits for that. */
void local_proc_terminate(struct local_proc *p);
/* Waits for its end and removes the pid file; kills it after LOCAL_STOP_MS. False if it had to. */
bool local_proc_wait(struct local_proc *p);

/* Copies the last lines of its log since it was started to the stream, indented. */
void local_proc_print_log(const struct local_proc *p, FILE *to);

#endif
