/* What answers to this client's own commands told of directories.
 *
 * The kernel asks for a directory's attributes after every name made or removed in it. The master's
 * answer to the command has them already; they are good for a moment only, because the kernel keeps
 * what it is told for client.attr_timeout again. Any thread.
 */
#ifndef DFS_FS_CLIENT_DIR_NEWS_H
#define DFS_FS_CLIENT_DIR_NEWS_H

#include "cluster/base/base.h"

#include <pthread.h>

#include "fs/msgs.h"

#define DIR_NEWS_SLOTS 256
#define DIR_NEWS_MS    50

struct dir_news {
    pthread_mutex_t mu;
    struct {
        struct attr attr; /* ino 0: none */
        uint64_t at_ms;
        uint64_t changes;   /* by other commands of this client */
    } slot[DIR_NEWS_SLOTS]; /* by inode; guarded by: mu */
};

void dir_news_init(struct dir_news *d);
void dir_news_fini(struct dir_news *d);
/* Before the command is sent: what dir_news_put() has to be given. */
uint64_t dir_news_before(struct dir_news *d, uint64_t ino);
/* An encoded attr from the answer; an empty one is ignored, as is one that another command of this
 * client may have made old. */
void dir_news_put(struct dir_news *d, uint64_t before, struct slice attr);
/* Another command changes this directory: around it, before and after. 0: any directory. */
void dir_news_drop(struct dir_news *d, uint64_t ino);
bool dir_news_get(struct dir_news *d, uint64_t ino, uint64_t max_age_ms, struct attr *ret);

#endif
