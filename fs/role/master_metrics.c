/* A master's numbers: the answer to `dfs status`, told once more, and what only it knows. */
#include "cluster/base/clock.h"
#include "cluster/base/metrics.h"

#include "fs/role/master_int.h"
#include "fs/role/role_metrics.h"

static double up(uint8_t state)
{
    return state == MEMBER_LIVE ? 1 : state == MEMBER_SUSPECT ? 0.5 : 0;
}

static void tell_servers(const struct status_rep *rep, struct metrics_out *out)
{
    struct wire_in in = wire_in_of(rep->servers.items);
    struct server_info s;

    for (uint32_t i = 0; i < rep->servers.count && server_info_get(&in, &s) == DFS_OK; i++) {
        char *name = x_printf("%.*s %.*s", (int)s.host.len, (const char *)s.host.p, (int)s.addr.len,
                              (const char *)s.addr.p);

        metrics_tell(out, METRIC_server_up, "server", name, up(s.state));
        metrics_tell(out, METRIC_server_seen, "server", name, (double)s.last_seen_ms / 1e3);
        metrics_tell(out, METRIC_server_total, "server", name, (double)s.total);
        metrics_tell(out, METRIC_server_used, "server", name, (double)s.used);
        metrics_tell(out, METRIC_server_free, "server", name, (double)s.free);
        metrics_tell(out, METRIC_server_blocks, "server", name, (double)s.blocks);
        metrics_tell(out, METRIC_server_trouble, "server", name, s.trouble);
        metrics_tell(out, METRIC_server_away, "server", name, (double)s.away_ms / 1e3);
        metrics_tell(out, METRIC_server_leaving, "server", name, s.intent);
        metrics_tell(out, METRIC_server_left, "server", name, (double)s.left_blocks);
        free(name);
    }
}

static void tell_status(const struct status_rep *rep, struct metrics_out *out)
{
    const struct {
        enum metric m;
        uint64_t v;
    } plain[] = {
        { METRIC_inodes, rep->files },
        { METRIC_file_bytes, rep->file_bytes },
        { METRIC_sessions, rep->sessions },
        { METRIC_blocks, rep->blocks },
        { METRIC_under_replicated, rep->under_replicated },
        { METRIC_missing, rep->missing },
        { METRIC_corrupt, rep->corrupt },
        { METRIC_misplaced, rep->misplaced },
        { METRIC_repairing, rep->repairing },
        { METRIC_repair_bytes, rep->repair_bytes },
        { METRIC_repair_rate, rep->repair_rate },
        { METRIC_moving, rep->moving },
        { METRIC_balance_bytes, rep->balance_bytes },
        { METRIC_balance_rate, rep->balance_rate },
        { METRIC_live_bytes, rep->live_bytes },
        { METRIC_garbage_bytes, rep->garbage_bytes },
        { METRIC_open_bytes, rep->open_bytes },
        { METRIC_deleting, rep->deleting },
        { METRIC_scanning, rep->scanning },
    };

    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        metrics_tell(out, plain[i].m, NULL, NULL, (double)plain[i].v);
    }
}

void master_metrics_collect(void *arg, struct metrics_out *out)
{
    struct master *m = arg;
    uint64_t since = atomic_load(&m->core.pending_since_us);
    uint64_t now = clock_mono_us();
    struct status_rep rep;
    struct rpc_stats rpc;
    struct wire_out msg;

    metrics_tell(out, METRIC_leader, NULL, NULL, atomic_load(&m->leads));
    metrics_tell(out, METRIC_applied, NULL, NULL, (double)ns_applied(m->ns));
    metrics_tell(out, METRIC_log_age, NULL, NULL,
                 since == 0 || since > now ? 0 : (double)(now - since) / 1e6);
    rpc_server_stats(m->rpc, &rpc);
    metrics_tell(out, METRIC_rpc_garbage, NULL, NULL, (double)rpc.refused_frames);
    wire_out_init(&msg, LIMIT_MSG);
    if (master_admin_status(m, &msg) == DFS_OK &&
        status_rep_get(wire_out_slice(&msg), &rep) == DFS_OK) {
        tell_status(&rep, out);
        tell_servers(&rep, out);
    }
    wire_out_fini(&msg);
}
