/* Bounded encoding of messages: little-endian, no padding, no alignment.
 *
 * Decoders are sticky: after the first failure every further read fails, so a
 * caller checks once at the end. Byte ranges that a decoder returns are
 * borrowed from its input.
 *
 * Wire forms: u8 u16 u32 u64 i64 as they are; bytes: u32 length and the bytes;
 * list: u32 count, u32 length and the items one after the other.
 */
#ifndef DFS_CLUSTER_WIRE_WIRE_H
#define DFS_CLUSTER_WIRE_WIRE_H

#include "cluster/base/base.h"

#include "cluster/base/err.h"

struct wire_in {
    const uint8_t *p;
    size_t left;
    int err; /* 0 or DFS_EMALFORMED */
};

/* A growing buffer with a ceiling. Past the ceiling err becomes DFS_ETOOBIG
 * and nothing more is written. Owned: wire_out_fini() frees it. */
struct wire_out {
    uint8_t *p;
    size_t len;
    size_t cap;
    size_t max;
    int err;
};

/* Items encoded one after the other, as a borrowed range. */
struct wire_list {
    uint32_t count;
    struct slice items;
};

struct wire_in wire_in_of(struct slice s);
uint8_t wire_get_u8(struct wire_in *in);
uint16_t wire_get_u16(struct wire_in *in);
uint32_t wire_get_u32(struct wire_in *in);
uint64_t wire_get_u64(struct wire_in *in);
int64_t wire_get_i64(struct wire_in *in);
struct slice wire_get_bytes(struct wire_in *in);
struct wire_list wire_get_list(struct wire_in *in);
/* The next n bytes as they are, or an empty slice once the cursor failed. */
struct slice wire_take(struct wire_in *in, size_t n);

void wire_out_init(struct wire_out *out, size_t max);
/* Into n bytes of the caller's, for records of a known size: nothing to free. */
static inline struct wire_out wire_out_over(void *p, size_t n)
{
    return (struct wire_out){ .p = p, .cap = n, .max = n };
}
void wire_out_fini(struct wire_out *out);  /* NULL-safe for zeroed structs */
void wire_out_reset(struct wire_out *out); /* empty again, memory kept */
struct slice wire_out_slice(const struct wire_out *out);
struct wire_list wire_out_list(const struct wire_out *out, uint32_t count);
void wire_put_u8(struct wire_out *out, uint8_t v);
void wire_put_u16(struct wire_out *out, uint16_t v);
void wire_put_u32(struct wire_out *out, uint32_t v);
void wire_put_u64(struct wire_out *out, uint64_t v);
void wire_put_i64(struct wire_out *out, int64_t v);
void wire_put_bytes(struct wire_out *out, struct slice s);
void wire_put_list(struct wire_out *out, struct wire_list l);
void wire_put_raw(struct wire_out *out, const void *src, size_t n);
/* Room for n bytes at the end, to be filled by the caller; NULL on overflow. */
uint8_t *wire_reserve(struct wire_out *out, size_t n);

#endif
