#include "cluster/net/sock_local.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 512

/* The name as text, without the NUL in front of it. any: of a listener on all addresses. */
static bool format(const struct sockaddr *at, bool any, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "any";
    const void *ip;
    uint16_t port;

    if (at->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)at;

        any = any || in->sin_addr.s_addr == htonl(INADDR_ANY);
        ip = &in->sin_addr;
        port = in->sin_port;
    } else if (at->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)at;

        any = any || IN6_IS_ADDR_UNSPECIFIED(&in->sin6_addr);
        ip = &in->sin6_addr;
        port = in->sin6_port;
    } else {
        return false;
    }
    if (!any && inet_ntop(at->sa_family, ip, host, sizeof(host)) == NULL) {
        return false;
    }
    snprintf(text, size, "dfs/%s:%u", host, ntohs(port));
    return true;
}

static socklen_t name_of(const struct sockaddr *at, bool any, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!format(at, any, ret->sun_path + 1, sizeof(ret->sun_path) - 1)) {
        return 0;
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(ret->sun_path + 1));
}

static int new_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int sock_local_listen(int tcp_fd)
{
    struct sockaddr_storage at = { 0 };
    socklen_t len = sizeof(at);
    struct sockaddr_un name;
    int fd;

    if (getsockname(tcp_fd, (struct sockaddr *)&at, &len) != 0) {
        return -1;
    }
    len = name_of((const struct sockaddr *)&at, false, &name);
    fd = len != 0 ? new_socket() : -1;
    if (fd >= 0 &&
        (bind(fd, (const struct sockaddr *)&name, len) != 0 || listen(fd, BACKLOG) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Is this an address of this machine? Then a socket can be bound to it. */
static bool is_ours(const struct sockaddr *to, socklen_t len)
{
    struct sockaddr_storage at = { 0 };
    int fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ours;

    memcpy(&at, to, MIN((size_t)len, sizeof(at)));
    if (to->sa_family == AF_INET) {
        ((struct sockaddr_in *)(void *)&at)->sin_port = 0;
    } else {
        ((struct sockaddr_in6 *)(void *)&at)->sin6_port = 0;
    }
    ours = fd >= 0 && bind(fd, (const struct sockaddr *)&at, len) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ours;
}

bool sock_is_trusted(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static int connect_name(const struct sockaddr *to, bool any)
{
    struct sockaddr_un name;
    socklen_t len = name_of(to, any, &name);
    int fd = len != 0 ? new_socket() : -1;

    /* A full backlog is an answer, too: TCP then waits for its turn. */
    if (fd >= 0 &&
        (connect(fd, (const struct sockaddr *)&name, len) != 0 || !sock_is_trusted(fd))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int sock_local_connect(const struct sockaddr *to, socklen_t len)
{
    int fd = connect_name(to, false);

    if (fd < 0) {
        fd = connect_name(to, true);
        if (fd >= 0 && !is_ours(to, len)) {
            close(fd);
            fd = -1;
        }
    }
    return fd;
}

bool sock_is_local(int fd)
{
    int domain = 0;
    socklen_t len = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}
