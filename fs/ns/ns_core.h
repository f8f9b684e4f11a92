/* Inside of the metadata state machine: what its files share. Nobody outside fs/ns includes this.
 *
 * A command's handler (ns_do_*) checks everything first and changes the database after that, because a
 * batch is one transaction: there is no taking back half a command. Its result is an answer to the
 * caller, except for DFS_EIO, DFS_EDAMAGED and DFS_ENOSPC, which mean that the database failed and
 * that the whole batch is given up; handlers return them for nothing else.
 */
#ifndef DFS_FS_NS_NS_CORE_H
#define DFS_FS_NS_NS_CORE_H

#include "cluster/base/limits.h"
#include "cluster/store/key.h"

#include "replication/rule.h"

#include "fs/ns/acl.h"
#include "fs/ns/ns.h"
#include "fs/ns/perm.h"

enum ns_db {
    DB_META,           /* "state" -> struct ns_state */
    DB_INODES,         /* ino BE8 -> attr without ino and with a fixed size */
    DB_DENTRIES,       /* parent BE8, hash BE8, name -> ino, type */
    DB_EXTENTS,        /* ino BE8, offset BE8 -> len, block, offset in the block */
    DB_SYMLINKS,       /* ino BE8 -> target */
    DB_XATTRS,         /* ino BE8, name -> value */
    DB_ORPHANS,        /* ino BE8 -> empty: no name left */
    DB_SESSIONS,       /* session BE8 -> host, name */
    DB_SLOTS,          /* session BE8, slot BE4 -> seq, status, reply */
    DB_SESSION_BLOCKS, /* session BE8, block BE8 -> empty: blocks it owns */
    DB_BLOCKS,         /* these four: replication/map/mapdb.h */
    DB_NODE_BLOCKS,
    DB_SERVERS,
    DB_DELETED,
    DB_QUOTAS,     /* ino BE8 -> limits and what is used: quota.c */
    DB_QUOTA_WORK, /* ino BE8 -> hash of the last name looked at: quota_tree.c */
    DB_RULES,      /* number BE4 -> storage rule as text; numbers from 1 on, never given twice */
    DB_RECOUNTS,   /* ino BE8 -> offset, copies, rule: storage.c */
    DB_COUNT
};

struct ns_state {
    bool ready; /* ns_init was applied */
    uint8_t cluster[CLUSTER_ID_BYTES];
    uint64_t applied;
    uint64_t next_ino;
    uint64_t next_block;
    uint64_t next_session;
    uint64_t file_bytes; /* sum of attr.bytes */
};

struct ns_answer {
    int status;
    size_t off; /* in replies */
    size_t len;
};

struct ns {
    struct kv *kv;
    MDB_dbi db[DB_COUNT];
    struct mapdb map;
    struct ns_events ev;
    _Atomic uint64_t applied; /* any thread */

    /* the applying thread's */
    size_t keep_max; /* weight of what may be kept */
    size_t kept;     /* weight of what is kept */
    struct ns_state state;
    struct wire_out replies; /* of the batch */
    struct ns_answer *answers;
    struct wire_out list;     /* a handler's reply list */
    struct wire_out attr;     /* a handler's reply attr */
    struct wire_out dir_attr; /* of the directory that it changed */
    struct extent *extents;
};

/* A transaction to read in: a command's or a question's. */
struct ns_view {
    const struct ns *ns;
    MDB_txn *txn;
};

/* A command being applied. */
struct ns_tx {
    struct ns_view v;
    struct ns *ns;
    const struct ns_batch_head *head;
    struct call_hdr hdr;
    struct slice choice;
    uint64_t live_block; /* live bytes not written to the block's record yet */
    uint8_t live_repl;
    uint16_t live_rule;
    int64_t live_delta;
};

#define NS_KEY_MAX 511 /* LMDB's limit */

/* The database failed: see above. */
bool ns_is_fatal(int err);
/* A record that must exist: not finding it is damage. */
static inline int ns_must(int err)
{
    return err == DFS_ENOENT || err == DFS_ESTALE || err == DFS_ENOBLOCK ? DFS_EDAMAGED : err;
}

/* ---- db.c: single records. get: DFS_ENOENT when there is none ---- */

