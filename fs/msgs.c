#include "fs/msgs.h"

#define WIRE_DEFS "fs/rpc.def"
#include "cluster/wire/gen.c.inc"
