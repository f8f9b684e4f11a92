/* The short way to a server on this machine: beside each TCP listener stands a unix socket whose
 * name is the listener's address, so that nobody has to be told of it. On one machine it takes a
 * third of the time and of the CPU of TCP over loopback (docs/adr/0016).
 *
 * The name is in Linux's abstract namespace: "dfs/127.0.0.1:9600", or "dfs/any:9600" of a listener on
 * all addresses. It goes with the process, is the network namespace's own (as the port is), and no
 * file has to be removed.
 */
#ifndef DFS_CLUSTER_NET_SOCK_LOCAL_H
#define DFS_CLUSTER_NET_SOCK_LOCAL_H

#include "cluster/base/base.h"

#include <sys/socket.h>

/* The unix socket beside a bound TCP socket; non-blocking, listening. -1: there is none, which costs
 * time only. */
int sock_local_listen(int tcp_fd);

/* A connected, non-blocking unix socket of the server at this address; -1: it is not on this machine,
 * or cannot be reached so. A listener of another user than root and this process's is not trusted. */
int sock_local_connect(const struct sockaddr *to, socklen_t len);

/* True for a unix socket. */
bool sock_is_local(int fd);
/* True when the process at the other end of a unix socket is root's or of this process's user. */
bool sock_is_trusted(int fd);

#endif
