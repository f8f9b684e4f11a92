/* Every ceiling of the program, in one place. */
#ifndef DFS_CLUSTER_BASE_LIMITS_H
#define DFS_CLUSTER_BASE_LIMITS_H

#define LIMIT_NAME        255         /* bytes of one path component (NAME_MAX) */
#define LIMIT_PATH        4096        /* bytes of a path (PATH_MAX) */
#define LIMIT_SYMLINK     4095        /* bytes of a symlink's target */
#define LIMIT_XATTR_NAME  255         /* bytes */
#define LIMIT_XATTR_VALUE 65536       /* bytes */
#define LIMIT_XATTR_LIST  65536       /* bytes of all names of one inode */
#define LIMIT_XATTR_BYTES (16u << 20) /* bytes of all values of one inode */
#define LIMIT_LINKS       0x7fffffffu /* hard links of one inode */
#define LIMIT_GROUPS      1024 /* supplementary groups sent with a call: the lowest ids count */

#define LIMIT_MSG   (4u << 20)    /* bytes of a frame's message part */
#define LIMIT_DATA  (1100u << 10) /* bytes of a frame's payload: 1 MiB and its checksums */
#define LIMIT_REPLY (1u << 20)    /* bytes a master puts into one answer */

#define LIMIT_CONNECTIONS 16384 /* of clients to one master */

#define LIMIT_REPLICATION    16   /* copies of a block */
#define LIMIT_LABEL          31   /* bytes of a storage label */
#define LIMIT_RULES          4096 /* different storage rules of a cluster, ever */
#define LIMIT_CHAIN          LIMIT_REPLICATION
#define LIMIT_SLOTS          256        /* commands in flight of one session */
#define LIMIT_BATCH_BYTES    (1u << 20) /* bytes of commands in one log entry */
#define LIMIT_BATCH_COMMANDS 1024
#define LIMIT_MASTERS        5
#define LIMIT_BLOCK_SERVERS  4096
#define LIMIT_VOLUMES        64                  /* volumes of one block server */
#define LIMIT_COMMIT_EXTENTS 4096                /* extents in one commit; also files, and blocks */
#define LIMIT_SHIFT_EXTENTS  32768               /* extents that are moved, or cut off */
#define LIMIT_ACCESSES       4096                /* inodes whose atime one command sets */
#define LIMIT_ALLOC          64                  /* blocks allocated by one command */
#define LIMIT_FILE_SIZE      (INT64_C(16) << 40) /* 16 TiB */

#define CHUNK_BYTES  4096       /* unit of a checksum */
#define PACKET_BYTES (1u << 20) /* largest payload of a write packet or a read answer */

#endif
