#include "cluster/base/metrics.h"

#include "test/unit/tap.h"

static char *text;

static void nothing(void *arg, struct metrics_out *out)
{
    (void)arg;
    (void)out;
}

static void print(enum metric_role role, metrics_collect_fn *collect)
{
    size_t len;

    free(text);
    text = metrics_print(role, collect, NULL, &len);
    CHECK_INT(strlen(text), len);
}

static bool has(const char *line)
{
    char *whole = x_printf("\n%s\n", line);
    bool found = strstr(text, whole) != NULL;

    free(whole);
    return found;
}

static void counters_count_and_roles_see_their_own(void)
{
    metric_add(METRIC_commands, 3);
    metric_add(METRIC_commands, 4);
    print(ROLE_MASTER, nothing);
    CHECK(has("dfs_master_commands_total 7"));
    CHECK(has("# TYPE dfs_master_commands_total counter"));
    CHECK(strstr(text, "dfs_mount_") == NULL);
    print(ROLE_MOUNT, nothing);
    CHECK(strstr(text, "dfs_master_") == NULL);
    CHECK(has("dfs_mount_written_bytes_total 0"));
}

static void timings_are_cumulative_buckets(void)
{
    metric_observe(METRIC_sync_time, 0);
    metric_observe(METRIC_sync_time, 50);
    metric_observe(METRIC_sync_time, 51);
    metric_observe(METRIC_sync_time, 6000000);
    print(ROLE_BLOCK, nothing);
    CHECK(has("dfs_block_sync_seconds_bucket{le=\"5e-05\"} 2"));
    CHECK(has("dfs_block_sync_seconds_bucket{le=\"0.0001\"} 3"));
    CHECK(has("dfs_block_sync_seconds_bucket{le=\"5\"} 3"));
    CHECK(has("dfs_block_sync_seconds_bucket{le=\"+Inf\"} 4"));
    CHECK(has("dfs_block_sync_seconds_count 4"));
    CHECK(has("dfs_block_sync_seconds_sum 6.000101"));
}

static void tell(void *arg, struct metrics_out *out)
{
    (void)arg;
    metrics_tell(out, METRIC_volume_up, "path", "/a", 1);
    metrics_tell(out, METRIC_volume_errors, "path", "/a", 2);
    metrics_tell(out, METRIC_volume_up, "path", "/\"b\\\n", 0);
    metrics_tell(out, METRIC_server_up, "server", "not of this role", 1);
}

static void samples_of_a_metric_stay_together(void)
{
    print(ROLE_BLOCK, tell);
    CHECK(strstr(text, "dfs_volume_up{path=\"/a\"} 1\ndfs_volume_up{path=\"/\\\"b\\\\\\n\"} 0\n") !=
          NULL);
    CHECK(has("dfs_volume_errors_total{path=\"/a\"} 2"));
    CHECK(has("# TYPE dfs_volume_errors_total counter"));
    CHECK(strstr(text, "dfs_server_up") == NULL);
    CHECK(strstr(text, "dfs_volume_free_bytes") == NULL); /* nobody told */
}

int main(void)
{
    tap_run("counters count, and roles see their own", counters_count_and_roles_see_their_own);
    tap_run("timings are cumulative buckets", timings_are_cumulative_buckets);
    tap_run("samples of a metric stay together", samples_of_a_metric_stay_together);
    free(text);
    return tap_done();
}
