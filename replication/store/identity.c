#include "replication/store/identity.h"

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define FILE_MAX (64u << 10)

void identity_fini(struct identity *id)
{
    for (size_t i = 0; i < id->volume_count; i++) {
        free(id->volumes[i].path);
    }
    id->volume_count = 0;
}

const char *uuid_format(const uint8_t uuid[UUID_BYTES], char buf[UUID_TEXT])
{
    for (size_t i = 0; i < UUID_BYTES; i++) {
        snprintf(buf + 2 * i, 3, "%02x", uuid[i]);
    }
    return buf;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool uuid_parse(const char *text, uint8_t ret[UUID_BYTES])
{
    uint8_t u[UUID_BYTES];

    if (strlen(text) != (size_t)2 * UUID_BYTES) {
        return false;
    }
    for (size_t i = 0; i < UUID_BYTES; i++) {
        int hi = hex_digit(text[2 * i]), lo = hex_digit(text[2 * i + 1]);

        if (hi < 0 || lo < 0) {
            return false;
        }
        u[i] = (uint8_t)(hi << 4 | lo);
    }
    memcpy(ret, u, sizeof(u));
    return true;
}

static bool number_parse(const char *text, uint32_t *ret)
{
    char *end;
    unsigned long v;

    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    v = strtoul(text, &end, 10);
    if (*end != '\0' || errno != 0 || v > UINT32_MAX) {
        return false;
    }
    *ret = (uint32_t)v;
    return true;
}

/* "77.. /disk1": one of the volumes of a server; without a path the volume itself. */
static bool volume_parse(struct identity *id, char *value)
{
    char *path = strchr(value, ' ');

    if (path == NULL) {
        id->has_volume = uuid_parse(value, id->volume);
        return id->has_volume;
    }
    *path++ = '\0';
    if (id->volume_count == LIMIT_VOLUMES || *path == '\0' ||
        !uuid_parse(value, id->volumes[id->volume_count].uuid)) {
        return false;
    }
    id->volumes[id->volume_count++].path = x_strdup(path);
    return true;
}

static bool line_parse(struct identity *id, char *line, uint32_t *format)
{
    char *value = strchr(line, ' ');

    if (value == NULL) {
        return false;
    }
    *value++ = '\0';
    if (strcmp(line, "format") == 0) {
        return number_parse(value, format);
    }
    if (strcmp(line, "cluster") == 0) {
        id->has_cluster = strcmp(value, "-") != 0;
        return !id->has_cluster || uuid_parse(value, id->cluster);
    }
    if (strcmp(line, "server") == 0) {
        return uuid_parse(value, id->server);
    }
    if (strcmp(line, "node") == 0) {
        return number_parse(value, &id->node);
    }
    return strcmp(line, "volume") == 0 && volume_parse(id, value);
}

int identity_parse(const char *text, struct identity *ret, struct why *why)
{
    struct identity id = { 0 };
    char *copy = x_strdup(text);
    char *save = NULL;
    uint32_t format = 0;
    int no = 0;
    int err = 0;

    for (char *line = strtok_r(copy, "\n", &save); line != NULL && err == 0;
         line = strtok_r(NULL, "\n", &save)) {
        no++;
        if (!line_parse(&id, line, &format)) {
            err = why_set(why, DFS_EDAMAGED, "line %d is not understood", no);
        } else if (format != IDENTITY_VERSION) {
            err = format > IDENTITY_VERSION
                      ? why_set(why, DFS_EVERSION, "format %u is newer than this program's (%d)",
                                format, IDENTITY_VERSION)
                      : why_set(why, DFS_EDAMAGED, "line %d is not the format's number", no);
        }
    }
    if (err == 0 && format == 0) {
        err = why_set(why, DFS_EDAMAGED, "the file is empty");
    }
    free(copy);
    if (err != 0) {
        identity_fini(&id);
        return err;
    }
    *ret = id;
    return 0;
}

int identity_load(const char *path, struct identity *ret, struct why *why)
{
    char *text;
    int err = io_read_file(path, FILE_MAX, &text, NULL, why);

    if (err != 0) {
        return err;
    }
    err = identity_parse(text, ret, why);
    if (err != 0) {
        why_prefix(why, "%s", path);
    }
    free(text);
    return err;
}

int identity_save(const char *path, const struct identity *id, struct why *why)
{
    char a[UUID_TEXT], b[UUID_TEXT];
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    int err;

    ASSERT(f != NULL);
    fprintf(f, "format %d\ncluster %s\nserver %s\n", IDENTITY_VERSION,
            id->has_cluster ? uuid_format(id->cluster, a) : "-", uuid_format(id->server, b));
    if (id->has_volume) {
        fprintf(f, "volume %s\n", uuid_format(id->volume, a));
    } else {
        fprintf(f, "node %u\n", id->node);
        for (size_t i = 0; i < id->volume_count; i++) {
            fprintf(f, "volume %s %s\n", uuid_format(id->volumes[i].uuid, a), id->volumes[i].path);
        }
    }
    fclose(f);
    err = io_write_file(path, text, len, 0644, why);
    free(text);
    return err;
}
