/* Files of replicas that block servers on this machine have lent: what of them is in the kernel's page
 * cache is read without asking anybody (HDFS calls this short-circuit local reads).
 *
 * Only the page cache (RWF_NOWAIT): what has to come from a disk the server reads, because it measures
 * its disks and a wait for it has an end. Sums are compared like everywhere else; whatever does not
 * match is left to the ordinary way, which knows what to do about it. Neither the state of the replica
 * nor that of its server matters: bytes that were acknowledged never change in place.
 *
 * Any thread. A file that was removed keeps its space for as long as it is lent: so one is given back
 * a few seconds after its last use.
 */
#ifndef DFS_FS_CLIENT_LENT_H
#define DFS_FS_CLIENT_LENT_H

#include "cluster/base/base.h"

struct client;
struct lents;

struct lents *lents_new(struct client *c);
void lents_free(struct lents *l); /* NULL is fine */

/* Reads [off, off + len) of a block, or less from its start. Returns how many bytes were read and
 * are right; 0: ask a server. */
uint32_t lents_read(struct lents *l, uint64_t block, uint32_t off, uint32_t len, uint8_t *dst);

/* Gives back what was not used lately. Every second or so. */
void lents_tick(struct lents *l);

/* Bytes read this way. */
uint64_t lents_bytes(const struct lents *l);

#endif
