# Locks hold across mounts: flock, fcntl and open file descriptions.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --set session.lease=3s --mount "$T/second"
    helper locks >/dev/null
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    A=$T/c.mnt
    B=$T/second
    C=c # the cluster that these are mounts of
    locks=$(helper locks)
}

teardown() {
    let_go
}

# hold KIND TYPE FILE [FIRST LEN]: a process that holds a lock until let_go.
hold() {
    coproc HOLDER { exec "$locks" hold "$@" 3>&-; }
    local line
    read -r -t 60 line <&"${HOLDER[0]}"
    [ "$line" = held ]
}

let_go() {
    local p=${HOLDER_PID:-}
    [ -n "$p" ] || return 0
    local fd=${HOLDER[1]}
    exec {fd}>&-
    wait "$p" || true
}

waiting() { # FILE BELOW A MOUNT, COUNT: so many requests wait for locks on it
    [ "$(dfs "$C" locks "/$1" --json | jq '[.locks[] | select(.waits)] | length')" = "$2" ]
}

held() { # FILE, COUNT
    [ "$(dfs "$C" locks "/$1" --json | jq '[.locks[] | select(.waits | not)] | length')" = "$2" ]
}

@test "locks: the rules of processes and open files hold on a mount" {
    "$locks" rules "$A/rules"
    held rules 0
}

@test "locks: what one mount holds the other cannot take" {
    for kind in flock fcntl ofd; do
        hold $kind ex "$A/one"
        run -1 "$locks" try $kind ex "$B/one"
        run -1 "$locks" try $kind sh "$B/one"
        let_go
        "$locks" try $kind ex "$B/one"
        hold $kind sh "$A/one"
        "$locks" try $kind sh "$B/one"
        run -1 "$locks" try $kind ex "$B/one"
        let_go
    done
    hold fcntl ex "$A/one" 10 5
    "$locks" try fcntl ex "$B/one" 0 10
    "$locks" try fcntl ex "$B/one" 15 0
    run -1 "$locks" try fcntl ex "$B/one" 14 1
    [ "$("$locks" get ex "$B/one" 0 0)" = "ex 10 5 0" ]
    [ "$("$locks" get ex "$A/one" 0 0)" = "ex 10 5 $HOLDER_PID" ]
    [ "$("$locks" get ex "$B/one" 0 10)" = free ]
    let_go
}

@test "locks: flock(1) waits for another mount, and gets it when that lets go" {
    hold flock ex "$A/shell"
    flock "$B/shell" echo taken >"$T/shell.out" &
    wait_until 20 waiting shell 1
    [ ! -s "$T/shell.out" ]
    let_go
    wait $!
    [ "$(cat "$T/shell.out")" = taken ]
}

@test "locks: more waiters than a mount has threads leave it alive" {
    hold fcntl ex "$A/many"
    pids=()
    for i in $(seq 80); do
        "$locks" wait fcntl ex "$A/many" 3>&- &
        pids+=($!)
    done
    wait_until 60 waiting many 80
    echo alive >"$A/alive"
    [ "$(cat "$A/alive")" = alive ]
    run -1 "$locks" try fcntl ex "$A/many"
    let_go
    wait "${pids[@]}"
    held many 0
}

@test "locks: who is interrupted or killed while it waits leaves no trace" {
    for kind in flock fcntl; do
        hold $kind ex "$A/intr"
        [ "$("$locks" interrupt $kind "$B/intr")" = interrupted ]
        "$locks" wait $kind ex "$B/intr" 3>&- &
        wait_until 20 waiting intr 1
        kill -9 $!
        wait_until 20 waiting intr 0
        let_go
        held intr 0
        "$locks" try $kind ex "$B/intr"
    done
}

@test "locks: a circle over two mounts is found" {
    mkfifo "$T/go.a" "$T/go.b"
    "$locks" circle "$A/circle" 1 2 <"$T/go.a" >"$T/a.out" 3>&- &
    a=$!
    "$locks" circle "$B/circle" 2 1 <"$T/go.b" >"$T/b.out" 3>&- &
    b=$!
    exec 7>"$T/go.a" 8>"$T/go.b"
    wait_until 20 held circle 2
    echo >&7
    wait_until 20 waiting circle 1
    echo >&8
    wait $b
    wait $a
    exec 7>&- 8>&-
    [ "$(cat "$T/b.out")" = $'first\ndeadlock' ]
    [ "$(cat "$T/a.out")" = $'first\nboth' ]
}

