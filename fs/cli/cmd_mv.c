/* dfs mv: renames and moves. */
#include "cluster/base/err.h"

#include "fs/cli/copy.h"

#define NOREPLACE 1u /* RENAME_NOREPLACE of renameat2(2) */

static int move_one(const struct remote *r, const char *src, const char *dst, bool into,
                    uint32_t flags)
{
    char *from = path_trim(src);
    char *to = into ? path_join(dst, path_base(from)) : x_strdup(dst);
    struct attr from_dir;
    struct attr to_dir;
    struct slice from_name;
    struct slice to_name;
    int err = path_parent(r, from, &from_dir, &from_name);

    err = err != 0 ? err : path_parent(r, to, &to_dir, &to_name);
    err = err != 0
              ? err
              : client_rename(r->c, &r->cr, from_dir.ino, from_name, to_dir.ino, to_name, flags);
    if (err != 0) {
        (void)cli_fail(r->cli, err, NULL, "cannot move %s to %s", from, to);
    }
    free(from);
    free(to);
    return err != 0 ? CLI_FAILED : CLI_DONE;
}

int cmd_mv(struct cli *cli, int argc, char **argv)
{
    bool keep = false;
    const struct opt opts[] = {
        { "no-clobber", 'n', OPT_FLAG, &keep, NULL, "Do not replace what is there already." },
        OPT_END,
    };
    struct remote r = { 0 };
    char *dst = NULL;
    bool into = false;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 2, -1)) {
        return cli->status;
    }
    status = remote_open(cli, &r);
    if (status == CLI_DONE) {
        status = path_target(&r, cli->args[cli->arg_count - 1], cli->arg_count - 1, &dst, &into);
    }
    for (int i = 0; dst != NULL && i < cli->arg_count - 1; i++) {
        int one = move_one(&r, cli->args[i], dst, into, keep ? NOREPLACE : 0);

        status = MAX(status, one);
    }
    free(dst);
    remote_close(&r);
    return status;
}
