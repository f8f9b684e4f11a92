/* Between the files of the writer. */
#ifndef DFS_FS_CLIENT_WRITER_INT_H
#define DFS_FS_CLIENT_WRITER_INT_H

#include "fs/client/client_int.h"
#include "fs/client/writer.h"

/* One action of the core, carried out and told. Errors end the run; failures that the core can deal
 * with are DFS_OK. n->io is held, n->mu is not. */
int writer_step(struct node *n, const struct wcore_action *a, uint64_t deadline_ms);
/* Takes the answers that are there. */
void writer_poll(struct node *n);
/* Opens the next block ahead of time when the current one is half full. */
void writer_prepare(struct node *n, uint64_t deadline_ms);
/* Acknowledged packets become extents. n->mu is held. */
void writer_retire_locked(struct node *n);
/* The open stream leaves the node if all of it is acknowledged. n->mu is held. */
struct stream *writer_detach_locked(struct node *n);
/* Makes the first len bytes of a block durable on its servers. DFS_ENOBLOCK: no master knows it. */
int writer_sync_block(struct client *c, uint64_t block, uint32_t len, uint64_t deadline_ms);
/* The session is another one: what was not committed is written again. n->io is held. */
int writer_recover(struct node *n, uint64_t deadline_ms);

void wbuf_free(struct client *c, struct wbuf *b);

#endif
