# What fsck finds: by the masters' word, and with --deep on the disks; reading around what is lost.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --set client.timeout=5s
    mkdir "$T/c.mnt/d"
    for i in 1 2 3; do head -c 3000000 /dev/urandom >"$T/file-$i"; done
    cp "$T"/file-* "$T/c.mnt/d/"
    sync -f "$T/c.mnt"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
}

# The replica files of the first block of a file, on all servers.
replicas_of() { # PATH
    local id
    id=$(dfs c stat "$1" --json | jq '.extents[0].block')
    find "$T/c/data" -name "$(printf %016x "$id")*" -type f
}

flip() { # FILE OFFSET
    python3 - "$@" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    b = f.read(1)
    f.seek(-1, 1)
    f.write(bytes([b[0] ^ 4]))
END
}

# Of a block that is still written to only whole synced chunks are looked at.
sealed() { # PATH
    [ "$(dfs c stat "$1" --json | jq -r '[.extents[].state] | unique | join(" ")')" = sealed ]
}

deep_is_clean() {
    dfs c fsck --deep /
}

@test "fsck --deep: reads every copy, and all is well" {
    wait_until 60 deep_is_clean
    dfs c fsck --deep / --json >"$T/json"
    [ "$(jq .bad_copies "$T/json")" = 0 ]
    [ "$(jq .bytes_checked "$T/json")" -ge 18000000 ] # two copies
    [ "$(jq .healthy "$T/json")" = true ]
}

@test "fsck --deep: finds a flipped bit, which is then mended" {
    wait_until 60 sealed /d/file-2
    bad=$(replicas_of /d/file-2 | head -1)
    good=$(replicas_of /d/file-2 | tail -1)
    [ "$bad" != "$good" ]
    flip "$bad" 1000000
    dfs c fsck /
    run -1 dfs c fsck --deep /
    [[ $output == *checksum* ]]
    [[ $output == *"1 bad"* ]]
    wait_until 60 deep_is_clean
    cmp "$T/file-2" "$T/c.mnt/d/file-2"
}

@test "get --force: leaves a hole where no copy can be read, and says so" {
    wait_until 60 sealed /d/file-3
    replicas_of /d/file-3 >"$T/lost"
    while read -r f; do truncate -s 4096 "$f"; done <"$T/lost"
    echo 3 >/proc/sys/vm/drop_caches
    run -1 dfs c get /d/file-3 "$T/got"
    [ ! -e "$T/got" ]
    run -1 dfs c get --force /d/file-3 "$T/got"
    [[ $output == *"left as a hole"* ]]
    [ "$(stat -c %s "$T/got")" = 3000000 ]
    run -2 dfs c fsck --deep /d/file-3
    [[ $output == *"/d/file-3"* ]]
    dfs c fsck --deep /d/file-1
}

@test "fsck: files that change while it looks are not said to be lost" {
    local m=$T/busy.mnt/d
    cluster busy "${QUICK[@]}" --set block_size=1MiB # which are given up soon
    mkdir "$m"
    (cd "$m" && seq 1500 | split -l 1 -a 4) # that it looks at for a while
    while [ ! -e "$T/enough" ]; do
        for i in $(seq 10); do head -c 1500000 /dev/zero >"$m/$i" && sync "$m/$i"; done
    done &
    wait_until 10 [ -s "$m/10" ]
    for _ in $(seq 5); do
        dfs busy fsck / || touch "$T/wrong"
        dfs busy fsck --deep / || touch "$T/wrong"
    done
    touch "$T/enough"
    wait
    [ ! -e "$T/wrong" ]
    "$DFS" local "$T/busy" --stop
}

@test "fsck: the whole file system: every count is right, and --repair finds nothing to do" {
    cp -r "$ROOT/docs" "$T/tree"
    dfs c put -r "$T/tree" /counts
    dfs c cp -r /counts /counts-again
    dfs c rm -r /counts
    run dfs c fsck
    [[ $output == *"all counts are right"* ]]
    run dfs c fsck --repair
    [[ $output == *"all counts are right"* ]]
    dfs c fsck --json >"$T/json" || true
    [ "$(jq '.counts.wrong + .counts.unused + .counts.dangling_extents' "$T/json")" = 0 ]
    [ "$(jq '.counts.extents > 0' "$T/json")" = true ]
    run -2 dfs c fsck --repair /counts-again
    run dfs c fsck /counts-again # only a part: nothing is said of counts
    [[ $output != *"counts"* ]]
}
