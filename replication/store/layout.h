/* The format of a replica file, version 1: one file per replica.
 *
 *   offset  size
 *        0  4096  header: sector 0 the record below, sectors 1 and 2 the two sync marks
 *     4096  4096  sums of group 0: 1024 CRC32C, one for each chunk of 4096 bytes
 *     8192  4 MiB data of group 0
 *           ...   sums of group 1, data of group 1, ...
 *
 * The sum of the last, partial chunk covers the bytes that exist. Data is written before its sums.
 *
 * Header record (little-endian):
 *        0     8  magic "DFSREPL1"
 *        8     4  format version
 *       12     4  state: enum layout_state
 *       16    16  cluster id
 *       32     8  block id
 *       40     4  sealed length (0 while open)
 *       44     4  CRC32C of bytes 0-43
 *
 * A sync mark remembers a partial chunk that was made durable, because appending replaces the sum
 * of that chunk: after a power cut the new sum may be on disk and the new bytes not. The two marks
 * are written in turn, so that one of them is always whole:
 *        0     4  number of the mark, counting up; 0 = never written
 *        4     4  length of the replica
 *        8     4  sum of its last chunk
 *       12     4  CRC32C of bytes 0-11
 *
 * Pure functions; nothing in here does I/O.
 */
#ifndef DFS_REPLICATION_STORE_LAYOUT_H
#define DFS_REPLICATION_STORE_LAYOUT_H

#include "cluster/base/base.h"

#include "cluster/base/limits.h"

#include "replication/msgs.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "sums are written as they are in memory");

#define LAYOUT_VERSION      1u
#define LAYOUT_HEADER_BYTES 4096u
#define LAYOUT_RECORD_BYTES 48u
#define LAYOUT_MARK_BYTES   16u
#define LAYOUT_MARKS        2u
#define LAYOUT_SUMS_BYTES   4096u
#define LAYOUT_GROUP_CHUNKS (LAYOUT_SUMS_BYTES / 4u)
#define LAYOUT_GROUP_BYTES  (LAYOUT_GROUP_CHUNKS * CHUNK_BYTES)
#define LAYOUT_GROUP_STRIDE (LAYOUT_GROUP_BYTES + LAYOUT_SUMS_BYTES)
#define LAYOUT_REPLICA_MAX  (UINT32_C(1) << 30) /* bytes of a replica */
/* Sums that a range of n bytes can have when it begins anywhere in a chunk. */
#define LAYOUT_SUMS_OF(n) ((n) / CHUNK_BYTES + 2)

enum layout_state {
    LAYOUT_OPEN = 1,
    LAYOUT_SEALED = 2,  /* complete and on disk */
    LAYOUT_SEALING = 3, /* the length is final, its bytes may not be on disk yet: check the sums */
    LAYOUT_COPY = 4,    /* a repair copy that is not complete: removed at start */
};

struct layout_header {
    enum layout_state state;
    uint8_t cluster[CLUSTER_ID_BYTES];
    uint64_t block;
    uint32_t sealed_len;
};

struct layout_mark {
    uint32_t number;
    uint32_t len;
    uint32_t sum;
};

/* Where byte `off` of the block is in the file. */
static inline uint64_t layout_data_at(uint32_t off)
{
    return LAYOUT_HEADER_BYTES + LAYOUT_SUMS_BYTES +
           (uint64_t)(off / LAYOUT_GROUP_BYTES) * LAYOUT_GROUP_STRIDE + off % LAYOUT_GROUP_BYTES;
}

/* Where the sum of a chunk is in the file. */
static inline uint64_t layout_sum_at(uint32_t chunk)
{
    return LAYOUT_HEADER_BYTES + (uint64_t)(chunk / LAYOUT_GROUP_CHUNKS) * LAYOUT_GROUP_STRIDE +
           (uint64_t)(chunk % LAYOUT_GROUP_CHUNKS) * 4;
}

/* Chunks that a length has, the partial one included. */
static inline uint32_t layout_chunks(uint32_t len)
{
    return (len + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

/* Chunks that a range touches. */
static inline uint32_t layout_chunks_touched(uint32_t off, uint32_t len)
{
    return len == 0 ? 0 : (off + len - 1) / CHUNK_BYTES - off / CHUNK_BYTES + 1;
}

/* Bytes of a file that holds len bytes of a block. */
static inline uint64_t layout_file_bytes(uint32_t len)
{
    return len == 0 ? LAYOUT_HEADER_BYTES : layout_data_at(len - 1) + 1;
}

/* The inverse: bytes of the block that a file of this size can hold. */
uint32_t layout_len_of_file(uint64_t file_bytes);

/* The header sector's record; the rest of the header is zeros and marks. */
void layout_header_put(uint8_t out[LAYOUT_RECORD_BYTES], const struct layout_header *h);
/* Errors: DFS_EDAMAGED (no header of ours, or its sum is wrong), DFS_EVERSION (written by a newer
 * program). */
int layout_header_get(const uint8_t in[LAYOUT_RECORD_BYTES], struct layout_header *ret);

/* Where a mark is in the file: marks are written in turn by their number. */
static inline uint64_t layout_mark_at(uint32_t number)
{
    return UINT64_C(512) * (1 + number % LAYOUT_MARKS);
}
void layout_mark_put(uint8_t out[LAYOUT_MARK_BYTES], const struct layout_mark *m);
/* Errors: DFS_EDAMAGED; also for a mark that was never written. */
int layout_mark_get(const uint8_t in[LAYOUT_MARK_BYTES], struct layout_mark *ret);

#endif
