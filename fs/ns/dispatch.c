/* Calls the handlers by the tables of messages. */
#include "fs/ns/ns_core.h"

#define ARG(type, field)
#define RET(type, field)
#define END(name)
#define REC(name)
#define F(type, field)
#define END_REC(name)
#define KIND_QUERY(name)
#define KIND_BLOCK(name)
#define KIND_CONTROL(name)

#define KIND_COMMAND(name) \
    case RPC_##name:       \
        return NS_KIND_COMMAND;
#define KIND_LOG(name) \
    case RPC_##name:   \
        return NS_KIND_LOG;
#define RPC(name, id, kind) KIND_##kind(name)

enum ns_kind ns_kind(uint16_t type)
{
    switch (type) {
#include "replication/rpc.def"

#include "fs/rpc.def"
    default:
        return NS_KIND_NONE;
    }
}

#undef KIND_COMMAND
#undef KIND_LOG

#define KIND_COMMAND(name)                                                          \
    static int run_##name(struct ns_tx *tx, struct slice msg, struct wire_out *out) \
    {                                                                               \
        struct name##_req req;                                                      \
        struct name##_rep rep = { 0 };                                              \
        int err = name##_req_get(msg, &req);                                        \
                                                                                    \
        err = err != 0 ? err : ns_do_##name(tx, &req, &rep);                        \
        if (err == 0) {                                                             \
            name##_rep_put(out, &rep);                                              \
        }                                                                           \
        return err;                                                                 \
    }
#define KIND_LOG(name) KIND_COMMAND(name)

#include "replication/rpc.def"

#include "fs/rpc.def"

#undef KIND_COMMAND
#define KIND_COMMAND(name) \
    case RPC_##name:       \
        return run_##name(tx, msg, out);

int ns_dispatch(struct ns_tx *tx, uint16_t type, struct slice msg, struct wire_out *out)
{
    switch (type) {
#include "replication/rpc.def"

#include "fs/rpc.def"
    default:
        return DFS_EUNKNOWNRPC;
    }
}
