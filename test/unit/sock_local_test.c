#include "cluster/net/sock_local.h"

#include <netinet/in.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/net/conn.h"
#include "cluster/net/sock.h"

#include "test/unit/tap.h"

#define SOON (clock_mono_ms() + 3000)

struct listener {
    int tcp;
    int local; /* -1: none */
    uint16_t port;
};

static struct listener listen_at(const char *host, bool local)
{
    struct listener l = { .tcp = -1, .local = -1 };
    char addr[64];

    snprintf(addr, sizeof(addr), "%s:0", host);
    CHECK_INT(conn_listen(addr, &l.tcp, &l.port, NULL), 0);
    if (local) {
        l.local = sock_local_listen(l.tcp);
        CHECK(l.local >= 0);
    }
    return l;
}

static void stop(struct listener *l)
{
    close(l->tcp);
    if (l->local >= 0) {
        close(l->local);
    }
}

/* Connects and tells over what; the bytes that are sent must arrive at the listener meant. */
static bool is_local(const char *host, const struct listener *l)
{
    char addr[64];
    int fd = -1;
    bool local;

    snprintf(addr, sizeof(addr), "%s:%u", host, l->port);
    CHECK_INT(sock_connect(addr, SOON, &fd, NULL), 0);
    local = sock_is_local(fd);

    int peer = accept4(local ? l->local : l->tcp, NULL, NULL, SOCK_CLOEXEC);
    char byte = 0;

    CHECK(peer >= 0);
    CHECK_INT(send(fd, "x", 1, 0), 1);
    CHECK_INT(recv(peer, &byte, 1, 0), 1);
    CHECK_INT(byte, 'x');
    close(peer);
    close(fd);
    return local;
}

static void test_same_address(void)
{
    struct listener l = listen_at("127.0.0.1", true);

    CHECK(is_local("127.0.0.1", &l));
    stop(&l);
}

static void test_no_socket(void)
{
    struct listener l = listen_at("127.0.0.1", false);

    CHECK(!is_local("127.0.0.1", &l));
    stop(&l);
}

static void test_all_addresses(void)
{
    struct listener l = listen_at("0.0.0.0", true);
    struct sockaddr_in there = { .sin_family = AF_INET,
                                 .sin_port = htons(l.port),
                                 .sin_addr.s_addr = htonl(0xc0000201) }; /* 192.0.2.1: nobody's */

    CHECK(is_local("127.0.0.1", &l));
    CHECK_INT(sock_local_connect((struct sockaddr *)&there, sizeof(there)), -1);
    stop(&l);
}

static void test_other_port(void)
{
    struct listener a = listen_at("127.0.0.1", true);
    struct listener b = listen_at("127.0.0.1", true);

    CHECK(is_local("127.0.0.1", &a));
    CHECK(is_local("127.0.0.1", &b));
    stop(&a);
    CHECK(is_local("127.0.0.1", &b));
    stop(&b);
}

/* A full backlog must not look like a server that has gone. */
static void test_full_backlog(void)
{
    struct listener l = listen_at("127.0.0.1", true);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(l.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int waiting[1024];
    size_t n = 0;
    int fd = -1;
    char addr[64];

    CHECK_INT(listen(l.local, 1), 0);
    while (n < ARRAY_LEN(waiting)) {
        waiting[n] = sock_local_connect((struct sockaddr *)&at, sizeof(at));
        if (waiting[n] < 0) {
            break;
        }
        n++;
    }
    CHECK(n > 0 && n < ARRAY_LEN(waiting));
    snprintf(addr, sizeof(addr), "127.0.0.1:%u", l.port);
    CHECK_INT(sock_connect(addr, SOON, &fd, NULL), 0);
    CHECK(!sock_is_local(fd));
    close(fd);
    while (n > 0) {
        close(waiting[--n]);
    }
    stop(&l);
}

/* Somebody else has taken the name: nobody falls for it. */
static void test_stranger(void)
{
    struct listener l = listen_at("127.0.0.1", false);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int said[2];
    int keep[2];
    char byte;
    pid_t pid;

    if (geteuid() != 0) {
        stop(&l);
        return; /* needs another user */
    }
    snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "dfs/127.0.0.1:%u", l.port);
    CHECK(pipe(said) == 0 && pipe(keep) == 0);
    pid = fork();
    if (pid == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        socklen_t len = (socklen_t)(sizeof(sa_family_t) + 1 + strlen(name.sun_path + 1));
        bool up = setuid(65534) == 0 && bind(fd, (struct sockaddr *)&name, len) == 0 &&
                  listen(fd, 5) == 0;

        close(keep[1]);
        if (write(said[1], up ? "y" : "n", 1) != 1 || read(keep[0], &byte, 1) != 0) {
            _exit(1);
        }
        _exit(0);
    }
    close(keep[0]);
    CHECK_INT(read(said[0], &byte, 1), 1);
    CHECK_INT(byte, 'y');
    CHECK(!is_local("127.0.0.1", &l));
    close(keep[1]);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    close(said[0]);
    close(said[1]);
    stop(&l);
}

static void test_names(void)
{
    struct listener l = listen_at("127.0.0.1", true);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(l.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    char name[SOCK_NAME_BYTES];
    char want[SOCK_NAME_BYTES];
    int fd = sock_local_connect((struct sockaddr *)&at, sizeof(at));

    snprintf(want, sizeof(want), "process %d", getpid());
    sock_peer_name(fd, name);
    CHECK_STR(name, want);
    close(fd);
    stop(&l);
}

int main(void)
{
    tap_run("a server on this machine is reached by its unix socket", test_same_address);
    tap_run("without one TCP does", test_no_socket);
    tap_run("a listener on all addresses answers for those of this machine only",
            test_all_addresses);
    tap_run("each port has its own", test_other_port);
    tap_run("a full backlog leaves TCP", test_full_backlog);
    tap_run("a socket of another user is not trusted", test_stranger);
    tap_run("the peer is named by its process", test_names);
    return tap_done();
}
