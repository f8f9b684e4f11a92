/* Any commands and questions to the metadata state machine: they are answered, with success or an
 * error; the database is never called damaged.
 *
 * The input is a sequence of [type, 2 bytes][length, 1 byte][request]. Each input
 * meets the same small state: the root, a session, two block servers and two allocated blocks. */
#include "fs/ns/ns.h"

#include "cluster/base/base.h"

#include <sys/stat.h>
#include <unistd.h>

#define COMMANDS_MAX 64
#define MAP_BYTES    (UINT64_C(64) << 20)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

enum kind { KIND_QUERY, KIND_COMMAND, KIND_LOG, KIND_BLOCK, KIND_CONTROL, KIND_ANY };

static const struct {
    uint16_t type;
    enum kind kind;
} rows[] = {
#define REC(name)
#define F(type, field)
#define END_REC(name)
#define RPC(name, id, kind) { id, KIND_##kind },
#define ARG(type, field)
#define RET(type, field)
#define END(name)
#include "replication/rpc.def"

#include "fs/rpc.def"
#undef REC
#undef F
#undef END_REC
#undef RPC
#undef ARG
#undef RET
#undef END
};

struct run {
    struct ns *ns;
    uint64_t index;
    uint64_t session;
    uint64_t seq;
    struct wire_out batch;
    uint32_t count;
};

static void answered(void *arg, uint32_t i, int status, struct slice reply)
{
    struct run *r = arg;
    struct session_open_rep rep;

    ASSERT(status != DFS_EDAMAGED);
    if (r->session == 0 && i == 1) { /* the second command of the first batch */
        ASSERT(status == 0 && session_open_rep_get(reply, &rep) == 0);
        r->session = rep.session;
    }
}

static void begin(struct run *r)
{
    const struct ns_batch_head head = {
        .now_ns = (int64_t)r->index + 1,
        .repl_default = 2,
        .lease_ms = 1000,
        .block_size = 1 << 20,
    };

    wire_out_reset(&r->batch);
    ns_batch_begin(&r->batch, &head);
    r->count = 0;
}

/* Two servers for each of two blocks. */
static void choose(struct wire_out *ret)
{
    struct wire_out nodes, choices;
    struct block_choice c;

    wire_out_init(&nodes, 1000);
    wire_out_init(&choices, 1000);
    node_ref_put(&nodes, &(struct node_ref){ .node = 1 });
    node_ref_put(&nodes, &(struct node_ref){ .node = 2 });
    c.nodes = wire_out_list(&nodes, 2);
    block_choice_put(&choices, &c);
    block_choice_put(&choices, &c);
    wire_put_list(ret, wire_out_list(&choices, 2));
    wire_out_fini(&nodes);
    wire_out_fini(&choices);
}

static void add(struct run *r, uint16_t type, bool from_client, struct slice msg)
{
    struct wire_out hdr, choice;
    struct ns_command cmd = { .type = type, .msg = msg };

    wire_out_init(&hdr, 1000);
    wire_out_init(&choice, 1000);
    if (from_client) {
        call_hdr_put(&hdr, &(struct call_hdr){ .session = r->session, .seq = ++r->seq });
        cmd.hdr = wire_out_slice(&hdr);
    }
    if (type == RPC_block_alloc) {
        choose(&choice);
        cmd.choice = wire_out_slice(&choice);
    }
    ns_batch_add(&r->batch, &cmd);
    r->count++;
    wire_out_fini(&hdr);
    wire_out_fini(&choice);
}

static void apply(struct run *r)
{
    struct why why = { "" };

    ns_batch_end(&r->batch, r->count);
    if (ns_apply(r->ns, ++r->index, wire_out_slice(&r->batch), answered, r, &why) != 0) {
        fprintf(stderr, "ns_apply: %s\n", why.text);
        abort();
    }
}

#define ADD(r, name, from_client, ...)                              \
    do {                                                            \
        struct wire_out msg_;                                       \
        wire_out_init(&msg_, 1000);                                 \
        name##_req_put(&msg_, &(struct name##_req){ __VA_ARGS__ }); \
        add((r), RPC_##name, (from_client), wire_out_slice(&msg_)); \
        wire_out_fini(&msg_);                                       \
    } while (0)

static void small_state(struct run *r)
{
    begin(r);
    ADD(r, ns_init, false, .cluster = slice_str("0123456789abcdef"));
    ADD(r, session_open, true, .host = slice_str("h"), .name = slice_str("n"));
    ADD(r, map_server, false, .uuid = slice_str("0123456789abcdef"), .addr = slice_str("a:1"));
    ADD(r, map_server, false, .uuid = slice_str("0123456789abcdeg"), .addr = slice_str("b:1"));
    apply(r);
    begin(r);
    ADD(r, block_alloc, true, .want = 2, .kind = BLOCK_STREAM, .count = 2);
    apply(r);
}

/* The row of a type; some row for any other number. */
static size_t row_of(unsigned int type)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].type == type) {
            return i;
        }
    }
    return type % ARRAY_LEN(rows);
}

/* Reads one request off the input; false at the end. */
static bool next(struct slice *in, size_t *ret_row, struct slice *ret_msg)
{
    size_t len;

    if (in->len < 3) {
        return false;
    }
    *ret_row = row_of(in->p[0] | (unsigned int)in->p[1] << 8);
    len = MIN((size_t)in->p[2], in->len - 3);
    *ret_msg = slice_of(in->p + 3, len);
    *in = slice_of(in->p + 3 + len, in->len - 3 - len);
    return true;
}

static void commands(struct run *r, struct slice in)
{
    struct slice msg;
    size_t row;

    begin(r);
    while (r->count < COMMANDS_MAX && next(&in, &row, &msg)) {
        if (rows[row].kind == KIND_COMMAND || rows[row].kind == KIND_LOG) {
            add(r, rows[row].type, rows[row].kind == KIND_COMMAND, msg);
        }
    }
    apply(r);
}

static void questions(struct run *r, struct slice in)
{
    struct ns_reader *reader = ns_reader_new(r->ns);
    struct call_hdr hdr = { .session = r->session };
    struct wire_out rep;
    struct slice msg;
    size_t row;

    wire_out_init(&rep, LIMIT_MSG);
    while (next(&in, &row, &msg)) {
        if (rows[row].kind == KIND_QUERY) {
            wire_out_reset(&rep);
            ASSERT(ns_query(reader, &hdr, rows[row].type, msg, NULL, NULL, &rep) != DFS_EDAMAGED);
        }
    }
    wire_out_fini(&rep);
    ns_reader_free(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    char dir[] = "/dev/shm/dfs-fuzz.XXXXXX";
    struct run r = { 0 };
    struct why why = { "" };
    char *remove;

    ASSERT(mkdtemp(dir) != NULL);
    wire_out_init(&r.batch, LIMIT_MSG);
    if (ns_open(dir, MAP_BYTES, &r.ns, &why) != 0) {
        fprintf(stderr, "ns_open: %s\n", why.text);
        abort();
    }
    small_state(&r);
    commands(&r, slice_of(p, len));
    questions(&r, slice_of(p, len));
    ns_close(r.ns);
    wire_out_fini(&r.batch);
    remove = x_printf("rm -rf %s", dir);
    ASSERT(system(remove) == 0);
    free(remove);
    return 0;
}
