/* An ordered map from ranges of a file to places in blocks.
 *
 * Extents never overlap; neighbours that continue each other in the same block are one extent. What
 * is not covered is a hole. Not thread-safe. Kept in leaves of a few hundred extents, so that a map
 * of a million random writes still takes an insert in microseconds.
 */
#ifndef DFS_FS_CLIENT_EXTMAP_H
#define DFS_FS_CLIENT_EXTMAP_H

#include "fs/msgs.h"

struct extmap_leaf {
    struct extent *e;
    uint32_t count;
    uint32_t cap;
};

struct extmap {
    struct extmap_leaf *leaf; /* none of them empty */
    size_t leaves;
    size_t cap;
    size_t count;   /* extents in all leaves */
    uint64_t bytes; /* that they cover */
};

/* A zeroed struct is an empty map. */
void extmap_clear(struct extmap *m);
/* Puts an extent over whatever was there. Extents of length 0 are ignored. */
void extmap_insert(struct extmap *m, const struct extent *e);
/* All of src over m. */
void extmap_overlay(struct extmap *m, const struct extmap *src);
/* Makes a hole; len may reach to UINT64_MAX. */
void extmap_punch(struct extmap *m, uint64_t off, uint64_t len);
/* The extent that covers off, or else the first one behind it; false when there is none. */
bool extmap_find(const struct extmap *m, uint64_t off, struct extent *ret);
/* How many bytes of m are holes of `below`. */
uint64_t extmap_beside(const struct extmap *m, const struct extmap *below);
/* End of the last extent, 0 of an empty map. */
uint64_t extmap_end(const struct extmap *m);

#endif
