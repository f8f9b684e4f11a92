#include "test/wire/codecs.h"

#include "fs/msgs.h"

/* Values that tell their position, so that two swapped fields of one type are seen. */
static uint64_t next_value(uint64_t *at)
{
    *at += 1;
    return UINT64_C(0x0101010101010101) * *at + UINT64_C(0xf0e0d0c0b0a09080);
}

static struct slice next_bytes(uint64_t *at)
{
    static const char text[] = "abcdefghijklmnopqrstuvwxyz";

    *at += 1;
    return slice_of(text + *at % 20, 1 + *at % 6);
}

static struct wire_list next_list(uint64_t *at)
{
    struct slice items = next_bytes(at);

    return (struct wire_list){ .count = (uint32_t)items.len, .items = items };
}

#define VALUE_u8(at)    ((uint8_t)next_value(at))
#define VALUE_u16(at)   ((uint16_t)next_value(at))
#define VALUE_u32(at)   ((uint32_t)next_value(at))
#define VALUE_u64(at)   next_value(at)
#define VALUE_i64(at)   ((int64_t)next_value(at))
#define VALUE_bytes(at) next_bytes(at)
#define VALUE_list(at)  next_list(at)

/* ---- decode and encode again ---- */

#define REC(name)                                                 \
    static int again_##name(struct slice s, struct wire_out *out) \
    {                                                             \
        struct wire_in in = wire_in_of(s);                        \
        struct name r;                                            \
        int err = name##_get(&in, &r);                            \
                                                                  \
        if (err != 0) {                                           \
            return err;                                           \
        }                                                         \
        name##_put(out, &r);                                      \
        return out->err;                                          \
    }
#define AGAIN_HALF(half)                                          \
    static int again_##half(struct slice s, struct wire_out *out) \
    {                                                             \
        struct half r;                                            \
        int err = half##_get(s, &r);                              \
                                                                  \
        if (err != 0) {                                           \
            return err;                                           \
        }                                                         \
        half##_put(out, &r);                                      \
        return out->err;                                          \
    }
#define RPC(name, id, kind) AGAIN_HALF(name##_req) AGAIN_HALF(name##_rep)
#define F(type, field)
#define ARG(type, field)
#define RET(type, field)
#define END(name)
#define END_REC(name)
#include "cluster/rpc.def"

#include "replication/rpc.def"

#include "fs/rpc.def"
#undef REC
#undef RPC
#undef F
#undef ARG
#undef RET
#undef END
#undef END_REC

/* ---- fill ---- */

#define REC(name)                                 \
    static void fill_##name(struct wire_out *out) \
    {                                             \
        uint64_t at = 0;                          \
        struct name r = { 0 };
#define F(type, field) r.field = VALUE_##type(&at);
#define END_REC(name)    \
    name##_put(out, &r); \
    }
#define RPC(name, id, kind)
#define ARG(type, field)
#define RET(type, field)
#define END(name)
#include "cluster/rpc.def"

#include "replication/rpc.def"

#include "fs/rpc.def"
#undef REC
#undef RPC
#undef F
#undef ARG
#undef RET
#undef END
#undef END_REC

#define REC(name)
#define F(type, field)
#define END_REC(name)
#define RPC(name, id, kind)                             \
    static void fill_##name##_req(struct wire_out *out) \
    {                                                   \
        uint64_t at = 0;                                \
        struct name##_req r = { .wire_version = VALUE_u8(&at) };
#define ARG(type, field) r.field = VALUE_##type(&at);
#define RET(type, field)
#define END(name)            \
    name##_req_put(out, &r); \
    }
#include "cluster/rpc.def"

#include "replication/rpc.def"

#include "fs/rpc.def"
#undef RPC
#undef ARG
#undef RET
#undef END
#define RPC(name, id, kind)                             \
    static void fill_##name##_rep(struct wire_out *out) \
    {                                                   \
        uint64_t at = 0;                                \
        struct name##_rep r = { .wire_version = VALUE_u8(&at) };
#define ARG(type, field)
#define RET(type, field) r.field = VALUE_##type(&at);
#define END(name)            \
    name##_rep_put(out, &r); \
    }
#include "cluster/rpc.def"

#include "replication/rpc.def"

#include "fs/rpc.def"
#undef REC
#undef RPC
#undef F
#undef ARG
#undef RET
#undef END
#undef END_REC

/* ---- the list ---- */

const struct codec codecs[] = {
#define REC(name) { #name, 0, again_##name, fill_##name },
#define RPC(name, id, kind)                                      \
    { #name " req", id, again_##name##_req, fill_##name##_req }, \
        { #name " rep", id, again_##name##_rep, fill_##name##_rep },
#define F(type, field)
#define ARG(type, field)
#define RET(type, field)
#define END(name)
#define END_REC(name)
#include "cluster/rpc.def"

#include "replication/rpc.def"

#include "fs/rpc.def"
#undef REC
#undef RPC
#undef F
#undef ARG
#undef RET
#undef END
#undef END_REC
};

const size_t codec_count = ARRAY_LEN(codecs);
