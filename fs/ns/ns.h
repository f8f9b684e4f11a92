/* The metadata state machine: names, inodes, extents, sessions, block records, in one LMDB.
 *
 * Commands arrive in batches, one batch per log entry, in log order, on one thread. Applying reads no
 * clock, no random number and no configuration: the leader puts times, choices and defaults into the
 * batch. Questions are answered from read transactions on any thread, beside the writer.
 */
#ifndef DFS_FS_NS_NS_H
#define DFS_FS_NS_NS_H

#include <stdatomic.h>

#include "cluster/msgs.h"
#include "cluster/store/kv.h"

#include "replication/map/mapdb.h"

#include "fs/msgs.h"

struct ns;

/* dir is created when missing. Errors as kv_open(). */
int ns_open(const char *dir, uint64_t map_bytes, struct ns **ret, struct why *why);
void ns_close(struct ns *ns);
struct kv *ns_kv(struct ns *ns);
const struct mapdb *ns_map(const struct ns *ns);
/* Log index of the last batch inside the database. */
uint64_t ns_applied(const struct ns *ns);
/* The cluster's id, once ns_init was applied; false before. */
bool ns_cluster(struct ns *ns, uint8_t ret[CLUSTER_ID_BYTES]);

/* ---- batches ---- */

/* What the leader puts in front of a batch. */
struct ns_batch_head {
    int64_t now_ns;       /* wall clock of the leader, never below an earlier batch's */
    uint8_t repl_default; /* config replication: 1 to LIMIT_REPLICATION */
    uint32_t lease_ms;
    uint32_t block_size;
    uint32_t count; /* commands that follow */
};

struct ns_command {
    uint16_t type;       /* RPC_* of kind COMMAND or LOG */
    struct slice hdr;    /* encoded call_hdr; empty for kind LOG */
    struct slice msg;    /* encoded request */
    struct slice choice; /* what the leader chose: of block_alloc a list (wire_put_list) of
                             block_choice, as many blocks as are given; of the others anything: that
                             there is no room for it (DFS_ENOROOM, unless it was done before) */
};

/* Into an empty buffer; LIMIT_BATCH_COMMANDS at most. */
void ns_batch_begin(struct wire_out *out, const struct ns_batch_head *head);
void ns_batch_add(struct wire_out *out, const struct ns_command *cmd);
/* Sets head.count at the end. */
void ns_batch_end(struct wire_out *out, uint32_t count);

/* The answer to command i of the batch (reply is borrowed). Called in order, when all of them are in the
 * database: committed, or kept. */
typedef void ns_reply_fn(void *arg, uint32_t i, int status, struct slice reply);

/* What changed, for the leader's memory; any may be NULL. Called while applying. */
struct ns_events {
    struct mapdb_events map;
    void (*inode_orphaned)(void *arg, uint64_t ino); /* lost its last name */
    void (*session_ended)(void *arg, uint64_t session);
    /* by a command of this session, 0 = the leader's own; once for every time it is written */
    void (*inode_changed)(void *arg, uint64_t session, const struct attr *a);
    void (*entry_changed)(void *arg, uint64_t session, uint64_t parent, struct slice name);
    void (*rule_added)(void *arg, uint16_t number, struct slice text); /* storage rules */
    void *arg;
};
void ns_set_events(struct ns *ns, const struct ns_events *ev);

/* Applies a log entry. index not above ns_applied() is skipped (replay). A failed command is an
 * answer; an error from here means that the database is broken or full and the master must stop. */
int ns_apply(struct ns *ns, uint64_t index, struct slice batch, ns_reply_fn *fn, void *arg,
             struct why *why);

/* From now on small batches of clients' commands alone are kept (kv_keep) and not committed each, up
 * to so many commands together; 0 is the beginning. ns_query and ns_get_space see them; everything
 * else sees what is committed: a snapshot between two batches that holds all commands of the leader
 * itself which were answered. What is kept when the database is closed or a checkpoint is gone back
 * to comes again from the log. */
void ns_keep(struct ns *ns, size_t commands);
/* Commits what is kept. Errors as ns_apply's: what was answered is in the log, but not here. */
int ns_flush(struct ns *ns, struct why *why);

/* ---- questions ---- */

/* One per thread that asks: keeps an LMDB read transaction to renew. */
struct ns_reader;
struct ns_reader *ns_reader_new(struct ns *ns);
void ns_reader_free(struct ns_reader *r);

/* Answers lookup, getattr, readlink, readdir, getxattr, listxattr, permit, open, extents, locate,
 * quota_*, getstorage, for the caller in hdr: fills rep (appends to it) and returns the status; others are
 * DFS_EUNKNOWNRPC. block_loc's node addresses come from the server records, enum member_state of each
 * from `state` (NULL: all live); servers are listed by state, those of one state in chain order. */
