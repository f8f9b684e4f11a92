#include "cluster/wire/wire.h"

struct wire_in wire_in_of(struct slice s)
{
    return (struct wire_in){ .p = s.p, .left = s.len };
}

/* The next n bytes, or NULL once the cursor has failed. */
static const uint8_t *take(struct wire_in *in, size_t n)
{
    const uint8_t *p = in->p;

    if (in->err != 0 || n > in->left) {
        in->err = DFS_EMALFORMED;
        return NULL;
    }
    in->p += n;
    in->left -= n;
    return p;
}

static uint64_t get_le(struct wire_in *in, size_t n)
{
    const uint8_t *p = take(in, n);
    uint64_t v = 0;

    for (size_t i = 0; p != NULL && i < n; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

uint8_t wire_get_u8(struct wire_in *in)
{
    return (uint8_t)get_le(in, 1);
}

uint16_t wire_get_u16(struct wire_in *in)
{
    return (uint16_t)get_le(in, 2);
}

uint32_t wire_get_u32(struct wire_in *in)
{
    return (uint32_t)get_le(in, 4);
}

uint64_t wire_get_u64(struct wire_in *in)
{
    return get_le(in, 8);
}

int64_t wire_get_i64(struct wire_in *in)
{
    return (int64_t)get_le(in, 8);
}

struct slice wire_take(struct wire_in *in, size_t n)
{
    const uint8_t *p = take(in, n);

    return p != NULL ? slice_of(p, n) : SLICE_EMPTY;
}

struct slice wire_get_bytes(struct wire_in *in)
{
    return wire_take(in, wire_get_u32(in));
}

struct wire_list wire_get_list(struct wire_in *in)
{
    struct wire_list l = { .count = wire_get_u32(in) };

    l.items = wire_get_bytes(in);
    if (in->err != 0 || l.count > l.items.len) { /* an item is a byte at least */
        in->err = DFS_EMALFORMED;
        return (struct wire_list){ 0 };
    }
    return l;
}

void wire_out_init(struct wire_out *out, size_t max)
{
    *out = (struct wire_out){ .max = max };
}

void wire_out_fini(struct wire_out *out)
{
    free(out->p);
    *out = (struct wire_out){ .max = out->max };
}

void wire_out_reset(struct wire_out *out)
{
    out->len = 0;
    out->err = 0;
}

struct slice wire_out_slice(const struct wire_out *out)
{
    return slice_of(out->p, out->len);
}

struct wire_list wire_out_list(const struct wire_out *out, uint32_t count)
{
    return (struct wire_list){ .count = count, .items = wire_out_slice(out) };
}

uint8_t *wire_reserve(struct wire_out *out, size_t n)
{
    uint8_t *p;

    if (out->err != 0 || n > out->max - out->len) {
        out->err = DFS_ETOOBIG;
        return NULL;
    }
    if (n > out->cap - out->len) {
        size_t cap = MAX(out->cap * 2, out->len + n);

        cap = MIN(MAX(cap, 128), out->max);
        out->p = x_realloc(out->p, cap);
        out->cap = cap;
    }
    p = out->p + out->len;
    out->len += n;
    return p;
}

void wire_put_raw(struct wire_out *out, const void *src, size_t n)
{
    uint8_t *p = wire_reserve(out, n);

    if (p != NULL && n != 0) {
        memcpy(p, src, n);
    }
}

static void put_le(struct wire_out *out, uint64_t v, size_t n)
{
    uint8_t *p = wire_reserve(out, n);

    for (size_t i = 0; p != NULL && i < n; i++) {
        p[i] = (uint8_t)(v >> (8 * i));
    }
}

void wire_put_u8(struct wire_out *out, uint8_t v)
{
    put_le(out, v, 1);
}

void wire_put_u16(struct wire_out *out, uint16_t v)
{
    put_le(out, v, 2);
}

void wire_put_u32(struct wire_out *out, uint32_t v)
{
    put_le(out, v, 4);
}

void wire_put_u64(struct wire_out *out, uint64_t v)
{
    put_le(out, v, 8);
}

void wire_put_i64(struct wire_out *out, int64_t v)
{
    put_le(out, (uint64_t)v, 8);
}

void wire_put_bytes(struct wire_out *out, struct slice s)
{
    if (s.len > UINT32_MAX) {
        out->err = DFS_ETOOBIG;
        return;
    }
    wire_put_u32(out, (uint32_t)s.len);
    wire_put_raw(out, s.p, s.len);
}

void wire_put_list(struct wire_out *out, struct wire_list l)
{
    wire_put_u32(out, l.count);
    wire_put_bytes(out, l.items);
}
