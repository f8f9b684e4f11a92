# Who may do what: users, groups, set-id bits, access lists, squashed root, on mounts and in commands.
load lib

setup_file() {
    tmp_make "$(in_memory 4)"
    fuse_usable || return 0
    cluster c "${QUICK[@]}"
    install -m 755 "$DFS" "$T/dfs"
    install -m 644 "$T/c/dfs.conf" "$T/conf" # other users' copy
    mkdir "$T/two" "$T/squash" "$T/anon" "$T/ro"
    "$DFS" mount "$T/two" --conf "$T/conf"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    D=$T/c.mnt/$BATS_TEST_NUMBER
    mkdir -m 777 "$D"
    cd "$D" || return 1
    chmod 777 .
    umask 022
}

teardown() {
    cd /
}

ANN=4001 BOB=4002 EVE=4003

# as USER GROUPS COMMAND...: the first of the groups is the main one, the others are in addition.
as() {
    local uid=$1 groups=$2
    shift 2
    setpriv --reuid "$uid" --regid "${groups%%,*}" --groups "$groups" "$@"
}

ann() { as $ANN 400,410 "$@"; }
bob() { as $BOB 500,410 "$@"; }
eve() { as $EVE 600 "$@"; }

denied() { # COMMAND...: fails, and says so
    run ! "$@"
    [[ $output == *"ermission denied"* || $output == *"not permitted"* ]]
}

mode_is() { # MODE FILE
    [ "$(stat -c %a "$2")" = "$1" ]
}

no_lists() { # FILE
    [ -z "$(getfattr -d -m system.posix_acl "$1")" ]
}

@test "permissions: owner, group and others, by the bits of the mode" {
    ann mkdir d
    ann sh -c 'echo text >d/f'
    chgrp 410 d d/f
    ann chmod 640 d/f
    ann chmod 750 d
    [ "$(bob cat d/f)" = text ]
    denied bob sh -c 'echo x >>d/f'
    denied bob touch d/g
    denied bob rm -f d/f
    denied eve cat d/f
    denied eve ls d
    ann chmod 711 d
    denied eve ls d
    eve stat d/f
    denied eve mv d/f f
    denied eve chmod 666 d/f
    denied eve chown $EVE d/f
    denied ann chown $EVE d/f
    denied ann chgrp 600 d/f
    ann chgrp 410 d/f
    denied eve touch d/f
    denied eve touch -d 2001-01-01 d/f
    ann chmod 602 d/f
    eve touch d/f
    denied eve touch -d 2001-01-01 d/f
}

@test "permissions: a user in very many groups, and the last of them counts" {
    mkdir -m 770 d
    chgrp 9999 d
    as $ANN "$(seq -s, 9000 9998),9999" touch d/f
    denied as $ANN "$(seq -s, 9000 9998)" touch d/g
}

@test "permissions: sticky directories and directories that hand down their group" {
    mkdir -m 1777 sticky
    eve touch sticky/eves
    denied bob rm -f sticky/eves
    denied bob mv sticky/eves sticky/bobs
    bob touch sticky/bobs
    denied bob mv sticky/bobs sticky/eves
    eve rm sticky/eves
    mkdir -m 2777 shared
    chgrp 410 shared
    eve mkdir shared/sub
    eve touch shared/f
    [ "$(stat -c %g:%a shared/sub)" = 410:2755 ]
    [ "$(stat -c %g shared/f)" = 410 ]
    eve chmod 2755 shared/f # not a member
    mode_is 755 shared/f
}

@test "permissions: writing, truncating and chown take set-id bits away" {
    local how
    for how in 'echo x >>f' 'truncate -s 1 f' ': >f' 'dd if=/dev/zero of=f conv=notrunc count=1 status=none'; do
        rm -f f
        ann sh -c 'echo text >f'
        ann chmod 6777 f
        eve sh -c "$how"
        mode_is 777 f
    done
    ann chmod 6755 f
    ann chgrp 410 f
    mode_is 755 f
    chmod 6755 f
    sh -c 'echo x >>f' # root keeps them
    mode_is 6755 f
    chown 1:1 f
    mode_is 755 f
}

