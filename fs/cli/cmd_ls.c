/* dfs ls: what is in directories. */
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <time.h>

#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"

#include "fs/cli/copy.h"

struct ls_entry {
    char *name;
    struct attr a;
};

/* A directory that is still to be listed. */
struct ls_dir {
    char *path;
    uint64_t ino;
};

struct ls {
    struct remote r;
    bool all, details, itself, recursive;
    struct json json;
    struct ls_entry *entries; /* of one directory */
    size_t count, cap;
    struct ls_dir *dirs; /* the next one is the last */
    size_t dir_count, dir_cap;
};

static void keep_dir(struct ls *ls, char *path, uint64_t ino)
{
    if (ls->dir_count == ls->dir_cap) {
        ls->dir_cap = MAX(64, ls->dir_cap * 2);
        ls->dirs = x_realloc(ls->dirs, ls->dir_cap * sizeof(*ls->dirs));
    }
    ls->dirs[ls->dir_count++] = (struct ls_dir){ path, ino };
}

static void keep(struct ls *ls, const char *name, size_t len, const struct attr *a)
{
    if (ls->count == ls->cap) {
        ls->cap = MAX(64, ls->cap * 2);
        ls->entries = x_realloc(ls->entries, ls->cap * sizeof(*ls->entries));
    }
    ls->entries[ls->count++] = (struct ls_entry){ x_strndup(name, len), *a };
}

static bool take(void *arg, const struct dir_entry *e, const struct attr *a)
{
    struct ls *ls = arg;

    if (a != NULL && (ls->all || e->name.p[0] != '.')) {
        keep(ls, (const char *)e->name.p, e->name.len, a);
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ls_entry *)a)->name, ((const struct ls_entry *)b)->name);
}

/* ---- one entry ---- */

static const char *mode_text(uint32_t mode, char buf[11])
{
    static const char letters[] = "rwxrwxrwx";

    buf[0] = S_ISDIR(mode)    ? 'd'
             : S_ISLNK(mode)  ? 'l'
             : S_ISFIFO(mode) ? 'p'
             : S_ISSOCK(mode) ? 's'
             : S_ISCHR(mode)  ? 'c'
             : S_ISBLK(mode)  ? 'b'
                              : '-';
    for (int i = 0; i < 9; i++) {
        buf[1 + i] = (mode & (0400u >> i)) != 0 ? letters[i] : '-';
    }
    if ((mode & S_ISUID) != 0) {
        buf[3] = buf[3] == 'x' ? 's' : 'S';
    }
    if ((mode & S_ISGID) != 0) {
        buf[6] = buf[6] == 'x' ? 's' : 'S';
    }
    if ((mode & S_ISVTX) != 0) {
        buf[9] = buf[9] == 'x' ? 't' : 'T';
    }
    buf[10] = '\0';
    return buf;
}

static void owner_cells(struct table *t, const struct attr *a)
{
    const struct passwd *pw = getpwuid(a->uid);
    const struct group *gr;

    if (pw != NULL) {
        table_cell(t, "%s", pw->pw_name);
    } else {
        table_cell(t, "%u", a->uid);
    }
    gr = getgrgid(a->gid);
    if (gr != NULL) {
        table_cell(t, "%s", gr->gr_name);
    } else {
        table_cell(t, "%u", a->gid);
    }
}

static char *link_target(struct ls *ls, const struct attr *a)
{
    char *target = x_alloc(LIMIT_SYMLINK + 1);
    size_t n = 0;

    if (client_readlink(ls->r.c, &ls->r.cr, a->ino, target, LIMIT_SYMLINK, &n) != 0) {
        memcpy(target, "?", 2);
    }
    return target;
}

