#include "cluster/base/base.h"

void assert_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "dfs: assertion failed: %s (%s:%d)\n", what, file, line);
    abort();
}

int why_set(struct why *why, int err, const char *fmt, ...)
{
    va_list ap;

    if (why != NULL) {
        va_start(ap, fmt);
        vsnprintf(why->text, sizeof(why->text), fmt, ap);
        va_end(ap);
    }
    return err;
}

void why_prefix(struct why *why, const char *fmt, ...)
{
    struct why old;
    va_list ap;
    size_t n;

    if (why == NULL) {
        return;
    }
    old = *why;
    va_start(ap, fmt);
    vsnprintf(why->text, sizeof(why->text), fmt, ap);
    va_end(ap);
    n = strlen(why->text);
    snprintf(why->text + n, sizeof(why->text) - n, ": %s", old.text);
}

static void *checked(void *p, size_t size)
{
    if (p == NULL) {
        fprintf(stderr, "dfs: out of memory (%zu bytes)\n", size);
        abort();
    }
    return p;
}

void *x_alloc(size_t size)
{
    return checked(calloc(1, size != 0 ? size : 1), size);
}

void *x_realloc(void *p, size_t size)
{
    return checked(realloc(p, size != 0 ? size : 1), size);
}

char *x_strdup(const char *s)
{
    return checked(strdup(s), strlen(s));
}

char *x_strndup(const char *s, size_t n)
{
    return checked(strndup(s, n), n);
}

char *x_printf(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return n < 0 ? checked(NULL, 0) : s;
}
