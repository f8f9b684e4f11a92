/* Which servers get the copies of a block, and whether those that have them are the right ones.
 *
 * Never two copies on one host. On two racks where two have room. On volumes with the labels that the
 * block's storage rule names: a strict rule rather leaves a copy out than puts it elsewhere; with a
 * preferred one racks come first and a copy goes elsewhere when nobody with its label has room.
 * Among those that qualify two are drawn with chances by free space and the less loaded one is
 * taken. Suspect and excluded servers and those without room get nothing.
 */
#ifndef DFS_REPLICATION_MAP_PLACEMENT_H
#define DFS_REPLICATION_MAP_PLACEMENT_H

#include "cluster/base/rng.h"

#include "replication/map/members.h"
#include "replication/rule.h"

struct placement_ask {
    uint32_t copies;         /* to place now; LIMIT_REPLICATION at most */
    uint32_t want;           /* of the block altogether; 0: those it has and those placed now */
    const struct rule *rule; /* NULL: none */
    uint64_t bytes;          /* room that a copy may need: servers with less come last */
    struct slice host;       /* of the writer: its server comes first; may be empty */
    const uint32_t *avoid;   /* excluded */
    size_t avoid_count;
    bool (*skip)(void *arg, const struct member *m); /* excluded as well; NULL: none */
    void *arg;
    const uint32_t *have; /* hold a copy already: excluded, their hosts and racks count */
    size_t have_count;
};

/* Free bytes of the emptiest volume with this label ("": any) that takes blocks. */
uint64_t placement_room(const struct member *m, const char *label);

/* Puts the chosen nodes into ret in chain order, which is the order of the rule's slots, and counts
 * them as promised. *ret_count may be less than asked for. Errors: DFS_ENOSERVERS (nobody can take
 * one), DFS_ENOSPC (servers are there, all full, or those with the label of a strict rule). */
int placement_pick(struct members *t, const struct placement_ask *ask, struct rng *rng,
                   uint32_t ret[LIMIT_REPLICATION], size_t *ret_count);
/* The label of the volume that a further copy, on this node, is to land on; "": any. */
const char *placement_label(const struct members *t, const struct placement_ask *ask,
                            uint32_t node);

/* Servers of more than one rack have room. */
bool placement_two_racks(const struct members *t);

/* What is wrong with these holders of a block that has all the copies it wants: enum misplaced. */
unsigned int placement_judge(const struct members *t, const uint32_t *nodes, size_t count,
                             const struct rule *rule, uint32_t want, bool two_racks);
/* To compare sets of holders of the same block: less is better. */
uint64_t placement_score(const struct members *t, const uint32_t *nodes, size_t count,
                         const struct rule *rule, uint32_t want, bool two_racks);

/* Of a block's holders, the one to take a superfluous copy from: without which the others are placed
 * best, and of those the fullest. keep[i] excludes. Returns the index in nodes, count when there is
 * none. */
size_t placement_excess(const struct members *t, const uint32_t *nodes, const bool *keep,
                        size_t count, const struct rule *rule, uint32_t want);

#endif
