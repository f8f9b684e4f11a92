#include "replication/store/scrub_file.h"

#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#define FILE_MAX_BYTES 4096

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    { "cursor", offsetof(struct scrub_state, cursor) },
    { "began", offsetof(struct scrub_state, began_ms) },
    { "ended", offsetof(struct scrub_state, ended_ms) },
    { "done", offsetof(struct scrub_state, done) },
    { "found", offsetof(struct scrub_state, found) },
    { "order", offsetof(struct scrub_state, order) },
    { "ordered", offsetof(struct scrub_state, ordered) },
};

static uint64_t *field_of(struct scrub_state *s, size_t i)
{
    return (uint64_t *)(void *)((char *)s + fields[i].offset);
}

static bool parse_line(struct scrub_state *s, const char *line, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        size_t n = strlen(fields[i].name);
        char *end;

        if (len > n + 1 && memcmp(line, fields[i].name, n) == 0 && line[n] == ' ') {
            errno = 0;
            *field_of(s, i) = strtoull(line + n + 1, &end, 10);
            return errno == 0 && end == line + len;
        }
    }
    return false;
}

bool scrub_file_parse(const char *text, struct scrub_state *ret)
{
    static const char format[] = "format 1\n";
    struct scrub_state s = { 0 };
    const char *p = text;

    if (strncmp(p, format, sizeof(format) - 1) != 0) {
        return false;
    }
    for (p += sizeof(format) - 1; *p != '\0';) {
        const char *end = strchr(p, '\n');

        if (end == NULL || !parse_line(&s, p, (size_t)(end - p))) {
            return false;
        }
        p = end + 1;
    }
    *ret = s;
    return true;
}

void scrub_file_load(const char *volume, struct scrub_state *ret)
{
    char *path = x_printf("%s/dfs-scrub", volume);
    char *text;

    *ret = (struct scrub_state){ 0 };
    if (io_read_file(path, FILE_MAX_BYTES, &text, NULL, NULL) == 0) {
        (void)scrub_file_parse(text, ret);
        free(text);
    }
    free(path);
}

int scrub_file_save(const char *volume, const struct scrub_state *s, struct why *why)
{
    struct scrub_state copy = *s;
    char *path = x_printf("%s/dfs-scrub", volume);
    char text[512] = "format 1\n";
    size_t len = strlen(text);
    int err = FAULT("scrub.save");

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %" PRIu64 "\n", fields[i].name,
                                *field_of(&copy, i));
    }
    err = err != 0 ? err : io_write_file(path, text, len, 0644, why);
    free(path);
    return err;
}
