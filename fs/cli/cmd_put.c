/* dfs put: files and trees of this machine into dfs. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "fs/cli/copy.h"

#define POLL_MS 200

struct put_job {
    char *from;
    char *to;
    uint64_t dir; /* to's directory */
    struct stat st;
};

/* A directory that was made: to be filled, and its attributes to be set when it is. */
struct made_dir {
    char *from;
    char *to;
    uint64_t ino;
    uint32_t mode; /* when it is filled; 0: as it is */
    struct stat st;
};

struct put {
    struct copy c; /* first, so that the jobs' argument is both */
    struct made_dir *dirs;
    size_t count, cap;
    size_t filled; /* of dirs */
};

static int64_t ns_of(struct timespec t)
{
    return (int64_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static int keep_attrs(struct copy *c, uint64_t ino, const struct stat *st)
{
    const struct attr a = { .mode = st->st_mode,
                            .uid = st->st_uid,
                            .gid = st->st_gid,
                            .atime = ns_of(st->st_atim),
                            .mtime = ns_of(st->st_mtim) };

    return copy_keep(c, ino, &a);
}

/* A pipe may have nothing for long. */
static int wait_for_input(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    while (poll(&p, 1, POLL_MS) == 0 && !copy_stopped()) {
    }
    return copy_stopped() ? DFS_EINTR : DFS_OK;
}

/* *ret_local: the error is of the source. */
static int copy_bytes(struct copy *c, int fd, struct file *f, bool *ret_local)
{
    uint8_t *buf = x_realloc(NULL, COPY_BYTES);
    uint64_t off = 0;
    int err;

    for (;;) {
        size_t n = 0;

        err = wait_for_input(fd);
        err = err != 0 ? err : io_read_some(fd, buf, COPY_BYTES, &n);
        *ret_local = err != 0;
        if (err != 0 || n == 0) {
            break;
        }
        err = file_write(f, &c->r.cr, buf, n, off);
        err = err != 0 ? err : copy_moved(c, n);
        if (err != 0) {
            break;
        }
        off += n;
    }
    if (err == 0 && copy_stopped()) { /* the end of a pipe whose other side was stopped, too */
        err = DFS_EINTR;
    }
    free(buf);
    if (err == 0) {
        err = c->sync ? file_fsync(f) : file_flush(f);
    }
    return err;
}

struct source {
    struct copy *c;
    const struct put_job *j;
    int fd;
    bool local; /* what went wrong was here */
};

static int fill_file(void *arg, struct file *f, uint64_t ino)
{
    struct source *s = arg;
    int err = copy_bytes(s->c, s->fd, f, &s->local);

    return err == 0 && s->c->preserve ? keep_attrs(s->c, ino, &s->j->st) : err;
}

static void put_file(struct copy *c, const struct put_job *j)
{
    struct source s = { .c = c, .j = j };
    int err;

    s.fd = strcmp(j->from, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                                     : open(j->from, O_RDONLY | O_CLOEXEC);
    if (s.fd < 0) {
        copy_failed(c, err_from_errno(errno), "cannot read %s", j->from);
        return;
    }
    (void)posix_fadvise(s.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    err = copy_make(c, j->dir, slice_str(path_base(j->to)), j->st.st_mode, fill_file, &s);
    close(s.fd);
    if (err == 0) {
        copy_done(c, false);
    } else if (s.local) {
        copy_failed(c, err, "cannot read %s", j->from);
    } else {
        copy_failed(c, err, "cannot write %s%s", j->to,
                    err == DFS_EEXIST ? " (-f replaces it)" : "");
    }
}

static void run_job(void *arg, void *item)
{
    struct put_job *j = item;

    if (!copy_stopped()) {
        put_file(arg, j);
    }
    free(j->from);
    free(j->to);
    free(j);
}

static void put_symlink(struct copy *c, const struct put_job *j)
{
    char target[LIMIT_SYMLINK + 1];
    ssize_t n = readlink(j->from, target, sizeof(target));
    struct slice name = slice_str(path_base(j->to));
    struct attr a;
    int err;

    if (n < 0 || (size_t)n > LIMIT_SYMLINK) {
        copy_failed(c, n < 0 ? err_from_errno(errno) : DFS_ENAMETOOLONG, "cannot read %s", j->from);
        return;
    }
    err = client_make(c->r.c, &c->r.cr, j->dir, name, S_IFLNK | 0777, 0,
                      slice_of(target, (size_t)n), &a);
    if (err == DFS_EEXIST && c->force) {
        err = client_unlink(c->r.c, &c->r.cr, j->dir, name, false);
        err = err != 0 ? err
                       : client_make(c->r.c, &c->r.cr, j->dir, name, S_IFLNK | 0777, 0,
                                     slice_of(target, (size_t)n), &a);
    }
    if (err != 0) {
        copy_failed(c, err, "cannot make %s", j->to);
    } else {
        copy_done(c, false);
    }
}

/* The directory itself; an existing one is filled. */
static void put_directory(struct put *p, const struct put_job *j)
{
    struct copy *c = &p->c;
    struct slice name = slice_str(path_base(j->to));
    uint32_t missing = S_IRWXU & ~j->st.st_mode; /* until it is filled */
    struct attr a;
    int err = client_make(c->r.c, &c->r.cr, j->dir, name,
                          S_IFDIR | (j->st.st_mode & 0777) | missing, 0, SLICE_EMPTY, &a);

    if (err == DFS_EEXIST) {
        missing = 0;
        err = client_lookup(c->r.c, &c->r.cr, j->dir, name, &a);
        err = err == 0 && !S_ISDIR(a.mode) ? DFS_ENOTDIR : err;
    }
    if (err != 0) {
        copy_failed(c, err, "cannot make %s", j->to);
        return;
    }
    if (p->count == p->cap) {
        p->cap = MAX(64, p->cap * 2);
        p->dirs = x_realloc(p->dirs, p->cap * sizeof(*p->dirs));
    }
    p->dirs[p->count++] = (struct made_dir){ .from = x_strdup(j->from),
                                             .to = x_strdup(j->to),
                                             .ino = a.ino,
                                             .mode = missing != 0 ? a.mode & ~missing : 0,
                                             .st = j->st };
    copy_done(c, true);
}

static void put_any(struct put *p, uint64_t dir, const char *from, const char *to)
{
    struct copy *c = &p->c;
    struct put_job j = { .from = x_strdup(from), .to = x_strdup(to), .dir = dir };
    bool in = strcmp(from, "-") == 0;

    if (in) {
        j.st.st_mode = S_IFREG | 0644;
    } else if ((c->recursive ? lstat : stat)(from, &j.st) != 0) {
        copy_failed(c, err_from_errno(errno), "cannot read %s", from);
        goto out;
    }
    if (S_ISREG(j.st.st_mode) || (!c->recursive && S_ISFIFO(j.st.st_mode))) {
        struct put_job *own = x_alloc(sizeof(*own));

        *own = j;
        jobs_add(c->jobs, own);
        return;
    }
    if (S_ISDIR(j.st.st_mode) && c->recursive) {
        put_directory(p, &j);
    } else if (S_ISDIR(j.st.st_mode)) {
        copy_failed(c, DFS_EISDIR, "%s (-r copies trees)", from);
    } else if (S_ISLNK(j.st.st_mode)) {
        put_symlink(c, &j);
    } else {
        copy_failed(c, DFS_ENOTSUP, "%s is no file, directory or symlink", from);
    }
out:
    free(j.from);
    free(j.to);
}

/* What is in the directories that were made, until there are no more. */
static void fill_dirs(struct put *p)
{
    while (p->filled < p->count && !copy_stopped()) {
        struct made_dir dir = p->dirs[p->filled++]; /* the array moves when it grows */
        DIR *d = opendir(dir.from);
        const struct dirent *e;

        if (d == NULL) {
            copy_failed(&p->c, err_from_errno(errno), "cannot read %s", dir.from);
            continue;
        }
        while (!copy_stopped() && (e = readdir(d)) != NULL) {
            if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
                char *from = path_join(dir.from, e->d_name);
                char *to = path_join(dir.to, e->d_name);

                put_any(p, dir.ino, from, to);
                free(from);
                free(to);
            }
        }
        closedir(d);
    }
}

static int finish_dir(struct copy *c, const struct made_dir *d)
{
    struct setattr_req q = { .ino = d->ino, .valid = SET_MODE, .mode = d->mode & 07777 };
    struct attr a;

    if (c->preserve) {
        return keep_attrs(c, d->ino, &d->st);
    }
    return d->mode != 0 ? client_setattr(c->r.c, &c->r.cr, &q, &a) : DFS_OK;
}

/* Directories' times change while they are filled: they are set last, inner ones first. */
static void finish_dirs(struct put *p)
{
    while (p->count > 0) {
        struct made_dir *d = &p->dirs[--p->count];
        int err = finish_dir(&p->c, d);

        if (err != 0) {
            copy_failed(&p->c, err, "cannot set the attributes of %s", d->to);
        }
        free(d->from);
        free(d->to);
    }
    free(p->dirs);
}

static uint64_t size_of_one(const struct cli *cli)
{
    struct stat st;

    return cli->arg_count == 2 && stat(cli->args[0], &st) == 0 && S_ISREG(st.st_mode)
               ? (uint64_t)st.st_size
               : 0;
}

static int put_all(struct put *p, const char *dst, bool into)
{
    struct copy *c = &p->c;
    struct cli *cli = c->r.cli;

    copy_begin(c, path_base(cli->args[0]), size_of_one(cli), run_job);
    copy_catch_signals();
    for (int i = 0; i < cli->arg_count - 1; i++) {
        char *from = path_trim(cli->args[i]);
        char *to = into ? path_join(dst, path_base(from)) : x_strdup(dst);
        struct slice name;
        struct attr dir;
        int err = into && strcmp(from, "-") == 0 ? DFS_EISDIR : path_parent(&c->r, to, &dir, &name);

        if (err != 0) {
            copy_failed(c, err, "%s", into ? dst : to);
        } else {
            put_any(p, dir.ino, from, to);
            fill_dirs(p);
        }
        free(from);
        free(to);
    }
    jobs_finish(c->jobs);
    c->jobs = NULL;
    finish_dirs(p);
    return copy_end(c);
}

int cmd_put(struct cli *cli, int argc, char **argv)
{
    struct put p = { 0 };
    struct copy *c = &p.c;
    const struct opt opts[] = {
        { "recursive", 'r', OPT_FLAG, &c->recursive, NULL, "Copy directories with all they hold." },
        { "force", 'f', OPT_FLAG, &c->force, NULL, "Replace files that are there already." },
        { "preserve", 'p', OPT_FLAG, &c->preserve, NULL,
          "Keep mode and times, and the owner when run by root." },
        { "sync", 0, OPT_FLAG, &c->sync, NULL, "Wait until every copy is on disk." },
        OPT_END,
    };
    char *dst;
    bool into;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 2, -1)) {
        return cli->status;
    }
    status = remote_open(cli, &c->r);
    if (status != CLI_DONE) {
        return status;
    }
    status = path_target(&c->r, cli->args[cli->arg_count - 1], cli->arg_count - 1, &dst, &into);
    if (status != CLI_DONE) {
        remote_close(&c->r);
        return status;
    }
    status = put_all(&p, dst, into);
    free(dst);
    return status;
}
