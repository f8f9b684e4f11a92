/* dfs fsck: walks a tree and asks for the copies of every block that its files consist of.
 *
 * Files gather until they name HEALTH_BATCH new blocks; then one question is asked and all of them
 * are judged. Only files that are not healthy are named.
 *
 * Files change meanwhile: a block that they named may have been given up since, or be longer now. So
 * before that is held against a file, it and its blocks are asked for again.
 */
#include <sys/stat.h>

#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/progress.h"
#include "cluster/base/text.h"

#include "fs/cli/cli.h"
#include "fs/cli/counts.h"
#include "fs/cli/health.h"
#include "fs/cli/remote.h"

#define EXIT_UNDER     1
#define EXIT_LOST      2
#define GATHER_EXTENTS 65536 /* extents of files that wait to be judged */
#define ASK_AGAIN      5

struct piece {
    uint64_t block;
    uint64_t end; /* bytes of the block that the file needs */
};

struct waiting_file {
    char *path;
    uint64_t ino;
    bool old, gone;
    struct piece *pieces;
    size_t count, cap;
};

struct fsck {
    struct remote *r;
    struct health_cache health;
    struct json json;
    struct progress progress;
    struct waiting_file *files; /* not judged yet */
    size_t file_count, file_cap;
    size_t extent_count; /* of those */
    uint64_t dirs, all_files, others, bytes;
    uint64_t by_state[HEALTH_MISSING + 1]; /* files */
    uint64_t unread;                       /* directories and files */
    bool deep;
    uint64_t bad_copies;
    bool whole, repair; /* whole: the counts are checked, too */
    struct counts counts;
};

/* ---- what files consist of ---- */

static bool take_extent(void *arg, const struct extent *e, const struct block_loc *b UNUSED)
{
    struct waiting_file *w = arg;

    if (w->count == w->cap) {
        w->cap = MAX(4, w->cap * 2);
        w->pieces = x_realloc(w->pieces, w->cap * sizeof(*w->pieces));
    }
    w->pieces[w->count++] = (struct piece){ e->block, e->block_off + e->len };
    return true;
}

static void cannot_read(void *arg, const char *path, int err)
{
    struct fsck *f = arg;

    progress_end(&f->progress);
    f->unread++;
    (void)cli_fail(f->r->cli, err, NULL, "%s", path);
}

/* The file's blocks are to be asked for. False: it is not there any more, or cannot be read. */
static bool list(struct fsck *f, struct waiting_file *w, int *status)
{
    int err;

    w->count = 0;
    err = client_each_extent(f->r->c, w->ino, take_extent, w);
    if (err != 0) {
        free(w->pieces);
        w->pieces = NULL;
        w->count = w->cap = 0;
        if (err != DFS_ENOENT && err != DFS_ESTALE) {
            cannot_read(f, w->path, err);
        }
        return false;
    }
    for (size_t i = 0; i < w->count && *status == CLI_DONE; i++) {
        if (!health_want(&f->health, w->pieces[i].block)) {
            *status = health_ask(&f->health);
            (void)health_want(&f->health, w->pieces[i].block);
        }
    }
    return true;
}

/* What is known of the block does not fit the file: one of the two is old. */
static bool differs(const struct fsck *f, const struct piece *p)
{
    const struct block_status *b = health_find(&f->health, p->block);

    return b == NULL || b->state == 0 || b->state == BLOCK_DELETED || b->len < p->end;
}

/* Lists files again that differ from what is known of their blocks, and asks for these. */
static int look_again(struct fsck *f, bool *ret_again)
{
    int status = CLI_DONE;

    *ret_again = false;
    for (size_t i = 0; i < f->file_count; i++) {
        struct waiting_file *w = &f->files[i];

        w->old = false;
        for (size_t k = 0; k < w->count; k++) {
            w->old = w->old || differs(f, &w->pieces[k]);
        }
    }
    for (size_t i = 0; i < f->file_count; i++) {
        const struct waiting_file *w = &f->files[i];

        for (size_t k = 0; w->old && k < w->count; k++) {
            if (differs(f, &w->pieces[k])) {
                health_drop(&f->health, w->pieces[k].block);
            }
        }
    }
    for (size_t i = 0; i < f->file_count && status == CLI_DONE; i++) {
        struct waiting_file *w = &f->files[i];

        if (w->old) {
            *ret_again = true;
            w->gone = !list(f, w, &status);
            f->all_files -= w->gone;
        }
    }
    return status == CLI_DONE ? health_ask(&f->health) : status;
}

