/* The version that people see; the wire has one of its own (DFS_PROTOCOL). */
#ifndef DFS_CLUSTER_BASE_VERSION_H
#define DFS_CLUSTER_BASE_VERSION_H

#define DFS_VERSION "0.2.0"

#endif