@test "permissions: writing takes what a program may do from it" {
    for how in "echo x >>prog" "echo x 1<>prog" "truncate -s 10 prog"; do
        cp /bin/true prog
        setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 prog
        getfattr -n security.capability prog
        eval "$how"
        run ! getfattr -n security.capability prog
        run ! getfattr -n security.capability "$T/two/$BATS_TEST_NUMBER/prog"
    done
}

@test "permissions: what is open stays open" {
    ann sh -c 'echo 123456 >f; mkdir -m 700 d; touch d/a d/b'
    # shellcheck disable=SC2016 # perl's own
    ann perl -e '
        open(my $f, "+<", "f") or die "open: $!";
        opendir(my $d, "d") or die "opendir: $!";
        chmod(0, "f", "d") == 2 or die "chmod: $!";
        sysread($f, my $x, 3) == 3 or die "read: $!";
        syswrite($f, "x") == 1 or die "write: $!";
        truncate($f, 5) or die "ftruncate: $!";
        my @names = grep { !/^\./ } readdir($d);
        @names == 2 or die "readdir: @names";
        close($f) or die "close: $!";
        open($f, "<", "f") and die "opened again";
    '
    [ "$(cat f)" = 123x5 ]
    # shellcheck disable=SC2016
    ann perl -e '
        use Fcntl;
        sysopen(my $f, "new", O_WRONLY | O_CREAT | O_EXCL, 0444) or die "create: $!";
        syswrite($f, "text") == 4 or die "write: $!";
        truncate($f, 2) or die "ftruncate: $!";
    '
    [ "$(cat new)" = te ]
}

@test "permissions: a program that can be run but not read" {
    install -m 711 /bin/true prog
    eve ./prog
    denied eve cat prog
    chmod 644 prog
    denied eve ./prog
    denied ./prog
}

@test "permissions: extended attributes by namespace" {
    ann touch f
    ann setfattr -n user.a -v 1 f
    chmod 600 f
    denied eve getfattr --only-values -n user.a f
    denied eve setfattr -n user.a -v 2 f
    setfattr -n trusted.t -v 1 f
    denied ann setfattr -n trusted.t -v 2 f
    [[ $(getfattr -m - f) == *trusted.t* ]]
    [[ $(ann getfattr -m - f) != *trusted.t* ]]
    ln -s f l
    denied setfattr -h -n user.a -v 1 l
    run -1 setfattr -n other.a -v 1 f
    [[ $output == *"not supported"* ]]
}

@test "acl: a list lets somebody in, chmod sets its mask, a mode's worth of it is none" {
    ann sh -c 'umask 077; echo text >f'
    denied eve cat f
    denied eve setfacl -m u:$EVE:r f
    ann setfacl -m u:$EVE:rw,g:500:r f
    eve sh -c 'echo more >>f'
    bob cat f
    denied bob sh -c 'echo x >>f'
    mode_is 660 f
    ann chmod 640 f
    [[ $(getfacl -c f) == *$'user:'$EVE$':rw-\t#effective:r--'* ]]
    denied eve sh -c 'echo x >>f'
    ann setfacl -m m::rw f
    eve sh -c 'echo x >>f'
    ann setfacl -x u:$EVE -x g:500 -x m f
    mode_is 600 f
    no_lists f
    denied eve cat f
}

@test "acl: default lists are inherited, and come instead of the umask" {
    mkdir d
    setfacl -d -m u:$EVE:rwx,g::rx,o::- d
    (umask 077; touch d/f; mkdir d/sub; touch d/sub/g; ln -s f d/l; mkfifo d/p)
    mode_is 660 d/f
    mode_is 770 d/sub
    mode_is 660 d/p
    eve sh -c 'echo x >d/sub/g'
    [[ $(getfacl -c d/sub) == *"default:user:$EVE:rwx"* ]]
    [[ $(getfacl -c d/f) == *"user:$EVE:rwx"*"mask::rw-"* ]]
    setfacl -k d
    (umask 077; touch d/h)
    mode_is 600 d/h
}

@test "acl: the other mount has it, too" {
    O=$T/two/$BATS_TEST_NUMBER
    ann sh -c 'umask 077; echo text >f'
    wait_until 10 test -e "$O/f"
    denied eve cat "$O/f"
    ann setfacl -m u:$EVE:r f
    wait_until 10 eve cat "$O/f"
    [[ $(getfacl -cp "$O/f") == *"user:$EVE:r--"* ]]
    setfacl -b "$O/f"
    wait_until 10 no_lists f
    wait_until 10 mode_is 600 f
}

