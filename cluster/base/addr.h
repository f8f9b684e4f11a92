/* Network addresses as text: "host:port", "127.0.0.1:9600", "[::1]:9600". */
#ifndef DFS_CLUSTER_BASE_ADDR_H
#define DFS_CLUSTER_BASE_ADDR_H

#include "cluster/base/base.h"

#define ADDR_TEXT 300 /* bytes for any address as text, NUL included */

/* What a master listens on: its port for clients and the three behind it. */
enum master_port { MASTER_CLIENTS = 0, MASTER_CONTROL = 1, MASTER_RAFT = 2, MASTER_METRICS = 3 };

struct addr {
    char host[256]; /* name or number, without brackets */
    uint16_t port;
};

/* Errors: DFS_EINVAL with why. Port 0 is allowed: for listening it means any. */
int addr_parse(const char *text, struct addr *ret, struct why *why);
/* "host:port", with brackets where the host has colons. Returns buf. */
const char *addr_format(const struct addr *a, char buf[ADDR_TEXT]);

/* The masters of a list "a:9600,b:9600" with their port for one purpose: "a:9601,b:9601".
 * *ret is to be freed. Errors: DFS_EINVAL with why: empty, not an address, port 0, too many. */
int addr_masters(const char *list, enum master_port which, char **ret, struct why *why);
/* The n-th of a comma separated list into buf; NULL behind the last. Blanks are cut off. */
const char *addr_nth(const char *list, int n, char buf[ADDR_TEXT]);

#endif
