#include "fs/cli/cli.h"

#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/log.h"
#include "cluster/base/text.h"

#include "fs/cli/help.h"
#include "fs/cli/options.h"
#include "fs/client/client.h"

static const struct cmd commands[] = {
#define CMD(name, fn, flags, usage, line, help) { #name, fn, flags, usage, line, help },
#include "fs/cli/commands.def"
#undef CMD
};

const struct cmd *cli_commands(size_t *ret_count)
{
    *ret_count = ARRAY_LEN(commands);
    return commands;
}

const struct cmd *cli_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* ---- complaints ---- */

PRINTF_LIKE(2, 0)
static void complain(const struct cli *cli, const char *fmt, va_list ap)
{
    fprintf(stderr, "dfs%s%s: ", cli->cmd != NULL ? " " : "",
            cli->cmd != NULL ? cli->cmd->name : "");
    vfprintf(stderr, fmt, ap);
}

int cli_error(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(cli, fmt, ap);
    va_end(ap);
    putc('\n', stderr);
    return CLI_FAILED;
}

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(cli, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see dfs%s%s --help\n", cli->cmd != NULL ? " " : "",
            cli->cmd != NULL ? cli->cmd->name : "");
    return CLI_USAGE;
}

int cli_fail(const struct cli *cli, int err, const struct why *why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(cli, fmt, ap);
    va_end(ap);
    fprintf(stderr, ": %s\n", why != NULL && why->text[0] != '\0' ? why->text : err_text(err));
    return err == DFS_ECONFIG ? CLI_USAGE : CLI_FAILED;
}

int cli_unknown_command(const struct cli *cli, const char *name)
{
    const char *names[ARRAY_LEN(commands)];
    const char *nearest;

    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        names[i] = commands[i].name;
    }
    nearest = text_nearest(name, names, ARRAY_LEN(commands));
    if (nearest != NULL) {
        cli_error(cli, "unknown command \"%s\"; did you mean \"%s\"?", name, nearest);
        return CLI_USAGE;
    }
    return cli_usage(cli, "unknown command \"%s\"", name);
}

/* ---- before a command ---- */

static bool stop(struct cli *cli, int status)
{
    cli->status = status;
    return false;
}

int cli_load_conf(struct cli *cli, struct why *why)
{
    const char *path = cli->conf_option != NULL ? cli->conf_option : getenv("DFS_CONF");
    int err = 0;

    if (path == NULL && access(CLI_CONF_DEFAULT, F_OK) == 0) {
        path = CLI_CONF_DEFAULT;
    }
    cli->conf = conf_new();
    if (path != NULL) {
        err = conf_load(cli->conf, path, why);
        cli->conf_path = path;
    }
    for (int i = 0; i < cli->set.count && err == 0; i++) {
        err = conf_set(cli->conf, cli->set.item[i], why);
        if (err != 0) {
            why_prefix(why, "--set");
        }
    }
    return err != 0 ? err : conf_check(cli->conf, why);
}

/* log.level counts for roles; commands log what a person must see. */
static void set_log_level(const struct cli *cli)
{
    const char *spec =
        (cli->cmd->flags & CMD_ROLE) != 0 && cli->conf != NULL ? cli->conf->log_level : "warn";

    if (cli->verbose > 0) {
        spec = cli->verbose == 1 && strcmp(spec, "warn") == 0 ? "info" : "debug";
    }
    log_configure(spec, NULL);
}

/* "set PATH | get PATH | ls": all forms of a command, of which each has a line. */
static char *one_line(const char *usage)
{
    char *all = x_printf("%s", "");

    while (*usage != '\0') {
        size_t n = strcspn(usage, "\n");
        char *more = x_printf("%s%s%.*s", all, *all != '\0' ? " | " : "", (int)n, usage);

        free(all);
        all = more;
        usage += n + (usage[n] == '\n');
    }
    return all;
}

