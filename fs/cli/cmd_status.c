/* dfs status: the cluster at a glance. */
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"
#include "cluster/wire/frame.h"

#include "fs/cli/operate.h"

#define WATCH_US (1000 * 1000)

static const char *cluster_text(struct slice id, char buf[2 * CLUSTER_ID_BYTES + 1])
{
    buf[0] = '\0';
    for (size_t i = 0; i < MIN(id.len, CLUSTER_ID_BYTES); i++) {
        snprintf(buf + 2 * i, 3, "%02x", id.p[i]);
    }
    return buf;
}

/* ---- for programs ---- */

static void json_volumes(struct json *j, struct wire_list volumes)
{
    struct wire_in in = wire_in_of(volumes.items);
    struct volume_info v;

    json_array(j, "volumes");
    for (uint32_t i = 0; i < volumes.count && volume_info_get(&in, &v) == DFS_OK; i++) {
        json_object(j, NULL);
        json_text(j, "path", v.path);
        json_text(j, "label", v.label);
        json_str(j, "state", operate_volume_state(v.state));
        json_num(j, "total_bytes", v.total);
        json_num(j, "used_bytes", v.used);
        json_num(j, "free_bytes", v.free);
        json_num(j, "blocks", v.blocks);
        json_num(j, "errors", v.errors);
        json_str(j, "trouble", operate_trouble(v.trouble));
        json_num(j, "write_us", v.write_us);
        json_num(j, "sync_us", v.sync_us);
        json_num(j, "read_us", v.read_us);
        json_num(j, "stuck_ms", v.stuck_ms);
        json_end(j);
    }
    json_end(j);
}

static void json_intent(struct json *j, const struct server_info *s)
{
    json_str(j, "trouble", operate_trouble(s->trouble));
    json_str(j, "intent", operate_intent(s->intent));
    if (s->left_known != 0) {
        json_num(j, "left_blocks", s->left_blocks);
        json_num(j, "left_open_blocks", s->left_open);
        json_num(j, "left_bytes", s->left_bytes);
        json_num(j, "left_ms", s->left_ms);
    }
    json_str(j, "maintenance", operate_maintenance(s->maintenance));
    json_num(j, "maintenance_left_ms", s->away_ms);
}

static void json_servers(struct json *j, struct wire_list servers)
{
    struct wire_in in = wire_in_of(servers.items);
    struct server_info s;

    json_array(j, "servers");
    for (uint32_t i = 0; i < servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        json_object(j, NULL);
        json_num(j, "node", s.node);
        json_text(j, "addr", s.addr);
        json_text(j, "host", s.host);
        json_text(j, "rack", s.rack);
        json_str(j, "state", operate_state(s.state));
        json_num(j, "last_seen_ms", s.last_seen_ms);
        json_num(j, "total_bytes", s.total);
        json_num(j, "used_bytes", s.used);
        json_num(j, "free_bytes", s.free);
        json_num(j, "blocks", s.blocks);
        json_intent(j, &s);
        json_volumes(j, s.volumes);
        json_end(j);
    }
    json_end(j);
}

static void print_json(const struct status_rep *r)
{
    char id[2 * CLUSTER_ID_BYTES + 1];
    struct wire_in in = wire_in_of(r->masters.items);
    struct json j = json_to(stdout);
    struct master_info m;

    json_object(&j, NULL);
    json_str(&j, "cluster", cluster_text(r->cluster, id));
    json_array(&j, "masters");
    for (uint32_t i = 0; i < r->masters.count && master_info_get(&in, &m) == DFS_OK; i++) {
        json_object(&j, NULL);
        json_num(&j, "id", m.id);
        json_text(&j, "addr", m.addr);
        json_bool(&j, "leader", m.leader != 0);
        json_num(&j, "applied", m.applied);
        json_end(&j);
    }
    json_end(&j);
    json_servers(&j, r->servers);
    json_num(&j, "inodes", r->files);
    json_num(&j, "file_bytes", r->file_bytes);
    json_num(&j, "blocks", r->blocks);
    json_num(&j, "under_replicated", r->under_replicated);
    json_num(&j, "missing", r->missing);
    json_num(&j, "corrupt", r->corrupt);
    json_num(&j, "deleting", r->deleting);
    json_num(&j, "repairing", r->repairing);
    json_num(&j, "misplaced", r->misplaced);
    json_num(&j, "repair_bytes", r->repair_bytes);
    json_num(&j, "repair_rate", r->repair_rate);
    json_num(&j, "moving", r->moving);
    json_num(&j, "balance_bytes", r->balance_bytes);
    json_num(&j, "balance_rate", r->balance_rate);
    json_num(&j, "live_bytes", r->live_bytes);
    json_num(&j, "garbage_bytes", r->garbage_bytes);
    json_num(&j, "open_bytes", r->open_bytes);
    json_num(&j, "sessions", r->sessions);
    json_bool(&j, "scanning", r->scanning != 0);
    json_end(&j);
}

