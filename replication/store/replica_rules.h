/* What may happen to a replica, as pure functions: the store asks them before it touches a disk, and
 * the simulator runs them without one.
 *
 *   none -> open -> sealed -> gone      a block being written
 *   none -> copy -> sealed -> gone      a repair copy being taken; abandoned copies go at once
 */
#ifndef DFS_REPLICATION_STORE_REPLICA_RULES_H
#define DFS_REPLICATION_STORE_REPLICA_RULES_H

#include "cluster/base/sm.h"

#include "replication/msgs.h"

enum rule_state { RULE_COPY, RULE_OPEN, RULE_SEALED, RULE_GONE };
extern const struct sm_state rule_states[RULE_GONE + 1];

/* What the rules look at. */
struct rule_replica {
    enum rule_state state;
    uint32_t len;
};

enum rule_open { RULE_CREATE, RULE_CONTINUE, RULE_REPLACE };

/* May a writer begin at this offset? r: NULL when there is no replica. flags: WRITE_COPY.
 * Errors: DFS_ENOBLOCK (none, and offset is not 0), DFS_ESEALED, DFS_EOFFSET (not its end),
 * DFS_EEXIST (a copy is asked for, but a replica is here), DFS_EBUSY (a copy is being taken). */
int rule_open(const struct rule_replica *r, uint32_t offset, uint8_t flags,
              enum rule_open *ret_what);

/* May these bytes be appended? Errors: DFS_ESEALED, DFS_ENOBLOCK, DFS_EOFFSET (not the end),
 * DFS_EFBIG. */
int rule_append(const struct rule_replica *r, uint32_t offset, uint32_t len);

/* Ends a replica at len. A sealed one may be sealed again, also shorter: a server that missed the
 * end of a write holds bytes that were never acknowledged. *ret_cut: bytes behind len go.
 * Errors: DFS_EOFFSET (it is shorter), DFS_ENOBLOCK. */
int rule_seal(const struct rule_replica *r, uint32_t len, bool *ret_cut);

/* Sums and sizes of a packet as it came in: data_len must hold the sums and the bytes.
 * Errors: DFS_EMALFORMED, DFS_EFBIG. */
int rule_packet(uint32_t offset, uint32_t len, uint32_t data_len, uint32_t *ret_sums);
/* Every sum matches its part of the bytes, or DFS_ECHECKSUM. */
int rule_check_sums(uint32_t offset, struct slice data, const uint32_t *sums);
/* Fills the sums of a range that begins at offset; returns how many. */
uint32_t rule_make_sums(uint32_t offset, struct slice data, uint32_t *sums);

/* How long the server in front waits for an answer, for each server that is in the chain behind it; a
 * client waits that long for each of them, too. */
#define CHAIN_HOP_MS 5000u

#endif
