/* dfs fallocate: space, holes, and ranges that are taken out or put in. */
#include <fcntl.h>
#include <linux/falloc.h>

#include "cluster/base/err.h"

#include "fs/cli/copy.h"

struct job {
    bool keep, punch, zero, collapse, insert;
    uint64_t off, len;
    uint32_t mode;
};

/* The mode of fallocate(2); false when the options exclude each other. */
static bool find_mode(struct job *j)
{
    j->mode = j->collapse ? FALLOC_FL_COLLAPSE_RANGE
              : j->insert ? FALLOC_FL_INSERT_RANGE
              : j->punch  ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
              : j->zero   ? FALLOC_FL_ZERO_RANGE
                          : 0;
    if (j->keep) {
        j->mode |= FALLOC_FL_KEEP_SIZE;
    }
    return j->punch + j->zero + j->collapse + j->insert <= 1 &&
           !(j->keep && (j->collapse || j->insert));
}

/* A file that is not there is made when space is asked for. */
static int open_file(const struct remote *r, const char *path, bool make, struct file **ret)
{
    struct slice name;
    struct attr a;
    int err = client_resolve(r->c, &r->cr, path, &a);

    if (err == DFS_ENOENT && make) {
        err = path_parent(r, path, &a, &name);
        return err != 0 ? err
                        : file_create(r->c, &r->cr, a.ino, name, 0644, O_WRONLY, ret, NULL, NULL);
    }
    return err != 0 ? err : file_open(r->c, &r->cr, a.ino, O_WRONLY, ret, NULL, NULL);
}

static int run(const struct remote *r, const char *path, const struct job *j)
{
    struct file *f = NULL;
    int err = open_file(r, path, (j->mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE) == 0, &f);

    if (err == 0) {
        err = file_fallocate(f, &r->cr, j->mode, j->off, j->len);
        file_close(f);
    }
    if (err == DFS_ENOTSUP) {
        return cli_error(r->cli, "%s has too many extents behind the range", path);
    }
    return err != 0 ? cli_fail(r->cli, err, NULL, "%s", path) : CLI_DONE;
}

int cmd_fallocate(struct cli *cli, int argc, char **argv)
{
    struct job j = { 0 };
    const struct opt opts[] = {
        { "length", 'l', OPT_SIZE, &j.len, "SIZE", "How long the range is." },
        { "offset", 'o', OPT_SIZE, &j.off, "SIZE", "Where it begins; 0 without." },
        { "keep-size", 'n', OPT_FLAG, &j.keep, NULL, "The file does not grow." },
        { "punch-hole", 'p', OPT_FLAG, &j.punch, NULL, "Make it a hole; the size stays." },
        { "zero-range", 'z', OPT_FLAG, &j.zero, NULL,
          "Make it read as zeros, beyond the end, too." },
        { "collapse-range", 'c', OPT_FLAG, &j.collapse, NULL,
          "Take it out: what lies behind moves forward." },
        { "insert-range", 'i', OPT_FLAG, &j.insert, NULL,
          "Put a hole of that length in: what lies behind moves back." },
        OPT_END,
    };
    struct remote r = { 0 };
    char *path;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 1)) {
        return cli->status;
    }
    if (!find_mode(&j)) {
        return cli_usage(cli, "only one of -p, -z, -c and -i; -n goes with neither -c nor -i");
    }
    if (j.len == 0) {
        return cli_usage(cli, "no length (-l)");
    }
    path = path_trim(cli->args[0]);
    status = remote_open(cli, &r);
    status = status != CLI_DONE ? status : run(&r, path, &j);
    remote_close(&r);
    free(path);
    return status;
}
