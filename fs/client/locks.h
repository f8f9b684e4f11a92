/* Locks of this client's programs: asked for at the masters, remembered here so that a master that
 * starts can be told of them.
 *
 * Taking a lock brings what its holders before have committed; giving one back commits what was
 * written under it. A session that is lost takes its locks along: that is logged, and reported as EIO
 * by the next fsync or close of those files.
 */
#ifndef DFS_FS_CLIENT_LOCKS_H
#define DFS_FS_CLIENT_LOCKS_H

#include "fs/client/client.h"

struct lock_want {
    uint64_t ino;
    uint64_t owner;  /* a process, or an open file: as the kernel has it */
    uint64_t handle; /* through which it is asked for: see client_locks_release() */
    uint64_t first;
    uint64_t last; /* LOCK_LAST: to the end */
    uint32_t pid;
    uint8_t kind; /* enum lock_kind */
    uint8_t type; /* enum lock_type */
};

/* A request under way. */
struct lock_call;

/* The end of a request, exactly once, on any thread: granted (a: the inode's attributes now), or
 * DFS_EAGAIN: somebody else has it (one that does not wait), DFS_EINTR, DFS_EDEADLK, DFS_ENOLCK, or
 * what keeps the masters from being asked. */
typedef void lock_done_fn(void *arg, int err, const struct attr *a);

/* wait: until it is granted or interrupted, however long that is. */
struct lock_call *client_lock_new(struct client *c, const struct lock_want *want, bool wait,
                                  lock_done_fn *done, void *arg);
/* Asks. done may be called before this returns. */
void client_lock_start(struct lock_call *k);
/* Any thread, until done is called; before client_lock_start(), too. True: it is over, done is not
 * called any more, and k is not the caller's any more. */
bool client_lock_interrupt(struct lock_call *k);

/* Commits what was written and gives the range back, whatever of it is held. */
int client_unlock(struct client *c, const struct lock_want *want);
/* Who would be in the way: *ret, type LOCK_NONE: nobody. pid 0: on another client. */
int client_lock_get(struct client *c, const struct lock_want *want, struct lock_want *ret);
/* A descriptor was closed: the owner's POSIX locks on this inode are over. */
void client_locks_close(struct client *c, uint64_t ino, uint64_t owner);
/* The open file is gone: over are POSIX locks that were set through it and outlived their owner's
 * closing of descriptors, which are those of open file descriptions. */
void client_locks_release(struct client *c, uint64_t ino, uint64_t handle);
/* Requests that wait end with DFS_ENOLCK; false: there are some that the masters could not be told of by
 * then. No new ones, and no client_lock_interrupt(), meanwhile. */
bool client_locks_give_up(struct client *c, uint64_t deadline_ms);
/* Requests that wait end with DFS_ESHUTDOWN, and so do later ones. */
void client_locks_end(struct client *c);

#endif