typedef uint8_t ns_node_state_fn(void *arg, uint32_t node);
int ns_query(struct ns_reader *r, const struct call_hdr *hdr, uint16_t type, struct slice msg,
             ns_node_state_fn *state, void *arg, struct wire_out *rep);

/* ---- for the leader's tasks (reader's thread) ---- */

/* The owner of blocks that are being compacted; no client's session. */
#define NS_COMPACTOR UINT64_MAX

struct ns_place {
    uint64_t ino;
    uint64_t off;
};
/* Looks at max extents, in the order of inodes and offsets, from *at on, and moves *at behind them;
 * fn gets those whose block is wanted, and their files. *ret_end: there are no more. */
typedef bool ns_wanted_fn(void *arg, uint64_t block);
typedef void ns_extent_fn(void *arg, const struct attr *file, const struct extent *e);
int ns_each_extent(struct ns_reader *r, struct ns_place *at, size_t max, ns_wanted_fn *wanted,
                   ns_extent_fn *fn, void *arg, bool *ret_end);

struct ns_counts {
    uint64_t inodes;
    uint64_t file_bytes; /* bytes covered by extents */
    uint64_t blocks;     /* without deleted ones */
    uint64_t sessions;
    uint64_t orphans;
    uint64_t next_block; /* ids from here on were never given */
};
int ns_get_counts(struct ns_reader *r, struct ns_counts *ret);
/* Ids of blocks in [from, to) were leapt over: another database, newer than a backup that was put back, may
 * have given them. */
typedef void ns_leap_fn(void *arg, uint64_t from, uint64_t to, int64_t since_ns);
int ns_each_leap(struct ns_reader *r, ns_leap_fn *fn, void *arg);
/* Inodes without a name, from the id after `after`. Returns how many were put into ret. */
size_t ns_orphans(struct ns_reader *r, uint64_t after, uint64_t *ret, size_t max);
/* host and name are borrowed for the call; false stops. */
typedef bool ns_session_fn(void *arg, uint64_t session, struct slice host, struct slice name);
int ns_each_session(struct ns_reader *r, ns_session_fn *fn, void *arg);
/* What may be stored in a directory (or written to a file). */
struct ns_space {
    uint8_t repl;         /* copies; 0 = the default */
    uint64_t quota;       /* the nearest quota directory, 0 = none: then UINT64_MAX below */
    uint64_t total_bytes; /* of the tightest limit; UINT64_MAX: there is none */
    uint64_t free_bytes;
    uint64_t total_inodes; /* the same */
    uint64_t free_inodes;
    uint64_t used_inodes; /* in the nearest quota directory */
};
int ns_get_space(struct ns_reader *r, uint64_t ino, struct ns_space *ret);
/* Directories that wait for quota_step. */
uint64_t ns_quota_work(struct ns_reader *r);
/* Counts all inodes, in one read transaction: fn gets each quota directory as it is stored (without
 * path), what was counted, and whether both are the same; false stops. */
typedef bool ns_quota_fn(void *arg, const struct quota_info *q, uint64_t bytes, uint64_t inodes,
                         bool same);
int ns_quota_recount(struct ns_reader *r, ns_quota_fn *fn, void *arg);
/* Compares the records of blocks with all extents, in one read transaction: fn gets each count of a
 * block's bytes in use that is wrong; for a block that should be deleted, too, perhaps with both
 * numbers 0. *stop (may be NULL) ends it early with DFS_EINTR. */
struct ns_audit {
    uint64_t blocks; /* without deleted ones */
    uint64_t extents;
    uint64_t wrong;    /* blocks */
    uint64_t unused;   /* of these: nothing uses them */
    uint64_t dangling; /* extents without a block */
};
typedef void ns_audit_fn(void *arg, const struct live_count *c);
int ns_audit(struct ns_reader *r, const atomic_bool *stop, struct ns_audit *ret, ns_audit_fn *fn,
             void *arg);
/* All storage rules with their numbers; text is borrowed for the call. */
typedef void ns_rule_fn(void *arg, uint16_t number, struct slice text);
int ns_each_rule(struct ns_reader *r, ns_rule_fn *fn, void *arg);
/* The next file after `after` whose bytes are not all counted as it wants its copies now, for
 * ns_recount; 0: there is none. */
uint64_t ns_next_recount(struct ns_reader *r, uint64_t after);
/* A hash over the whole database, for tests: equal states give equal hashes. */
uint64_t ns_hash(struct ns *ns);

#endif
