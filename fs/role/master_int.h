/* What the files of the master share.
 *
 * Locks, each held for short, never two at a time but in this order:
 *   kv's         what is kept is used: by the core that applies, by questions of clients (kv_view)
 *   map_mu       members, repair, strays (replication's picture of the cluster)
 *   sessions_mu  sessions
 *   locks_mu     locks
 *   core.mu      the queue of commands from other threads; which batches are answered
 *   keeper.mu    what happened that the keeper has to look at
 *   events.mu    what sessions are to be told
 */
#ifndef DFS_FS_ROLE_MASTER_INT_H
#define DFS_FS_ROLE_MASTER_INT_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <uv.h>

#include "cluster/base/err.h"
#include "cluster/base/list.h"
#include "cluster/net/control.h"
#include "cluster/net/metrics_http.h"
#include "cluster/net/rpc_loop.h"
#include "cluster/node/raft_node.h"

#include "replication/map/balance.h"
#include "replication/map/reconcile.h"
#include "replication/map/repair.h"

#include "fs/lock/table.h"
#include "fs/ns/ns.h"
#include "fs/role/compact.h"
#include "fs/role/events.h"
#include "fs/role/fs_time.h"
#include "fs/role/master.h"
#include "fs/role/scrub_book.h"
#include "fs/role/sessions.h"
#include "fs/role/watches.h"

#define MASTER_CONTROL_THREADS 4

/* ---- the core ---- */

/* A command of the leader itself. msg is owned until done is called, on the core thread; reply is
 * borrowed. */
struct master_cmd {
    struct list list;
    struct wire_out msg;
    uint16_t type;
    void (*done)(struct master_cmd *cmd, int status, struct slice reply);
    void *arg;
};

struct batch_item {
    struct rpc_token token;
    struct master_cmd *cmd; /* NULL: a client's */
    uint64_t session;
    bool opens; /* make with MAKE_OPEN */
};

struct batch {
    struct list list;
    struct wire_out out;
    struct batch_item *items;
    uint32_t count;
    uint32_t cap;
};

struct block_event {
    uint64_t block;
    bool sealed; /* just now */
};

/* What commands changed, for those who look at it. The name is in names. */
struct news {
    uint64_t session; /* that did it */
    uint64_t ino;
    uint64_t arg;
    uint32_t name_at, name_len;
    uint8_t kind; /* EVENT_INODE, EVENT_ENTRY */
};

struct core {
    uv_loop_t loop;
    uv_poll_t clients;
    uv_poll_t signals;
    uv_async_t wake;
    uv_timer_t flush; /* runs while something is kept */
    struct batch *gather;
    struct list full; /* batches that wait for their turn */
    unsigned int full_count;
    struct list flights; /* entries that the log has not answered */
    unsigned int in_flight;
    _Atomic uint64_t pending_since_us; /* the oldest entry in flight was sent then; 0: none is */
    bool paused;                       /* clients are not listened to */
    int64_t applying_ns;               /* of the batch that is being applied; 0 outside */
    struct block_event *events;        /* of what is not committed yet */
    size_t event_count;
    size_t event_cap;
    struct news *news; /* of the batch that is being applied, as these */
    size_t news_count;
    size_t news_cap;
    struct wire_out names;
    struct rng rng;
    pthread_mutex_t mu;
    pthread_cond_t answered; /* a batch was */
    uint64_t batches_begun;  /* guarded by: mu; to be applied */
    uint64_t batches_answered;
    struct list queue;   /* guarded by: mu; master_cmd */
    bool closed;         /* guarded by: mu */
    struct fs_time time; /* guarded by: mu */
};

/* ---- the keeper ---- */

/* Counting what one leaving server holds. */
struct leaving_count {
    uint32_t node; /* 0: none is counted now */
    uint64_t from;
    uint64_t blocks, open, bytes;
};

