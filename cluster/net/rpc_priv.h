/* What rpc_conn.c (frames in and out), rpc_loop.c (events, slots, arrivals) and rpc_server.c
 * (listening, hello, which loop gets a connection, threads) share. Nobody else includes this.
 *
 * A connection belongs to one loop at a time and only that loop's thread touches it. Handing over:
 * the old loop forgets it, puts it on the new one's list of arrivals and wakes that loop.
 */
#ifndef DFS_CLUSTER_NET_RPC_PRIV_H
#define DFS_CLUSTER_NET_RPC_PRIV_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/msgs.h"
#include "cluster/net/rpc_loop.h"

#define RPC_SCRATCH_BYTES   (256 * KIB) /* one receive */
#define RPC_CORK_BYTES      (64 * KIB)  /* answers that wait for more of the same input */
#define RPC_OUT_PAUSE_BYTES (4 * MIB)   /* unread answers: stop listening */
#define RPC_OUT_MAX_BYTES   (64 * MIB)  /* unread answers: give up */
#define RPC_HELLO_MSG_MAX   256         /* bytes taken from strangers */
#define RPC_TICK_MS         1000

/* Bytes p[head..len) wait. */
struct rpc_bytes {
    uint8_t *p;
    size_t head, len, cap;
};

struct rpc_conn {
    int fd; /* -1 once closed */
    uint32_t slot;
    uint32_t generation;
    uint32_t interest; /* epoll events asked for */
    bool ready;        /* hello done */
    bool corked;       /* another whole request waits behind the one being handled */
    struct rpc_loop *moves_to;
    uint64_t hello_by_ms;
    struct rpc_bytes in;   /* received, not handled: part of a frame, or more while paused */
    struct rpc_bytes out;  /* answers the socket did not take */
    struct rpc_conn *next; /* in arrivals or closed */
};

struct rpc_slot {
    struct rpc_conn *c; /* NULL: free */
    uint32_t next_free;
};

struct rpc_loop {
    struct rpc_server *server;
    rpc_handler *handler;
    int index; /* of a query loop; -1: the command loop */
    int epoll_fd;
    int wake_fd;
    bool accepts;   /* watches the server's listeners */
    bool listening; /* false: out of descriptors, until the next tick */
    bool owned;
    pthread_t owner; /* who stepped last */
    pthread_t thread;
    bool started; /* thread runs */
    uint8_t *scratch;
    struct rpc_slot *slots;
    uint32_t slot_count;
    uint32_t free_slot; /* slot_count: none */
    uint32_t generation;
    uint32_t strangers;      /* connections without a hello */
    struct rpc_conn *closed; /* freed at the end of a turn: events and callers may still see them */
    pthread_mutex_t mu;
    struct rpc_conn *arrivals; /* guarded by: mu */
    atomic_uint load;          /* connections that are or will be here */
    atomic_uint_fast64_t requests;
    atomic_uint_fast64_t refused_frames;
};

struct rpc_server {
    struct rpc_server_conf conf;
    uint8_t cluster[CLUSTER_ID_BYTES];
    uint16_t port;
    int listen_fd[2]; /* TCP and the unix socket beside it; -1: none */
    uint64_t hello_timeout_ms;
    unsigned connections_max;
    atomic_bool stopping;
    atomic_uint connections;
    atomic_uint_fast64_t refused_versions;
    atomic_uint_fast64_t refused_connections;
    struct rpc_loop command;
    struct rpc_loop *query; /* conf.query_loops of them; the first one accepts */
};

/* ---- rpc_loop.c ---- */

int rpc_loop_init(struct rpc_loop *l, struct rpc_server *s, int index, rpc_handler *handler,
                  struct why *why);
void rpc_loop_fini(struct rpc_loop *l);
void rpc_loop_run(struct rpc_loop *l); /* a query loop's thread, until stopping */
/* Gives a connection, with what it has received and not sent yet, to the loop. Any thread. */
void rpc_loop_adopt(struct rpc_loop *l, struct rpc_conn *c);
/* Takes a new socket. On the loop's thread. */
void rpc_loop_add(struct rpc_loop *l, int fd);
/* Starts or stops watching the listeners. */
void rpc_loop_listen(struct rpc_loop *l, bool on);
void rpc_slot_take(struct rpc_loop *l, struct rpc_conn *c);
void rpc_slot_leave(struct rpc_loop *l, struct rpc_conn *c);
/* NULL when the connection that the token came from is gone. */
struct rpc_conn *rpc_slot_find(const struct rpc_loop *l, struct rpc_token t);

/* ---- rpc_conn.c, on the loop's thread ---- */

/* Puts a connection on the loop; false: it could not be watched and is gone. */
bool rpc_conn_attach(struct rpc_loop *l, struct rpc_conn *c);
void rpc_conn_event(struct rpc_loop *l, struct rpc_conn *c, uint32_t events);
/* Handles what was received before. */
void rpc_conn_resume(struct rpc_loop *l, struct rpc_conn *c);
/* The struct lives until the turn ends. */
void rpc_conn_close(struct rpc_loop *l, struct rpc_conn *c);
void rpc_conn_free(struct rpc_conn *c);

/* ---- rpc_server.c ---- */

/* All that waits at a listener. */
void rpc_server_accept(struct rpc_server *s, struct rpc_loop *l, int listen_fd);
/* The first frame: answers it, then marks the connection ready and names its loop, or closes it. */
void rpc_server_hello(struct rpc_server *s, struct rpc_loop *l, struct rpc_conn *c,
                      struct rpc_token token, struct slice msg);

#endif
