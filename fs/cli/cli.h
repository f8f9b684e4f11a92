/* The frame of every command: one table (commands.def), one option parser, one way to complain.
 *
 * A command lives in fs/cli/cmd_<name>.c:
 *
 *   int cmd_ls(struct cli *cli, int argc, char **argv)
 *   {
 *       bool all = false;
 *       const struct opt opts[] = {
 *           { "all", 'a', OPT_FLAG, &all, NULL, "Names that begin with a dot, too." },
 *           OPT_END,
 *       };
 *
 *       if (!cli_begin(cli, argc, argv, opts, 0, 1)) {
 *           return cli->status;
 *       }
 *       ... cli->conf, cli->json, cli->args[0 .. cli->arg_count - 1] ...
 *       return err != 0 ? cli_fail(cli, err, &why, "cannot list %s", path) : 0;
 *   }
 *
 * cli_begin() comes before anything else in a command: help is printed by it.
 *
 * Its row in commands.def: CMD(name, function, flags, "usage", "one line", "long help"). The
 * options' own help is printed from the table above; --help, -v, --conf, --set and --json are the
 * frame's.
 *
 * Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong usage or
 * configuration.
 */
#ifndef DFS_FS_CLI_CLI_H
#define DFS_FS_CLI_CLI_H

#include "cluster/base/base.h"

#include "cluster/base/conf.h"

#define CLI_CONF_DEFAULT "/etc/dfs.conf"

enum cli_status { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum cmd_flag {
    CMD_PLAIN = 0,
    CMD_CONF = 1,   /* the configuration is loaded and checked before the command runs */
    CMD_ROLE = 2,   /* a long-running process: log.level counts; else only warnings are logged */
    CMD_JSON = 4,   /* has a --json output */
    CMD_STATUS = 8, /* its help tells the exit status: not what others have */
};

enum opt_kind {
    OPT_FLAG,  /* bool *: set to true */
    OPT_COUNT, /* int *: one more each time */
    OPT_TEXT,  /* const char **: borrowed from argv */
    OPT_NUM,   /* uint64_t * */
    OPT_SIZE,  /* uint64_t *: bytes, with units */
    OPT_TIME,  /* uint64_t *: milliseconds, with units */
    OPT_LIST,  /* struct opt_list *: given several times; borrowed from argv */
};

struct opt {
    const char *name; /* without the dashes */
    char letter;      /* 0 = none */
    enum opt_kind kind;
    void *target;     /* left alone when the option is not given */
    const char *arg;  /* what the help calls the argument: "N", "PATH"; NULL for flags */
    const char *help; /* whole sentences */
};

#define OPT_END \
    {           \
        0       \
    }

#define OPT_LIST_MAX 64

struct opt_list {
    const char *item[OPT_LIST_MAX];
    int count;
};

struct cli;

struct cmd {
    const char *name;
    int (*fn)(struct cli *cli, int argc, char **argv);
    unsigned int flags;
    const char *usage; /* what follows the name; several forms on lines of their own */
    const char *line;
    const char *help; /* paragraphs; an indented line is printed as it is */
};

struct cli {
    const struct cmd *cmd;
    struct conf *conf;     /* with CMD_CONF */
    const char *conf_path; /* the file that was read; NULL: none */
    bool json;
    int verbose;
    char **args; /* operands, in order */
    int arg_count;
    int status; /* to be returned when cli_begin() says false */

    /* the frame's own */
    const char *conf_option;
    struct opt_list set;
    bool help;
    bool version;
    bool man; /* print the help as a section of the manual page */
};

/* Reads options and operands (argv[0] is the command's name), loads the configuration and sets the
 * log level. False: there was an error, or only help was wanted; return cli->status. Operands and
 * options may be mixed; "--" ends the options. max_args < 0: any number. */
bool cli_begin(struct cli *cli, int argc, char **argv, const struct opt *opts, int min_args,
               int max_args);

/* Prints "dfs put: <text>" on one line and returns CLI_FAILED. */
int cli_error(const struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Prints "dfs put: <text>; see dfs put --help" and returns CLI_USAGE. */
int cli_usage(const struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Prints "dfs put: <text>: <why, or the error's phrase>"; why may be NULL or empty. Returns
 * CLI_FAILED, CLI_USAGE for DFS_ECONFIG. */
int cli_fail(const struct cli *cli, int err, const struct why *why, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* What cli_begin() does with CMD_CONF: --conf, $DFS_CONF or the default file, then --set, then the
 * check of the whole, into cli->conf. DFS_ECONFIG, DFS_ENOENT ... with why. */
int cli_load_conf(struct cli *cli, struct why *why);

/* The row of a command, or NULL; all rows; a complaint about one that is not there. */
const struct cmd *cli_find(const char *name);
const struct cmd *cli_commands(size_t *ret_count);
int cli_unknown_command(const struct cli *cli, const char *name);
/* Calls a command's function; fails too when its output could not be written. */
int cli_run(struct cli *cli, const struct cmd *cmd, int argc, char **argv);

/* The whole program; returns the exit status. */
int cli_main(int argc, char **argv);

#define CMD(name, fn, flags, usage, line, help) int fn(struct cli *cli, int argc, char **argv);
#include "fs/cli/commands.def"
#undef CMD

#endif
