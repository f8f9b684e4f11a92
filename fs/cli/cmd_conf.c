#include "cluster/base/err.h"
#include "cluster/base/json.h"

#include "replication/store/volume_list.h"

#include "fs/cli/cli.h"

/* Reads FILE alone, without /etc/dfs.conf below it. */
static int check(struct cli *cli, const char *path)
{
    struct conf *c = conf_new();
    struct why why = { "" };
    int err = conf_load(c, path, &why);

    if (err == 0) {
        err = conf_check(c, &why);
    }
    if (err == 0) {
        err = volume_spec_check(c->block_volumes, c->block_label, &why);
        if (err != 0) {
            why_prefix(&why, "%s", path);
        }
    }
    conf_free(c);
    if (cli->json) {
        struct json j = json_to(stdout);

        json_object(&j, NULL);
        json_str(&j, "file", path);
        json_bool(&j, "valid", err == 0);
        if (err != 0) {
            json_str(&j, "error", why.text);
        }
        json_end(&j);
    }
    if (err != 0) {
        cli_error(cli, "%s", why.text);
        return CLI_USAGE;
    }
    return CLI_DONE;
}

static int print(struct cli *cli)
{
    struct why why = { "" };

    if (cli_load_conf(cli, &why) != 0) {
        cli_error(cli, "%s", why.text);
        return CLI_USAGE;
    }
    if (cli->json) {
        conf_print_json(cli->conf, stdout);
    } else {
        conf_print(cli->conf, stdout);
    }
    return CLI_DONE;
}

int cmd_conf(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };
    const char *what;

    if (!cli_begin(cli, argc, argv, opts, 1, 2)) {
        return cli->status;
    }
    what = cli->args[0];
    if (strcmp(what, "check") == 0) {
        return cli->arg_count == 2 ? check(cli, cli->args[1])
                                   : cli_usage(cli, "check needs a FILE");
    }
    if (strcmp(what, "sample") != 0 && strcmp(what, "print") != 0) {
        return cli_usage(cli, "\"%s\" is not sample, print or check", what);
    }
    if (cli->arg_count == 2) {
        return cli_usage(cli, "\"%s\" is one too many", cli->args[1]);
    }
    if (what[0] == 'p') {
        return print(cli);
    }
    if (cli->json) {
        return cli_usage(cli, "sample has no JSON output");
    }
    conf_print_sample(stdout);
    return CLI_DONE;
}
