/* The bytes of every message, recorded: a change that old programs would not understand is seen. */
#include "cluster/wire/wire.h"

#include "cluster/base/io.h"
#include "cluster/wire/frame.h"

#include "test/unit/tap.h"
#include "test/wire/codecs.h"

#define GOLDEN "test/golden/wire.txt"

/* "name: hex bytes", one a line; to be freed. */
static char *all_bytes(void)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    for (size_t i = 0; i < codec_count; i++) {
        struct wire_out out;

        wire_out_init(&out, LIMIT_MSG);
        codecs[i].fill(&out);
        CHECK_INT(out.err, 0);
        fprintf(to, "%04x %s: ", codecs[i].id, codecs[i].name);
        for (size_t k = 0; k < out.len; k++) {
            fprintf(to, "%02x", out.p[k]);
        }
        fprintf(to, "\n");
        wire_out_fini(&out);
    }
    fclose(to);
    return text;
}

/* Says what became of one recorded line. */
static void compare_line(const char *line, size_t len, const char *now)
{
    size_t name = strcspn(line, ":");
    const char *p = now;

    while (p != NULL && strncmp(p, line, name + 1) != 0) {
        p = strchr(p, '\n');
        p = p != NULL ? p + 1 : NULL;
    }
    if (p == NULL) {
        printf("# %.*s is gone\n", (int)name, line);
    } else if (strncmp(p, line, len) != 0) {
        printf("# %.*s: earlier fields have changed\n", (int)name, line);
    } else if (p[len] != '\n') {
        printf("# %.*s: fields were appended\n", (int)name, line);
    }
}

static void messages_have_the_recorded_bytes(void)
{
    char *want = NULL;
    char *now = all_bytes();

    CHECK_INT(io_read_file(GOLDEN, 1 << 20, &want, NULL, NULL), 0);
    if (want != NULL && strcmp(want, now) != 0) {
        for (const char *p = want; *p != '\0'; p += strcspn(p, "\n") + 1) {
            compare_line(p, strcspn(p, "\n"), now);
        }
        CHECK(!"the recorded bytes; if the change is meant: make golden");
    }
    free(want);
    free(now);
}

static void messages_are_decoded_to_what_was_encoded(void)
{
    for (size_t i = 0; i < codec_count; i++) {
        struct wire_out out, again;

        wire_out_init(&out, LIMIT_MSG);
        wire_out_init(&again, LIMIT_MSG);
        codecs[i].fill(&out);
        CHECK_INT(codecs[i].again(wire_out_slice(&out), &again), 0);
        CHECK(slice_eq(wire_out_slice(&out), wire_out_slice(&again)));
        wire_out_fini(&out);
        wire_out_fini(&again);
    }
}

static void messages_cut_at_any_length_are_refused(void)
{
    for (size_t i = 0; i < codec_count; i++) {
        struct wire_out out, again;

        wire_out_init(&out, LIMIT_MSG);
        wire_out_init(&again, LIMIT_MSG);
        codecs[i].fill(&out);
        for (size_t len = 0; len < out.len; len++) {
            uint8_t *cut = x_alloc(len); /* so that a read beyond the end is seen */

            memcpy(cut, out.p, len);
            CHECK_INT(codecs[i].again(slice_of(cut, len), &again), DFS_EMALFORMED);
            free(cut);
        }
        CHECK_INT(again.len, 0);
        wire_out_fini(&out);
        wire_out_fini(&again);
    }
}

static void longer_messages_are_read_by_older_programs(void)
{
    for (size_t i = 0; i < codec_count; i++) {
        struct wire_out out, again;

        wire_out_init(&out, LIMIT_MSG);
        wire_out_init(&again, LIMIT_MSG);
        codecs[i].fill(&out);
        wire_put_u64(&out, 7);
        CHECK_INT(codecs[i].again(wire_out_slice(&out), &again), 0);
        CHECK_INT(again.len, out.len - 8);
        wire_out_fini(&out);
        wire_out_fini(&again);
    }
}

