/* The master's side of client connections: epoll loops that decode, dispatch and answer.
 *
 * A listener accepts; the hello frame says what a connection is for (HELLO_QUERY or HELLO_COMMAND)
 * and decides which loop owns it from then on. Query loops have threads of their own; the command
 * loop is driven by the raft thread, which polls rpc_loop_fd() and calls rpc_loop_step(), so that a
 * command is decoded, logged and answered by one thread without a hand-over.
 *
 * Garbage, frames that are too long and wrong versions close the connection and are counted; they
 * never stop the server.
 */
#ifndef DFS_CLUSTER_NET_RPC_LOOP_H
#define DFS_CLUSTER_NET_RPC_LOOP_H

#include "cluster/base/base.h"

#include "cluster/wire/frame.h"

struct rpc_loop;
struct rpc_server;

/* One accepted connection; lives on one loop. A handler that answers later keeps the token, not a
 * pointer: rpc_reply() on a connection that is gone does nothing. */
struct rpc_token {
    uint32_t slot;
    uint32_t generation;
    uint64_t req_id;
    uint16_t type;
};

/* Called on the loop's thread for every request. msg is borrowed for the call. */
typedef void rpc_handler(void *arg, struct rpc_loop *loop, struct rpc_token token,
                         struct slice msg);
/* Called on a query loop's thread some time after rpc_loop_wake(), and now and then without one. */
typedef void rpc_woken(void *arg, struct rpc_loop *loop);

struct rpc_server_conf {
    const char *listen;      /* host:port; port 0 picks one */
    int query_loops;         /* threads, >= 1 */
    rpc_handler *on_query;   /* on a query loop's thread */
    rpc_handler *on_command; /* on the thread that steps the command loop */
    rpc_woken *on_woken;     /* may be NULL */
    void *arg;
    struct slice cluster; /* 16 bytes, or empty; copied */
    int hello_timeout_ms; /* 0: 10 s. A connection that has not said hello by then is closed */
    int connections_max;  /* 0: LIMIT_CONNECTIONS. Further ones are closed at once */
};

/* Binds, listens and starts the query loops' threads. Errors: DFS_EBUSY (port in use), DFS_EINVAL. */
int rpc_server_start(const struct rpc_server_conf *conf, struct rpc_server **ret, struct why *why);
/* Closes everything and joins the threads. Nobody may step or answer any more. NULL is fine. */
void rpc_server_stop(struct rpc_server *s);
uint16_t rpc_server_port(const struct rpc_server *s);
/* The loop that the caller drives: poll its descriptor, then step it. */
struct rpc_loop *rpc_server_command_loop(struct rpc_server *s);
int rpc_loop_fd(const struct rpc_loop *l);
void rpc_loop_step(struct rpc_loop *l); /* all that is ready, without waiting */
/* Any thread: has on_woken called on that loop's, to answer what a handler left for later. */
void rpc_loop_wake(struct rpc_loop *l);
/* Index of a query loop (0..query_loops-1), for per-thread state such as an LMDB reader. */
int rpc_loop_index(const struct rpc_loop *l);

/* Answers; on the loop's own thread. status 0 or DFS_E*. Sends what the socket takes at once and
 * the rest when it can; the answers to requests that arrived together go out together. A peer that
 * leaves 4 MiB of answers unread is not listened to until it reads, one that leaves more than
 * 64 MiB is disconnected. */
void rpc_reply(struct rpc_loop *l, struct rpc_token token, int status, struct slice msg);

struct rpc_stats {
    uint64_t connections; /* open now */
    uint64_t requests;
    uint64_t refused_frames;      /* garbage, too long, out of place: connections closed */
    uint64_t refused_versions;    /* hellos of another version, cluster or purpose */
    uint64_t refused_connections; /* over connections_max, or no hello in time */
};
/* Any thread. */
void rpc_server_stats(const struct rpc_server *s, struct rpc_stats *ret);

#endif
