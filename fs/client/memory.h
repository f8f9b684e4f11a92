/* How client.cache, the memory of a whole process, is shared out.
 *
 *   the program, its threads and tables, connections   MEMORY_BASE; more when it shows to be more
 *   large requests that a mount carries out            memory_places() mebibytes
 *   the same, kept for the next one                    memory_kept()
 *   what their writes add before they wait             memory_places()
 *   buffers (bufs.h)                                   the rest, measured again and again
 */
#ifndef DFS_FS_CLIENT_MEMORY_H
#define DFS_FS_CLIENT_MEMORY_H

#include "cluster/base/base.h"

#define MEMORY_BASE (14 * MIB)

static inline uint64_t memory_places(uint64_t total)
{
    return MIN(MAX(total / (8 * MIB), 4), 64);
}

static inline uint64_t memory_kept(uint64_t total)
{
    return memory_places(total) / 2;
}

/* Files and directories that programs may have open: half of the memory. */
static inline uint64_t memory_files(uint64_t total)
{
    return total / 2 / 1536;
}

/* Extents in the maps of open files, of 32 bytes and some room: an eighth. */
static inline uint64_t memory_extents(uint64_t total)
{
    return total / 8 / 64;
}

/* Entries of directories that are being listed, before they are asked for in small numbers: a sixteenth. */
static inline uint64_t memory_dirs(uint64_t total)
{
    return total / 16;
}

/* Blocks whose places are remembered: a sixty-fourth. */
static inline size_t memory_locs(uint64_t total)
{
    return (size_t)MIN(MAX(total / 64 / 144, 1024), 65536);
}

#endif
