/* What a replica file is worth after a start: how long it is and whether it is complete.
 *
 * A sealed replica is taken at its word when the file is long enough. An open one ends where its
 * sums stop to hold: whole chunks as long as they match, then the longest part of the next chunk
 * that its sum or a sync mark covers. What lies behind is cut off.
 */
#ifndef DFS_REPLICATION_STORE_RECOVER_H
#define DFS_REPLICATION_STORE_RECOVER_H

#include "replication/store/layout.h"
#include "replication/store/replica_rules.h"

enum recover_verdict {
    RECOVER_KEEP,
    RECOVER_REMOVE, /* a repair copy that was not completed, or a creation that was */
};

struct recovered {
    enum recover_verdict verdict;
    enum rule_state state;
    uint32_t len;
    uint32_t tail_sum;
    uint32_t mark; /* number of the newest sync mark; 0 = none */
    bool tail_known;
    bool durable;     /* all of it is known to be on disk */
    uint32_t cut;     /* bytes that the file held behind len */
    uint32_t missing; /* bytes that a sealed one is too short */
};

/* fd: the replica file, for reading and writing; cluster: NULL when not known yet.
 * Errors: DFS_EDAMAGED (the header), DFS_EWRONGCLUSTER, DFS_EVERSION, DFS_EIO. */
int recover_replica(int fd, uint64_t block, const uint8_t *cluster, struct recovered *ret);

#endif