@test "acl: cp, rsync and tar carry them" {
    mkdir -p from/d to
    echo text >from/d/f
    setfacl -m u:$EVE:rw from/d/f
    setfacl -d -m u:$EVE:rwx,g:500:rx from/d
    setfacl -m g:500:rwx from/d
    (cd from && getfacl -R .) >want
    cp -a from copy
    rsync -aAX from/ synced/
    tar -C from --acls --xattrs -cf - . | tar -C to --acls --xattrs -xf -
    for d in copy synced to; do
        (cd "$d" && getfacl -R .) | diff want -
    done
}

@test "permissions: root_squash makes nobody of root" {
    echo text >private
    echo text >public
    chmod 600 private
    mkdir -m 700 closed
    mkdir -m 755 open
    touch open/f closed/f
    "$DFS" mount "$T/squash" --conf "$T/conf" -o root_squash
    cd "$T/squash/$BATS_TEST_NUMBER"
    [ "$(cat public)" = text ]
    denied cat private
    denied sh -c 'echo x >>public'
    denied truncate -s 0 public
    denied chmod 777 private
    denied chown 0:0 public
    denied ls closed
    denied cat closed/f
    denied rm -f open/f
    denied touch open/g
    denied mknod dev c 1 3
    denied setfacl -m u:1:r public
    denied setfattr -n trusted.t -v 1 public
    ls open
    touch mine
    [ "$(stat -c %u:%g mine)" = 65534:65534 ]
    eve touch eves # others are who they are
    [ "$(stat -c %u:%g eves)" = $EVE:600 ]
    cd "$D"
    "$DFS" mount "$T/anon" --conf "$T/conf" -o root_squash,anonuid=$ANN,anongid=410
    touch "$T/anon/$BATS_TEST_NUMBER/anns"
    [ "$(stat -c %u:%g anns)" = $ANN:410 ]
    run -2 "$DFS" mount "$T/ro" --conf "$T/conf" -o root_squash,anonuid=nobody
}

@test "permissions: a read-only mount changes nothing" {
    echo text >f
    "$DFS" mount "$T/ro" --conf "$T/conf" --ro
    cd "$T/ro/$BATS_TEST_NUMBER"
    [ "$(cat f)" = text ]
    for c in 'echo x >>f' 'touch g' 'rm f' 'mv f g' 'chmod 600 f' 'mkdir d' 'ln f g' \
        'setfattr -n user.a -v 1 f' 'setfacl -m u:1:r f' 'truncate -s 0 f'; do
        run ! sh -c "$c"
        [[ $output == *"ead-only file system"* ]]
    done
}

@test "permissions: commands act for whoever runs them" {
    local p=/$BATS_TEST_NUMBER
    cli() { "$T/dfs" "$1" --conf "$T/conf" "${@:2}"; }
    export -f cli
    export T
    ann sh -c 'mkdir -m 700 d; echo text >d/f; echo text >f; chmod 600 f'
    denied eve bash -c "cli cat $p/f"
    denied eve bash -c "cli ls $p/d"
    denied eve bash -c "cli cat $p/d/f"
    denied eve bash -c "cli rm -r $p/d"
    denied eve bash -c "cli setrep 1 $p/f"
    denied eve bash -c "echo x | cli put - $p/d/g"
    [ "$(ann bash -c "cli cat $p/f")" = text ]
    ann bash -c "cli setrep 1 $p/f"
    ann bash -c "umask 027; echo x | cli put - $p/g; cli mkdir $p/e; cli mkdir -m 777 $p/h"
    [ "$(stat -c %u:%g:%a g e h | paste -sd' ')" = "$ANN:400:640 $ANN:400:750 $ANN:400:777" ]
    mkdir -m 755 "$T/tree"
    mkdir -m 555 "$T/tree/ro"
    echo x >"$T/tree/ro/f"
    ann bash -c "umask 022; cli put -r $T/tree $p/tree"
    mode_is 555 tree/ro
    [ "$(cat tree/ro/f)" = x ]
}
