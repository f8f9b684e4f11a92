/* What mount(8), /etc/fstab and people write: "MASTER[,MASTER]:/path" and "-o ro,noatime,...". */
#ifndef DFS_FS_MOUNT_OPTIONS_H
#define DFS_FS_MOUNT_OPTIONS_H

#include "cluster/base/conf.h"

/* "host[:port][,host[:port]]:/path": *ret_masters has a port everywhere (9600 where none is
 * written), *ret_path is absolute without a slash at its end. Both are to be freed.
 * DFS_EINVAL with why. */
int options_source(const char *source, char **ret_masters, char **ret_path, struct why *why);

struct options {
    char *conf_file; /* conf=FILE, or NULL */
    char *log;       /* log=FILE|syslog|stderr, or NULL */
    char *pid_file;  /* pid_file=FILE, or NULL */
    char *kernel;    /* what libfuse hands to the kernel, comma separated */
    char *sets[32];  /* "client.cache=1GiB": assignments for conf_set() */
    size_t set_count;
    bool remount; /* what is mounted already gets the kernel's options */
    bool nonempty;
    bool allow_other;
    bool no_allow_other;
    bool root_squash;
    uint32_t anon_uid; /* anonuid=, anongid=; ID_NOBODY where not given */
    uint32_t anon_gid;
};

#define ID_NOBODY 65534u
#define OPTIONS_INIT                                 \
    {                                                \
        .anon_uid = ID_NOBODY, .anon_gid = ID_NOBODY \
    }

/* Takes apart the text behind one -o; may be called for several. What only mount(8) cares about
 * (_netdev, noauto, user, x-...) is passed over; with sloppy, or behind remount, so is everything unknown:
 * mount(8) adds there what the kernel's table says.
 * DFS_EINVAL with why. */
int options_add(struct options *o, const char *text, bool sloppy, struct why *why);
void options_fini(struct options *o); /* copes with a zeroed one */

#endif