/* ---- judging ---- */

static enum health_state piece_state(const struct fsck *f, const struct piece *p)
{
    const struct block_status *b = health_find(&f->health, p->block);
    enum health_state s;

    if (b == NULL) {
        return HEALTH_MISSING;
    }
    s = health_of(b);
    return s < HEALTH_CORRUPT && b->len < p->end ? HEALTH_CORRUPT : s;
}

/* What is wrong with the places of a block's copies. */
static const char *places(uint8_t misplaced)
{
    return (misplaced & MISPLACED_HOST) != 0   ? ", two on one host"
           : (misplaced & MISPLACED_RACK) != 0 ? ", all on one rack"
           : misplaced != 0                    ? ", not on the labels of its storage rule"
                                               : "";
}

static void print_piece(struct fsck *f, const struct piece *p, enum health_state s)
{
    const struct block_status *b = health_find(&f->health, p->block);
    struct block_status none = { 0 };

    b = b != NULL ? b : &none;
    if (f->r->cli->json) {
        json_object(&f->json, NULL);
        json_num(&f->json, "block", p->block);
        json_str(&f->json, "state", health_name(s));
        json_num(&f->json, "live", b->live);
        json_num(&f->json, "want", b->want);
        json_num(&f->json, "corrupt", b->corrupt);
        json_bool(&f->json, "misplaced", b->misplaced != 0);
        json_end(&f->json);
        return;
    }
    printf("    block %ju: %s, %u of %u copies%s", (uintmax_t)p->block, health_name(s), b->live,
           b->want, places(b->misplaced));
    if (b->corrupt > 0) {
        printf(", %u damaged", b->corrupt);
    }
    putchar('\n');
}

static void print_file(struct fsck *f, const struct waiting_file *file, enum health_state worst)
{
    uint64_t last = 0;

    progress_end(&f->progress);
    if (f->r->cli->json) {
        json_object(&f->json, NULL);
        json_str(&f->json, "path", file->path);
        json_str(&f->json, "state", health_name(worst));
        json_array(&f->json, "blocks");
    } else {
        remote_print_path(stdout, file->path);
        printf(": %s\n", health_name(worst));
    }
    for (size_t i = 0; i < file->count; i++) {
        enum health_state s = piece_state(f, &file->pieces[i]);

        if (s != HEALTH_FINE && file->pieces[i].block != last) {
            print_piece(f, &file->pieces[i], s);
            last = file->pieces[i].block;
        }
    }
    if (f->r->cli->json) {
        json_end(&f->json);
        json_end(&f->json);
    }
}

static void judge(struct fsck *f, struct waiting_file *file)
{
    enum health_state worst = HEALTH_FINE;

    if (file->gone) {
        free(file->path);
        return;
    }

    for (size_t i = 0; i < file->count; i++) {
        enum health_state one = piece_state(f, &file->pieces[i]);

        worst = MAX(worst, one);
    }
    f->by_state[worst]++;
    if (worst != HEALTH_FINE) {
        print_file(f, file, worst);
    }
    free(file->path);
    free(file->pieces);
}

static int judge_all(struct fsck *f)
{
    int status = health_ask(&f->health);
    bool again = true;

    for (int i = 0; i < ASK_AGAIN && status == CLI_DONE && again; i++) {
        status = look_again(f, &again);
    }
    for (size_t i = 0; i < f->file_count && status == CLI_DONE; i++) {
        judge(f, &f->files[i]);
    }
    if (status == CLI_DONE) {
        f->file_count = 0;
        f->extent_count = 0;
        if (f->health.known.count > HEALTH_KNOWN_MAX) {
            health_forget(&f->health);
        }
    }
    return status;
}

/* ---- gathering ---- */

static int gather(struct fsck *f, const char *path, const struct attr *a)
{
    struct waiting_file w = { .path = x_strdup(path), .ino = a->ino };
    int status = CLI_DONE;

    if (!list(f, &w, &status)) {
        free(w.path);
        return status;
    }
    if (f->file_count == f->file_cap) {
        f->file_cap = MAX(256, f->file_cap * 2);
        f->files = x_realloc(f->files, f->file_cap * sizeof(*f->files));
    }
    f->files[f->file_count++] = w;
    f->extent_count += w.count + 1;
    f->all_files++;
    f->bytes += a->size;
    progress_add(&f->progress, a->bytes);
    if (status == CLI_DONE &&
        (f->health.wanted_count == HEALTH_BATCH || f->extent_count >= GATHER_EXTENTS)) {
        status = judge_all(f);
    }
    return status;
}

