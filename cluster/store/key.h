/* Database keys: numbers big-endian, so that LMDB's order is the numbers' order. */
#ifndef DFS_CLUSTER_STORE_KEY_H
#define DFS_CLUSTER_STORE_KEY_H

#include "cluster/base/base.h"

#include <lmdb.h>

static inline void key_put_u32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void key_put_u64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof(v));
}

static inline uint32_t key_get_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return __builtin_bswap32(v);
}

static inline uint64_t key_get_u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return __builtin_bswap64(v);
}

/* LMDB takes what it only reads without const. */
static inline MDB_val key_val(const void *p, size_t n)
{
    union {
        const void *from;
        void *to;
    } borrowed = { p };

    return (MDB_val){ .mv_size = n, .mv_data = borrowed.to };
}

static inline struct slice key_slice(MDB_val v)
{
    return slice_of(v.mv_data, v.mv_size);
}

#endif
