/* dfs cp: files and trees of dfs to other places in it. */
#include <fcntl.h>

#include "cluster/base/err.h"
#include "cluster/base/list.h"

#include "fs/cli/copy.h"

struct cp {
    struct copy c; /* first, so that the jobs' argument is both */
    bool clone;    /* said on the command line; the default */
    bool bytes;    /* into blocks of its own */
    const char *from;
    const char *to;
    struct list dirs; /* that were made, the last one first */
};

struct cp_job {
    struct list link; /* of directories */
    char *from;
    char *to;
    struct attr a; /* of the source */
    uint64_t made;
};

static void job_free(struct cp_job *j)
{
    free(j->from);
    free(j->to);
    free(j);
}

/* ---- one file ---- */

static int copy_part(struct copy *c, struct file *from, struct file *to, uint64_t off, uint64_t end)
{
    uint8_t *buf = x_realloc(NULL, COPY_BYTES);
    int err = DFS_OK;

    while (err == 0 && off < end) {
        size_t n = 0;

        err = file_read(from, buf, (size_t)MIN(end - off, (uint64_t)COPY_BYTES), off, &n);
        if (n == 0) {
            break; /* it was cut meanwhile */
        }
        err = err != 0 ? err : file_write(to, &c->r.cr, buf, n, off);
        off += n;
        err = err != 0 ? err : copy_moved(c, n);
    }
    free(buf);
    return err;
}

static int copy_bytes(struct copy *c, struct file *from, struct file *to, uint64_t size)
{
    struct setattr_req q = { .ino = file_ino(to), .valid = SET_SIZE, .size = size };
    uint64_t data = 0;
    uint64_t hole = 0;
    struct attr a;
    int err = DFS_OK;

    while (err == 0 && (err = file_seek(from, true, hole, &data)) == 0) {
        err = file_seek(from, false, data, &hole);
        err = err != 0 ? err : copy_part(c, from, to, data, hole);
    }
    err = err == DFS_ENOENT ? DFS_OK : err;
    if (err == 0 && hole < size) { /* it ends with a hole */
        err = client_setattr(c->r.c, &c->r.cr, &q, &a);
    }
    return err != 0 ? err : file_flush(to);
}

struct source {
    struct cp *p;
    const struct cp_job *j;
    struct file *f;
};

static int fill_file(void *arg, struct file *to, uint64_t ino)
{
    struct source *s = arg;
    struct copy *c = &s->p->c;
    uint64_t done = 0;
    int err;

    if (s->p->bytes) {
        err = copy_bytes(c, s->f, to, s->j->a.size);
    } else {
        err = file_clone(s->f, 0, to, &c->r.cr, 0, LIMIT_FILE_SIZE, &done);
        err = err != 0 ? err : copy_moved(c, done);
    }
    err = err == 0 && c->sync ? file_fsync(to) : err;
    return err == 0 && c->preserve ? copy_keep(c, ino, &s->j->a) : err;
}

static void copy_file(struct cp *p, const struct cp_job *j)
{
    struct copy *c = &p->c;
    struct source s = { .p = p, .j = j };
    struct slice name;
    struct attr dir;
    int err = file_open(c->r.c, &c->r.cr, j->a.ino, O_RDONLY, &s.f, NULL, NULL);

    if (err != 0) {
        copy_failed(c, err, "cannot read %s", j->from);
        return;
    }
    err = path_parent(&c->r, j->to, &dir, &name);
    err = err != 0 ? err : copy_make(c, dir.ino, name, j->a.mode, fill_file, &s);
    file_close(s.f);
    if (err == 0) {
        copy_done(c, false);
    } else {
        copy_failed(c, err, "cannot write %s%s", j->to,
                    err == DFS_EEXIST ? " (-f replaces it)" : "");
    }
}

static void run_job(void *arg, void *item)
{
    if (!copy_stopped()) {
        copy_file(arg, item);
    }
    job_free(item);
}

/* ---- trees ---- */

static int copy_symlink(struct copy *c, const struct cp_job *j)
{
    char target[LIMIT_SYMLINK + 1];
    size_t len = 0;
    struct slice name;
    struct attr dir;
    struct attr a;
    int err = client_readlink(c->r.c, &c->r.cr, j->a.ino, target, LIMIT_SYMLINK, &len);

    err = err != 0 ? err : path_parent(&c->r, j->to, &dir, &name);
    if (err != 0) {
        return err;
    }
    for (int tries = 0;; tries++) {
        err = client_make(c->r.c, &c->r.cr, dir.ino, name, S_IFLNK | 0777, 0, slice_of(target, len),
                          &a);
        if (err != DFS_EEXIST || !c->force || tries > 0) {
            return err;
        }
        err = client_unlink(c->r.c, &c->r.cr, dir.ino, name, false);
        if (err != 0) {
            return err;
        }
    }
}

