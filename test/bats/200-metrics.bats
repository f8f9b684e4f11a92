# Every role tells its numbers to Prometheus.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --blocks 2
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
}

url_of() { # PROCESS
    sed -n 's/.* metrics.ready .*url="\(.*\)"/\1/p' "$T/c/log/$1.log" | tail -1
}

value() { # PROCESS METRIC (with its label, if it has one)
    curl -sf "$(url_of "$1")" | awk -v m="$2" 'index($0, m " ") == 1 { print $NF }'
}

value_is() { # PROCESS METRIC VALUE
    [ "$(value "$1" "$2")" = "$3" ]
}

@test "metrics: every role answers, each line has the text format" {
    for p in master-1 block-1 block-2 mount-1; do
        curl -sf -D "$T/head" "$(url_of $p)" >"$T/text"
        grep -qi '^content-type: text/plain; version=0.0.4' "$T/head"
        [ "$(grep -c '^# TYPE ' "$T/text")" -gt 8 ]
        run grep -vE '^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"]*"\})? [-+0-9.e]+)$' "$T/text"
        [ -z "$output" ]
        # Each name once, and its samples behind it.
        [ -z "$(grep '^# TYPE' "$T/text" | sort | uniq -d)" ]
        value_is $p "dfs_build_info{version=\"$("$DFS" version --json | jq -r .version)\"}" 1
    done
}

@test "metrics: they count what happens" {
    dd if=/dev/zero of="$T/c.mnt/file" bs=1M count=3 conv=fsync status=none
    value_is mount-1 dfs_mount_written_bytes_total 3145728
    [ "$(value block-1 dfs_block_written_bytes_total)" -ge 3145728 ]
    [ "$(value block-1 dfs_block_sync_seconds_count)" -ge 1 ]
    [ "$(value master-1 dfs_master_commands_total)" -ge 3 ]
    value_is master-1 dfs_file_bytes 3145728
    value_is master-1 dfs_blocks_missing 0
    value_is master-1 dfs_blocks_misplaced 0
    value_is master-1 dfs_repair_pending_bytes 0
    wait_until 30 value_is master-1 dfs_master_scanning 0
}

counted() { # as often as the census is taken
    [ "$(value master-1 dfs_replicas_live_bytes)" = $((2 * 3145728)) ]
}

@test "metrics: what copies hold, and how far the scrub is" {
    wait_until 60 counted
    volume=$(dfs c volume ls --json | jq -r '.[] | select(.host == "block-1") | .path')
    dfs c scrub --now -w
    [ "$(value block-1 "dfs_scrub_last_pass_seconds{path=\"$volume\"}")" != 0 ]
    [ "$(value block-1 "dfs_scrub_done_bytes{path=\"$volume\"}")" -ge 3145728 ]
    value_is block-1 "dfs_scrub_damaged_total{path=\"$volume\"}" 0
    value_is block-1 dfs_scrub_waiting_replicas 0
}

@test "metrics: a dead server shows" {
    name="block-2 $("$DFS" local "$T/c" --status --json | jq -r '.processes[] | select(.name=="block-2").where')"
    value_is master-1 "dfs_server_up{server=\"$name\"}" 1
    kill_hard c block-2
    wait_until 60 value_is master-1 "dfs_server_up{server=\"$name\"}" 0
    cluster c
    wait_until 30 value_is master-1 "dfs_server_up{server=\"$name\"}" 1
}

@test "metrics: other paths and methods are refused; a port in use is named" {
    url=$(url_of master-1)
    [ "$(curl -s -o /dev/null -w '%{http_code}' "${url%/metrics}/")" = 404 ]
    [ "$(curl -s -o /dev/null -w '%{http_code}' -d x "$url")" = 405 ]
    mkdir "$T/m2"
    port=${url#http://} port=${port%/metrics}
    run -1 timeout 60 "$DFS" mount --foreground --conf "$T/c/dfs.conf" --set "client.metrics=$port" "$T"/m2
    [[ $output == *"$port"* ]]
    run -2 "$DFS" status --conf "$T/c/dfs.conf" --set client.metrics=nonsense
    [[ $output == *client.metrics* ]]
}
