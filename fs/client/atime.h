/* When files and directories were read last, by the rules of relatime: the access time moves when it
 * is not after the last change, or a day old.
 *
 * Reads only note it here; the masters are told once a commit interval, many inodes in one command.
 * Until then this client's attributes are changed on the way to whoever asks for them. Any thread.
 */
#ifndef DFS_FS_CLIENT_ATIME_H
#define DFS_FS_CLIENT_ATIME_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/limits.h"

#include "fs/client/client.h"

#define ATIME_SLOTS LIMIT_ACCESSES
#define ATIME_TRIES \
    8 /* places that an inode may have; when all are taken the masters are told early */

struct atime_slot {
    uint64_t ino; /* 0: free */
    int64_t atime;
    bool told; /* stays until the next telling: answers that are older are still around */
};

struct atimes {
    bool off;                /* set before there are other threads */
    pthread_mutex_t telling; /* held while the masters are told; before mu */
    pthread_mutex_t mu;
    struct atime_slot *slot; /* ATIME_SLOTS; guarded by: mu */
    atomic_uint count;       /* of those in use; written with mu */
};

void atimes_init(struct atimes *t);
void atimes_fini(struct atimes *t);
/* An inode with these attributes was read: a->atime changes if it is time. True when it did. */
bool atime_note(struct client *c, struct attr *a);
/* What was noted shows in a. */
void atime_overlay(struct client *c, struct attr *a);
/* Somebody sets the time: what was noted before must not follow. Waits for a telling. */
void atime_drop(struct client *c, uint64_t ino);
/* Tells the masters. Losing it is no error worth more than a line in the log. */
void atime_tell(struct client *c);

#endif
