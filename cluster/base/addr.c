#include "cluster/base/addr.h"

#include "cluster/base/err.h"
#include "cluster/base/limits.h"

static int parse_port(const char *text, uint16_t *ret)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || end - text > 5 || v > 65535) {
        return DFS_EINVAL;
    }
    *ret = (uint16_t)v;
    return 0;
}

/* A host of letters, digits, dots, dashes; colons and a zone only within brackets. */
static bool host_ok(const char *p, size_t n, bool brackets)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

    if (n == 0 || n >= sizeof(((struct addr *)0)->host)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        bool ok = memchr(allowed, p[i], sizeof(allowed) - 1) != NULL ||
                  (brackets && (p[i] == ':' || p[i] == '%'));

        if (!ok) {
            return false;
        }
    }
    return true;
}

int addr_parse(const char *text, struct addr *ret, struct why *why)
{
    bool brackets = text[0] == '[';
    const char *host = brackets ? text + 1 : text;
    const char *end = brackets ? strchr(text, ']') : strrchr(text, ':');
    const char *colon = brackets && end != NULL ? end + 1 : end;
    struct addr a = { 0 };

    if (end == NULL || *colon != ':' || !host_ok(host, (size_t)(end - host), brackets) ||
        parse_port(colon + 1, &a.port) != 0) {
        return why_set(why, DFS_EINVAL, "\"%s\" is not an address; expected host:port", text);
    }
    memcpy(a.host, host, (size_t)(end - host));
    *ret = a;
    return 0;
}

const char *addr_format(const struct addr *a, char buf[ADDR_TEXT])
{
    bool brackets = strchr(a->host, ':') != NULL;

    snprintf(buf, ADDR_TEXT, "%s%s%s:%u", brackets ? "[" : "", a->host, brackets ? "]" : "",
             a->port);
    return buf;
}

const char *addr_nth(const char *list, int n, char buf[ADDR_TEXT])
{
    const char *p = list;
    size_t len;

    for (int i = 0; i < n; i++) {
        p = strchr(p, ',');
        if (p == NULL) {
            return NULL;
        }
        p++;
    }
    p += strspn(p, " \t");
    len = strcspn(p, ",");
    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t')) {
        len--;
    }
    len = MIN(len, (size_t)ADDR_TEXT - 1);
    memcpy(buf, p, len);
    buf[len] = '\0';
    return buf;
}

int addr_masters(const char *list, enum master_port which, char **ret, struct why *why)
{
    char out[(LIMIT_MASTERS + 1) * ADDR_TEXT];
    char one[ADDR_TEXT];
    size_t len = 0;
    int n;

    for (n = 0; addr_nth(list, n, one) != NULL; n++) {
        struct addr a;
        int err = addr_parse(one, &a, why);

        if (err != 0) {
            return err;
        }
        if (a.port == 0 || a.port > 65535 - (int)MASTER_RAFT) {
            return why_set(why, DFS_EINVAL, "%s: a master's port is from 1 to %d", one,
                           65535 - (int)MASTER_RAFT);
        }
        if (n == LIMIT_MASTERS) {
            return why_set(why, DFS_EINVAL, "more than %d masters", LIMIT_MASTERS);
        }
        a.port = (uint16_t)(a.port + (int)which);
        addr_format(&a, one);
        len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%s", n > 0 ? "," : "", one);
    }
    *ret = x_strdup(out);
    return 0;
}
