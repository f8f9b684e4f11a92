# Servers that do not answer: every call ends, Ctrl-C works, and afterwards the mount works by itself.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}"
    head -c 4194304 /dev/urandom >"$T/big"
    cp "$T/big" "$T/c.mnt/big"
    sync -f "$T/c.mnt"
}

teardown_file() {
    wake
    tmp_remove
}

setup() {
    require_fuse
}

servers() {
    pid_of c master-1
    blocks
}

blocks() {
    for i in 1 2 3; do pid_of c block-$i; done
}

# stop and wake: SIGSTOP and SIGCONT.
stop() { # servers | blocks
    local p
    for p in $("$1"); do kill -STOP "$p"; done
}

wake() {
    local p
    for p in $(servers 2>/dev/null); do kill -CONT "$p" 2>/dev/null || true; done
}

drop_caches() {
    echo 3 >/proc/sys/vm/drop_caches
}

# interrupted COMMAND...: waits by now, is told to end as Ctrl-C does, and has ended soon after.
interrupted() {
    local p rc=0 from
    # a shell's background job ignores SIGINT
    python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "$@" >/dev/null 2>&1 3>&- &
    p=$!
    wait_until 20 sleeps "$p" "$1"
    from=$SECONDS
    kill -INT "$p"
    wait "$p" || rc=$?
    [ "$rc" = 130 ]
    [ $((SECONDS - from)) -lt 20 ] # client.timeout is 30 s
}

sleeps() { # PID PROGRAM: has become it, and waits
    grep -q "^[0-9]* ($2) [SD]" "/proc/$1/stat"
}

@test "never hang: Ctrl-C ends what waits for servers that hang" {
    drop_caches
    stop servers
    interrupted cat "$T/c.mnt/big"
    interrupted touch "$T/c.mnt/new"
    interrupted mkdir "$T/c.mnt/dir"
    interrupted ls "$T/c.mnt/unheard-of"
    interrupted mv "$T/c.mnt/big" "$T/c.mnt/other"
    wake
}

@test "never hang: Ctrl-C ends a write that waits for block servers that hang" {
    stop blocks
    interrupted cp "$T/big" "$T/c.mnt/late"
    interrupted cp /dev/zero "$T/c.mnt/lots"
    wake
}

@test "never hang: afterwards everything works again by itself" {
    wake
    wait_until 60 cmp "$T/big" "$T/c.mnt/big"
    wait_until 60 cp "$T/big" "$T/c.mnt/again"
    drop_caches
    cmp "$T/big" "$T/c.mnt/again"
    rm -f "$T/c.mnt/lots" "$T/c.mnt/late"
}

@test "never hang: df and the root answer when no server does" {
    local names from i waiting=()
    df "$T/c.mnt" >/dev/null
    ls -d "$T/c.mnt" >/dev/null
    names=$(ls "$T/c.mnt")
    stop servers
    for i in $(seq 1 150); do # more than anything has threads for
        timeout 20 cat "$T/c.mnt/unheard-of-$i" >/dev/null 2>&1 3>&- &
        waiting+=($!)
    done
    from=$SECONDS
    timeout 10 df "$T/c.mnt"
    timeout 10 ls -ld "$T/c.mnt/."
    [ "$(timeout 10 ls "$T/c.mnt")" = "$names" ]
    timeout 10 ls -l "$T/c.mnt"
    [ $((SECONDS - from)) -lt 5 ]
    wake
    wait "${waiting[@]}" || true
    echo x >"$T/c.mnt/one-more"
    [ "$(ls "$T/c.mnt")" = "$(printf '%s\n' "$names" one-more | sort)" ]
    rm "$T/c.mnt/one-more"
}

# ---- the mount's own process dies ----

changed_pid() { # OLD
    local now
    now=$(cat "$T/c/run/mount-1.pid") && [ -n "$now" ] && [ "$now" != "$1" ] && alive "$now"
}

# The guard makes a new process, with a new id in the pid file.
crash_mount() {
    local old
    old=$(pid_of c mount-1)
    kill -9 "$old"
    wait_until 20 changed_pid "$old"
}

@test "crash: a mount's process that dies is replaced, and open files go on" {
    exec 5<"$T/c.mnt/big" 6<"$T/c.mnt"
    head -c 1000 <&5 >/dev/null
    crash_mount
    ls "$T/c.mnt" >/dev/null
    cmp <(tail -c +1001 "$T/big") <(cat <&5)
    exec 5<&- 6<&-
    echo new >"$T/c.mnt/written-after"
    [ "$(cat "$T/c.mnt/written-after")" = new ]
}

@test "crash: a file without a name outlives the process, and its session" {
    echo kept >"$T/c.mnt/nameless"
    exec 5<>"$T/c.mnt/nameless"
    sync -f "$T/c.mnt"
    rm "$T/c.mnt/nameless"
    crash_mount
    wait_until 60 one_session
    [ "$(cat <&5)" = kept ]
    echo more >&5
    exec 5<&-
}

one_session() {
    status_is c sessions 1
}

@test "crash: what was written and not synced is told once, what was synced is kept" {
    python3 - "$T/c.mnt/file" "$T/c/run/mount-1.pid" <<'END'
import errno, os, signal, sys, time
path, pid_file = sys.argv[1:]
fd = os.open(path, os.O_CREAT | os.O_RDWR)
other = os.open(path, os.O_RDWR) # may be the one that syncs what fd has written
os.write(fd, b"synced" + bytes(9994))
os.fsync(fd)
os.write(fd, b"lost?" * 2000)
assert os.pread(other, 5, 10000) == b"lost?"
old = open(pid_file).read()
os.kill(int(old), signal.SIGKILL)
until = time.time() + 20
while open(pid_file).read() in (old, "") and time.time() < until:
    time.sleep(0.01)
for f in (other, fd):
    try:
        os.fsync(f)
        sys.exit("no error")
    except OSError as e:
        assert e.errno in (errno.EIO, errno.ECONNABORTED), e
os.pwrite(fd, b"!", 20000)
os.fsync(fd)
os.fsync(other)
again = os.open(path, os.O_RDWR)
os.fsync(again)
assert os.pread(fd, 6, 0) == b"synced"
# not what the kernel still has of it, but what is there
assert os.pread(other, 10001, 10000) == bytes(10000) + b"!"
END
}

@test "crash: many times in a row, under load" {
    (for i in $(seq 1 400); do
        echo "$i" >"$T/c.mnt/load-$i" || true # what was under way when it died fails
    done) 2>/dev/null 3>&- &
    load=$!
    for _ in 1 2 3; do crash_mount; done
    wait "$load" || true
    ls "$T/c.mnt" >/dev/null
    echo end >"$T/c.mnt/end"
    [ "$(cat "$T/c.mnt/end")" = end ]
}

@test "crash: unmounting ends the guard too" {
    umount "$T/c.mnt"
    wait_until 20 no_mount_process
    cluster c
}

no_mount_process() {
    local p
    for p in $(pids_below "$T/c"); do
        tr '\0' ' ' <"/proc/$p/cmdline" | grep -q '^dfs mount ' && return 1
    done
    return 0
}
