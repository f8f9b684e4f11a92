/* The read side: bytes from buffers, from block servers, or zeros of holes. Any thread. */
#ifndef DFS_FS_CLIENT_READER_H
#define DFS_FS_CLIENT_READER_H

#include "fs/client/node.h"

/* Up to len bytes at off, straight from where they are. Errors: DFS_EMISSING, DFS_ETIMEOUT ... when
 * no copy could be read until the deadline. */
int reader_read(struct node *n, void *p, size_t len, uint64_t off, size_t *ret_len,
                uint64_t deadline_ms);
/* A range of one block: every copy is tried, nearest first, again and again until the deadline.
 * DFS_ENOBLOCK: the masters do not know it any more. */
int reader_fetch(struct client *c, uint64_t block, uint32_t off, uint32_t len, uint8_t *dst,
                 uint64_t deadline_ms);
/* Asks the masters where a block is. DFS_ENOBLOCK: they do not know it. */
int reader_locate(struct client *c, uint64_t block, uint64_t deadline_ms);

#endif
