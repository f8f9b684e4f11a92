/* The file system's time: the wall clock, but never back.
 *
 * Times in the metadata and intervals that outlive a process (the grace of deleted blocks,
 * maintenance) are compared with it. When the wall clock is set back, it goes on at half speed until
 * the wall clock has caught up: what is changed later has a later time, and whatever waits is due in
 * the end.
 */
#ifndef DFS_FS_ROLE_FS_TIME_H
#define DFS_FS_ROLE_FS_TIME_H

#include "cluster/base/base.h"

struct fs_time {
    int64_t last_ns;
    uint64_t last_us; /* of the monotonic clock, then */
};

/* Later than any time that this gave or that was passed to fs_time_reach(). */
int64_t fs_time_now(struct fs_time *t, int64_t wall_ns, uint64_t mono_us);
/* An earlier leader gave this time. */
void fs_time_reach(struct fs_time *t, int64_t ns, uint64_t mono_us);

#endif
