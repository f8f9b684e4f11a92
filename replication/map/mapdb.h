/* Block records inside the metadata state machine: what every master stores about blocks and block
 * servers. Pure functions on an LMDB transaction; deterministic; the leader's choices come in as
 * arguments. fs/ns calls them while it applies commands.
 *
 * A block's wanted number of copies is derived: live[r] counts the bytes that extents of files with
 * replication r use; want is the highest r with live bytes (before the first commit: as allocated).
 *
 *   open -> sealed -> deleted -> (record gone)
 *
 * Where its copies are to be is derived likewise: the storage rule (rule.h, known here by its
 * number) that most bytes under any rule have. Beyond BLOCK_RULES different ones in one block further
 * rules are not counted.
 *
 * A block belongs to the session that allocated it until that session commits it with `seal` or ends;
 * so bytes that were acknowledged but not committed yet keep their block even when it was sealed
 * early. Sealed, released and without live bytes: deleted.
 */
#ifndef DFS_REPLICATION_MAP_MAPDB_H
#define DFS_REPLICATION_MAP_MAPDB_H

#include <lmdb.h>

#include "cluster/base/limits.h"

#include "replication/msgs.h"

/* The databases, in the caller's environment. */
struct mapdb {
    MDB_dbi blocks;      /* block BE8 -> encoded block_rec */
    MDB_dbi node_blocks; /* node BE4, block BE8 -> empty: what a server should have */
    MDB_dbi servers;     /* node BE4 -> encoded server_rec */
    MDB_dbi deleted;     /* block BE8 -> i64 time: waiting for the grace to end */
};

#define BLOCK_RULES 4

struct block_rec {
    uint8_t state; /* enum block_state */
    uint8_t kind;  /* enum block_kind */
    uint8_t alloc_want;
    uint8_t node_count;
    uint32_t len;       /* sealed: final; open: committed */
    uint64_t session;   /* the owner: the only one that may append or commit; 0 once released */
    int64_t changed_ns; /* of the last change of state */
    uint64_t live[LIMIT_REPLICATION + 1]; /* bytes by replication; index 0 unused */
    uint32_t nodes[LIMIT_REPLICATION];    /* who holds a copy, chain order */
    uint16_t alloc_rule;                  /* as allocated; 0: none */
    uint8_t rule_count;
    struct {
        uint16_t rule;
        uint64_t live; /* bytes of files with this rule */
    } rules[BLOCK_RULES];
};

struct server_rec {
    uint8_t uuid[16];
    char addr[256];
    char host[256];
    char rack[256];
    uint8_t intent;      /* enum server_intent */
    uint8_t maintenance; /* enum server_maintenance */
    int64_t until_ns;    /* of the maintenance; wall clock */
};

/* What changed, for the leader's queues in memory (they can always be made again by a scan). */
struct mapdb_events {
    void *arg;
    /* Its copies, want or state changed: look whether it needs repair. */
    void (*block_changed)(void *arg, uint64_t block, const struct block_rec *rec);
};

uint8_t block_rec_want(const struct block_rec *r);
/* The number of the rule that its copies are to follow; 0: none. */
uint16_t block_rec_rule(const struct block_rec *r);
uint64_t block_rec_live(const struct block_rec *r);
/* Codecs; get: DFS_EDAMAGED for anything that put cannot have written. */
void block_rec_put(struct wire_out *out, const struct block_rec *r);
int block_rec_get(struct slice s, struct block_rec *ret);
void server_rec_put(struct wire_out *out, const struct server_rec *r);
int server_rec_get(struct slice s, struct server_rec *ret);

/* Errors of all below: DFS_ENOBLOCK, DFS_EDAMAGED (undecodable), DFS_ENOSPC (map full), DFS_EIO. */
int mapdb_get(const struct mapdb *m, MDB_txn *t, uint64_t block, struct block_rec *ret);
int mapdb_put(const struct mapdb *m, MDB_txn *t, uint64_t block, const struct block_rec *r);

