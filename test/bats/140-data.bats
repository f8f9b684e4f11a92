# What is in files: holes, preallocation, copies that move nothing, the largest size, access times.
load lib

setup_file() {
    tmp_make "$(in_memory 4)"
    fuse_usable || return 0
    cluster c "${QUICK[@]}"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    D=$T/c.mnt/$BATS_TEST_NUMBER
    mkdir "$D"
    cd "$D" || return 1
}

teardown() {
    cd /
}

posix() {
    "$(helper posix)" "$@"
}

stored() { # bytes in all replicas of all servers
    du -sb "$T"/c/data/block-* | awk '{ n += $1 } END { print n }'
}

@test "data: fallocate in every mode that gets through the kernel" {
    fallocate -l 1M f
    [ "$(stat -c %s:%b f)" = 1048576:0 ]
    fallocate -n -l 2M f
    [ "$(stat -c %s:%b f)" = 1048576:0 ]
    head -c 100000 /dev/urandom >g
    fallocate -p -o 4096 -l 8192 g
    [ "$(stat -c %s:%b g)" = "100000:$(((100000 - 8192 + 511) / 512))" ]
    [ "$(head -c 12288 g | tail -c 8192 | tr -d '\0' | wc -c)" = 0 ]
    fallocate -z -o 90000 -l 20000 g
    [ "$(stat -c %s g)" = 110000 ]
    [ "$(tail -c 20000 g | tr -d '\0' | wc -c)" = 0 ]
    fallocate -x -l 200000 g # posix_fallocate()
    [ "$(stat -c %s g)" = 200000 ]
    run -1 fallocate -c -o 0 -l 4096 g
    [[ $output == *"not supported"* ]]
    run -1 fallocate -l 15T h
    [[ $output == *"No space"* ]]
    truncate -s 1M z
    printf x | dd of=z bs=1 seek=500000 conv=notrunc status=none
    cp --sparse=never z full
    [ "$(stat -c %b full)" -ge 1 ]
    fallocate -d full
    [ "$(stat -c %b full)" -lt 512 ]
    cmp z full
}

@test "data: holes are where they are, committed or not" {
    posix holes f
    posix holes f
    rm f
}

@test "data: 16 TiB, and not a byte more" {
    posix huge f
    timeout 60 cp f g
    [ "$(stat -c %s g)" = 17592186044416 ]
    [ "$(tail -c 3 g)" = end ]
    timeout 60 rm f g
}

@test "data: copy_file_range takes what only the memory has" {
    posix copy f g
    posix copy f g
}

@test "data: cp moves no bytes, and copies go their own ways" {
    local before sum
    head -c 20M /dev/urandom >f
    sync f
    before=$(stored)
    cp f g
    cp f h
    printf new | dd of=g bs=1 seek=1000000 conv=notrunc status=none
    sync g
    [ $(($(stored) - before)) -lt 2000000 ]
    cmp f h
    [ "$(cmp -l f g | wc -l)" -le 3 ]
    [ "$(dd if=g bs=1 skip=1000000 count=3 status=none)" = new ]
    rm f
    sum=$(cksum <h)
    healthy c
    [ "$(cksum <h)" = "$sum" ]
}

@test "data: dfs cp, with trees, over what is there, with bytes of its own" {
    local before
    mkdir -p t/u
    head -c 5M /dev/urandom >t/u/big
    truncate -s 9M t/u/big
    ln -s u/big t/l
    chmod 640 t/u/big
    touch -d 2001-02-03 t/u
    sync t/u/big
    before=$(stored)
    dfs c cp -r -p "/$BATS_TEST_NUMBER/t" "/$BATS_TEST_NUMBER/t2"
    [ $(($(stored) - before)) -lt 1000000 ]
    diff -r t t2
    [ "$(stat -c %a:%b t2/u/big)" = "$(stat -c %a:%b t/u/big)" ]
    [ "$(stat -c %Y t2/u)" = "$(stat -c %Y t/u)" ]
    [ "$(readlink t2/l)" = u/big ]
    run -1 dfs c cp "/$BATS_TEST_NUMBER/t/u/big" "/$BATS_TEST_NUMBER/t2/u/big"
    [[ $output == *"file exists"* ]]
    before=$(stored)
    dfs c cp -f --copy "/$BATS_TEST_NUMBER/t/u/big" "/$BATS_TEST_NUMBER/t2/u/big"
    [ $(($(stored) - before)) -gt 4000000 ]
    cmp t/u/big t2/u/big
    [ "$(stat -c %b t2/u/big)" = "$(stat -c %b t/u/big)" ]
    run -1 dfs c cp -r "/$BATS_TEST_NUMBER/t" "/$BATS_TEST_NUMBER/t/u"
    [[ $output == *"into itself"* ]]
    run -2 dfs c cp --clone --copy "/$BATS_TEST_NUMBER/t/l" "/$BATS_TEST_NUMBER/x"
}

