#include "cluster/base/conf.h"

#include "cluster/base/addr.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/json.h"
#include "cluster/base/log.h"
#include "cluster/base/text.h"

#define FILE_MAX        (1u << 20)
#define SAMPLE_WIDTH    96
#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* some editors put it in front of UTF-8 */

enum kind { KIND_section, KIND_size, KIND_time, KIND_num, KIND_flag, KIND_text, KIND_list };
enum when { RESTART, RELOAD };

/* A row of keys.def; a section has only name (its title) and help. */
struct row {
    enum kind kind;
    enum when when;
    size_t field; /* offset in struct conf */
    const char *name;
    const char *def;
    uint64_t min;
    uint64_t max;
    const char *help;
};

static const struct row rows[] = {
#define SECTION(title, help) { KIND_section, RESTART, 0, title, NULL, 0, 0, help },
#define KEY(type, field, name, def, min, max, when, help) \
    { KIND_##type, when, offsetof(struct conf, field), name, def, min, max, help },
#include "cluster/keys.def"
#undef KEY
#undef SECTION
};

#define ROWS ARRAY_LEN(rows)

/* Where a value came from: file and line, the command line (line 0), or the default (no name). */
struct origin {
    char *name;
    unsigned int line;
    unsigned int reading; /* which file, counted from 1: "given twice" is about one of them */
};

/* What conf_new() makes: the fields that everybody sees, then what only this file needs. */
struct full {
    struct conf conf;
    struct origin origin[ROWS];
    unsigned int readings;
};

/* ---- numbers ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "", 1 },      { "B", 1 },   { "K", KIB },   { "KiB", KIB },     { "M", MIB },
    { "MiB", MIB }, { "G", GIB }, { "GiB", GIB }, { "T", GIB << 10 }, { "TiB", GIB << 10 },
};
static const struct unit time_units[] = {
    { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 },
};
static const struct unit num_units[] = { { "", 1 } };

/* Digits, then one of the units. */
static int parse_units(const char *text, const struct unit *units, size_t count, uint64_t *ret)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || errno != 0) {
        return DFS_EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t product;

        if (strcmp(end, units[i].name) == 0) {
            if (__builtin_mul_overflow((uint64_t)v, units[i].factor, &product)) {
                return DFS_EINVAL;
            }
            *ret = product;
            return 0;
        }
    }
    return DFS_EINVAL;
}

int parse_size(const char *text, uint64_t *ret, struct why *why)
{
    return parse_units(text, size_units, ARRAY_LEN(size_units), ret) == 0
               ? 0
               : why_set(why, DFS_EINVAL,
                         "\"%s\" is not a size; expected bytes, or a number with KiB, MiB, GiB or "
                         "TiB, such as 64MiB",
                         text);
}

int parse_time_ms(const char *text, uint64_t *ret, struct why *why)
{
    if (strcmp(text, "0") == 0) {
        *ret = 0;
        return 0;
    }
    return parse_units(text, time_units, ARRAY_LEN(time_units), ret) == 0
               ? 0
               : why_set(why, DFS_EINVAL,
                         "\"%s\" is not a time; expected a number with ms, s, m, h or d, such as "
                         "15s",
                         text);
}

int parse_num(const char *text, uint64_t *ret, struct why *why)
{
    return parse_units(text, num_units, ARRAY_LEN(num_units), ret) == 0
               ? 0
               : why_set(why, DFS_EINVAL, "\"%s\" is not a number", text);
}

/* ---- one value ---- */

static void *field(const struct conf *c, const struct row *r)
{
    return (char *)(uintptr_t)c + r->field;
}

/* A number of the row's kind, as the file takes it. */
static const char *format_num(enum kind kind, uint64_t v, char buf[TEXT_NUMBER])
{
    if (kind == KIND_size) {
        return text_size(v, buf);
    }
    if (kind == KIND_time) {
        return text_time(v, buf);
    }
    snprintf(buf, TEXT_NUMBER, "%" PRIu64, v);
    return buf;
}

