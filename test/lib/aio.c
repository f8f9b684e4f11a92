/* aio FILE ROUNDS: writes that do not wait for each other (io_submit, O_DIRECT) beside a reader with
 * pages: what was complete when a read began is read. */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 16
#define BYTES 65536

#define NEED(x)                                                                              \
    do {                                                                                     \
        if (!(x)) {                                                                          \
            fprintf(stderr, "aio: line %d: %s: %s\n", __LINE__, #x, strerrorname_np(errno)); \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

static char got[COUNT * BYTES];

static void read_on(const char *path)
{
    int fd = open(path, O_RDONLY);

    NEED(fd >= 0);
    for (;;) {
        NEED(pread(fd, got, sizeof(got), 0) == (ssize_t)sizeof(got));
    }
}

static void write_all(aio_context_t ctx, int fd, char *buf)
{
    struct iocb cb[COUNT];
    struct iocb *list[COUNT];
    struct io_event ev[COUNT];

    for (int i = 0; i < COUNT; i++) {
        cb[i] = (struct iocb){ .aio_fildes = (uint32_t)fd,
                               .aio_lio_opcode = IOCB_CMD_PWRITE,
                               .aio_buf = (uint64_t)(uintptr_t)buf,
                               .aio_nbytes = BYTES,
                               .aio_offset = (int64_t)i * BYTES };
        list[i] = &cb[i];
    }
    NEED(syscall(SYS_io_submit, ctx, COUNT, list) == COUNT);
    NEED(syscall(SYS_io_getevents, ctx, COUNT, COUNT, ev, NULL) == COUNT);
    for (int i = 0; i < COUNT; i++) {
        NEED(ev[i].res == BYTES);
    }
}

int main(int argc, char **argv)
{
    aio_context_t ctx = 0;
    pid_t reader;
    char *buf;
    int fd, in;

    NEED(argc == 3 && syscall(SYS_io_setup, COUNT, &ctx) == 0);
    buf = aligned_alloc(4096, BYTES);
    fd = open(argv[1], O_RDWR | O_CREAT | O_DIRECT, 0644);
    in = open(argv[1], O_RDONLY);
    NEED(buf != NULL && fd >= 0 && in >= 0 && ftruncate(fd, sizeof(got)) == 0);
    reader = fork();
    if (reader == 0) {
        read_on(argv[1]);
    }
    for (int round = 1; round <= atoi(argv[2]); round++) {
        memset(buf, 'a' + round % 26, BYTES);
        write_all(ctx, fd, buf);
        NEED(pread(in, got, sizeof(got), 0) == (ssize_t)sizeof(got));
        for (size_t i = 0; i < sizeof(got); i += 512) {
            if (got[i] != buf[0]) {
                fprintf(stderr, "aio: round %d: byte %zu is old\n", round, i);
                (void)kill(reader, SIGKILL);
                return 1;
            }
        }
    }
    NEED(kill(reader, SIGKILL) == 0 && waitpid(reader, NULL, 0) == reader);
    return 0;
}
