/* What is read back from the database: each decoder fails cleanly, or what it read is written the same. */
#include "cluster/base/base.h"

#include "cluster/store/checkpoint.h"

#include "replication/map/mapdb.h"

#include "fs/ns/ns_core.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static void block_records(struct slice in)
{
    struct block_rec block;
    struct server_rec server;
    struct wire_out out;

    wire_out_init(&out, LIMIT_MSG);
    if (block_rec_get(in, &block) == 0) {
        block_rec_put(&out, &block);
        ASSERT(slice_eq(wire_out_slice(&out), in));
    }
    wire_out_reset(&out);
    if (server_rec_get(in, &server) == 0) {
        server_rec_put(&out, &server); /* an old record gets the newer fields */
        ASSERT(out.len >= in.len && memcmp(out.p, in.p, in.len) == 0);
    }
    wire_out_fini(&out);
}

static void names(struct slice in)
{
    struct slice key = slice_of(in.p, MIN(in.len, (size_t)16));
    struct attr a;
    struct ns_dentry d;
    struct extent e;
    uint64_t ino;
    struct wire_out out;

    wire_out_init(&out, LIMIT_MSG);
    if (ns_inode_decode(in, 1, &a) == 0) {
        ns_inode_encode(&out, &a); /* an old record gets the newer fields */
        ASSERT(out.len >= in.len && memcmp(out.p, in.p, in.len) == 0);
    }
    wire_out_fini(&out);
    (void)ns_dentry_decode(in, &d);
    (void)ns_extent_decode(key, slice_of(in.p + key.len, in.len - key.len), &ino, &e);
    (void)ns_name_check(in);
}

static void whole_database(struct slice in)
{
    struct checkpoint c = { 0 };
    struct ns_state state;
    struct wire_out out;

    wire_out_init(&out, LIMIT_MSG);
    if (ns_state_decode(in, &state) == 0) {
        ns_state_encode(&out, &state);
        ASSERT(out.len == in.len);
    }
    wire_out_fini(&out);
    if (checkpoint_decode(in, &c) == 0) {
        checkpoint_fini(&c);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static const uint8_t nothing[1];
    struct slice in = slice_of(len > 0 ? p : nothing, len);

    block_records(in);
    names(in);
    whole_database(in);
    return 0;
}