reads() { # FILE TEXT: with a dot for each zero byte
    [ "$(tr '\0' . <"$1")" = "$2" ]
}

@test "data: dfs fallocate takes ranges out and puts them in" {
    local p=/$BATS_TEST_NUMBER/f
    printf 0123456789 >f
    dfs c fallocate -c -o 2 -l 3 "$p"
    wait_until 20 reads f 0156789
    dfs c fallocate -i -o 1 -l 2 "$p"
    wait_until 20 reads f 0..156789
    dfs c fallocate -p -o 3 -l 1 "$p"
    dfs c fallocate -z -o 8 -l 2 "$p"
    dfs c fallocate -n -l 100 "$p"
    wait_until 20 reads f 0...5678..
    run -1 dfs c fallocate -c -l 100 "$p"
    run -2 dfs c fallocate -p -z -l 1 "$p"
    dfs c fallocate -l 5MiB "/$BATS_TEST_NUMBER/new"
    [ "$(stat -c %s:%b new)" = 5242880:0 ]
}

@test "data: direct, synchronous and mapped writes" {
    posix direct f
    dd if=/dev/urandom of=g bs=64k count=20 oflag=direct,dsync status=none
    dd if=g iflag=direct bs=128k status=none | cmp - g
    posix mmap h
}

@test "data: direct writes that do not wait for each other, beside a reader with pages" {
    "$(helper aio)" f 60
}

@test "data: times have nanoseconds and one clock" {
    posix utimens f
}

atime() {
    stat -c %.9X "$1"
}

told() { # FILE: the masters know the time that this mount shows
    dfs c stat "${1#"$T/c.mnt"}" | grep -qF "$(date -u -d "@$(atime "$1")" +%Y-%m-%dT%H:%M:%S.%N)"
}

@test "data: reading moves the access time by the rules of relatime" {
    local changed first
    echo x >f
    posix noatime f
    first=$(atime f)
    changed=$(stat -c %z f)
    cat f >/dev/null
    [ "$(atime f)" != "$first" ]
    [ "$(stat -c %z f)" = "$changed" ]
    first=$(atime f)
    cat f >/dev/null
    [ "$(atime f)" = "$first" ] # it is after the last change
    wait_until 20 told "$D/f"
    touch -a -d '2 days ago' f
    first=$(atime f)
    cat f >/dev/null
    [ "$(atime f)" != "$first" ]
    touch -a -d 2030-01-01 f # what was read before is not told behind it
    echo x >g
    cat g
    wait_until 20 told "$D/g"
    [ "$(stat -c %X f)" = "$(date -d 2030-01-01 +%s)" ]
    mkdir d
    touch -d '2 days ago' d
    first=$(atime d)
    ls d
    [ "$(atime d)" != "$first" ]
}

@test "data: fsync of bytes whose block is long gone" {
    python3 - f "$T"/c/data/block-* 3>&- <<'END'
import os, sys, time
def stored():
    return sum(os.path.getsize(os.path.join(d, f)) for top in sys.argv[2:] for d, _, fs in os.walk(top)
               for f in fs if os.path.exists(os.path.join(d, f)))
before = stored()
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, os.urandom(3000000))
while stored() < before + 5000000:
    time.sleep(0.05)
os.ftruncate(fd, 0)
until = time.time() + 60
while stored() > before + 1000000: # the block is released, deleted, and its copies removed
    assert time.time() < until
    time.sleep(0.05)
os.pwrite(fd, b"again", 0)
start = time.time()
os.fsync(fd)
assert time.time() - start < 10
assert os.pread(fd, 10, 0) == b"again"
END
}

@test "data: noatime and read-only mounts leave the access time alone" {
    local m first
    echo x >f
    touch -d '2 days ago' f
    first=$(atime f)
    for o in noatime ro; do
        m=$T/$o
        mkdir "$m"
        "$DFS" mount --conf "$T/c/dfs.conf" "$m" -o "$o" 3>&-
        cat "$m/$BATS_TEST_NUMBER/f"
        [ "$(atime "$m/$BATS_TEST_NUMBER/f")" = "$first" ]
        umount "$m"
    done
    [ "$(atime f)" = "$first" ]
}
