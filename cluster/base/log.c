#include "cluster/base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "cluster/base/err.h"

#define COMPONENTS_MAX 32
#define LINE_MAX_BYTES 2048

struct levels {
    enum log_level others;
    int count;
    struct {
        char name[32];
        enum log_level level;
    } component[COMPONENTS_MAX];
};

static const char *const level_names[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn",
    [LOG_ERROR] = "error", [LOG_OFF] = "off",
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct levels levels = { .others = LOG_INFO }; /* guarded by: mu */
static atomic_int lowest = LOG_INFO; /* of all components: what is below needs no look-up */
static atomic_int log_fd = STDERR_FILENO;

static int parse_level(const char *text, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return DFS_EINVAL;
}

/* "info" or "net=debug"; cuts word up. */
static int parse_word(char *word, struct levels *l, struct why *why)
{
    char *eq = strchr(word, '=');
    enum log_level level;

    if (parse_level(eq != NULL ? eq + 1 : word, &level) != 0) {
        return why_set(why, DFS_EINVAL, "\"%s\" is not debug, info, warn, error or off",
                       eq != NULL ? eq + 1 : word);
    }
    if (eq == NULL) {
        l->others = level;
        return 0;
    }
    *eq = '\0';
    if (l->count == COMPONENTS_MAX || eq == word ||
        (size_t)(eq - word) >= sizeof(l->component[0].name)) {
        return why_set(why, DFS_EINVAL, "\"%s\" is not a component, or there are too many", word);
    }
    memcpy(l->component[l->count].name, word, (size_t)(eq - word) + 1);
    l->component[l->count++].level = level;
    return 0;
}

static int parse_spec(const char *spec, struct levels *ret, struct why *why)
{
    struct levels l = { .others = LOG_INFO };
    char *copy = x_strdup(spec);
    char *save = NULL;
    int err = 0;

    for (char *w = strtok_r(copy, ", ", &save); w != NULL && err == 0;
         w = strtok_r(NULL, ", ", &save)) {
        err = parse_word(w, &l, why);
    }
    free(copy);
    if (err == 0) {
        *ret = l;
    }
    return err;
}

int log_parse(const char *spec, struct why *why)
{
    struct levels l;

    return parse_spec(spec, &l, why);
}

int log_configure(const char *spec, struct why *why)
{
    struct levels l;
    int err = parse_spec(spec, &l, why);
    int min;

    if (err != 0) {
        return err;
    }
    min = (int)l.others;
    for (int i = 0; i < l.count; i++) {
        min = MIN(min, (int)l.component[i].level);
    }
    pthread_mutex_lock(&mu);
    levels = l;
    atomic_store(&lowest, min);
    pthread_mutex_unlock(&mu);
    return 0;
}

void log_to_fd(int fd)
{
    atomic_store(&log_fd, fd);
}

bool log_enabled(enum log_level level, const char *event)
{
    size_t n = strcspn(event, ".");
    enum log_level want;

    if ((int)level < atomic_load_explicit(&lowest, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&mu);
    want = levels.others;
    for (int i = 0; i < levels.count; i++) {
        const char *name = levels.component[i].name;

        if (strncmp(name, event, n) == 0 && name[n] == '\0') {
            want = levels.component[i].level;
        }
    }
    pthread_mutex_unlock(&mu);
    return level >= want;
}

/* Copies text so that whatever a field holds, the event stays one line. Returns the new end. */
static size_t append_clean(char *line, size_t at, const char *text)
{
    for (; *text != '\0' && at + 5 < LINE_MAX_BYTES; text++) {
        unsigned char c = (unsigned char)*text;

        if (c < 0x20 || c == 0x7f) {
            at += (size_t)snprintf(line + at, 5, "\\x%02x", c);
        } else {
            line[at++] = *text;
        }
    }
    return at;
}

void log_write(enum log_level level, const char *event, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    char fields[LINE_MAX_BYTES];
    struct timespec t;
    struct tm tm;
    va_list ap;
    size_t n;

    va_start(ap, fmt);
    vsnprintf(fields, sizeof(fields), fmt, ap);
    va_end(ap);
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %-5s %s", t.tv_nsec / 1000000,
                          level_names[level], event);
    if (fields[0] != '\0') {
        n = append_clean(line, n, "  ");
        n = append_clean(line, n, fields);
    }
    line[n++] = '\n';
    /* A log that cannot be written is no reason to stop. */
    if (write(atomic_load(&log_fd), line, n) < 0) {
        return;
    }
}
