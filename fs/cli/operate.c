#include "fs/cli/operate.h"

#include "cluster/base/err.h"

static const char *name_of(const char *const *names, size_t count, uint8_t i)
{
    return i < count ? names[i] : "?";
}

const char *operate_state(uint8_t state)
{
    static const char *const names[] = { "?", "live", "suspect", "dead" };

    return name_of(names, ARRAY_LEN(names), state);
}

const char *operate_volume_state(uint8_t state)
{
    static const char *const names[] = { "?", "ok", "full", "failed", "leaving" };

    return name_of(names, ARRAY_LEN(names), state);
}

const char *operate_intent(uint8_t intent)
{
    static const char *const names[] = { "none", "decommissioning", "decommissioned" };

    return name_of(names, ARRAY_LEN(names), intent);
}

const char *operate_maintenance(uint8_t maintenance)
{
    static const char *const names[] = { "none", "asked", "clean-stop" };

    return name_of(names, ARRAY_LEN(names), maintenance);
}

const char *operate_trouble(uint8_t trouble)
{
    static const char *const names[] = { "none", "slow", "hung" };

    return name_of(names, ARRAY_LEN(names), trouble);
}

int operate_status(const struct cli *cli, struct wire_out *reply, struct status_rep *ret)
{
    struct status_req req = { 0 };
    struct why why = { "" };
    struct wire_out msg;
    int err;

    wire_out_init(&msg, KIB);
    status_req_put(&msg, &req);
    err = client_admin(cli->conf, RPC_status, wire_out_slice(&msg), reply, &why);
    err = err != DFS_OK ? err : status_rep_get(wire_out_slice(reply), ret);
    wire_out_fini(&msg);
    return err != DFS_OK
               ? cli_fail(cli, err, &why, "no status from the masters at %s", cli->conf->masters)
               : CLI_DONE;
}

int operate_server(const struct cli *cli, uint32_t node, struct wire_out *reply,
                   struct server_info *ret)
{
    struct status_rep rep = { 0 };
    struct wire_in in;
    int status = operate_status(cli, reply, &rep);

    if (status != CLI_DONE) {
        return status;
    }
    in = wire_in_of(rep.servers.items);
    for (uint32_t i = 0; i < rep.servers.count && server_info_get(&in, ret) == DFS_OK; i++) {
        if (ret->node == node) {
            return CLI_DONE;
        }
    }
    return cli_error(cli, "the master does not know server %u any more", node);
}

static bool is_named(const struct server_info *s, const char *name)
{
    char id[16];

    snprintf(id, sizeof(id), "%u", s->node);
    return strcmp(id, name) == 0 || slice_eq(s->addr, slice_str(name)) ||
           slice_eq(s->host, slice_str(name));
}

int operate_find(const struct cli *cli, const char *name, const struct status_rep *rep,
                 struct server_info *ret)
{
    struct wire_in in = wire_in_of(rep->servers.items);
    struct server_info s;
    size_t found = 0;

    for (uint32_t i = 0; i < rep->servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        if (is_named(&s, name)) {
            *ret = s;
            found++;
        }
    }
    if (found == 0) {
        return cli_error(cli, "no block server \"%s\": dfs status lists ids, addresses and hosts",
                         name);
    }
    return found == 1
               ? CLI_DONE
               : cli_error(cli, "several block servers on host %s: name one by its address", name);
}

static void name_alone(const struct server_intent_rep *r)
{
    struct wire_in in = wire_in_of(r->alone.items);
    struct block_ref b;

    fprintf(stderr, "blocks without another live copy:");
    for (uint32_t i = 0; i < r->alone.count && block_ref_get(&in, &b) == DFS_OK; i++) {
        fprintf(stderr, " %ju", (uintmax_t)b.block);
    }
    fprintf(stderr, "%s\n", r->alone_count > r->alone.count ? " ..." : "");
}

int operate_intend(const struct cli *cli, const struct server_intent_req *req,
                   struct wire_out *reply, struct server_intent_rep *ret)
{
    struct why why = { "" };
    struct wire_out msg;
    int err;

    wire_out_init(&msg, 4 * KIB);
    server_intent_req_put(&msg, req);
    err = client_admin(cli->conf, RPC_server_intent, wire_out_slice(&msg), reply, &why);
    err = err != DFS_OK ? err : server_intent_rep_get(wire_out_slice(reply), ret);
    wire_out_fini(&msg);
    if (err != DFS_OK) {
        return cli_fail(cli, err, &why, "%.*s", (int)req->server.len, (const char *)req->server.p);
    }
    if (ret->refused != 0) {
        if (ret->alone_count != 0 && req->op == OP_MAINTENANCE) {
            name_alone(ret);
        }
        return cli_error(cli, "%.*s: %.*s", (int)req->server.len, (const char *)req->server.p,
                         (int)ret->text.len, (const char *)ret->text.p);
    }
    return CLI_DONE;
}