struct keeper {
    pthread_t thread;
    bool running;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    struct block_event *events; /* guarded by: mu */
    size_t event_count;         /* guarded by: mu */
    size_t event_cap;           /* guarded by: mu */
    bool rescan;                /* guarded by: mu; events were lost */
    bool stop;                  /* guarded by: mu */
    bool poked;                 /* guarded by: mu */
    struct ns_reader *reader;
    /* the keeper's own */
    uint64_t scan_from;      /* next block of the scan of all; UINT64_MAX: done */
    int64_t sealed_since_ns; /* holders of blocks sealed since then are told again */
    uint64_t next_second_ms;
    uint64_t next_trim_ms;
    uint64_t next_count_ms;
    uint64_t next_room_ms;
    bool no_room;
    struct leaving_count counting;
    uint64_t orphan_after;
    uint64_t next_reap_ms;
    bool reaping;             /* there are more than one call looks at */
    uint64_t *due;            /* deleted blocks */
    uint64_t orphans_from_ms; /* clients have told by now what they have open */
};

struct node_scan {
    struct list list;
    uint64_t from;
    uint32_t node;
};

/* What repair wants from the log. guarded by: map_mu */
struct wishes {
    struct repair_change *changes;
    size_t change_count, change_cap;
    uint64_t *forgets;
    size_t forget_count, forget_cap;
};

struct query_state {
    struct ns_reader *reader;
    struct wire_out rep;
};

struct master {
    const struct conf *conf;
    const char *conf_path;
    atomic_uint replication; /* conf's, or what a reload brought */
    int lock_fd;
    int signal_fd;
    struct ns *ns;
    struct raft_node *node;
    struct rpc_server *rpc;
    struct control_server *control;
    uint8_t cluster[CLUSTER_ID_BYTES];
    atomic_bool leads;
    atomic_int_fast64_t room; /* bytes that metadata may grow by, as far as is known */
    atomic_uint_fast64_t epoch;
    bool exists; /* this is not the first start */
    bool serving;
    bool raft_stopped;
    bool stopping;
    int err; /* why it stops; 0: it was told to */
    struct why why;
    struct core core;
    struct keeper keeper;
    struct query_state *queries;

    pthread_mutex_t map_mu;
    struct members members; /* guarded by: map_mu, as all below */
    struct repair *repair;
    struct balance balance;
    struct strays strays;
    struct list scans; /* node_scan */
    struct wishes wishes;
    struct scrub_book scrubs;
    struct space *space;  /* master_space.c */
    struct audit *audit;  /* master_audit.c */
    struct rng space_rng; /* of its choices */
    atomic_bool scanning;

    pthread_mutex_t sessions_mu;
    struct sessions sessions; /* guarded by: sessions_mu */
    struct events events;
    struct watches *watches;

    pthread_mutex_t locks_mu;
    struct lock_table locks; /* guarded by: locks_mu */

    struct metrics_http *metrics;
};

/* The core thread's loop ends; why the process stops is kept when it is the first reason. */
void master_stop(struct master *m, int err, const char *text);
/* The same, and nobody is answered any more. */
void master_fail(struct master *m, int err, const char *text);

/* master_core.c */
void master_core_init(struct master *m);
void master_core_fini(
    struct master *m); /* closes the loop's handles; the loop has to be empty else */
void master_core_on_command(void *arg, struct rpc_loop *loop, struct rpc_token token,
                            struct slice msg);
int master_core_apply(void *arg, uint64_t index, struct slice entry, void *submitted,
                      struct why *why);
