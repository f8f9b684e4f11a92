#include "fs/cli/help.h"

#include "cluster/base/version.h"

#define WIDTH 80

static const char about[] =
    "dfs is a distributed file system: large data on commodity machines, kept in blocks of which "
    "each has copies on several block servers, under one tree of names that a master keeps. The "
    "tree is mounted like any other file system, or reached by the commands below.";

/* ---- for a terminal ---- */

/* Words of one paragraph (n bytes), wrapped, each line indented. column: where the first starts. */
static void wrap(FILE *to, const char *text, size_t n, int indent, int column)
{
    const char *end = text + n;
    bool first = true;

    while (text < end) {
        int len = (int)MIN(strcspn(text, " \n"), (size_t)(end - text));

        if (!first && column + 1 + len > WIDTH) {
            putc('\n', to);
            column = 0;
            first = true;
        }
        if (first) {
            column += fprintf(to, "%*s", MAX(indent - column, 0), "");
        } else {
            column += fprintf(to, " ");
        }
        column += fprintf(to, "%.*s", len, text);
        first = false;
        text += len;
        text += MIN(strspn(text, " \n"), (size_t)(end - text));
    }
    putc('\n', to);
}

/* Paragraphs and, where lines begin with a blank, examples as they are. */
static void print_help(FILE *to, const char *text, int indent)
{
    while (*text != '\0') {
        const char *end = text;

        if (*text == ' ' || *text == '\n') {
            size_t n = strcspn(text, "\n");

            fprintf(to, "%*s%.*s\n", *text == ' ' ? indent : 0, "", (int)n, text);
            text += n + (text[n] == '\n' ? 1 : 0);
            continue;
        }
        while (*end != '\0' && !(end[0] == '\n' && (end[1] == '\n' || end[1] == ' '))) {
            end++;
        }
        wrap(to, text, (size_t)(end - text), indent, 0);
        text = end + (*end == '\n' ? 1 : 0);
    }
}

/* "-v, --verbose", "    --conf FILE" */
static int option_name(const struct opt *o, char *buf, size_t size)
{
    char letter[8] = "    ";

    if (o->letter != 0) {
        snprintf(letter, sizeof(letter), "-%c, ", o->letter);
    }
    return snprintf(buf, size, "%s--%s%s%s", letter, o->name, o->arg != NULL ? " " : "",
                    o->arg != NULL ? o->arg : "");
}

/* without: the name of an option to leave out, or NULL. */
static void print_options(FILE *to, const char *title, const struct opt *o, const char *without)
{
    if (o->name == NULL) {
        return;
    }
    fprintf(to, "\n%s:\n", title);
    for (; o->name != NULL; o++) {
        char name[80];
        int column = 2 + option_name(o, name, sizeof(name));

        if (without != NULL && strcmp(o->name, without) == 0) {
            continue;
        }
        fprintf(to, "  %s", name);
        if (column > 25) {
            putc('\n', to);
            column = 0;
        }
        wrap(to, o->help, strlen(o->help), 26, column);
    }
}

/* Every line of usage behind "dfs name". */
static void print_usage(FILE *to, const struct cmd *cmd)
{
    const char *p = cmd->usage;
    const char *lead = "usage:";

    do {
        size_t n = strcspn(p, "\n");

        fprintf(to, "%-6s dfs %s%s%.*s\n", lead, cmd->name, n > 0 ? " " : "", (int)n, p);
        lead = "";
        p += n + (p[n] == '\n' ? 1 : 0);
    } while (*p != '\0');
}

void help_program(const struct cmd *commands, size_t count, const struct opt *frame, FILE *to)
{
    fprintf(to, "usage: dfs [OPTIONS] COMMAND [ARGUMENTS]\n\n");
    wrap(to, about, strlen(about), 0, 0);
    fprintf(to, "\ncommands:\n");
    for (size_t i = 0; i < count; i++) {
        int column = fprintf(to, "  %-12s ", commands[i].name);

        wrap(to, commands[i].line, strlen(commands[i].line), 15, column);
    }
    print_options(to, "options, before or behind the command", frame, NULL);
    fprintf(to, "\ndfs COMMAND --help explains a command.\n");
}

