# A mount's process makes room for another version of the program; a guard that dies is replaced.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    mkdir "$T/prog"
    cp "$DFS" "$T/prog/dfs"
    export DFS=$T/prog/dfs
    cluster c "${QUICK[@]}" --mount "$T/c.mnt2"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    export DFS=$T/prog/dfs
}

upgrade() {
    "$DFS" mount --upgrade "$T/c.mnt" 3>&-
}

mount_pid() {
    getfattr --only-values -n dfs.mount.pid "$T/c.mnt"
}

guards() { # of the first mount
    local p
    for p in $(pids_below "$T/c"); do
        [ "$(cat "/proc/$p/comm" 2>/dev/null)" = dfs-guard ] &&
            tr '\0' ' ' <"/proc/$p/cmdline" | grep -q -- "$T/c.mnt " && echo "$p"
    done
    return 0
}

one_guard_but() { # PID
    local now
    now=$(guards)
    [ -n "$now" ] && [ "$now" != "$1" ] && [ "$(wc -w <<<"$now")" = 1 ]
}

sessions() {
    status_num c sessions
}

# Makes, writes, reads, renames and removes files until $T/stop exists; any error ends it.
load_files() { # NUMBER
    python3 - "$T/c.mnt/load-$1" "$T/stop" <<'END'
import os, sys
base, stop = sys.argv[1:]
n = 0
while not os.path.exists(stop):
    name = "%s-%d" % (base, n)
    data = os.urandom(1000 + n * 37 % 50000)
    with open(name, "wb") as f:
        f.write(data)
        if n % 3 == 0:
            f.flush()
            os.fsync(f.fileno())
    os.rename(name, name + "x")
    with open(name + "x", "rb") as f:
        assert f.read() == data, name
    os.unlink(name + "x")
    n += 1
print(n)
END
}

@test "upgrade: programs notice nothing: open files, locks, what is not synced" {
    local before load=() i
    python3 - "$T/c.mnt/held" "$T/ready" "$T/upgraded" 3>&- <<'END' &
import fcntl, os, sys, time
path, ready, upgraded = sys.argv[1:]
fd = os.open(path, os.O_CREAT | os.O_RDWR)
ro = os.open(path, os.O_RDONLY)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 0)
whole = os.open(path + "-flock", os.O_CREAT | os.O_RDWR)
fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
gone = os.open(path + "-gone", os.O_CREAT | os.O_RDWR)
os.unlink(path + "-gone")
os.write(gone, b"nameless")
os.write(fd, b"before")
open(ready, "w").close()
while not os.path.exists(upgraded):
    time.sleep(0.02)
    os.pwrite(fd, b"before", 0)
assert os.pread(ro, 100, 0) == b"before"
assert os.pread(gone, 100, 0) == b"nameless"
os.pwrite(fd, b" and after", 6)
os.fsync(fd)
assert os.pread(ro, 100, 0) == b"before and after"
os.close(gone)
os.close(whole) # releases flock
fcntl.lockf(fd, fcntl.LOCK_UN, 100, 0)
os.close(fd)
END
    holder=$!
    wait_until 20 [ -e "$T/ready" ]
    for i in 1 2 3; do
        load_files "$i" >"$T/load-$i.out" 2>&1 3>&- &
        load+=($!)
    done
    before=$(sessions)
    for i in 1 2 3 4; do
        cp "$DFS" "$T/prog/next"
        mv "$T/prog/next" "$DFS"
        upgrade
        # still nobody else's
        run ! flock -n "$T/c.mnt2/held-flock" true
        run ! python3 -c "import fcntl; fcntl.lockf(open('$T/c.mnt2/held', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 20)"
    done
    [ "$(sessions)" = "$before" ]
    touch "$T/upgraded" "$T/stop"
    wait "$holder"
    for i in "${load[@]}"; do wait "$i"; done || { cat "$T"/load-*.out; false; }
    flock -n "$T/c.mnt2/held-flock" true
    python3 -c "import fcntl; fcntl.lockf(open('$T/c.mnt2/held', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 20)"
    [ "$(cat "$T/c.mnt2/held")" = "before and after" ]
    [ "$(cat "$T/c/run/mount-1.pid")" = "$(mount_pid)" ]
    healthy c
}

@test "upgrade: who waits for a lock hears that there is none" {
    exec 5>"$T/c.mnt2/busy"
    flock 5
    python3 - "$T/c.mnt/busy" "$T/waits" 3>&- 5>&- <<'END' &
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDWR)
open(sys.argv[2], "w").close()
rc = libc.flock(fd, 2)
assert rc == -1 and ctypes.get_errno() == errno.ENOLCK, (rc, ctypes.get_errno())
END
    waiter=$!
    wait_until 10 [ -e "$T/waits" ]
    wait_until 10 waits_for_lock
    upgrade
    wait "$waiter"
    exec 5>&-
    flock -n "$T/c.mnt/busy" true
}

waits_for_lock() {
    dfs c locks --json | jq -e '[.. | objects | select(.waits? == true or .state? == "waiting")] | length > 0'
}

@test "upgrade: a program that does not run changes nothing" {
    local old
    old=$(mount_pid)
    mv "$DFS" "$T/prog/good"
    printf '#!/bin/sh\nexit 3\n' >"$DFS"
    chmod +x "$DFS"
    run timeout 5 "$T/prog/good" mount --upgrade "$T/c.mnt"
    [ "$status" -ne 0 ]
    mv "$T/prog/good" "$DFS"
    [ "$(mount_pid)" = "$old" ]
    echo on >"$T/c.mnt/serves-on"
    upgrade
    [ "$(mount_pid)" != "$old" ]
    [ "$(cat "$T/c.mnt/serves-on")" = on ]
}

@test "upgrade: not of what is no mount" {
    run "$DFS" mount --upgrade "$T"
    [ "$status" -eq 1 ]
    [[ "$output" == *"no dfs is mounted"* ]]
}

@test "guard: one that dies is replaced, and does its work" {
    local old
    old=$(guards)
    [ -n "$old" ]
    kill -9 "$old"
    wait_until 20 one_guard_but "$old"
    exec 5<"$T/c.mnt/serves-on"
    old=$(mount_pid)
    kill -9 "$old"
    wait_until 20 gone "$old"
    [ "$(cat <&5)" = on ]
    exec 5<&-
    [ "$(mount_pid)" != "$old" ]
}

@test "guard: unmounting ends it after all that, too" {
    umount "$T/c.mnt"
    wait_until 20 no_guard
}

no_guard() {
    [ -z "$(guards)" ]
}
