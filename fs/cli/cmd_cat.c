/* dfs cat: the content of files. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "fs/cli/remote.h"

static int print_file(const struct remote *r, const char *path, uint8_t *buf)
{
    struct file *f;
    struct attr a;
    uint64_t off = 0;
    int status = remote_resolve(r, path, &a);
    int err;

    if (status != CLI_DONE) {
        return status;
    }
    if (!S_ISREG(a.mode)) {
        return cli_fail(r->cli, S_ISDIR(a.mode) ? DFS_EISDIR : DFS_EINVAL, NULL, "%s", path);
    }
    err = file_open(r->c, &r->cr, a.ino, O_RDONLY, &f, NULL, NULL);
    while (err == 0) {
        size_t n = 0;

        err = file_read(f, buf, MIB, off, &n);
        if (err != 0 || n == 0) {
            break;
        }
        if (io_write(STDOUT_FILENO, buf, n) != 0) {
            file_close(f);
            return cli_error(r->cli, "cannot write: %s", strerror(errno));
        }
        off += n;
    }
    if (err != 0) {
        return cli_fail(r->cli, err, NULL, "%s", path);
    }
    file_close(f);
    return CLI_DONE;
}

int cmd_cat(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };
    struct remote r = { 0 };
    uint8_t *buf;
    int status = CLI_DONE;

    if (!cli_begin(cli, argc, argv, opts, 1, -1)) {
        return cli->status;
    }
    status = remote_open(cli, &r);
    if (status != CLI_DONE) {
        return status;
    }
    buf = x_alloc(MIB);
    for (int i = 0; i < cli->arg_count; i++) {
        int one = print_file(&r, cli->args[i], buf);

        status = MAX(status, one);
    }
    free(buf);
    remote_close(&r);
    return status;
}