/* Any thread but the core's, without locks: what is being applied now is answered when this returns. */
void master_core_wait_answered(struct master *m);
/* Any thread. After the core has closed, done is called at once, with DFS_ESHUTDOWN. */
void master_core_submit(struct master *m, struct master_cmd *cmd);
/* Any thread but the core's: waits for the answer; reply (may be NULL) is appended to. */
int master_core_call(struct master *m, uint16_t type, struct slice msg, struct wire_out *reply);
/* Any thread: the file system's time. */
int64_t master_now_ns(struct master *m);
/* Sends what is gathered as far as two entries in flight allow. */
void master_core_pump(struct master *m);
/* Listens to clients from now on. */
void master_core_serve(struct master *m);
/* Answers what waits, and everything from now on, with DFS_ESHUTDOWN. What is in flight is left. */
void master_core_close(struct master *m);
/* Answers what is in flight: the log never will. */
void master_core_abandon(struct master *m);

/* master_keep.c */
#define MASTER_SETTLE 0 /* a command of no type, for which there is no entry */
void master_keep_init(struct master *m);
void master_keep_fini(struct master *m);
/* mapdb_events: gathers. */
void master_keep_on_block(void *arg, uint64_t block, const struct block_rec *rec);
/* A batch was applied: it is committed now, or soon. */
void master_keep_applied(struct master *m);
/* Core's thread: commits what is kept. An error has to end the process. */
int master_keep_flush(struct master *m, struct why *why);
void master_keep_on_settle(struct master *m, struct master_cmd *cmd);
/* Any thread but the core's and those that it joins before master_core_close(), without locks: all that was
 * answered up to now is committed when this returns. */
int master_keep_settle(struct master *m);

/* master_restored.c */
/* Is master.data a copy of what a master had? */
bool master_restored_is_copy(struct master *m);
/* What is there is the original from now on. */
int master_restored_note(struct master *m, struct why *why);
/* The command that makes ids leap. block: 0, or one that was never given. */
void master_restored_put(struct wire_out *out, uint64_t block);
/* A server has this block: ids leap if it was never given. Any thread but the core's. */
int master_restored_seen(struct master *m, uint32_t node, uint64_t block);
/* A block without a record: may a newer database know it, and is it kept for that? */
bool master_restored_keeps(struct master *m, uint64_t block);

/* master_query.c */
void master_query_init(struct master *m);
void master_query_fini(struct master *m);
void master_query_on(void *arg, struct rpc_loop *loop, struct rpc_token token, struct slice msg);
uint8_t master_query_node_state(void *arg, uint32_t node);

/* master_locks.c; any thread */
void master_locks_init(struct master *m);
void master_locks_fini(struct master *m);
/* There is this session; told: it holds nothing that is not known. */
void master_locks_session(struct master *m, uint64_t session, bool told);
void master_locks_told(struct master *m, uint64_t session);
void master_locks_end(struct master *m, uint64_t session);
void master_locks_tick(struct master *m, uint64_t now_ms);
/* lock_*; on the query loop whose state q is. */
int master_locks_query(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                       uint16_t type, struct slice msg);
int master_locks_list(struct master *m, struct slice msg, struct wire_out *rep);

/* master_room.c */
void master_room_init(struct master *m);
/* Part of the keeper: measures. */
void master_room_step(struct master *m, uint64_t now_ms);
/* Any thread: so many bytes of commands go into the log; is there no room for one of this type? */
void master_room_take(struct master *m, size_t bytes);
bool master_room_refuses(const struct master *m, uint16_t type);

/* master_events.c */
int master_events_poll(struct master *m, struct rpc_loop *loop, struct rpc_token token,
                       const struct call_hdr *hdr, struct slice msg, struct wire_out *rep,
                       bool *ret_held);
void master_events_on_woken(void *arg, struct rpc_loop *loop);
/* ns_events: gathers. */
void master_events_on_inode(void *arg, uint64_t session, const struct attr *a);
void master_events_on_entry(void *arg, uint64_t session, uint64_t parent, struct slice name);
/* The session has opened ino: those who have it open learn of each other. Not fresh: as far as is known
 * it had it open before, and may have forgotten what it heard then. sessions_mu is held. */
