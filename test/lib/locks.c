/* Locks for stories, as programs take them.
 *
 *   locks try|wait|hold KIND TYPE FILE [FIRST LEN]   KIND flock, fcntl or ofd; TYPE sh or ex
 *       try, wait: takes it and lets it go; exit 0, 1 when somebody else has it, 2 other errors
 *       hold: takes it (waiting), prints "held", keeps it until stdin ends
 *   locks get TYPE FILE FIRST LEN      prints what is in the way: "free" or "ex FIRST LEN PID"
 *   locks count KIND FILE N            N times: lock, read a number, write it plus 1, unlock
 *   locks circle FILE FIRST SECOND     locks byte FIRST, prints "first", waits for a line, then locks
 *                                      byte SECOND; prints "deadlock" or "both"
 *   locks rules FILE                   what closing, forking and sharing descriptors do to locks
 *   locks interrupt KIND FILE          waits for a lock with an alarm; prints "interrupted"
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "locks: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int open_rw(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0666);

    if (fd < 0) {
        die(path);
    }
    return fd;
}

/* type: F_RDLCK, F_WRLCK, F_UNLCK. */
static int lock(const char *kind, int fd, short type, bool wait, off_t first, off_t len)
{
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = first, .l_len = len };
    int op = type == F_UNLCK ? LOCK_UN : type == F_RDLCK ? LOCK_SH : LOCK_EX;

    if (strcmp(kind, "flock") == 0) {
        return flock(fd, op | (wait ? 0 : LOCK_NB));
    }
    if (strcmp(kind, "ofd") == 0) {
        return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &l);
    }
    return fcntl(fd, wait ? F_SETLKW : F_SETLK, &l);
}

static short type_of(const char *text)
{
    return strcmp(text, "sh") == 0 ? F_RDLCK : F_WRLCK;
}

static void say(const char *text)
{
    puts(text);
    fflush(stdout);
}

static int take(const char *verb, char **a, int n)
{
    off_t first = n > 3 ? atoll(a[3]) : 0, len = n > 4 ? atoll(a[4]) : 0;
    int fd = open_rw(a[2]);
    char c;

    if (lock(a[0], fd, type_of(a[1]), strcmp(verb, "try") != 0, first, len) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            return 1;
        }
        die("lock");
    }
    if (strcmp(verb, "hold") == 0) {
        say("held");
        while (read(0, &c, 1) > 0) {
        }
    }
    if (lock(a[0], fd, F_UNLCK, false, first, len) != 0) {
        die("unlock");
    }
    close(fd);
    return 0;
}

static int get(char **a)
{
    struct flock l = {
        .l_type = type_of(a[0]), .l_whence = SEEK_SET, .l_start = atoll(a[2]), .l_len = atoll(a[3])
    };
    int fd = open_rw(a[1]);

    if (fcntl(fd, F_GETLK, &l) != 0) {
        die("getlk");
    }
    if (l.l_type == F_UNLCK) {
        say("free");
    } else {
        printf("%s %lld %lld %d\n", l.l_type == F_RDLCK ? "sh" : "ex", (long long)l.l_start,
               (long long)l.l_len, (int)l.l_pid);
    }
    return 0;
}

static int count(const char *kind, const char *path, long n)
{
    int fd = open_rw(path);
    char text[24];

    for (long i = 0; i < n; i++) {
        ssize_t len;
        long v;

        if (lock(kind, fd, F_WRLCK, true, 0, 0) != 0) {
            die("lock");
        }
        len = pread(fd, text, sizeof(text) - 1, 0);
        if (len < 0) {
            die("read");
        }
        text[len] = '\0';
        v = atol(text) + 1;
        len = snprintf(text, sizeof(text), "%ld\n", v);
        if (pwrite(fd, text, (size_t)len, 0) != len) {
            die("write");
        }
        if (lock(kind, fd, F_UNLCK, false, 0, 0) != 0) {
            die("unlock");
        }
    }
    return close(fd) == 0 ? 0 : 2;
}

static int circle(char **a)
{
    int fd = open_rw(a[0]);
    char c;

    if (lock("fcntl", fd, F_WRLCK, true, atoll(a[1]), 1) != 0) {
        die("first");
    }
    say("first");
    while (read(0, &c, 1) == 1 && c != '\n') {
    }
    if (lock("fcntl", fd, F_WRLCK, true, atoll(a[2]), 1) == 0) {
        say("both");
        return 0;
    }
    if (errno != EDEADLK) {
        die("second");
    }
    say("deadlock");
    return 0;
}

