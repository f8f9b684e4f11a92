#include "replication/msgs.h"

#define WIRE_DEFS "replication/rpc.def"
#include "cluster/wire/gen.c.inc"

uint64_t replica_mix(uint64_t block, uint32_t len)
{
    uint64_t x = block * UINT64_C(0x9e3779b97f4a7c15) + len;

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}
