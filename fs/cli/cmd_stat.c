#include <sys/stat.h>
#include <time.h>

#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/table.h"
#include "cluster/base/text.h"

#include "fs/cli/cli.h"
#include "fs/cli/remote.h"

#define TIME_TEXT 48

/* Where the extents go to: a table, or JSON. */
struct extents_out {
    struct json *json;
    struct table *table;
    uint64_t count;
};

static const char *block_state_name(uint8_t state)
{
    return state == BLOCK_OPEN      ? "open"
           : state == BLOCK_SEALED  ? "sealed"
           : state == BLOCK_DELETED ? "deleted"
                                    : "unknown";
}

static const char *member_state_name(uint8_t state)
{
    return state == MEMBER_LIVE ? "live" : state == MEMBER_SUSPECT ? "suspect" : "dead";
}

/* "2026-11-22T16:10:35.123456789Z" */
static const char *time_text(int64_t ns, char buf[TIME_TEXT])
{
    int64_t rest = ns % NS_PER_SEC;
    time_t s = (time_t)(ns / NS_PER_SEC);
    struct tm tm;
    size_t n;

    if (rest < 0) {
        rest += NS_PER_SEC;
        s--;
    }
    (void)gmtime_r(&s, &tm);
    n = strftime(buf, TIME_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(buf + n, TIME_TEXT - n, ".%09dZ", (int)rest);
    return buf;
}

/* ---- extents ---- */

static void json_servers(struct json *j, const struct block_loc *b)
{
    struct wire_in in = wire_in_of(b->nodes.items);
    struct node_addr n;

    json_array(j, "servers");
    for (uint32_t i = 0; i < b->nodes.count && node_addr_get(&in, &n) == 0; i++) {
        json_object(j, NULL);
        json_num(j, "node", n.node);
        json_text(j, "address", n.addr);
        json_text(j, "host", n.host);
        json_str(j, "state", member_state_name(n.state));
        json_end(j);
    }
    json_end(j);
}

static void json_extent(struct json *j, const struct extent *e, const struct block_loc *b)
{
    json_object(j, NULL);
    json_num(j, "offset", e->off);
    json_num(j, "length", e->len);
    json_num(j, "block", e->block);
    json_num(j, "block_offset", e->block_off);
    if (b != NULL) {
        json_str(j, "state", block_state_name(b->state));
        json_num(j, "block_length", b->len);
        json_num(j, "want", b->want);
        json_servers(j, b);
    }
    json_end(j);
}

/* "127.0.0.1:9611, 127.0.0.1:9612 (dead)" */
static char *servers_text(const struct block_loc *b)
{
    struct wire_in in = wire_in_of(b->nodes.items);
    char *all = x_strdup("");
    struct node_addr n;

    for (uint32_t i = 0; i < b->nodes.count && node_addr_get(&in, &n) == 0; i++) {
        char *more = x_printf("%s%s%.*s%s%s%s", all, i > 0 ? ", " : "", (int)n.addr.len,
                              (const char *)n.addr.p, n.state != MEMBER_LIVE ? " (" : "",
                              n.state != MEMBER_LIVE ? member_state_name(n.state) : "",
                              n.state != MEMBER_LIVE ? ")" : "");

        free(all);
        all = more;
    }
    if (all[0] == '\0') {
        free(all);
        all = x_strdup("none");
    }
    return all;
}

static void table_extent(struct table *t, const struct extent *e, const struct block_loc *b)
{
    char *servers = b != NULL ? servers_text(b) : x_strdup("unknown block");

    table_cell(t, "%ju", (uintmax_t)e->off);
    table_cell(t, "%ju", (uintmax_t)e->len);
    table_cell(t, "%ju", (uintmax_t)e->block);
    table_cell(t, "%u", e->block_off);
    table_cell(t, "%s", b != NULL ? block_state_name(b->state) : "-");
    table_cell(t, "%u", b != NULL ? b->want : 0u);
    table_cell(t, "%s", servers);
    free(servers);
}

static bool take_extent(void *arg, const struct extent *e, const struct block_loc *b)
{
    struct extents_out *o = arg;

    o->count++;
    if (o->json != NULL) {
        json_extent(o->json, e, b);
    } else {
        table_extent(o->table, e, b);
    }
    return true;
}

/* ---- the inode ---- */

static int read_target(const struct remote *r, const struct attr *a, char buf[LIMIT_SYMLINK + 1])
{
    size_t len = 0;
    int err = client_readlink(r->c, &r->cr, a->ino, buf, LIMIT_SYMLINK, &len);

    buf[err == 0 ? len : 0] = '\0';
    return err;
}

static int print_json(const struct remote *r, const char *path, const struct attr *a)
{
    struct json j = json_to(stdout);
    struct extents_out out = { .json = &j };
    char target[LIMIT_SYMLINK + 1];
    int err = 0;

    json_object(&j, NULL);
    json_str(&j, "path", path);
    json_num(&j, "inode", a->ino);
    json_str(&j, "type", remote_type(a->mode));
    json_num(&j, "mode", a->mode & 07777);
    json_num(&j, "links", a->nlink);
    json_num(&j, "uid", a->uid);
    json_num(&j, "gid", a->gid);
    json_num(&j, "size", a->size);
    json_num(&j, "bytes", a->bytes);
    json_int(&j, "atime_ns", a->atime);
    json_int(&j, "mtime_ns", a->mtime);
    json_int(&j, "ctime_ns", a->ctime);
    json_num(&j, "version", a->version);
    json_num(&j, "data_version", a->data_version);
    json_num(&j, "replication", a->repl);
    json_num(&j, "quota", a->quota);
    json_bool(&j, "xattrs", (a->flags & ATTR_XATTRS) != 0);
    if (S_ISLNK(a->mode)) {
        err = read_target(r, a, target);
        json_str(&j, "target", target);
    }
    if (S_ISREG(a->mode)) {
        json_array(&j, "extents");
        err = client_each_extent(r->c, a->ino, take_extent, &out);
        json_end(&j);
    }
    json_end(&j);
    return err;
}

static void print_times(const struct attr *a)
{
    char buf[TIME_TEXT];

    printf("accessed     %s\n", time_text(a->atime, buf));
    printf("modified     %s\n", time_text(a->mtime, buf));
    printf("changed      %s\n", time_text(a->ctime, buf));
}

static int print_extents(const struct remote *r, const struct attr *a)
{
    struct extents_out out = { .table =
                                   table_new(">OFFSET >LENGTH >BLOCK >AT STATE >WANT SERVERS") };
    int err = client_each_extent(r->c, a->ino, take_extent, &out);

    printf("extents      %ju\n", (uintmax_t)out.count);
    if (out.count > 0) {
        putchar('\n');
        table_print(out.table, stdout);
    }
    table_free(out.table);
    return err;
}

static int print_text(const struct remote *r, const char *path, const struct attr *a)
{
    char target[LIMIT_SYMLINK + 1], bytes[TEXT_NUMBER];
    int err = 0;

    printf("path         ");
    remote_print_path(stdout, path);
    printf("\ntype         %s\n", remote_type(a->mode));
    printf("inode        %ju, version %ju, content %ju\n", (uintmax_t)a->ino, (uintmax_t)a->version,
           (uintmax_t)a->data_version);
    printf("mode         %04o, owner %u, group %u\n", a->mode & 07777, a->uid, a->gid);
    printf("links        %u\n", a->nlink);
    print_times(a);
    if (S_ISLNK(a->mode)) {
        err = read_target(r, a, target);
        printf("target       ");
        remote_print_path(stdout, target);
        putchar('\n');
    } else if (S_ISDIR(a->mode) && a->repl == 0) {
        printf("copies       the cluster's default, for new files\n");
    } else if (S_ISDIR(a->mode)) {
        printf("copies       %u, for new files\n", a->repl);
    } else if (S_ISREG(a->mode)) {
        printf("size         %ju, %s stored\n", (uintmax_t)a->size, text_bytes(a->bytes, bytes));
        printf("copies       %u\n", a->repl);
        err = print_extents(r, a);
    }
    return err;
}

int cmd_stat(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };
    struct remote r = { 0 };
    struct attr a;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 1)) {
        return cli->status;
    }
    status = remote_open(cli, &r);
    if (status == CLI_DONE) {
        status = remote_resolve(&r, cli->args[0], &a);
    }
    if (status == CLI_DONE) {
        int err = cli->json ? print_json(&r, cli->args[0], &a) : print_text(&r, cli->args[0], &a);

        status = err != 0 ? cli_fail(cli, err, NULL, "%s", cli->args[0]) : CLI_DONE;
    }
    remote_close(&r);
    return status;
}
