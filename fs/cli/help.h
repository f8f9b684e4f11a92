/* Prints what commands.def and the option tables say: for a terminal and as a manual page. */
#ifndef DFS_FS_CLI_HELP_H
#define DFS_FS_CLI_HELP_H

#include "fs/cli/cli.h"

/* dfs --help */
void help_program(const struct cmd *commands, size_t count, const struct opt *frame, FILE *to);
/* dfs COMMAND --help */
void help_command(const struct cmd *cmd, const struct opt *own, const struct opt *frame, FILE *to);

/* The manual page: head, every command, tail. */
void help_man_head(const struct opt *frame, FILE *to);
void help_man_command(const struct cmd *cmd, const struct opt *own, FILE *to);
void help_man_tail(FILE *to);

#endif