static void row(struct ls *ls, struct table *t, const struct ls_entry *e)
{
    time_t s = (time_t)(e->a.mtime / NS_PER_SEC);
    struct tm tm;
    char when[32];
    char mode[11];

    table_cell(t, "%s", mode_text(e->a.mode, mode));
    if (S_ISREG(e->a.mode)) {
        table_cell(t, "%u", e->a.repl);
    } else {
        table_cell(t, "-");
    }
    owner_cells(t, &e->a);
    table_cell(t, "%" PRIu64, e->a.size);
    (void)localtime_r(&s, &tm);
    (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
    table_cell(t, "%s", when);
    if (S_ISLNK(e->a.mode)) {
        char *target = link_target(ls, &e->a);

        table_cell(t, "%s -> %s", e->name, target);
        free(target);
    } else {
        table_cell(t, "%s", e->name);
    }
}

static void json_entry(struct ls *ls, const char *dir, const struct ls_entry *e)
{
    struct json *j = &ls->json;
    char *path = dir != NULL ? path_join(dir, e->name) : x_strdup(e->name);

    json_object(j, NULL);
    json_str(j, "path", path);
    json_str(j, "type", remote_type(e->a.mode));
    json_num(j, "inode", e->a.ino);
    json_num(j, "mode", e->a.mode & 07777);
    json_num(j, "links", e->a.nlink);
    json_num(j, "uid", e->a.uid);
    json_num(j, "gid", e->a.gid);
    json_num(j, "size", e->a.size);
    json_num(j, "copies", e->a.repl);
    json_int(j, "mtime_ns", e->a.mtime);
    if (S_ISLNK(e->a.mode)) {
        char *target = link_target(ls, &e->a);

        json_str(j, "target", target);
        free(target);
    }
    json_end(j);
    free(path);
}

/* ---- lists ---- */

static void print(struct ls *ls, const char *dir)
{
    struct table *t = NULL;

    if (ls->count > 0) {
        qsort(ls->entries, ls->count, sizeof(*ls->entries), by_name);
    }
    if (ls->details && !ls->r.cli->json && ls->count > 0) {
        t = table_new("MODE >COPIES OWNER GROUP >SIZE CHANGED NAME");
    }
    for (size_t i = 0; i < ls->count; i++) {
        const struct ls_entry *e = &ls->entries[i];

        if (ls->r.cli->json) {
            json_entry(ls, dir, e);
        } else if (t != NULL) {
            row(ls, t, e);
        } else {
            remote_print_path(stdout, e->name);
            putc('\n', stdout);
        }
    }
    if (t != NULL) {
        table_print(t, stdout);
        table_free(t);
    }
}

static void forget(struct ls *ls)
{
    for (size_t i = 0; i < ls->count; i++) {
        free(ls->entries[i].name);
    }
    ls->count = 0;
}

static int list_dir(struct ls *ls, const char *path, uint64_t ino, bool heading, bool first)
{
    uint64_t cookie = 0;
    bool eof = false;
    int err = 0;

    while (!eof && err == 0) {
        err = client_readdir(ls->r.c, &ls->r.cr, ino, &cookie, true, false, take, ls, &eof);
    }
    if (err != 0) {
        forget(ls);
        return cli_fail(ls->r.cli, err, NULL, "%s", path);
    }
    if (heading && !ls->r.cli->json) {
        printf("%s%s:\n", first ? "" : "\n", path);
    }
    print(ls, path);
    for (size_t i = ls->count; i > 0 && ls->recursive; i--) {
        const struct ls_entry *e = &ls->entries[i - 1];

        if (S_ISDIR(e->a.mode)) {
            keep_dir(ls, path_join(path, e->name), e->a.ino);
        }
    }
    forget(ls);
    return CLI_DONE;
}

/* Files among the arguments come first, as one list. */
static int list_all(struct ls *ls, char **paths, int count)
{
    struct attr *attrs = x_alloc((size_t)count * sizeof(*attrs));
    bool *good = x_alloc((size_t)count * sizeof(*good));
    bool first = true;
    int status = CLI_DONE;

    for (int i = 0; i < count; i++) {
        int one = remote_resolve(&ls->r, paths[i], &attrs[i]);

        good[i] = one == CLI_DONE;
        status = MAX(status, one);
        if (good[i] && (ls->itself || !S_ISDIR(attrs[i].mode))) {
            keep(ls, paths[i], strlen(paths[i]), &attrs[i]);
            good[i] = false;
        }
    }
    first = ls->count == 0;
    print(ls, NULL);
    forget(ls);
    for (int i = count; i > 0; i--) {
        if (good[i - 1]) {
            keep_dir(ls, path_trim(paths[i - 1]), attrs[i - 1].ino);
        }
    }
    while (ls->dir_count > 0) {
        struct ls_dir d = ls->dirs[--ls->dir_count];
        int one = list_dir(ls, d.path, d.ino, count > 1 || ls->recursive, first);

        status = MAX(status, one);
        first = false;
        free(d.path);
    }
    free(attrs);
    free(good);
    return status;
}

int cmd_ls(struct cli *cli, int argc, char **argv)
{
    struct ls ls = { 0 };
    const struct opt opts[] = {
        { "all", 'a', OPT_FLAG, &ls.all, NULL, "Names that begin with a dot, too." },
        { "long", 'l', OPT_FLAG, &ls.details, NULL, "Mode, copies, owner, size and time." },
        { "directory", 'd', OPT_FLAG, &ls.itself, NULL,
          "Directories themselves, not what is in them." },
        { "recursive", 'R', OPT_FLAG, &ls.recursive, NULL, "Directories below, too." },
        OPT_END,
    };
    char root[] = "/";
    char *only_root[] = { root };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 0, -1)) {
        return cli->status;
    }
    status = remote_open(cli, &ls.r);
    if (status != CLI_DONE) {
        return status;
    }
    if (cli->json) {
        ls.json = json_to(stdout);
        json_array(&ls.json, NULL);
    }
    status = list_all(&ls, cli->arg_count > 0 ? cli->args : only_root, MAX(cli->arg_count, 1));
    if (cli->json) {
        json_end(&ls.json);
    }
    free(ls.entries);
    free(ls.dirs);
    remote_close(&ls.r);
    return status;
}
