/* Reads a command line by a table of options. */
#ifndef DFS_FS_CLI_OPTIONS_H
#define DFS_FS_CLI_OPTIONS_H

#include "fs/cli/cli.h"

#define OPTS_FRAME 6 /* options that every command has */

/* The options that every command has; they fill cli. */
void options_frame(struct cli *cli, struct opt ret[OPTS_FRAME + 1]);

/* Options of the command and of the frame, and operands, mixed; moves the operands to the front of
 * argv + 1 and sets cli->args. False after a complaint. */
bool options_parse(struct cli *cli, int argc, char **argv, const struct opt *own,
                   const struct opt *frame);

/* Only options of the frame, up to the first operand: its index, or -1 after a complaint. */
int options_leading(struct cli *cli, int argc, char **argv, const struct opt *frame);

#endif
