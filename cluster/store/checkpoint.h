/* The side file of a kv directory: which snapshot of data.mdb is durable, and its meta page.
 *
 *   "DFSKVCP1", u32 page bytes, u64 transaction, u64 bytes of data.mdb, bytes meta page, u32 CRC32C
 *
 * Replaced as a whole (temporary file, fsync, rename, fsync of the directory). Any thread.
 */
#ifndef DFS_CLUSTER_STORE_CHECKPOINT_H
#define DFS_CLUSTER_STORE_CHECKPOINT_H

#include "cluster/base/base.h"

#include <lmdb.h>

struct checkpoint {
    uint32_t page_bytes;
    uint64_t txnid;
    uint64_t file_bytes; /* data.mdb was this long; its pages are inside */
    uint8_t *meta;       /* owned: page_bytes */
};

void checkpoint_fini(struct checkpoint *c);
/* The newest committed snapshot of an open environment; no write transaction may be running. data is
 * the path of data.mdb. */
int checkpoint_take(struct checkpoint *c, MDB_env *env, const char *data, struct why *why);
int checkpoint_write(const struct checkpoint *c, const char *path, struct why *why);
/* From the file's bytes. DFS_EDAMAGED. */
int checkpoint_decode(struct slice file, struct checkpoint *ret);
/* DFS_EDAMAGED when the file is missing, cut or its sum is wrong. */
int checkpoint_read(struct checkpoint *ret, const char *path, struct why *why);
/* Makes this snapshot the newest one of a closed data.mdb. DFS_EDAMAGED when that is missing or too
 * short to hold it. */
int checkpoint_restore(const struct checkpoint *c, const char *data, struct why *why);

#endif
