/* The frame of the commands: options, help, complaints. A test command stands in for a real one. */
#include "fs/cli/cli.h"

#include <fcntl.h>

#include "test/unit/tap.h"

static struct cmd row = {
    .name = "copy", .usage = "FROM... TO", .line = "Copies.", .help = "Text.\n"
};

struct given {
    bool fast;
    int twice;
    const char *name;
    uint64_t count, size, wait_ms;
    struct opt_list list;
};

/* Runs cli_begin() on the words of a line; what it says on stderr goes to *ret_said (static). */
static bool begin(const char *line, struct given *g, struct cli *ret_cli, const char **ret_said)
{
    static char words[200], said[500];
    static char *argv[20];
    char path[200];
    const struct opt opts[] = {
        { "fast", 'f', OPT_FLAG, &g->fast, NULL, "Fast." },
        { "twice", 't', OPT_COUNT, &g->twice, NULL, "Twice." },
        { "name", 'n', OPT_TEXT, &g->name, "NAME", "Name." },
        { "count", 0, OPT_NUM, &g->count, "N", "Count." },
        { "size", 0, OPT_SIZE, &g->size, "BYTES", "Size." },
        { "wait", 0, OPT_TIME, &g->wait_ms, "TIME", "Wait." },
        { "list", 'l', OPT_LIST, &g->list, "ITEM", "List." },
        OPT_END,
    };
    int argc = 0, saved = dup(STDERR_FILENO);
    bool go;
    FILE *f;
    size_t n;

    *g = (struct given){ 0 };
    *ret_cli = (struct cli){ .cmd = &row };
    snprintf(words, sizeof(words), "copy %s", line);
    for (char *w = strtok(words, " "); w != NULL; w = strtok(NULL, " ")) {
        argv[argc++] = w;
    }
    snprintf(path, sizeof(path), "%s/stderr", tap_tmp());
    fflush(stderr);
    f = fopen(path, "w+");
    dup2(fileno(f), STDERR_FILENO);
    go = cli_begin(ret_cli, argc, argv, opts, 1, 3);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(f);
    n = fread(said, 1, sizeof(said) - 1, f);
    said[n] = '\0';
    fclose(f);
    *ret_said = said;
    return go;
}

static void options_and_operands_mix(void)
{
    struct given g;
    struct cli cli;
    const char *said;

    CHECK(begin("-ftt a --name=x --count 7 b --size 2MiB --wait 3s -l1 -l 2 --list=3 -v --json", &g,
                &cli, &said) == false); /* no JSON in this row */
    CHECK(begin("-ftt a --name=x --count 7 b --size 2MiB --wait 3s -l1 -l 2 --list=3 -v", &g, &cli,
                &said));
    CHECK(g.fast && g.twice == 2 && cli.verbose == 1);
    CHECK_STR(g.name, "x");
    CHECK(g.count == 7 && g.size == 2 * MIB && g.wait_ms == 3000);
    CHECK_INT(g.list.count, 3);
    CHECK_STR(g.list.item[1], "2");
    CHECK_INT(cli.arg_count, 2);
    CHECK_STR(cli.args[0], "a");
    CHECK_STR(cli.args[1], "b");
    CHECK_STR(said, "");
}

static void two_dashes_end_the_options(void)
{
    struct given g;
    struct cli cli;
    const char *said;

    CHECK(begin("-n -- - -- -f --", &g, &cli, &said));
    CHECK_STR(g.name, "--");
    CHECK_INT(cli.arg_count, 3);
    CHECK_STR(cli.args[0], "-");
    CHECK_STR(cli.args[1], "-f");
    CHECK_STR(cli.args[2], "--");
}

