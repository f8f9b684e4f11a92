/* Block servers as a client knows them: where blocks are, how to reach a server, who was bad lately,
 * and idle connections to each. Any thread.
 */
#ifndef DFS_FS_CLIENT_PEERS_H
#define DFS_FS_CLIENT_PEERS_H

#include "cluster/base/addr.h"
#include "cluster/base/limits.h"
#include "cluster/net/conn.h"

#include "fs/msgs.h"

struct peers;

struct where {
    uint64_t block;
    uint32_t count;
    uint32_t node[LIMIT_REPLICATION];
};

/* host: this machine's name; its own server is nearest. cluster: borrowed. locs_max: blocks whose
 * places are remembered. */
struct peers *peers_new(const char *host, struct slice cluster, size_t locs_max);
void peers_free(struct peers *p);

/* Takes over a list of block_loc from a master's answer. DFS_EMALFORMED. */
int peers_learn(struct peers *p, struct wire_list blocks);
/* False when it is not known (any more): ask the master. Nodes come best first: live, near, not bad
 * lately. */
bool peers_where(struct peers *p, uint64_t block, struct where *ret);
/* A server lost its copy, or the whole block is to be asked for again (node 0). */
void peers_forget(struct peers *p, uint64_t block, uint32_t node);

/* Remembers for a few seconds that a server failed or was slow; longer when that was so again and again. */
void peers_mark_bad(struct peers *p, uint32_t node);
/* Servers that keep somebody waiting: which of them hang, so that not even a new connection is greeted,
 * while another server greets? A slow disk is no reason. Those are marked bad; returns the first one's
 * node, 0: none. Takes PEERS_PING_MS for each that does not answer. */
#define PEERS_PING_MS 400
uint32_t peers_hung(struct peers *p, const uint32_t *node, uint32_t count);
/* Is one of them known to hang since a moment ago? */
bool peers_known_hung(struct peers *p, const uint32_t *node, uint32_t count);
/* How long to wait for a server's greeting: less when it was found hanging a moment ago. */
uint64_t peers_greeting_ms(struct peers *p, uint32_t node, uint64_t usual_ms);
/* Those now, as an encoded list of node_ref. Returns how many. */
uint32_t peers_bad(struct peers *p, struct wire_out *out);

/* The data address and host of a node; false when unknown. */
struct peer_addr {
    uint32_t node;
    uint8_t state;
    char addr[ADDR_TEXT];
    char host[256];
};
bool peers_addr(struct peers *p, uint32_t node, struct peer_addr *ret);

/* A connection to a server, an idle one if there is one and fresh is false. Errors: as
 * conn_open_hello(); DFS_ENOENT: unknown node. */
int peers_connect(struct peers *p, uint32_t node, bool fresh, uint64_t deadline_ms,
                  struct conn **ret, bool *ret_reused);
/* False once a connection has shown that it is another machine's, or peers_far() was told that the
 * server is of no more use than that. */
bool peers_may_be_near(struct peers *p, uint32_t node);
void peers_far(struct peers *p, uint32_t node);
/* Gives a connection back that is in step. */
void peers_release(struct peers *p, uint32_t node, struct conn *c);

#endif
