/* What a server has against what the records say it has.
 *
 * The server sends a digest per range of block ids, and a list of its replicas for the ranges that
 * differ. Digest and verdicts are pure; what is done about a verdict is the caller's business.
 */
#ifndef DFS_REPLICATION_MAP_RECONCILE_H
#define DFS_REPLICATION_MAP_RECONCILE_H

#include "cluster/base/htab.h"

#include "replication/map/mapdb.h"

/* ---- digests ---- */

struct reconcile_sum {
    uint64_t range;
    uint32_t count;
    uint64_t sum;
};

/* Sums of the records of one server, made block by block in ascending order. */
struct reconcile_digest {
    struct reconcile_sum *sums; /* ranges without blocks are left out */
    size_t count;
    size_t cap;
};

void reconcile_digest_add(struct reconcile_digest *d, uint64_t block, uint32_t len);
void reconcile_digest_fini(struct reconcile_digest *d);
/* Ranges first..last in which theirs (list of range_digest, ascending) differs, as a list of
 * range_ref. Returns their number. */
uint32_t reconcile_differ(const struct reconcile_digest *ours, struct wire_list theirs,
                          uint64_t first, uint64_t last, struct wire_out *out);

/* ---- one range ---- */

enum verdict {
    VERDICT_FINE,
    VERDICT_SEAL,   /* sealed block, replica open or longer: tell it the end */
    VERDICT_SHORT,  /* shorter than the sealed length, or damaged: no good copy */
    VERDICT_ADOPT,  /* sealed and right, but not in the record: it may be needed */
    VERDICT_RESCUE, /* open, long enough, not in the record: seal it if it is needed */
    VERDICT_STRAY,  /* not in the record, not needed: delete it after a grace */
    VERDICT_LOST,   /* in the record, but the server does not have it */
    VERDICT_FUTURE, /* an id that was never given: keep it, tell people */
};

/* rec NULL: no such block. listed: the record names this server. have NULL: the server's list does
 * not have it. next_block: ids from here on were never given. */
enum verdict reconcile_judge(uint64_t block, const struct block_rec *rec, bool listed,
                             const struct replica_info *have, uint64_t next_block);

/* ---- strays: replicas waiting for their grace ---- */

struct strays {
    struct htab by_what;
    struct list by_age;
};

void strays_init(struct strays *s);
void strays_fini(struct strays *s);
/* Noted when it is seen first. Beyond a million, more are noted when some are gone. */
void strays_note(struct strays *s, uint64_t block, uint32_t node, uint64_t now_ms);
/* One that was noted grace_ms ago or earlier, and is now forgotten; false when there is none. */
bool strays_due(struct strays *s, uint64_t now_ms, uint64_t grace_ms, uint64_t *ret_block,
                uint32_t *ret_node);

#endif
