/* dfs decommission: empties a server, so that it can be taken away; --cancel takes it back. */
#include <unistd.h>

#include "cluster/base/json.h"
#include "cluster/base/progress.h"

#include "fs/cli/operate.h"

#define POLL_US (200 * 1000)

static void print_json(const struct server_info *s)
{
    struct json j = json_to(stdout);

    json_object(&j, NULL);
    json_num(&j, "node", s->node);
    json_text(&j, "addr", s->addr);
    json_str(&j, "intent", operate_intent(s->intent));
    if (s->left_known != 0) {
        json_num(&j, "left_blocks", s->left_blocks);
        json_num(&j, "left_open_blocks", s->left_open);
        json_num(&j, "left_bytes", s->left_bytes);
    }
    json_end(&j);
}

/* Until no block depends on it, or somebody else takes the decommission back. */
static int wait_empty(struct cli *cli, uint32_t node, struct wire_out *reply,
                      struct server_info *ret)
{
    struct progress p = { 0 };
    bool begun = false;
    int status;

    for (;;) {
        status = operate_server(cli, node, reply, ret);
        if (status != CLI_DONE || ret->intent != INTENT_DECOMMISSION) {
            break;
        }
        if (ret->left_known != 0) {
            uint64_t left = ret->left_bytes;

            if (!begun) {
                progress_begin(&p, "decommission", left);
                begun = true;
            }
            progress_add(&p, p.total > left + p.done ? p.total - left - p.done : 0);
        }
        usleep(POLL_US);
    }
    if (begun) {
        progress_end(&p);
    }
    if (status == CLI_DONE && ret->intent == INTENT_NONE) {
        return cli_error(cli, "the decommission of server %u was cancelled", node);
    }
    return status;
}

static int run(struct cli *cli, bool cancel, bool wait, struct wire_out *reply)
{
    const struct server_intent_req req = { .server = slice_str(cli->args[0]),
                                           .op = cancel ? OP_RECOMMISSION : OP_DECOMMISSION };
    struct server_intent_rep rep = { 0 };
    struct server_info s = { 0 };
    int status = operate_intend(cli, &req, reply, &rep);
    uint32_t node = rep.node;

    if (status == CLI_DONE) {
        status = wait && !cancel ? wait_empty(cli, node, reply, &s)
                                 : operate_server(cli, node, reply, &s);
    }
    if (status == CLI_DONE && cli->json) {
        print_json(&s);
    } else if (status == CLI_DONE) {
        printf("server %u at %.*s: %s\n", s.node, (int)s.addr.len, (const char *)s.addr.p,
               s.intent != INTENT_NONE ? operate_intent(s.intent)
                                       : "in service; blocks come to it again");
    }
    return status;
}

int cmd_decommission(struct cli *cli, int argc, char **argv)
{
    bool cancel = false, wait = false;
    const struct opt opts[] = {
        { "cancel", 0, OPT_FLAG, &cancel, NULL, "Takes the server back into service." },
        { "wait", 'w', OPT_FLAG, &wait, NULL, "Returns when no block depends on the server." },
        OPT_END,
    };
    struct wire_out reply;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 1)) {
        return cli->status;
    }
    wire_out_init(&reply, LIMIT_MSG);
    status = run(cli, cancel, wait, &reply);
    wire_out_fini(&reply);
    return status;
}