static int set_num(const struct row *r, const char *text, uint64_t *ret, struct why *why)
{
    char min_text[TEXT_NUMBER], max_text[TEXT_NUMBER];
    const char *min = format_num(r->kind, r->min, min_text);
    const char *max = format_num(r->kind, r->max, max_text);
    uint64_t v = 0;
    int err = r->kind == KIND_size   ? parse_size(text, &v, why)
              : r->kind == KIND_time ? parse_time_ms(text, &v, why)
                                     : parse_num(text, &v, why);

    if (err != 0 && r->kind == KIND_num) { /* sizes and times have said what they look like */
        why_set(why, err, "\"%s\" is not a number; expected %s to %s", text, min, max);
    } else if (err == 0 && (v < r->min || v > r->max)) {
        err = why_set(why, DFS_EINVAL, "%s is out of range; expected %s to %s", text, min, max);
    }
    if (err == 0) {
        *ret = v;
    }
    return err;
}

static int set_flag(const char *text, bool *ret, struct why *why)
{
    bool yes = strcmp(text, "yes") == 0;

    if (!yes && strcmp(text, "no") != 0) {
        return why_set(why, DFS_EINVAL, "\"%s\" is neither yes nor no", text);
    }
    *ret = yes;
    return 0;
}

static void set_text(char **at, const char *text, bool join)
{
    char *v = join && (*at)[0] != '\0' ? x_printf("%s,%s", *at, text) : x_strdup(text);

    free(*at);
    *at = v;
}

/* Parses text into the row's field; why says what is wrong with the value. */
static int set_value(struct conf *c, const struct row *r, const char *text, bool join,
                     struct why *why)
{
    switch (r->kind) {
    case KIND_size:
    case KIND_time:
    case KIND_num:
        return set_num(r, text, field(c, r), why);
    case KIND_flag:
        return set_flag(text, field(c, r), why);
    case KIND_list:
    case KIND_text:
        set_text(field(c, r), text, join);
        return 0;
    case KIND_section:
        break;
    }
    ASSERT(!"a value for a section");
}

/* A value as the file would have it; text is borrowed from the conf. */
static const char *format_value(const struct conf *c, const struct row *r, char buf[TEXT_NUMBER])
{
    const void *at = field(c, r);

    if (r->kind == KIND_text || r->kind == KIND_list) {
        return *(char *const *)at;
    }
    if (r->kind == KIND_flag) {
        return *(const bool *)at ? "yes" : "no";
    }
    return format_num(r->kind, *(const uint64_t *)at, buf);
}

/* ---- all of them ---- */

struct conf *conf_new(void)
{
    struct full *f = x_alloc(sizeof(*f));

    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind != KIND_section) {
            ASSERT(set_value(&f->conf, &rows[i], rows[i].def, false, NULL) == 0);
        }
    }
    return &f->conf;
}

void conf_free(struct conf *c)
{
    struct full *f = (struct full *)c;

    if (f == NULL) {
        return;
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind == KIND_text || rows[i].kind == KIND_list) {
            free(*(char **)field(c, &rows[i]));
        }
        free(f->origin[i].name);
    }
    free(f);
}

static const struct row *find_row(const char *name)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind != KIND_section && strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static int unknown_key(const char *name, struct why *why)
{
    const char *names[ROWS];
    const char *nearest;
    size_t n = 0;

    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind != KIND_section) {
            names[n++] = rows[i].name;
        }
    }
    nearest = text_nearest(name, names, n);
    if (nearest != NULL) {
        return why_set(why, DFS_ECONFIG, "unknown key \"%s\"; did you mean \"%s\"?", name, nearest);
    }
    return why_set(why, DFS_ECONFIG, "unknown key \"%s\"; see dfs conf sample", name);
}

/* "key = value", cut up in place. line 0: from a command line. */
static int assign(struct conf *c, char *text, const char *name, unsigned int line, struct why *why)
{
    struct full *f = (struct full *)c;
    char *eq = strchr(text, '=');
    const struct row *r;
    struct origin *from;
    char *key_end, *value;
    bool again;

    if (eq == NULL || eq == text) {
        return why_set(why, DFS_ECONFIG, "expected \"key = value\", found \"%s\"", text);
    }
    for (key_end = eq; key_end > text && (key_end[-1] == ' ' || key_end[-1] == '\t'); key_end--) {
    }
    *key_end = '\0';
    value = eq + 1 + strspn(eq + 1, " \t");
    r = find_row(text);
    if (r == NULL) {
        return unknown_key(text, why);
    }
    from = &f->origin[r - rows];
    again = line != 0 && from->reading == f->readings;
    if (again && r->kind != KIND_list) {
        return why_set(why, DFS_ECONFIG, "%s was given in line %u already", r->name, from->line);
    }
    if (set_value(c, r, value, again, why) != 0) {
        why_prefix(why, "%s", r->name);
        return DFS_ECONFIG;
    }
    free(from->name);
    *from = (struct origin){ x_strdup(name), line, line != 0 ? f->readings : 0 };
    return 0;
}

