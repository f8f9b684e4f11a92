/* The file: u64 index, u64 its complement, little-endian. */
#include "cluster/node/raft_reached.h"

#include <fcntl.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/wire/wire.h"

#define NAME  "reached"
#define BYTES 16

static uint64_t decode(struct slice file)
{
    struct wire_in in = wire_in_of(file);
    uint64_t index = wire_get_u64(&in);
    uint64_t complement = wire_get_u64(&in);

    return in.err == 0 && in.left == 0 && index == ~complement ? index : 0;
}

static void encode(uint64_t index, uint8_t ret[BYTES])
{
    struct wire_out out = wire_out_over(ret, BYTES);

    wire_put_u64(&out, index);
    wire_put_u64(&out, ~index);
}

int raft_reached_read(const char *dir, uint64_t *ret, struct why *why)
{
    char *path = x_printf("%s/" NAME, dir);
    char *text = NULL;
    size_t len = 0;
    int err = io_read_file(path, BYTES, &text, &len, why);

    *ret = err == DFS_OK ? decode(slice_of(text, len)) : 0;
    free(text);
    free(path);
    return err == DFS_ENOENT || err == DFS_ETOOBIG ? DFS_OK : err;
}

int raft_reached_open(struct raft_reached *r, const char *dir, struct why *why)
{
    char *path = x_printf("%s/" NAME, dir);
    uint8_t bytes[BYTES];
    int err = raft_reached_read(dir, &r->index, why);

    r->fd = -1;
    if (err == DFS_OK && r->index == 0) {
        encode(0, bytes);
        err = io_write_file(path, bytes, sizeof(bytes), 0600, why);
    }
    if (err == DFS_OK) {
        r->fd = open(path, O_WRONLY | O_CLOEXEC);
        if (r->fd < 0) {
            err = why_set(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
        }
    }
    free(path);
    return err;
}

void raft_reached_close(struct raft_reached *r)
{
    io_close(r->fd);
    r->fd = -1;
}

void raft_reached_set(struct raft_reached *r, uint64_t index)
{
    uint8_t bytes[BYTES];

    if (index > r->index) {
        r->index = index;
        encode(index, bytes);
        (void)io_pwrite(r->fd, bytes, sizeof(bytes), 0);
    }
}
