#include "cluster/node/raft_boot.h"

#include <netdb.h>
#include <raft/uv.h>
#include <unistd.h>

#include "cluster/base/addr.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/node/raft_files.h"

#define IN_FLIGHT 4 /* entries that can be under way at a crash */

/* "host:port" as libraft takes it: an IPv4 address in numbers. */
int raft_boot_resolve(const char *address, char *ret, size_t cap, struct why *why)
{
    struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found = NULL;
    char host[NI_MAXHOST];
    struct addr a;
    int rc, err = addr_parse(address, &a, why);

    if (err != DFS_OK) {
        return err;
    }
    rc = getaddrinfo(a.host, NULL, &hints, &found);
    rc = rc != 0 ? rc
                 : getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof(host), NULL, 0,
                               NI_NUMERICHOST);
    if (found != NULL) {
        freeaddrinfo(found);
    }
    if (rc != 0) {
        return why_set(why, DFS_EINVAL, "%s: %s", address, gai_strerror(rc));
    }
    snprintf(ret, cap, "%s:%u", host, a.port);
    return DFS_OK;
}

/* libraft reports a port in use as an I/O error without words. */
int raft_boot_probe(const char *numeric, struct why *why)
{
    struct sockaddr_in sin;
    struct addr a;
    int on = 1, err = addr_parse(numeric, &a, why);
    int fd = err == DFS_OK ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;

    if (err != DFS_OK) {
        return err;
    }
    uv_ip4_addr(a.host, a.port, &sin);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0) {
        err = why_set(why, errno == EADDRINUSE ? DFS_EBUSY : err_from_errno(errno), "%s: %s",
                      numeric, strerror(errno));
    }
    io_close(fd);
    return err;
}

int raft_boot_failed(const char *dir, int rc, const char *text, struct why *why)
{
    int err = rc == RAFT_IOERR ? DFS_EIO : rc == RAFT_NOSPACE ? DFS_ENOSPC : DFS_EDAMAGED;

    if (rc == RAFT_NAMETOOLONG) {
        return why_set(why, DFS_ENAMETOOLONG, "the log's path is too long (%zu bytes): %.200s...",
                       strlen(dir), dir);
    }
    return why_set(why, err, "%s: the log cannot be opened: %s", dir,
                   text[0] != '\0' ? text : raft_strerror(rc));
}

/* raft->data belongs to the guard, which is still asked while closing. */
static _Thread_local bool raft_closed;

static void on_raft_closed(struct raft *raft)
{
    (void)raft;
    raft_closed = true;
}

void raft_boot_close(struct raft *raft, uv_loop_t *loop)
{
    raft_closed = false;
    raft_close(raft, on_raft_closed);
    while (!raft_closed) {
        uv_run(loop, UV_RUN_ONCE);
    }
}

/* The first start makes the log under another name, so that a crash leaves none or a whole one. */
static int bootstrap(const char *dir, uint64_t id, const char *address, struct why *why)
{
    char *fresh = x_printf("%s.new", dir);
    struct raft_uv_transport transport = { 0 };
    struct raft_configuration voters;
    struct raft_io io = { 0 };
    struct raft_fsm fsm = { .version = 1 };
    struct raft raft;
    uv_loop_t loop;
    int rc, err = io_mkdir_p(fresh, 0700, why);

    uv_loop_init(&loop);
    if (err != DFS_OK) {
        goto out;
    }
    rc = raft_uv_tcp_init(&transport, &loop);
    rc = rc != 0 ? rc : raft_uv_init(&io, &loop, fresh, &transport);
    rc = rc != 0 ? rc : raft_init(&raft, &io, &fsm, id, address);
    if (rc != 0) {
        err = raft_boot_failed(fresh, rc, io.errmsg, why);
        goto out;
    }
    raft_configuration_init(&voters);
    rc = raft_configuration_add(&voters, id, address, RAFT_VOTER);
    rc = rc != 0 ? rc : raft_bootstrap(&raft, &voters);
    if (rc != 0 && rc != RAFT_CANTBOOTSTRAP) {
        err = raft_boot_failed(fresh, rc, io.errmsg, why);
    }
    raft_configuration_close(&voters);
    raft_boot_close(&raft, &loop);
    raft_uv_close(&io);
    raft_uv_tcp_close(&transport);
    if (err == DFS_OK && FAULT("raft.bootstrap.rename") != 0) {
        err = DFS_EIO;
    }
    if (err == DFS_OK && rename(fresh, dir) != 0) {
        err = why_set(why, err_from_errno(errno), "%s: %s", dir, strerror(errno));
    }
    err = err != DFS_OK ? err : io_sync_parent(dir, why);
out:
    uv_loop_close(&loop);
    free(fresh);
    return err;
}

/* What an interrupted first start left. */
static int discard_fresh(const char *dir, struct why *why)
{
    static const char *const names[] = { "metadata1", "metadata2",
                                         "0000000000000001-0000000000000001" };
    char *fresh = x_printf("%s.new", dir);
    int err = DFS_OK;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *path = x_printf("%s/%s", fresh, names[i]);

        unlink(path);
        free(path);
    }
    if (rmdir(fresh) != 0 && errno != ENOENT) {
        err = why_set(why, err_from_errno(errno), "%s: %s", fresh, strerror(errno));
    }
    free(fresh);
    return err;
}

int raft_boot_prepare(const char *dir, uint64_t id, const char *address, bool exists,
                      struct why *why)
{
    int err;

    if (access(dir, F_OK) == 0) {
        return raft_files_check(dir, IN_FLIGHT, why);
    }
    if (exists) {
        return why_set(why, DFS_EDAMAGED, "%s: the log is missing", dir);
    }
    err = discard_fresh(dir, why);
    return err != DFS_OK ? err : bootstrap(dir, id, address, why);
}