static void ids_are_used_once_and_by_their_layer(void)
{
    for (size_t i = 0; i < codec_count; i++) {
        CHECK(codecs[i].id == 0 || (codecs[i].id >= 0x100 && codecs[i].id < 0x400));
        for (size_t k = 0; k < i; k++) {
            CHECK(strcmp(codecs[i].name, codecs[k].name) != 0);
            CHECK(codecs[i].id == 0 || codecs[i].id != codecs[k].id || k == i - 1);
        }
    }
}

static void lists_that_lie_are_refused(void)
{
    struct wire_out out;
    struct wire_in in;

    wire_out_init(&out, 100);
    wire_put_u32(&out, 5); /* five items in three bytes */
    wire_put_bytes(&out, slice_str("abc"));
    in = wire_in_of(wire_out_slice(&out));
    wire_get_list(&in);
    CHECK_INT(in.err, DFS_EMALFORMED);
    CHECK_INT(wire_get_u8(&in), 0); /* sticky */
    wire_out_fini(&out);
}

static void buffers_stop_at_their_ceiling(void)
{
    struct wire_out out;

    wire_out_init(&out, 10);
    wire_put_u64(&out, 1);
    CHECK_INT(out.err, 0);
    wire_put_u32(&out, 1);
    CHECK_INT(out.err, DFS_ETOOBIG);
    wire_put_u8(&out, 1); /* would fit, but what comes before it is missing */
    CHECK_INT(out.len, 8);
    wire_out_reset(&out);
    wire_put_bytes(&out, slice_str("abcdef"));
    CHECK_INT(out.err, 0);
    wire_out_fini(&out);
}

static void frames_are_checked_before_they_are_believed(void)
{
    struct slice msg = slice_str("message");
    struct frame f = { .type = 0x301,
                       .flags = FRAME_REPLY,
                       .status = 5,
                       .msg_len = 7,
                       .data_len = 9,
                       .req_id = UINT64_C(0x1122334455667788) };
    struct frame got = { 0 };
    uint8_t h[FRAME_HEADER_BYTES], bad[FRAME_HEADER_BYTES];

    frame_header_put(h, &f, msg);
    CHECK_INT(frame_header_get(h, &got), 0);
    CHECK(got.type == f.type && got.flags == f.flags && got.status == 5 && got.msg_len == 7);
    CHECK(got.data_len == 9 && got.req_id == f.req_id);
    CHECK_INT(frame_check(h, msg), 0);
    for (size_t i = 0; i < sizeof(h); i++) {
        memcpy(bad, h, sizeof(h));
        bad[i] ^= 0x10;
        CHECK(frame_header_get(bad, &got) != 0 || frame_check(bad, msg) == DFS_ECHECKSUM);
    }
    CHECK_INT(frame_check(h, slice_str("massage")), DFS_ECHECKSUM);
    f.msg_len = LIMIT_MSG + 1;
    memcpy(bad, h, sizeof(h));
    bad[15] = 0xff; /* a message of gigabytes */
    CHECK_INT(frame_header_get(bad, &got), DFS_ETOOBIG);
    memcpy(bad, h, sizeof(h));
    bad[19] = 0xff;
    CHECK_INT(frame_header_get(bad, &got), DFS_ETOOBIG);
}

static int renew(void)
{
    char *now = all_bytes();
    struct why why;
    int err = io_write_file(GOLDEN, now, strlen(now), 0644, &why);

    free(now);
    if (err != 0) {
        fprintf(stderr, "%s\n", why.text);
    }
    return err != 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--renew") == 0) {
        return renew();
    }
    tap_run("messages have the recorded bytes", messages_have_the_recorded_bytes);
    tap_run("messages are decoded to what was encoded", messages_are_decoded_to_what_was_encoded);
    tap_run("messages cut at any length are refused", messages_cut_at_any_length_are_refused);
    tap_run("longer messages are read by older programs",
            longer_messages_are_read_by_older_programs);
    tap_run("ids are used once and by their layer", ids_are_used_once_and_by_their_layer);
    tap_run("lists that lie are refused", lists_that_lie_are_refused);
    tap_run("buffers stop at their ceiling", buffers_stop_at_their_ceiling);
    tap_run("frames are checked before they are believed",
            frames_are_checked_before_they_are_believed);
    return tap_done();
}