@test "locks: two mounts add to one number under a lock" {
    each=$((${DFS_LONG:+4} + 1))000
    echo 0 >"$A/number"
    "$locks" count fcntl "$A/number" $each 3>&- &
    p=$!
    "$locks" count fcntl "$B/number" $each
    wait $p
    [ "$(cat "$A/number")" = $((2 * each)) ]
    [ "$(cat "$B/number")" = $((2 * each)) ]
    echo 0 >"$A/number"
    for m in "$A" "$A" "$B" "$B"; do
        "$locks" count flock "$m/number" 50 3>&- &
    done
    wait
    [ "$(cat "$B/number")" = 200 ]
}

@test "locks: sqlite3 from two mounts loses nothing" {
    command -v sqlite3 >/dev/null || skip "no sqlite3"
    sqlite3 "$A/db" 'create table t (who, n)'
    for m in "$A" "$B"; do
        for i in $(seq 20); do
            echo ".timeout 60000"
            echo "insert into t values ('${m##*/}', $i);"
        done | sqlite3 "$m/db" &
    done
    wait
    [ "$(sqlite3 "$B/db" 'select count(*) from t; pragma integrity_check')" = $'40\nok' ]
    [ "$(sqlite3 "$A/db" 'select count(distinct who) from t')" = 2 ]
}

@test "locks: a master that was killed gives nobody what another holds" {
    hold fcntl ex "$A/killed" 0 100
    "$locks" wait fcntl ex "$B/killed" 50 1 3>&- &
    w=$!
    wait_until 20 waiting killed 1
    kill_hard c master-1
    cluster c
    # at first it knows of nothing, and grants nothing
    run -1 timeout 60 "$locks" try fcntl ex "$B/killed" 99 1
    wait_until 20 waiting killed 1
    held killed 1
    "$locks" try fcntl ex "$B/killed" 100 1
    alive $w
    let_go
    wait $w
}

@test "locks: dfs locks tells who holds and who waits" {
    hold fcntl sh "$A/list" 5 10
    "$locks" wait fcntl ex "$B/list" 3>&- &
    w=$!
    wait_until 20 waiting list 1
    out=$(dfs c locks /list)
    [[ $(sed -n 2p <<<"$out") = *fcntl*shared*5*14*held*"mount $A"*"$HOLDER_PID" ]]
    [[ $(sed -n 3p <<<"$out") = *fcntl*exclusive*0*end*waits*"mount $B"*"$w" ]]
    [ "$(dfs c locks --json | jq '.locks | length')" = 2 ]
    let_go
    wait $w
    [ "$(dfs c locks --json | jq '.locks | length')" = 0 ]
    run -1 dfs c locks /nothing
}

@test "locks: a mount that dies loses its locks with its lease" {
    hold flock ex "$B/dead"
    kill_hard c mount-2
    run -1 "$locks" try flock ex "$A/dead"
    timeout 60 "$locks" wait flock ex "$A/dead"
    umount -l "$B"
}

@test "locks: who cannot be heard after a restart of the master keeps its locks for its lease" {
    cluster d "${QUICK[@]}" --set session.lease=20s --blocks 1 --mount "$T/third"
    C=d
    hold fcntl ex "$T/third/asleep" 0 100
    "$locks" wait fcntl ex "$T/d.mnt/asleep" 50 1 3>&- &
    w=$!
    wait_until 20 waiting asleep 1
    kill -STOP "$(pid_of d mount-2)"
    kill_hard d master-1
    mapfile -t args <"$T/d/run/master-1.args"
    "$DFS" "${args[@]:1}" >"$T/d.master" 2>&1 3>&- &
    master=$!
    wait_until 20 waiting asleep 1
    held asleep 0
    dfs d locks | grep 'just started'
    kill -CONT "$(pid_of d mount-2)"
    wait_until 20 held asleep 1
    waiting asleep 1
    alive $w
    let_go
    wait $w
    kill $master
}

@test "locks: a mount that slept for longer than its lease has lost its locks and says so" {
    cluster e "${QUICK[@]}" --set session.lease=2s --blocks 1 --mount "$T/fourth"
    hold fcntl ex "$T/fourth/lost"
    p=$(pid_of e mount-2)
    kill -STOP "$p"
    timeout 60 "$locks" wait fcntl ex "$T/e.mnt/lost" || { kill -CONT "$p"; return 1; }
    kill -CONT "$p"
    wait_until 20 grep client.locks_lost "$T/e/log/mount-2.log"
    let_go
    "$locks" try fcntl ex "$T/fourth/lost"
}

@test "locks: a mount ends while somebody waits for a lock" {
    hold flock ex "$A/end"
    "$locks" wait flock ex "$A/end" 3>&- &
    w=$!
    wait_until 20 waiting end 1
    p=$(pid_of c mount-1)
    kill -TERM "$p"
    wait_until 30 gone "$p"
    wait $w || [ $? = 2 ]
}
