/* dfs setrep: the number of copies of files and trees; -w waits until they are there. */
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/progress.h"

#include "fs/cli/cli.h"
#include "fs/cli/health.h"
#include "fs/cli/remote.h"

#define WAIT_POLL_US (200 * 1000)
#define STALLED_MS   120000 /* without any progress while waiting */

struct setrep {
    struct remote r;
    uint8_t copies;
    bool wait;
    uint64_t files, dirs, failed;
    uint64_t *blocks; /* to wait for */
    size_t block_count, block_cap;
};

static bool take_block(void *arg, const struct extent *e, const struct block_loc *b UNUSED)
{
    struct setrep *s = arg;

    if (s->block_count > 0 && s->blocks[s->block_count - 1] == e->block) {
        return true;
    }
    if (s->block_count == s->block_cap) {
        s->block_cap = MAX(256, s->block_cap * 2);
        s->blocks = x_realloc(s->blocks, s->block_cap * sizeof(*s->blocks));
    }
    s->blocks[s->block_count++] = e->block;
    return true;
}

static void failed(void *arg, const char *path, int err)
{
    struct setrep *s = arg;

    s->failed++;
    (void)cli_fail(s->r.cli, err, NULL, "%s", path);
}

static int visit(void *arg, const char *path, const struct attr *a)
{
    struct setrep *s = arg;
    struct attr now;
    int err;

    if (!S_ISREG(a->mode) && !S_ISDIR(a->mode)) {
        return 0;
    }
    while ((err = client_setrep(s->r.c, &s->r.cr, a->ino, s->copies, &now)) == DFS_EBUSY) {
        usleep(WAIT_POLL_US); /* an earlier change of a large file is not through */
    }
    if (err == 0 && s->wait && S_ISREG(a->mode)) {
        err = client_each_extent(s->r.c, a->ino, take_block, s);
    }
    if (err != 0) {
        failed(s, path, err);
    } else if (S_ISDIR(a->mode)) {
        s->dirs++;
    } else {
        s->files++;
    }
    return 0;
}

/* ---- waiting ---- */

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void sort_blocks(struct setrep *s)
{
    size_t n = 0;

    if (s->block_count == 0) {
        return;
    }
    qsort(s->blocks, s->block_count, sizeof(*s->blocks), compare_ids);
    for (size_t i = 1; i < s->block_count; i++) {
        if (s->blocks[i] != s->blocks[n]) {
            s->blocks[++n] = s->blocks[i];
        }
    }
    s->block_count = n + 1;
}

/* A block that is gone needs no copies. */
static bool settled(const struct block_status *b)
{
    return b == NULL || b->state == 0 || b->state == BLOCK_DELETED || b->live == b->want;
}

/* Keeps those in s->blocks that are not settled; *ret_copies is how many copies are too few or too
 * many by now. */
static int look(struct setrep *s, struct health_cache *h, uint64_t *ret_copies)
{
    size_t kept = 0, from = 0;
    uint64_t copies = 0;

    health_forget(h);
    while (from < s->block_count) {
        size_t to = MIN(from + HEALTH_BATCH, s->block_count);
        int status;

        for (size_t i = from; i < to; i++) {
            (void)health_want(h, s->blocks[i]);
        }
        status = health_ask(h);
        if (status != CLI_DONE) {
            return status;
        }
        for (size_t i = from; i < to; i++) {
            const struct block_status *b = health_find(h, s->blocks[i]);

            if (!settled(b)) {
                copies += (uint64_t)abs(b->live - b->want);
                s->blocks[kept++] = s->blocks[i];
            }
        }
        from = to;
    }
    s->block_count = kept;
    *ret_copies = copies;
    return CLI_DONE;
}

static void show_wait(size_t done, size_t all)
{
    if (progress_wanted()) {
        fprintf(stderr, "\r%zu of %zu blocks have their copies\033[K", done, all);
    }
}

static int wait_for_copies(struct setrep *s)
{
    uint64_t best = UINT64_MAX, copies, since = clock_mono_ms();
    struct health_cache h;
    size_t all;
    int status;

    sort_blocks(s);
    all = s->block_count;
    health_init(&h, &s->r);
    for (;;) {
        status = look(s, &h, &copies);
        if (status != CLI_DONE || s->block_count == 0) {
            break;
        }
        show_wait(all - s->block_count, all);
        if (copies < best) {
            best = copies;
            since = clock_mono_ms();
        } else if (clock_mono_ms() - since > STALLED_MS) {
            status = cli_error(s->r.cli,
                               "%zu of %zu blocks still have too few or too many copies, and "
                               "nothing has changed for two minutes; see dfs status",
                               s->block_count, all);
            break;
        }
        usleep(WAIT_POLL_US);
    }
    if (progress_wanted()) {
        fprintf(stderr, "\r\033[K");
    }
    health_fini(&h);
    return status;
}

/* ---- the command ---- */

static void print_result(const struct setrep *s, int status)
{
    if (s->r.cli->json) {
        struct json j = json_to(stdout);

        json_object(&j, NULL);
        json_num(&j, "replication", s->copies);
        json_num(&j, "files", s->files);
        json_num(&j, "directories", s->dirs);
        json_num(&j, "failed", s->failed);
        json_bool(&j, "complete", status == CLI_DONE && s->wait);
        json_end(&j);
    }
}

static int run(struct setrep *s, char **paths, int count)
{
    int status = CLI_DONE;

    for (int i = 0; i < count; i++) {
        struct attr a;
        int one = remote_resolve(&s->r, paths[i], &a);

        if (one == CLI_DONE) {
            one = remote_walk(&s->r, paths[i], &a, visit, failed, s);
        }
        status = MAX(status, one);
    }
    if (s->wait && s->block_count > 0) {
        int waited = wait_for_copies(s);

        status = MAX(status, waited);
    }
    status = s->failed > 0 ? MAX(status, CLI_FAILED) : status;
    print_result(s, status);
    return status;
}

int cmd_setrep(struct cli *cli, int argc, char **argv)
{
    struct setrep s = { 0 };
    uint64_t copies = 0;
    const struct opt opts[] = {
        { "wait", 'w', OPT_FLAG, &s.wait, NULL,
          "Waits until every block has its copies, and no more than those." },
        OPT_END,
    };
    struct why why = { "" };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 2, -1)) {
        return cli->status;
    }
    if (parse_num(cli->args[0], &copies, &why) != 0 || copies < 1 || copies > LIMIT_REPLICATION) {
        return cli_usage(cli, "\"%s\": want a number of copies from 1 to %d", cli->args[0],
                         LIMIT_REPLICATION);
    }
    s.copies = (uint8_t)copies;
    status = remote_open(cli, &s.r);
    if (status == CLI_DONE) {
        status = run(&s, cli->args + 1, cli->arg_count - 1);
    }
    remote_close(&s.r);
    free(s.blocks);
    return status;
}
