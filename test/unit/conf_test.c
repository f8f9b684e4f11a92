#include "cluster/base/conf.h"

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "test/unit/tap.h"

/* What print() writes, to be freed. */
static char *printed(void (*print)(const struct conf *, FILE *), const struct conf *c)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    print(c, to);
    fclose(to);
    return text;
}

static void print_sample(const struct conf *c, FILE *to)
{
    (void)c;
    conf_print_sample(to);
}

static int load(struct conf *c, const char *text, struct why *why)
{
    return conf_load_text(c, "dfs.conf", slice_str(text), why);
}

static void defaults_are_those_of_the_table(void)
{
    struct conf *c = conf_new();
    struct why why = { "" };

    CHECK_INT(c->replication, 3);
    CHECK_INT(c->block_size, 64 << 20);
    CHECK_INT(c->heartbeat, 1000);
    CHECK_INT(c->server_dead_after, 15000);
    CHECK_INT(c->metadata_max, 64LL << 30);
    CHECK_STR(c->masters, "127.0.0.1:9600");
    CHECK_STR(c->block_volumes, "");
    CHECK_INT(conf_check(c, &why), 0);
    CHECK_STR(why.text, "");
    conf_free(c);
    conf_free(NULL);
}

static void the_example_is_printed_from_the_table(void)
{
    char *want = NULL;
    char *got = printed(print_sample, NULL);

    CHECK_INT(io_read_file("dfs.conf.example", 100000, &want, NULL, NULL), 0);
    CHECK(want != NULL && strcmp(got, want) == 0); /* else: make docs */
    free(want);
    free(got);
}

/* The sample with its keys uncommented sets every key to what it is anyway. */
static void the_sample_parses_to_the_defaults(void)
{
    struct conf *defaults = conf_new();
    struct conf *c = conf_new();
    char *sample = printed(print_sample, NULL);
    char *a, *b;
    struct why why = { "" };

    for (char *p = sample; (p = strstr(p, "\n#")) != NULL; p++) {
        p[1] = p[2] == ' ' || p[2] == '\n' ? '#' : ' ';
    }
    CHECK_INT(load(c, sample, &why), 0);
    CHECK_STR(why.text, "");
    a = printed(conf_print, c);
    b = printed(conf_print, defaults);
    CHECK_STR(a, b);
    free(a);
    a = printed(conf_print_given, c);
    CHECK_STR(a, b);
    free(a);
    free(b);
    free(sample);
    conf_free(c);
    conf_free(defaults);
}

static void values_are_read_with_units_and_comments(void)
{
    struct conf *c = conf_new();
    struct why why = { "" };
    char *given;

    CHECK_INT(load(c,
                   "\xef\xbb\xbf# comment\n\n  replication=2   # two\r\n"
                   "block_size\t=\t8M\nheartbeat = 250ms\n"
                   "block.volumes = /a#1\nblock.volumes = /b, /c\nmasters=h:1",
                   &why),
              0);
    CHECK_STR(why.text, "");
    CHECK_INT(c->replication, 2);
    CHECK_INT(c->block_size, 8 << 20);
    CHECK_INT(c->heartbeat, 250);
    CHECK_STR(c->block_volumes, "/a#1,/b, /c");
    CHECK_STR(c->masters, "h:1"); /* the default is no part of the list */
    given = printed(conf_print_given, c);
    CHECK_STR(given, "masters = h:1\nreplication = 2\nblock_size = 8MiB\nheartbeat = 250ms\n"
                     "block.volumes = /a#1,/b, /c\n");
    free(given);
    conf_free(c);
}

static void later_readings_replace_earlier_ones(void)
{
    struct conf *c = conf_new();
    struct why why = { "" };

    CHECK_INT(load(c, "replication = 2\nblock.volumes = /a", &why), 0);
    CHECK_INT(load(c, "replication = 4\nblock.volumes = /b", &why), 0);
    CHECK_INT(c->replication, 4);
    CHECK_STR(c->block_volumes, "/b");
    CHECK_INT(conf_set(c, "replication=5", &why), 0);
    CHECK_INT(conf_set(c, "replication = 6", &why), 0);
    CHECK_INT(conf_set(c, "block.volumes=", &why), 0);
    CHECK_INT(conf_set(c, "block.data=/my #1 /x ", &why), 0); /* a file would have a comment here */
    CHECK_INT(c->replication, 6);
    CHECK_STR(c->block_volumes, "");
    CHECK_STR(c->block_data, "/my #1 /x");
    conf_free(c);
}