static void wrong_usage_is_one_line(void)
{
    static const struct {
        const char *line;
        const char *said;
    } bad[] = {
        { "", "dfs copy: something is missing: dfs copy FROM... TO; see dfs copy --help\n" },
        { "a b c d", "dfs copy: \"d\" is one too many; see dfs copy --help\n" },
        { "a --fsat", "dfs copy: unknown option --fsat; did you mean --fast?\n" },
        { "a --zzzzzz", "dfs copy: unknown option --zzzzzz; see dfs copy --help\n" },
        { "a -fz", "dfs copy: unknown option -z; see dfs copy --help\n" },
        { "a --name", "dfs copy: --name needs a value: NAME; see dfs copy --help\n" },
        { "a -n", "dfs copy: --name needs a value: NAME; see dfs copy --help\n" },
        { "a --fast=1", "dfs copy: --fast takes no value; see dfs copy --help\n" },
        { "a --count x", "dfs copy: --count: \"x\" is not a number; see dfs copy --help\n" },
        { "a --wait=9", "dfs copy: --wait: \"9\" is not a time; expected a number with ms, s, m, h "
                        "or d, such as 15s; see dfs copy --help\n" },
        { "a --json", "dfs copy: there is no JSON output; see dfs copy --help\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct given g;
        struct cli cli;
        const char *said;

        CHECK(!begin(bad[i].line, &g, &cli, &said));
        CHECK_INT(cli.status, CLI_USAGE);
        CHECK_STR(said, bad[i].said);
    }
}

static void the_configuration_is_loaded_where_it_is_wanted(void)
{
    struct given g;
    struct cli cli;
    const char *said;
    char line[200], path[100];
    FILE *f;

    row.flags = CMD_CONF;
    setenv("DFS_CONF", "/dev/null", 1);
    CHECK(begin("a --set replication=2 --set block.host=h", &g, &cli, &said));
    CHECK_INT(cli.conf->replication, 2);
    CHECK_STR(cli.conf->block_host, "h");
    conf_free(cli.conf);
    CHECK(!begin("a --set replication=99", &g, &cli, &said));
    CHECK_INT(cli.status, CLI_USAGE);
    CHECK_STR(said, "dfs copy: --set: replication: 99 is out of range; expected 1 to 16\n");
    conf_free(cli.conf);
    CHECK(!begin("a --conf /nonexistent", &g, &cli, &said));
    CHECK_INT(cli.status, CLI_USAGE);
    CHECK_STR(said, "dfs copy: /nonexistent: No such file or directory\n");
    conf_free(cli.conf);
    snprintf(path, sizeof(path), "%s/conf", tap_tmp());
    f = fopen(path, "w");
    fprintf(f, "replication = 5\n");
    fclose(f);
    snprintf(line, sizeof(line), "a --conf %s", path);
    CHECK(begin(line, &g, &cli, &said));
    CHECK_INT(cli.conf->replication, 5);
    CHECK_STR(cli.conf_path, path);
    conf_free(cli.conf);
    row.flags = 0;
}

/* Every row is complete, has a help that is whole sentences, and explains itself. */
static void every_command_explains_itself(void)
{
    size_t count;
    const struct cmd *commands = cli_commands(&count);
    int null_out = open("/dev/null", O_WRONLY);
    int saved = dup(STDOUT_FILENO), saved_err = dup(STDERR_FILENO);

    for (size_t i = 0; i < count; i++) {
        char name[50], help[] = "--help", bad[] = "--no-such-option-at-all";
        char *help_argv[] = { name, help, NULL };
        char *bad_argv[] = { name, bad, NULL };
        struct cli cli = { 0 };
        size_t line_len = strlen(commands[i].line), help_len = strlen(commands[i].help);

        CHECK(line_len > 5 && commands[i].line[line_len - 1] == '.');
        CHECK(help_len > 5 && commands[i].help[help_len - 1] == '\n');
        snprintf(name, sizeof(name), "%s", commands[i].name);
        fflush(stdout);
        dup2(null_out, STDOUT_FILENO);
        CHECK_INT(cli_run(&cli, &commands[i], 2, help_argv), CLI_DONE);
        fflush(stdout);
        dup2(null_out, STDERR_FILENO);
        cli = (struct cli){ 0 };
        CHECK_INT(cli_run(&cli, &commands[i], 2, bad_argv), CLI_USAGE);
        fflush(stdout);
        dup2(saved, STDOUT_FILENO);
        dup2(saved_err, STDERR_FILENO);
    }
    close(saved);
    close(saved_err);
    close(null_out);
}

static void all_forms_are_shown_when_something_is_missing(void)
{
    const char *usage = row.usage, *said;
    struct given g;
    struct cli cli;

    row.usage = "FROM TO\nls\nrm NAME";
    CHECK(!begin("", &g, &cli, &said));
    CHECK_STR(said, "dfs copy: something is missing: dfs copy FROM TO | ls | rm NAME; see dfs copy "
                    "--help\n");
    row.usage = usage;
}

int main(void)
{
    tap_run("options and operands mix", options_and_operands_mix);
    tap_run("two dashes end the options", two_dashes_end_the_options);
    tap_run("wrong usage is one line", wrong_usage_is_one_line);
    tap_run("the configuration is loaded where it is wanted",
            the_configuration_is_loaded_where_it_is_wanted);
    tap_run("every command explains itself", every_command_explains_itself);
    tap_run("all forms of a command are shown", all_forms_are_shown_when_something_is_missing);
    return tap_done();
}
