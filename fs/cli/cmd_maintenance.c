/* dfs maintenance: a server will be away for a while, and nothing is to be copied because of that. */
#include "cluster/base/json.h"
#include "cluster/base/text.h"

#include "fs/cli/operate.h"

static void print_json(const struct server_info *s, uint64_t alone)
{
    struct json j = json_to(stdout);

    json_object(&j, NULL);
    json_num(&j, "node", s->node);
    json_text(&j, "addr", s->addr);
    json_str(&j, "maintenance", operate_maintenance(s->maintenance));
    json_num(&j, "maintenance_left_ms", s->away_ms);
    json_num(&j, "blocks_without_another_copy", alone);
    json_end(&j);
}

static void print_text(const struct server_info *s, uint64_t alone)
{
    char buf[TEXT_NUMBER];

    printf("server %u at %.*s: ", s->node, (int)s->addr.len, (const char *)s->addr.p);
    if (s->maintenance == MAINTENANCE_NONE) {
        printf("in service\n");
        return;
    }
    printf("in maintenance, %s left", text_ago(s->away_ms, buf));
    if (alone != 0) {
        printf("; %ju blocks cannot be read while it is away", (uintmax_t)alone);
    }
    printf("\n");
}

static int run(struct cli *cli, const struct server_intent_req *req, struct wire_out *reply)
{
    struct server_intent_rep rep = { 0 };
    struct server_info s = { 0 };
    int status = operate_intend(cli, req, reply, &rep);
    uint64_t alone = rep.alone_count;

    if (status == CLI_DONE) {
        status = operate_server(cli, rep.node, reply, &s);
    }
    if (status == CLI_DONE && cli->json) {
        print_json(&s, alone);
    } else if (status == CLI_DONE) {
        print_text(&s, alone);
    }
    return status;
}

int cmd_maintenance(struct cli *cli, int argc, char **argv)
{
    uint64_t for_ms = 0;
    bool end = false, force = false;
    const struct opt opts[] = {
        { "for", 0, OPT_TIME, &for_ms, "TIME", "How long it will be away at most: 30m, 2h." },
        { "end", 0, OPT_FLAG, &end, NULL, "The server is in service again." },
        { "force", 'f', OPT_FLAG, &force, NULL,
          "Even if some blocks cannot be read meanwhile, because they have no other copy." },
        OPT_END,
    };
    struct server_intent_req req = { 0 };
    struct wire_out reply;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 1)) {
        return cli->status;
    }
    if (end == (for_ms != 0)) {
        return cli_usage(cli, "want either --for TIME or --end");
    }
    req = (struct server_intent_req){ .server = slice_str(cli->args[0]),
                                      .op = end ? OP_MAINTENANCE_END : OP_MAINTENANCE,
                                      .for_ms = for_ms,
                                      .force = force };
    wire_out_init(&reply, LIMIT_MSG);
    status = run(cli, &req, &reply);
    wire_out_fini(&reply);
    return status;
}
