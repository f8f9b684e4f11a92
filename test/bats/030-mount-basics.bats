# The mount as a file system: what POSIX programs expect of names, modes and bytes.
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

@test "mount: modes, owners and times" {
    (umask 027; touch f; mkdir d)
    [ "$(stat -c %a f)" = 640 ]
    [ "$(stat -c %a d)" = 750 ]
    chmod 4711 f
    [ "$(stat -c %a f)" = 4711 ]
    chown 12:34 f
    [ "$(stat -c %u:%g f)" = 12:34 ]
    touch -d '2001-02-03 04:05:06.789012345 UTC' f
    [ "$(TZ=UTC stat -c %y f)" = '2001-02-03 04:05:06.789012345 +0000' ]
    touch -a -d '1999-01-01 UTC' f
    [ "$(stat -c %X f)" = "$(date -d '1999-01-01 UTC' +%s)" ]
    [ "$(TZ=UTC stat -c %y f)" = '2001-02-03 04:05:06.789012345 +0000' ]
}

@test "mount: permissions are enforced for other users" {
    echo secret >f
    chmod 600 f
    run -1 setpriv --reuid 12345 --regid 12345 --clear-groups cat f
    [[ $output == *"ermission denied"* ]]
    run -1 setpriv --reuid 12345 --regid 12345 --clear-groups touch "$D/other"
    chmod 777 .
    setpriv --reuid 12345 --regid 12345 --clear-groups touch "$D/other"
    [ "$(stat -c %u:%g other)" = 12345:12345 ]
}

@test "mount: a directory's times and links follow its entries" {
    touch -d 2000-01-01 .
    touch f
    [ "$(stat -c %Y .)" -gt "$(date -d 2020-01-01 +%s)" ]
    [ "$(stat -c %h .)" = 2 ]
    mkdir a b
    [ "$(stat -c %h .)" = 4 ]
    rmdir a
    [ "$(stat -c %h .)" = 3 ]
}

@test "mount: hard links" {
    echo one >a
    ln a b
    [ "$(stat -c %h a)" = 2 ]
    [ "$(stat -c %i a)" = "$(stat -c %i b)" ]
    echo two >>b
    [ "$(cat a)" = $'one\ntwo' ]
    rm a
    [ "$(stat -c %h b)" = 1 ]
    [ "$(cat b)" = $'one\ntwo' ]
    mkdir d
    run ! ln d e
}

@test "mount: symbolic links" {
    echo x >target
    ln -s target link
    [ "$(readlink link)" = target ]
    [ "$(cat link)" = x ]
    ln -s nowhere dangling
    run ! cat dangling
    long=$(printf 'x%.0s' {1..4000})
    ln -s "$long" long
    [ "$(readlink long)" = "$long" ]
    ln -s loop loop
    run ! cat loop
    [ "$(stat -c %s link)" = 6 ]
}

@test "mount: pipes, sockets' nodes and devices" {
    mkfifo pipe
    [ -p pipe ]
    echo through >pipe &
    [ "$(cat pipe)" = through ]
    mknod null c 1 3
    [ "$(stat -c %t:%T null)" = 1:3 ]
}

@test "mount: extended attributes" {
    touch f
    setfattr -n user.a -v one f
    setfattr -n user.b -v 0x00ff00 f
    [ "$(getfattr --only-values -n user.a f)" = one ]
    [ "$(getfattr --absolute-names -e hex -n user.b f | sed -n 's/user.b=//p')" = 0x00ff00 ]
    [ "$(getfattr -d f | grep -c ^user)" = 2 ]
    setfattr -x user.a f
    run ! getfattr -n user.a f
    big=$(head -c 20000 /dev/zero | tr '\0' x)
    setfattr -n user.big -v "$big" f
    [ "$(getfattr --only-values -n user.big f)" = "$big" ]
    setfattr -n user.d -v dir .
    [ "$(getfattr --only-values -n user.d .)" = dir ]
}

@test "mount: truncate both ways" {
    head -c 100000 /dev/urandom >ref
    cp ref f
    truncate -s 5000 f
    cmp <(head -c 5000 ref) f
    truncate -s 50000 f
    cmp <(head -c 5000 ref; head -c 45000 /dev/zero) f
    : >f
    [ "$(stat -c %s f)" = 0 ]
}

