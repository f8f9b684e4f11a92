/* The small things of cluster/base: faults, log lines, lists, tables, random numbers, text. */
#include "cluster/base/base.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "cluster/base/addr.h"
#include "cluster/base/clock.h"
#include "cluster/base/daemon.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/htab.h"
#include "cluster/base/list.h"
#include "cluster/base/log.h"
#include "cluster/base/progress.h"
#include "cluster/base/rng.h"
#include "cluster/base/sm.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"

#include "test/unit/tap.h"

static void faults_count_passes_and_hits(void)
{
    struct why why = { "" };

    CHECK_INT(fault_arm("a.b=IO skip=2 times=1;c=NOSPC", &why), 0);
    CHECK_INT(fault_hit("a.b"), 0);
    CHECK_INT(fault_hit("a.b"), 0);
    CHECK_INT(fault_hit("a.b"), DFS_EIO);
    CHECK_INT(fault_hit("a.b"), 0);
    CHECK_INT(fault_hit("c"), DFS_ENOSPC);
    CHECK_INT(fault_hit("c"), DFS_ENOSPC);
    CHECK_INT(fault_hit("d"), 0);
    CHECK_INT(fault_arm("", &why), 0);
    CHECK_INT(fault_hit("c"), 0);
}

static void bad_fault_specs_change_nothing(void)
{
    static const char *const bad[] = { "x",           "=IO",          "x=WRONG",  "x=IO skip=",
                                       "x=IO skip=a", "x=IO often=1", "x=delay:", "x=delay:-1" };
    struct why why = { "" };

    CHECK_INT(fault_arm("x=IO", &why), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_INT(fault_arm(bad[i], &why), DFS_EINVAL);
        CHECK(why.text[0] != '\0');
    }
    CHECK_INT(fault_hit("x"), DFS_EIO);
    fault_arm("", NULL);
}

