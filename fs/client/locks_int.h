/* Inside of the client's locks.
 *
 * A stripe's lock is held around a request for one of its inodes and what is noted of the answer, so
 * that notes have the order of the master's doings. All stripes are held, in order, while a new
 * master is told everything. locks.mu comes after them; nothing is waited for with it held.
 */
#ifndef DFS_FS_CLIENT_LOCKS_INT_H
#define DFS_FS_CLIENT_LOCKS_INT_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/htab.h"
#include "cluster/base/list.h"

#include "fs/client/client_int.h"
#include "fs/client/locks.h"
#include "fs/lock/range.h"

#define LOCK_STRIPES 32u

/* What is held on one inode. */
struct held {
    struct hnode h;
    uint64_t ino;
    uint8_t kind;
    struct list ranges; /* lock_range, session 0 */
    struct list users;  /* of POSIX locks: held_user */
};

/* An owner that has ranges, and a handle through which it has set some. */
struct held_user {
    struct list list;
    uint64_t owner;
    uint64_t handle;
};

struct lock_call {
    struct list list; /* of those that wait; guarded by: locks.mu, as all below */
    struct client *c;
    struct lock_want want;
    uint64_t ticket; /* 0: does not wait */
    lock_done_fn *done;
    void *arg;
    uint64_t due_ms;   /* asked again */
    uint64_t until_ms; /* a master has to be heard by then */
    bool busy;         /* being asked */
    bool again;        /* told to ask again meanwhile */
    bool over;         /* interrupted: nobody is waiting, the master is to be told */
};

struct locks {
    pthread_mutex_t stripe[LOCK_STRIPES];
    pthread_mutex_t mu; /* guards all below */
    pthread_cond_t wake;
    struct htab held;
    atomic_size_t held_count; /* of held; read without mu */
    uint64_t session;         /* that all of it belongs to */
    uint64_t seq;
    struct list asked; /* lock_op, in the order of their numbers */
    uint64_t tickets;
    struct list waiting; /* lock_call */
    pthread_t thread;
    bool running;
    bool stopping;
};

/* A request on its way. */
struct lock_op {
    struct list list;
    uint64_t seq;
    uint64_t done;
};

pthread_mutex_t *locks_stripe(struct client *c, uint64_t ino);

/* One question to a master. want's stripe is held. */
int locks_ask_set(struct client *c, const struct lock_want *want, uint64_t ticket,
                  uint64_t deadline_ms, uint8_t *ret_state, struct attr *ret_attr);
int locks_ask_clear(struct client *c, const struct lock_want *want, uint64_t deadline_ms);
int locks_ask_cancel(struct client *c, const struct lock_want *want, uint64_t ticket,
                     uint64_t deadline_ms, bool *ret_granted);

/* Notes. locks.mu and want's stripe are held. */
void locks_note_set_locked(struct client *c, const struct lock_want *want);
/* The master gets to hold what is noted of want's range, and nothing else. want's stripe is held. */
int locks_restore(struct client *c, const struct lock_want *want, uint64_t deadline_ms);
/* The same once a master can be asked. */
void locks_restore_later(struct client *c, const struct lock_want *want);
/* What is written and not committed. */
void locks_commit(struct client *c, uint64_t ino, uint64_t deadline_ms);
bool locks_holds_exclusive(struct client *c, const struct lock_want *want);

#endif
