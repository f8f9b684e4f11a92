/* dfs mkdir: directories. */
#include "cluster/base/err.h"

#include "fs/cli/copy.h"

/* Every missing directory of the path. */
static int make_path(const struct remote *r, char *path, uint32_t mode)
{
    struct attr a;
    int err = client_getattr(r->c, &r->cr, INODE_ROOT, &a);

    for (char *p = path; err == 0;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        uint64_t dir = a.ino;
        struct slice name = slice_of(p, len);

        if (len == 0) {
            break;
        }
        if (!S_ISDIR(a.mode)) {
            return DFS_ENOTDIR;
        }
        err = client_lookup(r->c, &r->cr, dir, name, &a);
        if (err == DFS_ENOENT) {
            /* What lies above is for the owner to pass through, whatever the mode. */
            uint32_t m = p[len + strspn(p + len, "/")] == '\0' ? mode : mode | 0300;

            err = client_make(r->c, &r->cr, dir, name, S_IFDIR | m, 0, SLICE_EMPTY, &a);
            if (err == DFS_EEXIST) {
                err = client_lookup(r->c, &r->cr, dir, name, &a);
            }
        }
        p += len;
    }
    return err == 0 && !S_ISDIR(a.mode) ? DFS_EEXIST : err;
}

static int make_one(const struct remote *r, const char *path, uint32_t mode, bool parents)
{
    char *trimmed = path_trim(path);
    struct slice name;
    struct attr a;
    int err;

    if (trimmed[0] != '/') {
        free(trimmed);
        return cli_usage(r->cli, "%s: a path in dfs begins with a slash", path);
    }
    if (parents) {
        err = make_path(r, trimmed, mode);
    } else {
        err = path_parent(r, trimmed, &a, &name);
        err = err == DFS_EINVAL ? DFS_EEXIST : err; /* the root */
        err = err != 0 ? err
                       : client_make(r->c, &r->cr, a.ino, name, S_IFDIR | mode, 0, SLICE_EMPTY, &a);
    }
    free(trimmed);
    return err != 0 ? cli_fail(r->cli, err, NULL, "cannot make %s", path) : CLI_DONE;
}

int cmd_mkdir(struct cli *cli, int argc, char **argv)
{
    bool parents = false;
    const char *mode_text = NULL;
    const struct opt opts[] = {
        { "parents", 'p', OPT_FLAG, &parents, NULL,
          "Make missing directories above, too; existing ones are fine." },
        { "mode", 'm', OPT_TEXT, &mode_text, "MODE", "Permissions in octal; 777 less the umask." },
        OPT_END,
    };
    struct remote r = { 0 };
    unsigned long mode = 0777;
    char *end = NULL;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, -1)) {
        return cli->status;
    }
    if (mode_text != NULL) {
        mode = strtoul(mode_text, &end, 8);
        if (mode_text[0] < '0' || mode_text[0] > '7' || *end != '\0' || mode > 07777) {
            return cli_usage(cli, "\"%s\" is no octal mode", mode_text);
        }
    }
    status = remote_open(cli, &r);
    if (status != CLI_DONE) {
        return status;
    }
    if (mode_text != NULL) {
        r.cr.umask = 0;
    }
    for (int i = 0; i < cli->arg_count; i++) {
        int one = make_one(&r, cli->args[i], (uint32_t)mode, parents);

        status = MAX(status, one);
    }
    remote_close(&r);
    return status;
}
