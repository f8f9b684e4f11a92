# Space: a full cluster says so, and goes on when something is deleted; what nobody uses comes back.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
}

teardown_file() {
    local v
    for v in "$T"/full-*; do umount -l "$v" 2>/dev/null; done
    tmp_remove
}

unmount() { # what it has not written yet is written then
    local pid
    pid=$(pid_of c mount-1)
    umount "$M"
    wait_until 30 gone "$pid"
}

setup() {
    require_fuse
}

sum() { # CLUSTER KEY: over all servers
    dfs "$1" status --json | jq "[.servers[].$2] | add"
}

below() { # NUMBER COMMAND...
    [ "$("${@:2}")" -lt "$1" ]
}

@test "space: full volumes are ENOSPC; reading and deleting go on, and then writing" {
    volumes=()
    for i in 1 2 3; do
        mkdir "$T/full-$i"
        mount -t tmpfs -o size=96m none "$T/full-$i" || skip "cannot mount a tmpfs"
        volumes+=(--volume "$T/full-$i")
    done
    # with a grace that would keep all that is deleted until tomorrow
    cluster f "${QUICK[@]}" --blocks 3 --replication 2 --set block_size=4MiB \
        --set block.reserve=2MiB --set delete.grace=1d "${volumes[@]}"
    M=$T/f.mnt
    head -c 3000000 /dev/urandom >"$T/keep"
    cp "$T/keep" "$M/keep"
    sync "$M/keep"
    n=0
    while head -c 10000000 /dev/urandom >"$T/part" && cp "$T/part" "$M/fill$n" 2>"$T/error" &&
        sync "$M/fill$n" 2>"$T/error"; do
        n=$((n + 1))
        [ $n -lt 40 ]
    done
    grep -q 'No space left' "$T/error" || { cat "$T/error"; false; } >&2
    [ $n -ge 5 ] # of 144 MB
    run -1 dd if=/dev/zero of="$M/again" bs=1M count=8 conv=fsync
    [[ $output == *'No space left'* ]]
    cmp "$T/keep" "$M/keep"
    wait_until 20 healthy f /keep
    used=$(sum f used_bytes)
    rm -f "$M"/fill* "$M/again"
    wait_until 60 below $((used / 2)) sum f used_bytes
    for i in 1 2 3 4; do
        cp "$T/part" "$M/new$i"
        sync "$M/new$i"
        cmp "$T/part" "$M/new$i"
    done
    cmp "$T/keep" "$M/keep"
    wait_until 30 healthy f
    "$DFS" local "$T/f" --stop
}

@test "space: blocks of which little is left are compacted, files stay as they are" {
    cluster c "${QUICK[@]}" --blocks 3 --replication 2 --set block_size=2MiB \
        --set compact.rate=1GiB
    M=$T/c.mnt
    mkdir "$M/d" "$T/kept"
    # small files share blocks: one in eight is kept
    for i in $(seq 200); do head -c 50000 /dev/urandom >"$M/d/$i"; done
    for i in $(seq 1 8 200); do cp "$M/d/$i" "$T/kept/$i"; done
    sync "$M/d/200"
    unmount
    wait_until 30 status_is c open_bytes 0
    cluster c
    for i in $(seq 200); do [ -e "$T/kept/$i" ] || rm "$M/d/$i"; done
    some_garbage() { [ "$(status_num c garbage_bytes)" -gt 5000000 ]; }
    wait_until 30 some_garbage
    # readers notice nothing; what is written meanwhile is not undone
    exec 9<"$M/d/1"
    (for i in $(seq 9 8 100); do echo "new $i" >"$T/kept/$i"; cp "$T/kept/$i" "$M/d/$i"; done)
    # what is too little for a round, of each copy, and in blocks that are still half full
    little() { [ "$(status_num c garbage_bytes)" -lt 4000000 ]; }
    wait_until 90 little || { dfs c status; grep compact "$T"/c/log/*; false; } >&2
    cmp "$T/kept/1" - <&9
    exec 9<&-
    diff -r "$T/kept" "$M/d"
    grep -q compact.switched "$T"/c/log/master*
    wait_until 30 healthy c
    wait_until 60 below 8000000 sum c used_bytes
    unmount
    cluster c
    diff -r "$T/kept" "$M/d"
}

@test "space: killed servers and masters in the middle of compaction lose nothing" {
    M=$T/c.mnt
    cp -r "$T/kept" "$M/e"
    for round in 1 ${DFS_LONG:+2 3}; do
        for i in $(seq 100); do head -c 50000 /dev/urandom >"$M/e/x$i"; done
        sync "$M/e/x100"
        rm "$M"/e/x*
        switched=$(cat "$T"/c/log/master* | grep -c 'compact\.')
        more() { [ "$(cat "$T"/c/log/master* | grep -c 'compact\.')" -gt "$switched" ]; }
        wait_until 40 more || true
        kill_hard c "block-$round" master-1
        cluster c
        diff -r "$T/kept" "$M/e"
    done
    wait_until 60 healthy c
    diff -r "$T/kept" "$M/d"
    diff -r "$T/kept" "$M/e"
}
