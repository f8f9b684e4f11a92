#include "cluster/net/sock.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/base/addr.h"
#include "cluster/base/cancel.h"
#include "cluster/base/clock.h"
#include "cluster/base/fault.h"
#include "cluster/net/sock_local.h"

#define LOCAL_BUFFER MIB /* a packet at once: fewer wake-ups */

int sock_lookup(const char *text, bool listening, struct addrinfo **ret, struct why *why)
{
    struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (listening ? AI_PASSIVE : 0),
    };
    struct addr a;
    char port[8];
    int err = addr_parse(text, &a, why);
    int rc;

    if (err != 0) {
        return err;
    }
    snprintf(port, sizeof(port), "%u", a.port);
    rc = getaddrinfo(a.host, port, &hints, ret);
    if (rc == EAI_NONAME) {
        hints.ai_flags &= ~AI_NUMERICHOST;
        rc = getaddrinfo(a.host, port, &hints, ret);
    }
    if (rc != 0) {
        return why_set(why, DFS_ECONN, "%s: %s", text,
                       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    }
    return DFS_OK;
}

int sock_wait(int fd, short events, uint64_t deadline_ms)
{
    uint64_t since = clock_mono_ms();

    for (uint64_t now = since;; now = clock_mono_ms()) {
        struct pollfd p = { .fd = fd, .events = events };
        uint64_t until = cancel_slice(since, now, deadline_ms);
        uint64_t left = until > now ? until - now : 0;
        int n = poll(&p, 1, (int)MIN(left, (uint64_t)INT_MAX));

        if (n > 0) {
            return DFS_OK;
        }
        if (n < 0 && errno != EINTR) {
            return DFS_ECONN;
        }
        now = clock_mono_ms();
        if (cancel_now(since, now)) {
            errno = EINTR;
            return DFS_EINTR;
        }
        if (now >= deadline_ms) {
            errno = ETIMEDOUT;
            return DFS_ETIMEOUT;
        }
    }
}

void sock_tune(int fd)
{
    const int on = 1, idle_s = 60, interval_s = 15, count = 4, buffer = (int)LOCAL_BUFFER;

    /* Best effort: a socket without them works, slower or with a late notice. */
    if (sock_is_local(fd)) {
        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer)) != 0) {
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
        }
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

/* A connect to a free port of this host that the kernel also picked as the source connects to
 * itself; nobody is there. */
static bool is_own_peer(int fd)
{
    struct sockaddr_storage a = { 0 }, b = { 0 };
    socklen_t alen = sizeof(a), blen = sizeof(b);

    return getsockname(fd, (struct sockaddr *)&a, &alen) == 0 &&
           getpeername(fd, (struct sockaddr *)&b, &blen) == 0 && alen == blen &&
           memcmp(&a, &b, alen) == 0;
}

/* errno tells the reason when it is not DFS_OK. */
static int connect_one(const struct addrinfo *ai, uint64_t deadline_ms, int *ret_fd)
{
    int err = FAULT("net.sock.connect");
    int fd = err == 0 ? sock_local_connect(ai->ai_addr, ai->ai_addrlen) : -1;
    int so_error = 0;
    socklen_t len = sizeof(so_error);

    if (fd >= 0) {
        sock_tune(fd);
        *ret_fd = fd;
        return DFS_OK;
    }
    if (err == 0) {
        fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        err = fd >= 0 ? DFS_OK : DFS_ECONN;
    }
    if (err != 0) {
        goto out;
    }
    /* EINTR leaves the attempt going on, as EINPROGRESS does. */
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0) {
        if (errno != EINPROGRESS && errno != EINTR) {
            err = DFS_ECONN;
            goto out;
        }
        err = sock_wait(fd, POLLOUT, deadline_ms);
        if (err != 0) {
            goto out;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &so_error, &len) != 0 || so_error != 0) {
            errno = so_error != 0 ? so_error : errno;
            err = DFS_ECONN;
            goto out;
        }
    }
    if (is_own_peer(fd)) {
        errno = ECONNREFUSED;
        err = DFS_ECONN;
    }
out:
    if (err != 0) {
        int no = errno;

        if (fd >= 0) {
            close(fd);
        }
        errno = no;
        return err;
    }
    sock_tune(fd);
    *ret_fd = fd;
    return DFS_OK;
}

int sock_connect(const char *addr, uint64_t deadline_ms, int *ret_fd, struct why *why)
{
    struct addrinfo *list = NULL;
    uint64_t count = 0;
    int err = sock_lookup(addr, false, &list, why);

    if (err != 0) {
        return err;
    }
    for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
        count++;
    }
    /* An address that never answers must leave time for the next one. */
    for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next, count--) {
        uint64_t now = clock_mono_ms();
        uint64_t left = deadline_ms > now ? deadline_ms - now : 0;

        err = connect_one(ai, now + left / count, ret_fd);
        if (err == 0) {
            break;
        }
        why_set(why, err, "%s: %s", addr, strerror(errno));
    }
    freeaddrinfo(list);
    return err;
}

void sock_peer_name(int fd, char out[SOCK_NAME_BYTES])
{
    struct sockaddr_storage a = { 0 };
    socklen_t len = sizeof(a);
    char host[INET6_ADDRSTRLEN];
    struct ucred peer;
    socklen_t peer_len = sizeof(peer);
    char port[6];

    if (sock_is_local(fd) && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) == 0) {
        snprintf(out, SOCK_NAME_BYTES, "process %d", peer.pid);
        return;
    }
    if (getpeername(fd, (struct sockaddr *)&a, &len) != 0 ||
        getnameinfo((struct sockaddr *)&a, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(out, SOCK_NAME_BYTES, "?");
        return;
    }
    snprintf(out, SOCK_NAME_BYTES, a.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
