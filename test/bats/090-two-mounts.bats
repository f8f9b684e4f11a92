# Two mounts of one cluster see each other's work.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --mount "$T/second"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    A=$T/c.mnt
    B=$T/second
}

same() { # PATH below both
    cmp "$A/$1" "$B/$1"
}

@test "two mounts: what one has closed the other reads" {
    for i in 1 2 3 4 5; do
        head -c $((i * 300000)) /dev/urandom >"$A/f"
        same f
        head -c 1000 /dev/urandom >"$B/f"
        same f
    done
}

@test "two mounts: a changed file is never a mixture" {
    yes one | head -c 400000 >"$A/mix"
    cat "$B/mix" >/dev/null
    yes two | head -c 400000 >"$A/mix"
    [ "$(sort -u "$B/mix")" = two ]
}

@test "two mounts: names appear and vanish within the cache time" {
    ls "$B" >/dev/null
    echo new >"$A/appears"
    [ "$(cat "$B/appears")" = new ]
    rm "$A/appears"
    wait_until 5 test ! -e "$B/appears"
    # a name that was asked for and not there
    [ ! -e "$B/later" ]
    touch "$A/later"
    wait_until 5 test -e "$B/later"
    mv "$A/later" "$A/moved"
    wait_until 5 test -e "$B/moved"
    wait_until 5 test ! -e "$B/later"
}

@test "two mounts: attributes follow" {
    touch "$A/attr"
    stat "$B/attr" >/dev/null
    chmod 601 "$A/attr"
    mode_is() { [ "$(stat -c %a "$B/attr")" = 601 ]; }
    wait_until 5 mode_is
}

@test "two mounts: appends of both are all there" {
    posix=$(helper posix)
    "$posix" append "$A/log" 3 &
    "$posix" append "$B/log" 3 &
    wait
    [ "$(wc -l <"$A/log")" = 1200 ]
    [ "$(awk '{ print length($0) }' "$A/log" | sort -u)" = 63 ]
    wait_until 5 same log
}

@test "two mounts: an exclusive create succeeds once" {
    posix=$(helper posix)
    for i in $(seq 30); do
        "$posix" excl "$A/x$i" 2>/dev/null &
        p=$!
        a=0 b=0
        "$posix" excl "$B/x$i" 2>/dev/null || b=1
        wait $p || a=1
        [ $((a + b)) = 1 ]
    done
}

@test "two mounts: a file removed on one side stays readable where it is open" {
    seq 200000 >"$A/open"
    exec 7<"$B/open"
    rm "$A/open"
    [ "$(cat <&7 | tail -n 1)" = 200000 ]
    exec 7<&-
}

@test "two mounts: both write into one directory at once" {
    mkdir "$A/both"
    for m in "$A" "$B"; do
        (for i in $(seq 300); do echo "$i" >"$m/both/${m##*/}-$i"; done) &
    done
    wait
    [ "$(find "$A/both" -type f | wc -l)" = 600 ]
    all_there() { [ "$(find "$B/both" -type f | wc -l)" = 600 ]; }
    wait_until 5 all_there
}
