/* Messages of the replication layer; see rpc.def. */
#ifndef DFS_REPLICATION_MSGS_H
#define DFS_REPLICATION_MSGS_H

#include "cluster/msgs.h"

enum block_state { BLOCK_OPEN = 1, BLOCK_SEALED = 2, BLOCK_DELETED = 3 };
enum block_kind { BLOCK_STREAM = 1, BLOCK_PACK = 2 };
enum replica_state { REPLICA_OPEN = 1, REPLICA_SEALED = 2, REPLICA_DAMAGED = 3 };
enum replica_op { REPLICA_ADD = 1, REPLICA_DROP = 2 };
enum order_kind { ORDER_COPY = 1, ORDER_DELETE = 2, ORDER_SEAL = 3 };
enum member_state { MEMBER_LIVE = 1, MEMBER_SUSPECT = 2, MEMBER_DEAD = 3 };
/* What operators want of a server; kept in its record. */
enum server_intent { INTENT_NONE = 0, INTENT_DECOMMISSION = 1, INTENT_DECOMMISSIONED = 2 };
/* It is away for a while: asked for by an operator, or by a clean stop until it is back. */
enum server_maintenance { MAINTENANCE_NONE = 0, MAINTENANCE_ASKED = 1, MAINTENANCE_STOP = 2 };
enum intent_field {
    INTENT_FIELD_INTENT = 1,
    INTENT_FIELD_MAINTENANCE = 2,
    INTENT_FIELD_LEAVING = 4
};
enum volume_state { VOLUME_OK = 1, VOLUME_FULL = 2, VOLUME_FAILED = 3, VOLUME_LEAVING = 4 };
enum volume_op { VOLUME_ADD = 1, VOLUME_REMOVE = 2, VOLUME_KEEP = 3 };
enum member_trouble { TROUBLE_NONE = 0, TROUBLE_SLOW = 1, TROUBLE_HUNG = 2 };
enum write_flag { WRITE_SYNC = 1, WRITE_LAST = 2, WRITE_COPY = 4, WRITE_FILE = 8 };
enum scrub_state_kind { SCRUB_RESTING = 1, SCRUB_RUNNING = 2, SCRUB_ORDERED = 3 };
enum heartbeat_flag {
    HEARTBEAT_REGISTER = 1,
    HEARTBEAT_REPORT = 2,
    HEARTBEAT_SOON = 4 /* there are or will be orders: the next one is to come in a moment */
};
/* Of blocks that have copies enough. */
enum misplaced {
    MISPLACED_HOST = 1,  /* two copies on one host */
    MISPLACED_RACK = 2,  /* all on one rack although there are two */
    MISPLACED_LABEL = 4, /* fewer copies on a label than the rule wants, and could be there */
};

#define RANGE_BLOCKS 1024 /* block ids that one digest covers */

#define WIRE_DEFS "replication/rpc.def"
#include "cluster/wire/gen.h.inc"

/* The part of a range digest that one replica gives (splitmix64 of both). */
uint64_t replica_mix(uint64_t block, uint32_t len);

#endif
