/* A chained hash table through members of the things in it, keyed by a 64-bit hash.
 *
 * The table knows hashes only: a look-up walks all entries of one hash, the caller compares keys.
 * Ids are spread by htab_mix(). Grows by doubling; never shrinks. Entries are the caller's memory
 * and are not freed. One thread at a time.
 */
#ifndef DFS_CLUSTER_BASE_HTAB_H
#define DFS_CLUSTER_BASE_HTAB_H

#include "cluster/base/base.h"

#include "cluster/base/list.h"

struct hnode {
    struct hnode *next;
    uint64_t hash;
};

struct htab {
    struct hnode **slots;
    size_t mask; /* slots - 1 */
    size_t count;
    size_t first; /* no slot before it has an entry */
};

/* splitmix64's finisher: neighbouring ids land far apart. */
static inline uint64_t htab_mix(uint64_t v)
{
    v += UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
    return v ^ (v >> 31);
}

void htab_init(struct htab *t);
/* Of an empty table: it does not grow before it has this many entries. Growing moves all entries at
 * once; memory that is not used is not touched. */
void htab_reserve(struct htab *t, size_t count);
void htab_fini(struct htab *t); /* the slots only; zeroed tables are fine */
/* Adds a node that is in no table. Equal hashes are kept, the newest first. */
void htab_add(struct htab *t, struct hnode *n, uint64_t hash);
/* Takes a node out that is in this table. */
void htab_remove(struct htab *t, struct hnode *n);
/* First entry with that hash, then the next one with the same; NULL at the end. */
struct hnode *htab_find(const struct htab *t, uint64_t hash);
struct hnode *htab_next(const struct hnode *n);
/* Every entry, in no order: start with NULL. The returned entry may be removed before the next call
 * only by way of htab_pop(). */
struct hnode *htab_each(const struct htab *t, const struct hnode *prev);
/* Takes some entry out; NULL when empty. For tearing down. */
struct hnode *htab_pop(struct htab *t);

/* Every entry as struct hnode *n; the body must not add or remove. */
#define HTAB_FOREACH(n, t) \
    for (struct hnode *n = htab_each((t), NULL); n != NULL; n = htab_each((t), n))

#endif
