#include "fs/cli/remote.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"

int remote_open(struct cli *cli, struct remote *ret)
{
    struct remote r = { .cli = cli, .cr = { .uid = geteuid(), .gid = getegid() } };
    char *name = x_printf("dfs %s", cli->cmd->name);
    gid_t groups[LIMIT_GROUPS];
    int n = getgroups(LIMIT_GROUPS, groups);
    struct why why = { "" };
    int err = client_open(cli->conf, name, &r.c, &why);

    r.cr.umask = umask(0);
    (void)umask(r.cr.umask);
    free(name);
    if (err != 0) {
        return cli_fail(cli, err, &why, "cannot connect");
    }
    for (int i = 0; i < n; i++) {
        r.groups[r.cr.group_count++] = groups[i];
    }
    *ret = r;
    ret->cr.groups = ret->groups;
    return CLI_DONE;
}

void remote_close(struct remote *r)
{
    if (r->c != NULL) {
        client_close(r->c);
        r->c = NULL;
    }
}

int remote_resolve(const struct remote *r, const char *path, struct attr *ret)
{
    int err;

    if (path[0] != '/') {
        return cli_usage(r->cli, "%s: a path in dfs begins with a slash", path);
    }
    err = client_resolve(r->c, &r->cr, path, ret);
    return err != 0 ? cli_fail(r->cli, err, NULL, "%s", path) : CLI_DONE;
}

/* ---- walking ---- */

struct pending {
    char *path;
    uint64_t ino;
};

/* One directory's entries, kept so that nothing else is asked while a page is read. */
struct listing {
    struct walk_entry {
        char *name;
        struct attr attr;
    } * entries;
    size_t count, cap;
};

struct walk {
    const struct remote *r;
    remote_walk_fn *fn;
    remote_unread_fn *unread;
    void *arg;
    struct pending *stack; /* directories that are still to be listed */
    size_t depth, cap;
};

static bool take(void *arg, const struct dir_entry *e, const struct attr *attr)
{
    struct listing *l = arg;

    if (attr == NULL) {
        return true; /* gone since */
    }
    if (l->count == l->cap) {
        l->cap = MAX(64, l->cap * 2);
        l->entries = x_realloc(l->entries, l->cap * sizeof(*l->entries));
    }
    l->entries[l->count++] = (struct walk_entry){
        .name = x_strndup((const char *)e->name.p, e->name.len),
        .attr = *attr,
    };
    return true;
}

static void listing_clear(struct listing *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->entries[i].name);
    }
    l->count = 0;
}

static int visit(struct walk *w, char *path, const struct attr *a)
{
    int result = w->fn(w->arg, path, a);

    if (result != 0 || !S_ISDIR(a->mode)) {
        free(path);
        return result;
    }
    if (w->depth == w->cap) {
        w->cap = MAX(64, w->cap * 2);
        w->stack = x_realloc(w->stack, w->cap * sizeof(*w->stack));
    }
    w->stack[w->depth++] = (struct pending){ path, a->ino };
    return 0;
}

static int visit_all(struct walk *w, const char *dir, struct listing *l)
{
    int result = 0;

    for (size_t i = 0; i < l->count && result == 0; i++) {
        const struct walk_entry *e = &l->entries[i];

        result = visit(w, x_printf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, e->name), &e->attr);
    }
    listing_clear(l);
    return result;
}

static int walk_dir(struct walk *w, const struct pending *d)
{
    const struct remote *r = w->r;
    struct listing l = { 0 };
    uint64_t cookie = 0;
    bool eof = false;
    int result = 0;

    while (!eof && result == 0) {
        int err = client_readdir(r->c, &r->cr, d->ino, &cookie, true, false, take, &l, &eof);

        if (err != 0) {
            if (err != DFS_ENOENT && err != DFS_ESTALE && w->unread != NULL) {
                w->unread(w->arg, d->path, err);
            }
            break;
        }
        result = visit_all(w, d->path, &l);
    }
    listing_clear(&l);
    free(l.entries);
    return result;
}

int remote_walk(const struct remote *r, const char *path, const struct attr *a, remote_walk_fn *fn,
                remote_unread_fn *unread, void *arg)
{
    struct walk w = { .r = r, .fn = fn, .unread = unread, .arg = arg };
    size_t len = strlen(path);
    int result;

    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    result = visit(&w, x_strndup(path, len), a);
    while (result == 0 && w.depth > 0) {
        struct pending d = w.stack[--w.depth];

        result = walk_dir(&w, &d);
        free(d.path);
    }
    while (w.depth > 0) {
        free(w.stack[--w.depth].path);
    }
    free(w.stack);
    return result;
}

int remote_admin(const struct remote *r, uint16_t type, struct slice msg, struct wire_out *rep)
{
    struct why why = { "" };
    int err = client_admin(r->cli->conf, type, msg, rep, &why);

    return err != 0 ? cli_fail(r->cli, err, &why, "the masters do not answer") : CLI_DONE;
}

/* ---- printing ---- */

const char *remote_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "directory";
    case S_IFLNK:
        return "symlink";
    case S_IFIFO:
        return "pipe";
    case S_IFSOCK:
        return "socket";
    case S_IFCHR:
        return "character device";
    case S_IFBLK:
        return "block device";
    default:
        return "unknown";
    }
}

void remote_print_path(FILE *to, const char *path)
{
    for (; *path != '\0'; path++) {
        putc((unsigned char)*path < 0x20 || *path == 0x7f ? '?' : *path, to);
    }
}