/* The directory itself; an existing one is filled. */
static int copy_directory(struct copy *c, struct cp_job *j)
{
    struct slice name;
    struct attr dir;
    struct attr a;
    int err = path_parent(&c->r, j->to, &dir, &name);

    err = err != 0 ? err
                   : client_make(c->r.c, &c->r.cr, dir.ino, name, S_IFDIR | (j->a.mode & 0777), 0,
                                 SLICE_EMPTY, &a);
    if (err == DFS_EEXIST) {
        err = client_lookup(c->r.c, &c->r.cr, dir.ino, name, &a);
        err = err == 0 && !S_ISDIR(a.mode) ? DFS_ENOTDIR : err;
    }
    if (err == 0) {
        j->made = a.ino;
    }
    return err;
}

/* Of the source's tree, directories before what is in them. */
static int take(void *arg, const char *path, const struct attr *a)
{
    struct cp *p = arg;
    struct copy *c = &p->c;
    struct cp_job *j = x_alloc(sizeof(*j));
    int err;

    j->from = x_strdup(path);
    j->to = x_printf("%s%s", p->to, path + strlen(p->from));
    j->a = *a;
    if (S_ISREG(a->mode)) {
        jobs_add(c->jobs, j);
        return copy_stopped();
    }
    if (S_ISDIR(a->mode)) {
        err = copy_directory(c, j);
    } else {
        err = S_ISLNK(a->mode) ? copy_symlink(c, j) : DFS_ENOTSUP;
    }
    if (err != 0) {
        copy_failed(c, err, "cannot copy %s to %s", j->from, j->to);
    } else {
        copy_done(c, S_ISDIR(a->mode));
    }
    if (err == 0 && S_ISDIR(a->mode)) {
        list_push_front(&p->dirs, &j->link);
    } else {
        job_free(j);
    }
    return copy_stopped();
}

static void unread(void *arg, const char *path, int err)
{
    struct cp *p = arg;

    copy_failed(&p->c, err, "cannot list %s", path);
}

static bool is_below(const char *path, const char *top)
{
    size_t len = strlen(top);

    return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static void copy_source(struct cp *p, const char *from, const char *to)
{
    struct copy *c = &p->c;
    struct attr a;
    int err = client_resolve(c->r.c, &c->r.cr, from, &a);

    if (err != 0) {
        copy_failed(c, err, "%s", from);
    } else if (S_ISDIR(a.mode) && !c->recursive) {
        copy_failed(c, DFS_EISDIR, "%s (-r copies trees)", from);
    } else if (S_ISDIR(a.mode) && (strcmp(from, "/") == 0 || is_below(to, from))) {
        copy_failed(c, DFS_EINVAL, "cannot copy %s into itself", from);
    } else {
        p->from = from;
        p->to = to;
        (void)remote_walk(&c->r, from, &a, take, unread, p);
    }
}

/* Directories' times change while they are filled: they are set last, inner ones first. */
static void finish_dirs(struct cp *p)
{
    struct list *item;

    while ((item = list_pop_front(&p->dirs)) != NULL) {
        struct cp_job *j = CONTAINER_OF(item, struct cp_job, link);
        int err = p->c.preserve ? copy_keep(&p->c, j->made, &j->a) : DFS_OK;

        if (err != 0) {
            copy_failed(&p->c, err, "cannot set the attributes of %s", j->to);
        }
        job_free(j);
    }
}

static int copy_all(struct cp *p, const char *dst, bool into)
{
    struct copy *c = &p->c;
    const struct cli *cli = c->r.cli;

    copy_begin(c, path_base(cli->args[0]), 0, run_job);
    copy_catch_signals();
    for (int i = 0; i < cli->arg_count - 1; i++) {
        char *from = path_trim(cli->args[i]);
        char *to = into ? path_join(dst, path_base(from)) : x_strdup(dst);

        copy_source(p, from, to);
        free(from);
        free(to);
    }
    jobs_finish(c->jobs);
    c->jobs = NULL;
    finish_dirs(p);
    return copy_end(c);
}

int cmd_cp(struct cli *cli, int argc, char **argv)
{
    struct cp p = { 0 };
    struct copy *c = &p.c;
    const struct opt opts[] = {
        { "recursive", 'r', OPT_FLAG, &c->recursive, NULL, "Copy directories with all they hold." },
        { "force", 'f', OPT_FLAG, &c->force, NULL, "Replace files that are there already." },
        { "preserve", 'p', OPT_FLAG, &c->preserve, NULL,
          "Keep mode and times, and the owner when run by root." },
        { "clone", 0, OPT_FLAG, &p.clone, NULL, "Share the source's bytes; this is the default." },
        { "copy", 0, OPT_FLAG, &p.bytes, NULL, "Move the bytes into blocks of the copy's own." },
        { "sync", 0, OPT_FLAG, &c->sync, NULL, "Wait until every copy is on disk." },
        OPT_END,
    };
    char *dst = NULL;
    bool into = false;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 2, -1)) {
        return cli->status;
    }
    if (p.clone && p.bytes) {
        return cli_usage(cli, "--clone and --copy exclude each other");
    }
    list_init(&p.dirs);
    status = remote_open(cli, &c->r);
    if (status != CLI_DONE) {
        return status;
    }
    status = path_target(&c->r, cli->args[cli->arg_count - 1], cli->arg_count - 1, &dst, &into);
    if (status != CLI_DONE) {
        remote_close(&c->r);
        return status;
    }
    status = copy_all(&p, dst, into);
    free(dst);
    return status;
}