static void tell_silence(void *arg)
{
    const struct cli *cli = arg;

    cli_error(cli, "no answer from the masters at %s yet; waiting for up to %ju s",
              cli->conf->masters, (uintmax_t)(cli->conf->client_timeout + 999) / 1000);
}

bool cli_begin(struct cli *cli, int argc, char **argv, const struct opt *opts, int min_args,
               int max_args)
{
    struct opt frame[OPTS_FRAME + 1];
    struct why why = { "" };

    options_frame(cli, frame);
    if (cli->man) {
        help_man_command(cli->cmd, opts, stdout);
        return stop(cli, CLI_DONE);
    }
    if (!options_parse(cli, argc, argv, opts, frame)) {
        return stop(cli, CLI_USAGE);
    }
    if (cli->help) {
        help_command(cli->cmd, opts, frame, stdout);
        return stop(cli, CLI_DONE);
    }
    if (cli->version) {
        cli->version = false; /* the command called next comes here too */
        return stop(cli, cli_run(cli, cli_find("version"), 1, argv));
    }
    if (cli->json && (cli->cmd->flags & CMD_JSON) == 0) {
        return stop(cli, cli_usage(cli, "there is no JSON output"));
    }
    if (cli->arg_count < min_args) {
        char *usage = one_line(cli->cmd->usage);

        cli_usage(cli, "something is missing: dfs %s %s", cli->cmd->name, usage);
        free(usage);
        return stop(cli, CLI_USAGE);
    }
    if (max_args >= 0 && cli->arg_count > max_args) {
        return stop(cli, cli_usage(cli, "\"%s\" is one too many", cli->args[max_args]));
    }
    if ((cli->cmd->flags & CMD_CONF) != 0) {
        int err = cli_load_conf(cli, &why);

        if (err != 0) { /* also a file that is not there: nothing has been tried yet */
            cli_error(cli, "%s", why.text);
            return stop(cli, CLI_USAGE);
        }
    }
    set_log_level(cli);
    if (cli->conf != NULL && (cli->cmd->flags & CMD_ROLE) == 0) {
        client_on_silence(tell_silence, cli);
    }
    return true;
}

/* ---- the program ---- */

int cli_run(struct cli *cli, const struct cmd *cmd, int argc, char **argv)
{
    int status;

    cli->cmd = cmd;
    status = cmd->fn(cli, argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        status = cli_error(cli, "cannot write to standard output: %s", strerror(errno));
    }
    return status;
}

/* The program's name tells what is meant where mount(8) calls it. */
static bool called_as_mount(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    const char *name = slash != NULL ? slash + 1 : argv0;

    return strcmp(name, "mount.dfs") == 0 || strcmp(name, "mount.fuse.dfs") == 0;
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
    struct opt frame[OPTS_FRAME + 1];
    const struct cmd *cmd;
    int first;

    if (called_as_mount(argv[0])) {
        cmd = cli_find("mount");
        return cmd != NULL ? cli_run(cli, cmd, argc, argv) : cli_unknown_command(cli, "mount");
    }
    options_frame(cli, frame);
    first = options_leading(cli, argc, argv, frame);
    if (first < 0) {
        return CLI_USAGE;
    }
    if (cli->version) {
        cli->version = false;
        return cli_run(cli, cli_find("version"), 1, argv);
    }
    if (first == argc && !cli->help) {
        return cli_usage(cli, "a command is missing");
    }
    if (cli->help && first == argc) {
        help_program(commands, ARRAY_LEN(commands), frame, stdout);
        return CLI_DONE;
    }
    cmd = cli_find(argv[first]);
    if (cmd == NULL) {
        return cli_unknown_command(cli, argv[first]);
    }
    return cli_run(cli, cmd, argc - first, argv + first);
}

int cli_main(int argc, char **argv)
{
    struct cli cli = { 0 };
    int status = dispatch(&cli, argc, argv);

    conf_free(cli.conf);
    return status;
}
