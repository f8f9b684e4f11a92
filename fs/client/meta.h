/* Calls to the masters, for one session.
 *
 * A call takes a link: a connection that it has for itself until meta_end(). Links for commands also
 * own a slot of the session; commands of one slot are numbered, so that a command that is sent again
 * (after a lost connection, a timeout, to a new leader) is carried out once. There are as many links
 * as there were calls at the same time, LIMIT_SLOTS at most. Any thread.
 *
 * A session that is gone (the client was away longer than its lease) is replaced at once; what was
 * bound to the old one fails with DFS_ESESSION.
 */
#ifndef DFS_FS_CLIENT_META_H
#define DFS_FS_CLIENT_META_H

#include "fs/client/client.h"

struct meta;
struct link;

struct meta_counts {
    uint64_t rpcs;
    uint64_t retries;
};

/* Opens a session. Errors: DFS_ETIMEOUT, DFS_ECONN, DFS_EVERSION, DFS_EINVAL (masters). */
int meta_open(const struct conf *conf, const char *host, const char *name, struct meta **ret,
              struct why *why);
/* What a process that goes on with the session has to know of it. */
struct meta_left {
    uint64_t session;
    uint64_t seq; /* the highest number of a command in any slot */
    uint32_t lease_ms;
    uint32_t block_size;
    uint8_t cluster[CLUSTER_ID_BYTES];
};

/* meta_close() will leave the session as it is. */
void meta_leave(struct meta *m, struct meta_left *ret);
/* In place of meta_open(). Asks nobody. */
int meta_resume(const struct conf *conf, const char *host, const char *name,
                const struct meta_left *left, struct meta **ret, struct why *why);
/* Closes the session if a master can be asked within a second or two. No calls may be under way. */
void meta_close(struct meta *m);

uint64_t meta_session(const struct meta *m); /* changes when a session had to be replaced */
uint32_t meta_lease_ms(const struct meta *m);
uint32_t meta_block_size(const struct meta *m);
/* Of the cluster, CLUSTER_ID_BYTES. */
struct slice meta_cluster(const struct meta *m);
void meta_count(const struct meta *m, struct meta_counts *ret);

enum meta_kind {
    META_QUERY,
    META_COMMAND,
    META_BOUND, /* a command about blocks of this session: not for another one */
};

/* A connection for questions that belongs to the caller, to the master that answered last. Errors as
 * conn_open_hello(). */
struct conn;
int meta_connect(struct meta *m, uint64_t deadline_ms, struct conn **ret);

/* One call: meta_begin(), put the request into call.out, meta_run(), decode, meta_end(). */
struct meta_call {
    struct meta *m;
    struct link *link;
    struct wire_out *out; /* behind the header: for the request */
    enum meta_kind kind;
    uint64_t deadline_ms;
    uint64_t session; /* that the call was made for */
};

/* cr NULL: root. May wait for a link. Errors: DFS_ETIMEOUT; then there is nothing to end. */
int meta_begin(struct meta *m, enum meta_kind kind, const struct cred *cr, uint64_t deadline_ms,
               struct meta_call *ret);
/* Sends it until a master answers or the deadline passes. *ret_rep is borrowed until meta_end(). */
int meta_run(struct meta_call *call, uint16_t type, struct slice *ret_rep);
void meta_end(struct meta_call *call);

#endif