static void bad_lines_are_named(void)
{
    static const struct {
        const char *text;
        const char *why;
    } bad[] = {
        { "\nreplicaton = 2", "dfs.conf:2: unknown key \"replicaton\"; did you mean "
                              "\"replication\"?" },
        { "colour = red", "dfs.conf:1: unknown key \"colour\"; see dfs conf sample" },
        { "replication 2", "dfs.conf:1: expected \"key = value\", found \"replication 2\"" },
        { " = 2", "dfs.conf:1: expected \"key = value\", found \"= 2\"" },
        { "replication = 17", "dfs.conf:1: replication: 17 is out of range; expected 1 to 16" },
        { "replication = two",
          "dfs.conf:1: replication: \"two\" is not a number; expected 1 to 16" },
        { "replication = ", "dfs.conf:1: replication: \"\" is not a number; expected 1 to 16" },
        { "replication = -1", "dfs.conf:1: replication: \"-1\" is not a number; expected 1 to 16" },
        { "replication = 2 3",
          "dfs.conf:1: replication: \"2 3\" is not a number; expected 1 to 16" },
        { "replication = 99999999999999999999999",
          "dfs.conf:1: replication: \"99999999999999999999999\" is not a number; expected 1 to 16" },
        { "block_size = 64MB",
          "dfs.conf:1: block_size: \"64MB\" is not a size; expected bytes, or a number with KiB, "
          "MiB, GiB or TiB, such as 64MiB" },
        { "block_size = 99999999999T",
          "dfs.conf:1: block_size: \"99999999999T\" is not a size; expected bytes, or a number "
          "with KiB, MiB, GiB or TiB, such as 64MiB" },
        { "block_size = 64K",
          "dfs.conf:1: block_size: 64K is out of range; expected 1MiB to 1GiB" },
        { "heartbeat = 1", "dfs.conf:1: heartbeat: \"1\" is not a time; expected a number with "
                           "ms, s, m, h or d, such as 15s" },
        { "heartbeat = 1h", "dfs.conf:1: heartbeat: 1h is out of range; expected 50ms to 1m" },
        { "replication = 2\nblock.host = a\nreplication = 2",
          "dfs.conf:3: replication was given in line 1 already" },
        { "block.host = a\001b", "dfs.conf:1: not text" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct conf *c = conf_new();
        struct why why = { "" };

        CHECK_INT(load(c, bad[i].text, &why), DFS_ECONFIG);
        CHECK_STR(why.text, bad[i].why);
        conf_free(c);
    }
}

static void a_zero_byte_is_not_text(void)
{
    struct conf *c = conf_new();
    struct why why = { "" };

    CHECK_INT(conf_load_text(c, "f", slice_of("#\0\n", 3), &why), DFS_ECONFIG);
    CHECK_STR(why.text, "f:1: not text");
    conf_free(c);
}

static void values_that_do_not_fit_together_are_named(void)
{
    static const struct {
        const char *text;
        const char *set;
        const char *why;
    } bad[] = {
        { "\nmasters = h", NULL,
          "dfs.conf:2: masters: \"h\" is not an address; expected host:port" },
        { "masters = h:1,", NULL,
          "dfs.conf:1: masters: \"\" is not an address; expected host:port" },
        { "topology = a=r1, b", NULL, "dfs.conf:1: topology: expected HOST=RACK, found \" b\"" },
        { "topology = a=", NULL, "dfs.conf:1: topology: expected HOST=RACK, found \"a=\"" },
        { "master.listen = x", NULL,
          "dfs.conf:1: master.listen: \"x\" is not an address; expected host:port" },
        { "block.listen = h:99999", NULL,
          "dfs.conf:1: block.listen: \"h:99999\" is not an address; expected host:port" },
        { "log.level = info,net=loud", NULL,
          "dfs.conf:1: log.level: \"loud\" is not debug, info, warn, error or off" },
        { "heartbeat = 3s", NULL,
          "dfs.conf:1: heartbeat: 3s must be less than server.suspect_after, which is 3s" },
        { "", "server.suspect_after=20s",
          "command line: server.suspect_after: 20s must be less than server.dead_after, which is "
          "15s" },
        { "", "server.dead_after=2s",
          "server.suspect_after: 3s must be less than server.dead_after, which is 2s" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct conf *c = conf_new();
        struct why why = { "" };

        CHECK_INT(load(c, bad[i].text, &why), 0);
        CHECK_INT(bad[i].set != NULL ? conf_set(c, bad[i].set, &why) : 0, 0);
        CHECK_INT(conf_check(c, &why), DFS_ECONFIG);
        CHECK_STR(why.text, bad[i].why);
        conf_free(c);
    }
}

static void assignments_are_checked_like_lines(void)
{
    static const char *const bad[] = {
        "", "=", "replication", "replication=0", "x=1", "#=", "a\n=1"
    };
    struct conf *c = conf_new();

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct why why = { "" };

        CHECK_INT(conf_set(c, bad[i], &why), DFS_ECONFIG);
        CHECK(why.text[0] != '\0');
    }
    CHECK_INT(c->replication, 3);
    conf_free(c);
}

static void files_are_loaded_or_refused(void)
{
    char path[300];
    struct conf *c = conf_new();
    struct why why = { "" };

    snprintf(path, sizeof(path), "%s/c", tap_tmp());
    CHECK_INT(conf_load(c, path, &why), DFS_ENOENT);
    CHECK_INT(io_write_file(path, "replication = 1\n", 16, 0644, &why), 0);
    CHECK_INT(conf_load(c, path, &why), 0);
    CHECK_INT(c->replication, 1);
    CHECK_INT(conf_load(c, tap_tmp(), &why), DFS_EISDIR);
    conf_free(c);
}

int main(void)
{
    tap_run("defaults are those of the table", defaults_are_those_of_the_table);
    tap_run("the example is printed from the table", the_example_is_printed_from_the_table);
    tap_run("the sample parses to the defaults", the_sample_parses_to_the_defaults);
    tap_run("values are read with units and comments", values_are_read_with_units_and_comments);
    tap_run("later readings replace earlier ones", later_readings_replace_earlier_ones);
    tap_run("bad lines are named", bad_lines_are_named);
    tap_run("a zero byte is not text", a_zero_byte_is_not_text);
    tap_run("values that do not fit together are named", values_that_do_not_fit_together_are_named);
    tap_run("assignments are checked like lines", assignments_are_checked_like_lines);
    tap_run("files are loaded or refused", files_are_loaded_or_refused);
    return tap_done();
}