/* ---- for people ---- */

static void print_masters(const struct status_rep *r)
{
    struct wire_in in = wire_in_of(r->masters.items);
    struct table *t = table_new("MASTER ADDRESS ROLE >APPLIED");
    struct master_info m;

    for (uint32_t i = 0; i < r->masters.count && master_info_get(&in, &m) == DFS_OK; i++) {
        table_cell(t, "%u", m.id);
        table_cell(t, "%.*s", (int)m.addr.len, (const char *)m.addr.p);
        table_cell(t, "%s", m.leader != 0 ? "leader" : "follower");
        table_cell(t, "%ju", (uintmax_t)m.applied);
    }
    table_print(t, stdout);
    table_free(t);
}

static void print_servers(const struct status_rep *r)
{
    struct wire_in in = wire_in_of(r->servers.items);
    struct table *t = table_new("SERVER ADDRESS HOST RACK STATE >SEEN >TOTAL >USED >FREE >BLOCKS");
    char buf[TEXT_NUMBER];
    struct server_info s;

    for (uint32_t i = 0; i < r->servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        table_cell(t, "%u", s.node);
        table_cell(t, "%.*s", (int)s.addr.len, (const char *)s.addr.p);
        table_cell(t, "%.*s", (int)s.host.len, (const char *)s.host.p);
        table_cell(t, "%.*s", s.rack.len != 0 ? (int)s.rack.len : 1,
                   s.rack.len != 0 ? (const char *)s.rack.p : "-");
        table_cell(t, "%s", operate_state(s.state));
        table_cell(t, "%s", text_ago(s.last_seen_ms, buf));
        table_cell(t, "%s", text_bytes(s.total, buf));
        table_cell(t, "%s", text_bytes(s.used, buf));
        table_cell(t, "%s", text_bytes(s.free, buf));
        table_cell(t, "%ju", (uintmax_t)s.blocks);
    }
    table_print(t, stdout);
    table_free(t);
}

/* What operators want of servers, and how far that is. */
static void print_intents(const struct status_rep *r)
{
    struct wire_in in = wire_in_of(r->servers.items);
    char buf[TEXT_NUMBER];
    struct server_info s;

    for (uint32_t i = 0; i < r->servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        if (s.intent != INTENT_NONE) {
            printf("server %u: %s", s.node, operate_intent(s.intent));
            if (s.left_known != 0 && s.left_blocks != 0) {
                printf(", %ju blocks (%ju of them being written), %s left",
                       (uintmax_t)s.left_blocks, (uintmax_t)s.left_open,
                       text_bytes(s.left_bytes, buf));
                if (s.left_ms != 0) {
                    printf(", about %s to go", text_ago(s.left_ms, buf));
                }
            }
            printf("\n");
        }
        if (s.maintenance != MAINTENANCE_NONE) {
            printf("server %u: in maintenance%s, %s left\n", s.node,
                   s.maintenance == MAINTENANCE_STOP ? " after a clean stop" : "",
                   text_ago(s.away_ms, buf));
        }
    }
}

static void print_volume(uint32_t node, const struct volume_info *v)
{
    char buf[TEXT_NUMBER];

    if (v->state == VOLUME_OK && v->errors == 0 && v->trouble == TROUBLE_NONE) {
        return;
    }
    printf("server %u: volume %.*s is %s", node, (int)v->path.len, (const char *)v->path.p,
           operate_volume_state(v->state));
    if (v->state == VOLUME_LEAVING) {
        printf(", %u blocks, %s left", v->blocks, text_bytes(v->used, buf));
    }
    if (v->errors != 0) {
        printf(", %ju damaged copies or failed accesses", (uintmax_t)v->errors);
    }
    if (v->trouble == TROUBLE_HUNG) {
        printf(", hung: an operation has not ended for %s", text_ago(v->stuck_ms, buf));
    } else if (v->trouble == TROUBLE_SLOW) {
        printf(", slow: %u ms a write, %u ms a sync, %u ms a read", v->write_us / 1000,
               v->sync_us / 1000, v->read_us / 1000);
    }
    printf("\n");
}

