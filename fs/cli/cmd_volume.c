/* dfs volume: the volumes of running block servers: list, add, remove, replace.
 *
 * Orders go to the block server itself; how far a removal is, the master knows from its heartbeats.
 */
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/progress.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"
#include "cluster/net/conn.h"
#include "cluster/net/hello.h"

#include "fs/cli/operate.h"

#define POLL_US  (200 * 1000)
#define HEARD_MS 3000
#define ORDER_MS 600000u /* a volume that is added is scanned first */

struct volume_cmd {
    struct cli *cli;
    bool wait, cancel;
    struct wire_out reply;
    struct status_rep status;
    struct server_info server;
};

/* ---- orders ---- */

static int send_order(const struct volume_cmd *c, const char *addr, uint8_t op, const char *path,
                      struct block_volume_rep *ret, struct wire_out *text, struct why *why)
{
    uint64_t deadline = clock_mono_ms() + ORDER_MS;
    const struct block_volume_req req = { .op = op, .path = slice_str(path) };
    struct conn *conn = NULL;
    struct wire_out msg;
    struct slice got;
    uint32_t node;
    int err = conn_open_hello(addr, HELLO_BLOCK, c->status.cluster,
                              clock_mono_ms() + c->cli->conf->client_timeout, &conn, &node, why);

    if (err != 0) {
        return err;
    }
    wire_out_init(&msg, LIMIT_MSG);
    block_volume_req_put(&msg, &req);
    err = conn_call(conn, RPC_block_volume, wire_out_slice(&msg), &got, deadline);
    err = err != 0 ? err : block_volume_rep_get(got, ret);
    if (err == 0) {
        wire_put_raw(text, ret->text.p, ret->text.len);
        ret->text = wire_out_slice(text);
    }
    wire_out_fini(&msg);
    conn_close(conn);
    return err;
}

static int order(const struct volume_cmd *c, uint8_t op, const char *path)
{
    char *addr = x_strndup((const char *)c->server.addr.p, c->server.addr.len);
    struct block_volume_rep rep = { 0 };
    struct why why = { "" };
    struct wire_out text;
    int status = CLI_DONE;
    int err;

    wire_out_init(&text, LIMIT_MSG);
    err = send_order(c, addr, op, path, &rep, &text, &why);
    if (err != 0) {
        status = cli_fail(c->cli, err, &why, "server %u at %s", c->server.node, addr);
    } else if (rep.refused != 0) {
        status = cli_error(c->cli, "%s: %.*s", path, (int)rep.text.len, (const char *)rep.text.p);
    }
    wire_out_fini(&text);
    free(addr);
    return status;
}

/* ---- what the master knows ---- */

static bool find_volume(const struct server_info *s, const char *path, struct volume_info *ret)
{
    struct wire_in in = wire_in_of(s->volumes.items);

    for (uint32_t i = 0; i < s->volumes.count && volume_info_get(&in, ret) == DFS_OK; i++) {
        if (slice_eq(ret->path, slice_str(path))) {
            return true;
        }
    }
    return false;
}

/* Until the server reports the volume no more, or it is kept after all. */
static int wait_gone(struct volume_cmd *c, const char *path)
{
    uint32_t node = c->server.node;
    struct volume_info v = { 0 };
    struct progress p = { 0 };
    bool begun = false;
    int status;

    for (;;) {
        status = operate_server(c->cli, node, &c->reply, &c->server);
        if (status != CLI_DONE || !find_volume(&c->server, path, &v) ||
            (begun && v.state != VOLUME_LEAVING && v.state != VOLUME_FAILED)) {
            break;
        }
        if (!begun && v.state == VOLUME_LEAVING) {
            progress_begin(&p, "removing", v.used);
            begun = true;
        }
        if (begun && p.total > v.used + p.done) {
            progress_add(&p, p.total - v.used - p.done);
        }
        usleep(POLL_US);
    }
    if (begun) {
        progress_end(&p);
    }
    if (status == CLI_DONE && find_volume(&c->server, path, &v)) {
        return cli_error(c->cli, "%s: its removal was cancelled", path);
    }
    return status;
}

/* ---- the commands ---- */

static void json_volume(struct json *j, const struct server_info *s, const struct volume_info *v)
{
    json_object(j, NULL);
    json_num(j, "node", s->node);
    json_text(j, "addr", s->addr);
    json_text(j, "host", s->host);
    json_text(j, "path", v->path);
    json_text(j, "label", v->label);
    json_str(j, "state", operate_volume_state(v->state));
    json_str(j, "trouble", operate_trouble(v->trouble));
    json_num(j, "total_bytes", v->total);
    json_num(j, "used_bytes", v->used);
    json_num(j, "free_bytes", v->free);
    json_num(j, "blocks", v->blocks);
    json_num(j, "errors", v->errors);
    json_end(j);
}

static void table_volume(struct table *t, const struct server_info *s, const struct volume_info *v)
{
    char buf[TEXT_NUMBER];

    table_cell(t, "%u", s->node);
    table_cell(t, "%.*s", (int)s->host.len, (const char *)s->host.p);
    table_cell(t, "%.*s", (int)v->path.len, (const char *)v->path.p);
    table_cell(t, "%.*s", v->label.len != 0 ? (int)v->label.len : 1,
               v->label.len != 0 ? (const char *)v->label.p : "-");
    table_cell(t, "%s%s%s", operate_volume_state(v->state), v->trouble != 0 ? ", " : "",
               v->trouble != 0 ? operate_trouble(v->trouble) : "");
    table_cell(t, "%s", text_bytes(v->total, buf));
    table_cell(t, "%s", text_bytes(v->used, buf));
    table_cell(t, "%s", text_bytes(v->free, buf));
    table_cell(t, "%u", v->blocks);
    table_cell(t, "%ju", (uintmax_t)v->errors);
}

