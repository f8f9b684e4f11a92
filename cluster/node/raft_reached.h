/* How far the log was applied, beside the log: a witness against files that went missing.
 *
 * libraft starts happily with what it finds: without the newest segment, or with one that is cut, the
 * log is a shorter one. The witness says how long it was. It is written after each entry and not
 * synced: an entry is applied when it is on disk, so the witness may lag the log, never lead it.
 */
#ifndef DFS_CLUSTER_NODE_RAFT_REACHED_H
#define DFS_CLUSTER_NODE_RAFT_REACHED_H

#include "cluster/base/base.h"

struct raft_reached {
    int fd;
    uint64_t index;
};

/* The file of the log's directory, made when it is missing. A damaged one says nothing: index 0. */
int raft_reached_open(struct raft_reached *r, const char *dir, struct why *why);
void raft_reached_close(struct raft_reached *r);
/* The entry was applied. A failure is passed over: the log will tell of the disk. */
void raft_reached_set(struct raft_reached *r, uint64_t index);
/* What the file says; 0: there is none. */
int raft_reached_read(const char *dir, uint64_t *ret, struct why *why);

#endif
