/* The guard: a small process that holds on to a mount while another one serves it.
 *
 * When the process that serves dies, the guard makes a new one, which takes over the kernel's
 * connection and the open files: programs see an error for the requests that the dead one had begun,
 * nobody sees a dead mount point.
 *
 * The process that serves makes a new guard when its own has died, or when it is to be replaced by a new
 * version of the program: the program file is run as it is now, with the arguments of the mount, and
 * becomes the guard. When the process that serves then ends, what takes over is the new version.
 */
#ifndef DFS_FS_MOUNT_GUARD_H
#define DFS_FS_MOUNT_GUARD_H

#include "cluster/base/base.h"

/* How this program was called. */
struct guard_program {
    char *path;  /* of its file */
    char **argv; /* ended by NULL */
    char *cwd;
};

struct guard {
    int sock;     /* to the guard; -1: there is none */
    int pidfd;    /* the guard's, or -1 */
    int pid;      /* of the guard when it is this process's child, else 0 */
    bool resumed; /* this process takes over: fuse and state are what its predecessor told */
    int fuse;
    int state;
};

/* Forks the guard; no other thread may run. Returns in the process that is to serve, and again in
 * each later one that the guard makes: *g tells which. dir: what the guard takes out of the tree when it
 * gives up. background: it leaves the standard descriptors once the mount serves. Errors:
 * DFS_ENOMEM. */
int guard_start(struct guard *g, const char *dir, bool background, struct why *why);
/* The mount serves, with these descriptors: from now on it is taken over after a death. */
int guard_hand(struct guard *g, int fuse, int state);
/* Another guard in place of this one, whether it lives or not; returns when it guards. Any thread. Errors:
 * nothing has changed. */
int guard_renew(struct guard *g, const char *dir, const struct guard_program *program,
                struct why *why);
/* This process ends in order: the guard ends first. */
void guard_end(struct guard *g);

/* Before the current directory is left. */
void guard_program_get(struct guard_program *ret);
void guard_program_fini(struct guard_program *p);
/* Is this process called by guard_renew()? The mount point, to be freed; else NULL. */
char *guard_called(void);
/* What guard_start() is to such a process. Errors: DFS_EVERSION: the process that serves has open files
 * that this version does not understand. */
int guard_take_over(struct guard *g, const char *dir, struct why *why);

#endif
