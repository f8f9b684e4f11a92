# Real trees with everyday tools: cp and diff, tar, rsync, git, make.
load lib

setup_file() {
    tmp_make "$(in_memory 6)"
    fuse_usable || return 0
    cluster c "${QUICK[@]}"
    # 10,000 files of all sizes that every system has; a small one has some of them several times
    mkdir "$T/tree"
    local d i n=0
    for d in /usr/include /usr/share/doc /usr/share/perl /usr/share/man /usr/lib/python3 /usr/share/zoneinfo /etc; do
        [ -d "$d" ] && [ "$n" -lt 10000 ] || continue
        mkdir -p "$T/tree$d"
        find "$d" -type f -size -2000k -readable -printf '%P\0' | head -zn $((10500 - n)) |
            tar -C "$d" --null -T - -cf - | tar -C "$T/tree$d" -xf -
        n=$(find "$T/tree" -type f | wc -l)
    done
    mkdir "$T/again"
    for ((i = 1; n < 10000; i++)); do
        cp -r "$T/tree" "$T/again/$i"
        mv "$T/again/$i" "$T/tree/"
        n=$(find "$T/tree" -type f | wc -l)
    done
    rmdir "$T/again"
    find "$T/tree/usr" -type d | head -n 50 | while read -r d; do ln -s "$d" "$d.link"; done
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    M=$T/c.mnt
}

@test "trees: 10,000 files copied in are the same to diff -r" {
    [ "$(find "$T/tree" -type f | wc -l)" -ge 10000 ]
    cp -a "$T/tree" "$M/copy"
    diff -r --no-dereference "$T/tree" "$M/copy"
    [ "$(find "$M/copy" | wc -l)" = "$(find "$T/tree" | wc -l)" ]
}

@test "trees: the same after all caches are gone" {
    umount "$M"
    wait_until 30 gone "$(pid_of c mount-1)"
    cluster c
    diff -r --no-dereference "$T/tree" "$M/copy"
    healthy c
}

@test "trees: tar in and out" {
    tar -C "$T/tree" -cf "$T/in.tar" usr
    mkdir "$M/tar"
    tar -C "$M/tar" -xf "$T/in.tar"
    tar -C "$M/tar" --compare -f "$T/in.tar"
    tar -C "$M/tar" -cf - usr | tar -df - -C "$T/tree"
    rm -rf "$M/tar"
    [ ! -e "$M/tar" ]
}

@test "trees: rsync -a twice copies nothing the second time" {
    rsync -a "$T/tree/" "$M/rsync/"
    run -0 rsync -a --itemize-changes "$T/tree/" "$M/rsync/"
    [ -z "$output" ]
    rsync -a --checksum --dry-run --itemize-changes "$T/tree/" "$M/rsync/" >"$T/rsync.out"
    [ ! -s "$T/rsync.out" ]
    rm -rf "$M/rsync"
}

@test "trees: git clone, commit, fsck" {
    git init -q "$T/repo"
    cp -r "$ROOT/cluster" "$ROOT/fs" "$T/repo/"
    git -C "$T/repo" add .
    git -C "$T/repo" -c user.name=t -c user.email=t@localhost commit -qm one
    git clone -q "$T/repo" "$M/clone"
    cd "$M/clone"
    git fsck --strict
    [ -z "$(git status --porcelain)" ]
    echo change >>fs/main.c
    git -c user.name=t -c user.email=t@localhost commit -qam two
    git gc -q
    git fsck --strict
    cd /
}

@test "trees: this program builds on the mount and passes its unit tests there" {
    mkdir "$M/build"
    tar -C "$ROOT" --exclude=./build --exclude=./.git -cf - . | tar -C "$M/build" -xf -
    cd "$M/build"
    # no optimisation: this is about files, not about code
    make -s -j2 CFLAGS='-std=c11 -O0' build/dfs >"$T/make.out" 2>&1 || {
        tail -n 20 "$T/make.out" >&2
        false
    }
    ./build/dfs --version
    for t in conf_test wire_test extmap_test; do
        [ -e "test/unit/$t.c" ] || continue
        make -s CFLAGS='-std=c11 -O0' "build/gcc-release/unit/$t"
        TMPDIR=$M/build "build/gcc-release/unit/$t"
    done
    make -s CFLAGS='-std=c11 -O0' -q build/dfs # nothing left to do: times are kept
    cd /
}

@test "trees: rm -rf removes everything and the space comes back" {
    rm -rf "${M:?}"/*
    [ -z "$(ls -A "$M")" ]
    wait_until 30 status_is c blocks 0
}
