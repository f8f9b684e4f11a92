/* dfs storage: on which kind of volumes the copies of files and trees are to be. */
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/json.h"

#include "fs/cli/cli.h"
#include "fs/cli/remote.h"

#define BUSY_POLL_US (200 * 1000)

struct storage {
    struct remote r;
    struct json json;
    const char *rule; /* to set; NULL: show */
    bool only_ruled;  /* leave out what has no rule */
    uint64_t files, dirs, failed;
};

static void failed(void *arg, const char *path, int err)
{
    struct storage *s = arg;

    s->failed++;
    (void)cli_fail(s->r.cli, err, NULL, "%s", path);
}

static int set_one(void *arg, const char *path, const struct attr *a)
{
    struct storage *s = arg;
    struct attr now;
    int err;

    if (!S_ISREG(a->mode) && !S_ISDIR(a->mode)) {
        return 0;
    }
    while ((err = client_setstorage(s->r.c, &s->r.cr, a->ino, slice_str(s->rule), &now)) ==
           DFS_EBUSY) {
        usleep(BUSY_POLL_US); /* an earlier change of a large file is not through */
    }
    if (err != 0) {
        failed(s, path, err);
    } else if (S_ISDIR(a->mode)) {
        s->dirs++;
    } else {
        s->files++;
    }
    return 0;
}

static int show_one(void *arg, const char *path, const struct attr *a)
{
    struct storage *s = arg;
    char rule[RULE_TEXT];
    int err;

    if (s->only_ruled && a->storage == 0) {
        return 0;
    }
    err = client_getstorage(s->r.c, &s->r.cr, a->ino, rule);
    if (err != 0) {
        failed(s, path, err);
    } else if (s->r.cli->json) {
        json_object(&s->json, NULL);
        json_str(&s->json, "path", path);
        json_str(&s->json, "rule", rule);
        json_end(&s->json);
    } else {
        printf("%-24s ", rule);
        remote_print_path(stdout, path);
        putchar('\n');
    }
    return 0;
}

static int each_path(struct storage *s, char **paths, int count, bool tree, remote_walk_fn *fn)
{
    int status = CLI_DONE;

    for (int i = 0; i < count; i++) {
        struct attr a;
        int one = remote_resolve(&s->r, paths[i], &a);

        if (one == CLI_DONE) {
            one = tree ? remote_walk(&s->r, paths[i], &a, fn, failed, s) : fn(s, paths[i], &a);
        }
        status = MAX(status, one);
    }
    return s->failed > 0 ? MAX(status, CLI_FAILED) : status;
}

static int show(struct storage *s, char **paths, int count, bool tree)
{
    int status;

    s->json = json_to(stdout);
    s->only_ruled = tree;
    if (s->r.cli->json) {
        json_object(&s->json, NULL);
        json_array(&s->json, "paths");
    }
    status = each_path(s, paths, count, tree, show_one);
    if (s->r.cli->json) {
        json_end(&s->json);
        json_end(&s->json);
    }
    return status;
}

static int set(struct storage *s, char **args, int count)
{
    int status;

    s->rule = args[0];
    status = each_path(s, args + 1, count - 1, true, set_one);
    if (s->r.cli->json) {
        struct json j = json_to(stdout);

        json_object(&j, NULL);
        json_num(&j, "files", s->files);
        json_num(&j, "directories", s->dirs);
        json_num(&j, "failed", s->failed);
        json_end(&j);
    }
    return status;
}

/* What is wrong with the operands, before a master is asked. */
static int check(const struct cli *cli, const char *verb, int operands)
{
    struct why why = { "" };
    struct rule rule;

    if (strcmp(verb, "set") == 0) {
        if (operands < 2) {
            return cli_usage(cli, "set: want a rule and a path");
        }
        if (strcmp(cli->args[1], "none") != 0 &&
            rule_parse(slice_str(cli->args[1]), &rule, &why) != 0) {
            return cli_usage(cli, "%s", why.text);
        }
        return CLI_DONE;
    }
    if (strcmp(verb, "get") == 0) {
        return operands < 1 ? cli_usage(cli, "get: want a path") : CLI_DONE;
    }
    if (strcmp(verb, "ls") == 0) {
        return operands > 1 ? cli_usage(cli, "ls: want one path") : CLI_DONE;
    }
    return cli_usage(cli, "\"%s\": want set, get or ls", verb);
}

int cmd_storage(struct cli *cli, int argc, char **argv)
{
    static char root[] = "/";
    char *everything[] = { root };
    const struct opt opts[] = { OPT_END };
    struct storage s = { 0 };
    char **args;
    int status, n;

    if (!cli_begin(cli, argc, argv, opts, 1, -1)) {
        return cli->status;
    }
    args = cli->args + 1;
    n = cli->arg_count - 1;
    status = check(cli, cli->args[0], n);
    if (status != CLI_DONE) {
        return status;
    }
    status = remote_open(cli, &s.r);
    if (status == CLI_DONE && *cli->args[0] == 's') {
        status = set(&s, args, n);
    } else if (status == CLI_DONE && *cli->args[0] == 'g') {
        status = show(&s, args, n, false);
    } else if (status == CLI_DONE) {
        status = show(&s, n > 0 ? args : everything, 1, true);
    }
    remote_close(&s.r);
    return status;
}
