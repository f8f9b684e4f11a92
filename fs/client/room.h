/* What quotas leave, as far as this client knows; part of struct client. */
#ifndef DFS_FS_CLIENT_ROOM_H
#define DFS_FS_CLIENT_ROOM_H

#include "cluster/base/base.h"

#include <pthread.h>

#define ROOM_SLOTS 16

struct node;

struct room {
    uint64_t quota; /* the nearest quota directory */
    uint64_t left;  /* bytes */
    uint64_t until_ms;
};

struct rooms {
    pthread_mutex_t mu;
    struct room slot[ROOM_SLOTS]; /* guarded by: mu; by the quota directory's inode */
};

void rooms_init(struct rooms *r);
void rooms_fini(struct rooms *r);

/* The file is about to be written there. DFS_EDQUOT: it would grow beyond a quota. A write that
 * takes no more room than the file has, or that nobody knows of, is let through. */
int room_take(struct node *n, uint64_t off, size_t len);

#endif
