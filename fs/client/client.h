/* The client library: what the mount, the commands and later gateways stand on.
 *
 * A struct client is one session with the masters. All functions may be called from any thread; each
 * thread uses connections of its own and does its work itself. Every call ends within
 * client.timeout. Errors are DFS_E* codes; err_errno() makes an errno of them.
 *
 * Data written through a file_* handle is buffered, sent in packets to a chain of block servers, and
 * made visible by a commit: at close, at fsync, and once a client.commit_interval at the latest.
 * All handles of one inode in one client share one node, so they see each other's writes at once.
 */
#ifndef DFS_FS_CLIENT_CLIENT_H
#define DFS_FS_CLIENT_CLIENT_H

#include "cluster/base/conf.h"
#include "cluster/base/err.h"

#include "replication/rule.h"

#include "fs/msgs.h"

struct client;
struct file;

/* On whose behalf. */
struct cred {
    uint32_t uid;
    uint32_t gid;
    const uint32_t *groups; /* borrowed for the call */
    uint32_t group_count;
    uint32_t umask; /* of what is made */
};

/* A flag of file_open() beside the O_ ones, with the kernel's value: opened to be run. */
#define FILE_EXEC 0x20

/* Connects, opens a session, starts the session's thread (lease, commits, read-ahead).
 * name is for people ("mount /mnt/dfs"). Waits up to client.timeout for a master.
 * conf is borrowed until client_close(). */
int client_open(const struct conf *conf, const char *name, struct client **ret, struct why *why);
/* Flushes everything, closes the session. Errors of late writes are logged. */
void client_close(struct client *c);
/* Ends the client but not its session, for another process that takes it over with client_resume(),
 * within the session's lease: *out (owned by the caller) is what it has to be told. After
 * client_sync(); no calls may be under way, handles are not closed but gone. */
void client_leave(struct client *c, struct wire_out *out);
/* In place of client_open(): another process's client, with its locks; the caller opens its files
 * again. A session that has ended meanwhile is replaced, its locks are lost. */
int client_resume(const struct conf *conf, const char *name, struct slice from, struct client **ret,
                  struct why *why);
/* Commits all dirty data of all files (sync(2), unmount). */
int client_sync(struct client *c);
/* Reading leaves access times alone; without it they follow the rules of relatime. Before any reads. */
void client_no_atime(struct client *c);

/* ---- names ---- */

int client_lookup(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                  struct attr *ret);
/* Sizes and times of files that this client is writing include what is not committed yet. */
int client_getattr(struct client *c, const struct cred *cr, uint64_t ino, struct attr *ret);
/* SET_SIZE drops or zero-extends buffered data as well. */
int client_setattr(struct client *c, const struct cred *cr, const struct setattr_req *want,
                   struct attr *ret);
/* mode holds the type: mkdir, mknod and symlink are all this. The masters take the umask off, unless
 * the directory has a default access list. */
int client_make(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                uint32_t mode, uint64_t rdev, struct slice target, struct attr *ret);
int client_link(struct client *c, const struct cred *cr, uint64_t ino, uint64_t parent,
                struct slice name, struct attr *ret);
int client_unlink(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                  bool dir);
int client_rename(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                  uint64_t new_parent, struct slice new_name, uint32_t flags);
/* Into a buffer of the caller's; *ret_len is the target's length. */
int client_readlink(struct client *c, const struct cred *cr, uint64_t ino, char *p, size_t cap,
                    size_t *ret_len);

/* want: enum perm_want. DFS_EACCES. */
int client_access(struct client *c, const struct cred *cr, uint64_t ino, unsigned want);
/* One page of a directory, for a caller that may read it: fn is called for each entry (borrowed)
 * until it returns false. *cookie goes in as where to continue (0 = start) and comes back as where
 * to go on; *ret_eof at the end. few: some dozens of entries only. */
typedef bool client_dir_fn(void *arg, const struct dir_entry *e, const struct attr *attr);
int client_readdir(struct client *c, const struct cred *cr, uint64_t ino, uint64_t *cookie,
                   bool plus, bool few, client_dir_fn *fn, void *arg, bool *ret_eof);

/* *ret_len is the value's size even when cap is 0 (then nothing is copied); DFS_ERANGE when it
 * does not fit. */
int client_getxattr(struct client *c, const struct cred *cr, uint64_t ino, struct slice name,
                    void *p, size_t cap, size_t *ret_len);
