/* What the commands for operators of block servers share: one server's state, words for it. */
#ifndef DFS_FS_CLI_OPERATE_H
#define DFS_FS_CLI_OPERATE_H

#include "cluster/base/limits.h"

#include "fs/cli/cli.h"
#include "fs/client/client.h"

/* "live", "suspect", "dead"; "ok", "full" ...; "decommissioning" ... "none" for what is not there. */
const char *operate_state(uint8_t member_state);
const char *operate_volume_state(uint8_t volume_state);
const char *operate_intent(uint8_t server_intent);
const char *operate_maintenance(uint8_t server_maintenance);
const char *operate_trouble(uint8_t member_trouble);

/* dfs status, as it comes: *ret borrows from reply, which the caller has initialised. Complains.
 * Returns an enum cli_status, as all below. */
int operate_status(const struct cli *cli, struct wire_out *reply, struct status_rep *ret);
/* The same, for one server that is known by its id; *ret borrows from reply. */
int operate_server(const struct cli *cli, uint32_t node, struct wire_out *reply,
                   struct server_info *ret);

/* The server that an operator names, by id, address or host. */
int operate_find(const struct cli *cli, const char *name, const struct status_rep *rep,
                 struct server_info *ret);

/* Tells the master what the operator wants. A refusal is complained about with its reason, and the
 * blocks that have no other copy are named. *ret borrows from reply. */
int operate_intend(const struct cli *cli, const struct server_intent_req *req,
                   struct wire_out *reply, struct server_intent_rep *ret);

#endif
