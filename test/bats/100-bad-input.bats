# What is wrong gets one clear line and the right exit status, and nothing is lost or half-made.
load lib

setup_file() {
    tmp_make
    cluster c --no-mount "${QUICK[@]}"
    echo kept >"$T/kept"
    dfs c put "$T/kept" /kept
}

teardown_file() {
    tmp_remove
}

still_right() {
    [ "$(dfs c cat /kept)" = kept ]
}

@test "bad input: mount points that cannot be used" {
    require_fuse
    mkdir "$T/full"
    touch "$T/full/x"
    run -1 timeout 30 "$DFS" mount --conf "$T/c/dfs.conf" "$T/full"
    [[ $output == *"$T/full"* && $output == *"empty"* ]]
    touch "$T/file"
    run -1 timeout 30 "$DFS" mount --conf "$T/c/dfs.conf" "$T/file"
    [[ $output == *"$T/file"* && $output == *"directory"* ]]
    run -1 timeout 30 "$DFS" mount --conf "$T/c/dfs.conf" "$T/nowhere"
    [[ $output == *"$T/nowhere"* ]]
    run -2 "$DFS" mount --conf "$T/c/dfs.conf"
    [ -z "$(mounts_below "$T")" ]
}

@test "bad input: a port in use" {
    port=$(port_of c master-1)
    run -1 timeout 30 "$DFS" master --conf "$T/c/dfs.conf" --set "master.listen=127.0.0.1:$port" \
        --set "master.data=$T/other-master"
    [[ $output =~ 127\.0\.0\.1:($port|$((port + 1))|$((port + 2))) ]] # one of its three
    [[ $output == *"in use"* ]]
    port=$(port_of c block-1)
    run -1 timeout 30 "$DFS" block --conf "$T/c/dfs.conf" --set "block.listen=127.0.0.1:$port" \
        --set "block.data=$T/other-block"
    [[ $output == *"$port"* && $output == *"in use"* ]]
    still_right
}

@test "bad input: a volume used by a running server" {
    run -1 timeout 30 "$DFS" block --conf "$T/c/dfs.conf" --set "block.data=$T/c/data/block-1"
    [[ $output == *"block-1"* && $output == *"use"* ]]
    still_right
}

@test "bad input: metadata used by a running master" {
    run -1 timeout 30 "$DFS" master --conf "$T/c/dfs.conf" --set "master.listen=127.0.0.1:1" \
        --set "master.data=$T/c/data/master-1"
    [[ $output == *"master-1"* ]]
    still_right
}

@test "bad input: a volume that cannot be written" {
    echo file >"$T/not-a-dir"
    run -1 timeout 30 "$DFS" block --conf "$T/c/dfs.conf" --set "block.data=$T/nb" \
        --set "block.volumes=$T/not-a-dir"
    [[ $output == *"$T/not-a-dir"* ]]
    mkdir "$T/ro"
    mount -t tmpfs -o ro,size=1m none "$T/ro"
    run timeout 30 "$DFS" block --conf "$T/c/dfs.conf" --set "block.data=$T/nb" \
        --set "block.volumes=$T/ro"
    umount "$T/ro"
    [ "$status" = 1 ]
    [[ $output == *"$T/ro"* ]]
}

@test "bad input: a volume of another cluster" {
    cluster o --no-mount --blocks 1 --replication 1 "${QUICK[@]}"
    "$DFS" local "$T/o" --stop
    run -1 timeout 30 "$DFS" block --conf "$T/c/dfs.conf" --set "block.data=$T/o/data/block-1"
    [[ $output == *"another cluster"* ]]
    still_right
    cluster o --no-mount # and it is still whole
    "$DFS" local "$T/o" --stop
}

@test "bad input: a full volume: the write goes elsewhere, or fails with no space" {
    mkdir "$T/small"
    mount -t tmpfs -o size=40m none "$T/small"
    cluster s --no-mount --blocks 1 --replication 1 "${QUICK[@]}" --set block.reserve=8MiB \
        --set block_size=4MiB --set session.lease=2s --volume "$T/small"
    head -c 60000000 /dev/zero >"$T/large"
    run timeout 60 "$DFS" put --conf "$T/s/dfs.conf" "$T/large" /large
    [ "$status" = 1 ]
    [[ $output == *"space"* ]]
    [ "$(free_bytes "$T/small")" -ge 6000000 ]
    dfs s rm /large || true
    free_again() { dfs s put "$T/kept" /kept; }
    wait_until 30 free_again
    [ "$(dfs s cat /kept)" = kept ]
    "$DFS" local "$T/s" --stop
    umount "$T/small"
}

