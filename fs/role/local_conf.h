/* DIR/dfs.conf of a local cluster: what its processes share and other commands read.
 *
 * The text is kept as the lines a person may have edited: setting a key replaces its lines and
 * leaves everything else, comments too, where it is.
 */
#ifndef DFS_FS_ROLE_LOCAL_CONF_H
#define DFS_FS_ROLE_LOCAL_CONF_H

#include "cluster/base/base.h"

#include "cluster/base/conf.h"

#define LOCAL_CONF_LINES 1024

struct local_conf {
    char *path; /* owned */
    char *old;  /* the file's text before this call, owned; NULL: there was none */
    char *lines[LOCAL_CONF_LINES];
    size_t count;
};

/* Reads path if it exists. */
int local_conf_load(struct local_conf *c, const char *path, struct why *why);
void local_conf_fini(struct local_conf *c);
bool local_conf_existed(const struct local_conf *c);

/* Errors: DFS_ECONFIG for keys that each process gets for itself, and for too many lines. */
int local_conf_set(struct local_conf *c, const char *key, const char *value, struct why *why);
/* "key=value", checked against the table of keys. */
int local_conf_assign(struct local_conf *c, const char *assignment, struct why *why);
/* Every key of another file. */
int local_conf_merge(struct local_conf *c, const char *path, struct why *why);
/* Sets masters, which local_conf_assign() refuses. */
int local_conf_set_masters(struct local_conf *c, const char *addr, struct why *why);

int local_conf_write(const struct local_conf *c, struct why *why);
/* Puts back what was there before local_conf_write(). */
void local_conf_restore(const struct local_conf *c);

/* The first of `count` consecutive loopback ports on which nobody listens, outside of the range that
 * the system gives to outgoing connections, so that they stay free while the process is down.
 * 0: none found. */
uint16_t local_free_ports(unsigned count);

#endif
