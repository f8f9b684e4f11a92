# An older backup of the metadata is put back: nothing that was written since is taken for something new.
load lib

setup_file() {
    tmp_make
    cluster c --no-mount "${QUICK[@]}" --blocks 3 --replication 2
}

teardown_file() {
    tmp_remove
}

setup() {
    DATA=$T/c/data/master-1
}

stop() {
    "$DFS" local "$T/c" --stop >/dev/null
}

start() {
    cluster c --no-mount
    wait_until 20 servers_in_state c live 3
}

# A file of one size for all: another one's block under the same id would look right.
put() { # NAME
    head -c 300000 /dev/urandom >"$T/$1"
    dfs c put "$T/$1" "/$1"
}

is_there() { # NAME
    dfs c cat "/$1" | cmp - "$T/$1"
}

block_of() { # NAME
    dfs c stat --json "/$1" | jq .extents[0].block
}

copies_of() { # BLOCK: files on disks
    find "$T"/c/data/block-*/ -path '*/blocks/*' -name "$(printf '%016x' "$1")*" | wc -l
}

# Logged of the block, more often than N times: reports come every few seconds.
told() { # EVENT
    grep -q "$1" "$T/c/log/master-1.log"
}

after_restore() { # WHAT WAS WRITTEN SINCE THE BACKUP, ITS BLOCK
    put "after-$1"
    [ "$(block_of "after-$1")" -gt "$2" ]
    is_there before
    is_there "after-$1"
    run ! dfs c cat "/$1"
    dfs c scrub --now >/dev/null
    wait_until 60 healthy c
    is_there "after-$1"
    [ "$(copies_of "$2")" = 2 ] # not one of the strays that go after delete.grace
}

@test "restore: a copy of the directory" {
    put before
    stop
    cp -a "$DATA" "$T/backup"
    start
    put lost
    block=$(block_of lost)
    [ "$(copies_of "$block")" = 2 ]
    stop
    mv "$DATA" "$T/newer"
    cp -a "$T/backup" "$DATA"
    start
    wait_until 20 told "master.restored.*is a copy"
    after_restore lost "$block"
}

@test "restore: a roll-back in place, which only blocks tell of" {
    stop
    rm -rf "$T/backup"
    cp -a "$DATA" "$T/backup"
    start
    put gone
    block=$(block_of gone)
    stop
    # the same files with the content that they had
    (cd "$T/backup" && find . -type f -exec sh -c 'cat "$1" >"$2/$1"' _ {} "$DATA" \;)
    (cd "$DATA" && find . -type f) | while read -r f; do [ -e "$T/backup/$f" ] || rm "$DATA/$f"; done
    start
    wait_until 20 told "master.restored.*block=$block"
    after_restore gone "$block"
}

@test "restore: an ordinary start leaves ids alone" {
    last=$(block_of after-gone)
    stop
    start
    put next
    [ "$(block_of next)" -lt $((last + 100)) ]
}
