#include "fs/cli/options.h"

#include "cluster/base/text.h"

#define OPTS_MAX 64

void options_frame(struct cli *cli, struct opt ret[OPTS_FRAME + 1])
{
    const struct opt opts[OPTS_FRAME + 1] = {
        { "conf", 0, OPT_TEXT, &cli->conf_option, "FILE",
          "Configuration file; without it $DFS_CONF, or else " CLI_CONF_DEFAULT
          " if there is one." },
        { "set", 0, OPT_LIST, &cli->set, "KEY=VALUE",
          "Sets one key over the configuration file. May be given several times." },
        { "json", 0, OPT_FLAG, &cli->json, NULL, "Prints the result as JSON." },
        { "verbose", 'v', OPT_COUNT, &cli->verbose, NULL, "Logs more; -vv logs everything." },
        { "help", 'h', OPT_FLAG, &cli->help, NULL, "Prints this text." },
        { "version", 0, OPT_FLAG, &cli->version, NULL, "Prints the version." },
        OPT_END,
    };

    memcpy(ret, opts, sizeof(opts));
}

/* The options that count, and where the reading is. */
struct reader {
    struct cli *cli;
    const struct opt *own; /* may be NULL */
    const struct opt *frame;
    int argc;
    char **argv;
    int at;
};

static bool takes_arg(const struct opt *o)
{
    return o->kind != OPT_FLAG && o->kind != OPT_COUNT;
}

static const struct opt *find_in(const struct opt *o, const char *name, size_t len, char letter)
{
    for (; o != NULL && o->name != NULL; o++) {
        bool hit = name != NULL ? strncmp(o->name, name, len) == 0 && o->name[len] == '\0'
                                : letter != 0 && o->letter == letter;

        if (hit) {
            return o;
        }
    }
    return NULL;
}

/* By name, or by letter when name is NULL. A command's own options come first. */
static const struct opt *find(const struct reader *r, const char *name, size_t len, char letter)
{
    const struct opt *o = find_in(r->own, name, len, letter);

    return o != NULL ? o : find_in(r->frame, name, len, letter);
}

static bool unknown(const struct reader *r, const char *name, size_t len)
{
    const char *names[OPTS_MAX];
    char word[64];
    const char *nearest;
    size_t n = 0;

    for (const struct opt *o = r->own; o != NULL && o->name != NULL && n < OPTS_MAX; o++) {
        names[n++] = o->name;
    }
    for (const struct opt *o = r->frame; o->name != NULL && n < OPTS_MAX; o++) {
        names[n++] = o->name;
    }
    snprintf(word, sizeof(word), "%.*s", (int)MIN(len, sizeof(word) - 1), name);
    nearest = text_nearest(word, names, n);
    if (nearest != NULL) {
        cli_error(r->cli, "unknown option --%s; did you mean --%s?", word, nearest);
    } else {
        cli_usage(r->cli, "unknown option --%s", word);
    }
    return false;
}

/* "--name" or "-n", as the user may have typed it. */
static const char *shown(const struct opt *o, char buf[64])
{
    snprintf(buf, 64, "--%s", o->name);
    return buf;
}

static bool store(const struct reader *r, const struct opt *o, const char *arg)
{
    struct why why = { "" };
    char name[64];
    int err = 0;

    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->target = true;
        break;
    case OPT_COUNT:
        ++*(int *)o->target;
        break;
    case OPT_TEXT:
        *(const char **)o->target = arg;
        break;
    case OPT_NUM:
        err = parse_num(arg, o->target, &why);
        break;
    case OPT_SIZE:
        err = parse_size(arg, o->target, &why);
        break;
    case OPT_TIME:
        err = parse_time_ms(arg, o->target, &why);
        break;
    case OPT_LIST: {
        struct opt_list *l = o->target;

        if (l->count == OPT_LIST_MAX) {
            cli_usage(r->cli, "%s is given more than %d times", shown(o, name), OPT_LIST_MAX);
            return false;
        }
        l->item[l->count++] = arg;
        break;
    }
    }
    if (err != 0) {
        cli_usage(r->cli, "%s: %s", shown(o, name), why.text);
    }
    return err == 0;
}

/* The option's argument: what stands behind it in the same word (may be NULL), or the next word. */
static bool store_with_arg(struct reader *r, const struct opt *o, const char *attached)
{
    char name[64];

    if (!takes_arg(o)) {
        if (attached != NULL) {
            cli_usage(r->cli, "%s takes no value", shown(o, name));
            return false;
        }
        return store(r, o, NULL);
    }
    if (attached != NULL) {
        return store(r, o, attached);
    }
    if (r->at + 1 >= r->argc) {
        cli_usage(r->cli, "%s needs a value: %s", shown(o, name), o->arg);
        return false;
    }
    return store(r, o, r->argv[++r->at]);
}

static bool read_long(struct reader *r, const char *word)
{
    size_t len = strcspn(word, "=");
    const struct opt *o = find(r, word, len, 0);

    if (o == NULL) {
        return unknown(r, word, len);
    }
    return store_with_arg(r, o, word[len] == '=' ? word + len + 1 : NULL);
}

/* "-abc": letters, of which the last one may have an argument. */
static bool read_letters(struct reader *r, const char *word)
{
    for (; *word != '\0'; word++) {
        const struct opt *o = find(r, NULL, 0, *word);

        if (o == NULL) {
            cli_usage(r->cli, "unknown option -%c", *word);
            return false;
        }
        if (takes_arg(o)) {
            return store_with_arg(r, o, word[1] != '\0' ? word + 1 : NULL);
        }
        if (!store(r, o, NULL)) {
            return false;
        }
    }
    return true;
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0'; /* a lone "-" is standard input or output */
}

static bool read_option(struct reader *r)
{
    const char *word = r->argv[r->at];

    return word[1] == '-' ? read_long(r, word + 2) : read_letters(r, word + 1);
}

bool options_parse(struct cli *cli, int argc, char **argv, const struct opt *own,
                   const struct opt *frame)
{
    struct reader r = { .cli = cli, .own = own, .frame = frame, .argc = argc, .argv = argv };
    bool operands_only = false;
    int n = 0;

    for (r.at = 1; r.at < argc; r.at++) {
        if (!operands_only && strcmp(argv[r.at], "--") == 0) {
            operands_only = true;
        } else if (operands_only || !is_option(argv[r.at])) {
            argv[1 + n++] = argv[r.at];
        } else if (!read_option(&r)) {
            return false;
        }
    }
    cli->args = argv + 1;
    cli->arg_count = n;
    return true;
}

int options_leading(struct cli *cli, int argc, char **argv, const struct opt *frame)
{
    struct reader r = { .cli = cli, .frame = frame, .argc = argc, .argv = argv };

    for (r.at = 1; r.at < argc && is_option(argv[r.at]); r.at++) {
        if (!read_option(&r)) {
            return -1;
        }
    }
    return r.at;
}
