#include "cluster/base/metrics.h"

#include "fs/cli/cli.h"
#include "fs/cli/help.h"
#include "fs/cli/options.h"

int cmd_help(struct cli *cli, int argc, char **argv)
{
    bool man = false, metrics = false;
    const struct opt opts[] = {
        { "man", 0, OPT_FLAG, &man, NULL, "Prints the manual page as troff." },
        { "metrics", 0, OPT_FLAG, &metrics, NULL, "Prints the table of metrics as Markdown." },
        OPT_END,
    };
    char help[] = "--help";
    char *help_argv[] = { NULL, help, NULL };
    struct opt frame[OPTS_FRAME + 1];
    const struct cmd *cmd, *commands;
    size_t count;

    if (!cli_begin(cli, argc, argv, opts, 0, 1)) {
        return cli->status;
    }
    options_frame(cli, frame);
    commands = cli_commands(&count);
    if (metrics) {
        metrics_print_doc(stdout);
        return CLI_DONE;
    }
    if (man) {
        help_man_head(frame, stdout);
        cli->man = true;
        for (size_t i = 0; i < count; i++) {
            cli_run(cli, &commands[i], 0, NULL);
        }
        help_man_tail(stdout);
        return CLI_DONE;
    }
    if (cli->arg_count == 0) {
        help_program(commands, count, frame, stdout);
        return CLI_DONE;
    }
    cmd = cli_find(cli->args[0]);
    if (cmd == NULL) {
        return cli_unknown_command(cli, cli->args[0]);
    }
    help_argv[0] = cli->args[0];
    return cli_run(cli, cmd, 2, help_argv);
}