@test "mount: sparse files hold zeroes and no space" {
    truncate -s 1G f
    [ "$(stat -c %s f)" = 1073741824 ]
    [ "$(stat -c %b f)" = 0 ]
    printf end | dd of=f bs=1 seek=1073741821 conv=notrunc status=none
    [ "$(tail -c 3 f)" = end ]
    [ "$(dd if=f bs=1M skip=500 count=1 status=none | tr -d '\0' | wc -c)" = 0 ]
    [ "$(stat -c %b f)" -lt 1000 ]
}

@test "mount: append, from several processes too" {
    echo a >f
    echo b >>f
    [ "$(cat f)" = $'a\nb' ]
    posix append g 4
    [ "$(wc -l <g)" = 800 ]
    [ "$(sort g | uniq -c | awk '{ print $1 }' | sort -u)" = 200 ]
}

@test "mount: rename, over files and directories, NOREPLACE and EXCHANGE" {
    echo a >a
    echo b >b
    mv a b
    [ "$(cat b)" = a ]
    [ ! -e a ]
    mkdir d e
    touch d/x
    mv -T d e
    [ -e e/x ]
    mkdir full
    touch full/y
    run ! mv -T e full
    echo c >c
    run -1 posix rename2 noreplace b c
    [[ $output == *EEXIST* ]]
    posix rename2 noreplace b b2
    posix rename2 exchange b2 c
    [ "$(cat b2)" = c ]
    [ "$(cat c)" = a ]
    posix rename2 exchange c e
    [ -d c ] && [ -f e ]
    mkdir -p p/q
    run ! mv p p/q/r
}

@test "mount: an exclusive create and what is already there" {
    posix excl f
    run -1 posix excl f
    [[ $output == *EEXIST* ]]
    run ! mkdir f
    run ! rmdir .
    mkdir d
    touch d/x
    run ! rmdir d
    run ! cat d
    run ! ls f/below
}

@test "mount: an open file outlives its name" {
    posix unlinked f
    [ ! -e f ]
}

@test "mount: shared and private mappings" {
    posix mmap f
}

@test "mount: mappings of a file that is opened to append" {
    run posix map_append f
    if [ $status -eq 77 ] && ! printf '6.6\n%s\n' "$(uname -r)" | sort -VC; then
        skip "this kernel maps no such files"
    fi
    [ $status -eq 0 ]
}

@test "mount: random writes, truncates and reads agree with an array" {
    for seed in 1 2 3; do posix model "f$seed" $seed 400; done
}

@test "mount: names up to 255 bytes, of any bytes" {
    name=$(printf 'n%.0s' {1..255})
    echo long >"$name"
    [ "$(cat "$name")" = long ]
    run ! touch "${name}n"
    [[ $output == *"too long"* ]]
    odd=$'new\nline \xff\xfe "x"'
    echo odd >"$odd"
    [ "$(cat "$odd")" = odd ]
    [ "$(find . -maxdepth 1 -name 'new*' -print0 | tr -dc '\0' | wc -c)" = 1 ]
}

@test "mount: df and du show what is used" {
    [ "$(df --output=fstype . | tail -n 1)" = fuse.dfs ]
    [ "$(free_bytes .)" -gt 0 ]
    head -c 1000000 /dev/urandom >f
    sync f
    [ "$(du -B1 f | cut -f 1)" -ge 1000000 ]
}

@test "mount: fsync of files and directories" {
    echo x >f
    sync f
    sync .
    sync -f .
}

@test "mount: seekdir finds the same entries again" {
    touch {1..60}
    posix seekdir .
}

@test "mount: a directory of 100,000 entries" {
    mkdir many
    local count=${MANY:-100000}
    posix many many "$count"
    [ "$(posix count many)" = "$count" ]
    [ -e "many/entry-$((count - 1))" ]
    # names that go while the directory is read neither hide nor repeat the others
    find many -name '*7' -delete
    [ "$(posix count many)" = $((count * 9 / 10)) ]
}
