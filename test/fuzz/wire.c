/* Every decoder on any bytes: it fails cleanly, or what it read encodes to the same bytes again. */
#include "cluster/base/base.h"

#include "cluster/wire/frame.h"

#include "test/wire/codecs.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static void one_codec(const struct codec *c, struct slice in)
{
    struct wire_out out;

    wire_out_init(&out, LIMIT_MSG);
    if (c->again(in, &out) == 0) {
        ASSERT(out.len <= in.len);
        ASSERT(memcmp(out.p, in.p, out.len) == 0);
    }
    wire_out_fini(&out);
}

static void frame(struct slice in)
{
    uint8_t again[FRAME_HEADER_BYTES];
    struct frame f;

    if (in.len < FRAME_HEADER_BYTES || frame_header_get(in.p, &f) != 0) {
        return;
    }
    if (f.msg_len <= in.len - FRAME_HEADER_BYTES) {
        struct slice msg = slice_of(in.p + FRAME_HEADER_BYTES, f.msg_len);

        frame_header_put(again, &f, msg);
        ASSERT(memcmp(again, in.p, 28) == 0);
        ASSERT((frame_check(in.p, msg) == 0) == (memcmp(again + 28, in.p + 28, 4) == 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    struct slice in = slice_of(p, len);

    frame(in);
    for (size_t i = 0; i < codec_count; i++) {
        one_codec(&codecs[i], in);
    }
    return 0;
}