int ns_db_get(const struct ns_view *v, enum ns_db db, struct slice key, struct slice *ret);
int ns_db_put(struct ns_tx *tx, enum ns_db db, struct slice key, struct slice val);
/* A key above all others of its database: pages get full. DFS_EEXIST when it is not. */
int ns_db_append(struct ns_tx *tx, enum ns_db db, struct slice key, struct slice val);
int ns_db_del(struct ns_tx *tx, enum ns_db db, struct slice key);
/* Removes every key that begins with prefix. fn (may be NULL) sees each key before. */
typedef int ns_key_fn(struct ns_tx *tx, struct slice key);
int ns_db_del_prefix(struct ns_tx *tx, enum ns_db db, struct slice prefix, ns_key_fn *fn);
/* Pairs from a key on until fn returns false or sets *ret_err. */
typedef bool ns_pair_fn(void *arg, struct slice key, struct slice val, int *ret_err);
int ns_db_each(const struct ns_view *v, enum ns_db db, struct slice from, ns_pair_fn *fn,
               void *arg);
uint64_t ns_db_count(const struct ns_view *v, enum ns_db db);

/* An 8-byte key on the stack. */
struct ns_key8 {
    uint8_t b[8];
};
static inline struct ns_key8 ns_key8(uint64_t v)
{
    struct ns_key8 k;

    key_put_u64(k.b, v);
    return k;
}
struct ns_key16 {
    uint8_t b[16];
};
static inline struct ns_key16 ns_key16(uint64_t a, uint64_t b)
{
    struct ns_key16 k;

    key_put_u64(k.b, a);
    key_put_u64(k.b + 8, b);
    return k;
}
#define KEY_SLICE(k) slice_of((k).b, sizeof((k).b))

/* ---- inode.c ---- */

#define NS_INODE_BYTES 100

void ns_inode_encode(struct wire_out *out, const struct attr *a);
int ns_inode_decode(struct slice s, uint64_t ino, struct attr *ret);
/* DFS_ESTALE: no such inode (any more). */
int ns_inode_get(const struct ns_view *v, uint64_t ino, struct attr *ret);
/* The same for a directory: DFS_ENOTDIR. */
int ns_inode_dir(const struct ns_view *v, uint64_t ino, struct attr *ret);
/* Bytes that a file has won or lost since it was stored are charged to its quota directory. */
int ns_inode_put(struct ns_tx *tx, const struct attr *a);
/* A new one: charged, too. */
int ns_inode_add(struct ns_tx *tx, const struct attr *a);
/* The record alone. */
int ns_inode_store(struct ns_tx *tx, const struct attr *a);
/* Something about the inode changed now. */
void ns_inode_touch(const struct ns_tx *tx, struct attr *a);
/* Entries of a directory, or bytes of a file, changed now. */
void ns_inode_modify(const struct ns_tx *tx, struct attr *a);
/* One name less; without names it becomes an orphan. Writes a. */
int ns_inode_drop_link(struct ns_tx *tx, struct attr *a);
/* Encoded, borrowed from tx until the next call. */
struct slice ns_attr(struct ns_tx *tx, const struct attr *a);
struct slice ns_dir_attr(struct ns_tx *tx, const struct attr *a);

/* ---- dentry.c ---- */

struct ns_dentry {
    uint64_t ino;
    uint32_t type; /* S_IFMT bits */
};

#define NS_DENTRY_BYTES 12

/* Whether a name may exist: DFS_ENOENT (empty), DFS_ENAMETOOLONG, DFS_EINVAL ('/' or a zero byte). */
int ns_name_check(struct slice name);
bool ns_name_is_dot(struct slice name);    /* "." */
bool ns_name_is_dotdot(struct slice name); /* ".." */
uint64_t ns_name_hash(uint64_t parent, struct slice name);
int ns_dentry_decode(struct slice s, struct ns_dentry *ret);
int ns_dentry_get(const struct ns_view *v, uint64_t parent, struct slice name,
                  struct ns_dentry *ret);
int ns_dentry_put(struct ns_tx *tx, uint64_t parent, struct slice name, struct ns_dentry d);
int ns_dentry_del(struct ns_tx *tx, uint64_t parent, struct slice name);
int ns_dir_is_empty(const struct ns_view *v, uint64_t ino, bool *ret);

