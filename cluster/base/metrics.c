#include "cluster/base/metrics.h"

#include <dirent.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cluster/base/io.h"
#include "cluster/base/version.h"

enum kind { COUNTER, TIMING, GAUGE, TOTAL };

struct row {
    enum kind kind;
    unsigned roles;
    const char *name;
    const char *help;
};

static const struct row rows[METRIC_COUNT] = {
#define METRIC(kind, id, name, roles, help) { kind, (roles), name, help },
#include "cluster/metrics.def"
#undef METRIC
};

/* Upper ends of the buckets; the last one is open. */
static const uint64_t bucket_us[] = { 50,     100,     200,     500,    1000,   2000,
                                      5000,   10000,   20000,   50000,  100000, 200000,
                                      500000, 1000000, 2000000, 5000000 };
#define BUCKETS (ARRAY_LEN(bucket_us) + 1)

/* A line of its own each: threads on different processors count different things. */
static struct counter {
    _Alignas(64) atomic_uint_fast64_t count;
    atomic_uint_fast64_t sum_us;
    atomic_uint_fast64_t buckets[BUCKETS];
} counters[METRIC_COUNT];

struct metrics_out {
    char *text[METRIC_COUNT];
    size_t len[METRIC_COUNT];
    FILE *to[METRIC_COUNT];
};

void metric_add(enum metric m, uint64_t n)
{
    SLOW_ASSERT(rows[m].kind == COUNTER);
    atomic_fetch_add_explicit(&counters[m].count, n, memory_order_relaxed);
}

uint64_t metric_value(enum metric m)
{
    return atomic_load_explicit(&counters[m].count, memory_order_relaxed);
}

void metric_observe(enum metric m, uint64_t usec)
{
    size_t i = 0;

    SLOW_ASSERT(rows[m].kind == TIMING);
    while (i < ARRAY_LEN(bucket_us) && usec > bucket_us[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&counters[m].buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters[m].sum_us, usec, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters[m].count, 1, memory_order_relaxed);
}

static void put_escaped(FILE *to, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '\n') {
            (void)fputs("\\n", to);
        } else {
            if (*s == '"' || *s == '\\') {
                (void)fputc('\\', to);
            }
            (void)fputc(*s, to);
        }
    }
}

void metrics_tell(struct metrics_out *out, enum metric m, const char *label,
                  const char *label_value, double value)
{
    ASSERT(rows[m].kind == GAUGE || rows[m].kind == TOTAL);
    if (out->to[m] == NULL) {
        out->to[m] = open_memstream(&out->text[m], &out->len[m]);
        ASSERT(out->to[m] != NULL);
    }
    (void)fputs(rows[m].name, out->to[m]);
    if (label != NULL) {
        fprintf(out->to[m], "{%s=\"", label);
        put_escaped(out->to[m], label_value);
        (void)fputs("\"}", out->to[m]);
    }
    fprintf(out->to[m], " %.15g\n", value);
}

static unsigned count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    if (d == NULL) {
        return 0;
    }
    while (readdir(d) != NULL) {
        n++;
    }
    (void)closedir(d);
    return n - 3; /* ".", ".." and the one that reads */
}

