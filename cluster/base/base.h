/* The ground every file stands on: types, assertions, borrowed byte ranges, typed ids.
 *
 * Included first by every source file. Nothing in here does I/O.
 */
#ifndef DFS_CLUSTER_BASE_BASE_H
#define DFS_CLUSTER_BASE_BASE_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_LEN(a)           (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)              ((a) < (b) ? (a) : (b))
#define MAX(a, b)              ((a) > (b) ? (a) : (b))
#define UNUSED                 __attribute__((unused))
#define NORETURN               __attribute__((noreturn))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NEVER_NULL             __attribute__((returns_nonnull))
#define MUST_CHECK             __attribute__((warn_unused_result))

#define KIB        (UINT64_C(1) << 10)
#define MIB        (UINT64_C(1) << 20)
#define GIB        (UINT64_C(1) << 30)
#define NS_PER_MS  INT64_C(1000000)
#define NS_PER_SEC INT64_C(1000000000)

/* Prints file, line and the condition to stderr and aborts. */
NORETURN void assert_failed(const char *file, int line, const char *what);

/* A programmer's error; stays on in release builds. Never for input from a
 * peer, a user or a disk: that is an error code. */
#define ASSERT(x) ((x) ? (void)0 : assert_failed(__FILE__, __LINE__, #x))
#ifdef DFS_SLOW_ASSERT
#    define SLOW_ASSERT(x) ASSERT(x)
#else
#    define SLOW_ASSERT(x) ((void)0)
#endif

/* Bytes that belong to somebody else; never stored past the call. */
struct slice {
    const uint8_t *p;
    size_t len;
};

#define SLICE_EMPTY ((struct slice){ NULL, 0 })

static inline struct slice slice_of(const void *p, size_t len)
{
    return (struct slice){ p, len };
}

static inline struct slice slice_str(const char *s)
{
    return (struct slice){ (const uint8_t *)s, strlen(s) };
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/* Ids are one-member structs so that swapping two of them does not compile. */
struct inode_id {
    uint64_t v;
};
struct block_id {
    uint64_t v;
};
struct node_id {
    uint32_t v; /* a block server; 0 = none */
};

#define INODE_ROOT UINT64_C(1)

/* A sentence for a person: filled by functions that touch disks, config or
 * start-up; NULL is allowed wherever one is taken. */
struct why {
    char text[480];
};

/* Sets why's text (when why is not NULL) and returns err, so that a failure is
 * reported and returned in one line. */
int why_set(struct why *why, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts "prefix: " before what is there already. */
void why_prefix(struct why *why, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Memory that cannot be had ends the process with a message: every size is
 * bounded before it is asked for. x_alloc returns zeroed memory. */
void *x_alloc(size_t size) NEVER_NULL;
void *x_realloc(void *p, size_t size) NEVER_NULL;
char *x_strdup(const char *s) NEVER_NULL;
char *x_strndup(const char *s, size_t n) NEVER_NULL;
char *x_printf(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
