# Installed as a file system: mount -t fuse.dfs, fstab, sub-paths, read-only, umount.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c --no-mount "${QUICK[@]}"
    make -s -C "$ROOT" install DESTDIR="$T/root" PREFIX=/usr/local >/dev/null
    # mount(8) looks for helpers in fixed places only
    HELPER=/sbin/mount.fuse.dfs
    export HELPER
    if [ ! -e $HELPER ]; then
        ln -s "$T/root/usr/local/bin/dfs" $HELPER
        export HELPER_MADE=1
    fi
    dfs c mkdir /sub
    echo inner >"$T/inner"
    dfs c put "$T/inner" /sub/inner
    MASTER=127.0.0.1:$(port_of c master-1)
    export MASTER
}

teardown_file() {
    for m in a b c; do mountpoint -q "$T/$m" && umount -l "$T/$m"; done
    [ -n "${HELPER_MADE:-}" ] && rm -f "$HELPER"
    tmp_remove
}

setup() {
    require_fuse
    mkdir -p "$T/a" "$T/b"
}

no_process() { # MOUNT POINT
    [ -z "$(pgrep -f -- "$1" | grep -v "$$")" ]
}

@test "mount helper: make install puts everything in place, uninstall takes it away" {
    cd "$T/root"
    [ -x usr/local/bin/dfs ]
    [ -n "$(find . -name 'dfs.1*')" ]
    [ "$(readlink sbin/mount.fuse.dfs)" = /usr/local/bin/dfs ]
    make -s -C "$ROOT" install DESTDIR="$T/root2" PREFIX=/usr/local
    make -s -C "$ROOT" uninstall DESTDIR="$T/root2" PREFIX=/usr/local
    [ -z "$(find "$T/root2" -type f -o -type l)" ]
}

@test "mount helper: mount -t fuse.dfs and umount" {
    mount -t fuse.dfs "$MASTER:/" "$T/a"
    [ "$(cat "$T/a/sub/inner")" = inner ]
    [ "$(findmnt -no FSTYPE "$T/a")" = fuse.dfs ]
    umount "$T/a"
    run ! mountpoint -q "$T/a"
}

@test "mount helper: a sub-path, read-only" {
    mount -t fuse.dfs "$MASTER:/sub" "$T/a" -o ro
    [ "$(cat "$T/a/inner")" = inner ]
    run ! touch "$T/a/new"
    [[ $output == *"ead-only"* ]]
    mount -t fuse.dfs "$MASTER:/sub" "$T/b"
    touch "$T/b/new"
    wait_until 5 test -e "$T/a/new"
    umount "$T/a"
    umount "$T/b"
    run ! mount -t fuse.dfs "$MASTER:/none" "$T/a"
    [[ $output == *"/none"* ]]
}

@test "mount helper: remount makes it read-only and writable again" {
    mount -t fuse.dfs "$MASTER:/sub" "$T/a" -o nosuid
    exec 9>"$T/a/open"
    run ! mount -o remount,ro "$T/a"
    exec 9>&-
    mount -o remount,ro "$T/a"
    run ! touch "$T/a/again"
    [[ $output == *"ead-only"* && "$(findmnt -no OPTIONS "$T/a")" == ro,nosuid,* ]]
    "$DFS" mount "$T/a" -o remount,rw,noexec
    touch "$T/a/again"
    [[ "$(findmnt -no OPTIONS "$T/a")" == rw,noexec,* ]]
    umount "$T/a"
    run -1 "$DFS" mount "$T/a" -o remount,rw
    [[ $output == *"$T/a: no dfs is mounted there"* ]]
}

@test "mount helper: a line in fstab" {
    echo "$MASTER:/sub $T/a fuse.dfs defaults,noatime,_netdev 0 0" >"$T/fstab"
    mount -T "$T/fstab" "$T/a"
    [ "$(cat "$T/a/inner")" = inner ]
    umount "$T/a"
}

@test "mount helper: an option nobody knows, a master that is not there" {
    run ! mount -t fuse.dfs "$MASTER:/" "$T/a" -o flying
    [[ $output == *flying* ]]
    run ! timeout 60 mount -t fuse.dfs "127.0.0.1:1:/" "$T/a" -o client.timeout=1s
    [[ $output == *"127.0.0.1:1"* ]]
    run ! mountpoint -q "$T/a"
}

@test "mount helper: umount flushes what was written" {
    mount -t fuse.dfs "$MASTER:/" "$T/a"
    head -c 20000000 /dev/urandom >"$T/data"
    cp "$T/data" "$T/a/data"
    umount "$T/a"
    flushed() { dfs c get /data "$T/data.back" && cmp "$T/data" "$T/data.back"; }
    wait_until 10 flushed
}
