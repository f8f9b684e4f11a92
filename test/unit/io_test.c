#include "cluster/base/io.h"

#include <dirent.h>
#include <fcntl.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"

#include "test/unit/tap.h"

/* A path below the test's directory; good until the next call but three. */
static const char *at(const char *name)
{
    static char path[4][300];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", tap_tmp(), name);
    return path[turn];
}

static bool holds(const char *path, const char *want)
{
    char *text;
    bool same;

    if (io_read_file(path, 1000, &text, NULL, NULL) != 0) {
        return false;
    }
    same = strcmp(text, want) == 0;
    free(text);
    return same;
}

static void bytes_come_back_whole(void)
{
    int fd = open(at("data"), O_RDWR | O_CREAT, 0600);
    char buf[20] = "";
    size_t n = 0;

    CHECK_INT(io_pwrite(fd, "0123456789", 10, 5), 0);
    CHECK_INT(io_pread(fd, buf, 10, 5), 0);
    CHECK(memcmp(buf, "0123456789", 10) == 0);
    CHECK_INT(io_pread(fd, buf, 11, 5), DFS_EIO);
    CHECK_INT(io_pread_some(fd, buf, 20, 5, &n), 0);
    CHECK_INT(n, 10);
    CHECK_INT(io_pread_some(fd, buf, 20, 100, &n), 0);
    CHECK_INT(n, 0);
    CHECK_INT(io_fsync(fd), 0);
    CHECK_INT(io_fdatasync(fd), 0);
    io_close(fd);
    io_close(-1);
    CHECK(io_pwrite(-1, "x", 1, 0) != 0 && io_pread(-1, buf, 1, 0) != 0 && io_fsync(-1) != 0);
}

static void a_full_disk_is_said_to_be_full(void)
{
    int fd = open("/dev/full", O_WRONLY);

    CHECK_INT(io_write(fd, "x", 1), DFS_ENOSPC);
    io_close(fd);
}

static void a_pipe_is_read_to_the_end(void)
{
    char buf[10];
    size_t n = 0;
    int p[2];

    CHECK_INT(pipe(p), 0);
    CHECK_INT(io_write(p[1], "abc", 3), 0);
    CHECK_INT(io_write(p[1], "def", 3), 0);
    close(p[1]);
    CHECK_INT(io_read(p[0], buf, 2), 0);
    CHECK_INT(io_read_some(p[0], buf, sizeof(buf), &n), 0);
    CHECK_INT(n, 4);
    CHECK_INT(io_read(p[0], buf, 1), DFS_EIO);
    close(p[0]);
}

static void small_files_are_read(void)
{
    char *text = NULL;
    size_t len = 0;
    struct why why = { "" };

    CHECK_INT(io_write_file(at("f"), "12345", 5, 0640, &why), 0);
    CHECK_INT(io_read_file(at("f"), 5, &text, &len, &why), 0);
    CHECK(len == 5 && memcmp(text, "12345", 6) == 0);
    free(text);
    text = NULL;
    CHECK_INT(io_read_file(at("f"), 4, &text, &len, &why), DFS_ETOOBIG);
    CHECK(strstr(why.text, "/f: longer than 4 bytes") != NULL);
    CHECK_INT(io_read_file(at("none"), 4, &text, &len, &why), DFS_ENOENT);
    CHECK(strstr(why.text, "/none: No such file or directory") != NULL);
    CHECK_INT(io_read_file(tap_tmp(), 4, &text, &len, &why), DFS_EISDIR);
    CHECK(text == NULL);
    CHECK_INT(io_read_file("/proc/self/comm", 100, &text, &len, &why), 0);
    CHECK(len > 0);
    free(text);
}

static size_t entries(const char *path)
{
    DIR *d = opendir(path);
    size_t n = 0;

    while (d != NULL && readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n - 2;
}

static void a_file_is_replaced_or_left_alone(void)
{
    static const char *const faults[] = { "io.file.fsync=IO", "io.file.rename=NOSPC" };
    struct why why = { "" };

    CHECK_INT(io_mkdir_p(at("atomic"), 0755, &why), 0);
    CHECK_INT(io_write_file(at("atomic/f"), "old", 3, 0644, &why), 0);
    for (size_t i = 0; i < ARRAY_LEN(faults) && FAULTS_BUILT_IN; i++) {
        CHECK_INT(fault_arm(faults[i], NULL), 0);
        CHECK(io_write_file(at("atomic/f"), "new", 3, 0644, &why) != 0);
        CHECK(strstr(why.text, "/atomic/f") != NULL);
        CHECK_INT(fault_arm("", NULL), 0);
        CHECK(holds(at("atomic/f"), "old"));
        CHECK_INT(entries(at("atomic")), 1); /* no temporary file is left */
    }
    CHECK_INT(io_write_file(at("atomic/f"), "newer", 5, 0644, &why), 0);
    CHECK(holds(at("atomic/f"), "newer"));
    CHECK_INT(io_write_file(at("no/such/dir"), "x", 1, 0644, &why), DFS_ENOENT);
}

static void directories_are_made_with_their_parents(void)
{
    struct why why = { "" };

    CHECK_INT(io_mkdir_p(at("a//b/c/"), 0755, &why), 0);
    CHECK_INT(io_mkdir_p(at("a/b/c"), 0755, &why), 0);
    CHECK_INT(io_write_file(at("a/file"), "", 0, 0644, &why), 0);
    CHECK_INT(io_mkdir_p(at("a/file/x"), 0755, &why), DFS_ENOTDIR);
    CHECK_INT(io_mkdir_p(at("a/file"), 0755, &why), DFS_ENOTDIR);
    CHECK_INT(io_mkdir_p("", 0755, &why), DFS_EINVAL);
    CHECK_INT(io_sync_parent(at("a/file"), &why), 0);
    CHECK_INT(io_sync_dir(at("a/none"), &why), DFS_ENOENT);
}

static void a_lock_is_held_once(void)
{
    struct why why = { "" };
    int a = -1, b = -1;

    CHECK_INT(io_lock_file(at("lock"), &a, &why), 0);
    CHECK_INT(io_lock_file(at("lock"), &b, &why), DFS_EBUSY);
    CHECK(strstr(why.text, "/lock: locked by another process") != NULL && b == -1);
    io_close(a);
    CHECK_INT(io_lock_file(at("lock"), &b, &why), 0);
    io_close(b);
}

int main(void)
{
    tap_run("bytes come back whole", bytes_come_back_whole);
    tap_run("a full disk is said to be full", a_full_disk_is_said_to_be_full);
    tap_run("a pipe is read to the end", a_pipe_is_read_to_the_end);
    tap_run("small files are read", small_files_are_read);
    tap_run("a file is replaced or left alone", a_file_is_replaced_or_left_alone);
    tap_run("directories are made with their parents", directories_are_made_with_their_parents);
    tap_run("a lock is held once", a_lock_is_held_once);
    return tap_done();
}
