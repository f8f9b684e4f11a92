# One block server is killed in the middle of a read and of a write: no error, no wrong byte.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --set block_size=8MiB
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    M=$T/c.mnt
    STREAM=$(helper stream)
    cluster c
    wait_until 20 servers_in_state c live 3
}

size_over() { # FILE BYTES
    [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -gt "$2" ]
}

@test "server death: in the middle of a write" {
    for victim in block-1 block-2 block-3; do
        # at 60 MiB/s, so that the kill comes in the middle
        "$STREAM" fill "$M/w.$victim" 7 200000000 60 3>&- &
        w=$!
        wait_until 20 size_over "$M/w.$victim" 50000000
        kill_hard c $victim
        wait $w
        [ "$("$STREAM" check "$M/w.$victim" 7)" = 200000000 ]
        cluster c
        wait_until 20 servers_in_state c live 3
    done
}

@test "server death: in the middle of synced writes" {
    timeout 60 "$STREAM" write "$M/synced" 8 "$T/ack" 40 3>&- &
    w=$!
    wait_until 20 size_over "$M/synced" 5000000
    kill_hard c block-2
    wait $w
    "$STREAM" check "$M/synced" 8 "$(tail -n 1 "$T/ack")"
}

@test "server death: in the middle of a read" {
    "$STREAM" fill "$M/r" 9 200000000
    umount "$M"
    wait_until 30 gone "$(pid_of c mount-1)"
    cluster c
    "$STREAM" check "$M/r" 9 200000000 40 >"$T/read.out" 3>&- &
    check=$!
    for victim in block-1 block-2; do
        # first one, then, when it is back, another
        kill_hard c $victim
        cluster c
        wait_until 20 servers_in_state c live 3
    done
    wait $check
    [ "$(cat "$T/read.out")" = 200000000 ]
}

@test "server death: reads go on while a server hangs" {
    kill -STOP "$(pid_of c block-3)"
    umount "$M" && wait_until 30 gone "$(pid_of c mount-1)"
    "$DFS" mount --conf "$T/c/dfs.conf" "$M" 3>&-
    run timeout 60 "$STREAM" check "$M/r" 9 200000000
    kill -CONT "$(pid_of c block-3)"
    umount "$M"
    [ "$status" = 0 ]
}

@test "server death: with a copy on every server that is left, nothing is missing" {
    wait_until 60 healthy c
    for f in w.block-1 w.block-2 w.block-3 r; do "$STREAM" check "$M/$f" "$([ $f = r ] && echo 9 || echo 7)" 200000000; done
}
