/* Fault points: FAULT("store.packet.fsync") is 0, or the error that is armed for it.
 *
 * DFS_FAULT="name=ERR skip=2 times=1;other=ERR ..." where ERR is a row of err.def (IO, NOSPC, ...),
 * `kill` (the process ends as by kill -9), `stop` (SIGSTOP) or `delay:MS`. skip: passes before the
 * first hit; times: hits (0 = always, the default). Points are compiled in with DFS_FAULTS (debug,
 * asan and tsan builds) and are a constant 0 otherwise. A DFS_FAULT that cannot be understood ends
 * the process with a message: a test that arms nothing would pass for the wrong reason.
 *
 * Any thread.
 */
#ifndef DFS_CLUSTER_BASE_FAULT_H
#define DFS_CLUSTER_BASE_FAULT_H

#include "cluster/base/base.h"

#ifdef DFS_FAULTS
#    define FAULTS_BUILT_IN 1
#    define FAULT(name)     fault_hit(name)
#else
#    define FAULTS_BUILT_IN 0
#    define FAULT(name)     0
#endif

/* What FAULT() expands to: 0 or a DFS_E* number. */
int fault_hit(const char *name);

/* Arms the faults of a spec as above instead of all that were armed before; "" disarms. For unit
 * tests; programs are armed by the environment. DFS_EINVAL with why on a bad spec; then nothing
 * changes. */
int fault_arm(const char *spec, struct why *why);

#endif
