# What operators do to block servers and their volumes, and what fails under their hands.
load lib

setup_file() {
    tmp_make
    cluster c --no-mount "${QUICK[@]}" --blocks 4 --set maintenance.clean_stop=60s \
        --set block_size=1MiB
    head -c 3000000 /dev/urandom >"$T/data"
    for i in 1 2 3 4; do dfs c put "$T/data" "/f$i"; done
}

teardown_file() {
    tmp_remove
}

all_read() {
    local i
    for i in 1 2 3 4; do dfs c cat "/f$i" | cmp - "$T/data" || return 1; done
}

server() { # HOST JQ-FILTER: of dfs status
    dfs c status --json | jq -r ".servers[] | select(.host == \"$1\") | $2"
}

server_is() { # HOST JQ-FILTER VALUE
    [ "$(server "$1" "$2")" = "$3" ]
}

replicas_in() { # DIR
    find "$1" -type f -path '*/blocks/*' | wc -l
}

no_replicas() {
    [ "$(replicas_in "$1")" = 0 ]
}

restart() { # PROCESS: after it has ended
    cluster c --no-mount
    wait_until 20 servers_in_state c live 4
}

@test "operators: a decommissioned server is empty, and everything is there" {
    run -0 dfs c decommission block-2 --wait --json
    [ "$(jq -r .intent <<<"$output")" = decommissioned ]
    server_is block-2 .left_blocks 0
    wait_until 20 no_replicas "$T/c/data/block-2"
    healthy c
    kill_hard c block-2
    all_read
    dfs c put "$T/data" /new
    [ "$(dfs c stat --json /new | jq '[.extents[].servers[].host] | index("block-2")')" = null ]
    restart
    server_is block-2 .intent decommissioned
}

@test "operators: a decommission is taken back, and blocks come again" {
    dfs c decommission block-2 --cancel
    server_is block-2 .intent none
    run -1 dfs c decommission block-2 --cancel
    [[ $output == *"not being decommissioned"* ]]
    dfs c setrep -w 4 /new
    healthy c /new
}

@test "operators: a decommission that the others cannot carry is refused" {
    run -1 dfs c decommission block-3
    [[ $output == *"want 4 copies"* ]]
    run -1 dfs c decommission nowhere
    [[ $output == *"no block server"* ]]
    dfs c setrep -w 2 /new
    server_is block-3 .intent none
}

@test "operators: a decommission goes on after a restart of the master" {
    id=$(server block-1 .node)
    dfs c decommission "$id"
    kill_hard c master-1
    cluster c --no-mount
    run -0 dfs c decommission "$(server block-1 .addr)" --wait
    [[ $output == *decommissioned* ]]
    server_is block-1 .blocks 0 || wait_until 20 server_is block-1 .blocks 0
    dfs c decommission "$id" --cancel
    all_read
}

@test "operators: a server in maintenance is not dead, and nothing is copied" {
    # what was too many before has gone
    two_of_each() { dfs c status --json | jq -e '([.servers[].blocks] | add) == 2 * .blocks'; }
    wait_until 60 two_of_each
    before=$(server block-3 .blocks)
    dfs c maintenance block-3 --for 10m
    kill_hard c block-3
    wait_until 10 server_is block-3 .state suspect
    silent() { [ "$(server block-3 .last_seen_ms)" -gt 4000 ]; }
    wait_until 20 silent
    server_is block-3 .state suspect
    status_is c under_replicated 0
    all_read
    restart
    server_is block-3 .blocks "$before"
    server_is block-3 .maintenance asked
    dfs c maintenance block-3 --end
    server_is block-3 .maintenance none
    run -1 dfs c maintenance block-3 --end
    run -2 dfs c maintenance block-3
}

@test "operators: blocks that only the server in maintenance has are named" {
    dfs c put "$T/data" /single
    dfs c setrep -w 1 /single
    holder=$(dfs c stat --json /single | jq -r '.extents[0].servers[0].host')
    run -1 dfs c maintenance "$holder" --for 1m
    [[ $output == *"no other live copy"* ]]
    [[ $output == *"$(dfs c stat --json /single | jq -r '.extents[0].block')"* ]]
    dfs c maintenance "$holder" --for 1m --force
    dfs c maintenance "$holder" --end
    dfs c rm /single
}

