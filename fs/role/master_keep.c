/* What is answered and not committed yet.
 *
 * A batch of clients' commands is answered when it is in the log and in the open transaction of the
 * database (ns_keep): that is committed after KEEP_MS, when it is large, when a command of the leader
 * itself or a checkpoint comes, or when somebody asks. Clients' questions see all of it. Everybody else
 * reads what is committed, a state some milliseconds old. Whoever may have heard of something newer by
 * another way, as of a block that a client was given and a server reports, settles first. The
 * keeper hears of changed blocks when they are committed.
 */
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define KEEP_MS       50 /* as often as the keeper looks */
#define KEEP_COMMANDS 128u

void master_keep_on_block(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct master *m = arg;
    struct core *c = &m->core;
    struct block_event ev = { .block = block,
                              .sealed =
                                  rec->state == BLOCK_SEALED && rec->changed_ns == c->applying_ns };

    if (c->event_count != 0 && c->events[c->event_count - 1].block == block) {
        ev.sealed = ev.sealed || c->events[--c->event_count].sealed;
    }
    if (c->event_count == c->event_cap) {
        c->event_cap = MAX(c->event_cap * 2, 64);
        c->events = x_realloc(c->events, c->event_cap * sizeof(*c->events));
    }
    c->events[c->event_count++] = ev;
}

static void tell_keeper(struct master *m)
{
    struct core *c = &m->core;

    uv_timer_stop(&c->flush);
    if (c->event_count != 0) {
        master_keeper_blocks_changed(m, c->events, c->event_count);
        c->event_count = 0;
    }
}

int master_keep_flush(struct master *m, struct why *why)
{
    int err = ns_flush(m->ns, why);

    if (err == DFS_OK) {
        tell_keeper(m);
    }
    return err;
}

static int flush_or_stop(struct master *m)
{
    struct why why = { "" };
    int err = master_keep_flush(m, &why);

    if (err != DFS_OK) {
        master_fail(m, err, why.text);
    }
    return err;
}

static void on_flush(uv_timer_t *t)
{
    flush_or_stop(t->data);
}

void master_keep_applied(struct master *m)
{
    struct core *c = &m->core;

    if (!kv_has_kept(ns_kv(m->ns))) {
        tell_keeper(m);
    } else if (!uv_is_active((uv_handle_t *)&c->flush)) {
        uv_timer_start(&c->flush, on_flush, KEEP_MS, 0);
    }
}

void master_keep_on_settle(struct master *m, struct master_cmd *cmd)
{
    cmd->done(cmd, flush_or_stop(m), SLICE_EMPTY);
}

int master_keep_settle(struct master *m)
{
    return kv_has_kept(ns_kv(m->ns)) ? master_core_call(m, MASTER_SETTLE, SLICE_EMPTY, NULL)
                                     : DFS_OK;
}

void master_keep_init(struct master *m)
{
    uv_timer_init(&m->core.loop, &m->core.flush);
    m->core.flush.data = m;
    ns_keep(m->ns, KEEP_COMMANDS);
}

void master_keep_fini(struct master *m)
{
    uv_close((uv_handle_t *)&m->core.flush, NULL);
    free(m->core.events);
}