int client_listxattr(struct client *c, const struct cred *cr, uint64_t ino, void *p, size_t cap,
                     size_t *ret_len);
int client_setxattr(struct client *c, const struct cred *cr, uint64_t ino, struct slice name,
                    struct slice value, uint8_t flags);
int client_removexattr(struct client *c, const struct cred *cr, uint64_t ino, struct slice name);
int client_statfs(struct client *c, uint64_t ino, struct statfs_rep *ret);
/* DFS_EBUSY: an earlier change of a large file is still being counted; again in a moment. */
int client_setrep(struct client *c, const struct cred *cr, uint64_t ino, uint8_t repl,
                  struct attr *ret);
/* Limits of directories; for root. */
int client_quota_set(struct client *c, const struct cred *cr, const struct quota_set_req *want);
/* DFS_ENODATA: it has no quota of its own. */
int client_quota_clear(struct client *c, const struct cred *cr, uint64_t ino);
/* What an inode is charged to, the nearest first; all there are, by inode. q is borrowed during fn. */
typedef void client_quota_fn(void *arg, const struct quota_info *q);
int client_quota_get(struct client *c, const struct cred *cr, uint64_t ino, bool paths,
                     client_quota_fn *fn, void *arg);
int client_quota_list(struct client *c, const struct cred *cr, client_quota_fn *fn, void *arg);
/* Storage rules as text (replication/rule.h); "none" and "" stand for no rule. DFS_EBUSY as
 * above, DFS_EINVAL: not a rule. */
int client_setstorage(struct client *c, const struct cred *cr, uint64_t ino, struct slice rule,
                      struct attr *ret);
int client_getstorage(struct client *c, const struct cred *cr, uint64_t ino, char ret[RULE_TEXT]);
/* "/a/b/c" -> inode, symlinks on the way not followed; the last one neither. */
int client_resolve(struct client *c, const struct cred *cr, const char *path, struct attr *ret);

/* ---- content ---- */

/* flags: O_RDONLY, O_WRONLY, O_RDWR, O_APPEND, O_TRUNC, O_NOATIME, FILE_EXEC. The caller's permission
 * is checked here, and not again for what the handle is used for. Fetches fresh attributes and the
 * first extents (close-to-open). ret_attr and ret_changed may be NULL; *ret_changed is true when the
 * content is another one than when this client last had the inode open (cached pages are stale). */
int file_open(struct client *c, const struct cred *cr, uint64_t ino, int flags, struct file **ret,
              struct attr *ret_attr, bool *ret_changed);
/* make + open in one round trip. O_EXCL in flags; *ret_existed tells an opened old file. */
int file_create(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                uint32_t mode, int flags, struct file **ret, struct attr *ret_attr,
                bool *ret_existed);
/* Drops the handle. Does not wait for data: call file_flush() before to learn of errors. */
void file_close(struct file *f);
uint64_t file_ino(const struct file *f);
/* Is there an error that file_flush() would tell? */
bool file_owes(struct file *f);
/* This handle stands for one of another process, whose place this one has taken: what caches above have
 * of the file is old. lost: that process died with data of it that nobody had synced; the next flush
 * or fsync of this handle, and of those opened before anybody was told, says so. */
void file_adopted(struct file *f, bool lost);

/* Up to len bytes at off; *ret_len less than len only at the end of the file. */
int file_read(struct file *f, void *p, size_t len, uint64_t off, size_t *ret_len);
/* The same, but bytes that are in one piece in the client's memory are not copied to p: then
 * *ret_view says where they are until client_end_view(), also after file_close(). Else its p is p. */
struct page;
struct read_view {
    const uint8_t *p;
    struct page *page; /* NULL: p is the caller's own memory */
    size_t end;        /* in the page */
};
int file_read_view(struct file *f, void *p, size_t len, uint64_t off, struct read_view *ret_view,
                   size_t *ret_len);
void client_end_view(struct client *c, struct read_view *v);
/* Its bytes are read from somebody's cache. Reading itself counts anyway. True when this moved the time
 * of the last access. */
bool file_accessed(struct file *f);
/* Somebody may have cached what was read through this handle, although it appends. */
void file_cached(struct file *f);
/* Pages of it are in the kernel, or may be. */
void file_paged(struct file *f);
bool file_is_paged(const struct file *f);
/* For caches that fill up what is behind the end with zeros: if the file (still) ends at or before
 * off, calls fn and returns true. Until fn returns nobody is told of a greater size. */