/* In clock ticks after the boot: field 22 of /proc/self/stat, the 20th behind the name's bracket. */
static double start_time(void)
{
    char line[1024];
    FILE *f = fopen("/proc/self/stat", "re");
    unsigned long long ticks = 0;
    struct timespec now, up;
    const char *p;

    if (f == NULL || fgets(line, sizeof(line), f) == NULL) {
        line[0] = '\0';
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    p = strrchr(line, ')');
    for (int field = 2; p != NULL && field < 22; field++) {
        p = strchr(p + 1, ' ');
    }
    if (p != NULL) {
        ticks = strtoull(p, NULL, 10);
    }
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    return (double)(now.tv_sec - up.tv_sec) + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static double resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    char line[128] = "";
    char *rest = line;

    if (f != NULL) {
        if (fgets(line, sizeof(line), f) == NULL) {
            line[0] = '\0';
        }
        (void)fclose(f);
    }
    (void)strtoull(line, &rest, 10);
    return (double)strtoull(rest, NULL, 10) * (double)sysconf(_SC_PAGESIZE);
}

static void tell_process(struct metrics_out *out)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    metrics_tell(out, METRIC_build_info, "version", DFS_VERSION, 1);
    metrics_tell(out, METRIC_cpu, NULL, NULL,
                 (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    metrics_tell(out, METRIC_resident, NULL, NULL, resident_bytes());
    metrics_tell(out, METRIC_fds, NULL, NULL, count_fds());
    metrics_tell(out, METRIC_started, NULL, NULL, start_time());
}

static void print_timing(FILE *to, enum metric m)
{
    uint64_t total = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        total += atomic_load_explicit(&counters[m].buckets[i], memory_order_relaxed);
        if (i < ARRAY_LEN(bucket_us)) {
            fprintf(to, "%s_bucket{le=\"%g\"} %ju\n", rows[m].name, (double)bucket_us[i] / 1e6,
                    (uintmax_t)total);
        } else {
            fprintf(to, "%s_bucket{le=\"+Inf\"} %ju\n", rows[m].name, (uintmax_t)total);
        }
    }
    fprintf(to, "%s_sum %.15g\n%s_count %ju\n", rows[m].name,
            (double)atomic_load_explicit(&counters[m].sum_us, memory_order_relaxed) / 1e6,
            rows[m].name, (uintmax_t)total);
}

static void print_row(FILE *to, enum metric m, const char *told)
{
    static const char *const types[] = { "counter", "histogram", "gauge", "counter" };

    fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", rows[m].name, rows[m].help, rows[m].name,
            types[rows[m].kind]);
    if (rows[m].kind == TIMING) {
        print_timing(to, m);
    } else if (rows[m].kind == COUNTER) {
        fprintf(to, "%s %ju\n", rows[m].name, (uintmax_t)metric_value(m));
    } else {
        (void)fputs(told, to);
    }
}

char *metrics_print(enum metric_role role, metrics_collect_fn *collect, void *arg, size_t *ret_len)
{
    struct metrics_out out = { { NULL }, { 0 }, { NULL } };
    char *all = NULL;
    FILE *to = open_memstream(&all, ret_len);

    ASSERT(to != NULL);
    tell_process(&out);
    collect(arg, &out);
    for (unsigned m = 0; m < METRIC_COUNT; m++) {
        if (out.to[m] != NULL) {
            (void)fclose(out.to[m]);
        }
        if ((rows[m].roles & (unsigned)role) != 0 &&
            (rows[m].kind == COUNTER || rows[m].kind == TIMING || out.text[m] != NULL)) {
            print_row(to, (enum metric)m, out.text[m]);
        }
        free(out.text[m]);
    }
    (void)fclose(to);
    return all;
}

void metrics_print_doc(FILE *to)
{
    static const char *const kinds[] = { "counter", "histogram", "gauge", "counter" };

    (void)fputs(
        "# Metrics\n\n"
        "Every role answers `GET /metrics` in Prometheus' text format; `dfs help master`, `block` "
        "and `mount` tell the keys\nfor the address. This page is printed by `dfs help "
        "--metrics`.\n\n"
        "| Name | Kind | Master | Block | Mount | What it says |\n|---|---|---|---|---|---|\n",
        to);
    for (unsigned m = 0; m < METRIC_COUNT; m++) {
        fprintf(to, "| `%s` | %s | %s | %s | %s | %s |\n", rows[m].name, kinds[rows[m].kind],
                rows[m].roles & ROLE_MASTER ? "x" : "", rows[m].roles & ROLE_BLOCK ? "x" : "",
                rows[m].roles & ROLE_MOUNT ? "x" : "", rows[m].help);
    }
}
