/* The log's directory, looked at before libraft opens it.
 *
 * libraft 0.15 takes any damage in the segment it last wrote to for a write that a crash tore, and
 * cuts the segment there without a word. That is right for what was being written, and loses
 * acknowledged entries when it is rot further in front. It does not miss a segment that is gone or
 * shorter than it was, either, when no other one follows: see raft_reached.h.
 */
#ifndef DFS_CLUSTER_NODE_RAFT_FILES_H
#define DFS_CLUSTER_NODE_RAFT_FILES_H

#include "cluster/base/base.h"

/* Refuses a directory without raft's metadata, open segments in which more entries follow a damaged
 * one than can have been under way at a crash, cut snapshots, and a log that ends before an entry
 * that was applied.
 * in_flight: entries that are written at a time, at most. Errors: DFS_EDAMAGED, DFS_EIO; why names
 * the file. */
int raft_files_check(const char *dir, unsigned int in_flight, struct why *why);

/* Where the intact batches of a segment end, how many entries they hold, and how many intact batches
 * lie behind that point: for tests. */
struct raft_segment {
    size_t good_end;
    uint64_t entries;
    unsigned int beyond;
};
void raft_segment_scan(struct slice content, struct raft_segment *ret);

#endif
