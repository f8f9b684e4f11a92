# Shared by every story: a temporary directory, clusters in it, waiting for conditions, tidying up.
#
# A story's file calls tmp_make in setup_file and tmp_remove in teardown_file; clusters live in
# "$T/NAME" and are started with `cluster NAME [options of dfs local]`. Whatever a failed story left
# (processes, mounts, files) is gone after tmp_remove. Nothing here sleeps a fixed time.

bats_require_minimum_version 1.5.0

ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
DFS=${DFS:-$ROOT/build/dfs}
# Failures are noticed within seconds; the defaults are for real networks.
# shellcheck disable=SC2034 # used by the stories
QUICK=(--set heartbeat=200ms --set server.suspect_after=700ms --set server.dead_after=3s
       --set delete.grace=1s)

fuse_usable() {
    [ -c /dev/fuse ] && : 2>/dev/null <>/dev/fuse
}

# Without FUSE a story cannot run: skipped at home, an error where tests must count.
require_fuse() {
    fuse_usable && return 0
    if [ "${CI:-}" = true ]; then
        echo "/dev/fuse is not usable" >&2
        return 1
    fi
    skip "/dev/fuse is not usable"
}

tmp_make() { # [DIRECTORY TO MAKE IT IN]
    T=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/dfs-story.XXXXXX")
    chmod 755 "$T" # stories act as other users, too
    export T
}

# Where stories with very many operations live: in memory, if there are some GiB of it. They are
# about names and bytes; what a disk's sync is worth is the business of others.
in_memory() { # GIB
    [ "$(free_bytes /dev/shm 2>/dev/null || echo 0)" -gt $(($1 << 30)) ] && echo /dev/shm
    return 0
}

mounts_below() { # DIR: deepest first
    local real
    real=$(realpath "$1") || return 0
    awk -v d="$real/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r
}

# Processes whose arguments name the story's directory.
pids_below() { # DIR
    local p
    for p in /proc/[0-9]*; do
        tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -qF -- "$1/" && echo "${p#/proc/}"
    done | grep -vx "$$"
    return 0
}

tmp_remove() {
    local conf m p
    [ -n "${T:-}" ] && [ -d "$T" ] || return 0
    for conf in "$T"/*/dfs.conf; do
        [ -e "$conf" ] && timeout 60 "$DFS" local "${conf%/dfs.conf}" --stop >/dev/null 2>&1
    done
    for m in $(mounts_below "$T"); do umount -l "$m" 2>/dev/null; done
    for p in $(pids_below "$T"); do kill -9 "$p" 2>/dev/null; done
    rm -rf "$T" ${EXTRA:+"$EXTRA"}
}

# wait_until SECONDS COMMAND...: polls until it succeeds. SECONDS are those of an idle machine; a busy
# one is given many times as long, because what is waited for is that it comes, not when.
wait_until() {
    local end=$((SECONDS + $1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            echo "gave up waiting for: $*" >&2
            return 1
        fi
        sleep 0.05
    done
}

# ---- clusters ----

# cluster NAME [OPTIONS]: starts or restarts it; a first mount at $T/NAME.mnt unless --no-mount.
cluster() {
    local name=$1 mount=(--mount "$T/$1.mnt")
    shift
    [ "${1:-}" = --no-mount ] && { mount=(); shift; }
    "$DFS" local "$T/$name" "${mount[@]}" "$@" </dev/null 3>&- >"$T/$name.out" 2>&1 || {
        cat "$T/$name.out" >&2
        return 1
    }
}

pid_of() { # CLUSTER PROCESS
    cat "$T/$1/run/$2.pid"
}

alive() { # PID: runs, and is not only waiting to be reaped
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1 # it may go while it is looked at
    [[ ${stat##*) } != [ZX]* ]]
}

gone() {
    ! alive "$1"
}

# kill_hard CLUSTER PROCESS...: kill -9, and wait until they are gone.
kill_hard() {
    local c=$1 p pids=()
    shift
    for p in "$@"; do pids+=("$(pid_of "$c" "$p")"); done
    kill -9 "${pids[@]}"
    for p in "${pids[@]}"; do wait_until 10 gone "$p"; done
}

dfs() { # CLUSTER COMMAND...
    local c=$1 cmd=$2
    shift 2
    "$DFS" "$cmd" --conf "$T/$c/dfs.conf" "$@"
}

# A number out of `dfs status --json`.
status_num() { # CLUSTER KEY
    dfs "$1" status --json | jq ".$2"
}

status_is() { # CLUSTER KEY VALUE
    [ "$(status_num "$1" "$2")" = "$3" ]
}

servers_in_state() { # CLUSTER STATE COUNT
    [ "$(dfs "$1" status --json | jq "[.servers[] | select(.state == \"$2\")] | length")" = "$3" ]
}

healthy() { # CLUSTER [PATH]
    dfs "$1" fsck "${2:-/}"
}

port_of() { # CLUSTER PROCESS: of its data or client port
    sed -n 's/^\(master\|block\)\.listen=.*:\([0-9]*\)$/\2/p' "$T/$1/run/$2.args"
}

# ---- helper programs in C ----

# helper NAME: path of the program built from test/lib/NAME.c.
helper() {
    local out=$ROOT/build/helpers/$1 src=$ROOT/test/lib/$1.c
    mkdir -p "${out%/*}"
    (
        flock 9
        [ "$out" -nt "$src" ] || "${CC:-gcc}" -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -o "$out" "$src"
    ) 9>"$out.lock" >&2 || return 1
    echo "$out"
}

# Free bytes of the file system that holds a path.
free_bytes() {
    df -B1 --output=avail "$1" | tail -n 1 | tr -d ' '
}
