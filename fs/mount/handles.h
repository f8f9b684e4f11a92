/* Open files and directories, by the numbers that the kernel knows them by.
 *
 * What they are is kept in shared memory, so that a process which takes over a mount knows them too;
 * the objects behind them are each process's own. The process that takes over finds its
 * predecessor's handles without an object and makes one when it is needed.
 * Any thread. A handle's last request has been answered when it is removed: the kernel sees to that.
 */
#ifndef DFS_FS_MOUNT_HANDLES_H
#define DFS_FS_MOUNT_HANDLES_H

#include "cluster/base/base.h"

#define HANDLES_MAX   (1u << 20) /* open at a time in one mount */
#define HANDLES_SPARE 4096u      /* bytes of the shared memory for the mount's own use */

struct handles;

struct handle {
    uint64_t ino;
    int flags; /* of open(2); O_DIRECTORY: of opendir(3) */
    bool
        lost; /* something was written to it, and neither flushed nor synced, by a process that died */
};

/* fd -1: begins with new shared memory. Else takes over what is there. Errors: DFS_ENOMEM,
 * DFS_EDAMAGED (not that kind of memory). */
int handles_open(int fd, struct handles **ret, struct why *why);
void handles_close(struct handles *h); /* NULL is fine */
/* How many may be open at a time, HANDLES_MAX at most. */
void handles_limit(struct handles *h, uint64_t max);
/* Of the shared memory: borrowed. */
int handles_fd(const struct handles *h);
/* HANDLES_SPARE bytes in it, zero at the beginning. */
void *handles_spare(struct handles *h);

/* Bytes for the process that takes over, behind the handles; one that takes over finds them once. Errors:
 * DFS_ENOMEM, DFS_ENOENT: nothing was left. */
int handles_leave(struct handles *h, struct slice s);
int handles_left(struct handles *h, struct slice *ret); /* to be freed */

/* obj is the object behind it, never NULL. Errors: DFS_ENFILE. */
int handles_add(struct handles *h, uint64_t ino, int flags, void *obj, uint64_t *ret_fh);
/* The object; NULL when this process has none yet. */
void *handles_get(const struct handles *h, uint64_t fh);
/* What it is. Errors: DFS_ESTALE: there is no such handle. */
int handles_look(const struct handles *h, uint64_t fh, struct handle *ret);
/* For one that has no object; once. */
void handles_put(struct handles *h, uint64_t fh, void *obj);
/* Returns the object, or NULL when there was none. */
void *handles_remove(struct handles *h, uint64_t fh);
/* The lowest one without an object at or above fh; 0: none. */
uint64_t handles_next_orphan(const struct handles *h, uint64_t fh);

/* Is it memory that handles_open() of this version takes over? */
bool handles_known(int fd);

/* Above every number in use. */
uint64_t handles_end(const struct handles *h);

/* Would a death now lose what was written through it? */
void handles_dirty(struct handles *h, uint64_t fh, bool dirty);

#endif
