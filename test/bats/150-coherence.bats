# Four mounts of one cluster, with caches that live for a minute: what one does the others see at once,
# because the master tells them.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --set client.attr_timeout=60s \
        --mount "$T/m2" --mount "$T/m3" --mount "$T/m4"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    A=$T/c.mnt
    B=$T/m2
    two=$(helper coherence)
}

has() { [ -e "$1" ]; }
lacks() { [ ! -e "$1" ]; }
mode_is() { [ "$(stat -c %a "$1")" = "$2" ]; }
links_are() { [ "$(stat -c %h "$1")" = "$2" ]; }
says() { [ "$(cat "$1")" = "$2" ]; }

@test "coherence: a name that was not there appears" {
    for m in "$B" "$T/m3" "$T/m4"; do [ ! -e "$m/later" ]; done
    touch "$A/later"
    for m in "$B" "$T/m3" "$T/m4"; do wait_until 20 has "$m/later"; done
}

@test "coherence: a renamed and a removed name are gone" {
    mkdir "$A/dir"
    echo one >"$A/dir/old"
    says "$B/dir/old" one
    [ ! -e "$B/dir/new" ]
    mv "$A/dir/old" "$A/dir/new"
    wait_until 20 has "$B/dir/new"
    wait_until 20 lacks "$B/dir/old"
    echo two >"$A/other"
    says "$B/other" two
    mv "$A/other" "$A/dir/new" # over what was there
    wait_until 20 says "$B/dir/new" two
    rm "$A/dir/new"
    wait_until 20 lacks "$B/dir/new"
}

@test "coherence: a directory that somebody works in keeps its place when it moves" {
    mkdir "$A/work"
    cd "$B/work"
    mv "$A/work" "$A/moved"
    wait_until 20 has "$B/moved"
    [ "$(/bin/pwd)" = "$B/moved" ]
    echo here >here
    wait_until 20 says "$A/moved/here" here
    cd /
}

@test "coherence: attributes and extended attributes follow" {
    touch "$A/attr"
    mode_is "$B/attr" 644
    chmod 601 "$A/attr"
    wait_until 20 mode_is "$B/attr" 601
    ln "$B/attr" "$B/attr2"
    wait_until 20 links_are "$A/attr" 2
    run getfattr -n user.x "$B/attr"
    setfattr -n user.x -v 1 "$A/attr"
    wait_until 20 getfattr -n user.x "$B/attr"
}

@test "coherence: an overwritten file is read anew, without opening it again" {
    "$two" overwrite "$A" "$B" 4
}

@test "coherence: who closed a file and opens it again still knows that another has it open" {
    cluster slow "${QUICK[@]}" --blocks 1 --replication 1 --mount "$T/slow2" \
        --set client.commit_interval=60s
    # Opened there, as a rule, before the master hears that it was closed here.
    timeout 20 python3 - "$T/slow.mnt" "$T/slow2" 3>&- <<'END'
import os, sys, time
for i in range(4):
    here, there = (os.path.join(d, f"log{i}") for d in sys.argv[1:])
    open(here, "w").close()
    reader = open(there, "rb")
    with open(here, "r+b", buffering=0) as writer:
        writer.write(b"line")
        while reader.read() != b"line":  # long before the next pass
            time.sleep(0.05)
END
}

@test "coherence: who follows a file sees every byte and no other" {
    "$two" follow "$A" "$B" "${DFS_LONG:+20}400"
}

@test "coherence: cutting and extending loses nothing in front of it" {
    "$two" extend "$A" "$B" "${DFS_LONG:+10}100"
}

@test "coherence: what another mount cut off comes back only if it is written after" {
    "$two" dirty "$A" "$B"
}

@test "coherence: a large directory is listed while names come and go" {
    "$two" list "$A" "$B" "$([ -n "${DFS_LONG:-}" ] && echo 100000 || echo 2000)"
}

@test "coherence: the longest name, path and symbolic link" {
    "$two" names "$A" "$B"
}

@test "coherence: two mounts append and read at the same time" {
    "$two" both "$A" "$B"
}

appends_whole() { # FILE LINES
    [ "$(wc -l <"$1")" = "$2" ]
    [ "$(awk '{ print length($0) }' "$1" | sort -u)" = 63 ]
    [ "$(sort -u "$1" | wc -l)" = "$2" ]
}

@test "coherence: four mounts append, a block server dies, nothing is lost or torn" {
    local pids=() p
    for m in "$A" "$B" "$T/m3" "$T/m4"; do
        "$two" append "$m" "${m##*/}" 200 &
        pids+=($!)
    done
    grown() { [ "$(stat -c %s "$A/log")" -gt $((64 * 100)) ]; }
    wait_until 60 grown
    kill_hard c block-1
    for p in "${pids[@]}"; do wait "$p"; done
    for m in "$A" "$B" "$T/m3" "$T/m4"; do wait_until 20 appends_whole "$m/log" 800; done
    cluster c
}

@test "coherence: a master that starts again forgets nothing that was promised" {
    echo before >"$A/again"
    says "$B/again" before
    exec 7<"$B/again"
    kill_hard c master-1
    cluster c
    echo behind >"$A/again"
    wait_until 60 says /dev/fd/7 behind
    exec 7<&-
}
