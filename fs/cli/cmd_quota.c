/* dfs quota: limits of directories; ls lists all of them. */
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"

#include "fs/cli/cli.h"
#include "fs/cli/remote.h"

#define NOT_GIVEN    UINT64_MAX
#define WAIT_POLL_US (100 * 1000)

struct quota {
    struct remote r;
    uint64_t bytes;
    uint64_t inodes;
    bool wait;
};

static const char *state_name(uint8_t state)
{
    return state == QUOTA_ACTIVE     ? "active"
           : state == QUOTA_COUNTING ? "counting"
           : state == QUOTA_CLEARING ? "clearing"
                                     : "unknown";
}

/* ---- printing: a table, or JSON ---- */

struct output {
    struct json *json;
    struct table *table;
    size_t count;
};

static void json_limit(struct json *j, const char *key, uint64_t limit)
{
    if (limit != 0) {
        json_num(j, key, limit);
    } else {
        json_null(j, key);
    }
}

static void show_json(struct json *j, const struct quota_info *q)
{
    json_object(j, NULL);
    if (q->path.len != 0) {
        json_text(j, "path", q->path);
    } else {
        json_null(j, "path");
    }
    json_num(j, "inode", q->ino);
    json_limit(j, "limit_bytes", q->limit_bytes);
    json_num(j, "used_bytes", q->used_bytes);
    json_limit(j, "limit_inodes", q->limit_inodes);
    json_num(j, "used_inodes", q->used_inodes);
    json_str(j, "state", state_name(q->state));
    json_end(j);
}

static void show(void *arg, const struct quota_info *q)
{
    struct output *o = arg;
    char buf[TEXT_NUMBER];

    o->count++;
    if (o->json != NULL) {
        show_json(o->json, q);
        return;
    }
    if (q->path.len != 0) {
        table_cell(o->table, "%.*s", (int)q->path.len, (const char *)q->path.p);
    } else {
        table_cell(o->table, "inode %ju", (uintmax_t)q->ino);
    }
    table_cell(o->table, "%s", text_bytes(q->used_bytes, buf));
    table_cell(o->table, "%s", q->limit_bytes != 0 ? text_size(q->limit_bytes, buf) : "none");
    table_cell(o->table, "%ju", (uintmax_t)q->used_inodes);
    if (q->limit_inodes != 0) {
        table_cell(o->table, "%ju", (uintmax_t)q->limit_inodes);
    } else {
        table_cell(o->table, "none");
    }
    table_cell(o->table, "%s", state_name(q->state));
}

/* path NULL: all of them. */
static int print_quotas(struct quota *c, const char *path)
{
    struct json j = json_to(stdout);
    struct output o = { 0 };
    struct attr a = { 0 };
    int err, status = path != NULL ? remote_resolve(&c->r, path, &a) : CLI_DONE;

    if (status != CLI_DONE) {
        return status;
    }
    if (c->r.cli->json) {
        o.json = &j;
        json_object(&j, NULL);
        json_array(&j, "quotas");
    } else {
        o.table = table_new("DIRECTORY >USED >LIMIT >INODES >LIMIT STATE");
    }
    err = path != NULL ? client_quota_get(c->r.c, &c->r.cr, a.ino, true, show, &o)
                       : client_quota_list(c->r.c, &c->r.cr, show, &o);
    if (o.json != NULL) {
        json_end(&j);
        json_end(&j);
    } else if (err == 0 && o.count != 0) {
        table_print(o.table, stdout);
    } else if (err == 0 && path != NULL) {
        printf("no quota\n");
    }
    table_free(o.table);
    return err != 0 ? cli_fail(c->r.cli, err, NULL, "%s", path != NULL ? path : "quotas")
                    : CLI_DONE;
}

/* ---- changing ---- */

struct progress {
    uint64_t ino;
    bool counting;
};

static void look(void *arg, const struct quota_info *q)
{
    struct progress *p = arg;

    p->counting = p->counting || (q->ino == p->ino && q->state == QUOTA_COUNTING);
}

static int wait_for_count(struct quota *c, uint64_t ino)
{
    struct progress p = { .ino = ino, .counting = true };
    int err = 0;

    while (err == 0 && p.counting) {
        p.counting = false;
        err = client_quota_get(c->r.c, &c->r.cr, ino, false, look, &p);
        if (err == 0 && p.counting) {
            usleep(WAIT_POLL_US);
        }
    }
    return err;
}

static int do_set(struct quota *c, const char *path)
{
    struct quota_set_req req = { .bytes = c->bytes, .inodes = c->inodes };
    struct attr a;
    int err, status;

    if (c->bytes == NOT_GIVEN && c->inodes == NOT_GIVEN) {
        return cli_usage(c->r.cli, "set: give --bytes, --inodes or both");
    }
    status = remote_resolve(&c->r, path, &a);
    if (status != CLI_DONE) {
        return status;
    }
    req.ino = a.ino;
    req.valid =
        (c->bytes != NOT_GIVEN ? QUOTA_BYTES : 0u) | (c->inodes != NOT_GIVEN ? QUOTA_INODES : 0u);
    err = client_quota_set(c->r.c, &c->r.cr, &req);
    if (err == 0 && c->wait) {
        err = wait_for_count(c, a.ino);
    }
    return err != 0 ? cli_fail(c->r.cli, err, NULL, "%s", path) : CLI_DONE;
}

static int do_clear(struct quota *c, const char *path)
{
    struct attr a;
    int err, status = remote_resolve(&c->r, path, &a);

    if (status != CLI_DONE) {
        return status;
    }
    err = client_quota_clear(c->r.c, &c->r.cr, a.ino);
    if (err == DFS_ENODATA) {
        return cli_error(c->r.cli, "%s: it has no quota of its own", path);
    }
    return err != 0 ? cli_fail(c->r.cli, err, NULL, "%s", path) : CLI_DONE;
}

static int do_get(struct quota *c, const char *path)
{
    return print_quotas(c, path);
}

static int do_ls(struct quota *c, const char *path UNUSED)
{
    return print_quotas(c, NULL);
}

static const struct action {
    const char *name;
    int args; /* paths */
    int (*fn)(struct quota *c, const char *path);
} actions[] = {
    { "set", 1, do_set }, { "get", 1, do_get }, { "clear", 1, do_clear }, { "ls", 0, do_ls }
};

static const struct action *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    return NULL;
}

int cmd_quota(struct cli *cli, int argc, char **argv)
{
    struct quota c = { .bytes = NOT_GIVEN, .inodes = NOT_GIVEN };
    const struct opt opts[] = {
        { "bytes", 0, OPT_SIZE, &c.bytes, "N", "The most bytes of files; 0 is no limit." },
        { "inodes", 0, OPT_NUM, &c.inodes, "N",
          "The most files, directories and other inodes; 0 is no limit." },
        { "wait", 'w', OPT_FLAG, &c.wait, NULL,
          "set returns when what is there already is counted." },
        OPT_END,
    };
    const struct action *a;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 2)) {
        return cli->status;
    }
    a = find(cli->args[0]);
    if (a == NULL || cli->arg_count - 1 != a->args) {
        return cli_usage(cli,
                         a == NULL ? "%s: want set, get, clear or ls" : "%s: wrong number of paths",
                         cli->args[0]);
    }
    status = remote_open(cli, &c.r);
    if (status == CLI_DONE) {
        status = a->fn(&c, a->args != 0 ? cli->args[1] : NULL);
    }
    remote_close(&c.r);
    return status;
}