static void cut_comment(char *line)
{
    for (char *p = line; *p != '\0'; p++) {
        if (*p == '#' && (p == line || strchr(" \t=", p[-1]) != NULL)) {
            *p = '\0';
            break;
        }
    }
}

/* Cuts blanks off both ends; NULL when nothing is left. */
static char *trim(char *line)
{
    char *end;

    line += strspn(line, " \t");
    for (end = line + strlen(line); end > line && strchr(" \t\r", end[-1]) != NULL; end--) {
    }
    *end = '\0';
    return end > line ? line : NULL;
}

static bool printable(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (((unsigned char)p[i] < 0x20 && p[i] != '\t' && p[i] != '\r') || p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

int conf_load_text(struct conf *c, const char *name, struct slice text, struct why *why)
{
    struct full *f = (struct full *)c;
    const char *p = (const char *)text.p;
    const char *end = p + text.len;
    unsigned int line = 1;

    f->readings++;
    if (text.len >= strlen(BYTE_ORDER_MARK) &&
        memcmp(p, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0) {
        p += strlen(BYTE_ORDER_MARK);
    }
    for (; p < end; line++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl != NULL ? nl : end) - p);
        char *copy = x_strndup(p, n);
        char *rest;
        int err = 0;

        cut_comment(copy);
        rest = trim(copy);
        if (!printable(p, n)) {
            err = why_set(why, DFS_ECONFIG, "not text");
        } else if (rest != NULL) {
            err = assign(c, rest, name, line, why);
        }
        free(copy);
        if (err != 0) {
            why_prefix(why, "%s:%u", name, line);
            return err;
        }
        p += n + 1;
    }
    return 0;
}

int conf_load(struct conf *c, const char *path, struct why *why)
{
    char *text;
    size_t len;
    int err = io_read_file(path, FILE_MAX, &text, &len, why);

    if (err == 0) {
        err = conf_load_text(c, path, slice_of(text, len), why);
        free(text);
    }
    return err;
}

/* A # is a part of the value: comments are for files. */
int conf_set(struct conf *c, const char *assignment, struct why *why)
{
    char *copy = x_strdup(assignment);
    char *rest = printable(copy, strlen(copy)) ? trim(copy) : NULL;
    int err = rest != NULL ? assign(c, rest, "command line", 0, why)
                           : why_set(why, DFS_ECONFIG, "expected \"key=value\"");

    free(copy);
    return err;
}

/* ---- what one key alone cannot tell ---- */

/* Prefixes why with the key and where its value came from. */
static int blame(const struct conf *c, const char *key, struct why *why)
{
    const struct full *f = (const struct full *)c;
    const struct row *r = find_row(key);
    const struct origin *from = &f->origin[r - rows];

    why_prefix(why, "%s", key);
    if (from->line != 0) {
        why_prefix(why, "%s:%u", from->name, from->line);
    } else if (from->name != NULL) {
        why_prefix(why, "%s", from->name);
    }
    return DFS_ECONFIG;
}

/* a < b, both times. */
static int check_order(const struct conf *c, const char *a, uint64_t va, const char *b, uint64_t vb,
                       struct why *why)
{
    char ta[TEXT_NUMBER], tb[TEXT_NUMBER];

    if (va < vb) {
        return 0;
    }
    why_set(why, DFS_ECONFIG, "%s must be less than %s, which is %s", text_time(va, ta), b,
            text_time(vb, tb));
    return blame(c, a, why);
}

static int check_addr(const struct conf *c, const char *key, const char *text, struct why *why)
{
    struct addr a;

    return addr_parse(text, &a, why) == 0 ? 0 : blame(c, key, why);
}

static int check_metrics(const struct conf *c, const char *key, const char *text, bool has_auto,
                         struct why *why)
{
    if (strcmp(text, "off") == 0 || (has_auto && strcmp(text, "auto") == 0)) {
        return 0;
    }
    return check_addr(c, key, text, why);
}

/* HOST=RACK, comma separated. */
static int check_topology(const struct conf *c, struct why *why)
{
    for (const char *p = c->topology; *p != '\0';) {
        size_t len = strcspn(p, ",");
        size_t host = strcspn(p, "=,");

        if (host == 0 || host + 1 >= len) {
            why_set(why, DFS_ECONFIG, "expected HOST=RACK, found \"%.*s\"", (int)len, p);
            return blame(c, "topology", why);
        }
        p += len + (p[len] == ',');
    }
    return 0;
}

int conf_check(const struct conf *c, struct why *why)
{
    char *masters = NULL;
    int err = addr_masters(c->masters, MASTER_CLIENTS, &masters, why);

    free(masters);
    if (err != 0) {
        return blame(c, "masters", why);
    }
    if (log_parse(c->log_level, why) != 0) {
        return blame(c, "log.level", why);
    }
    err = check_addr(c, "master.listen", c->master_listen, why);
    if (err == 0) {
        err = check_addr(c, "block.listen", c->block_listen, why);
    }
    if (err == 0) {
        err = check_metrics(c, "master.metrics", c->master_metrics, true, why);
    }
    if (err == 0) {
        err = check_metrics(c, "block.metrics", c->block_metrics, true, why);
    }
    if (err == 0) {
        err = check_metrics(c, "client.metrics", c->client_metrics, false, why);
    }
    if (err == 0) {
        err = check_order(c, "heartbeat", c->heartbeat, "server.suspect_after",
                          c->server_suspect_after, why);
    }
    if (err == 0) {
        err = check_order(c, "server.suspect_after", c->server_suspect_after, "server.dead_after",
                          c->server_dead_after, why);
    }
    return err != 0 ? err : check_topology(c, why);
}

/* ---- printing ---- */

/* "# text", wrapped. */
static void print_comment(FILE *to, const char *text)
{
    size_t column = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, " ");

        if (column != 0 && column + 1 + n > SAMPLE_WIDTH) {
            putc('\n', to);
            column = 0;
        }
        column += (size_t)fprintf(to, "%s%.*s", column == 0 ? "# " : " ", (int)n, text);
        text += n + strspn(text + n, " ");
    }
    putc('\n', to);
}