@test "bad input: damaged metadata is named, and never started over" {
    cluster d --no-mount --blocks 1 --replication 1 "${QUICK[@]}"
    dfs d put "$T/kept" /kept
    "$DFS" local "$T/d" --stop
    cp -r "$T/d/data/master-1" "$T/saved"
    # every file in turn: cut, its middle overwritten, or gone; either it does not matter or it is refused
    find "$T/saved" -type f -size +0 -printf '%P\n' >"$T/files"
    refused=0
    while read -r f; do
        for how in cut garbage gone; do
            rm -rf "$T/d/data/master-1"
            cp -r "$T/saved" "$T/d/data/master-1"
            size=$(stat -c %s "$T/d/data/master-1/$f")
            if [ $how = cut ]; then
                truncate -s $((size / 2)) "$T/d/data/master-1/$f"
            elif [ $how = gone ]; then
                rm "$T/d/data/master-1/$f"
            else
                head -c 8192 /dev/urandom |
                    dd of="$T/d/data/master-1/$f" bs=1 seek=$((size > 16384 ? 4096 : 0)) count=8192 \
                        conv=notrunc status=none
            fi
            if "$DFS" local "$T/d" </dev/null 3>&- >"$T/d.out" 2>&1; then
                [ "$(dfs d cat /kept)" = kept ] || { echo "$f $how: started without its data" >&2; false; }
                "$DFS" local "$T/d" --stop
            else
                grep -q "$T/d/data/master-1" "$T/d.out" || { echo "$f $how:" >&2; cat "$T/d.out" >&2; false; }
                refused=$((refused + 1))
            fi
        done
    done <"$T/files"
    [ "$refused" -gt 0 ]
    rm -rf "$T/d/data/master-1"
    cp -r "$T/saved" "$T/d/data/master-1"
    cluster d --no-mount
    [ "$(dfs d cat /kept)" = kept ]
    "$DFS" local "$T/d" --stop
}

# send PORT: stdin to the port; the server may hang up first, or wait for more.
send() {
    timeout 0.3 bash -c "exec 5<>/dev/tcp/127.0.0.1/$1; cat >&5; head -c 1 <&5" >/dev/null 2>&1 || true
}

@test "bad input: garbage and frames that are too long, on every port" {
    m=$(port_of c master-1)
    ports=("$m" $((m + 1)) $((m + 2)))
    for b in block-1 block-2 block-3; do ports+=("$(port_of c $b)"); done
    pids=$(cat "$T"/c/run/*.pid)
    for p in "${ports[@]}"; do
        head -c 100000 /dev/urandom | send "$p"
        printf 'GET / HTTP/1.0\r\n\r\n' | send "$p"
        # a header that promises 4 GiB, and one that promises what never comes
        printf 'DFS1\x01\x01\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\1\0\0\0\0\0\0\0\0\0\0\0' | send "$p"
        printf 'DFS1\x01\x01\0\0\0\0\0\0\0\1\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0' | send "$p"
        : | send "$p"
    done
    for pid in $pids; do alive "$pid"; done
    still_right
    dfs c put "$T/kept" /after
    [ "$(dfs c cat /after)" = kept ]
}

@test "bad input: configurations" {
    printf 'replication = 2\nblok_size = 1MiB\n' >"$T/typo.conf"
    for cmd in "status" "ls /" "master" "block" "mount $T/full"; do
        # shellcheck disable=SC2086
        run -2 timeout 30 "$DFS" $cmd --conf "$T/typo.conf"
        [[ $output == *"typo.conf:2"* && $output == *"block_size"* ]]
    done
    for bad in 'replication = 0' 'heartbeat = 1' 'block_size = 3GiB' 'log.level = loud' 'nonsense' \
        'topology = x'; do
        echo "$bad" >"$T/bad.conf"
        run -2 "$DFS" conf check "$T/bad.conf"
        [[ $output == *"bad.conf:1"* ]]
        [ "$("$DFS" conf check --json "$T/bad.conf" 2>/dev/null | jq .valid)" = false ]
    done
    run -2 "$DFS" status --conf "$T/no-such.conf"
    [[ $output == *"no-such.conf"* ]]
}

@test "bad input: no master answers: that is said long before the deadline" {
    for c in status "ls /" "volume ls"; do
        # shellcheck disable=SC2086
        run -1 timeout 30 "$DFS" $c --set masters=127.0.0.1:4 --set client.timeout=4s
        [[ ${lines[0]} == "dfs ${c%% *}: no answer from the masters at 127.0.0.1:4 yet"* ]]
        [[ ${lines[1]} == *refused* || ${lines[1]} == *"no master answered"* ]]
    done
}

@test "bad input: names" {
    for n in "" . .. "$(printf 'n%.0s' {1..256})"; do
        run dfs c mkdir "/$n"
        [ "$status" -ne 0 ]
        [ "${#lines[@]}" = 1 ]
    done
    still_right
}

@test "bad input: unknown commands and options" {
    run -2 "$DFS" statsu
    [[ $output == *"status"* ]]
    run -2 "$DFS" status --jsno
    [[ $output == *"--json"* ]]
    run -2 "$DFS"
    for c in master block mount local status stat fsck setrep put get ls cat rm mkdir mv conf; do
        run -0 "$DFS" $c --help
        [[ $output == *"dfs $c"* ]]
    done
}
