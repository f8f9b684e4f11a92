# What is on disk is checked: damage is found, replaced from a good copy, and never reaches a reader.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --blocks 6 --replication 3 --set block_size=1MiB
    mkdir "$T/data"
    for i in $(seq 60); do head -c 1000000 /dev/urandom >"$T/data/f$i"; done
}

teardown_file() {
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
    M=$T/c.mnt
}

replicas() { # of the whole cluster
    find "$T"/c/data/block-*/ -path '*/blocks/*' -type f | sort
}

# Path, inode, time and content of every replica.
picture() {
    replicas | while read -r f; do echo "$(stat -c '%n %i %y %s' "$f") $(sha1sum <"$f")"; done
}

quiet() { # nothing was written to any replica for a while
    replicas | xargs stat -c '%n %i %y %s' >"$T/quiet.new"
    cmp -s "$T/quiet.new" "$T/quiet" || { mv "$T/quiet.new" "$T/quiet"; sleep 1; return 1; }
}

found() { # damaged copies that were found so far
    dfs c scrub --json | jq '[.servers[].volumes[].found] | add'
}

found_at_least() {
    [ "$(found)" -ge "$1" ]
}

found_is() {
    [ "$(found)" = "$1" ]
}

replaced() { # LIST OF PATH INODE-CHANGED: none of these files is there any more
    while read -r path inode; do
        [ "$(stat -c %i-%.9Z "$path" 2>/dev/null)" != "$inode" ] || return 1
    done <"$1"
}

replica_of() { # PATH N: the n-th copy of its first block
    local id
    id=$(dfs c stat --json "$1" | jq -r '.extents[0].block')
    replicas | grep "$(printf %016x "$id")" | sed -n "$2p"
}

@test "scrub: 100 flipped bits are found and mended, and nothing else is touched" {
    cp -r "$T/data" "$M/"
    unmount
    wait_until 30 healthy c
    wait_until 30 quiet
    picture >"$T/before"
    replicas | xargs "$(helper flip)" 100 "${SEED:-1}" >"$T/flipped" 2>"$T/places"
    xargs stat -c '%n %i-%.9Z' <"$T/flipped" >"$T/bad"
    cluster c
    diff -r "$T/data" "$M/data"  # some of it from damaged copies
    dfs c scrub --now -w
    diff -r "$T/data" "$M/data"
    wait_until 60 found_is 100 || { cat "$T/places"; dfs c scrub; false; } >&2
    wait_until 60 replaced "$T/bad" || { dfs c status; false; } >&2
    wait_until 60 healthy c
    wait_until 10 status_is c corrupt 0
    diff -r "$T/data" "$M/data"
    # every copy that was good is still the same file
    grep -vFf "$T/flipped" "$T/before" >"$T/good"
    picture >"$T/after"
    [ "$(grep -cFxf "$T/good" "$T/after")" = "$(wc -l <"$T/good")" ]
    # the disks' errors are shown
    [ "$(dfs c status --json | jq '[.servers[].volumes[].errors] | add')" -ge 100 ]
    dfs c status | grep -q 'damaged copies or failed accesses'
}

@test "scrub: what is right is never called damaged, also while it is written" {
    before=$(found)
    for i in 1 2 3; do
        cat "$T"/data/f?? >"$M/busy$i" &
        pids+=($!)
    done
    while kill -0 "${pids[@]}" 2>/dev/null; do dfs c scrub --now -w; done
    wait "${pids[@]}"
    dfs c scrub --now -w
    found_is "$before"
    rm "$M"/busy*
}

@test "scrub: a lost file and a cut one are replaced, too" {
    before=$(found)
    stat -c '%n %i-%.9Z' "$(replica_of /data/f1 1)" "$(replica_of /data/f2 1)" >"$T/bad"
    rm "$(replica_of /data/f1 1)"
    truncate -s -10 "$(replica_of /data/f2 1)"
    dfs c scrub /data -w
    wait_until 30 found_is $((before + 2))
    wait_until 30 replaced "$T/bad"
    wait_until 30 healthy c
    cmp "$T/data/f1" "$M/data/f1"
    cmp "$T/data/f2" "$M/data/f2"
}

@test "scrub: a reader that meets a damaged copy has it replaced" {
    unmount
    before=$(found)
    id=$(printf %016x "$(dfs c stat --json /data/f3 | jq -r '.extents[0].block')")
    # the two that are asked first
    for host in $(dfs c stat --json /data/f3 | jq -r '.extents[0].servers[:2][].host'); do
        f=$(find "$T/c/data/$host/" -name "$id")
        stat -c '%n %i-%.9Z' "$f"
        printf 'XXXX' | dd of="$f" bs=1 seek=500000 conv=notrunc status=none
    done >"$T/bad"
    cluster c
    cmp "$T/data/f3" "$M/data/f3"
    wait_until 60 replaced "$T/bad"
    wait_until 30 healthy c /data/f3
    wait_until 30 found_at_least $((before + 2)) # told with the next heartbeat
}

@test "scrub: the last copy is kept, damaged as it is, and named" {
    before=$(found)
    cp "$T/data/f4" "$M/single"
    sync "$M/single"
    dfs c setrep -w 1 /single
    trimmed() { [ -z "$(replica_of /single 2)" ]; }
    wait_until 30 trimmed
    f=$(replica_of /single 1)
    printf 'XXXX' | dd of="$f" bs=1 seek=500000 conv=notrunc status=none
    dfs c scrub /single -w
    wait_until 30 found_is $((before + 1))
    wait_until 10 status_is c corrupt 1
    run -2 dfs c fsck /single
    [[ $output == *"/single"* ]]
    [ -e "$f" ]
    rm "$M/single"
    wait_until 30 status_is c corrupt 0
}

@test "scrub: a restart goes on where it was" {
    dfs c scrub --json | jq -e '[.servers[].volumes[].last_pass_ms > 0] | all'
    ended=$(dfs c scrub --json | jq '.servers[0].volumes[0].last_pass_ms')
    host=$(dfs c scrub --json | jq -r '.servers[0].host')
    pid=$(pid_of c "$host")
    kill "$pid"
    wait_until 20 gone "$pid"
    cluster c
    same() { [ "$(dfs c scrub --json | jq '.servers[0].volumes[0].last_pass_ms')" = "$ended" ]; }
    wait_until 20 same
}
