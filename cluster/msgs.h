/* Messages of the cluster layer; see rpc.def. */
#ifndef DFS_CLUSTER_MSGS_H
#define DFS_CLUSTER_MSGS_H

#include "cluster/wire/wire.h"

#define DFS_PROTOCOL     1 /* version of the wire protocol; N talks with N-1 */
#define CLUSTER_ID_BYTES 16

enum hello_purpose { HELLO_QUERY = 1, HELLO_COMMAND = 2, HELLO_BLOCK = 3 };

#define WIRE_DEFS "cluster/rpc.def"
#include "cluster/wire/gen.h.inc"

#endif
