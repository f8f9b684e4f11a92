/* Is the database older than what was done with it: was a backup put back? Ids that were given since
 * must not be given again, or bytes of two blocks would be taken for each other. Two signs:
 *   master.data is a copy          its lock file is not the one that `place` names; noticed before
 *                                  anything is given
 *   a block that was never given   a server tells of one when it registers, before it gets blocks, or
 *                                  reports it
 * Either way ids leap (fs/ns/leap.c). */
#include <inttypes.h>
#include <sys/stat.h>

#include "cluster/base/io.h"
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define LEAP       (UINT64_C(1) << 32)
#define PLACE_MAX  256
#define KEPT_NS    (INT64_C(30) * 86400 * 1000000000)
#define BLOCK_SANE (UINT64_C(1) << 62)

/* What no copy has in common with the original. */
static char *place_text(const struct master *m)
{
    struct statx st;

    if (statx(m->lock_fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st) != 0) {
        return NULL;
    }
    if ((st.stx_mask & STATX_BTIME) == 0) {
        st.stx_btime.tv_sec = 0;
        st.stx_btime.tv_nsec = 0;
    }
    return x_printf("dfs-place %ju %jd.%u\n", (uintmax_t)st.stx_ino, (intmax_t)st.stx_btime.tv_sec,
                    st.stx_btime.tv_nsec);
}

int master_restored_note(struct master *m, struct why *why)
{
    char *path = x_printf("%s/place", m->conf->master_data);
    char *text = place_text(m);
    int err = text == NULL ? DFS_OK : io_write_file(path, text, strlen(text), 0600, why);

    free(text);
    free(path);
    return err;
}

bool master_restored_is_copy(struct master *m)
{
    char *path = x_printf("%s/place", m->conf->master_data);
    char *now = place_text(m);
    char *was = NULL;
    struct why why = { "" };
    int err = io_read_file(path, PLACE_MAX, &was, NULL, &why);
    bool copy = err != DFS_ENOENT && now != NULL && (err != DFS_OK || strcmp(was, now) != 0);

    free(was);
    free(now);
    free(path);
    return copy;
}

void master_restored_put(struct wire_out *out, uint64_t block)
{
    ns_leap_req_put(out, &(struct ns_leap_req){ .block = block, .by = LEAP });
}

static int next_block(struct master *m, uint64_t *ret)
{
    struct ns_reader *r = ns_reader_new(m->ns);
    struct ns_counts counts;
    int err = ns_get_counts(r, &counts);

    *ret = counts.next_block;
    ns_reader_free(r);
    return err;
}

int master_restored_seen(struct master *m, uint32_t node, uint64_t block)
{
    struct ns_leap_rep rep = { 0 };
    struct wire_out msg, reply;
    uint64_t next = 0;
    int err = next_block(m, &next);

    if (err != DFS_OK || block < next) {
        return err;
    }
    if (block >= BLOCK_SANE) {
        return DFS_OK; /* no master ever gave it */
    }
    wire_out_init(&msg, KIB);
    wire_out_init(&reply, KIB);
    master_restored_put(&msg, block);
    err = master_core_call(m, RPC_ns_leap, wire_out_slice(&msg), &reply);
    err = err != DFS_OK ? err : ns_leap_rep_get(wire_out_slice(&reply), &rep);
    log_event(
        LOG_WARN, "master.restored",
        "node=%u block=%ju next=%ju leapt=%ju err=\"metadata older than the blocks: was a backup put "
        "back? ids go on behind\"",
        node, (uintmax_t)block, (uintmax_t)next, (uintmax_t)rep.next_block);
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    return err;
}

/* ---- blocks that were leapt over ---- */

struct search {
    uint64_t block;
    int64_t now_ns;
    bool found;
};

static void look(void *arg, uint64_t from, uint64_t to, int64_t since_ns)
{
    struct search *s = arg;

    s->found = s->found || (s->block >= from && s->block < to && s->now_ns - since_ns < KEPT_NS);
}

bool master_restored_keeps(struct master *m, uint64_t block)
{
    struct search s = { .block = block, .now_ns = master_now_ns(m) };
    struct ns_reader *r = ns_reader_new(m->ns);
    int err = ns_each_leap(r, look, &s);

    ns_reader_free(r);
    return err != DFS_OK || s.found;
}
