/* How the copies of blocks are, asked from the master many at a time and remembered for a while:
 * small files share blocks. */
#ifndef DFS_FS_CLI_HEALTH_H
#define DFS_FS_CLI_HEALTH_H

#include "cluster/base/htab.h"

#include "fs/cli/deep.h"
#include "fs/cli/remote.h"

/* From good to bad. */
enum health_state { HEALTH_FINE, HEALTH_MISPLACED, HEALTH_UNDER, HEALTH_CORRUPT, HEALTH_MISSING };

struct block_status {
    struct hnode by_id;
    uint64_t block;
    uint32_t len;
    uint8_t state; /* enum block_state; 0: the master does not know it */
    uint8_t want, live, corrupt;
    uint8_t misplaced; /* enum misplaced */
};

struct health_cache {
    const struct remote *r;
    struct deep *deep;   /* looks at the copies themselves, too; NULL: the master's word is taken */
    deep_bad_fn *on_bad; /* for each copy that it finds */
    void *arg;
    struct htab known;
    uint64_t *wanted; /* ids to ask for */
    size_t wanted_count;
    struct bad_copy
        *bad; /* that deep has found, until the masters were asked about its block again */
    size_t bad_count, bad_cap;
};

#define HEALTH_BATCH     500     /* blocks in one question */
#define HEALTH_KNOWN_MAX 1000000 /* blocks remembered */

void health_init(struct health_cache *h, const struct remote *r);
void health_fini(struct health_cache *h);
void health_forget(struct health_cache *h); /* all that is known */
/* Notes a block that is asked for next, unless it is known. False: HEALTH_BATCH are noted and
 * health_ask() has to be called first. */
bool health_want(struct health_cache *h, uint64_t block);
/* Forgets what is known of one block; not while it is noted. */
void health_drop(struct health_cache *h, uint64_t block);
/* Asks for all that is noted. Complains; an enum cli_status. */
int health_ask(struct health_cache *h);
/* What was answered, or NULL when it was not asked for. */
const struct block_status *health_find(const struct health_cache *h, uint64_t block);

enum health_state health_of(const struct block_status *b);
/* "healthy", "misplaced", "under-replicated", "corrupt", "missing" */
const char *health_name(enum health_state s);

#endif
