#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"

#include "fs/cli/cli.h"
#include "fs/role/local.h"

#define NOT_GIVEN UINT64_MAX

/* Where the list goes to: a table, or JSON. */
struct output {
    struct json *json;
    struct table *table;
    bool all_running;
};

static void show(void *arg, const struct local_info *info)
{
    static const char *const states[] = { "running", "stopped", "not answering" };
    struct output *o = arg;

    o->all_running = o->all_running && info->state == LOCAL_RUNNING;
    if (o->json == NULL) {
        table_cell(o->table, "%s", info->name);
        if (info->pid != 0) {
            table_cell(o->table, "%d", (int)info->pid);
        } else {
            table_cell(o->table, "-");
        }
        table_cell(o->table, "%s", states[info->state]);
        table_cell(o->table, "%s", info->where);
        return;
    }
    json_object(o->json, NULL);
    json_str(o->json, "name", info->name);
    json_str(o->json, "state", states[info->state]);
    if (info->pid != 0) {
        json_int(o->json, "pid", info->pid);
    } else {
        json_null(o->json, "pid");
    }
    json_str(o->json, "where", info->where);
    json_end(o->json);
}

/* Exit status 1 when something does not run, so that scripts can ask. */
static int print_status(const struct cli *cli, const char *dir)
{
    struct json j = json_to(stdout);
    struct output o = { .all_running = true };
    struct why why = { 0 };
    int err;

    if (cli->json) {
        o.json = &j;
        json_object(&j, NULL);
        json_array(&j, "processes");
    } else {
        o.table = table_new("NAME >PID STATE WHERE");
    }
    err = local_status(dir, show, &o, &why);
    if (cli->json) {
        json_end(&j);
        json_bool(&j, "running", err == 0 && o.all_running);
        json_end(&j);
    } else if (err == 0) {
        table_print(o.table, stdout);
    }
    table_free(o.table);
    if (err != 0) {
        return cli_fail(cli, err, &why, "no status");
    }
    return o.all_running ? CLI_DONE : CLI_FAILED;
}

static size_t take_list(const struct opt_list *from, const char **to)
{
    for (int i = 0; i < from->count; i++) {
        to[i] = from->item[i];
    }
    return (size_t)from->count;
}

static bool in_range(const struct cli *cli, const char *option, uint64_t v, unsigned max,
                     unsigned *ret)
{
    if (v != NOT_GIVEN && (v < 1 || v > max)) {
        (void)cli_usage(cli, "--%s: 1 to %u", option, max);
        return false;
    }
    *ret = v == NOT_GIVEN ? 0 : (unsigned)v;
    return true;
}

static int start(const struct cli *cli, const struct local_options *o)
{
    struct why why = { 0 };
    int err = local_start(o, &why);

    if (err == DFS_EINVAL || err == DFS_ECONFIG) {
        return cli_usage(cli, "%s", why.text);
    }
    if (err != 0) {
        return cli_fail(cli, err, &why, "the start failed and was taken back");
    }
    return print_status(cli, o->dir);
}

int cmd_local(struct cli *cli, int argc, char **argv)
{
    uint64_t masters = 1;
    uint64_t blocks = NOT_GIVEN;
    uint64_t replication = NOT_GIVEN;
    uint64_t racks = NOT_GIVEN;
    struct opt_list mounts = { 0 };
    struct opt_list volumes = { 0 };
    bool stop = false;
    bool status = false;
    struct local_options o = { 0 };
    struct why why = { 0 };
    const struct opt opts[] = {
        { "masters", 0, OPT_NUM, &masters, "N", "Masters; 1 is what this version runs." },
        { "blocks", 0, OPT_NUM, &blocks, "N", "Block servers (3)." },
        { "replication", 0, OPT_NUM, &replication, "R", "Copies of each block (2)." },
        { "mount", 0, OPT_LIST, &mounts, "PATH",
          "Mount the file system there; several times for several mounts." },
        { "volume", 0, OPT_LIST, &volumes, "PATH",
          "Keep block data below PATH/block-N instead of DIR; several times for several volumes "
          "of each block server." },
        { "racks", 0, OPT_NUM, &racks, "N",
          "New block servers take turns on N racks: rack-1, rack-2 ..." },
        { "labels", 0, OPT_TEXT, &o.labels, "A,B...",
          "Volumes of new block servers have these storage labels, server by server." },
        { "stop", 0, OPT_FLAG, &stop, NULL, "Unmount, stop everything and wait for it." },
        { "status", 0, OPT_FLAG, &status, NULL,
          "List the processes; exit status 1 when one of them does not run." },
        OPT_END,
    };

    if (!cli_begin(cli, argc, argv, opts, 1, 1)) {
        return cli->status;
    }
    if (cli->args[0][0] == '\0') {
        return cli_usage(cli, "the name of DIR is empty");
    }
    if (stop && status) {
        return cli_usage(cli, "--stop and --status exclude each other");
    }
    if (masters != 1) {
        return cli_usage(cli, "--masters %ju: one master is what this version runs",
                         (uintmax_t)masters);
    }
    if (!in_range(cli, "blocks", blocks, LOCAL_LIST_MAX, &o.blocks) ||
        !in_range(cli, "racks", racks, LOCAL_LIST_MAX, &o.racks) ||
        !in_range(cli, "replication", replication, LIMIT_REPLICATION, &o.replication)) {
        return CLI_USAGE;
    }
    o.dir = cli->args[0];
    o.conf = cli->conf_option;
    o.set_count = take_list(&cli->set, o.sets);
    o.mount_count = take_list(&mounts, o.mounts);
    o.volume_count = take_list(&volumes, o.volumes);
    if (status) {
        return print_status(cli, o.dir);
    }
    if (stop) {
        int err = local_stop(o.dir, &why);

        return err != 0 ? cli_fail(cli, err, &why, "not stopped in order") : CLI_DONE;
    }
    return start(cli, &o);
}
