/* What the kernel is told in answer to its greeting that libfuse 3.14 knows nothing of.
 *
 * FUSE_PARALLEL_DIROPS: several look-ups and listings of one directory at a time. libfuse knows it and
 * forgets to say so; without it one that waits for a master holds up all others, listing the root too.
 *
 * FUSE_DIRECT_IO_ALLOW_MMAP: files that are opened to append are written past the kernel's pages; it
 * lets programs map them all the same, and keeps both together. Kernels before 6.6 refuse.
 */
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/mount/internal.h"

#define DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#define WANTED               (DIRECT_IO_ALLOW_MMAP | FUSE_PARALLEL_DIROPS)

static uint64_t offered(const void *greeting, size_t len)
{
    struct fuse_in_header hdr;
    struct fuse_init_in in;

    if (len < sizeof(hdr) + sizeof(in)) {
        return 0; /* of a kernel that is older than the second word of flags */
    }
    memcpy(&in, (const uint8_t *)greeting + sizeof(hdr), sizeof(in));
    return (in.flags & FUSE_INIT_EXT) != 0 ? (uint64_t)in.flags2 << 32 | in.flags : in.flags;
}

ssize_t init_ext_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    struct mount *m = userdata;
    uint64_t flags = m->init_flags;

    if (flags == 0) {
        return writev(fd, iov, count);
    }
    if (count == 2 && iov[1].iov_len >= sizeof(struct fuse_init_out)) {
        struct fuse_init_out *out = iov[1].iov_base;

        out->flags |= FUSE_INIT_EXT | (uint32_t)flags;
        out->flags2 |= (uint32_t)(flags >> 32);
    }
    m->init_flags = 0; /* the first answer is the one to the greeting; workers come later */
    return writev(fd, iov, count);
}

void init_ext_start(struct mount *m, const void *greeting, size_t len)
{
    m->init_flags = offered(greeting, len) & WANTED;
}