/* Ids only ever grow: DFS_EEXIST when this one is not above all there are. */
int mapdb_alloc(const struct mapdb *m, MDB_txn *t, uint64_t block, uint8_t kind, uint8_t want,
                uint16_t rule, uint64_t session, const uint32_t *nodes, uint8_t node_count,
                int64_t now_ns);
/* Raises the committed length of an open block of this session; seal: ends it there and releases it.
 * DFS_ESESSION: another's block; DFS_ESEALED: sealed at a smaller length, or with seal at another.
 * A length below the committed one changes nothing; with seal it is DFS_EINVAL. */
int mapdb_commit(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
                 uint64_t session, uint32_t len, bool seal, int64_t now_ns);
/* Ends a block at len (not below its committed length: DFS_EINVAL) without the bad servers; its session
 * keeps it. Bad servers are kept when no other one is left and there are bytes. Repeating it is fine:
 * then nothing changes. DFS_ESESSION, DFS_ESEALED as above. */
int mapdb_seal(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
               uint64_t session, uint32_t len, const uint32_t *bad, size_t bad_count,
               int64_t now_ns);
/* Seals at the committed length and releases, whatever the session. */
int mapdb_seal_orphan(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev,
                      uint64_t block, int64_t now_ns);
/* Extents came or went: delta bytes at this replication and rule. Add before taking away: a sealed block that
 * has no bytes left is deleted at once. */
int mapdb_live(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
               uint8_t repl, uint16_t rule, int64_t delta, int64_t now_ns);
/* Adding what is there and dropping what is not are fine. DFS_ETOOBIG: too many copies. */
int mapdb_replica(const struct mapdb *m, MDB_txn *t, const struct mapdb_events *ev, uint64_t block,
                  uint32_t node, enum replica_op op);
/* Removes the record of a deleted block; DFS_EBUSY while it is not deleted. */
int mapdb_forget(const struct mapdb *m, MDB_txn *t, uint64_t block);

int mapdb_server_get(const struct mapdb *m, MDB_txn *t, uint32_t node, struct server_rec *ret);
/* node 0: finds the uuid, or gives the next free id. DFS_EEXIST: node is another uuid's. What
 * operators want of a known server stays; the maintenance of a clean stop ends, for it is back. */
int mapdb_server_put(const struct mapdb *m, MDB_txn *t, uint32_t node, const struct server_rec *r,
                     uint32_t *ret_node);

/* Sets what operators want of a server: the fields (enum intent_field) that are taken from r.
 * DFS_ENOENT: unknown; DFS_EBUSY: INTENT_DECOMMISSIONED, but a block's record names it; or
 * INTENT_FIELD_LEAVING, and it is not leaving. */
int mapdb_server_intend(const struct mapdb *m, MDB_txn *t, uint32_t node, uint8_t fields,
                        const struct server_rec *r);

/* Scans, for the leader: fn returns false to stop. `from` is inclusive; a scan in slices keeps its
 * place by the last id + 1. */
typedef bool mapdb_block_fn(void *arg, uint64_t block, const struct block_rec *r);
int mapdb_each_block(const struct mapdb *m, MDB_txn *t, uint64_t from, mapdb_block_fn *fn,
                     void *arg);
int mapdb_each_block_of(const struct mapdb *m, MDB_txn *t, uint32_t node, uint64_t from,
                        mapdb_block_fn *fn, void *arg);
typedef bool mapdb_server_fn(void *arg, uint32_t node, const struct server_rec *r);
int mapdb_each_server(const struct mapdb *m, MDB_txn *t, mapdb_server_fn *fn, void *arg);
/* Deleted blocks whose deletion is at or before `until_ns`. */
typedef bool mapdb_deleted_fn(void *arg, uint64_t block, int64_t since_ns);
int mapdb_each_deleted(const struct mapdb *m, MDB_txn *t, int64_t until_ns, mapdb_deleted_fn *fn,
                       void *arg);

#endif
