/* The block servers as the leader sees them: who is there, with how much space and load.
 *
 * In memory only, filled by registrations and heartbeats; what is stored about a server (its
 * address) comes from the state machine. Nothing in here reads a clock: now_ms is a monotonic time.
 * Not thread-safe: the owner holds its lock around every call.
 *
 *   suspect -> live      it registered or sent a heartbeat
 *   live    -> suspect   silent for suspect_ms, or said goodbye
 *   suspect -> dead      silent for dead_ms: its copies count no longer
 *   dead    -> live      it is back
 *
 * What operators want of a server is beside that: one that is leaving (decommissioned) gets no new
 * blocks and its copies do not count as wanted ones; one in maintenance gets no new blocks, is read
 * last, and does not become dead before the maintenance ends.
 */
#ifndef DFS_REPLICATION_MAP_MEMBERS_H
#define DFS_REPLICATION_MAP_MEMBERS_H

#include "cluster/base/limits.h"
#include "cluster/base/sm.h"

#include "replication/map/mapdb.h"

struct member_volume {
    uint8_t uuid[36]; /* as sent: binary or text */
    uint8_t uuid_len;
    char path[256];
    char label[64];
    uint64_t total;
    uint64_t free;
    uint64_t used;
    uint64_t errors;
    uint32_t blocks;
    uint8_t state; /* enum volume_state */
    uint32_t write_us, sync_us, read_us, stuck_ms;
    uint8_t trouble;      /* enum member_trouble */
    uint8_t slow_seconds; /* in a row that it was far slower than its peers */
    uint64_t trouble_ms;  /* when there was a reason for trouble last */
};

/* What a leaving server still holds, as counted last. */
struct member_left {
    bool known;
    uint64_t blocks;
    uint64_t open; /* of those: still being written */
    uint64_t bytes;
    uint64_t first_bytes; /* at the first count, for the time that is left */
    uint64_t first_ms;
    uint64_t counted_ms;
};

struct member {
    uint32_t node;
    struct sm sm; /* enum member_state */
    struct server_rec rec;
    uint64_t boot;      /* of the start that registered; 0 = has not since this table was made */
    uint64_t seen_ms;   /* last sign of life; of one that was never heard: when it was loaded */
    uint64_t report_ms; /* when its replicas were last asked for */
    bool heard;         /* since this table was made */
    bool report;        /* its next heartbeat is answered with HEARTBEAT_REPORT */
    bool unsure;        /* what it has was not compared with the records since it came */
    bool told;          /* all its digests were, but these ranges are to come */
    uint64_t ranges_due;
    uint32_t writers;
    uint32_t readers;
    uint32_t promised;      /* blocks placed here since its last heartbeat */
    uint64_t away_until_ms; /* end of its maintenance; 0: in none */
    struct member_left left;
    uint8_t trouble; /* enum member_trouble: the worst of its volumes */
    bool avoided;    /* because of that, and there are others for new blocks */
    /* Sums over the volumes that are not failed. */
    uint64_t total;
    uint64_t free;
    uint64_t used;
    uint64_t blocks;
    uint64_t roomiest; /* free bytes of the emptiest volume that takes blocks */
    struct member_volume *volumes;
    size_t volume_count;
};

struct members_conf {
    uint64_t suspect_ms;
    uint64_t dead_ms;
    uint64_t report_ms; /* replicas are compared again after this time */
    uint64_t hung_ms;   /* an operation on a disk that takes longer: it hangs; 0: never */
};

struct members {
    struct members_conf conf;
    struct member **all; /* by node id */
    size_t count;
    size_t cap;
    uint64_t start_ms;
    uint64_t step_ms;  /* of the last members_step */
    uint64_t judge_ms; /* when slowness was judged last */
    size_t silent;     /* suspect ones that will be dead unless they are heard */
};

void members_init(struct members *t, const struct members_conf *conf, uint64_t now_ms);
void members_fini(struct members *t);

