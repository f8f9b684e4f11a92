/* Messages of the file system layer; see rpc.def. */
#ifndef DFS_FS_MSGS_H
#define DFS_FS_MSGS_H

#include "replication/msgs.h"

enum make_flag { MAKE_EXCL = 1, MAKE_OPEN = 2 };
enum attr_flag {
    ATTR_XATTRS = 1,      /* has extended attributes, access lists among them */
    ATTR_ACL = 2,         /* has an access list */
    ATTR_ACL_DEFAULT = 4, /* a directory with a default list */
    ATTR_RECOUNT = 64,    /* its bytes are not all counted as repl and storage say */
};
/* As access(2) has them. */
enum perm_want { PERM_EXEC = 1, PERM_WRITE = 2, PERM_READ = 4 };
enum commit_flag { COMMIT_APPEND = 1 };
enum intent_op {
    OP_DECOMMISSION = 1,
    OP_RECOMMISSION = 2, /* takes a decommission back */
    OP_MAINTENANCE = 3,
    OP_MAINTENANCE_END = 4,
};
enum set_bit {
    SET_MODE = 1,
    SET_UID = 2,
    SET_GID = 4,
    SET_SIZE = 8,
    SET_ATIME = 16,
    SET_MTIME = 32,
    SET_ATIME_NOW = 64, /* the leader's time */
    SET_MTIME_NOW = 128,
    SET_KILL_SUID = 256, /* a write or truncate by somebody without CAP_FSETID; part of these: not
                            checked */
};

enum event_kind {
    EVENT_ALL = 1, /* events were lost: anything may have changed, every waiter tries again */
    EVENT_INODE,   /* attributes of ino, and its bytes when arg, its data_version now, is news */
    EVENT_ENTRY,   /* what name in directory ino leads to */
    EVENT_LOCK,    /* who waits for a lock on ino tries again; arg: the owner, 0 = any */
    EVENT_SHARED,  /* others have ino open, too: what is written to it is to be seen soon */
};
enum quota_bit { QUOTA_BYTES = 1, QUOTA_INODES = 2 };
enum quota_state {
    QUOTA_ACTIVE = 1,
    QUOTA_COUNTING, /* in force, but not all that was there before is counted yet */
    QUOTA_CLEARING, /* no limit any more, but inodes are still to be told so */
};

enum lock_kind { LOCK_POSIX = 1, LOCK_FLOCK = 2 }; /* POSIX: fcntl, open file descriptions too */
enum lock_type { LOCK_NONE = 0, LOCK_SHARED = 1, LOCK_EXCLUSIVE = 2 };
enum lock_state {
    LOCK_GRANTED = 1,
    LOCK_BUSY,    /* somebody else has it */
    LOCK_WAITING, /* the same, and the request is in the queue */
    LOCK_GRACE,   /* nobody can tell yet: the master has just started */
};
#define LOCK_LAST ((uint64_t)INT64_MAX) /* the last byte a range can have: to the end of the file */

#define WIRE_DEFS "fs/rpc.def"
#include "cluster/wire/gen.h.inc"

#endif
