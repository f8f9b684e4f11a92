/* One question or command to the masters, as most functions of the client are. */
#ifndef DFS_FS_CLIENT_CALL_H
#define DFS_FS_CLIENT_CALL_H

#include "fs/client/client_int.h"

/* One round trip: encodes a request of this kind, decodes the reply into r; the reply borrows from
 * the call until meta_end(). */
#define DEFINE_CALL(name)                                                                \
    static int call_##name(struct client *c, enum meta_kind kind, const struct cred *cr, \
                           struct meta_call *call, const struct name##_req *q,           \
                           struct name##_rep *r)                                         \
    {                                                                                    \
        struct slice rep;                                                                \
        int err = meta_begin(c->meta, kind, cr, client_deadline(c), call);               \
                                                                                         \
        if (err != 0) {                                                                  \
            call->link = NULL;                                                           \
            return err;                                                                  \
        }                                                                                \
        name##_req_put(call->out, q);                                                    \
        err = meta_run(call, RPC_##name, &rep);                                          \
        return err != 0 ? err : name##_rep_get(rep, r);                                  \
    }

/* Decodes an attr field and ends the call. */
static inline int call_end_with_attr(struct meta_call *call, int err, struct slice attr,
                                     struct attr *ret)
{
    if (err == 0) {
        struct wire_in in = wire_in_of(attr);

        err = attr_get(&in, ret);
    }
    meta_end(call);
    return err;
}

#endif
