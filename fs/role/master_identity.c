#include "fs/role/master_identity.h"

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define FORMAT   1
#define FILE_MAX 4096

static void to_hex(const uint8_t *id, char ret[2 * CLUSTER_ID_BYTES + 1])
{
    for (size_t i = 0; i < CLUSTER_ID_BYTES; i++) {
        snprintf(ret + 2 * i, 3, "%02x", id[i]);
    }
}

static bool from_hex(const char *text, uint8_t ret[CLUSTER_ID_BYTES])
{
    for (size_t i = 0; i < CLUSTER_ID_BYTES; i++) {
        unsigned int v;

        if (sscanf(text + 2 * i, "%2x", &v) != 1) {
            return false;
        }
        ret[i] = (uint8_t)v;
    }
    return true;
}

int master_identity_load(const char *data, bool *ret_exists, uint8_t ret_cluster[CLUSTER_ID_BYTES],
                         struct why *why)
{
    char *path = x_printf("%s/identity", data);
    char hex[2 * CLUSTER_ID_BYTES + 1];
    uint8_t id[CLUSTER_ID_BYTES];
    unsigned int format = 0;
    char *text = NULL;
    int err = io_read_file(path, FILE_MAX, &text, NULL, why);

    if (err == DFS_ENOENT) {
        *ret_exists = false;
        err = DFS_OK;
    } else if (err == DFS_OK) {
        if (sscanf(text, "dfs-master %u\n", &format) == 1 && format > FORMAT) {
            err = why_set(why, DFS_EVERSION, "%s: format %u is newer than this program (%d)", path,
                          format, FORMAT);
        } else if (sscanf(text, "dfs-master %u\ncluster %32[0-9a-f]", &format, hex) != 2 ||
                   strlen(hex) != sizeof(hex) - 1 || !from_hex(hex, id)) {
            err = why_set(why, DFS_EDAMAGED, "%s is damaged", path);
        } else {
            memcpy(ret_cluster, id, sizeof(id));
            *ret_exists = true;
        }
    }
    free(text);
    free(path);
    return err;
}

int master_identity_store(const char *data, const uint8_t cluster[CLUSTER_ID_BYTES],
                          struct why *why)
{
    char *path = x_printf("%s/identity", data);
    char hex[2 * CLUSTER_ID_BYTES + 1];
    char *text;
    int err;

    to_hex(cluster, hex);
    text = x_printf("dfs-master %d\ncluster %s\n", FORMAT, hex);
    err = io_write_file(path, text, strlen(text), 0600, why);
    free(text);
    free(path);
    return err;
}
