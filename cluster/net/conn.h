/* A blocking connection that one thread uses: frames out, frames in, with deadlines.
 *
 * This is the client's end of every stream (client -> master, client -> block server, block server
 * -> next in the chain) and the block server's end of an accepted connection. The thread that calls
 * does the work itself; nothing is queued or handed over.
 *
 * Deadlines are clock_mono_ms() times. After any error but DFS_ETIMEOUT before the first byte and
 * DFS_ETOOBIG of conn_send the stream is out of step: the only thing left is conn_close().
 *
 * Errors are DFS_ECONN, DFS_ETIMEOUT and what each function says.
 */
#ifndef DFS_CLUSTER_NET_CONN_H
#define DFS_CLUSTER_NET_CONN_H

#include "cluster/base/base.h"

#include "cluster/wire/frame.h"

struct conn;

/* Connects to "host:port" (TCP_NODELAY set). Errors: DFS_ECONN, DFS_ETIMEOUT, DFS_EINVAL (address). */
int conn_open(const char *addr, uint64_t deadline_ms, struct conn **ret, struct why *why);
/* The same, then exchanges hello frames. cluster may be empty. Also: DFS_EVERSION,
 * DFS_EWRONGCLUSTER. ret_node (may be NULL): the block server's id. */
int conn_open_hello(const char *addr, uint8_t purpose, struct slice cluster, uint64_t deadline_ms,
                    struct conn **ret, uint32_t *ret_node, struct why *why);
/* Binds and listens; the descriptor is non-blocking, accept4() it after poll(). "host:0" picks a
 * free port. Errors: DFS_EBUSY (port in use), DFS_EINVAL. */
int conn_listen(const char *addr, int *ret_fd, uint16_t *ret_port, struct why *why);
/* Takes over an accepted descriptor. */
struct conn *conn_of_fd(int fd);
/* The accepting end's part of the hello: receives it, answers (refusals too) and returns the
 * verdict: DFS_OK, DFS_EVERSION, DFS_EWRONGCLUSTER, DFS_EINVAL (another purpose), DFS_EMALFORMED,
 * DFS_ECONN, DFS_ETIMEOUT. cluster may be empty while this server does not know it. */
int conn_accept_hello(struct conn *c, uint8_t purpose, struct slice cluster, uint32_t node,
                      uint64_t deadline_ms, struct why *why);
void conn_close(struct conn *c);   /* NULL is fine */
int conn_fd(const struct conn *c); /* for poll() */
/* The peer, with the reason once a call has failed: "127.0.0.1:4000: Connection reset by peer". */
const char *conn_peer(const struct conn *c);
/* The stream is out of step or ended: every further call returns DFS_ECONN. Tells a failure of
 * the connection from an error status that the peer sent. */
bool conn_broken(const struct conn *c);

#define CONN_PIECES_MAX 64 /* of one frame's data */

/* Sends one frame: header (lengths and sum are filled in), message, data (pieces may be NULL/0).
 * One sendmsg in the common case. Errors: DFS_ECONN, DFS_ETIMEOUT, DFS_ETOOBIG (over LIMIT_MSG or
 * LIMIT_DATA; nothing was sent). After DFS_ECONN the answers that the peer sent before it closed,
 * the reason among them, can still be received. */
struct iovec;
int conn_send(struct conn *c, const struct frame *f, struct slice msg, const struct iovec *data,
              int data_count, uint64_t deadline_ms);

/* A frame without data, and a descriptor with it, over a unix socket; fd stays the caller's. */
int conn_send_fd(struct conn *c, const struct frame *f, struct slice msg, int fd,
                 uint64_t deadline_ms);

/* Receives a frame's header and message. The message is borrowed from the connection until the
 * next receive. When ret->data_len is not 0 the caller must take the data with conn_recv_data()
 * before anything else. Errors: DFS_ECONN (also at a clean end), DFS_ETIMEOUT, DFS_EMALFORMED,
 * DFS_ETOOBIG, DFS_ECHECKSUM. */
int conn_recv(struct conn *c, struct frame *ret, struct slice *ret_msg, uint64_t deadline_ms);
/* Exactly n bytes of the data part into p; may be called several times. */
int conn_recv_data(struct conn *c, void *p, size_t n, uint64_t deadline_ms);

/* Send a request and wait for its reply (same request id); a status in the reply is returned as
 * the error, with *ret_msg set all the same. After DFS_ETIMEOUT on a connection that is not broken
 * the next call goes on: the late reply is passed over. Other errors: as conn_send, conn_recv. */
int conn_call(struct conn *c, uint16_t type, struct slice msg, struct slice *ret_msg,
              uint64_t deadline_ms);
/* The same where a descriptor may come with the reply: *ret_fd is the caller's then, else -1. */
int conn_call_fd(struct conn *c, uint16_t type, struct slice msg, struct slice *ret_msg,
                 int *ret_fd, uint64_t deadline_ms);
/* From now on a descriptor may come with what is received; the last one is the caller's, -1: none. */
void conn_expect_fd(struct conn *c);
int conn_take_fd(struct conn *c);
/* From now on a wait inside a call asks in_vain each time it has lasted so long; true ends the call as
 * its deadline does. */
void conn_doubt(struct conn *c, uint64_t after_ms, bool (*in_vain)(void *arg), void *arg);
/* Gives memory back that only a long message needs. What was received last is gone. */
void conn_slim(struct conn *c);
/* Is there something to receive (or an end of stream) at once? */
bool conn_readable(const struct conn *c);

#endif