void help_command(const struct cmd *cmd, const struct opt *own, const struct opt *frame, FILE *to)
{
    print_usage(to, cmd);
    putc('\n', to);
    wrap(to, cmd->line, strlen(cmd->line), 0, 0);
    putc('\n', to);
    print_help(to, cmd->help, 0);
    print_options(to, "options", own, NULL);
    print_options(to, "options of every command", frame,
                  (cmd->flags & CMD_JSON) != 0 ? NULL : "json");
    if ((cmd->flags & CMD_STATUS) == 0) {
        fprintf(to, "\nexit status: 0 done, 1 failed, 2 wrong usage or configuration\n");
    }
}

/* ---- as a manual page ---- */

/* Text in which nothing is taken for a request or an escape. */
static void roff(FILE *to, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool line_start = i == 0 || text[i - 1] == '\n';

        if (line_start && (text[i] == '.' || text[i] == '\'')) {
            fputs("\\&", to);
        }
        if (text[i] == '\\') {
            fputs("\\e", to);
        } else if (text[i] == '-') {
            fputs("\\-", to);
        } else {
            putc(text[i], to);
        }
    }
}

static void roff_options(FILE *to, const struct opt *o)
{
    for (; o->name != NULL; o++) {
        fprintf(to, ".TP\n");
        if (o->letter != 0) {
            fprintf(to, "\\fB\\-%c\\fR, ", o->letter);
        }
        fprintf(to, "\\fB\\-\\-");
        roff(to, o->name, strlen(o->name));
        fprintf(to, "\\fR");
        if (o->arg != NULL) {
            fprintf(to, " \\fI%s\\fR", o->arg);
        }
        putc('\n', to);
        roff(to, o->help, strlen(o->help));
        putc('\n', to);
    }
}

static void roff_help(FILE *to, const char *text)
{
    bool example = false;

    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        bool indented = *text == ' ';

        if (indented != example) {
            fprintf(to, indented ? ".RS\n.nf\n" : ".fi\n.RE\n");
            example = indented;
        }
        if (n == 0) {
            fprintf(to, ".PP\n");
        } else {
            size_t skip = strspn(text, " ");

            roff(to, text + skip, n - skip);
            putc('\n', to);
        }
        text += n + (text[n] == '\n' ? 1 : 0);
    }
    if (example) {
        fprintf(to, ".fi\n.RE\n");
    }
}

void help_man_head(const struct opt *frame, FILE *to)
{
    fprintf(to, ".TH DFS 1 \"\" \"dfs " DFS_VERSION "\" \"User Commands\"\n"
                ".SH NAME\ndfs \\- distributed file system\n"
                ".SH SYNOPSIS\n\\fBdfs\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n"
                ".SH DESCRIPTION\n");
    roff(to, about, strlen(about));
    fprintf(to, "\n.SH OPTIONS\nThey may stand before or behind the command.\n");
    roff_options(to, frame);
    fprintf(to, ".SH COMMANDS\n");
}

void help_man_command(const struct cmd *cmd, const struct opt *own, FILE *to)
{
    const char *p = cmd->usage;

    fprintf(to, ".SS dfs %s\n", cmd->name);
    do {
        size_t n = strcspn(p, "\n");

        fprintf(to, "\\fBdfs %s\\fR ", cmd->name);
        roff(to, p, n);
        fprintf(to, "\n.br\n");
        p += n + (p[n] == '\n' ? 1 : 0);
    } while (*p != '\0');
    fprintf(to, ".PP\n");
    roff(to, cmd->line, strlen(cmd->line));
    fprintf(to, "\n.PP\n");
    roff_help(to, cmd->help);
    roff_options(to, own);
}

void help_man_tail(FILE *to)
{
    fprintf(to, ".SH FILES\n.TP\n\\fI/etc/dfs.conf\\fR\nThe configuration, unless "
                "\\fB\\-\\-conf\\fR or the environment's \\fBDFS_CONF\\fR names another file.\n"
                ".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage or configuration; "
                "\\fBdfs fsck\\fR has its own.\n");
}
