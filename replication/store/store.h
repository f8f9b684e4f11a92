/* The disk side of a block server: an index of replicas over several volumes.
 *
 * Any thread, unless a function says otherwise. Locks: the index is cut into stripes, each with one
 * lock that also guards the state of its replicas (replica.h); no lock is held during disk
 * operations. Order: a stripe's lock, then a syncer's, then the descriptor cache's or a volume's.
 */
#ifndef DFS_REPLICATION_STORE_STORE_H
#define DFS_REPLICATION_STORE_STORE_H

#include "replication/store/replica.h"

struct store;

struct store_conf {
    const char *dir;     /* of the server's identity */
    const char *volumes; /* comma separated, "[label]" before a path; empty: <dir>/volume */
    const char *label;   /* of volumes without their own; NULL or empty: none */
    uint64_t reserve;    /* bytes left free on each volume */
};

/* What the start-up scan found. */
struct store_found {
    uint64_t replicas, open, removed; /* removed: unfinished copies and creations */
    uint64_t cut, cut_bytes;          /* torn tails */
    uint64_t shortened;               /* sealed, but not as long as they should be */
    uint64_t damaged;                 /* not usable; kept on disk and reported as bad */
    uint64_t duplicates;              /* in two volumes; the longer one is used */
    uint64_t volumes_failed;
};

/* Opens everything and scans all volumes, one thread each. Nothing is changed on failure.
 * Errors: as volume_open(), and DFS_EBUSY, DFS_EDAMAGED, DFS_EVERSION for the identity. */
int store_open(const struct store_conf *conf, struct store **ret, struct store_found *ret_found,
               struct why *why);
/* Syncs what is not on disk yet, then closes. Nobody uses the store any more. NULL is fine. */
void store_close(struct store *s);

/* Who the server is; constant but for store_adopt(). */
const struct identity *store_identity(const struct store *s);
/* What the master said at registration: written to the identity and to every volume. To be called
 * before anything is written. DFS_EWRONGCLUSTER when the store belongs to another cluster. */
int store_adopt(struct store *s, const uint8_t cluster[CLUSTER_ID_BYTES], uint32_t node,
                struct why *why);

/* A reference. Errors: DFS_ENOBLOCK, DFS_EVOLUME. */
int store_get(struct store *s, uint64_t block, struct replica **ret);
void store_put(struct store *s, struct replica *r); /* NULL is fine */

/* Becomes the one writer of a replica, which is made if need be (offset 0): on a volume with this
 * label when there is one with room, else (or with an empty label) on any. Waits a moment for another
 * writer to leave. flags: WRITE_COPY. Errors: as rule_open(), DFS_ENOSPC, DFS_EVOLUME. */
int store_write_begin(struct store *s, uint64_t block, uint32_t offset, uint8_t flags,
                      struct slice label, struct replica **ret);
/* Leaves; takes the reference back. A copy that is not sealed is removed. */
void store_write_end(struct store *s, struct replica *r);

/* Removes a replica; DFS_OK when there is none. */
int store_delete(struct store *s, uint64_t block);

/* Its volume does not answer: operations on it would wait without end. */
bool store_hangs(struct store *s, uint64_t block);

/* A damaged copy was found: told to the master with the next heartbeat. */
void store_report_bad(struct store *s, uint64_t block, int status);
/* The same for a replica, which the volume's errors count once. One whose file is gone leaves the
 * index, unless it is being written. */
void store_damaged(struct store *s, struct replica *r, int status);
/* A check has found a sealed replica right: spare files of its block on other volumes go. */
void store_checked(struct store *s, struct replica *r);
/* The next block with such a file whose replica nobody has been asked to check; false: there is none. */
bool store_next_spare(struct store *s, uint64_t *ret_block);
/* Tells all that is known to be damaged again: to a master that may not know of it. */
void store_tell_damaged(struct store *s);

/* A volume (store_volumes' slot) has failed: what was on it counts as gone. As many replicas as the
 * list holds; the rest show by the digests. */
void store_report_lost(struct store *s, size_t slot);

/* ---- for the reports to the master ---- */

/* The greatest id of a block that is here in any state; 0: there is none. */
uint64_t store_last_block(struct store *s);

/* Bytes of one message's list are put by the caller; these fill arrays (to be freed). Replicas on
 * failed volumes and unfinished copies are left out. */
size_t store_digests(struct store *s, struct range_digest **ret); /* by range, ascending */
size_t store_range(struct store *s, uint64_t range, struct replica_info ret[RANGE_BLOCKS]);

struct store_volume {
    const char *path; /* lives as long as the store, as the label */
    const char *label;
    const uint8_t *uuid;
    uint64_t total, free_bytes, used, errors;
    uint32_t blocks;
    uint32_t write_us, sync_us, read_us; /* how long operations take of late; 0: there were none */
    uint32_t stuck_ms;                   /* age of the oldest operation that has not ended */
    enum volume_state state;
    size_t slot; /* of the store, for as long as it is open */
    struct why failure;
};
/* Replicas of a volume with ids from `from` on, ascending: an array (to be freed), its length, and
 * the bytes in all of them. */
size_t store_ids(struct store *s, const struct volume *v, uint64_t from, uint64_t **ret,
                 uint64_t *ret_bytes);
size_t store_volumes(struct store *s, struct store_volume ret[LIMIT_VOLUMES]);

/* ---- volumes that come and go ---- */

/* Takes a directory into use, for now and after the next start; "[label]/path" gives it a label.
 * Errors, each with a sentence: as volume_open(), DFS_EINVAL, DFS_EEXIST. */
int store_volume_add(struct store *s, const char *spec, struct why *why);
/* Empties a volume in the background by moving what is on it to the server's other volumes, then lets
 * it go; a failed one is let go at once. Again: fine. Errors: DFS_ENOENT, DFS_EINVAL (the only one),
 * DFS_ENOSPC (the others have no room for it). */
int store_volume_remove(struct store *s, const char *path, struct why *why);
/* Takes a removal back that is not at its end. DFS_EINVAL: there is none. */
int store_volume_keep(struct store *s, const char *path, struct why *why);

#define STORE_BAD_MAX 4096
/* Copies up to max entries out of the list; store_bad_told() drops the first n. */
size_t store_bad(struct store *s, struct replica_bad *ret, size_t max);
void store_bad_told(struct store *s, size_t n);

#endif
