# Quotas of directories, df, and attributes.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    # what was removed is freed a lease after the start at the earliest
    cluster c "${QUICK[@]}" --set session.lease=5s --mount "$T/second"
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    M=$T/c.mnt
}

quota() { # set|get|clear|ls ...
    dfs c quota "$@"
}

used() { # PATH KEY: of the nearest quota directory
    quota get "$1" --json | jq ".quotas[0].$2"
}

used_is() { # PATH KEY NUMBER
    [ "$(used "$@")" = "$3" ]
}

# run_fails WORDS COMMAND...: it fails and says so.
run_fails() {
    local words=$1
    shift
    run "$@"
    [ "$status" -ne 0 ]
    [[ "$output" == *"$words"* ]]
}

df_of() { # COLUMN PATH: in bytes
    df -B1 --output="$1" "$2" | tail -n 1 | tr -d ' '
}

@test "quota: bytes are limited, and df shows it" {
    mkdir -p "$M/ann/sub"
    quota set /ann --bytes 4MiB -w
    [ "$(df_of size "$M/ann")" = $((4 << 20)) ]
    [ "$(df_of size "$M/ann/sub")" = $((4 << 20)) ]
    [ "$(df_of size "$M")" -gt $((64 << 20)) ]
    run_fails "quota exceeded" dd if=/dev/zero of="$M/ann/sub/big" bs=64K count=100
    # what did fit is there, nearly all of it
    size=$(stat -c %s "$M/ann/sub/big")
    [ "$size" -gt $((3 << 20)) ]
    [ "$size" -le $((4 << 20)) ]
    [ "$(df_of avail "$M/ann")" = $(((4 << 20) - size)) ]
    [ "$(df_of used "$M/ann")" = "$size" ]
    used_is /ann/sub used_bytes "$size"
    # fsync tells it, too
    run_fails "quota exceeded" dd if=/dev/zero of="$M/ann/more" bs=2M count=1 conv=fsync
    # holes are free, and so is what is written over
    truncate -s 1G "$M/ann/hole"
    dd if=/dev/urandom of="$M/ann/sub/big" bs=64K count=8 conv=notrunc,fsync status=none
    # room that is given back can be used again
    rm "$M/ann/sub/big" "$M/ann/more"
    wait_until 90 used_is /ann used_bytes 0
    dd if=/dev/zero of="$T/second/ann/other" bs=64K count=60 conv=fsync status=none
    rm "$M/ann/other" "$M/ann/hole"
}

@test "quota: inodes are limited" {
    mkdir "$M/few"
    quota set /few --inodes 5 -w
    touch "$M/few/1" "$M/few/2"
    ln -s 1 "$M/few/3"
    mkdir "$M/few/4"
    run_fails "quota exceeded" touch "$M/few/4/5"
    run_fails "quota exceeded" mkdir "$M/few/5"
    [ "$(df --output=itotal "$M/few" | tail -n 1 | tr -d ' ')" = 5 ]
    [ "$(df --output=iavail "$M/few" | tail -n 1 | tr -d ' ')" = 0 ]
    ln "$M/few/1" "$M/few/1b" # a name is no inode
    rm "$M/few/2"
    can_make() { touch "$M/few/5"; }
    wait_until 90 can_make
}

@test "quota: what is there already is counted, while others go on" {
    mkdir "$M/old"
    seq -f "$M/old/d%g" 1 20 | xargs mkdir
    for d in "$M"/old/d*; do seq -f "$d/f%g" 1 30 | xargs touch; done
    echo 12345 >"$M/old/d7/f3"
    quota set /old --bytes 1GiB
    touch "$M/old/d20/while"
    mv "$M/old/d19/f1" "$M/old/d1/moved"
    counted() { used_is /old state '"active"'; }
    wait_until 30 counted
    used_is /old used_inodes 622
    used_is /old used_bytes 6
    quota set /old --inodes 100 # below what is there: no more of it
    run_fails "quota exceeded" touch "$M/old/x"
    quota clear /old
    touch "$M/old/x"
    none() { [ "$(quota ls --json | jq '[.quotas[] | select(.path == "/old")] | length')" = 0 ]; }
    wait_until 30 none
    [ "$(quota get /old/d7)" = "no quota" ]
    run_fails "no quota of its own" quota clear /old
}

@test "quota: renaming takes what is charged along" {
    mkdir -p "$M/a/tree/deep" "$M/b" "$M/free"
    head -c 3000 /dev/urandom >"$M/a/tree/deep/f"
    quota set /a --bytes 10000 -w
    quota set /b --bytes 2000
    wait_until 30 used_is /a used_bytes 3000
    run_fails "quota exceeded" mv "$M/a/tree/deep/f" "$M/b/f"
    mv "$M/a/tree" "$M/free/tree"
    used_is /a used_bytes 0
    quota set /b --bytes 3000
    mv "$M/free/tree" "$M/b/tree"
    used_is /b used_bytes 3000
    used_is /b used_inodes 4
    mkdir "$M/nest"
    quota set /nest --bytes 1MiB
    mv "$M/b" "$M/nest/b" # a quota directory, with its quota
    used_is /nest/b used_bytes 3000
    [ "$(quota get /nest/b --json | jq -c '[.quotas[].path]')" = '["/nest/b","/nest"]' ]
    [ "$(quota get /nest --json | jq '.quotas[0].used_bytes')" = 3000 ]
    run_fails "cross-device" ln "$M/nest/b/tree/deep/f" "$M/free/link"
    mv "$M/nest/b/tree/deep/f" "$M/free/f"
    [ "$(quota get /nest --json | jq '.quotas[0].used_bytes')" = 0 ]
}

