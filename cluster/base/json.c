#include "cluster/base/json.h"

#include <math.h>

struct json json_to(FILE *to)
{
    return (struct json){ .to = to };
}

/* Bytes of the UTF-8 character at p, or 0 when there is none. */
static size_t utf8_len(const uint8_t *p, size_t left)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (n == 0 || n > left || p[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || /* overlong, surrogate */
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return n;
}

static void string(FILE *to, struct slice s)
{
    putc('"', to);
    for (size_t i = 0; i < s.len;) {
        size_t n = utf8_len(s.p + i, s.len - i);
        uint8_t c = s.p[i];

        if (n == 0) {
            fprintf(to, "\\udc%02x", c);
        } else if (c == '"' || c == '\\') {
            fprintf(to, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            fprintf(to, "\\u%04x", c);
        } else {
            fwrite(s.p + i, 1, n, to);
        }
        i += n != 0 ? n : 1;
    }
    putc('"', to);
}

/* What goes before every value. */
static void before(struct json *j, const char *key)
{
    if (j->comma) {
        putc(',', j->to);
    }
    j->comma = true;
    ASSERT((key != NULL) == (j->depth > 0 && j->close[j->depth - 1] == '}'));
    if (key != NULL) {
        string(j->to, slice_str(key));
        putc(':', j->to);
    }
}

static void open_level(struct json *j, const char *key, char open, char close)
{
    before(j, key);
    ASSERT(j->depth < JSON_DEPTH);
    putc(open, j->to);
    j->close[j->depth++] = close;
    j->comma = false;
}

void json_object(struct json *j, const char *key)
{
    open_level(j, key, '{', '}');
}

void json_array(struct json *j, const char *key)
{
    open_level(j, key, '[', ']');
}

void json_end(struct json *j)
{
    ASSERT(j->depth > 0);
    putc(j->close[--j->depth], j->to);
    j->comma = true;
    if (j->depth == 0) {
        putc('\n', j->to);
        j->comma = false;
    }
}

void json_text(struct json *j, const char *key, struct slice text)
{
    before(j, key);
    string(j->to, text);
}

void json_str(struct json *j, const char *key, const char *text)
{
    json_text(j, key, slice_str(text));
}

void json_num(struct json *j, const char *key, uint64_t v)
{
    before(j, key);
    fprintf(j->to, "%" PRIu64, v);
}

void json_int(struct json *j, const char *key, int64_t v)
{
    before(j, key);
    fprintf(j->to, "%" PRId64, v);
}

void json_real(struct json *j, const char *key, double v)
{
    if (!isfinite(v)) {
        json_null(j, key);
        return;
    }
    before(j, key);
    fprintf(j->to, "%.6g", v);
}

void json_bool(struct json *j, const char *key, bool v)
{
    before(j, key);
    fputs(v ? "true" : "false", j->to);
}

void json_null(struct json *j, const char *key)
{
    before(j, key);
    fputs("null", j->to);
}
