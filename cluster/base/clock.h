/* Clocks, for the edges only: cores get the time as an argument. */
#ifndef DFS_CLUSTER_BASE_CLOCK_H
#define DFS_CLUSTER_BASE_CLOCK_H

#include "cluster/base/base.h"

uint64_t clock_mono_ms(void); /* never jumps: deadlines, leases, heartbeats */
uint64_t clock_mono_us(void);
int64_t clock_wall_ns(void); /* file times only */

#endif
