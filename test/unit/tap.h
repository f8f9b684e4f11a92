/* A unit test is a program of named cases that prints TAP.
 *
 *   TEST("a block is placed on distinct servers") { CHECK(n == 3); }   -- inside main's list:
 *   int main(void) { tap_run("name", fn); ...; return tap_done(); }
 */
#ifndef DFS_TEST_UNIT_TAP_H
#define DFS_TEST_UNIT_TAP_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int tap_cases, tap_bad, tap_case_bad;

#define CHECK(x)                                                       \
    do {                                                               \
        if (!(x)) {                                                    \
            printf("# %s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
            tap_case_bad = 1;                                          \
        }                                                              \
    } while (0)

#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        long long got_ = (long long)(got), want_ = (long long)(want);                              \
        if (got_ != want_) {                                                                       \
            printf("# %s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, #got, got_, want_); \
            tap_case_bad = 1;                                                                      \
        }                                                                                          \
    } while (0)

#define CHECK_STR(got, want)                                                                   \
    do {                                                                                       \
        const char *got_ = (got), *want_ = (want);                                             \
        if (strcmp(got_, want_) != 0) {                                                        \
            printf("# %s:%d: %s is \"%s\", expected \"%s\"\n", __FILE__, __LINE__, #got, got_, \
                   want_);                                                                     \
            tap_case_bad = 1;                                                                  \
        }                                                                                      \
    } while (0)

static inline void tap_run(const char *name, void (*fn)(void))
{
    tap_case_bad = 0;
    fn();
    tap_cases++;
    tap_bad += tap_case_bad;
    printf("%s %d - %s\n", tap_case_bad ? "not ok" : "ok", tap_cases, name);
    fflush(stdout);
}

static inline int tap_done(void)
{
    printf("1..%d\n", tap_cases);
    return tap_bad == 0 ? 0 : 1;
}

/* A fresh directory, removed at exit. */
static char tap_tmp_path[64];

static inline void tap_tmp_remove(void)
{
    char cmd[128];

    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", tap_tmp_path);
    if (system(cmd) != 0) {
        fprintf(stderr, "could not remove %s\n", tap_tmp_path);
    }
}

static inline const char *tap_tmp(void)
{
    if (tap_tmp_path[0] == '\0') {
        strcpy(tap_tmp_path, "/tmp/dfs-unit.XXXXXX");
        if (mkdtemp(tap_tmp_path) == NULL) {
            perror("mkdtemp");
            exit(1);
        }
        atexit(tap_tmp_remove);
    }
    return tap_tmp_path;
}

#endif
