/* dfs scrub: how far the checks of what is on disk are; orders one. */
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"

#include "fs/cli/cli.h"
#include "fs/cli/remote.h"

#define WAIT_POLL_US (200 * 1000)
#define BLOCKS_MAX   4096u /* in one order */
#define BUSY_PAUSE   (500 * 1000)

struct scrub {
    struct remote r; /* opened for a path only */
    struct cli *cli;
    uint32_t node; /* 0: all */
    struct wire_out reply;
    struct scrub_status_rep status;
    struct wire_out refs; /* blocks of the path that were not ordered yet */
    uint32_t ref_count;
    uint64_t last_block;
    uint64_t order;
    uint32_t servers;
    uint64_t copies, blocks, unread;
};

/* ---- asking ---- */

static int ask(struct scrub *s, uint16_t type, struct slice msg)
{
    struct why why = { "" };
    int err = client_admin(s->cli->conf, type, msg, &s->reply, &why);

    if (err == DFS_ENOENT) {
        return cli_error(s->cli, "no block server has the number %u", s->node);
    }
    return err == 0 ? CLI_DONE
                    : cli_fail(s->cli, err, &why, "no answer from the masters at %s",
                               s->cli->conf->masters);
}

static int ask_status(struct scrub *s)
{
    struct scrub_status_req q = { .node = s->node };
    struct wire_out msg;
    int status, err;

    wire_out_init(&msg, KIB);
    scrub_status_req_put(&msg, &q);
    status = ask(s, RPC_scrub_status, wire_out_slice(&msg));
    wire_out_fini(&msg);
    if (status == CLI_DONE) {
        err = scrub_status_rep_get(wire_out_slice(&s->reply), &s->status);
        status = err == 0 ? CLI_DONE : cli_fail(s->cli, err, NULL, "the master's answer");
    }
    return status;
}

/* DFS_EBUSY is answered until the servers have taken what was ordered before. */
static int send_order(struct scrub *s)
{
    struct scrub_order_req q = { .node = s->node, .blocks = wire_out_list(&s->refs, s->ref_count) };
    struct scrub_order_rep got = { 0 };
    struct why why = { "" };
    struct wire_out msg;
    int err;

    wire_out_init(&msg, LIMIT_MSG);
    scrub_order_req_put(&msg, &q);
    while ((err = client_admin(s->cli->conf, RPC_scrub_order, wire_out_slice(&msg), &s->reply,
                               &why)) == DFS_EBUSY) {
        usleep(BUSY_PAUSE);
    }
    err = err != 0 ? err : scrub_order_rep_get(wire_out_slice(&s->reply), &got);
    wire_out_fini(&msg);
    wire_out_reset(&s->refs);
    s->ref_count = 0;
    s->order = got.order;
    s->servers += got.servers;
    s->copies += got.copies;
    return err == 0 ? CLI_DONE : cli_fail(s->cli, err, &why, "the scrub could not be ordered");
}

/* ---- a path ---- */

static bool take_block(void *arg, const struct extent *e, const struct block_loc *b UNUSED)
{
    struct scrub *s = arg;

    if (e->block == s->last_block) {
        return true;
    }
    s->last_block = e->block;
    block_ref_put(&s->refs, &(struct block_ref){ e->block });
    s->ref_count++;
    s->blocks++;
    return s->ref_count < BLOCKS_MAX || send_order(s) == CLI_DONE;
}

static void unread(void *arg, const char *path, int err)
{
    struct scrub *s = arg;

    s->unread++;
    (void)cli_fail(s->cli, err, NULL, "%s", path);
}

static int visit(void *arg, const char *path, const struct attr *a)
{
    struct scrub *s = arg;
    int err = S_ISREG(a->mode) ? client_each_extent(s->r.c, a->ino, take_block, s) : 0;

    if (err != 0) {
        unread(s, path, err);
    }
    return 0;
}

