/* What the files of the client library share. */
#ifndef DFS_FS_CLIENT_CLIENT_INT_H
#define DFS_FS_CLIENT_CLIENT_INT_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/clock.h"
#include "cluster/base/htab.h"

#include "fs/client/atime.h"
#include "fs/client/bufs.h"
#include "fs/client/client.h"
#include "fs/client/dir_news.h"
#include "fs/client/events.h"
#include "fs/client/meta.h"
#include "fs/client/node.h"
#include "fs/client/peers.h"
#include "fs/client/room.h"
#include "fs/client/streams.h"
#include "fs/client/wait.h"

#define OPEN_EXTENTS    64    /* that come with an open */
#define PAGE_EXTENTS    4096  /* in one more question */
#define PART_EXTENTS    128   /* when there is no memory for all of them */
#define SEEN_SLOTS      65536 /* closed inodes whose version is remembered */
#define STREAMS_OF_FILE 4     /* sequential readers that a handle keeps apart */

struct readahead;
struct lents;
struct locks;

/* A sequential reader of a handle. */
struct ra_reader {
    uint64_t next;   /* where it is expected */
    uint64_t issued; /* pages are asked for up to here */
    uint64_t window; /* bytes */
    uint32_t hits;
    uint32_t used; /* for replacing the oldest */
};

struct file {
    struct node *node;
    int flags;
    bool writes;
    pthread_mutex_t mu; /* guards all below */
    uint32_t error_seq; /* of the node: what was reported here */
    struct ra_reader reader[STREAMS_OF_FILE];
    uint32_t reads;
};

struct seen {
    uint64_t ino;
    uint64_t data_version;
};

struct client {
    const struct conf *conf;
    client_content_fn *on_content; /* set before anybody else uses the client */
    void *on_content_arg;
    char host[256];
    struct meta *meta;
    struct client_events *events;
    struct locks *locks;
    struct dir_news news;
    struct atimes atimes;
    struct peers *peers;
    struct streams *streams;
    struct readahead *ra;
    struct lents *lents; /* NULL: client.local_reads is 0 */
    struct bufs bufs;
    struct rooms rooms;

    pthread_mutex_t mu; /* guards all below, and counts in nodes */
    pthread_cond_t wake;
    struct htab nodes;
    struct list dirty;
    struct seen *seen; /* SEEN_SLOTS */
    uint64_t *closed;  /* inodes to tell the masters about */
    size_t closed_count;
    size_t closed_cap;
    uint64_t *telling; /* being told right now */
    size_t telling_count;
    pthread_cond_t told;
    uint64_t epoch; /* of the master that knows all our open inodes, under this session: */
    uint64_t epoch_session;
    bool stopping;
    atomic_bool ending; /* nobody waits for what was read ahead */
    pthread_t committer;
    pthread_t pinger;
    bool threads;
    uint64_t hurry_ms; /* guarded by: mu; when shared nodes are to be committed; 0: no need */
    bool hears;        /* guarded by: mu; of events */

    _Atomic uint64_t map_extents; /* in the maps of all nodes */
    _Atomic uint64_t packets, read_requests, read_failovers, sealed_early, commits;
};

static inline uint64_t client_deadline(const struct client *c)
{
    return clock_mono_ms() + c->conf->client_timeout;
}

/* Waits until the masters are no longer being told that this inode is closed; takes it off that
 * list. Before an open is asked for. */
void client_reopening(struct client *c, uint64_t ino);
/* A node that others have open was written to: its commit comes before the next pass. */
void client_hurry(struct client *c);
/* The locks; locks_init() before anybody uses the client. */
void locks_init(struct client *c);
void locks_fini(struct client *c); /* after client_locks_end(); before locks_init(), too */
/* Another master leads, or the session is a new one: it is told what is held. */
int locks_tell(struct client *c, uint64_t epoch);
/* The parts of client_open() and client_close(): with a session that another process has left, and the
 * rest of what it told; the threads end; masters are told what they should know before; the end. */
int client_start(const struct conf *conf, const char *name, const struct meta_left *left,
                 struct wire_in *rest, struct client **ret, struct why *why);
void client_stop(struct client *c);
void client_tell(struct client *c);
void client_free(struct client *c);
/* The locks that another process has left. */
int locks_resume(struct client *c, struct wire_in *in);
/* The committing thread's pass over all dirty nodes; with all: whatever its age, and errors count. */
int client_commit_pass(struct client *c, bool all);

#endif
