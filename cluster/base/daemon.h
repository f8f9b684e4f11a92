/* What every long-running process needs: signals as events, and a file with its process id. */
#ifndef DFS_CLUSTER_BASE_DAEMON_H
#define DFS_CLUSTER_BASE_DAEMON_H

#include "cluster/base/base.h"

enum daemon_event {
    DAEMON_NONE,
    DAEMON_STOP,  /* SIGTERM, SIGINT */
    DAEMON_RELOAD /* SIGHUP */
};

/* Blocks SIGTERM, SIGINT and SIGHUP in this thread and those started from now on, ignores SIGPIPE,
 * and returns a descriptor that is readable when one of the three has come: for an event loop, or
 * for daemon_wait(). To be called before any thread starts. */
int daemon_signals(void);
/* What came, without waiting. Several signals come out one after the other. */
enum daemon_event daemon_next(int fd);
/* The same, waiting up to timeout_ms (-1: for ever). */
enum daemon_event daemon_wait(int fd, int timeout_ms);
/* In a child, between fork() and exec(): signals as a program finds them normally. */
void daemon_signals_reset(void);

/* Writes this process's id, and a newline, into path. */
int daemon_pidfile_write(const char *path, struct why *why);
/* The id in path. Errors: DFS_ENOENT, also when no such process lives any more. Whether it is the
 * process that wrote the file, the caller cannot know. */
int daemon_pidfile_read(const char *path, int *ret_pid, struct why *why);

/* Asks for as many descriptors as this process may have, and returns how many those are. */
uint64_t daemon_descriptors(void);

/* This thread's work can wait: from now on others come first, for the processor and for disks. */
void daemon_background_thread(void);

#endif
