/* One open inode in this client: what the masters know, what is acknowledged and not yet committed,
 * what is still in memory. All handles of the inode share it.
 *
 * Locks, in this order:
 *   io       who sends this inode's data: held over I/O. Taken by writers when a buffer is full, by
 *            flushes, truncates and the committing thread; not by readers.
 *   mu       everything else; short, never held over I/O
 *   client's mu (the table and the reference counts)
 *
 * A read sees, from top to bottom: buffers (dirty), map. The map has what is acknowledged (todo,
 * flying) over what the masters sent.
 */
#ifndef DFS_FS_CLIENT_NODE_H
#define DFS_FS_CLIENT_NODE_H

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/htab.h"

#include "fs/client/client.h"
#include "fs/client/extmap.h"

struct writer;

struct node {
    struct client *c;
    uint64_t ino;
    struct hnode by_ino;
    struct list dirty_link; /* in the client's list of those with something to commit */
    uint32_t refs;          /* guarded by: c->mu */
    uint32_t handles;       /* guarded by: c->mu */
    uint32_t writers;       /* handles that may write; guarded by: c->mu */
    bool dirty_listed;      /* guarded by: c->mu */

    pthread_mutex_t io; /* see node_io_lock() */

    pthread_mutex_t mu;
    pthread_cond_t committed; /* committing, append_only or appending became false */
    struct attr attr;         /* as the masters said last */
    uint64_t size;            /* with what is not committed */
    int64_t mtime;            /* of the last write here, 0 = none that is not committed */
    struct extmap map;
    uint64_t from;    /* the masters' extents are known from here ... */
    uint64_t known;   /* ... up to here; UINT64_MAX: all */
    bool parted;      /* the map was dropped for want of memory: only what is needed is asked for */
    size_t counted;   /* extents of the map in c->map_extents */
    bool stale;       /* somebody else changed the content: ask again before reading */
    uint64_t foreign; /* counts changes of the content by others that were noticed */
    uint64_t renewed; /* foreign, when what others cache of it (the kernel) was renewed last */
    bool synced_before; /* what was in the file before our writes is on disk */
    uint64_t unsynced;  /* counts when that became false */
    struct extmap todo;
    struct extmap flying;
    bool committing;
    bool append_only;      /* writes at offsets wait: what is buffered is an append */
    bool appending;        /* and todo belongs behind the end, wherever that is */
    uint64_t append_from;  /* where the end was thought to be */
    int error;             /* of writes that had returned already */
    uint32_t error_seq;    /* counts them; every handle reports each once */
    bool error_told;       /* the last one was reported: who opens the file now is not concerned */
    struct writer *writer; /* NULL until the first write */

    atomic_bool shared; /* others have it open, too */
    atomic_bool paged;  /* read or written through pages since it was opened here */
    atomic_bool cached; /* by who appends to it, and is not told of what is appended */
    atomic_uint pages;  /* read-ahead pages of it; guarded by the read-ahead's lock, read without */
};

/* Counted; NULL when the inode is not open here. */
struct node *node_find(struct client *c, uint64_t ino);
/* The same, made when there is none. */
struct node *node_get(struct client *c, uint64_t ino);
/* All of them, counted; the array is to be freed. */
struct node **node_all(struct client *c, size_t *ret_count);
void node_ref(struct node *n);
/* Takes n->io. Errors: DFS_ETIMEOUT, DFS_EINTR (also behind a shield: nothing is begun yet). */
int node_io_lock(struct node *n, uint64_t deadline_ms);
void node_put(struct node *n); /* NULL is fine */

/* The node has something that the committing thread should look at. With n->mu or without. */
void node_mark_dirty(struct node *n);
/* The committing thread's: nothing is left to do unless somebody writes again. n->mu is held. */
bool node_clean_locked(const struct node *n);

/* Fresh attributes and extents from a master's answer (open, or extents), which begin at `from`: fresh
 * ones take the place of the map, others continue it. n->mu is held. False: the answer is older than
 * what is known already; ask again. */
bool node_learn_locked(struct node *n, const struct attr *a, struct wire_list extents, bool more,
                       uint64_t from, bool fresh);
/* The map has become larger. */
void node_count_locked(struct node *n);
/* Attributes that came with another answer. */
void node_learn_attr_locked(struct node *n, const struct attr *a);
/* What this client has written shows in the attributes: size, times. */
void node_overlay_locked(const struct node *n, struct attr *a);
/* The same for any inode, if it is open here; and the node learns what is news in them. */
void node_overlay(struct client *c, struct attr *a);
/* The content is another one than caches above have: somebody else changed it, or an append that did
 * not go through them. */
void node_foreign_locked(struct node *n);
/* What readers and stat see: an append has no place before it is committed. */
uint64_t node_visible_locked(const struct node *n);
/* The size follows from the attributes and what is not committed. */
void node_resize_locked(struct node *n);

/* Bytes of the file may be in the servers' memory only, and the writer does not know which. */
void node_unsynced_locked(struct node *n);
/* Remembers an error of a write that had returned. n->mu is held. */
void node_fail_locked(struct node *n, int err);

/* Extents of [off, end), or fresh ones when they are stale. Errors as the query's. */
int node_fetch(struct node *n, uint64_t off, uint64_t end, uint64_t deadline_ms);
/* The same; with DFS_OK n->mu is held, and they are known. */
int node_fetch_locked(struct node *n, uint64_t off, uint64_t end, uint64_t deadline_ms);
/* When all maps have become larger than their share of the memory some are dropped. */
void nodes_tick(struct client *c);

#endif
