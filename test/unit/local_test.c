/* Processes and configuration of a local cluster. This program also plays the processes: started as
 * "dfs master ..." it prints a line and waits for its end. */
#include "cluster/base/base.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "fs/role/local_conf.h"
#include "fs/role/local_proc.h"

#include "test/unit/tap.h"

static int play_process(int argc, char **argv)
{
    printf("first\nhello from %s\n", argv[argc - 1]);
    fflush(stdout);
    if (strcmp(argv[argc - 1], "exit") == 0) {
        return 1;
    }
    if (strcmp(argv[argc - 1], "stubborn") == 0) {
        signal(SIGTERM, SIG_IGN);
    }
    for (;;) {
        pause();
    }
}

static bool wait_for_text(const struct local_proc *p, const char *text)
{
    char *path = x_printf("%s/log/%s.log", p->dir, p->name);
    uint64_t deadline = clock_mono_ms() + 4000;
    bool found = false;

    while (!found && clock_mono_ms() < deadline) {
        char *log = NULL;

        found = io_read_file(path, 65536, &log, NULL, NULL) == 0 && strstr(log, text) != NULL;
        free(log);
        usleep(1000);
    }
    free(path);
    return found;
}

static bool run_file_exists(const struct local_proc *p, const char *suffix)
{
    char *path = x_printf("%s/run/%s.%s", p->dir, p->name, suffix);
    bool there = access(path, F_OK) == 0;

    free(path);
    return there;
}

static void test_life(void)
{
    const char *dir = tap_tmp();
    struct local_proc p;
    struct local_proc again;
    struct why why = { 0 };

    local_proc_init(&p, dir, LOCAL_MASTER, 1);
    local_proc_arg(&p, "dfs");
    local_proc_arg(&p, "master");
    local_proc_arg(&p, "k=%d", 1);
    local_proc_arg(&p, "k=%s", "a b");
    CHECK(local_proc_load(&p, &why) == DFS_ENOENT);
    CHECK(local_proc_save(&p, &why) == 0 && local_proc_spawn(&p, &why) == 0);
    CHECK(wait_for_text(&p, "hello from k=a b"));
    CHECK(local_proc_running(&p));
    CHECK(getsid(p.pid) == p.pid);

    local_proc_init(&again, dir, LOCAL_MASTER, 1);
    CHECK(local_proc_load(&again, &why) == 0 && again.pid == p.pid);
    CHECK(strcmp(local_proc_setting(&again, "k"), "a b") == 0);
    CHECK(local_proc_setting(&again, "master") == NULL);

    local_proc_terminate(&p);
    CHECK(local_proc_wait(&p) && !local_proc_running(&p));
    CHECK(!local_proc_running(&again));
    CHECK(!run_file_exists(&p, "pid") && run_file_exists(&p, "args"));
    local_proc_forget(&p);
    CHECK(!run_file_exists(&p, "args"));
    local_proc_fini(&again);
    local_proc_fini(&p);
}

/* A pid file that names a process of somebody else. */
static void test_foreign_pid(void)
{
    const char *dir = tap_tmp();
    struct local_proc p;
    struct why why = { 0 };
    char *path = x_printf("%s/run/block-1.pid", dir);
    char text[32];

    local_proc_init(&p, dir, LOCAL_BLOCK, 1);
    local_proc_arg(&p, "dfs");
    local_proc_arg(&p, "block");
    snprintf(text, sizeof(text), "%d\n", (int)getpid());
    CHECK(local_proc_save(&p, &why) == 0 &&
          io_write_file(path, text, strlen(text), 0644, &why) == 0);
    CHECK(local_proc_load(&p, &why) == 0 && !local_proc_running(&p));
    CHECK(io_write_file(path, "garbage", 7, 0644, &why) == 0 && local_proc_load(&p, &why) == 0 &&
          !local_proc_running(&p));
    free(path);
    local_proc_fini(&p);

    path = x_printf("%s/run/block-1.args", dir);
    CHECK(io_write_file(path, "dfs\nmount\n", 10, 0644, &why) == 0 &&
          local_proc_load(&p, &why) == DFS_EDAMAGED && strstr(why.text, "block-1.args") != NULL);
    free(path);
    local_proc_fini(&p);
}

