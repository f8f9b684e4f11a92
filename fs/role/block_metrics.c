/* A block server's numbers: its volumes and its data plane. */
#include <stdatomic.h>

#include "fs/role/role_metrics.h"

static void tell_volumes(struct store *s, struct metrics_out *out)
{
    struct store_volume v[LIMIT_VOLUMES];
    size_t count = store_volumes(s, v);

    for (size_t i = 0; i < count; i++) {
        bool serves = v[i].state != VOLUME_FAILED;

        metrics_tell(out, METRIC_volume_up, "path", v[i].path, serves);
        metrics_tell(out, METRIC_volume_total, "path", v[i].path, (double)v[i].total);
        metrics_tell(out, METRIC_volume_free, "path", v[i].path, (double)v[i].free_bytes);
        metrics_tell(out, METRIC_volume_used, "path", v[i].path, (double)v[i].used);
        metrics_tell(out, METRIC_volume_blocks, "path", v[i].path, v[i].blocks);
        metrics_tell(out, METRIC_volume_errors, "path", v[i].path, (double)v[i].errors);
        metrics_tell(out, METRIC_volume_stuck, "path", v[i].path, (double)v[i].stuck_ms / 1e3);
    }
}

static void tell_scrubs(struct scrubber *s, struct metrics_out *out)
{
    struct scrub_progress p[LIMIT_VOLUMES];
    size_t count = scrubber_progress(s, p);

    for (size_t i = 0; i < count; i++) {
        metrics_tell(out, METRIC_scrub_done, "path", p[i].path, (double)p[i].done);
        metrics_tell(out, METRIC_scrub_total, "path", p[i].path, (double)p[i].total);
        metrics_tell(out, METRIC_scrub_rate, "path", p[i].path, (double)p[i].rate);
        metrics_tell(out, METRIC_scrub_ended, "path", p[i].path, (double)p[i].ended_ms / 1e3);
        metrics_tell(out, METRIC_scrub_found, "path", p[i].path, (double)p[i].found);
    }
    metrics_tell(out, METRIC_scrub_waiting, NULL, NULL, (double)scrubber_waiting(s));
}

void block_metrics_collect(void *arg, struct metrics_out *out)
{
    struct block_metrics *b = arg;
    struct blk_stats s;

    blk_server_stats(b->server, &s);
    metrics_tell(out, METRIC_connections, NULL, NULL, (double)s.connections);
    metrics_tell(out, METRIC_writers, NULL, NULL, (double)s.writers);
    metrics_tell(out, METRIC_readers, NULL, NULL, (double)s.readers);
    metrics_tell(out, METRIC_rpc_garbage, NULL, NULL, (double)s.refused);
    metrics_tell(out, METRIC_bytes_written, NULL, NULL, (double)s.written_bytes);
    metrics_tell(out, METRIC_bytes_read, NULL, NULL, (double)s.read_bytes);
    metrics_tell(out, METRIC_block_registered, NULL, NULL, atomic_load(&b->registered));
    metrics_tell(out, METRIC_turned_away, NULL, NULL, (double)s.turned_away);
    tell_volumes(b->store, out);
    tell_scrubs(b->scrubber, out);
}
