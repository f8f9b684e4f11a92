/* Logs: one line an event, fields as key=value (logfmt), written with one write(2).
 *
 *   2026-11-22T16:10:35.123Z info  replica.dropped  block=12 node=3 err="no such block"
 *
 * An event's name is component.what; the level is set per component by the key log.level:
 * "info,net=debug,raft=warn". Only roles, tasks and connection handlers log; cores return errors.
 * Any thread.
 */
#ifndef DFS_CLUSTER_BASE_LOG_H
#define DFS_CLUSTER_BASE_LOG_H

#include "cluster/base/base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

/* Levels from a spec as above. DFS_EINVAL with why on a bad one; nothing changes then. */
int log_configure(const char *spec, struct why *why);
/* Only looks whether log_configure() would take it. */
int log_parse(const char *spec, struct why *why);
/* Lines go to fd from now on (default 2). The caller keeps the descriptor open. */
void log_to_fd(int fd);
bool log_enabled(enum log_level level, const char *event);
/* fmt gives the fields: "block=%ju node=%u err=%s". String values with blanks are written in
 * quotes by the caller where they may have some: err=\"%s\". */
void log_write(enum log_level level, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);

#define log_event(level, event, ...)                  \
    do {                                              \
        if (log_enabled((level), (event))) {          \
            log_write((level), (event), __VA_ARGS__); \
        }                                             \
    } while (0)

#endif