@test "quota: survives the death of the master" {
    mkdir "$M/kept"
    quota set /kept --bytes 100KiB --inodes 10
    head -c 50000 /dev/urandom >"$M/kept/f"
    used_is /kept used_bytes 50000
    kill_hard c master-1
    cluster c
    wait_until 60 used_is /kept used_bytes 50000
    used_is /kept limit_inodes 10
    run_fails "quota exceeded" dd if=/dev/zero of="$M/kept/g" bs=60000 count=1 conv=fsync
}

@test "quota: only root changes limits" {
    as_nobody() {
        setpriv --reuid 65534 --regid 65534 --clear-groups "$DFS" quota --conf "$T/c/dfs.conf" "$@"
    }
    chmod -R a+rX "$T/c/dfs.conf" "$T/c"
    run_fails "not permitted" as_nobody set /kept --bytes 1GiB
    run_fails "not permitted" as_nobody clear /kept
    run_fails "not permitted" as_nobody ls
    as_nobody get /kept
    run -2 quota set /kept
    run -2 quota nonsense /kept
    run_fails "not a directory" quota set /kept/f --bytes 1
}

@test "quota: what is left is told at once when no master answers" {
    exec 7<"$M/kept" # a path would have to be looked up
    want=$(stat -f -c %b /proc/self/fd/7)
    kill -STOP "$(pid_of c master-1)"
    got=$(timeout 20 stat -f -c %b /proc/self/fd/7) || true
    kill -CONT "$(pid_of c master-1)"
    exec 7<&-
    [ "$got" = "$want" ]
    [ "$got" = $((100 / 4)) ]
}

@test "attributes: dfs.* tell and set, and are not copied" {
    mkdir "$M/x"
    head -c 1000 /dev/urandom >"$M/x/f"
    value() { getfattr --only-values --absolute-names -n "$1" "$2"; }
    [ "$(value dfs.inode "$M/x/f")" = "$(stat -c %i "$M/x/f")" ]
    [ "$(value dfs.replication "$M/x/f")" = 2 ]
    [[ "$(value dfs.blocks "$M/x/f")" == "0 1000 "* ]]
    setfattr -n dfs.replication -v 3 "$M/x"
    touch "$M/x/g"
    [ "$(value dfs.replication "$M/x/g")" = 3 ]
    setfattr -n dfs.quota.bytes -v 1MiB "$M/x"
    [ "$(value dfs.quota.bytes "$M/x")" = 1048576 ]
    charged() { [ "$(value dfs.quota.used_bytes "$M/x")" = 1000 ]; }
    wait_until 30 charged
    setfattr -n user.mine -v yes "$M/x/f"
    [ "$(getfattr --absolute-names -m - "$M/x/f" | grep -v '^#' | xargs)" = user.mine ]
    cp -a "$M/x" "$M/y"
    [ "$(value user.mine "$M/y/f")" = yes ]
    run_fails "No such attribute" value dfs.quota.bytes "$M/y"
    run_fails "not permitted" setfattr -n dfs.inode -v 1 "$M/x"
    run_fails "not supported" setfattr -n dfs.nonsense -v 1 "$M/x"
    run_fails "Invalid argument" setfattr -n dfs.replication -v 99 "$M/x"
}

@test "attributes: large values, long lists, and what does not fit" {
    touch "$M/attrs"
    python3 - "$M/attrs" <<'PY'
import errno, os, sys

f = sys.argv[1]

def fails(no, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == no, (e, no)
        return
    raise AssertionError("no error %d" % no)

big = os.urandom(65536)
for space in "user", "trusted", "security":
    os.setxattr(f, space + ".big", big)
    assert os.getxattr(f, space + ".big") == big
    os.removexattr(f, space + ".big")
    fails(errno.ENODATA, os.getxattr, f, space + ".big")
fails(errno.E2BIG, os.setxattr, f, "user.more", big + b"1")
fails(errno.ENODATA, os.removexattr, f, "user.none")
os.setxattr(f, "user.a", b"1", os.XATTR_CREATE)
fails(errno.EEXIST, os.setxattr, f, "user.a", b"2", os.XATTR_CREATE)
fails(errno.ENODATA, os.setxattr, f, "user.b", b"2", os.XATTR_REPLACE)
os.setxattr(f, "user.empty", b"")
assert os.getxattr(f, "user.empty") == b""
fails(errno.EOPNOTSUPP, os.setxattr, f, "nonsense.a", b"1")
fails(errno.ERANGE, os.setxattr, f, "user." + 251 * "n", b"1")
names = {"user.a", "user.empty"}
for i in range(10000):
    name = "user.%04d-%s" % (i, 200 * "n")
    try:
        os.setxattr(f, name, b"v")
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
        break
    names.add(name)
assert 200 < len(names) < 400, len(names)
assert set(os.listxattr(f)) == names
PY
}
