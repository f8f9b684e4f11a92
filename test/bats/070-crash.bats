# kill -9 of everything at random moments during writes: every synced byte is there after the
# restart, and what follows it is a prefix of what was written.
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
    M=$T/c.mnt
    STREAM=$(helper stream)
}

last_ack() { # LOG
    tail -n 1 "$1" 2>/dev/null | grep . || echo 0
}

acked_more_than() { # LOG LINES
    [ "$(wc -l <"$1" 2>/dev/null || echo 0)" -gt "$2" ]
}

# write_and_kill ROUND PROCESS...: two writers at work, the processes are killed, all is restarted,
# both files are checked.
write_and_kill() {
    local r=$1 p w=()
    shift
    mkdir "$M/r$r"
    timeout 60 "$STREAM" write "$M/r$r/a" "$r" "$T/ack.$r.a" 200 2>/dev/null 3>&- &
    w+=($!)
    timeout 60 "$STREAM" files "$M/r$r" "$((r + 100))" "$T/ack.$r.f" 2>/dev/null 3>&- &
    w+=($!)
    # at a random moment, but not before something was acknowledged
    wait_until 20 acked_more_than "$T/ack.$r.a" $((RANDOM % 60))
    wait_until 20 acked_more_than "$T/ack.$r.f" $((RANDOM % 30))
    kill_hard c "$@"
    # writers whose mount lives go on when the rest is back; the others have got their error
    if [[ " $* " != *" mount-1 "* ]]; then
        cluster c
        n=$(wc -l <"$T/ack.$r.f")
        wait_until 40 acked_more_than "$T/ack.$r.f" $((n + 3))
    fi
    for p in "${w[@]}"; do kill "$p" 2>/dev/null || true; done
    for p in "${w[@]}"; do wait "$p" || true; done
    cluster c
    "$STREAM" check "$M/r$r/a" "$r" "$(last_ack "$T/ack.$r.a")"
    "$STREAM" checkfiles "$M/r$r" "$((r + 100))" "$T/ack.$r.f"
}

@test "crash: kill -9 of the mount" {
    write_and_kill 1 mount-1
    write_and_kill 2 mount-1
}

@test "crash: kill -9 of the master" {
    write_and_kill 3 master-1
    write_and_kill 4 master-1
}

@test "crash: kill -9 of all block servers" {
    write_and_kill 5 block-1 block-2 block-3
}

@test "crash: kill -9 of the master and the block servers" {
    write_and_kill 6 master-1 block-3 block-1 block-2
}

@test "crash: kill -9 of everything" {
    for r in 7 8 9; do write_and_kill $r master-1 block-1 block-2 block-3 mount-1; done
}

@test "crash: afterwards the files of all rounds are right, and nothing is missing" {
    for r in 1 2 3 4 5 6 7 8 9; do
        "$STREAM" check "$M/r$r/a" "$r" "$(last_ack "$T/ack.$r.a")"
        "$STREAM" checkfiles "$M/r$r" "$((r + 100))" "$T/ack.$r.f"
    done
    wait_until 30 healthy c
}
