/* The first frame of every stream connection, both ways: versions and clusters are compared before
 * anything else is said. */
#ifndef DFS_CLUSTER_NET_HELLO_H
#define DFS_CLUSTER_NET_HELLO_H

#include "cluster/msgs.h"

#define HELLO_BIT(purpose) (1u << (purpose))

/* The answering side: reads the request, fills rep (initialised by the caller; also on refusals,
 * so that the other end can tell a person what differs).
 * purposes: HELLO_BIT()s that are served here. cluster: empty when not known yet.
 * Errors: DFS_EMALFORMED (rep stays empty), DFS_EVERSION, DFS_EWRONGCLUSTER, DFS_EINVAL (purpose). */
int hello_answer(struct slice msg, unsigned purposes, struct slice cluster, uint32_t node,
                 struct wire_out *rep, uint8_t *ret_purpose);

/* The calling side: judges what came back. peer: for the sentence. status: of the reply.
 * Errors: as above, or the status. */
int hello_judge(const char *peer, int status, struct slice msg, struct slice cluster,
                uint32_t *ret_node, struct why *why);

#endif
