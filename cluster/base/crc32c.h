/* CRC32C (Castagnoli), by ISA-L; the usual form with pre- and post-inversion:
 * crc32c(0, "123456789", 9) == 0xe3069283. */
#ifndef DFS_CLUSTER_BASE_CRC32C_H
#define DFS_CLUSTER_BASE_CRC32C_H

#include "cluster/base/base.h"

/* The sum of the bytes that crc covers followed by these; 0 covers none. */
uint32_t crc32c(uint32_t crc, const void *p, size_t len);

#endif
