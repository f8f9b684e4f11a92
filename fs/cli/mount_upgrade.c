/* dfs mount --upgrade DIR */
#include "fs/cli/mount_upgrade.h"

#include <signal.h>
#include <sys/xattr.h>
#include <time.h>

#include "cluster/base/clock.h"

#include "fs/mount/mount.h"

#define WAIT_MS \
    90000 /* client.timeout for what is under way, and again for what is not written yet */
#define PAUSE_MS 20
#define TEXT_MAX 64

/* "" when it is not told. */
static void ask(const char *dir, const char *name, char ret[TEXT_MAX])
{
    ssize_t n = getxattr(dir, name, ret, TEXT_MAX - 1);

    ret[n > 0 ? n : 0] = '\0';
}

int mount_upgrade(struct cli *cli, const char *dir)
{
    const struct timespec pause = { .tv_nsec = PAUSE_MS * NS_PER_MS };
    uint64_t deadline = clock_mono_ms() + WAIT_MS;
    char before[TEXT_MAX], now[TEXT_MAX], version[TEXT_MAX];
    long pid;

    ask(dir, MOUNT_XATTR_PID, before);
    pid = strtol(before, NULL, 10);
    if (pid <= 0) {
        return cli_error(cli, "%s: no dfs is mounted there that can be upgraded in place", dir);
    }
    if (kill((pid_t)pid, SIGUSR2) != 0) {
        return cli_error(cli, "%s: process %ld: %s", dir, pid, strerror(errno));
    }
    do {
        (void)nanosleep(&pause, NULL);
        ask(dir, MOUNT_XATTR_PID, now);
    } while ((now[0] == '\0' || strcmp(now, before) == 0) && clock_mono_ms() < deadline);
    if (now[0] == '\0' || strcmp(now, before) == 0) {
        return cli_error(cli, "%s: process %ld serves on; its log tells why", dir, pid);
    }
    ask(dir, MOUNT_XATTR_VERSION, version);
    printf("%s: dfs %s, process %s\n", dir, version, now);
    return CLI_DONE;
}