/* ---- extent.c ---- */

#define NS_EXTENT_BYTES 20

int ns_extent_decode(struct slice key, struct slice val, uint64_t *ret_ino, struct extent *ret);
/* The first extent of ino that ends behind off; DFS_ENOENT. */
int ns_extent_find(MDB_cursor *c, uint64_t ino, uint64_t off, struct extent *ret);
/* Counts the bytes of an extent that is about to be inserted. All extents of a command are claimed
 * before the first one replaces others: a block must not be without bytes in between. */
int ns_extent_claim(struct ns_tx *tx, const struct attr *f, const struct extent *e);
/* Maps a range to a block, over what was there. Changes f's counts but does not write f. */
int ns_extent_insert(struct ns_tx *tx, struct attr *f, const struct extent *e);
/* Adds to *sum how many bytes of [from, to) are covered. */
int ns_extent_covered(const struct ns_view *v, const struct attr *f, uint64_t from, uint64_t to,
                      uint64_t *sum);
/* Makes [from, to) a hole. */
int ns_extent_cut(struct ns_tx *tx, struct attr *f, uint64_t from, uint64_t to);
/* The end, not behind `to`, of as much of [from, to) as holds max extents at most. */
int ns_extent_reach(struct ns_tx *tx, const struct attr *f, uint64_t from, uint64_t to,
                    uint32_t max, uint64_t *ret_to);
/* The offset, not below `from`, behind which the file holds max extents at most. */
int ns_extent_reach_back(struct ns_tx *tx, const struct attr *f, uint64_t from, uint32_t max,
                         uint64_t *ret_from);
/* What lies in [from, to), cut to it, in order. ret has room for all: ns_extent_reach() before. */
int ns_extent_list(struct ns_tx *tx, const struct attr *f, uint64_t from, uint64_t to,
                   struct extent *ret, uint32_t *ret_count);
/* Moves what lies behind off by so many bytes: up after making room at off, or down over a hole.
 * The caller has looked that ends stay inside LIMIT_FILE_SIZE. */
int ns_extent_shift_up(struct ns_tx *tx, const struct attr *f, uint64_t off, uint64_t by);
int ns_extent_shift_down(struct ns_tx *tx, const struct attr *f, uint64_t off, uint64_t by);
/* Removes max extents at most, from the front. */
int ns_extent_drop(struct ns_tx *tx, struct attr *f, uint32_t max);
/* Counts bytes that were wanted at (repl, rule) as f wants them now: those of max extents at most,
 * from `from` on. *ret_end: up to where that was done, UINT64_MAX when nothing is left. */
int ns_extent_recount(struct ns_tx *tx, const struct attr *f, uint64_t from, uint32_t max,
                      uint8_t repl, uint16_t rule, uint64_t *ret_end);
/* Writes the live bytes gathered; after the last of the calls above, also after a failed one. */
int ns_live_flush(struct ns_tx *tx);

/* ---- quota.c: what quota directories may hold and do hold ----
 *
 * An inode's attr.quota names the nearest quota directory at or above it (itself, if it is one): the
 * inode is charged to that one and to all quota directories above it. */

struct ns_use {
    uint64_t bytes;
    uint64_t inodes;
    uint64_t pending; /* directories whose entries are still to be looked at */
};

struct ns_quota {
    uint64_t parent; /* the next one above, 0 = none */
    uint64_t limit_bytes;
    uint64_t limit_inodes; /* 0 = no limit */
    struct ns_use used;
    bool closing; /* no quota any more; goes when nothing is charged to it */
};

#define NS_QUOTA_BYTES 49

void ns_quota_encode(struct wire_out *out, const struct ns_quota *q);
int ns_quota_decode(struct slice s, struct ns_quota *ret);
/* DFS_ENODATA: no such record. */
int ns_quota_get(const struct ns_view *v, uint64_t ino, struct ns_quota *ret);
int ns_quota_put(struct ns_tx *tx, uint64_t ino, const struct ns_quota *q);
static inline bool ns_is_quota_dir(const struct attr *a)
{
    return a->quota == a->ino;
}