static int order_path(struct scrub *s, const char *path)
{
    struct attr a;
    int status = remote_open(s->cli, &s->r);

    status = status != CLI_DONE ? status : remote_resolve(&s->r, path, &a);
    status = status != CLI_DONE ? status : remote_walk(&s->r, path, &a, visit, unread, s);
    if (status == CLI_DONE && s->ref_count != 0) {
        status = send_order(s);
    }
    remote_close(&s->r);
    return status != CLI_DONE ? status : s->unread != 0 ? CLI_FAILED : CLI_DONE;
}

/* ---- waiting ---- */

static bool volume_done(const struct scrub *s, const struct scrub_info *v)
{
    return s->order == 0 || (v->order >= s->order && v->state != SCRUB_ORDERED);
}

static bool all_done(const struct scrub *s)
{
    struct wire_in in = wire_in_of(s->status.servers.items);
    struct scrub_server one;
    bool done = true;

    for (uint32_t i = 0; i < s->status.servers.count && scrub_server_get(&in, &one) == 0; i++) {
        struct wire_in vin = wire_in_of(one.volumes.items);
        struct scrub_info v;

        if (one.state == MEMBER_DEAD) {
            continue;
        }
        done = done && (s->order != 0 || one.waiting == 0);
        for (uint32_t k = 0; k < one.volumes.count && scrub_info_get(&vin, &v) == 0; k++) {
            done = done && volume_done(s, &v);
        }
    }
    return done;
}

static int wait_done(struct scrub *s)
{
    int status = ask_status(s);

    while (status == CLI_DONE && !all_done(s)) {
        usleep(WAIT_POLL_US);
        status = ask_status(s);
    }
    return status;
}

/* ---- printing ---- */