bool file_ends_at(struct file *f, uint64_t off, void (*fn)(void *arg), void *arg);
/* Would a write on behalf of this one take set-id bits off the file's mode, as far as is known? */
bool file_loses_set_id(const struct file *f, const struct cred *cr);
/* All of it or an error. O_APPEND handles ignore off. */
int file_write(struct file *f, const struct cred *cr, const void *p, size_t len, uint64_t off);
/* Sends and commits what is buffered (close(2)): others see it. Reports earlier write errors once. */
int file_flush(struct file *f);
/* The same, and every replica has it on disk. */
int file_fsync(struct file *f);

/* ---- what others do ---- */

/* What the masters tell of other clients' doings (enum event_kind), on a thread that starts with the
 * first handler; one handler at a time. Handlers return soon. What the client itself kept of it is
 * forgotten before. Hints: EVENT_ALL stands for all that may have been missed. */
typedef void client_event_fn(void *arg, const struct event *ev);
void client_on_event(struct client *c, client_event_fn *fn, void *arg);
/* Not from a handler. Once it returns the handler is never called again. */
void client_off_event(struct client *c, client_event_fn *fn, void *arg);

/* Others changed the content of an inode that is open here: what the caller caches of its bytes is
 * old. Called from any thread, with locks held: it only takes note. To be set before the client is
 * used by several threads; NULL: nobody caches. */
typedef void client_content_fn(void *arg, uint64_t ino);
void client_on_content(struct client *c, client_content_fn *fn, void *arg);
/* Is it so, and not renewed since? *ret_mark (may be NULL): for client_content_renewed(). */
bool client_content_old(struct client *c, uint64_t ino, uint64_t *ret_mark);
void client_content_renewed(struct client *c, uint64_t ino, uint64_t mark);

/* fallocate(2): mode is 0 or FALLOC_FL_KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE (with KEEP_SIZE or
 * without), COLLAPSE_RANGE, INSERT_RANGE; offsets need no alignment. What is allocated stays a hole.
 * What is buffered is committed first.
 *
 * Errors:
 *   DFS_ENOTSUP  another mode; or a file in too many pieces to collapse or insert in one step
 *   DFS_ENOSPC   allocating: the block servers have less room than that
 *   DFS_EFBIG    beyond LIMIT_FILE_SIZE
 *   DFS_EINVAL   collapsing up to or behind the end, inserting at or behind it; nothing to do */
int file_fallocate(struct file *f, const struct cred *cr, uint32_t mode, uint64_t off,
                   uint64_t len);
/* copy_file_range(2) without moving bytes: dst names the same parts of blocks as src. What is
 * buffered of both is committed first. *ret_len less than len at the end of src, or when an error
 * came in the middle.
 *
 * Errors: DFS_EINVAL: ranges of one file overlap; DFS_EFBIG */
int file_clone(struct file *src, uint64_t src_off, struct file *dst, const struct cred *cr,
               uint64_t dst_off, uint64_t len, uint64_t *ret_len);
/* The first byte of data (or of a hole; the end of the file counts as one) at or behind off, with what
 * is buffered. DFS_ENOENT: there is none. */
int file_seek(struct file *f, bool data, uint64_t off, uint64_t *ret);

/* ---- where things are ---- */

/* Extents of a file, in order, with the blocks they name (borrowed during fn). */
typedef bool client_extent_fn(void *arg, const struct extent *e, const struct block_loc *b);
int client_each_extent(struct client *c, uint64_t ino, client_extent_fn *fn, void *arg);

/* fn is told, once a silence and on a thread of its own, when no master has answered for two seconds what
 * any client of this process asks. For the whole process, before the first client; not to be undone. */
typedef void client_silence_fn(void *arg);
void client_on_silence(client_silence_fn *fn, void *arg);

/* Operators' requests over the control plane: status, health. Needs no session. */
int client_admin(const struct conf *conf, uint16_t type, struct slice msg, struct wire_out *rep,
                 struct why *why);

/* What the client did, for tests and `dfs mount` logs. */
struct client_stats {
    uint64_t rpcs, rpc_retries, packets, read_requests, read_failovers, blocks_sealed_early,
        commits, cache_bytes, local_bytes;
};
void client_get_stats(const struct client *c, struct client_stats *ret);

#endif
