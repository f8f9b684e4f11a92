# Copies: as configured, per directory, per file, changed at any time; what fsck and status say.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --blocks 4
    head -c 3000000 /dev/urandom >"$T/data"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    M=$T/c.mnt
}

# Replica files of blocks that a path's extents name, over all servers.
copies() { # PATH: copies of its first block
    local id
    id=$(dfs c stat --json "$1" | jq -r '.extents[0].block')
    find "$T"/c/data/block-*/ -type f -name "$(printf %016x "$id")" | wc -l
}

copies_are() { # PATH N
    [ "$(copies "$1")" = "$2" ]
}

@test "replication: files have as many copies as the cluster's default" {
    cp "$T/data" "$M/two"
    sync "$M/two"
    copies_are /two 2
    healthy c /two
    status_is c under_replicated 0
}

@test "replication: 1, 2 and 3 by directory, inherited by new files" {
    for n in 1 2 3; do
        mkdir "$M/d$n"
        dfs c setrep $n "/d$n"
        mkdir "$M/d$n/sub"
        cp "$T/data" "$M/d$n/sub/f"
        sync "$M/d$n/sub/f"
        copies_are "/d$n/sub/f" $n
        cmp "$T/data" "$M/d$n/sub/f"
    done
    healthy c
}

@test "replication: setrep -w adds copies and waits for them" {
    dfs c setrep -w 4 /two
    copies_are /two 4
    healthy c /two
    cmp "$T/data" "$M/two"
}

@test "replication: fewer copies are trimmed within seconds" {
    dfs c setrep 1 /two
    wait_until 15 copies_are /two 1
    healthy c /two
    cmp "$T/data" "$M/two"
}

@test "replication: setrep changes a whole tree" {
    mkdir -p "$M/tree/a/b"
    for i in 1 2 3 4 5; do head -c 100000 /dev/urandom >"$M/tree/a/b/f$i"; done
    dfs c setrep -w 3 /tree
    healthy c /tree
    for i in 1 2 3 4 5; do copies_are "/tree/a/b/f$i" 3; done
    touch "$M/tree/a/new"
    dfs c stat --json /tree/a/new | jq -e '.replication == 3'
}

@test "replication: wrong numbers and paths are refused" {
    run -2 dfs c setrep 0 /two
    run -2 dfs c setrep 17 /two
    run -2 dfs c setrep many /two
    run -1 dfs c setrep 2 /nothing
    [[ $output == *"/nothing"* ]]
}

@test "replication: a dead server's copies are made again elsewhere" {
    cp "$T/data" "$M/safe"
    sync "$M/safe"
    dfs c setrep -w 2 /safe
    victim=$(dfs c stat --json /safe | jq -r '.extents[0].servers[0].host')
    kill_hard c "$victim"
    run dfs c fsck /safe
    wait_until 10 servers_in_state c dead 1
    wait_until 20 healthy c /safe
    cmp "$T/data" "$M/safe"
}

@test "replication: with too few servers fsck says so, by name and exit status" {
    # one server is dead already; three are left: four copies are not to be had
    dfs c setrep 4 /safe
    run -1 dfs c fsck /safe
    [[ $output == *"/safe"* ]]
    [[ $output == *"under-replicated"* ]]
    some_lack_copies() { [ "$(status_num c under_replicated)" -gt 0 ]; }
    wait_until 5 some_lack_copies
    dfs c fsck --json /safe >"$T/fsck.json" || true
    jq -e . "$T/fsck.json"
    dfs c setrep 2 /safe
    wait_until 15 healthy c /safe
    cluster c
    wait_until 20 servers_in_state c live 4
}

@test "replication: when the last copy is gone fsck says missing, until its server is back" {
    dfs c setrep -w 1 /d1/sub/f
    holder=$(dfs c stat --json /d1/sub/f | jq -r '.extents[0].servers[0].host')
    kill_hard c "$holder"
    wait_until 10 servers_in_state c dead 1
    run -2 dfs c fsck /d1
    [[ $output == *"/d1/sub/f"* ]]
    [[ $output == *"missing"* ]]
    cluster c
    wait_until 20 healthy c /d1
    cmp "$T/data" "$M/d1/sub/f"
}

@test "replication: a server that comes back gives up copies that are too many" {
    wait_until 20 healthy c
    trimmed() { [ "$(copies /safe)" = 2 ] && [ "$(copies /two)" = 1 ]; }
    wait_until 20 trimmed || { dfs c stat /safe; dfs c stat /two; dfs c fsck /; find "$T"/c/data/block-* -name '00*'; false; } >&2
    cmp "$T/data" "$M/safe"
}

@test "replication: a damaged copy is noticed, read around and replaced" {
    cp "$T/data" "$M/flip"
    sync "$M/flip"
    id=$(printf %016x "$(dfs c stat --json /flip | jq -r '.extents[0].block')")
    f=$(find "$T"/c/data/block-*/ -type f -name "$id" | head -n 1)
    umount "$M"
    wait_until 30 gone "$(pid_of c mount-1)"
    printf 'XXXXXXXX' | dd of="$f" bs=1 seek=20000 conv=notrunc status=none
    cluster c
    for i in 1 2 3 4; do cmp "$T/data" "$M/flip"; done
    run dfs c fsck /flip
    wait_until 20 healthy c /flip
}
