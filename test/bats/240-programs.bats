# Programs that are hard on a file system: databases that are killed, git, rsync, and long churning.
load lib

PG=$(printf "%s\n" /usr/lib/postgresql/*/bin | sort -V | tail -n 1)

setup_file() {
    tmp_make "$(in_memory 4)"
    fuse_usable || return 0
    cluster c "${QUICK[@]}" --set client.cache=64MiB
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    cluster c # whatever a story before has killed
    wait_until 60 servers_in_state c live 3
    D=$T/c.mnt/$BATS_TEST_NUMBER
    mkdir "$D"
    cd "$D" || return 1
}

teardown() {
    cd /
}

lines_over() { # FILE COUNT
    [ "$(wc -l <"$1")" -gt "$2" ]
}

# ---- SQLite ----

# transfers DATABASE JOURNAL_MODE LAST: moves money, one transaction each, up to number LAST; says
# the number of each that is committed.
transfers() {
    exec python3 -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
assert db.execute("pragma journal_mode=" + sys.argv[2]).fetchone() == (sys.argv[2],)
db.executescript("""pragma synchronous=full; begin immediate;
create table if not exists account (id integer primary key, money int);
create table if not exists done (n integer primary key, note text);
create index if not exists by_note on done (note);""")
if db.execute("select count(*) from account").fetchone() == (0,):
    db.executemany("insert into account values (?, 1000)", [(i,) for i in range(100)])
db.execute("commit")
n = db.execute("select coalesce(max(n), 0) from done").fetchone()[0] + 1
for n in range(n, int(sys.argv[3]) + 1):
    db.execute("begin immediate")
    db.execute("update account set money = money - 7 where id = ?", (n % 100,))
    db.execute("update account set money = money + 7 where id = ?", (n * 31 % 97,))
    db.execute("insert into done values (?, ?)", (n, str(n * 7919 % 1000003) * 9))
    db.execute("commit")
    print(n, flush=True)' "$@"
}

# Nothing is broken, no transaction is half, and none that was committed is missing.
sound() { # DATABASE LEAST
    [ "$(sqlite3 "$1" 'pragma integrity_check')" = ok ]
    [ "$(sqlite3 "$1" 'select sum(money) from account')" = 100000 ]
    [ "$(sqlite3 "$1" 'select max(n) = count(*) and max(n) >= '"$2"' from done')" = 1 ]
}

sqlite_story() { # JOURNAL_MODE
    local n=$((DFS_LONG ? 50000 : 600)) said=$T/said.$1 p last
    transfers db "$1" "$n" >"$said" 3>&- &
    p=$!
    wait_until 600 lines_over "$said" $((n / 4))
    kill_hard c block-2
    wait_until 600 lines_over "$said" $((n / 2))
    kill -9 $p
    wait $p || [ $? = 137 ]
    last=$(tail -n 1 "$said")
    [ "$last" -lt "$n" ]
    sound db "$last"
    cluster c
    wait_until 60 servers_in_state c live 3
    (transfers db "$1" "$n") >"$said" 3>&-
    [ "$(tail -n 1 "$said")" = "$n" ]
    kill_hard c block-3
    sound db "$n"
}

@test "programs: SQLite with a write-ahead log, killed, and block servers killed" {
    sqlite_story wal
}

@test "programs: SQLite with a rollback journal, killed, and block servers killed" {
    sqlite_story delete
}

# ---- PostgreSQL ----

# As the database's user, who cannot read the directory of the stories.
pg() { # PROGRAM ARGUMENTS...
    local program=$PG/$1
    shift
    (cd / && exec setpriv --reuid postgres --regid postgres --init-groups "$program" "$@")
}

# A child of the story: one that is killed and never reaped would hold its lock file.
pg_start() { # DATA
    pg postgres -D "$1" -k "$T/pg" -c listen_addresses= >"$T/pg.log" 2>&1 3>&- &
    server=$!
    wait_until 300 pg pg_isready -h "$T/pg" || { cat "$T/pg.log" >&2; return 1; }
}

# A postmaster and all its children, at once.
pg_kill() { # DATA
    local pids p
    pids=$(head -n 1 "$1/postmaster.pid")
    kill -STOP "$pids" # or it starts another one meanwhile
    pids="$pids $(pgrep -P "$pids" | tr '\n' ' ')"
    # shellcheck disable=SC2086 # a list of numbers
    kill -9 $pids
    for p in $pids; do wait_until 60 gone "$p"; done
    wait $server || [ $? = 137 ]
}

sql() {
    pg psql -h "$T/pg" -AtXq -v ON_ERROR_STOP=1 -d postgres -c "$1"
}

@test "programs: PostgreSQL recovers from kill -9, and its indexes fit its tables" {
    local data=$D/data seconds=${DFS_LONG:+60} server bench acked said
    install -d -o postgres "$T/pg" "$data"
    pg initdb -D "$data" -A trust -k >"$T/initdb" 2>&1 || { cat "$T/initdb"; false; }
    pg_start "$data"
    pg pgbench -h "$T/pg" -i -q postgres >/dev/null 2>&1
    pg pgbench -h "$T/pg" -n -c 4 -T "${seconds:-3}" postgres >"$T/bench" 2>&1
    grep -q "number of failed transactions: 0 " "$T/bench"

    # each that is told to be committed has a line in the local file; one server dies on the way
    sql "create table acked (n int primary key)"
    acked >"$T/acked" 2>/dev/null 3>&- &
    acked=$!
    pg pgbench -h "$T/pg" -n -c 4 -T 600 postgres >"$T/bench" 2>&1 3>&- &
    bench=$!
    wait_until 300 lines_over "$T/acked" 50
    kill_hard c block-1
    wait_until 300 lines_over "$T/acked" 150
    pg_kill "$data"
    wait $bench $acked || true
    said=$(tail -n 1 "$T/acked")

    pg_start "$data"
    grep -q "automatic recovery" "$T/pg.log"
    [ "$(sql "select count(*) >= $said and count(*) = max(n) from acked")" = t ]
    # what pgbench moves is booked three times
    [ "$(sql "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)
        and (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers)")" = t ]
    pg pg_amcheck -h "$T/pg" --install-missing --heapallindexed --parent-check postgres
    pg pg_ctl -D "$data" -w -t 300 -m fast stop >/dev/null
    pg pg_checksums -D "$data" --check | grep -q "Bad checksums: *0"
}

# Transactions one after the other, by number; its stdout has the numbers of those that are done.
acked() {
    local n
    for n in {1..100000}; do echo "insert into acked values ($n) returning n;"; done |
        pg psql -h "$T/pg" -AtXq -v ON_ERROR_STOP=1 -d postgres
}

# ---- git ----

@test "programs: git clone, gc and fsck of 1,000 commits" {
    local head
    git init -q --bare from
    commits 1000 | git -C from fast-import --quiet
    git -C from symbolic-ref HEAD refs/heads/main
    head=$(git -C from rev-parse main)
    git clone -q --no-local from clone
    [ "$(git -C clone rev-list --count HEAD)" = 1000 ]
    git -C clone fsck --full --strict --no-progress
    [ -z "$(git -C clone status --porcelain)" ]
    # local: its objects are hard links
    git clone -q from linked
    git -C from gc -q --prune=now
    git -C clone gc -q --aggressive --prune=now
    git -C clone repack -q -a -d -f
    for r in from clone linked; do
        [ -z "$(git -C $r fsck --full --strict --no-progress 2>&1)" ]
        [ "$(git -C $r rev-parse HEAD)" = "$head" ]
    done
    git -C clone checkout -q HEAD~500
    [ "$(cat clone/dir-0/count)" = 500 ]
    git -C clone checkout -q main
    [ -z "$(git -C clone status --porcelain)" ]
    diff -r -x .git clone linked
    git -C clone -c user.name=s -c user.email=s@s commit -q --allow-empty -m more
    git -C clone push -q origin HEAD:more
    [ "$(git -C from rev-list --count more)" = 1001 ]
}

# A stream for git fast-import: each commit changes two files of up to 202.
commits() { # COUNT
    awk -v last="$1" 'function file(mode, name, text) {
        printf "M %s inline %s\ndata %d\n%s\n", mode, name, length(text) + 1, text "\n"
    }
    BEGIN {
        for (n = 1; n <= last; n++) {
            printf "commit refs/heads/main\nmark :%d\n", n
            printf "committer s <s@s> %d +0000\ndata %d\ncommit %d\n", 1700000000 + n, length("commit " n), n
            if (n > 1)
                printf "from :%d\n", n - 1
            file("100644", "dir-0/count", n)
            text = ""
            for (i = 0; i < 50; i++)
                text = text (n * 7919 + i * 104729) % 1000003 "\n"
            file("100755", "dir-" n % 10 "/file-" n % 200, text)
            printf "\n"
        }
    }'
}

# ---- rsync ----

# rsync's -@-1 is for times to the nanosecond. What a copy with everything must have kept, in a form that can be compared.
described() { # DIR
    (
        cd "$1" || exit 1
        find . -printf '%P %y %m %U %G %n %s %T@ %l\n' | sort
        find . -type f -links +1 -printf '%i %P\n' | sort -k 2 |
            awk '{
                ino = $1; sub(/^[0-9]+ /, "")
                if (!(ino in first)) first[ino] = $0
                print $0, "is", first[ino]
            }'
        getfacl -R -n -P . | awk -v RS= '{ gsub(/\n/, ";"); print }' | sort
        getfattr -R -h -P -d -m '^(user|trusted|security)[.]' . | awk -v RS= '{ gsub(/\n/, ";"); print }' | sort
    ) 2>&1
}

@test "programs: rsync -aHAX takes everything over, and nothing the second time" {
    local i
    mkdir -p src/{a,b,c}/{1,2,3}
    for i in {1..100}; do
        head -c $((i * 331)) /dev/urandom >"src/a/$((i % 3 + 1))/file $i"
        [ $((i % 4)) != 0 ] || ln "src/a/$((i % 3 + 1))/file $i" "src/b/2/other-$i"
        [ $((i % 5)) != 0 ] || setfattr -n user.number -v "$i" "src/a/$((i % 3 + 1))/file $i"
        [ $((i % 6)) != 0 ] || setfacl -m u:$((i + 1000)):rw,g:7:r "src/a/$((i % 3 + 1))/file $i"
        [ $((i % 7)) != 0 ] || chown $((i + 2000)):$((i + 3000)) "src/a/$((i % 3 + 1))/file $i"
    done
    setfacl -R -d -m u:1234:rwx,g:77:rx src/c
    echo inherits >src/c/1/child
    setfattr -n user.binary -v 0x00ff0a00 src/b
    setfattr -n trusted.mine -v yes src/b/1
    ln -s ../a src/b/link
    ln -s "nowhere at all" src/b/dangling
    mkfifo src/b/fifo
    truncate -s 10M src/c/hole
    chmod 4755 "src/a/2/file 1"
    chmod 1777 src/c/3
    touch -d '1999-12-31 23:59:59.123456789' src/c/2 "src/a/3/file 2"

    described src >"$T/described"
    grep -q 'trusted.mine="yes"' "$T/described"
    grep -q 'user:1234:rwx' "$T/described"
    rsync -aHAX -@-1 --sparse src/ dst/
    described dst | diff "$T/described" -
    [ -z "$(rsync -aHAX -@-1 --itemize-changes src/ dst/)" ]
    [ -z "$(rsync -aHAX -@-1 --checksum --delete --itemize-changes src/ dst/)" ]
    # through another format and back
    mkdir back
    tar -C src --format=posix --sparse --acls --xattrs --xattrs-include='*' -cf "$T/all.tar" .
    tar -C back --acls --xattrs --xattrs-include='*' -xpf "$T/all.tar"
    described back | diff "$T/described" -
    [ -z "$(rsync -aHAX -@-1 --checksum --itemize-changes src/ back/)" ]
    # one file more, one changed: only these
    echo new >src/a/1/new
    echo more >>"src/a/3/file 2"
    [ "$(rsync -aHAX -@-1 --out-format=%n src/ dst/ | grep -vc '/$')" = 2 ]
    described src >"$T/described"
    described dst | diff "$T/described" -
}

# ---- memory ----

# churn SECONDS PID...: writes, reads, renames and deletes files and directories under names that
# are always new. Says the highest resident size (MiB) of the processes in each half, and how many
# rounds there were.
churn() {
    python3 -c 'import os, random, sys, time
def resident():
    return sum(int(open("/proc/%s/statm" % p).read().split()[1]) for p in sys.argv[2:]) * 4096 >> 20
rnd, bytes_, files, dirs, n = random.Random(5), random.Random(6).randbytes(1 << 20), {}, ["."], 0
def pick():
    return rnd.choice(list(files))
start, half, peak = time.monotonic(), float(sys.argv[1]) / 2, [0, 0]
while (now := time.monotonic() - start) < 2 * half:
    n += 1
    if n % 50 == 0:
        dirs.append("%s/d%d" % (rnd.choice(dirs[:5]), n))
        os.mkdir(dirs[-1])
        if len(dirs) > 20:
            gone = dirs.pop(rnd.randrange(5, 20))
            for f in [f for f in files if os.path.dirname(f) == gone]:
                os.unlink(f)
                del files[f]
            os.rmdir(gone)
    name = "%s/f%d" % (rnd.choice(dirs), n)
    files[name] = rnd.choice((0, 100, 5000, 70000, 1 << 20))
    with open(name, "wb") as f:
        f.write(bytes_[:files[name]])
    old = pick()
    with open(old, "rb") as f:
        assert f.read() == bytes_[:files[old]], old
    new = "%s/r%d" % (rnd.choice(dirs), n)
    os.rename(old, new)
    files[new] = files.pop(old)
    if len(files) > 150:
        old = pick()
        os.unlink(old)
        del files[old]
    if n % 10 == 0:
        peak[now >= half] = max(peak[now >= half], resident())
print(*peak, n)' "$@"
}

# COUNT at a time write, then read, MIB each.
streams() {
    local i pids=()
    for i in $(seq "$1"); do
        head -c "$2M" /dev/zero >"stream-$i" &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i" || return 1; done
    sync -f .
    echo 3 >/proc/sys/vm/drop_caches
    pids=()
    for i in $(seq "$1"); do
        cmp -n $(($2 << 20)) "stream-$i" /dev/zero &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i" || return 1; done
}

# So many files are open and were written to; then all of them, and the listing of their directory,
# are read.
open_files() { # COUNT
    python3 -c 'import os, sys
os.mkdir("open")
fds = [os.open("open/%d" % i, os.O_CREAT | os.O_RDWR) for i in range(int(sys.argv[1]))]
for fd in fds:
    os.write(fd, b"x" * 9000)
assert all(len(os.pread(fd, 10000, 0)) == 9000 for fd in fds)
assert len([e.stat() for e in os.scandir("open")]) == len(fds)' "$1"
}

peak() { # PID: MiB, of its whole life
    awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$1/status"
}

@test "programs: the memory of a mount has a bound, and does not grow" {
    local pid first second rounds limit=64 # client.cache
    grep -qE '__[at]san_init' "$(realpath "$DFS")" && skip "a sanitizer keeps what is freed"
    pid=$(pid_of c mount-1)
    streams 4 64
    streams 32 8
    open_files 800
    echo "peak of $(peak "$pid") MiB"
    [ "$(peak "$pid")" -le $limit ]
    # after it, everything that is filled once is filled
    # shellcheck disable=SC2046 # the mount's guard is small, and counts
    churn $((DFS_LONG ? 3600 : 8)) "$pid" $(pgrep -P "$pid") >"$T/churn"
    read -r first second rounds <"$T/churn"
    echo "first half $first MiB, second half $second MiB, $rounds rounds"
    [ "$first" -gt 0 ]
    [ "$first" -le $limit ]
    [ "$second" -le $limit ]
    [ "$second" -le $((first + 8)) ]
    [ "$(peak "$pid")" -le $limit ]
}
