/* dfs rm: removes files and trees. */
#include "cluster/base/err.h"

#include "fs/cli/copy.h"

/* A directory that goes when everything in it has gone. */
struct rm_dir {
    char *path;
};

struct rm_job {
    char *path;
    bool dir;
};

struct rm {
    struct copy c; /* first, so that the jobs' argument is both */
    struct rm_dir *dirs;
    size_t dir_count, dir_cap;
};

static void remove_one(struct copy *c, const char *path, bool dir)
{
    struct attr parent;
    struct slice name;
    int err = path_parent(&c->r, path, &parent, &name);

    err = err != 0 ? err : client_unlink(c->r.c, &c->r.cr, parent.ino, name, dir);
    if (err != 0 && !(err == DFS_ENOENT && c->force)) {
        copy_failed(c, err, "cannot remove %s", path);
    } else if (err == 0) {
        copy_done(c, dir);
    }
}

static void run_job(void *arg, void *item)
{
    struct rm_job *j = item;

    remove_one(arg, j->path, j->dir);
    free(j->path);
    free(j);
}

static int visit(void *arg, const char *path, const struct attr *a)
{
    struct rm *rm = arg;

    if (S_ISDIR(a->mode)) {
        if (rm->dir_count == rm->dir_cap) {
            rm->dir_cap = MAX(64, rm->dir_cap * 2);
            rm->dirs = x_realloc(rm->dirs, rm->dir_cap * sizeof(*rm->dirs));
        }
        rm->dirs[rm->dir_count++].path = x_strdup(path);
    } else {
        struct rm_job *j = x_alloc(sizeof(*j));

        j->path = x_strdup(path);
        jobs_add(rm->c.jobs, j);
    }
    return 0;
}

static void unread(void *arg, const char *path, int err)
{
    copy_failed(arg, err, "cannot read %s", path);
}

static void remove_path(struct rm *rm, const char *arg)
{
    struct copy *c = &rm->c;
    char *path = path_trim(arg);
    struct attr a;
    int err = client_resolve(c->r.c, &c->r.cr, path, &a);

    if (path[1] == '\0') {
        copy_failed(c, DFS_EBUSY, "/ stays");
    } else if (err == DFS_ENOENT && c->force) {
        /* as wanted */
    } else if (err != 0) {
        copy_failed(c, err, "%s", path);
    } else if (S_ISDIR(a.mode) && !c->recursive) {
        copy_failed(c, DFS_EISDIR, "%s (-r removes trees)", path);
    } else {
        (void)remote_walk(&c->r, path, &a, visit, unread, rm);
    }
    free(path);
}

int cmd_rm(struct cli *cli, int argc, char **argv)
{
    struct rm rm = { 0 };
    const struct opt opts[] = {
        { "recursive", 'r', OPT_FLAG, &rm.c.recursive, NULL,
          "Remove directories with all they hold." },
        { "force", 'f', OPT_FLAG, &rm.c.force, NULL, "What is not there is no error." },
        OPT_END,
    };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, -1)) {
        return cli->status;
    }
    for (int i = 0; i < cli->arg_count; i++) { /* before anything is removed */
        if (cli->args[i][0] != '/') {
            return cli_usage(cli, "%s: a path in dfs begins with a slash", cli->args[i]);
        }
    }
    status = remote_open(cli, &rm.c.r);
    if (status != CLI_DONE) {
        return status;
    }
    copy_begin(&rm.c, "rm", 0, run_job);
    for (int i = 0; i < cli->arg_count; i++) {
        remove_path(&rm, cli->args[i]);
    }
    jobs_finish(rm.c.jobs);
    rm.c.jobs = NULL;
    while (rm.dir_count > 0) { /* the walk saw each before what is in it */
        char *path = rm.dirs[--rm.dir_count].path;

        remove_one(&rm.c, path, true);
        free(path);
    }
    free(rm.dirs);
    return copy_end(&rm.c);
}
