/* Pages of files that were read before anybody asked.
 *
 * A page is BUF_BYTES of a file at a multiple of that. Handles that read on from where they were get
 * the next pages loaded by a few threads; files that fit into one page are loaded whole by their
 * first reader. Pages are dropped when their range is written or the content changes. Any thread;
 * the own lock is taken below a node's mu, never the other way round.
 */
#ifndef DFS_FS_CLIENT_READAHEAD_H
#define DFS_FS_CLIENT_READAHEAD_H

#include "fs/client/client_int.h"

struct readahead *readahead_start(struct client *c);
/* Ends the threads; nothing is read ahead any more. */
void readahead_stop(struct readahead *ra);
void readahead_free(struct readahead *ra); /* after all nodes */

/* A handle reads [off, off + len) of a file of that size: asks for what will come next. */
void readahead_note(struct file *f, uint64_t off, size_t len, uint64_t size);
/* Copies from the page at off, waiting for it if it is being loaded. Returns how many bytes, up to
 * the end of the page or of the file; 0: not here, read it yourself. */
size_t readahead_read(struct node *n, void *p, size_t len, uint64_t off, uint64_t deadline_ms);
/* The same without a copy: the bytes stay at ret->p until readahead_unview(), whatever happens to the
 * file. */
size_t readahead_view(struct node *n, size_t len, uint64_t off, uint64_t deadline_ms,
                      struct read_view *ret);
void readahead_unview(struct readahead *ra, struct read_view *v);
/* Loads the page at off in the calling thread, unless it is there. */
void readahead_load(struct node *n, uint64_t off, uint64_t deadline_ms);
/* Pages that there is no room for any more go. */
void readahead_tick(struct readahead *ra);
/* The range changed. */
void readahead_drop(struct node *n, uint64_t off, uint64_t len);

#endif
