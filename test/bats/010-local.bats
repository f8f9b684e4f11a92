# A whole cluster on one machine: start, status, stop, restart, and a start that fails.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
}

@test "local: one process for each role, with its files where they are promised" {
    [ -s "$T/c/dfs.conf" ]
    for p in master-1 block-1 block-2 block-3 mount-1; do
        alive "$(pid_of c $p)"
        [ -e "$T/c/log/$p.log" ]
    done
    for p in master-1 block-1 block-2 block-3; do
        [ -d "$T/c/data/$p" ]
    done
    [ "$(ls "$T/c/run/"*.pid | wc -l)" = 5 ]
    echo hello >"$T/c.mnt/hello"
    [ "$(cat "$T/c.mnt/hello")" = hello ]
}

@test "local --status: a table, JSON, and an exit status" {
    run -0 "$DFS" local "$T/c" --status
    [[ $output == *"master-1"*"running"* ]]
    [ "${#lines[@]}" = 6 ]
    [ "$("$DFS" local "$T/c" --status --json | jq -r '.processes[4].where')" = "$T/c.mnt" ]
    [ "$("$DFS" local "$T/c" --status --json | jq .running)" = true ]
    run -1 "$DFS" local "$T/nothing" --status
    [[ $output == *"nothing"* ]]
}

