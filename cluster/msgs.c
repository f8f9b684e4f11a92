#include "cluster/msgs.h"

#define WIRE_DEFS "cluster/rpc.def"
#include "cluster/wire/gen.c.inc"