struct member *members_get(const struct members *t, uint32_t node); /* NULL: unknown */
/* enum member_state; MEMBER_DEAD for an unknown one. */
uint8_t members_state(const struct members *t, uint32_t node);
/* The copies on it count: it is live or only suspected. */
bool members_counts(const struct members *t, uint32_t node);
static inline uint8_t member_state(const struct member *m)
{
    return m->sm.now;
}
/* It is to be emptied, or is empty. */
static inline bool member_leaving(const struct member *m)
{
    return m->rec.intent != INTENT_NONE;
}
/* New blocks may go to it. */
static inline bool member_takes(const struct member *m)
{
    return member_state(m) == MEMBER_LIVE && !member_leaving(m) && m->away_until_ms == 0 &&
           !m->avoided;
}
/* Its state for those who choose between copies: suspect ones are read last. */
uint8_t member_reader_state(const struct member *m);
bool members_leaving(const struct members *t, uint32_t node);
/* It came, and may have lost copies: until they were compared no other copy is given up for its. */
void members_doubt(struct members *t, uint32_t node);
bool members_unsure(const struct members *t, uint32_t node);
/* Digests were compared, the first ones or the last ones perhaps, and so many ranges differ; one of them was
 * compared. */
void members_told(struct members *t, uint32_t node, bool first, bool last, uint32_t differ);
void members_told_range(struct members *t, uint32_t node);
/* What operators want of it, as the state machine has it (intent, maintenance, until_ns of rec), at
 * wall-clock time wall_ns. True when that is a change. Unknown: nothing. */
bool members_intend(struct members *t, uint32_t node, const struct server_rec *rec, int64_t wall_ns,
                    uint64_t now_ms);
/* The server that an operator names: by id, address or host. Errors with a sentence: DFS_ENOENT,
 * DFS_EINVAL (several on that host). */
int members_find(const struct members *t, struct slice name, struct member **ret, struct why *why);

/* The server that is alive with this identity, by another start and at another address: two have the
 * same store, or copies of it. NULL: there is none. */
const struct member *members_twin(const struct members *t, const struct server_rec *rec,
                                  uint64_t boot);

/* A server that the state machine knows: suspect until it is heard, dead after dead_ms. Known here
 * already: its address is replaced, intents stay as they are (members_intend).
 * DFS_ENOSPC beyond LIMIT_BLOCK_SERVERS. */
int members_load(struct members *t, uint32_t node, const struct server_rec *rec, uint64_t now_ms);

/* A loaded server introduced itself: *ret_was is its state before. The volumes are checked:
 * DFS_EMALFORMED changes nothing. DFS_ENOENT: not loaded. */
int members_register(struct members *t, uint32_t node, uint64_t boot, struct wire_list volumes,
                     uint64_t now_ms, uint8_t *ret_was);
/* DFS_ENOENT: unknown, or another start of it registered: it has to register. */
int members_heartbeat(struct members *t, const struct server_heartbeat_req *req, uint64_t now_ms);
/* It goes on purpose: no new blocks at once, dead after the usual time. False: another boot,
 * ignored. */
bool members_bye(struct members *t, uint32_t node, uint64_t boot);

/* Moves silent servers on; fn is told of each change. To be called several times per suspect_ms: a
 * longer pause is taken for this process having slept, and does not count as silence. */
typedef void members_fn(void *arg, const struct member *m, uint8_t was);
void members_step(struct members *t, uint64_t now_ms, members_fn *fn, void *arg);

/* Finds disks that hang or are far slower than those of others (see members_trouble.c); part of
 * members_step(). */
void members_judge(struct members *t, uint64_t now_ms);

/* Servers that are known have not been heard since the table was made, and still may be on their
 * way: suspect_ms has not passed. */
bool members_expected(const struct members *t, uint64_t now_ms);

/* Volumes as a list of volume_info, for status; items are appended to out. */
uint32_t member_put_volumes(const struct member *m, struct wire_out *out);

#endif