/* Something, and what it is charged to so far (0 = nothing). */
struct ns_source {
    uint64_t quota;
    struct ns_use use;
};
/* Can `quota`, and all above it, be charged with all of that? DFS_EDQUOT. */
int ns_quota_room(const struct ns_view *v, uint64_t quota, const struct ns_source *from,
                  size_t count);
/* The same for something new. */
int ns_quota_grow(const struct ns_view *v, uint64_t quota, uint64_t bytes, uint64_t inodes);
/* Counts use here and no longer there; either may be 0. */
int ns_quota_move(struct ns_tx *tx, uint64_t from, uint64_t to, const struct ns_use *use);
/* Charges an inode to another quota directory, with its work, and writes it. */
int ns_quota_retag(struct ns_tx *tx, struct attr *a, uint64_t to);
/* The quota directory a (with all that it has) now lies in another one. */
int ns_quota_reparent(struct ns_tx *tx, uint64_t ino, uint64_t to);
/* The inode is about to be removed. */
int ns_quota_forget(struct ns_tx *tx, const struct attr *a);

/* ---- quota_tree.c: trees that change from one quota directory to another ---- */

/* The inode is to be named in dir: can it, with all that is below it? DFS_EDQUOT; DFS_EXDEV: not by
 * renaming. Changes nothing. */
int ns_quota_may_enter(const struct ns_tx *tx, uint64_t ino, const struct attr *from_dir,
                       const struct attr *dir);
/* Does that, when it can. */
int ns_quota_enter(struct ns_tx *tx, uint64_t ino, const struct attr *dir);
/* The directory's entries are to be looked at: its quota has changed. */
int ns_quota_push(struct ns_tx *tx, const struct attr *dir);

/* ---- content.c ---- */

/* May the file grow by the first n of tx->ns->extents? What they replace counts no more. DFS_EDQUOT */
int ns_content_room(const struct ns_tx *tx, const struct attr *f, size_t n);

/* ---- xattr.c ---- */

int ns_xattr_get(const struct ns_view *v, uint64_t ino, struct slice name, struct slice *ret);
/* Appends "name\0" for each that the caller may know of. */
int ns_xattr_list(const struct ns_view *v, const struct call_hdr *who, uint64_t ino,
                  struct wire_out *out);
/* The record only: flags and times of the inode are the caller's. */
int ns_xattr_put(struct ns_tx *tx, uint64_t ino, struct slice name, struct slice value);
/* Removing what is not there is fine. */
int ns_xattr_del(struct ns_tx *tx, uint64_t ino, struct slice name);

/* ---- guard.c: permissions, with the lists that the database has ---- */

/* As perm_check(). */
int ns_may(const struct ns_view *v, const struct call_hdr *who, const struct attr *a,
           unsigned want);
/* As perm_setattr(). */
int ns_may_set(const struct ns_view *v, const struct call_hdr *who, const struct attr *a,
               const struct setattr_req *req);
/* As perm_xattr(). */
int ns_may_xattr(const struct ns_view *v, const struct call_hdr *who, const struct attr *a,
                 struct slice name, bool write);
/* May the caller take the name of a out of dir? Search permission was seen already. */
int ns_may_remove(const struct ns_tx *tx, const struct attr *dir, const struct attr *a);

/* An access list that was asked for with setxattr: a's mode and flags follow, a is not written.
 * DFS_EINVAL, DFS_EACCES: a default list for what is no directory. */
int ns_acl_set(struct ns_tx *tx, struct attr *a, enum xattr_space space, struct slice value);
/* The access list follows the mode, after a chmod. */
int ns_acl_chmod(struct ns_tx *tx, const struct attr *a);
/* What something new gets by its directory's default list. */
struct ns_acls {
    bool access;
    bool dflt;
    struct acl list[2]; /* access, default; only where the above say so */
};
/* Takes umask off a's mode, or else the default list's part; sets a's flags. Writes nothing. */
int ns_acl_inherit(const struct ns_tx *tx, const struct attr *dir, uint32_t umask, struct attr *a,
                   struct ns_acls *ret);
int ns_acl_add(struct ns_tx *tx, uint64_t ino, const struct ns_acls *acls);

