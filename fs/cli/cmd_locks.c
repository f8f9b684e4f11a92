/* dfs locks: who holds locks on files, and who waits for them. */
#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"

#include "fs/cli/cli.h"
#include "fs/cli/remote.h"

#define LOCKS_MAX 10000u

static const char *kind_name(uint8_t kind)
{
    return kind == LOCK_POSIX ? "fcntl" : kind == LOCK_FLOCK ? "flock" : "?";
}

static const char *type_name(uint8_t type)
{
    return type == LOCK_SHARED ? "shared" : type == LOCK_EXCLUSIVE ? "exclusive" : "?";
}

/* The next one of the list; false at its end. */
static bool next(struct wire_in *in, struct lock_info *ret, struct lock_held *ret_held)
{
    struct wire_in lock;

    if (lock_info_get(in, ret) != DFS_OK) {
        return false;
    }
    lock = wire_in_of(ret->lock);
    return lock_held_get(&lock, ret_held) == DFS_OK;
}

static void print_json(const struct locks_rep *r)
{
    struct wire_in in = wire_in_of(r->locks.items);
    struct json j = json_to(stdout);
    struct lock_info l;
    struct lock_held h;

    json_object(&j, NULL);
    json_array(&j, "locks");
    for (uint32_t i = 0; i < r->locks.count && next(&in, &l, &h); i++) {
        json_object(&j, NULL);
        json_num(&j, "inode", h.ino);
        json_str(&j, "kind", kind_name(h.kind));
        json_str(&j, "type", type_name(h.type));
        json_num(&j, "first", h.first);
        if (h.last == LOCK_LAST) {
            json_null(&j, "last");
        } else {
            json_num(&j, "last", h.last);
        }
        json_bool(&j, "waits", l.waits != 0);
        json_num(&j, "since_ms", l.since_ms);
        json_text(&j, "host", l.host);
        json_text(&j, "client", l.name);
        json_num(&j, "pid", h.pid);
        json_num(&j, "session", l.session);
        json_end(&j);
    }
    json_end(&j);
    json_bool(&j, "more", r->more != 0);
    json_bool(&j, "starting", r->grace != 0);
    json_end(&j);
}

static void print_text(const struct locks_rep *r)
{
    struct table *t = table_new("INODE KIND TYPE >FIRST >LAST STATE >SINCE HOST CLIENT >PID");
    struct wire_in in = wire_in_of(r->locks.items);
    char buf[TEXT_NUMBER];
    struct lock_info l;
    struct lock_held h;

    for (uint32_t i = 0; i < r->locks.count && next(&in, &l, &h); i++) {
        table_cell(t, "%ju", (uintmax_t)h.ino);
        table_cell(t, "%s", kind_name(h.kind));
        table_cell(t, "%s", type_name(h.type));
        table_cell(t, "%ju", (uintmax_t)h.first);
        if (h.last == LOCK_LAST) {
            table_cell(t, "end");
        } else {
            table_cell(t, "%ju", (uintmax_t)h.last);
        }
        table_cell(t, "%s", l.waits != 0 ? "waits" : "held");
        table_cell(t, "%s", text_ago(l.since_ms, buf));
        table_cell(t, "%.*s", (int)l.host.len, (const char *)l.host.p);
        table_cell(t, "%.*s", (int)l.name.len, (const char *)l.name.p);
        table_cell(t, "%u", h.pid);
    }
    table_print(t, stdout);
    table_free(t);
    if (r->more != 0) {
        printf("there are more\n");
    }
    if (r->grace != 0) {
        printf("the master has just started: not every client has told what it holds\n");
    }
}

/* The inode at a path. */
static int inode_of(struct cli *cli, const char *path, uint64_t *ret)
{
    struct remote r = { 0 };
    struct attr a;
    int status = remote_open(cli, &r);

    status = status != CLI_DONE ? status : remote_resolve(&r, path, &a);
    if (status == CLI_DONE) {
        *ret = a.ino;
    }
    remote_close(&r);
    return status;
}

int cmd_locks(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };
    struct locks_req req = { .max = LOCKS_MAX };
    struct locks_rep rep;
    struct why why = { "" };
    struct wire_out msg, reply;
    int status = CLI_DONE;
    int err;

    if (!cli_begin(cli, argc, argv, opts, 0, 1)) {
        return cli->status;
    }
    if (cli->arg_count == 1) {
        status = inode_of(cli, cli->args[0], &req.ino);
    }
    if (status != CLI_DONE) {
        return status;
    }
    wire_out_init(&msg, KIB);
    wire_out_init(&reply, LIMIT_MSG);
    locks_req_put(&msg, &req);
    err = client_admin(cli->conf, RPC_locks, wire_out_slice(&msg), &reply, &why);
    err = err != DFS_OK ? err : locks_rep_get(wire_out_slice(&reply), &rep);
    if (err == DFS_OK && cli->json) {
        print_json(&rep);
    } else if (err == DFS_OK) {
        print_text(&rep);
    }
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    return err != DFS_OK
               ? cli_fail(cli, err, &why, "no answer from the masters at %s", cli->conf->masters)
               : CLI_DONE;
}