/* Of one server (node), or of all (0). */
static void list(const struct volume_cmd *c, uint32_t node)
{
    struct table *t = table_new("SERVER HOST PATH LABEL STATE >TOTAL >USED >FREE >BLOCKS >ERRORS");
    struct wire_in in = wire_in_of(c->status.servers.items);
    struct json j = json_to(stdout);
    struct server_info s;

    if (c->cli->json) {
        json_array(&j, NULL);
    }
    for (uint32_t i = 0; i < c->status.servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        struct wire_in vin = wire_in_of(s.volumes.items);
        struct volume_info v;

        for (uint32_t k = 0; k < s.volumes.count && volume_info_get(&vin, &v) == DFS_OK; k++) {
            if (node != 0 && node != s.node) {
                continue;
            }
            if (c->cli->json) {
                json_volume(&j, &s, &v);
            } else {
                table_volume(t, &s, &v);
            }
        }
    }
    if (c->cli->json) {
        json_end(&j);
    } else {
        table_print(t, stdout);
    }
    table_free(t);
}

static int done(const struct volume_cmd *c, const char *path, const char *what)
{
    if (c->cli->json) {
        struct json j = json_to(stdout);

        json_object(&j, NULL);
        json_num(&j, "node", c->server.node);
        json_str(&j, "path", path);
        json_str(&j, "result", what);
        json_end(&j);
    } else {
        printf("%s of server %u: %s\n", path, c->server.node, what);
    }
    return CLI_DONE;
}

static int take_away(struct volume_cmd *c, const char *path, bool wait)
{
    int status = order(c, c->cancel ? VOLUME_KEEP : VOLUME_REMOVE, path);

    if (status == CLI_DONE && wait) {
        status = wait_gone(c, path);
    }
    return status != CLI_DONE ? status
                              : done(c, path,
                                     c->cancel ? "stays"
                                     : wait    ? "removed"
                                               : "leaving; dfs volume ls shows how far it is");
}

/* The masters may not have heard yet of one that was just added. */
static bool find_soon(struct volume_cmd *c, const char *server, const char *path,
                      struct volume_info *ret)
{
    uint64_t until_ms = clock_mono_ms() + HEARD_MS;
    bool found = find_volume(&c->server, path, ret);

    while (!found && clock_mono_ms() < until_ms) {
        usleep(POLL_US);
        if (operate_status(c->cli, &c->reply, &c->status) != CLI_DONE ||
            operate_find(c->cli, server, &c->status, &c->server) != CLI_DONE) {
            break;
        }
        found = find_volume(&c->server, path, ret);
    }
    return found;
}

/* Nothing is taken into use for a volume that cannot go. */
static int replace(struct volume_cmd *c, const char *server, const char *old, const char *new)
{
    struct volume_info v;
    int status;

    if (strcmp(old, new) == 0) {
        return cli_usage(c->cli, "%s cannot replace itself", old);
    }
    if (!find_soon(c, server, old, &v)) {
        return cli_error(c->cli, "%s: is no volume of this server", old);
    }
    if (v.state == VOLUME_LEAVING) {
        return cli_error(c->cli, "%s: is leaving already", old);
    }
    status = order(c, VOLUME_ADD, new);
    if (status != CLI_DONE) {
        return status;
    }
    status = take_away(c, old, c->wait);
    if (status != CLI_DONE) {
        cli_error(c->cli, "%s is in use all the same", new);
    }
    return status;
}

static int run(struct volume_cmd *c, const char *what, char **args, int count)
{
    int status = operate_status(c->cli, &c->reply, &c->status);

    if (status == CLI_DONE && count > 0) {
        status = operate_find(c->cli, args[0], &c->status, &c->server);
    }
    if (status != CLI_DONE) {
        return status;
    }
    if (strcmp(what, "ls") == 0 && count <= 1) {
        list(c, c->server.node);
        return CLI_DONE;
    }
    if (strcmp(what, "add") == 0 && count == 2) {
        status = order(c, VOLUME_ADD, args[1]);
        return status != CLI_DONE ? status : done(c, args[1], "in use");
    }
    if (strcmp(what, "remove") == 0 && count == 2) {
        return take_away(c, args[1], c->wait && !c->cancel);
    }
    if (strcmp(what, "replace") == 0 && count == 3) {
        return replace(c, args[0], args[1], args[2]);
    }
    return cli_usage(c->cli, "want ls [SERVER], add SERVER PATH, remove SERVER PATH or replace "
                             "SERVER OLD NEW");
}

int cmd_volume(struct cli *cli, int argc, char **argv)
{
    struct volume_cmd c = { .cli = cli };
    const struct opt opts[] = {
        { "wait", 'w', OPT_FLAG, &c.wait, NULL, "Returns when the volume is empty and let go." },
        { "cancel", 0, OPT_FLAG, &c.cancel, NULL, "With remove: the volume stays after all." },
        OPT_END,
    };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 4)) {
        return cli->status;
    }
    if (c.cancel && strcmp(cli->args[0], "remove") != 0) {
        return cli_usage(cli, "--cancel belongs to remove");
    }
    wire_out_init(&c.reply, LIMIT_MSG);
    status = run(&c, cli->args[0], cli->args + 1, cli->arg_count - 1);
    wire_out_fini(&c.reply);
    return status;
}
