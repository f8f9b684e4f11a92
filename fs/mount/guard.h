/* The guard: a small process that holds on to a mount while another one serves it.
 *
 * When the process that serves dies, the guard makes a new one, which takes over the kernel's
 * connection and the open files: programs see an error for the requests that the dead one had begun,
 * nobody sees a dead mount point. The same way leads to a new version of the program.
 */
#ifndef DFS_FS_MOUNT_GUARD_H
#define DFS_FS_MOUNT_GUARD_H

#include "cluster/base/base.h"

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
int guard_hand(const struct guard *g, int fuse, int state);
/* This process ends in order: the guard ends first. */
void guard_end(struct guard *g);

#endif
