/* flip COUNT SEED FILE...: flips one bit each in COUNT replica files, in the header, in sums or in
 * data, and prints the paths. Files of the same name are copies of the same block: one copy of each
 * stays as it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 4096
#define GROUP  (4 << 20)

static uint64_t state;

static uint64_t rnd(uint64_t n)
{
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t v = state;

    v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (v ^ (v >> 31)) % n;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* A third each: header, sums, data. */
static uint64_t place(uint64_t size)
{
    uint64_t kind = rnd(3);

    if (kind == 0 || size <= 2 * HEADER) {
        return rnd(HEADER);
    }
    return kind == 1 ? HEADER + rnd(HEADER)
                     : 2 * HEADER + rnd((size > GROUP ? GROUP : size) - 2 * HEADER);
}

static void flip(const char *path)
{
    int fd = open(path, O_RDWR);
    struct stat st;
    uint64_t at;
    uint8_t b;

    if (fd < 0 || fstat(fd, &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    at = place((uint64_t)st.st_size);
    if (pread(fd, &b, 1, (off_t)at) != 1) {
        fprintf(stderr, "%s: cannot read at %ju\n", path, (uintmax_t)at);
        exit(1);
    }
    b ^= (uint8_t)(1u << rnd(8));
    if (pwrite(fd, &b, 1, (off_t)at) != 1) {
        fprintf(stderr, "%s: cannot write at %ju\n", path, (uintmax_t)at);
        exit(1);
    }
    close(fd);
    fprintf(stderr, "%s: a bit of byte %ju\n", path, (uintmax_t)at);
    printf("%s\n", path);
}

int main(int argc, char **argv)
{
    int count = argc > 3 ? atoi(argv[1]) : 0;
    int n = argc - 3;
    char **files = argv + 3;
    char *hit = calloc((size_t)(n > 0 ? n : 1), 1);

    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    for (long tries = 0; count > 0 && tries < 1000000; tries++) {
        int i = (int)rnd((uint64_t)n);
        int left = 0;

        for (int k = 0; k < n; k++) {
            left += !hit[k] && strcmp(name_of(files[k]), name_of(files[i])) == 0;
        }
        if (!hit[i] && left > 1) {
            hit[i] = 1;
            flip(files[i]);
            count--;
        }
    }
    if (count > 0) {
        fprintf(stderr, "too few copies to damage\n");
    }
    free(hit);
    return count > 0;
}
