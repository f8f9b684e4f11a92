/* Sockets below conn.h and rpc_loop.h: addresses, connecting, options, waiting. TCP, and unix sockets
 * to servers on the same machine (sock_local.h).
 *
 * Every descriptor is non-blocking and close-on-exec. Deadlines are clock_mono_ms() times.
 */
#ifndef DFS_CLUSTER_NET_SOCK_H
#define DFS_CLUSTER_NET_SOCK_H

#include "cluster/base/base.h"

#include "cluster/base/err.h"

#define SOCK_NAME_BYTES 64 /* "[v6 address]:port" and its NUL */

/* Looks "host:port" up; the caller frees the list with freeaddrinfo(). Numbers need no resolver;
 * names may block in the resolver for longer than any deadline. listening: as for bind().
 * Errors: DFS_EINVAL (not an address), DFS_ECONN (unknown host). */
struct addrinfo;
int sock_lookup(const char *text, bool listening, struct addrinfo **ret, struct why *why);

/* A connected socket with sock_tune()'s options. Tries every address of the host within the
 * deadline. Errors: DFS_ECONN, DFS_ETIMEOUT, DFS_EINVAL. */
int sock_connect(const char *addr, uint64_t deadline_ms, int *ret_fd, struct why *why);

/* No delay for small frames; a peer whose machine died is noticed after about two minutes. */
void sock_tune(int fd);

/* Waits for poll events. Errors: DFS_ETIMEOUT, DFS_ECONN (poll itself failed). */
int sock_wait(int fd, short events, uint64_t deadline_ms);

/* The peer as text: its address, or "process 4711" on this machine; "?" when it has gone. */
void sock_peer_name(int fd, char out[SOCK_NAME_BYTES]);

#endif
