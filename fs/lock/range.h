/* Locks that are held on one inode: byte ranges with owners, as fcntl(2) has them.
 *
 * A plain list sorted by first byte. Ranges of one owner never overlap, and neighbours of one type
 * are one range. flock(2) locks are ranges over everything. One thread at a time.
 */
#ifndef DFS_FS_LOCK_RANGE_H
#define DFS_FS_LOCK_RANGE_H

#include "cluster/base/base.h"

#include "cluster/base/list.h"

#include "fs/msgs.h"

struct lock_range {
    struct list list;
    uint64_t session;
    uint64_t owner; /* within the session: a process, or an open file */
    uint64_t first;
    uint64_t last; /* LOCK_LAST: to the end, wherever that is */
    uint64_t since_ms;
    uint32_t pid; /* who asked, for people */
    uint8_t type; /* enum lock_type */
};

static inline bool lock_same_owner(const struct lock_range *a, const struct lock_range *b)
{
    return a->session == b->session && a->owner == b->owner;
}

/* Can the two not be held at a time? */
bool lock_conflict(const struct lock_range *a, const struct lock_range *b);

/* want's owner has want->type in want's range from now on, whatever it had there before; LOCK_NONE:
 * nothing. list of want is not used. Returns by how many ranges the list has grown (1 at most for
 * LOCK_NONE, 2 else) or shrunk. */
int lock_ranges_set(struct list *ranges, const struct lock_range *want);
/* The first range of another owner that stands in the way; NULL: none. */
const struct lock_range *lock_ranges_conflict(const struct list *ranges,
                                              const struct lock_range *want);
/* Has want's owner all of want's range? exact: with that type; else with that or a stronger one. */
bool lock_ranges_cover(const struct list *ranges, const struct lock_range *want, bool exact);
/* Has want's owner something in want's range? */
bool lock_ranges_touch(const struct list *ranges, const struct lock_range *want);
void lock_ranges_clear(struct list *ranges);

#endif
