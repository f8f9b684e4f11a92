/* Any bytes as a replica file: it is refused, or it becomes a replica whose sums hold and that is
 * found the same a second time. And any text as an identity file.
 *
 * Input: one byte of flags, then the text, or: the header record, two sync marks, eight sums, data.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "replication/store/identity.h"
#include "replication/store/recover.h"

#define FLAG_IDENTITY 1 /* text */
#define FLAG_SUMS     2 /* put right sums to header and marks: what lies behind them is reached */
#define SUMS          8u

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static void identity(const uint8_t *p, size_t len)
{
    char *text = x_strndup((const char *)p, len);
    struct identity id = { 0 };
    struct why why = { "" };

    if (identity_parse(text, &id, &why) != 0) {
        ASSERT(why.text[0] != '\0');
    }
    identity_fini(&id);
    free(text);
}

static void right_sum(uint8_t *record, size_t len)
{
    uint32_t sum = crc32c(0, record, len);

    memcpy(record + len, &sum, sizeof(sum));
}

/* Up to n bytes of the input to a place in the file; zeros where the input has ended. */
static void place(int fd, uint64_t at, size_t n, bool sum, struct slice *in)
{
    uint8_t part[LAYOUT_RECORD_BYTES] = { 0 };
    size_t have = MIN(n, in->len);

    ASSERT(n <= sizeof(part));
    memcpy(part, in->p, have);
    in->p += have;
    in->len -= have;
    if (sum) {
        right_sum(part, n - 4);
    }
    ASSERT(io_pwrite(fd, part, n, at) == 0);
}

static void check(int fd, const struct recovered *f, uint64_t block)
{
    struct recovered again;

    ASSERT(f->state == RULE_OPEN || f->state == RULE_SEALED);
    ASSERT(f->len <= LAYOUT_REPLICA_MAX);
    if (f->state == RULE_SEALED && f->durable) {
        return;
    }
    ASSERT(recover_replica(fd, block, NULL, &again) == 0);
    ASSERT(again.len == f->len && again.tail_sum == f->tail_sum && again.cut == 0);
}

static void file(bool sums, struct slice in)
{
    struct recovered f;
    uint64_t block = 0;
    int fd = memfd_create("replica", MFD_CLOEXEC);

    ASSERT(fd >= 0);
    if (in.len >= 40) {
        memcpy(&block, in.p + 32, sizeof(block));
    }
    place(fd, 0, LAYOUT_RECORD_BYTES, sums, &in);
    place(fd, layout_mark_at(0), LAYOUT_MARK_BYTES, sums, &in);
    place(fd, layout_mark_at(1), LAYOUT_MARK_BYTES, sums, &in);
    place(fd, layout_sum_at(0), (size_t)SUMS * 4, false, &in);
    if (in.len != 0) {
        ASSERT(io_pwrite(fd, in.p, in.len, layout_data_at(0)) == 0);
    }
    if (recover_replica(fd, block, NULL, &f) == 0 && f.verdict == RECOVER_KEEP) {
        check(fd, &f, block);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    if (len == 0) {
        return 0;
    }
    if ((p[0] & FLAG_IDENTITY) != 0) {
        identity(p + 1, len - 1);
    } else {
        file((p[0] & FLAG_SUMS) != 0, slice_of(p + 1, len - 1));
    }
    return 0;
}