static void print_range(FILE *to, const struct row *r)
{
    char min[TEXT_NUMBER], max[TEXT_NUMBER];
    const char *reload = r->when == RELOAD ? "; taken over at SIGHUP" : "";

    switch (r->kind) {
    case KIND_size:
    case KIND_time:
    case KIND_num:
        fprintf(to, "# %s to %s%s\n", format_num(r->kind, r->min, min),
                format_num(r->kind, r->max, max), reload);
        break;
    case KIND_flag:
        fprintf(to, "# yes or no%s\n", reload);
        break;
    case KIND_section:
    case KIND_text:
    case KIND_list:
        if (reload[0] != '\0') {
            fprintf(to, "# %s\n", reload + 2);
        }
        break;
    }
}

void conf_print_sample(FILE *to)
{
    fputs("# dfs.conf: one file for every role. Each line below shows a key's default.\n"
          "# Sizes take KiB, MiB, GiB, TiB; times take ms, s, m, h, d.\n",
          to);
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *r = &rows[i];

        putc('\n', to);
        if (r->kind == KIND_section) {
            fprintf(to, "# ---- %s ----\n", r->name);
            print_comment(to, r->help);
            continue;
        }
        print_comment(to, r->help);
        print_range(to, r);
        fprintf(to, "#%s =%s%s\n", r->name, r->def[0] != '\0' ? " " : "", r->def);
    }
}

static void print(const struct conf *c, FILE *to, bool given_only)
{
    const struct full *f = (const struct full *)c;
    char buf[TEXT_NUMBER];

    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind != KIND_section && (!given_only || f->origin[i].name != NULL)) {
            fprintf(to, "%s = %s\n", rows[i].name, format_value(c, &rows[i], buf));
        }
    }
}

void conf_print(const struct conf *c, FILE *to)
{
    print(c, to, false);
}

void conf_print_given(const struct conf *c, FILE *to)
{
    print(c, to, true);
}

void conf_print_json(const struct conf *c, FILE *to)
{
    struct json j = json_to(to);
    char buf[TEXT_NUMBER];

    json_object(&j, NULL);
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind != KIND_section) {
            json_str(&j, rows[i].name, format_value(c, &rows[i], buf));
        }
    }
    json_end(&j);
}
