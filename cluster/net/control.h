/* The control plane: registration, heartbeats, orders, admin commands, as nng REQ/REP messages that
 * hold one frame each. nng resends by itself, so every handler is idempotent.
 */
#ifndef DFS_CLUSTER_NET_CONTROL_H
#define DFS_CLUSTER_NET_CONTROL_H

#include "cluster/base/base.h"

#include "cluster/wire/frame.h"

struct control_server;
struct control_client;

/* Answers one message: fills rep (initialised, LIMIT_MSG) and returns the status. Called on the
 * server's own threads, up to `parallel` at once. msg is borrowed. */
typedef int control_handler(void *arg, uint16_t type, struct slice msg, struct wire_out *rep);

struct control_server_conf {
    const char *listen;       /* host:port; port 0 picks one */
    int parallel;             /* threads, >= 1 */
    unsigned connections_max; /* further ones are closed at once; 0: no limit */
    control_handler *fn;
    void *arg;
};

/* Messages that are no request frames are dropped and counted. Errors: DFS_EBUSY (port in use),
 * DFS_EINVAL. */
int control_server_start(const struct control_server_conf *conf, struct control_server **ret,
                         struct why *why);
/* Waits for handlers that run. NULL is fine. */
void control_server_stop(struct control_server *s);
uint16_t control_server_port(const struct control_server *s);
uint64_t control_server_dropped(const struct control_server *s); /* any thread */

/* addrs: "host:port[,host:port...]", the masters' control addresses. Connects in the background
 * and again whenever a connection is lost. Errors: DFS_EINVAL. */
int control_client_open(const char *addrs, struct control_client **ret, struct why *why);
/* Calls under way end with DFS_ESHUTDOWN, later ones at once: to get threads back before closing.
 * Any thread. */
void control_client_stop(struct control_client *c);
/* No call may start any more; those under way are ended and waited for. NULL is fine. */
void control_client_close(struct control_client *c);
/* One request, one reply; any thread, several at a time. The reply's message is put into rep
 * (initialised by the caller, reset here); the status is returned. With several masters a call
 * goes on with the next one when one does not answer or does not lead. DFS_ETIMEOUT after the
 * deadline, or DFS_ENOTLEADER when no master that answered was the leader; DFS_EMALFORMED,
 * DFS_ECHECKSUM for a bad answer, DFS_ETOOBIG for a message or reply over a limit (rep's included). */
int control_call(struct control_client *c, uint16_t type, struct slice msg, struct wire_out *rep,
                 uint64_t deadline_ms);

#endif