@test "local: again on the same directory changes nothing that runs" {
    before=$(cat "$T"/c/run/*.pid)
    cluster c "${QUICK[@]}"
    [ "$(cat "$T"/c/run/*.pid)" = "$before" ]
}

@test "local: again starts exactly what does not run, with all data" {
    echo kept >"$T/c.mnt/kept"
    sync -f "$T/c.mnt"
    kill_hard c master-1 block-2
    m=$(pid_of c mount-1) b1=$(pid_of c block-1) b2=$(pid_of c block-2)
    run -1 "$DFS" local "$T/c" --status
    cluster c
    [ "$(pid_of c mount-1)" = "$m" ]
    [ "$(pid_of c block-1)" = "$b1" ]
    [ "$(pid_of c block-2)" != "$b2" ]
    [ "$(cat "$T/c.mnt/kept")" = kept ]
    "$DFS" local "$T/c" --status
}

# Stopped before, because the one that lives longer starts the other again.
kill_mount_and_guard() {
    local p all=()
    for p in $(pids_below "$T/c"); do
        [ "$(cat "/proc/$p/comm" 2>/dev/null)" = dfs-guard ] && all+=("$p")
    done
    all+=("$(pid_of c mount-1)")
    kill -STOP "${all[@]}"
    for p in "${all[@]}"; do wait_until 10 grep -q '^State:.T' "/proc/$p/status"; done
    kill -9 "${all[@]}"
    for p in "${all[@]}"; do wait_until 10 gone "$p"; done
}

@test "local: a mount whose processes were all killed is mounted again" {
    for _ in 1 2 3 4 5; do # once is not enough to meet the moment the dead one is taken away
        kill_mount_and_guard
        run -2 ls "$T/c.mnt"
        [[ $output == *"not connected"* ]]
        cluster c
        [ "$(cat "$T/c.mnt/kept")" = kept ]
    done
}

@test "local: processes survive their starter and inherit nothing" {
    for p in master-1 block-1 mount-1; do
        pid=$(pid_of c $p)
        [ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$pid" ]
        [ "$(readlink "/proc/$pid/fd/0")" = /dev/null ]
        [ "$(readlink "/proc/$pid/fd/2")" = "$T/c/log/$p.log" ]
        run ! grep -q "$BATS_ROOT" <(readlink "/proc/$pid/fd/"* 2>/dev/null)
    done
}

@test "local: a second mount and a fourth block server join a running cluster" {
    cluster c --mount "$T/c.second" --blocks 4
    [ "$(cat "$T/c.second/kept")" = kept ]
    servers_in_state c live 4
    run -2 "$DFS" local "$T/c" --blocks 3
}

@test "local --stop: unmounts and ends all, in order; what was written is there again" {
    head -c 3000000 /dev/urandom >"$T/data"
    cp "$T/data" "$T/c.mnt/data"
    pids=$(cat "$T"/c/run/*.pid)
    "$DFS" local "$T/c" --stop
    for p in $pids; do gone "$p"; done
    [ -z "$(mounts_below "$T")" ]
    [ -z "$(ls "$T"/c/run/*.pid 2>/dev/null)" ]
    "$DFS" local "$T/c" --stop
    cluster c
    cmp "$T/data" "$T/c.mnt/data"
    cmp "$T/data" "$T/c.second/data"
}

@test "local: two calls at once do not race" {
    "$DFS" local "$T/c" --stop
    cluster c &
    cluster c &
    wait
    "$DFS" local "$T/c" --status
    [ "$(pids_below "$T/c" | wc -l)" = 9 ] # each mount has its guard
}

@test "local: a start that fails names the process and leaves nothing" {
    mkdir -p "$T/full"
    touch "$T/full/file"
    run -1 "$DFS" local "$T/f" --mount "$T/f.mnt" --mount "$T/full"
    [[ $output == *"mount-2"* ]]
    [[ $output == *"not empty"* ]]
    [ -z "$(pids_below "$T/f")" ]
    [ -z "$(mounts_below "$T/f.mnt")" ]
    [ ! -e "$T/f.mnt" ]
    [ -z "$(ls "$T/f/run/"*.pid "$T/f/run/"*.args 2>/dev/null)" ]
    rm "$T/full/file"
    "$DFS" local "$T/f" --mount "$T/full"
    "$DFS" local "$T/f" --stop
}

@test "local: a start that is interrupted leaves nothing" {
    for _ in 1 2 3 4 5; do
        "$DFS" local "$T/i" --mount "$T/i.mnt" >"$T/i.out" 2>&1 3>&- &
        p=$!
        until [ -e "$T/i/run/master-1.pid" ] || gone "$p"; do :; done # a whole start takes 50 ms
        kill -INT "$p" || true
        rc=0
        wait "$p" || rc=$?
        [ "$rc" = 0 ] || break
        "$DFS" local "$T/i" --stop # it was faster
    done
    [ "$rc" != 0 ]
    [ -z "$(pids_below "$T/i")" ]
    [ -z "$(mounts_below "$T/i.mnt")" ]
}

@test "local: wrong options are refused before anything is done" {
    run -2 "$DFS" local "$T/w" --masters 3
    [[ $output == *"--masters"* ]]
    run -2 "$DFS" local "$T/w" --blocks 0
    run -2 "$DFS" local "$T/w" --replication 99
    run -2 "$DFS" local "$T/w" --set hartbeat=1s
    [[ $output == *heartbeat* ]]
    run -2 "$DFS" local "$T/w" --set masters=a:1
    echo 'block_size = 12parsec' >"$T/bad.conf"
    run -2 "$DFS" local "$T/w" --conf "$T/bad.conf"
    [[ $output == *"bad.conf"* ]]
    run -2 "$DFS" local
    run -2 "$DFS" local "$T/w" --stop --status
    [ ! -e "$T/w/dfs.conf" ]
    [ -z "$(pids_below "$T/w")" ]
}

@test "local: a directory may have any name" {
    for d in "with blank" "a #b" "com,ma" "[ssd]x" "ünï ☃" $'tab\tx'; do
        mkdir -p "$T/names"
        (cd "$T/names" && "$DFS" local "./$d" --blocks 1 --replication 1 --mount "$d/mnt") </dev/null 3>&- 4>&-
        echo hello >"$T/names/$d/mnt/x"
        [ "$("$DFS" cat --conf "$T/names/$d/dfs.conf" /x)" = hello ]
        [ "$(ls "$T/names")" = "$d" ] # and nothing beside it
        "$DFS" local "$T/names/$d" --stop
        rm -r "$T/names"
    done
    run -2 "$DFS" local ""
}

@test "local: --conf, --set and --volume reach the processes" {
    mkdir "$T/vol-a" "$T/vol-b"
    printf 'block_size = 1MiB\nheartbeat = 200ms\n' >"$T/more.conf"
    cluster v --no-mount --blocks 2 --conf "$T/more.conf" --set session.lease=5s \
        --volume "$T/vol-a" --volume "$T/vol-b"
    grep -q '^block_size = 1MiB' "$T/v/dfs.conf"
    grep -q '^session.lease = 5s' "$T/v/dfs.conf"
    [ -e "$T/vol-a/block-1/dfs-volume" ]
    [ -e "$T/vol-b/block-2/dfs-volume" ]
    [ "$(dfs v status --json | jq '.servers[0].volumes | length')" = 2 ]
    run -2 "$DFS" local "$T/v" --volume "$T/vol-c"
    [[ $output == *"already has its volumes"* ]]
    [ ! -e "$T/vol-c" ]
    "$DFS" local "$T/v" --stop
}
