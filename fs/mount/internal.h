/* What the files of the mount share; nobody else includes it. */
#ifndef DFS_FS_MOUNT_INTERNAL_H
#define DFS_FS_MOUNT_INTERNAL_H

#define FUSE_USE_VERSION 314

#include "cluster/base/base.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/limits.h"
#include "cluster/base/list.h"

#include "fs/client/client.h"
#include "fs/mount/guard.h"
#include "fs/mount/handles.h"
#include "fs/mount/mount.h"

#define WRITE_BYTES      ((unsigned)MIB) /* largest read and write request of the kernel */
#define ROOT_WAIT_MS     900             /* statfs and the root wait for a master this long */
#define ROOT_BUSY_MS     400             /* not at all when somebody has waited so long already */
#define KEEPER_SPACES    64              /* inodes whose statfs is remembered */
#define XATTR_MEMO_SLOTS 8192
#define TOUCHED_SLOTS    4096

/* Which extended attributes inodes do not have, as seen lately: the kernel asks for
 * security.capability on every write, and for access lists before it lets somebody in. */
struct xattr_memo {
    pthread_mutex_t mu;
    struct {
        uint64_t ino;
        uint64_t until_ms;
        uint8_t flags;         /* of the inode: enum attr_flag */
    } slots[XATTR_MEMO_SLOTS]; /* guarded by: mu; by the inode's low bits */
};

/* Entries of a directory as the master gave them in one answer. Zeroed: an empty page. */
struct dir_page {
    struct dir_page_entry {
        uint64_t off; /* continue behind this entry */
        size_t name;  /* where it starts in names, ended by a zero byte */
        uint32_t mode;
        bool has_attr;
        struct attr attr; /* only ino without has_attr */
    } * entries;
    size_t count, cap;
    char *names;
    size_t names_len, names_cap;
    size_t counted;  /* bytes, in the sum of all pages */
    uint64_t cookie; /* where the next page starts */
    bool eof;        /* no page behind this one */
    uint64_t touch;  /* touch_now() before it was asked for */
};

/* A question to the masters and the answer that came last. */
struct keeper_ask {
    uint64_t asked; /* counts requests */
    uint64_t done;  /* the last one that is answered */
    int err;        /* of the last answer that came; 0 when none did yet */
};

/* What df shows for one inode: quotas and copies differ from directory to directory. */
struct keeper_space {
    struct keeper_ask ask;
    uint64_t ino;  /* 0: free */
    uint64_t used; /* the keeper's count of requests then: the oldest makes room */
    bool known;
    struct statfs_rep statfs; /* last known */
};

struct groups; /* caller.c */

/* Asks the masters for what is answered even without one, in a thread of its own. */
struct keeper {
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool stop;              /* the rest is guarded by: mu */
    uint64_t busy_since_ms; /* 0: no call is under way */
    struct keeper_ask ask_root;
    struct attr root; /* last known */
    struct keeper_ask ask_list;
    struct dir_page list; /* the root's first page, last known */
    bool list_known;
    bool list_fresh; /* the last question was answered */
    uint64_t requests;
    struct keeper_space space[KEEPER_SPACES]; /* the first one is the root's */
};

struct inval_item;

/* Invalidations that wait for their thread. */
struct inval_queue {
    struct mount *m;
    void (*handle)(struct mount *m, struct inval_item *it);
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    struct list items; /* guarded by: mu, as the rest */
    size_t count;
    bool busy;    /* with one that is not in the list any more */
    bool running; /* hints are taken */
    bool stopping;
};

struct mount {
    struct client *client;
    const struct conf *conf;
    const struct mount_options *o;
    uint64_t root;    /* the inode that is FUSE_ROOT_ID here */
    double timeout_s; /* of attributes and names in the kernel */
    struct fuse_session *se;
    struct xattr_memo memo;
    struct groups *groups;
    _Atomic uint64_t touch_count;
    _Atomic uint64_t touched[TOUCHED_SLOTS]; /* touch_count of the last change, by inode */
    struct keeper keeper;
    struct guard guard;
    int upgrades;        /* signalfd for SIGUSR2 */
    uint64_t renewed_ms; /* when a dead guard was replaced last */
    unsigned upgrade_tries;
    atomic_bool leaving; /* no worker serves; this process makes room for another one */
    struct handles *handles;
    pthread_mutex_t adopt_mu; /* one handle at a time */
    pthread_t adopter;
    bool adopting;
    bool stopped;          /* by a signal, before it served */
    atomic_bool connected; /* to the masters, by a process that takes over */
    struct metrics_http *metrics;
    struct inval_queue inval_names;
    struct inval_queue inval_pages;
    struct inval_queue inval_answers;
    uint64_t init_flags; /* for the answer to the kernel's greeting, until that is given */
    bool can_expire;     /* the kernel knows how to look a name up again without forgetting it */
    int signals;         /* from daemon_signals() */
    pthread_t main_thread;
    pthread_t signal_thread;
    atomic_bool loop_done; /* no worker serves any more */
    atomic_bool left_busy; /* out of the tree, but open files still keep the connection */
    atomic_bool tuned;     /* the kernel's read-ahead was raised */
    _Atomic uint64_t failure_logged_ms;
};