@test "operators: a clean stop is a short maintenance, until the server is back" {
    kill -TERM "$(pid_of c block-4)"
    wait_until 10 server_is block-4 .maintenance clean-stop
    restart
    server_is block-4 .maintenance none
}

@test "operators: a server that hangs until it counts as dead comes back with what is valid" {
    p=$(pid_of c block-2)
    kill -STOP "$p"
    wait_until 20 servers_in_state c dead 1
    wait_until 30 healthy c
    dfs c put "$T/data" /meanwhile
    kill -CONT "$p"
    wait_until 20 servers_in_state c live 4
    wait_until 30 healthy c
    all_read
    dfs c cat /meanwhile | cmp - "$T/data"
    # no double copies in the end: as many as wanted, on disk too
    trimmed() { [ "$(find "$T"/c/data/block-*/ -type f -path '*/blocks/*' | wc -l)" = \
        $((2 * $(status_num c blocks))) ]; }
    wait_until 60 trimmed
}

# ---- volumes ----

volume() { # PATH JQ-FILTER: of dfs volume ls
    dfs c volume ls --json | jq -r ".[] | select(.path == \"$1\") | $2"
}

volume_is() { # PATH JQ-FILTER VALUE
    [ "$(volume "$1" "$2")" = "$3" ]
}

@test "operators: a volume is added to a running server, and there after a restart" {
    dfs c volume add block-1 "$T/more"
    wait_until 10 volume_is "$T/more" .state ok
    run -1 dfs c volume add block-1 "$T/more"
    [[ $output == *"already"* ]]
    run -1 dfs c volume add block-2 "$T/more"
    [[ $output == *"running block server"* ]]
    run -1 dfs c volume add block-1 not/absolute
    [[ $output == *"from /"* ]]
    kill_hard c block-1
    restart
    volume_is "$T/more" .state ok
    dfs c put "$T/data" /spread
    dfs c setrep -w 4 /spread
    on_more() { [ "$(replicas_in "$T/more")" -gt 0 ]; }
    on_more || dfs c volume ls >&2
    on_more
}

@test "operators: a disk is replaced with one command, and no copy is missing meanwhile" {
    old=$(dfs c volume ls --json | jq -r '.[] | select(.host == "block-1") | .path' | grep -vF "$T/more")
    run -1 dfs c volume replace block-1 "$T/no-volume" "$T/new-disk"
    [[ $output == *"$T/no-volume: is no volume"* && ! -e $T/new-disk ]]
    run -2 dfs c volume replace block-1 "$old" "$old"
    run -0 dfs c volume replace block-1 "$old" "$T/new-disk" --wait
    [[ $output == *removed* ]]
    no_replicas "$old"
    healthy c
    all_read
    kill_hard c block-1
    restart
    [ -z "$(volume "$old" .path)" ]
    volume_is "$T/new-disk" .state ok
    run -1 dfs c volume remove block-4 "$(dfs c volume ls --json | jq -r '.[] | select(.host == "block-4") | .path')"
    [[ $output == *"only volume"* ]]
}

@test "operators: a volume is moved to another server with all that is on it" {
    dfs c volume ls
    dfs c put "$T/data" /moved
    dfs c setrep -w 4 /moved
    dfs c setrep -w 1 /spread
    kill_hard c block-1
    sed -i "\\|$T/more|d" "$T/c/data/block-1/dfs-volumes" "$T/c/data/block-1/dfs-server"
    dfs c volume add block-2 "$T/more"
    restart
    wait_until 10 volume_is "$T/more" .host block-2
    wait_until 60 healthy c
    all_read
    dfs c cat /moved | cmp - "$T/data"
}

@test "operators: a volume that fails takes its blocks with it, not its server" {
    mv "$T/more" "$T/more.gone"
    # its next replica cannot be made
    failed() { dfs c put -f "$T/data" /try; volume_is "$T/more" .state failed; }
    wait_until 60 failed
    server_is block-2 .state live
    volume_is "$T/new-disk" .state ok
    wait_until 90 healthy c
    all_read
    [ "$(volume "$T/more" .errors)" -gt 0 ]
    dfs c status | grep -q "volume $T/more is failed"
    # let go at once, nothing waits for it
    dfs c volume remove block-2 "$T/more" --wait
    [ -z "$(volume "$T/more" .path)" ]
}