static void a_fault_can_kill_and_delay(void)
{
    uint64_t start = clock_mono_ms();
    int status = 0;
    pid_t pid;

    CHECK_INT(fault_arm("slow=delay:20;dead=kill", NULL), 0);
    CHECK_INT(fault_hit("slow"), 0);
    CHECK(clock_mono_ms() - start >= 19);
    pid = fork();
    if (pid == 0) {
        fault_hit("dead");
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    fault_arm("", NULL);
}

/* What log_write() sends for one event. */
static const char *logged(const char *value)
{
    static char line[4096];
    int pipe_fds[2];
    ssize_t n;

    CHECK_INT(pipe(pipe_fds), 0);
    log_to_fd(pipe_fds[1]);
    log_write(LOG_WARN, "net.peer_lost", "peer=%s", value);
    log_to_fd(STDERR_FILENO);
    n = read(pipe_fds[0], line, sizeof(line) - 1);
    CHECK(n > 0);
    line[MAX(n, 0)] = '\0';
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    return line;
}

static void a_log_line_is_one_line(void)
{
    char long_value[5000];
    const char *line = logged("a\nb\x7f");

    CHECK_STR(line + 24, " warn  net.peer_lost  peer=a\\x0ab\\x7f\n");
    CHECK(line[10] == 'T' && line[19] == '.' && line[23] == 'Z');
    memset(long_value, 'x', sizeof(long_value));
    long_value[sizeof(long_value) - 1] = '\0';
    line = logged(long_value);
    CHECK(strlen(line) <= 2048 && line[strlen(line) - 1] == '\n');
}

static void log_levels_are_set_per_component(void)
{
    struct why why = { "" };

    CHECK_INT(log_configure("warn,net=debug,raft=off", &why), 0);
    CHECK(log_enabled(LOG_DEBUG, "net.x"));
    CHECK(!log_enabled(LOG_DEBUG, "network.x"));
    CHECK(!log_enabled(LOG_INFO, "store.x"));
    CHECK(log_enabled(LOG_WARN, "store.x"));
    CHECK(!log_enabled(LOG_ERROR, "raft.x"));
    CHECK_INT(log_configure("info,net=loud", &why), DFS_EINVAL);
    CHECK_STR(why.text, "\"loud\" is not debug, info, warn, error or off");
    CHECK_INT(log_configure("=info", &why), DFS_EINVAL);
    CHECK(log_enabled(LOG_DEBUG, "net.x")); /* as before */
    CHECK_INT(log_configure("info", &why), 0);
}

struct item {
    struct list link;
    struct hnode node;
    uint64_t key;
};

static void lists_keep_order_and_allow_removal(void)
{
    struct list head;
    struct item item[5];
    uint64_t seen = 0;

    list_init(&head);
    CHECK(list_empty(&head) && list_first(&head) == NULL && list_pop_front(&head) == NULL);
    for (size_t i = 0; i < 5; i++) {
        item[i].key = i + 1;
        list_push_back(&head, &item[i].link);
    }
    LIST_FOREACH (l, &head) {
        if (CONTAINER_OF(l, struct item, link)->key % 2 == 0) {
            list_remove(l);
        }
    }
    LIST_FOREACH (l, &head) {
        seen = seen * 10 + CONTAINER_OF(l, struct item, link)->key;
    }
    CHECK_INT(seen, 135);
    list_remove(&item[1].link); /* in no list: nothing happens */
    list_push_front(&head, &item[1].link);
    CHECK(list_first(&head) == &item[1].link && list_last(&head) == &item[4].link);
    CHECK(list_pop_front(&head) == &item[1].link);
}

static void a_table_finds_what_was_added(void)
{
    enum { N = 5000 };
    struct item *item = x_alloc(N * sizeof(*item));
    struct htab t;
    size_t n = 0;

    htab_init(&t);
    for (size_t i = 0; i < N; i++) {
        item[i].key = i;
        htab_add(&t, &item[i].node, htab_mix(i / 2)); /* each hash twice */
    }
    for (size_t i = 0; i < N; i += 2) {
        struct hnode *first = htab_find(&t, htab_mix(i / 2));

        CHECK(first == &item[i + 1].node); /* the newest first, also after growing */
        CHECK(htab_next(first) == &item[i].node);
        CHECK(htab_next(&item[i].node) == NULL);
    }
    for (size_t i = 0; i < N; i += 2) {
        htab_remove(&t, &item[i].node);
    }
    HTAB_FOREACH (node, &t) {
        n += CONTAINER_OF(node, struct item, node)->key % 2;
    }
    CHECK_INT(n, N / 2);
    CHECK(htab_find(&t, htab_mix(N)) == NULL);
    for (n = 0; htab_pop(&t) != NULL; n++) {
    }
    CHECK_INT(n, N / 2);
    CHECK_INT(t.count, 0);
    htab_fini(&t);
    free(item);
}

static void a_seed_gives_the_same_numbers(void)
{
    struct rng a, b;
    uint64_t hits[3] = { 0 };

    rng_init(&a, 42);
    rng_init(&b, 42);
    CHECK(rng_u64(&a) == UINT64_C(1546998764402558742)); /* of the published generator */
    CHECK(rng_u64(&b) == UINT64_C(1546998764402558742));
    CHECK(rng_u64(&a) == rng_u64(&b));
    for (int i = 0; i < 3000; i++) {
        hits[rng_below(&a, 3)]++;
    }
    CHECK(hits[0] > 850 && hits[1] > 850 && hits[2] > 850);
    CHECK(!rng_chance(&a, 0, 10) && rng_chance(&a, 10, 10));
    CHECK(rng_system_u64() != rng_system_u64());
}

static const struct sm_state door[] = {
    { "open", SM_BIT(1) },
    { "closed", SM_BIT(0) | SM_BIT(2) },
    { "locked", 0 },
};

static void an_undeclared_move_ends_the_process(void)
{
    struct sm m;
    int status = 0;
    pid_t pid;

    SM_INIT(&m, door, 0);
    CHECK(!sm_may(&m, 2) && !sm_may(&m, 3));
    sm_move(&m, 1);
    CHECK_STR(sm_name(&m), "closed");
    sm_move(&m, 2);
    pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        sm_move(&m, 0);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void addresses_are_parsed(void)
{
    static const char *const bad[] = { "",        "host",  ":1",    "h:",    "h:x",
                                       "h:65536", "h:+1",  "[::1]", "::1:5", "[::1]5",
                                       "a b:1",   "h:1:2", "[]:1",  "h:1 " };
    char buf[ADDR_TEXT];
    struct addr a;

    CHECK_INT(addr_parse("node-1.example:9600", &a, NULL), 0);
    CHECK_STR(a.host, "node-1.example");
    CHECK_INT(a.port, 9600);
    CHECK_INT(addr_parse("[fe80::1%eth0]:0", &a, NULL), 0);
    CHECK_STR(a.host, "fe80::1%eth0");
    CHECK_STR(addr_format(&a, buf), "[fe80::1%eth0]:0");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct why why = { "" };

        CHECK_INT(addr_parse(bad[i], &a, &why), DFS_EINVAL);
        CHECK(why.text[0] != '\0');
    }
}

static void a_list_of_masters_gives_their_ports(void)
{
    char *out = NULL;
    struct why why = { "" };

    CHECK_INT(addr_masters("a:9600, b:9600,[::1]:7", MASTER_CONTROL, &out, &why), 0);
    CHECK_STR(out, "a:9601,b:9601,[::1]:8");
    free(out);
    CHECK_INT(addr_masters("a:9600", MASTER_RAFT, &out, &why), 0);
    CHECK_STR(out, "a:9602");
    free(out);
    CHECK_INT(addr_masters("", MASTER_CLIENTS, &out, &why), DFS_EINVAL);
    CHECK_INT(addr_masters("a:1,", MASTER_CLIENTS, &out, &why), DFS_EINVAL);
    CHECK_INT(addr_masters("a:0", MASTER_CLIENTS, &out, &why), DFS_EINVAL);
    CHECK_INT(addr_masters("a:65534", MASTER_CLIENTS, &out, &why), DFS_EINVAL);
    CHECK_INT(addr_masters("a:1,a:2,a:3,a:4,a:5,a:6", MASTER_CLIENTS, &out, &why), DFS_EINVAL);
}

static void numbers_are_written_for_people(void)
{
    char b[TEXT_NUMBER];

    CHECK_STR(text_bytes(0, b), "0 B");
    CHECK_STR(text_bytes(1023, b), "1023 B");
    CHECK_STR(text_bytes(1024, b), "1.0 KiB");
    CHECK_STR(text_bytes(MIB - 1, b), "1.0 MiB");
    CHECK_STR(text_bytes(150 * MIB, b), "150 MiB");
    CHECK_STR(text_bytes(UINT64_MAX, b), "16.0 EiB");
    CHECK_STR(text_size(64 * MIB, b), "64MiB");
    CHECK_STR(text_size(0, b), "0");
    CHECK_STR(text_size(4097, b), "4097");
    CHECK_STR(text_time(0, b), "0ms");
    CHECK_STR(text_time(1500, b), "1500ms");
    CHECK_STR(text_time(86400000, b), "1d");
    CHECK_STR(text_ago(400, b), "0.4 s");
    CHECK_STR(text_ago(12345, b), "12 s");
    CHECK_STR(text_ago(200000, b), "3 min 20 s");
    CHECK_STR(text_ago(7500000, b), "2 h 5 min");
    CHECK_STR(text_ago(UINT64_C(1047600000), b), "12 d 3 h");
}

static void the_nearest_word_is_found(void)
{
    static const char *const words[] = { "replication", "block_size", "masters" };

    CHECK_INT(text_distance("kitten", "sitting"), 3);
    CHECK_INT(text_distance("ab", "ba"), 1);
    CHECK_INT(text_distance("", "abc"), 3);
    CHECK_STR(text_nearest("replicatoin", words, 3), "replication");
    CHECK_STR(text_nearest("blocksize", words, 3), "block_size");
    CHECK(text_nearest("colour", words, 3) == NULL);
    CHECK(text_nearest("", words, 3) == NULL);
}

static void tables_line_up(void)
{
    struct table *t = table_new("NAME >USED LAST_SEEN");
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    table_cell(t, "a\nb");
    table_cell(t, "%d", 7);
    table_cell(t, "now");
    table_cell(t, "gr\303\274n");
    table_cell(t, "12345");
    table_cell(t, "%s", "");
    table_print(t, to);
    fclose(to);
    CHECK_STR(text, "NAME   USED  LAST SEEN\n"
                    "a?b       7  now\n"
                    "gr\303\274n  12345  \n");
    free(text);
    table_free(t);
    table_free(NULL);
}

static void progress_tells_rate_and_time_left(void)
{
    struct progress p = { .what = "photos.tar", .total = 4 * GIB, .done = GIB, .start_ms = 1000 };
    char line[100];

    progress_line(&p, 11000, line, sizeof(line));
    CHECK_STR(line, "photos.tar           1.0 GiB of 4.0 GiB   25%  102 MiB/s  30 s left");
    p.done = 0;
    progress_line(&p, 1000, line, sizeof(line));
    CHECK_STR(line, "photos.tar           0 B of 4.0 GiB    0%  0 B/s  ? left");
    p.total = 0;
    p.done = MIB;
    progress_line(&p, 2000, line, sizeof(line));
    CHECK_STR(line, "photos.tar              1.0 MiB    1.0 MiB/s");
}

static void signals_come_as_events(void)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) { /* in a process of its own: the mask stays as it is */
        int fd = daemon_signals();
        bool ok = daemon_next(fd) == DAEMON_NONE;

        kill(getpid(), SIGPIPE);
        kill(getpid(), SIGHUP);
        ok = ok && daemon_wait(fd, 1000) == DAEMON_RELOAD;
        kill(getpid(), SIGTERM);
        ok = ok && daemon_wait(fd, 1000) == DAEMON_STOP && daemon_wait(fd, 0) == DAEMON_NONE;
        daemon_signals_reset();
        kill(getpid(), SIGTERM);
        _exit(ok ? 0 : 1); /* not reached when the reset works */
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void a_pidfile_is_believed_while_the_process_lives(void)
{
    char path[200];
    struct why why = { "" };
    int pid = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%s/pid", tap_tmp());
    CHECK_INT(daemon_pidfile_read(path, &pid, &why), DFS_ENOENT);
    CHECK_INT(daemon_pidfile_write(path, &why), 0);
    CHECK_INT(daemon_pidfile_read(path, &pid, &why), 0);
    CHECK_INT(pid, getpid());
    f = fopen(path, "w");
    fprintf(f, "4194305\n"); /* beyond the largest id */
    fclose(f);
    CHECK_INT(daemon_pidfile_read(path, &pid, &why), DFS_ENOENT);
    f = fopen(path, "w");
    fprintf(f, "-1\n");
    fclose(f);
    CHECK_INT(daemon_pidfile_read(path, &pid, &why), DFS_ENOENT);
}

int main(void)
{
    tap_run("faults count passes and hits", faults_count_passes_and_hits);
    tap_run("bad fault specs change nothing", bad_fault_specs_change_nothing);
    tap_run("a fault can kill and delay", a_fault_can_kill_and_delay);
    tap_run("a log line is one line", a_log_line_is_one_line);
    tap_run("log levels are set per component", log_levels_are_set_per_component);
    tap_run("lists keep order and allow removal", lists_keep_order_and_allow_removal);
    tap_run("a table finds what was added", a_table_finds_what_was_added);
    tap_run("a seed gives the same numbers", a_seed_gives_the_same_numbers);
    tap_run("an undeclared move ends the process", an_undeclared_move_ends_the_process);
    tap_run("addresses are parsed", addresses_are_parsed);
    tap_run("a list of masters gives their ports", a_list_of_masters_gives_their_ports);
    tap_run("numbers are written for people", numbers_are_written_for_people);
    tap_run("the nearest word is found", the_nearest_word_is_found);
    tap_run("tables line up", tables_line_up);
    tap_run("progress tells rate and time left", progress_tells_rate_and_time_left);
    tap_run("signals come as events", signals_come_as_events);
    tap_run("a pidfile is believed while the process lives",
            a_pidfile_is_believed_while_the_process_lives);
    return tap_done();
}
