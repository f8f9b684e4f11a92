# Six block servers, three copies: servers die and hang under load, and the cluster mends itself.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --blocks 6 --replication 3 --set block_size=4MiB
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    M=$T/c.mnt
    STREAM=$(helper stream)
    LOAD=()
    rm -f "$T/stop"
    cluster c
    wait_until 60 servers_in_state c live 6
}

# A failed story must not leave its load to the next one.
teardown() {
    [ -d "${T:-}" ] || return 0
    touch "$T/stop"
    for p in "${LOAD[@]}"; do wait_until 60 gone "$p"; done
}

writer() { # FILE SEED MIB_PER_S
    STOP=$T/stop STALL=$T/$1.stall "$STREAM" write "$M/$1" "$2" "$T/$1.ack" 100000 "$3" 3>&- &
    LOAD+=($!)
}

reader() { # FILE SEED BYTES
    STOP=$T/stop STALL=$T/read.stall "$STREAM" again "$M/$1" "$2" "$3" 3>&- &
    LOAD+=($!)
}

load_ends() { # no client has seen an error or a wrong byte
    local p
    touch "$T/stop"
    for p in "${LOAD[@]}"; do wait "$p" || return 1; done
    LOAD=()
}

synced_is_there() { # FILE SEED: every byte that was synced, read from the servers
    "$STREAM" check "$M/$1" "$2" "$(tail -n 1 "$T/$1.ack")"
}

acks_over() { # FILE COUNT
    [ "$(wc -l <"$T/$1.ack")" -gt "$2" ]
}

goes_on() { # FILE: something is synced that was not yet
    wait_until 60 acks_over "$1" "$(wc -l <"$T/$1.ack")"
}

# Who holds the N-th copy of a file's first block.
holder() { # PATH N: from 0
    dfs c stat --json "$1" | jq -r ".extents[0].servers[$2].host"
}

remount() {
    umount "$M"
    wait_until 30 gone "$(pid_of c mount-1)"
    cluster c
}

copies() { # of every block, as on the disks: COUNT ID
    find "$T"/c/data/block-*/ -path '*/blocks/*' -type f -printf '%f\n' | sort | uniq -c
}

three_of_each() {
    [ "$(copies | awk '$1 != 3' | wc -l)" = 0 ]
}

@test "healing: a server is killed under reads and writes; all copies are made again" {
    "$STREAM" fill "$M/r" 1 100000000
    wait_until 60 healthy c
    reader r 1 100000000
    writer w 2 10
    wait_until 60 acks_over w 20
    victim=$(holder /r 0)
    kill_hard c "$victim"
    wait_until 60 servers_in_state c dead 1
    from=$(date +%s%N)
    wait_until 120 healthy c /r
    wait_until 120 status_is c under_replicated 0
    to=$(date +%s%N)
    goes_on w
    load_ends
    wait_until 120 healthy c
    wait_until 60 status_is c under_replicated 0
    bytes=$(du -sb "$T/c/data/$victim" | cut -f 1)
    echo "# longest read stall $(cat "$T/read.stall") ms, write stall $(cat "$T/w.stall") ms," \
        "repair $((bytes * 1000 / (to - from + 1))) MB/s under load" >&3
    # On a machine with nothing else to do these are the promise.
    if [ -n "${DFS_LONG:-}" ]; then
        [ "$(cat "$T/read.stall")" -lt 1000 ]
        [ "$(cat "$T/w.stall")" -lt 2000 ]
    fi
    remount
    "$STREAM" check "$M/r" 1 100000000
    synced_is_there w 2
}

@test "healing: two of three copies' servers die one after the other, again and again" {
    rounds=$([ -n "${DFS_LONG:-}" ] && echo 20 || echo 2)
    RANDOM=${SEED:-1}
    for i in 1 2 3 4; do writer "x$i" "$i" 1; done
    for i in 1 2 3 4; do wait_until 60 acks_over "x$i" 10; done
    for _ in $(seq "$rounds"); do
        file=x$((RANDOM % 4 + 1))
        for n in 1 2; do
            kill_hard c "$(holder /$file $((RANDOM % 3)))"
            wait_until 60 servers_in_state c dead "$n"
            wait_until 120 status_is c under_replicated 0
            wait_until 60 healthy c /$file
            goes_on "$file"
        done
        cluster c
        wait_until 60 servers_in_state c live 6
    done
    load_ends
    wait_until 120 healthy c
    remount
    for i in 1 2 3 4; do synced_is_there "x$i" "$i"; done
    dfs c fsck --deep
}

@test "healing: a server hangs until it is dead and goes on: nothing is lost, nothing left over" {
    "$STREAM" fill "$M/s" 5 60000000
    reader s 5 60000000
    writer h 6 2
    wait_until 60 acks_over h 10
    pid=$(pid_of c "$(holder /s 1)")
    kill -STOP "$pid"
    wait_until 60 servers_in_state c dead 1
    wait_until 120 healthy c /s
    goes_on h
    kill -CONT "$pid"
    wait_until 60 servers_in_state c live 6
    goes_on h
    load_ends
    echo "# longest read stall $(cat "$T/read.stall") ms, write stall $(cat "$T/h.stall") ms" >&3
    # about 1 s each; the rest is for machines that have other things to do
    [ "$(cat "$T/read.stall")" -lt 5000 ]
    [ "$(cat "$T/h.stall")" -lt 5000 ]
    wait_until 120 healthy c
    wait_until 120 three_of_each
    remount
    "$STREAM" check "$M/s" 5 60000000
    synced_is_there h 6
    dfs c fsck --deep
}