/* Volumes that a person should look at. */
static void print_bad_volumes(const struct status_rep *r)
{
    struct wire_in in = wire_in_of(r->servers.items);
    struct server_info s;

    for (uint32_t i = 0; i < r->servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        struct wire_in vin = wire_in_of(s.volumes.items);
        struct volume_info v;

        for (uint32_t k = 0; k < s.volumes.count && volume_info_get(&vin, &v) == DFS_OK; k++) {
            print_volume(s.node, &v);
        }
    }
}

/* "repair            3 copies under way, 1.2 GiB to go, 80 MiB/s, 15s left"; nothing when there is
 * nothing to do. */
static void print_progress(const char *what, uint64_t copies, uint64_t bytes, uint64_t rate)
{
    char buf[TEXT_NUMBER];

    if (copies == 0 && bytes == 0) {
        return;
    }
    printf("%-18s%ju copies under way, %s to go", what, (uintmax_t)copies, text_bytes(bytes, buf));
    if (rate != 0 && bytes != 0) {
        printf(", %s/s", text_bytes(rate, buf));
        printf(", %s left", text_ago(bytes / rate * 1000, buf));
    }
    printf("\n");
}

static void print_text(const struct status_rep *r)
{
    char id[2 * CLUSTER_ID_BYTES + 1], buf[TEXT_NUMBER];

    printf("cluster           %s\n", cluster_text(r->cluster, id));
    printf("inodes            %ju, %s in files\n", (uintmax_t)r->files,
           text_bytes(r->file_bytes, buf));
    printf("blocks            %ju%s\n", (uintmax_t)r->blocks,
           r->scanning != 0 ? " (still being counted: the figures below may grow)" : "");
    printf("under-replicated  %ju, %ju being copied\n", (uintmax_t)r->under_replicated,
           (uintmax_t)(r->repairing - MIN(r->moving, r->repairing)));
    printf("misplaced         %ju\n", (uintmax_t)r->misplaced);
    printf("missing           %ju\n", (uintmax_t)r->missing);
    printf("corrupt           %ju\n", (uintmax_t)r->corrupt);
    printf("deleted           %ju waiting\n", (uintmax_t)r->deleting);
    printf("stored            %s in use, ", text_bytes(r->live_bytes, buf));
    printf("%s garbage, ", text_bytes(r->garbage_bytes, buf));
    printf("%s being written\n", text_bytes(r->open_bytes, buf));
    printf("clients           %ju\n", (uintmax_t)r->sessions);
    print_progress("repair", r->repairing - MIN(r->moving, r->repairing), r->repair_bytes,
                   r->repair_rate);
    print_progress("balance", r->moving, r->balance_bytes, r->balance_rate);
    printf("\n");
    print_masters(r);
    printf("\n");
    print_servers(r);
    print_intents(r);
    print_bad_volumes(r);
}

static int show(const struct cli *cli)
{
    struct status_rep rep;
    struct wire_out reply;
    int status;

    wire_out_init(&reply, LIMIT_MSG);
    status = operate_status(cli, &reply, &rep);
    if (status == CLI_DONE && cli->json) {
        print_json(&rep);
    } else if (status == CLI_DONE) {
        print_text(&rep);
    }
    wire_out_fini(&reply);
    return status;
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
    bool watch = false;
    const struct opt opts[] = {
        { "watch", 'w', OPT_FLAG, &watch, NULL, "Shows it again every second, until interrupted." },
        OPT_END,
    };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 0, 0)) {
        return cli->status;
    }
    status = show(cli);
    while (watch && fflush(stdout) == 0) {
        usleep(WATCH_US);
        if (!cli->json && isatty(STDOUT_FILENO) == 1) {
            printf("\033[H\033[2J");
        }
        status = show(cli);
    }
    return status;
}