/* ---- caller.c ---- */

/* Who asks. groups is what cr points to: do not copy. */
struct caller {
    struct cred cr;
    uint32_t groups[LIMIT_GROUPS];
};

/* For what the mount does on its own, and what needs no permission any more: an open handle's. */
extern const struct cred cred_root;

struct groups *groups_new(void);
void groups_free(struct groups *g); /* NULL is fine */
/* The caller as the masters are to see it, with its supplementary groups. */
void caller_of(fuse_req_t req, struct caller *ret);
/* The same without its groups: for what they do not matter to. */
struct cred caller_ids(fuse_req_t req);
/* The kernel takes the caller for root, the masters do not: what it permits is not permitted yet. */
bool caller_squashed(fuse_req_t req);

/* ---- common.c ---- */

struct mount *mount_of(fuse_req_t req);
/* Between the kernel's inode numbers and ours: only the root differs. */
uint64_t to_ino(const struct mount *m, fuse_ino_t node);
fuse_ino_t to_node(const struct mount *m, uint64_t ino);
void attr_to_stat(const struct mount *m, const struct attr *a, struct stat *ret);
/* Remembers what a says of extended attributes, too. */
void attr_to_entry(struct mount *m, const struct attr *a, struct fuse_entry_param *ret);
/* 0, or DFS_ENAMETOOLONG. */
int name_check(const char *name);
/* Replies with the errno for err (0 too). Failures of the cluster become EIO and are logged. */
void reply_err(fuse_req_t req, const char *op, fuse_ino_t node, int err);
/* err != 0 replies that; otherwise the entry or attributes. */
void reply_entry(fuse_req_t req, const char *op, fuse_ino_t parent, int err, const struct attr *a);
void reply_attr(fuse_req_t req, const char *op, fuse_ino_t node, int err, const struct attr *a);
/* This mount changed the inode (of a directory: its names). Called before the kernel is told, so that
 * what was read from the masters earlier is not taken for newer later. */
void touch(struct mount *m, uint64_t ino);
uint64_t touch_now(struct mount *m);
/* Was it (or one that shares its slot) changed since touch_now() gave that? */
bool touched_since(struct mount *m, uint64_t ino, uint64_t since);

void xattr_memo_init(struct xattr_memo *x);
void xattr_memo_fini(struct xattr_memo *x);
void xattr_memo_put(struct mount *m, const struct attr *a);
void xattr_memo_forget(struct mount *m, uint64_t ino);
/* true: the inode has nothing that these bits of enum attr_flag stand for. false: it may. */
bool xattr_memo_none(struct mount *m, uint64_t ino, uint8_t flags);
/* Somebody writes to it: it is no longer what it was trusted for (security.capability). */
void drop_capability(struct mount *m, uint64_t ino);

/* ---- init_ext.c ---- */

/* Before the kernel's greeting is answered by libfuse: what is to be added to that. */
void init_ext_start(struct mount *m, const void *greeting, size_t len);
/* For libfuse to write with; userdata: the mount. */
ssize_t init_ext_writev(int fd, struct iovec *iov, int count, void *userdata);

/* ---- keeper.c ---- */

/* root is the first known value. */
int keeper_start(struct mount *m, const struct attr *root);
void keeper_stop(struct mount *m);
/* Fresh, or the last known after ROOT_WAIT_MS or when no master answers. */
int keeper_get_root(struct mount *m, struct attr *ret);
/* The first page of the root's entries in place of *ret. *ret_late: it is what was known last. */
int keeper_get_list(struct mount *m, struct dir_page *ret, bool *ret_late);
/* The root's when nothing is known of the inode. */
int keeper_get_statfs(struct mount *m, uint64_t ino, struct statfs_rep *ret);