void master_events_opened_locked(struct master *m, uint64_t session, uint64_t ino, bool fresh);
/* After a batch: tells the sessions that look at what was changed, but for those who did it. */
void master_events_tell(struct master *m);
/* A session is about to be answered this question, or was answered: it may remember the answer. */
void master_events_watch(struct master *m, uint64_t session, uint16_t type, struct slice msg);
void master_events_watch_found(struct master *m, uint64_t session, struct slice lookup_rep);

/* master_control.c, master_report.c, master_admin.c */
int master_control_on(void *arg, uint16_t type, struct slice msg, struct wire_out *rep);
int master_report_digests(struct master *m, struct slice msg, struct wire_out *rep);
int master_report_range(struct master *m, struct slice msg, struct wire_out *rep);
int master_admin_status(struct master *m, struct wire_out *rep);
int master_admin_health(struct master *m, struct slice msg, struct wire_out *rep);
/* master_space.c */
void master_space_init(struct master *m);
void master_space_fini(struct master *m);
/* Part of the keeper: one slice. */
void master_space_step(struct master *m, uint64_t now_ms);
/* It has little room left: deleted blocks go earlier. map_mu is held, as for all below. */
bool master_space_pressed(const struct master *m, const struct member *s);
void master_space_census(struct master *m, struct compact_census *ret);
/* A server's task, if there is one, as a list of compact_task; and what it tells of it. */
uint32_t master_space_put_task(struct master *m, uint32_t node, struct wire_out *out);
int master_space_done(struct master *m, uint32_t node, struct wire_list list);
/* master_audit.c */
void master_audit_init(struct master *m);
void master_audit_fini(struct master *m);
void master_audit_stop(struct master *m); /* after control_server_stop() */
int master_audit_on(struct master *m, struct slice msg, struct wire_out *rep);
/* master_chores.c */
int master_chores_told(struct master *m, struct slice msg, struct wire_out *rep);
int master_chores_order(struct master *m, struct slice msg, struct wire_out *rep);
int master_chores_status(struct master *m, struct slice msg, struct wire_out *rep);
/* Is this start of the server registered? */
bool master_control_boot_known(struct master *m, uint32_t node, uint64_t boot);

/* master_keeper.c */
void master_keeper_init(struct master *m);
void master_keeper_fini(struct master *m);
void master_keeper_start(struct master *m);
void master_keeper_stop(
    struct master *m); /* after master_core_close(): it may be waiting for an answer */
/* Any thread: there is something to do. */
void master_keeper_poke(struct master *m);
void master_keeper_blocks_changed(struct master *m, const struct block_event *events, size_t count);
/* The server's state changed: its blocks are to be looked at. map_mu is held. */
void master_keeper_scan_node_locked(struct master *m, uint32_t node);
/* repair_env; map_mu is held. */
int master_keeper_env_get(void *arg, uint64_t block, struct block_rec *ret);
void master_keeper_env_change(void *arg, const struct repair_change *c);
void master_keeper_env_forget(void *arg, uint64_t block);

/* master_ops.c: what operators want of block servers */
int master_ops_intent(struct master *m, struct slice msg, struct wire_out *rep);
/* A server said goodbye: it is in maintenance for maintenance.clean_stop. Control threads. */
int master_ops_stopped(struct master *m, uint32_t node);
/* Of the keeper: counts what leaving servers still hold, in slices, and says when one is empty. */
void master_ops_step(struct master *m, uint64_t now_ms);

#define TASKS_DUE_MAX 8192u

/* master_tasks.c: parts of the keeper */
void master_tasks_expire_sessions(struct master *m, uint64_t now_ms);
/* True when there is more to do at once. */
bool master_tasks_reap(struct master *m, uint64_t now_ms);
void master_tasks_delete(struct master *m, uint64_t now_ms);
/* True when there is more to do at once. */
bool master_tasks_quota(struct master *m);
/* Files whose copies or storage rule were changed. True: there is more to do at once. */
bool master_tasks_recount(struct master *m);
void master_tasks_balance(struct master *m, uint64_t now_ms);

#endif
