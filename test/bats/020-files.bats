# Files without a mount: put, get, ls, cat, rm, mkdir, mv, stat.
load lib

setup_file() {
    tmp_make
    cluster c --no-mount "${QUICK[@]}"
}

teardown_file() {
    tmp_remove
}

@test "files: what is put comes back byte by byte" {
    head -c 5000000 /dev/urandom >"$T/big"
    : >"$T/empty"
    echo small >"$T/small"
    dfs c mkdir /d
    for f in big empty small; do
        dfs c put "$T/$f" "/d/$f"
        dfs c get "/d/$f" "$T/$f.back"
        cmp "$T/$f" "$T/$f.back"
    done
}

@test "files: cat writes to standard output" {
    [ "$(dfs c cat /d/small)" = small ]
    dfs c cat /d/big | cmp - "$T/big"
}

@test "files: ls lists names, and as JSON" {
    run -0 dfs c ls /d
    [[ $output == *big* && $output == *empty* && $output == *small* ]]
    dfs c ls --json /d | jq -e .
}

@test "files: stat shows extents, blocks and servers" {
    run -0 dfs c stat /d/big
    [[ $output == *5000000* ]]
    dfs c stat --json /d/big | jq -e .
}

@test "files: mv renames, over an existing name too" {
    dfs c put "$T/small" /d/a
    dfs c put "$T/empty" /d/b
    dfs c mv /d/a /d/b
    run -1 dfs c cat /d/a
    [ "$(dfs c cat /d/b)" = small ]
    dfs c mkdir /e
    dfs c mv /d/b /e/c
    [ "$(dfs c cat /e/c)" = small ]
}

@test "files: rm removes files, and directories only when asked" {
    dfs c put "$T/small" /d/gone
    dfs c rm /d/gone
    run -1 dfs c cat /d/gone
    [[ $output == *"/d/gone"* ]]
    run -1 dfs c rm /d
    run -2 dfs c rm -r /d d
    [[ $output == *"begins with a slash"* ]]
    dfs c ls /d
    dfs c rm -r /d
    run -1 dfs c ls /d
    run -0 dfs c ls /
    [[ $output != *"d"$'\n'* ]]
}

@test "files: errors name the path and say why" {
    run -1 dfs c cat /no/such/file
    [[ $output == *"/no/such/file"* ]]
    [ "${#lines[@]}" = 1 ]
    run -1 dfs c mkdir /e
    [[ $output == *"exists"* ]]
    run -1 dfs c put "$T/nothing" /x
    run -1 dfs c put "$T/small" /e/c/below
    run -2 dfs c put
    run -1 dfs c ls "/$(printf 'n%.0s' {1..256})"
    [[ $output == *"too long"* ]]
}

@test "files: names are bytes" {
    name=$'tab\tnewline\nlatin1-\xe9 "quoted"'
    dfs c put "$T/small" "/$name"
    [ "$(dfs c cat "/$name")" = small ]
    dfs c ls --json / | jq -e .
    dfs c rm "/$name"
}

@test "files: a cluster that is down is an error in bounded time" {
    "$DFS" local "$T/c" --stop
    run -1 timeout 20 "$DFS" cat --conf "$T/c/dfs.conf" --set client.timeout=2s /e/c
    [[ $output == *"127.0.0.1"* ]]
    cluster c --no-mount
    [ "$(dfs c cat /e/c)" = small ]
}

# interrupted NAME COMMAND...: once the file is there, in dfs or here; it ends by SIGINT.
interrupted() {
    python3 - "$@" <<'END'
import os, signal, subprocess, sys, time
there, command = sys.argv[1], sys.argv[2:]
p = subprocess.Popen(command, stdin=subprocess.PIPE,
                     preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
if "put" in command:
    p.stdin.write(b"x" * (3 << 20))
    p.stdin.flush()
until = time.time() + 30
while subprocess.run(["sh", "-c", there], capture_output=True).returncode and time.time() < until:
    time.sleep(0.02)
p.send_signal(signal.SIGINT)
assert p.wait(20) == -signal.SIGINT, p.returncode
END
}

@test "files: a copy that is interrupted leaves nothing, and what was there stays" {
    mkdir "$T/int"
    echo old >"$T/int/old"
    dfs c mkdir /int
    dfs c put "$T/int/old" /int/old
    list="$DFS ls -a --conf $T/c/dfs.conf /int"
    interrupted "$list | grep new" "$DFS" put --conf "$T/c/dfs.conf" - /int/new
    interrupted "$list | grep .put-" "$DFS" put -f --conf "$T/c/dfs.conf" - /int/old
    [ "$(dfs c ls -a /int)" = old ]
    [ "$(dfs c cat /int/old)" = old ]
    dfs c fallocate -l 8GiB /large
    interrupted "[ -s $T/int/got ]" "$DFS" get --conf "$T/c/dfs.conf" /large "$T/int/got"
    interrupted "ls $T/int/old.get-*" "$DFS" get -f --conf "$T/c/dfs.conf" /large "$T/int/old"
    [ "$(ls -A "$T/int")" = old ]
    [ "$(cat "$T/int/old")" = old ]
    dfs c rm -r /int /large
}
