#include "cluster/base/crc32c.h"

#include <isa-l.h>

uint32_t crc32c(uint32_t crc, const void *p, size_t len)
{
    const unsigned char *b = p;

    crc = ~crc;
    while (len > 0) { /* ISA-L takes an int */
        size_t n = MIN(len, (size_t)1 << 30);

        crc = crc32_iscsi((unsigned char *)(uintptr_t)b, (int)n, crc);
        b += n;
        len -= n;
    }
    return ~crc;
}
