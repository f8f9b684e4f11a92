/* One thread for each volume that makes unsynced bytes durable a second after they were written, so
 * that what a power cut can take is bounded; of a replica with many of them at once, so that a disk is
 * busy from the start and a sync at the end of a long write finds little left. */
#ifndef DFS_REPLICATION_STORE_SYNCER_H
#define DFS_REPLICATION_STORE_SYNCER_H

#include "replication/store/replica.h"

struct syncer;

/* put: returns the reference that syncer_add() was given. */
struct syncer *syncer_start(void (*put)(void *arg, struct replica *r), void *arg);
/* Takes over a reference to a replica that has become dirty. */
void syncer_add(struct syncer *s, struct replica *r);
/* This one, if it waits, comes next. */
void syncer_hurry(struct syncer *s, struct replica *r);
/* Syncs what is left, then ends the thread. NULL is fine. */
void syncer_stop(struct syncer *s);

#endif
