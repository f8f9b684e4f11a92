/* The mount: dfs as a file system of this machine, through FUSE.
 *
 * One process serves one mount. libfuse's worker threads each carry a request to the masters or the
 * block servers and back; a keeper thread asks for what must be answered even when no master does
 * (statfs, the root's attributes); a signal thread ends the mount in order. A second, small process
 * watches over it: when it dies another one takes over, and goes through mount_run() in its place.
 */
#ifndef DFS_FS_MOUNT_MOUNT_H
#define DFS_FS_MOUNT_MOUNT_H

#include "cluster/base/conf.h"

#include "fs/mount/guard.h"

/* Attributes of a mount's root that tell of the process that serves it; not listed. */
#define MOUNT_XATTR_PID     "dfs.mount.pid"
#define MOUNT_XATTR_VERSION "dfs.mount.version"

struct mount_options {
    const char *source;           /* what /proc/mounts shows: "MASTER[,MASTER]:/path" */
    const char *dir;              /* mount point, absolute */
    const char *path;             /* what of dfs is mounted: "/" or a directory below */
    const char *kernel_opts;      /* ro, nodev, noexec...: comma separated, not empty */
    const char *conf_path;        /* read again for log.level at SIGHUP, or NULL */
    bool called;                  /* by a process that serves dir, to be its new guard */
    struct guard_program program; /* how a new version of it is run */
    const char *pid_file;         /* written again by a process that takes over, or NULL */
    bool background;              /* standard descriptors are left once it serves */
    bool allow_other;
    bool root_squash; /* the masters are told these instead of user 0 and group 0: */
    uint32_t anon_uid;
    uint32_t anon_gid;
};

/* Called once when the kernel's requests are about to be served. */
typedef void mount_ready_fn(void *arg);

/* Mounts and serves until somebody unmounts it or SIGTERM or SIGINT comes; then everything is
 * flushed, what is still mounted is taken away, and it returns 0. Takes over the signals of the
 * process and ignores SIGPIPE. conf and o are borrowed for the call; call it from the main thread,
 * with no other threads running.
 *
 * Errors, with why, and nothing is left mounted:
 *   what client_open() returns when no master answers
 *   DFS_ENOENT, DFS_ENOTDIR   the path inside dfs
 *   DFS_EPERM, DFS_EIO        the kernel refuses the mount */
int mount_run(const struct conf *conf, const struct mount_options *o, mount_ready_fn *ready,
              void *arg, struct why *why);

#endif