static const char *state_name(uint8_t state)
{
    static const char *const names[] = { "?", "resting", "running", "ordered" };

    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static void json_volume(struct json *j, const struct scrub_info *v)
{
    json_object(j, NULL);
    json_text(j, "path", v->path);
    json_str(j, "state", state_name(v->state));
    json_int(j, "began_ms", v->began_ms);
    json_int(j, "last_pass_ms", v->ended_ms);
    json_num(j, "done_bytes", v->done);
    json_num(j, "total_bytes", v->total);
    json_num(j, "bytes_per_second", v->rate);
    json_num(j, "found", v->found);
    json_end(j);
}

static void json_server(struct json *j, const struct scrub_server *one)
{
    struct wire_in in = wire_in_of(one->volumes.items);
    struct scrub_info v;

    json_object(j, NULL);
    json_num(j, "node", one->node);
    json_text(j, "host", one->host);
    json_num(j, "waiting", one->waiting);
    json_array(j, "volumes");
    for (uint32_t i = 0; i < one->volumes.count && scrub_info_get(&in, &v) == 0; i++) {
        json_volume(j, &v);
    }
    json_end(j);
    json_end(j);
}

static void table_volume(struct table *t, const struct scrub_server *one,
                         const struct scrub_info *v)
{
    int64_t now_ms = clock_wall_ns() / NS_PER_MS;
    char buf[TEXT_NUMBER];

    table_cell(t, "%u", one->node);
    table_cell(t, "%.*s", (int)one->host.len, (const char *)one->host.p);
    table_cell(t, "%.*s", (int)v->path.len, (const char *)v->path.p);
    table_cell(t, "%s", state_name(v->state));
    table_cell(t, "%s",
               v->ended_ms == 0 ? "never" : text_ago((uint64_t)MAX(now_ms - v->ended_ms, 0), buf));
    table_cell(t, "%s", text_bytes(v->done, buf));
    table_cell(t, "%s", text_bytes(v->total, buf));
    table_cell(t, "%s/s", text_bytes(v->rate, buf));
    table_cell(t, "%ju", (uintmax_t)v->found);
}

static void print_status(const struct scrub *s)
{
    struct wire_in in = wire_in_of(s->status.servers.items);
    struct table *t = table_new("SERVER HOST VOLUME STATE >LAST_PASS >DONE >OF >SPEED >FOUND");
    struct json j = json_to(stdout);
    uint64_t waiting = 0;
    struct scrub_server one;

    if (s->cli->json) {
        json_object(&j, NULL);
        json_num(&j, "order", s->order);
        json_num(&j, "copies", s->copies);
        json_array(&j, "servers");
    }
    for (uint32_t i = 0; i < s->status.servers.count && scrub_server_get(&in, &one) == 0; i++) {
        struct wire_in vin = wire_in_of(one.volumes.items);
        struct scrub_info v;

        waiting += one.waiting;
        if (s->cli->json) {
            json_server(&j, &one);
            continue;
        }
        for (uint32_t k = 0; k < one.volumes.count && scrub_info_get(&vin, &v) == 0; k++) {
            table_volume(t, &one, &v);
        }
    }
    if (s->cli->json) {
        json_end(&j);
        json_end(&j);
    } else {
        table_print(t, stdout);
        if (waiting != 0) {
            printf("%ju single copies wait to be checked\n", (uintmax_t)waiting);
        }
    }
    table_free(t);
}

/* ---- the command ---- */

static bool same_text(struct slice a, const char *b)
{
    return slice_eq(a, slice_str(b));
}

/* The number of a server that is named by number, address or host. */
static int find_server(struct scrub *s, const char *name)
{
    struct scrub_server one;
    struct wire_in in;
    char number[16];
    int status = ask_status(s);

    in = wire_in_of(s->status.servers.items);
    for (uint32_t i = 0; status == CLI_DONE && i < s->status.servers.count; i++) {
        if (scrub_server_get(&in, &one) != 0) {
            break;
        }
        snprintf(number, sizeof(number), "%u", one.node);
        if (strcmp(number, name) == 0 || same_text(one.addr, name) || same_text(one.host, name)) {
            s->node = one.node;
            return CLI_DONE;
        }
    }
    return status != CLI_DONE ? status : cli_error(s->cli, "%s: no such block server", name);
}

static int run(struct scrub *s, bool now, bool wait)
{
    const char *what = s->cli->arg_count != 0 ? s->cli->args[0] : NULL;
    bool path = what != NULL && *what == '/';
    int status = what != NULL && !path ? find_server(s, what) : CLI_DONE;

    if (status == CLI_DONE && path) {
        status = order_path(s, what);
    } else if (status == CLI_DONE && now) {
        status = send_order(s);
    }
    if (status == CLI_DONE && path) {
        fprintf(stderr, "%ju copies of %ju blocks are being checked\n", (uintmax_t)s->copies,
                (uintmax_t)s->blocks);
    } else if (status == CLI_DONE && now) {
        fprintf(stderr, "%u servers check all they hold\n", s->servers);
    }
    if (status == CLI_DONE && wait && (path || now)) {
        status = wait_done(s);
    } else if (status == CLI_DONE) {
        status = ask_status(s);
    }
    if (status == CLI_DONE && (s->cli->json || wait || !(path || now))) {
        print_status(s);
    }
    return status;
}

int cmd_scrub(struct cli *cli, int argc, char **argv)
{
    struct scrub s = { .cli = cli };
    bool now = false, show = false, wait = false;
    const struct opt opts[] = {
        { "now", 'n', OPT_FLAG, &now, NULL, "Orders a check of everything, to begin at once." },
        { "status", 's', OPT_FLAG, &show, NULL, "Only shows the table; the default." },
        { "wait", 'w', OPT_FLAG, &wait, NULL, "Waits until what was ordered is done." },
        OPT_END,
    };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 0, 1)) {
        return cli->status;
    }
    if (show && (now || wait)) {
        return cli_usage(cli, "--status does not go with --now or --wait");
    }
    wire_out_init(&s.reply, LIMIT_MSG);
    wire_out_init(&s.refs, LIMIT_MSG);
    status = run(&s, now, wait);
    wire_out_fini(&s.reply);
    wire_out_fini(&s.refs);
    return status;
}