/* ---- inval.c ---- */

/* From now on what others change is dropped from the kernel's caches. Before workers serve. */
void inval_start(struct mount *m);
/* After the last worker has ended. */
void inval_stop(struct mount *m);
/* Are hints to be taken? A process that takes over drops all pages of open files itself. */
void inval_take(struct mount *m, bool on);
/* No thread waits for the kernel, no answer is outstanding. */
bool inval_idle(struct mount *m);
/* True: pages of this file (a's ino and mode) are old, and the answer is given, by answer(), once they
 * are gone. */
typedef void inval_answer_fn(fuse_req_t req, const struct attr *a);
bool inval_answer(fuse_req_t req, const struct attr *a, inval_answer_fn *answer);

/* The answer is given once the kernel has no pages of this range any more. */
void inval_range_answer(fuse_req_t req, const struct attr *a, off_t off, size_t len,
                        inval_answer_fn *answer);

/* ---- ops_lock.c ---- */

/* A descriptor is closed: its process has no POSIX locks on this file any more. */
void locks_close(struct mount *m, fuse_ino_t node, const struct fuse_file_info *fi);
/* The last one was: locks of the open file are over. fh: its number. */
void locks_release(struct mount *m, fuse_ino_t node, const struct fuse_file_info *fi, uint64_t fh);

/* ---- ops_*.c ---- */

void ops_add_attr(struct fuse_lowlevel_ops *ops);
void ops_add_dir(struct fuse_lowlevel_ops *ops);
void ops_add_file(struct fuse_lowlevel_ops *ops);
void ops_add_lock(struct fuse_lowlevel_ops *ops);
void ops_add_name(struct fuse_lowlevel_ops *ops);
void ops_add_xattr(struct fuse_lowlevel_ops *ops);

/* ---- ops_dir.c ---- */

/* The page at page->cookie in place of what is in it. */
int dir_page_read(struct mount *m, uint64_t ino, bool plus, struct dir_page *page);
void dir_page_copy(struct dir_page *to, const struct dir_page *from);
void dir_page_fini(struct dir_page *page);

/* ---- takeover.c ---- */

/* Programs have the mount in use already: waits for the masters as long as it takes, or until a signal
 * to stop (m->stopped). */
int takeover_connect(struct mount *m, const char *name, struct attr *ret_root, struct why *why);
/* The first exchange with the kernel; the guard is told that the mount serves. */
int takeover_greet(struct mount *m, struct why *why);
/* The thread that takes over all open files; takeover_stop() after the workers have ended. */
void takeover_start(struct mount *m);
void takeover_stop(struct mount *m);
/* The object behind a number of the kernel's. Errors: DFS_ESTALE, and as file_open(). */
int takeover_handle(struct mount *m, uint64_t fh, void **ret);

/* Something went wrong that this open file has not told yet. */
bool fileh_owes(const void *obj);
/* The kernel's number of an open file. */
uint64_t fileh_number(const struct fuse_file_info *fi);
/* In ops_file.c and ops_dir.c: objects for handles of the process before. */
int fileh_adopt(struct mount *m, uint64_t fh, const struct handle *what, void **ret);
void *dirh_adopt(uint64_t ino);

/* ---- upgrade.c ---- */

/* Before any thread starts. */
void upgrade_set_up(void);
/* Once it is mounted, before anything is read from it. */
int upgrade_io(struct fuse_session *se);
/* Around the loop: from now on this thread, and those it starts, may be woken. */
void upgrade_listen(bool on);
/* Another version of the program was asked for. On the signal thread. */
void upgrade_begin(struct mount *m);
/* The loop has ended for it. True: all is said, the process is to end without another word. */
bool upgrade_leave(struct mount *m);

/* In mount.c: all but workers and signals. */
void mount_stop_threads(struct mount *m);

/* ---- work.c ---- */

/* client.cache is shared out. Before workers serve. */
void work_set_up(uint64_t memory);
/* Before the next request is read into p: this worker's last one is answered. */
void work_wait(void *p, size_t size);
/* It was read, or n is negative. */
void work_took(const void *p, ssize_t n);
/* A buffer of WRITE_BYTES that belongs to this thread. */
void *thread_buffer(void);

/* ---- ops_wrap.c ---- */

/* Around all of them, once they are complete: what a program does not wait for any more is broken off. */
void ops_wrap(struct fuse_lowlevel_ops *ops);

#endif