static void test_log_tail(void)
{
    const char *dir = tap_tmp();
    struct local_proc p;
    struct why why = { 0 };
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    local_proc_init(&p, dir, LOCAL_BLOCK, 2);
    local_proc_arg(&p, "dfs");
    local_proc_arg(&p, "block");
    local_proc_arg(&p, "exit");
    CHECK(local_proc_spawn(&p, &why) == 0 && local_proc_wait(&p));
    CHECK(local_proc_spawn(&p, &why) == 0 && local_proc_wait(&p));
    local_proc_print_log(&p, to);
    fclose(to);
    CHECK(strstr(text, "block-2.log:\n    first\n    hello from exit\n") != NULL);
    free(text);
    local_proc_fini(&p);
}

static void test_conf(void)
{
    const char *dir = tap_tmp();
    struct local_conf c;
    struct why why = { 0 };
    char *path = x_printf("%s/dfs.conf", dir);
    char *extra = x_printf("%s/extra.conf", dir);
    const char *more = "# mine\nblock_size = 1MiB # small\nheartbeat=200ms\n";
    char *text = NULL;

    CHECK(local_conf_load(&c, path, &why) == 0 && !local_conf_existed(&c));
    CHECK(local_conf_set_masters(&c, "127.0.0.1:9600", &why) == 0 &&
          local_conf_set(&c, "replication", "2", &why) == 0);
    CHECK(io_write_file(extra, more, strlen(more), 0644, &why) == 0 &&
          local_conf_merge(&c, extra, &why) == 0);
    CHECK(local_conf_assign(&c, "heartbeat=300ms", &why) == 0);
    CHECK(local_conf_assign(&c, "hartbeat=300ms", &why) == DFS_ECONFIG);
    CHECK(local_conf_assign(&c, "heartbeat=3", &why) != 0);
    CHECK(local_conf_assign(&c, "masters=a:1", &why) == DFS_ECONFIG);
    CHECK(local_conf_assign(&c, "block.rack=a #1", &why) == DFS_ECONFIG);
    CHECK(local_conf_write(&c, &why) == 0 && io_read_file(path, 65536, &text, NULL, &why) == 0);
    CHECK(strstr(text, "\nmasters = 127.0.0.1:9600\nreplication = 2\nblock_size = 1MiB # small\n"
                       "heartbeat = 300ms\n") != NULL);
    local_conf_restore(&c);
    CHECK(access(path, F_OK) != 0);
    CHECK(io_write_file(path, text, strlen(text), 0644, &why) == 0);
    free(text);
    local_conf_fini(&c);

    CHECK(local_conf_load(&c, path, &why) == 0 && local_conf_existed(&c));
    CHECK(local_conf_assign(&c, "replication=3", &why) == 0 && local_conf_write(&c, &why) == 0);
    local_conf_restore(&c);
    CHECK(io_read_file(path, 65536, &text, NULL, &why) == 0 && strcmp(text, c.old) == 0);
    free(text);
    local_conf_fini(&c);
    free(path);
    free(extra);
}

static void test_ports(void)
{
    struct sockaddr_in sa = { .sin_family = AF_INET };
    uint16_t port = local_free_ports(3);
    int fds[3];

    CHECK(port >= 10000);
    for (uint16_t i = 0; i < 3; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        sa.sin_port = htons((uint16_t)(port + i));
        sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        CHECK(bind(fds[i], (const struct sockaddr *)&sa, sizeof(sa)) == 0);
    }
    for (int i = 0; i < 3; i++) {
        close(fds[i]);
    }
}

int main(int argc, char **argv)
{
    const char *dir;
    char *sub;

    if (argc > 1) {
        return play_process(argc, argv);
    }
    dir = tap_tmp();
    sub = x_printf("%s/run", dir);
    mkdir(sub, 0755);
    free(sub);
    sub = x_printf("%s/log", dir);
    mkdir(sub, 0755);
    free(sub);
    tap_run("a process is remembered, found again and stopped", test_life);
    tap_run("a process id that belongs to somebody else is not ours", test_foreign_pid);
    tap_run("the log of the last start is shown", test_log_tail);
    tap_run("dfs.conf: keys are replaced, checked and restored", test_conf);
    tap_run("free ports are free", test_ports);
    return tap_done();
}
