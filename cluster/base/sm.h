/* State machines that are declared: a table names the states and the moves that are legal, and a
 * move that is not in it ends the process.
 *
 *   static const struct sm_state replica_states[] = {
 *       [R_OPEN]   = { "open",   SM_BIT(R_SEALED) | SM_BIT(R_GONE) },
 *       [R_SEALED] = { "sealed", SM_BIT(R_GONE) },
 *       [R_GONE]   = { "gone",   0 },
 *   };
 *   SM_INIT(&r->sm, replica_states, R_OPEN);
 *   sm_move(&r->sm, R_SEALED);
 */
#ifndef DFS_CLUSTER_BASE_SM_H
#define DFS_CLUSTER_BASE_SM_H

#include "cluster/base/base.h"

#define SM_BIT(state) (UINT32_C(1) << (state))

struct sm_state {
    const char *name;
    uint32_t next; /* SM_BIT of every state that may follow */
};

struct sm {
    const struct sm_state *states;
    uint8_t count;
    uint8_t now;
};

#define SM_INIT(sm, table, first) sm_init((sm), (table), ARRAY_LEN(table), (first))

static inline void sm_init(struct sm *m, const struct sm_state *states, size_t count,
                           unsigned int first)
{
    ASSERT(count <= 32 && first < count);
    *m = (struct sm){ .states = states, .count = (uint8_t)count, .now = (uint8_t)first };
}

static inline bool sm_may(const struct sm *m, unsigned int to)
{
    return to < m->count && (m->states[m->now].next & SM_BIT(to)) != 0;
}

static inline const char *sm_name(const struct sm *m)
{
    return m->states[m->now].name;
}

/* Goes to a state that the table allows from here; anything else is a programmer's error. */
static inline void sm_move(struct sm *m, unsigned int to)
{
    if (!sm_may(m, to)) {
        fprintf(stderr, "dfs: no move from state %s to %s\n", sm_name(m),
                to < m->count ? m->states[to].name : "?");
        ASSERT(sm_may(m, to));
    }
    m->now = (uint8_t)to;
}

#endif
