#include "replication/store/volume_list.h"

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "replication/rule.h"

#define FILE_NAME    "dfs-volumes"
#define FILE_MAX     (1u << 20)
#define LIST_VERSION 1

static const char *const words[NOTES] = { "added", "leaving", "removed" };

void volume_list_fini(struct volume_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->lines[i].spec);
    }
    l->count = 0;
}

const char *volume_list_path(const char *spec)
{
    const char *end = *spec == '[' ? strchr(spec, ']') : NULL;

    return end != NULL ? end + 1 + strspn(end + 1, " \t") : spec;
}

static size_t find(const struct volume_list *l, enum volume_note note, const char *spec)
{
    size_t i = 0;

    while (i < l->count && (l->lines[i].note != note || strcmp(volume_list_path(l->lines[i].spec),
                                                               volume_list_path(spec)) != 0)) {
        i++;
    }
    return i;
}

bool volume_list_has(const struct volume_list *l, enum volume_note note, const char *spec)
{
    return find(l, note, spec) < l->count;
}

int volume_list_set(struct volume_list *l, enum volume_note note, const char *spec)
{
    if (volume_list_has(l, note, spec)) {
        return 0;
    }
    if (l->count == VOLUME_LIST_MAX) {
        return DFS_ENOSPC;
    }
    l->lines[l->count++] = (struct volume_line){ note, x_strdup(spec) };
    return 0;
}

void volume_list_drop(struct volume_list *l, enum volume_note note, const char *spec)
{
    size_t i = find(l, note, spec);

    if (i < l->count) {
        free(l->lines[i].spec);
        l->lines[i] = l->lines[--l->count];
    }
}

static int parse_line(struct volume_list *l, const char *line, bool first)
{
    const char *value = strchr(line, ' ');
    size_t len = value != NULL ? (size_t)(value - line) : 0;

    if (first) {
        return strcmp(line, "format 1") == 0      ? 0
               : strncmp(line, "format ", 7) == 0 ? DFS_EVERSION
                                                  : DFS_EDAMAGED;
    }
    for (int note = 0; len != 0 && value[1] != '\0' && note < NOTES; note++) {
        if (strlen(words[note]) == len && strncmp(line, words[note], len) == 0) {
            return volume_list_set(l, (enum volume_note)note, value + 1);
        }
    }
    return DFS_EDAMAGED;
}

int volume_list_parse(const char *text, struct volume_list *ret, struct why *why)
{
    struct volume_list l = { .count = 0 };
    char *copy = x_strdup(text), *save = NULL;
    int no = 0, err = 0;

    for (char *line = strtok_r(copy, "\n", &save); line != NULL && err == 0;
         line = strtok_r(NULL, "\n", &save)) {
        err = parse_line(&l, line, ++no == 1);
    }
    if (err == 0 && no == 0) {
        err = DFS_EDAMAGED;
    }
    free(copy);
    if (err != 0) {
        volume_list_fini(&l);
        return why_set(
            why, err,
            err == DFS_EVERSION ? "a newer program wrote it" : "line %d is not understood", no);
    }
    *ret = l;
    return 0;
}

int volume_list_load(const char *dir, struct volume_list *ret, struct why *why)
{
    char *path = x_printf("%s/" FILE_NAME, dir);
    char *text = NULL;
    int err = io_read_file(path, FILE_MAX, &text, NULL, why);

    if (err == DFS_ENOENT) {
        *ret = (struct volume_list){ .count = 0 };
        err = 0;
    } else if (err == 0) {
        err = volume_list_parse(text, ret, why);
        if (err != 0) {
            why_prefix(why, "%s", path);
        }
    }
    free(text);
    free(path);
    return err;
}

int volume_list_save(const char *dir, const struct volume_list *l, struct why *why)
{
    char *path = x_printf("%s/" FILE_NAME, dir);
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    int err;

    ASSERT(f != NULL);
    fprintf(f, "format %d\n", LIST_VERSION);
    for (size_t i = 0; i < l->count; i++) {
        fprintf(f, "%s %s\n", words[l->lines[i].note], l->lines[i].spec);
    }
    fclose(f);
    err = io_write_file(path, text, len, 0644, why);
    free(text);
    free(path);
    return err;
}

/* ---- block.volumes ---- */

int volume_spec_split(const char *spec, const char *label, char ret[LIMIT_LABEL + 1],
                      const char **ret_path, struct why *why)
{
    struct slice s = slice_str(label != NULL ? label : "");
    const char *end = *spec == '[' ? strchr(spec, ']') : NULL;

    *ret_path = spec;
    if (*spec == '[' && end == NULL) {
        return why_set(why, DFS_ECONFIG, "block.volumes: \"%s\": no ] behind the label", spec);
    }
    if (end != NULL) {
        s = slice_of(spec + 1, (size_t)(end - spec) - 1);
        *ret_path = end + 1 + strspn(end + 1, " \t");
    }
    if (s.len != 0 && !rule_label_ok(s)) {
        return why_set(why, DFS_ECONFIG,
                       "\"%.*s\": not a label: want 1 to %d letters, digits, '-', '_' and '.', and "
                       "no word of storage rules",
                       (int)s.len, (const char *)s.p, LIMIT_LABEL);
    }
    snprintf(ret, LIMIT_LABEL + 1, "%.*s", (int)s.len, (const char *)s.p);
    return 0;
}

const char *volume_spec_next(char **list)
{
    char *p;

    while ((p = strsep(list, ",")) != NULL) {
        size_t n;

        p += strspn(p, " \t");
        n = strlen(p);
        while (n > 1 && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '/')) {
            p[--n] = '\0';
        }
        if (n != 0) {
            return p;
        }
    }
    return NULL;
}

int volume_spec_check(const char *volumes, const char *label, struct why *why)
{
    char *list = x_strdup(volumes), *rest = list;
    const char *spec, *path, *seen[LIMIT_VOLUMES];
    char own[LIMIT_LABEL + 1];
    size_t n = 0;
    int err = volume_spec_split("", label, own, &path, why);

    if (err != 0) {
        why_prefix(why, "block.label");
    }
    while (err == 0 && (spec = volume_spec_next(&rest)) != NULL) {
        err = volume_spec_split(spec, "", own, &path, why);
        for (size_t i = 0; i < n && err == 0; i++) {
            if (strcmp(seen[i], path) == 0) {
                err = why_set(why, DFS_ECONFIG, "block.volumes: %s is listed twice", path);
            }
        }
        if (err == 0 && n == LIMIT_VOLUMES) {
            err = why_set(why, DFS_ECONFIG, "block.volumes: more than %d", LIMIT_VOLUMES);
        } else if (err == 0) {
            seen[n++] = path;
        }
    }
    free(list);
    return err;
}
