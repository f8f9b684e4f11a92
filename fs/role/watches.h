/* Who looked at which inode lately and may remember what it saw: soft, and bounded.
 *
 * A fixed table that forgets: what has no place pushes something older out, and a session that did
 * not look again stops being told after a while. What clients remember without being watched ends by
 * client.attr_timeout. Any thread.
 */
#ifndef DFS_FS_ROLE_WATCHES_H
#define DFS_FS_ROLE_WATCHES_H

#include "cluster/base/base.h"

#define WATCHES_MAX (1u << 17) /* pairs of inode and session */
#define WATCH_TOLD  64         /* times that one look makes a session be told */

struct watches;

struct watches *watches_new(void);
void watches_free(struct watches *w); /* NULL is fine */

void watches_add(struct watches *w, uint64_t session, uint64_t ino);
/* Sessions to be told of a change of ino: up to max into ret, returns how many. */
size_t watches_tell(struct watches *w, uint64_t ino, uint64_t except, uint64_t *ret, size_t max);

#endif
