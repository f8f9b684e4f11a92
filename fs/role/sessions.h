/* The leader's memory of client sessions: when each was heard last, and what it has open.
 *
 * That a session exists is in the state machine; leases and open files are not, because they change
 * all the time and a new leader learns them anew: everybody gets a full lease, and clients tell
 * what they have open. Times are monotonic milliseconds. Not thread-safe.
 */
#ifndef DFS_FS_ROLE_SESSIONS_H
#define DFS_FS_ROLE_SESSIONS_H

#include "cluster/base/base.h"

#include "cluster/base/htab.h"

struct sessions {
    struct htab by_id;
    struct htab opens; /* by inode */
    uint64_t lease_ms;
    uint64_t step_ms; /* of the last sessions_expired() */
};

void sessions_init(struct sessions *s, uint64_t lease_ms, uint64_t now_ms);
void sessions_fini(struct sessions *s);

/* Known already: as a ping. */
void sessions_add(struct sessions *s, uint64_t id, uint64_t now_ms);
/* False: there is no such session. */
bool sessions_ping(struct sessions *s, uint64_t id, uint64_t now_ms);
void sessions_end(struct sessions *s, uint64_t id);

/* *ret_new (may be NULL): it was not open by this session before. False: no such session, or it
 * has a million inodes open. */
bool sessions_open(struct sessions *s, uint64_t id, uint64_t ino, bool *ret_new);
void sessions_close(struct sessions *s, uint64_t id, uint64_t ino);
/* Every session that has it open, once. */
typedef void sessions_open_fn(void *arg, uint64_t session);
void sessions_each_open(const struct sessions *s, uint64_t ino, sessions_open_fn *fn, void *arg);
/* By any session. */
bool sessions_is_open(const struct sessions *s, uint64_t ino);

/* Up to max sessions whose lease is over. To be called several times per lease: a longer pause is
 * taken for this process having slept. They stay until sessions_end(). */
size_t sessions_expired(struct sessions *s, uint64_t now_ms, uint64_t *ret, size_t max);

#endif
