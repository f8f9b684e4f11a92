/* Who a directory belongs to: small text files, replaced atomically.
 *
 *   <block.data>/dfs-server          <volume>/dfs-volume
 *     format 1                         format 1
 *     cluster 9f.. | -                 cluster 9f.. | -
 *     server 5c..                      server 5c..
 *     node 3                           volume 77..
 *     volume 77.. /disk1
 *
 * "-" stands for a cluster that is not known yet: before the first registration.
 */
#ifndef DFS_REPLICATION_STORE_IDENTITY_H
#define DFS_REPLICATION_STORE_IDENTITY_H

#include "cluster/base/base.h"

#include "cluster/base/limits.h"

#include "replication/msgs.h"

#define IDENTITY_VERSION 1
#define UUID_BYTES       16
#define UUID_TEXT        33 /* hex digits and a NUL */

struct identity_volume {
    uint8_t uuid[UUID_BYTES];
    char *path; /* owned */
};

struct identity {
    bool has_cluster;
    uint8_t cluster[CLUSTER_ID_BYTES];
    uint8_t server[UUID_BYTES];
    uint32_t node; /* 0: not registered yet */
    bool has_volume;
    uint8_t volume[UUID_BYTES];                    /* of a volume's own file */
    struct identity_volume volumes[LIMIT_VOLUMES]; /* of a server's file */
    size_t volume_count;
};

void identity_fini(struct identity *id);

/* Errors: DFS_ENOENT, DFS_EDAMAGED (says which line), DFS_EVERSION (a newer program wrote it). */
int identity_load(const char *path, struct identity *ret, struct why *why);
int identity_save(const char *path, const struct identity *id, struct why *why);
/* The text form; the file is untrusted. */
int identity_parse(const char *text, struct identity *ret, struct why *why);

const char *uuid_format(const uint8_t uuid[UUID_BYTES], char buf[UUID_TEXT]);

#endif