/* ---- rules ---- */

static int bad;

static void check(const char *what, bool ok)
{
    if (!ok) {
        fprintf(stderr, "locks: not so: %s\n", what);
        bad = 1;
    }
}

/* Can another process lock the whole file? */
static bool is_free(const char *kind, const char *path)
{
    pid_t p = fork();
    int status = 0;

    if (p == 0) {
        _exit(lock(kind, open_rw(path), F_WRLCK, false, 0, 0) == 0 ? 0 : 1);
    }
    waitpid(p, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int rules(const char *path)
{
    int a = open_rw(path), b = open_rw(path), ro;
    pid_t p;

    check("a process's lock is taken", lock("fcntl", a, F_WRLCK, false, 0, 0) == 0);
    check("... and others see it", !is_free("fcntl", path));
    check("... and so do open file descriptions", !is_free("ofd", path));
    check("... flock does not", is_free("flock", path));
    check("the process itself has it by every descriptor",
          lock("fcntl", b, F_WRLCK, false, 5, 5) == 0);
    close(b);
    check("closing any descriptor of the file ends it", is_free("fcntl", path));

    ro = open(path, O_RDONLY);
    check("a lock for reading, by a descriptor for reading",
          lock("fcntl", ro, F_RDLCK, false, 0, 0) == 0);
    check("... is seen", !is_free("fcntl", path));
    close(ro);
    check("... and ends with it", is_free("fcntl", path));

    check("an open file's lock is taken", lock("ofd", a, F_WRLCK, false, 0, 0) == 0);
    b = open_rw(path);
    check("... another open file of this process does not have it",
          lock("ofd", b, F_WRLCK, false, 0, 0) != 0 && errno == EAGAIN);
    close(b);
    check("... and its end does not end it", !is_free("fcntl", path));
    b = dup(a);
    close(a);
    check("... nor does one of two descriptors", !is_free("fcntl", path));
    close(b);
    check("... the last one does", is_free("fcntl", path));

    a = open_rw(path);
    check("flock is taken", flock(a, LOCK_EX) == 0);
    p = fork();
    if (p == 0) { /* the same open file */
        _exit(flock(a, LOCK_EX | LOCK_NB) == 0 ? 0 : 1);
    }
    int status = 0;

    waitpid(p, &status, 0);
    check("... by a child as well", status == 0);
    check("... and not by others", !is_free("flock", path));
    check("... fcntl does not see it", is_free("fcntl", path));
    check("... it can become shared", flock(a, LOCK_SH) == 0);
    b = open_rw(path);
    check("... and be shared", flock(b, LOCK_SH | LOCK_NB) == 0);
    check("... then it is not exclusive", flock(a, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK);
    close(a);
    check("... until the other is gone", flock(b, LOCK_EX | LOCK_NB) == 0);
    close(b);
    check("closing ends it", is_free("flock", path));
    return bad;
}

static void on_alarm(int sig)
{
    (void)sig;
}

static int interrupt(const char *kind, const char *path)
{
    struct sigaction sa = { .sa_handler = on_alarm };
    int fd = open_rw(path);

    sigaction(SIGALRM, &sa, NULL);
    alarm(1);
    if (lock(kind, fd, F_WRLCK, true, 0, 0) == 0 || errno != EINTR) {
        die("not interrupted");
    }
    say("interrupted");
    return 0;
}

int main(int n, char **a)
{
    if (n >= 5 &&
        (strcmp(a[1], "try") == 0 || strcmp(a[1], "wait") == 0 || strcmp(a[1], "hold") == 0)) {
        return take(a[1], a + 2, n - 2);
    }
    if (n == 6 && strcmp(a[1], "get") == 0) {
        return get(a + 2);
    }
    if (n == 5 && strcmp(a[1], "count") == 0) {
        return count(a[2], a[3], atol(a[4]));
    }
    if (n == 5 && strcmp(a[1], "circle") == 0) {
        return circle(a + 2);
    }
    if (n == 3 && strcmp(a[1], "rules") == 0) {
        return rules(a[2]);
    }
    if (n == 4 && strcmp(a[1], "interrupt") == 0) {
        return interrupt(a[2], a[3]);
    }
    fprintf(stderr, "usage: see the source\n");
    return 2;
}