static int visit(void *arg, const char *path, const struct attr *a)
{
    struct fsck *f = arg;

    if (S_ISREG(a->mode)) {
        return gather(f, path, a);
    }
    if (S_ISDIR(a->mode)) {
        f->dirs++;
    } else {
        f->others++;
    }
    return 0;
}

/* With --deep: a copy that is not what the master takes it for. */
static void on_bad_copy(void *arg, uint64_t block, const char *addr, int err)
{
    struct fsck *f = arg;

    f->bad_copies++;
    progress_end(&f->progress);
    fprintf(stderr, "dfs fsck: block %ju on %s: %s\n", (uintmax_t)block, addr, err_text(err));
}

/* ---- the result ---- */

static int verdict(const struct fsck *f)
{
    const struct audit_rep *a = &f->counts.rep;
    uint64_t lost = f->by_state[HEALTH_MISSING] + f->by_state[HEALTH_CORRUPT];
    uint64_t odd = f->by_state[HEALTH_UNDER] + f->by_state[HEALTH_MISPLACED] + f->unread +
                   f->bad_copies + (f->repair ? 0 : a->wrong + a->quotas_wrong);

    return lost > 0 ? EXIT_LOST : odd > 0 ? EXIT_UNDER : CLI_DONE;
}

static void json_counts(struct json *j, const struct audit_rep *a)
{
    struct wire_in in = wire_in_of(a->found.items);
    struct live_count c;

    json_object(j, "counts");
    json_num(j, "blocks", a->blocks);
    json_num(j, "extents", a->extents);
    json_num(j, "wrong", a->wrong);
    json_num(j, "unused", a->unused);
    json_num(j, "dangling_extents", a->dangling);
    json_num(j, "repaired", a->repaired);
    json_num(j, "quotas", a->quotas);
    json_num(j, "quotas_wrong", a->quotas_wrong);
    json_array(j, "found");
    for (uint32_t i = 0; i < a->found.count && live_count_get(&in, &c) == DFS_OK; i++) {
        json_object(j, NULL);
        json_num(j, "block", c.block);
        json_num(j, "copies", c.repl);
        json_num(j, "counted_bytes", c.was);
        json_num(j, "used_bytes", c.used);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void print_counts(const struct fsck *f)
{
    const struct audit_rep *a = &f->counts.rep;
    struct wire_in in = wire_in_of(a->found.items);
    struct live_count c;

    for (uint32_t i = 0; i < a->found.count && live_count_get(&in, &c) == DFS_OK; i++) {
        printf("block %ju: %ju bytes with %u copies counted, %ju used\n", (uintmax_t)c.block,
               (uintmax_t)c.was, c.repl, (uintmax_t)c.used);
    }
    printf("%ju blocks, %ju extents, %ju quotas: ", (uintmax_t)a->blocks, (uintmax_t)a->extents,
           (uintmax_t)a->quotas);
    if (a->wrong + a->dangling + a->quotas_wrong == 0) {
        printf("all counts are right\n");
        return;
    }
    printf("%ju blocks with wrong counts, %ju of them unused; %ju extents without a block",
           (uintmax_t)a->wrong, (uintmax_t)a->unused, (uintmax_t)a->dangling);
    if (a->quotas_wrong > 0) {
        printf("; %ju quotas with wrong sums", (uintmax_t)a->quotas_wrong);
    }
    if (f->repair) {
        printf("; %ju counts set right\n", (uintmax_t)a->repaired);
    } else {
        printf("%s\n", a->wrong + a->quotas_wrong > 0 ? " (--repair sets counts right)" : "");
    }
}

static void print_summary(struct fsck *f, const char *path)
{
    char bytes[TEXT_NUMBER];

    if (f->r->cli->json) {
        struct json *j = &f->json;

        json_end(j);
        json_str(j, "path", path);
        json_bool(j, "healthy", verdict(f) == CLI_DONE);
        json_num(j, "directories", f->dirs);
        json_num(j, "file_count", f->all_files);
        json_num(j, "others", f->others);
        json_num(j, "bytes", f->bytes);
        json_num(j, "healthy_files", f->by_state[HEALTH_FINE]);
        json_num(j, "misplaced", f->by_state[HEALTH_MISPLACED]);
        json_num(j, "under_replicated", f->by_state[HEALTH_UNDER]);
        json_num(j, "missing", f->by_state[HEALTH_MISSING]);
        json_num(j, "corrupt", f->by_state[HEALTH_CORRUPT]);
        json_num(j, "unreadable", f->unread);
        if (f->deep) {
            json_num(j, "copies_checked", deep_copies(f->health.deep));
            json_num(j, "bytes_checked", deep_bytes(f->health.deep));
            json_num(j, "bad_copies", f->bad_copies);
        }
        if (f->whole) {
            json_counts(j, &f->counts.rep);
        }
        json_end(j);
        return;
    }
    printf("%ju files in %ju directories, %s: %ju healthy, %ju under-replicated, %ju missing, "
           "%ju corrupt",
           (uintmax_t)f->all_files, (uintmax_t)f->dirs, text_bytes(f->bytes, bytes),
           (uintmax_t)f->by_state[HEALTH_FINE], (uintmax_t)f->by_state[HEALTH_UNDER],
           (uintmax_t)f->by_state[HEALTH_MISSING], (uintmax_t)f->by_state[HEALTH_CORRUPT]);
    if (f->by_state[HEALTH_MISPLACED] > 0) {
        printf(", %ju misplaced", (uintmax_t)f->by_state[HEALTH_MISPLACED]);
    }
    if (f->unread > 0) {
        printf(", %ju could not be looked at", (uintmax_t)f->unread);
    }
    putchar('\n');
    if (f->deep) {
        printf("%ju copies read, %s: %ju bad\n", (uintmax_t)deep_copies(f->health.deep),
               text_bytes(deep_bytes(f->health.deep), bytes), (uintmax_t)f->bad_copies);
    }
    if (f->whole) {
        print_counts(f);
    }
}

/* All bytes of the file system, for the progress; 0 when only a part is looked at. */
static uint64_t total_bytes(const struct remote *r, const char *path)
{
    struct status_rep s = { 0 };
    struct wire_out rep;

    if (strcmp(path, "/") != 0) {
        return 0;
    }
    wire_out_init(&rep, LIMIT_MSG);
    if (client_admin(r->cli->conf, RPC_status, SLICE_EMPTY, &rep, NULL) != 0 ||
        status_rep_get(wire_out_slice(&rep), &s) != 0) {
        s.file_bytes = 0;
    }
    wire_out_fini(&rep);
    return s.file_bytes;
}

static int check(struct fsck *f, const char *path)
{
    struct attr a;
    int status = remote_resolve(f->r, path, &a);

    if (status != CLI_DONE) {
        return EXIT_LOST; /* nothing can be said about it: not "a copy is missing" */
    }
    health_init(&f->health, f->r);
    f->health.deep = f->deep ? deep_new(f->r) : NULL;
    f->health.on_bad = on_bad_copy;
    f->health.arg = f;
    f->json = json_to(stdout);
    if (f->r->cli->json) {
        json_object(&f->json, NULL);
        json_array(&f->json, "files");
    }
    progress_begin(&f->progress, "checking", total_bytes(f->r, path));
    status = remote_walk(f->r, path, &a, visit, cannot_read, f);
    if (status == CLI_DONE) {
        status = judge_all(f);
    }
    progress_end(&f->progress);
    if (status == CLI_DONE && f->whole) {
        status = counts_check(f->r, f->repair, &f->counts);
    }
    if (status == CLI_DONE) {
        print_summary(f, path);
        status = verdict(f);
    } else {
        status = EXIT_LOST;
    }
    for (size_t i = 0; i < f->file_count; i++) {
        free(f->files[i].path);
        free(f->files[i].pieces);
    }
    free(f->files);
    deep_free(f->health.deep);
    counts_fini(&f->counts);
    health_fini(&f->health);
    return status;
}

int cmd_fsck(struct cli *cli, int argc, char **argv)
{
    struct remote r = { 0 };
    struct fsck f = { .r = &r };
    const struct opt opts[] = {
        { "deep", 0, OPT_FLAG, &f.deep, NULL,
          "Has every copy read and its checksums compared by the server that holds it." },
        { "repair", 0, OPT_FLAG, &f.repair, NULL,
          "Sets counts right that are wrong, and deletes blocks that nothing uses." },
        OPT_END,
    };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 0, 1)) {
        return cli->status;
    }
    f.whole = cli->arg_count == 0 || strspn(cli->args[0], "/") == strlen(cli->args[0]);
    if (f.repair && !f.whole) {
        return cli_usage(cli, "--repair is for the whole file system, not for %s", cli->args[0]);
    }
    status = remote_open(cli, &r);
    status = status == CLI_DONE ? check(&f, cli->arg_count > 0 ? cli->args[0] : "/") : EXIT_LOST;
    remote_close(&r);
    return status;
}
