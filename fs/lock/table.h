/* The leader's table of locks: who holds what, who waits for what.
 *
 * A step function: requests and times go in, answers come out; granted() is called for every waiter
 * that became a holder while somebody else's request was served. The caller keeps one thread at a
 * time in here.
 *
 * - POSIX locks (fcntl, open file descriptions) and flock locks do not see each other.
 * - Waiters of one inode are served in order. One that only waits behind others, not for a holder,
 *   goes ahead after LOCK_FAIR_MS: order must not tie up what the locks themselves would not. A
 *   request that does not wait looks at holders only.
 * - A waiting POSIX request that would close a circle of owners is refused, DFS_EDEADLK.
 * - Requests may come twice and late. Repeating one changes nothing. seq numbers a session's
 *   requests; below `done` all are answered, so one that comes with a lower number is a leftover.
 * - Grace: a table that starts with sessions that have not told what they hold grants nothing new
 *   until each of them has told, or ended.
 */
#ifndef DFS_FS_LOCK_TABLE_H
#define DFS_FS_LOCK_TABLE_H

#include "cluster/base/base.h"

#include "cluster/base/htab.h"

#include "fs/lock/range.h"

#define LOCK_FAIR_MS       2000
#define LOCKS_MAX          (1u << 20) /* ranges in the table */
#define LOCKS_OF_SESSION   (1u << 17)
#define LOCKS_OF_INODE     16384u
#define WAITERS_MAX        (1u << 16) /* in the table */
#define WAITERS_OF_SESSION 4096u

struct lock_ask {
    uint64_t seq;
    uint64_t done;
    uint64_t ino;
    uint64_t ticket;       /* of a request that may wait; 0: it may not */
    struct lock_range who; /* session, owner, range, type, pid */
    uint8_t kind;          /* enum lock_kind */
};

/* The request with this ticket holds what it wants from now on. */
typedef void lock_granted_fn(void *arg, uint64_t session, uint64_t ino, uint64_t owner);

struct lock_table {
    struct htab spaces;   /* by inode and kind */
    struct htab sessions; /* by id */
    struct htab waiters;  /* by owner */
    struct list busy;     /* spaces with waiters */
    size_t range_count;
    size_t waiter_count;
    size_t untold; /* sessions */
    lock_granted_fn *granted;
    void *arg;
};

void lock_table_init(struct lock_table *t, lock_granted_fn *granted, void *arg);
void lock_table_fini(struct lock_table *t);

/* The session exists. told false: what it holds is not known yet. */
void lock_table_session(struct lock_table *t, uint64_t session, bool told);
/* The session has told everything. DFS_ESESSION. */
int lock_table_told(struct lock_table *t, uint64_t session, uint64_t now_ms);
/* It is no more: what it holds goes to others. */
void lock_table_end(struct lock_table *t, uint64_t session, uint64_t now_ms);
bool lock_table_grace(const struct lock_table *t);

/* Takes, converts or waits. *ret_state: enum lock_state. A waiting request is asked again with the
 * same ticket to learn whether it was granted.
 * Errors: DFS_ESESSION, DFS_EREPLAYED, DFS_EINVAL, DFS_ENOLCK (too many), DFS_EDEADLK. */
int lock_table_set(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms,
                   uint8_t *ret_state);
/* Gives the range back, whatever of it is held. Errors: as above. */
int lock_table_clear(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms);
/* The request with this ticket waits no longer. *ret_granted: it came too late. */
int lock_table_cancel(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms,
                      bool *ret_granted);
/* Who stands in the way: *ret is a copy, type LOCK_NONE when nobody does. DFS_EAGAIN in the grace. */
int lock_table_get(struct lock_table *t, const struct lock_ask *a, struct lock_range *ret);
/* The session held this under an earlier leader. DFS_EBUSY: somebody else has it. */
int lock_table_claim(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms);
/* Several times a second. */
void lock_table_tick(struct lock_table *t, uint64_t now_ms);

/* Everything of one inode (0: of all), holders and waiters; false stops. */
struct lock_item {
    uint64_t ino;
    uint8_t kind;
    bool waits;
    const struct lock_range *who;
};
typedef bool lock_item_fn(void *arg, const struct lock_item *item);
void lock_table_each(const struct lock_table *t, uint64_t ino, lock_item_fn *fn, void *arg);

#endif
