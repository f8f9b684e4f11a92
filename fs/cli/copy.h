/* What put, get, cp, mkdir, mv and rm share: paths, and the state of a copy of several files at once. */
#ifndef DFS_FS_CLI_COPY_H
#define DFS_FS_CLI_COPY_H

#include <pthread.h>
#include <sys/stat.h>

#include "cluster/base/progress.h"

#include "fs/cli/jobs.h"
#include "fs/cli/remote.h"

#define COPY_THREADS 8
#define COPY_BYTES   MIB /* moved at a time */

struct copy {
    struct remote r;
    bool recursive;
    bool force;    /* replace what is there */
    bool preserve; /* mode, times and, for root, owner */
    bool sync;
    struct jobs *jobs;
    pthread_mutex_t mu; /* guards all below, and stderr */
    struct progress progress;
    uint64_t files, dirs, bytes, failed;
    uint64_t start_ms;
};

/* what: shown with the progress; borrowed. total: bytes, 0 = not known. */
void copy_begin(struct copy *c, const char *what, uint64_t total, job_fn *fn);
/* Waits for all files, prints the summary with --json, disconnects. Returns the exit status; after a
 * signal the process ends by it. */
int copy_end(struct copy *c);
/* From now on SIGINT, SIGTERM and SIGHUP end the copy in order, so that nothing half-made stays; a second
 * one ends it at once. */
void copy_catch_signals(void);
bool copy_stopped(void);
/* Any thread: n bytes more; DFS_EINTR when the copy is to end. */
int copy_moved(struct copy *c, uint64_t n);
/* Any thread: a file, a directory done; a complaint about one path. */
void copy_done(struct copy *c, bool dir);
void copy_failed(struct copy *c, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Makes a file of that name and lets fill write it; nothing half-made stays. When the name is taken and
 * c->force is set the new file takes its place once it is complete. */
typedef int copy_fill_fn(void *arg, struct file *f, uint64_t ino);
int copy_make(struct copy *c, uint64_t dir, struct slice name, uint32_t mode, copy_fill_fn *fill,
              void *arg);
/* What -p keeps of `from`: mode, times and, when run by root, the owner. */
int copy_keep(struct copy *c, uint64_t ino, const struct attr *from);

/* ---- paths ---- */

/* Without slashes at the end (but "/" stays). To be freed. */
char *path_trim(const char *path);
char *path_join(const char *dir, const char *name);
/* The part behind the last slash. */
const char *path_base(const char *trimmed);
/* The directory that a path is in and its name there (borrowed from trimmed).
 * Errors: DFS_EINVAL: the root, or no slash in front; as client_resolve(). */
int path_parent(const struct remote *r, const char *trimmed, struct attr *ret_dir,
                struct slice *ret_name);
/* Where the sources of a copy go: into an existing directory, or to a new name (one source only).
 * Complains. *ret_path is to be freed. */
int path_target(const struct remote *r, const char *dst, int sources, char **ret_path,
                bool *ret_into);

#endif