/* ---- vattr.c: "dfs.*" ---- */

bool ns_is_virtual(struct slice name);
/* DFS_ENOTSUP: no such attribute; DFS_EPERM: cannot be set, or not by the caller. */
int ns_vattr_set(struct ns_tx *tx, const struct attr *a, struct slice name, struct slice value);
int ns_vattr_remove(struct ns_tx *tx, const struct attr *a, struct slice name);

/* ---- storage.c ---- */

/* A rule as text, "none" for 0; borrowed from the database. */
int ns_rule_text(const struct ns_view *v, uint16_t number, struct slice *ret);
/* As what f's byte at off is counted in its block, and up to which offset that holds. */
int ns_recount_at(const struct ns_view *v, const struct attr *f, uint64_t off, uint8_t *ret_repl,
                  uint16_t *ret_rule, uint64_t *ret_until);
/* len bytes are inserted into f at off, or taken out of it: what lies behind moves. */
int ns_recount_shift(struct ns_tx *tx, const struct attr *f, uint64_t off, uint64_t len,
                     bool insert);
/* A file with ATTR_RECOUNT goes. */
int ns_recount_drop(struct ns_tx *tx, uint64_t ino);

/* ---- session.c ---- */

int ns_session_check(const struct ns_view *v, uint64_t session);
/* Seals the blocks that a session owns, and releases them. */
int ns_session_release(struct ns_tx *tx, uint64_t session);
/* The reply remembered for (session, slot); DFS_ENOENT when there is none. reply is borrowed. */
int ns_slot_get(const struct ns_view *v, uint64_t session, uint32_t slot, uint64_t *ret_seq,
                int *ret_status, struct slice *ret_reply);
int ns_slot_put(struct ns_tx *tx, uint64_t session, uint32_t slot, uint64_t seq, int status,
                struct slice reply);

/* ---- blocks.c ---- */

/* node_addr items of a block's servers, by state as the callback gives it, else in chain order.
 * rule (or NULL): of a block being made; its copies go to volumes with these labels. */
int ns_block_nodes(const struct ns_view *v, const struct block_rec *r, const struct rule *rule,
                   ns_node_state_fn *state, void *arg, struct wire_out *out, uint32_t *ret_count);
/* The block is no longer its session's. */
int ns_block_release(struct ns_tx *tx, uint64_t session, uint64_t block);

/* ---- state.c ---- */

void ns_state_encode(struct wire_out *out, const struct ns_state *s);
/* DFS_EVERSION: of a newer format. */
int ns_state_decode(struct slice rec, struct ns_state *ret);
int ns_state_load(struct ns *ns, struct why *why);
int ns_state_store(struct ns *ns, MDB_txn *txn);
int ns_state_read(const struct ns_view *v, struct ns_state *ret);

/* ---- dispatch.c: by the tables of messages ---- */

enum ns_kind { NS_KIND_NONE, NS_KIND_COMMAND, NS_KIND_LOG };
enum ns_kind ns_kind(uint16_t type);
/* Decodes, calls ns_do_<name>, encodes the reply (only of a success). */
int ns_dispatch(struct ns_tx *tx, uint16_t type, struct slice msg, struct wire_out *out);

/* Handlers: one for each COMMAND and LOG row; a missing one does not link. */
#define ARG(type, field)
#define RET(type, field)
#define END(name)
#define REC(name)
#define F(type, field)
#define END_REC(name)
#define HANDLER_COMMAND(name) \
    int ns_do_##name(struct ns_tx *tx, const struct name##_req *req, struct name##_rep *rep);
#define HANDLER_LOG(name) HANDLER_COMMAND(name)
#define HANDLER_QUERY(name)
#define HANDLER_BLOCK(name)
#define HANDLER_CONTROL(name)
#define RPC(name, id, kind) HANDLER_##kind(name)
#include "replication/rpc.def"

#include "fs/rpc.def"
#undef RPC
#undef HANDLER_COMMAND
#undef HANDLER_LOG
#undef HANDLER_QUERY
#undef HANDLER_BLOCK
#undef HANDLER_CONTROL
#undef ARG
#undef RET
#undef END
#undef REC
#undef F
#undef END_REC

#endif
