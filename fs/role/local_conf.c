#include "fs/role/local_conf.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define CONF_BYTES (256 * 1024) /* largest dfs.conf that is read here */
#define PORT_FIRST 10000
#define PORT_TRIES 200

/* The length of the key that a line sets, 0 for comments and blank lines. */
static size_t line_key(const char *line, const char **ret_key)
{
    const char *key = line + strspn(line, " \t");
    size_t len = strcspn(key, " \t=#");

    *ret_key = key;
    return *key == '#' ? 0 : len;
}

static bool line_sets(const char *line, const char *key)
{
    const char *found;
    size_t len = line_key(line, &found);

    return len == strlen(key) && memcmp(found, key, len) == 0;
}

static int add_line(struct local_conf *c, char *line, struct why *why)
{
    if (c->count == LOCAL_CONF_LINES) {
        free(line);
        return why_set(why, DFS_ECONFIG, "%s: more than %d lines", c->path, LOCAL_CONF_LINES);
    }
    c->lines[c->count++] = line;
    return 0;
}

static void drop_key(struct local_conf *c, const char *key)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->count; i++) {
        if (line_sets(c->lines[i], key)) {
            free(c->lines[i]);
        } else {
            c->lines[kept++] = c->lines[i];
        }
    }
    c->count = kept;
}

int local_conf_load(struct local_conf *c, const char *path, struct why *why)
{
    int err;

    memset(c, 0, sizeof(*c));
    c->path = x_strdup(path);
    err = io_read_file(path, CONF_BYTES, &c->old, NULL, why);
    if (err == DFS_ENOENT) {
        return add_line(c,
                        x_strdup("# Written by dfs local; keys may be changed, they count from "
                                 "the next start of a process."),
                        why);
    }
    for (const char *p = c->old; err == 0 && *p != '\0';) {
        size_t len = strcspn(p, "\n");

        err = add_line(c, x_strndup(p, len), why);
        p += len + (p[len] == '\n');
    }
    return err;
}

void local_conf_fini(struct local_conf *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->lines[i]);
    }
    free(c->path);
    free(c->old);
    memset(c, 0, sizeof(*c));
}

bool local_conf_existed(const struct local_conf *c)
{
    return c->old != NULL;
}

/* Keys that dfs local chooses for each process. */
static int refuse_own_keys(const char *key, struct why *why)
{
    static const char *const own[] = { "masters",      "master.listen", "master.data",
                                       "block.listen", "block.data",    "block.host",
                                       "block.volumes" };

    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        if (strcmp(key, own[i]) == 0) {
            return why_set(why, DFS_ECONFIG, "%s: dfs local chooses this for each process%s", key,
                           strcmp(key, "block.volumes") == 0 ? "; use --volume" : "");
        }
    }
    return 0;
}

int local_conf_set(struct local_conf *c, const char *key, const char *value, struct why *why)
{
    int err = refuse_own_keys(key, why);

    if (err != 0) {
        return err;
    }
    drop_key(c, key);
    return add_line(c, x_printf("%s = %s", key, value), why);
}

int local_conf_set_masters(struct local_conf *c, const char *addr, struct why *why)
{
    drop_key(c, "masters");
    return add_line(c, x_printf("masters = %s", addr), why);
}

int local_conf_assign(struct local_conf *c, const char *assignment, struct why *why)
{
    struct conf *check = conf_new();
    const char *eq = strchr(assignment, '=');
    int err = conf_set(check, assignment, why);

    conf_free(check);
    if (err == 0 && eq != NULL && (strstr(eq, " #") != NULL || strstr(eq, "=#") != NULL)) {
        return why_set(why, DFS_ECONFIG, "--set %s: a # behind a blank begins a comment in %s",
                       assignment, c->path);
    }
    if (err == 0 && eq != NULL) {
        const char *name;
        char *key = x_strndup(assignment, line_key(assignment, &name));

        err = local_conf_set(c, key, eq + 1 + strspn(eq + 1, " \t"), why);
        free(key);
    }
    return err;
}

int local_conf_merge(struct local_conf *c, const char *path, struct why *why)
{
    struct conf *check = conf_new();
    struct local_conf from = { 0 };
    int err = conf_load(check, path, why);

    conf_free(check);
    if (err == 0) {
        err = local_conf_load(&from, path, why);
    }
    for (size_t i = 0; err == 0 && i < from.count; i++) {
        const char *name;
        size_t len = line_key(from.lines[i], &name);
        char *key = x_strndup(name, len);

        if (len > 0 && (err = refuse_own_keys(key, why)) == 0) {
            drop_key(c, key);
        }
        free(key);
    }
    for (size_t i = 0; err == 0 && i < from.count; i++) { /* twice the same key: both stay */
        const char *name;

        if (line_key(from.lines[i], &name) > 0) {
            err = add_line(c, x_strdup(from.lines[i]), why);
        }
    }
    local_conf_fini(&from);
    return err;
}

int local_conf_write(const struct local_conf *c, struct why *why)
{
    size_t len = 0;
    size_t at = 0;
    char *text;
    int err;

    for (size_t i = 0; i < c->count; i++) {
        len += strlen(c->lines[i]) + 1;
    }
    text = x_alloc(len + 1);
    for (size_t i = 0; i < c->count; i++) {
        at += (size_t)snprintf(text + at, len + 1 - at, "%s\n", c->lines[i]);
    }
    err = io_write_file(c->path, text, len, 0644, why);
    free(text);
    return err;
}

void local_conf_restore(const struct local_conf *c)
{
    if (c->old == NULL) {
        unlink(c->path);
    } else {
        (void)io_write_file(c->path, c->old, strlen(c->old), 0644, NULL);
    }
}

/* First port of the range for outgoing connections; ports below it are nobody's by accident. */
static unsigned ephemeral_first(void)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    char text[64] = "";
    unsigned long first = 0;

    if (f != NULL) {
        if (fgets(text, sizeof(text), f) != NULL) {
            first = strtoul(text, NULL, 10);
        }
        fclose(f);
    }
    return first > PORT_FIRST + 1000 && first <= 65535 ? (unsigned)first : 32768;
}

static bool port_free(unsigned port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
              bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 1) == 0;

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

uint16_t local_free_ports(unsigned count)
{
    unsigned span = ephemeral_first() - PORT_FIRST - count;

    for (int i = 0; i < PORT_TRIES; i++) {
        unsigned random = 0;
        unsigned first;
        unsigned n = 0;

        if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
            return 0;
        }
        first = PORT_FIRST + random % span;
        while (n < count && port_free(first + n)) {
            n++;
        }
        if (n == count) {
            return (uint16_t)first;
        }
    }
    return 0;
}
