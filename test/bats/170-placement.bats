# Where copies are: hosts, racks, labels and storage rules; misplaced ones are mended; servers fill evenly.
load lib

setup_file() {
    tmp_make
    # six servers: rack-1 and rack-2 by turns; ssd ssd hdd ssd ssd hdd
    cluster c --no-mount "${QUICK[@]}" --blocks 6 --racks 2 --labels ssd,ssd,hdd --replication 2
    head -c 3000000 /dev/urandom >"$T/data"
}

teardown_file() {
    tmp_remove
}

# Hosts of a path's first block, as words.
hosts() { # PATH
    dfs c stat --json "$1" | jq -r '[.extents[0].servers[].host] | sort | join(" ")'
}

# A column of dfs status for each of these hosts: "rack" or "label".
of_hosts() { # rack|label HOST...
    local what=$1 s
    shift
    s=$(dfs c status --json)
    for h in "$@"; do
        if [ "$what" = rack ]; then
            jq -r ".servers[] | select(.host == \"$h\") | .rack" <<<"$s"
        else
            jq -r ".servers[] | select(.host == \"$h\") | .volumes[0].label" <<<"$s"
        fi
    done
}

racks_are() { # PATH N: its copies are on N racks
    # shellcheck disable=SC2046
    [ "$(of_hosts rack $(hosts "$1") | sort -u | wc -l)" = "$2" ]
}

labels_are() { # PATH "hdd ssd ssd": the labels of its copies, sorted
    # shellcheck disable=SC2046
    [ "$(of_hosts label $(hosts "$1") | sort | tr '\n' ' ' | sed 's/ $//')" = "$2" ]
}

@test "placement: two copies are on two racks" {
    dfs c mkdir /plain
    for i in 1 2 3 4 5 6; do
        dfs c put "$T/data" "/plain/$i"
        racks_are "/plain/$i" 2
    done
    dfs c fsck /plain
}

@test "placement: a directory's storage rule counts for new files, and sets the copies" {
    dfs c mkdir /db
    dfs c storage set ssd:2,hdd:1,strict /db
    dfs c put "$T/data" /db/f
    labels_are /db/f "hdd ssd ssd"
    racks_are /db/f 2
    [ "$(dfs c storage get /db/f)" = "$(printf '%-24s %s' ssd:2,hdd:1,strict /db/f)" ]
    dfs c storage ls / | grep -F "ssd:2,hdd:1,strict"
    dfs c fsck /db
}

@test "placement: a changed rule moves what is there already" {
    dfs c storage set hdd:2 /db
    moved() { labels_are /db/f "hdd hdd" && dfs c fsck /db; }
    wait_until 60 moved
    dfs c storage set ssd /db
    moved_back() { labels_are /db/f "ssd ssd" && dfs c fsck /db; }
    wait_until 60 moved_back
    dfs c cat /db/f | cmp - "$T/data"
    dfs c storage set none /db
    [ "$(dfs c storage ls /db | wc -l)" = 0 ]
}

@test "placement: wrong rules are refused" {
    run -2 dfs c storage set ssd: /db
    run -2 dfs c storage set ssd:17 /db
    run -2 dfs c storage set strict /db
    run -2 dfs c storage shove ssd /db
    run -1 dfs c storage set ssd /nothing
}

@test "placement: a strict rule that cannot be kept is an error, a preferred one is not" {
    dfs c mkdir /nvme
    dfs c storage set nvme:2 /nvme
    dfs c put "$T/data" /nvme/f
    dfs c fsck /nvme
    dfs c storage set nvme:2,strict /nvme
    misplaced() { [ "$(dfs c fsck --json /nvme | jq .misplaced)" = 1 ]; }
    wait_until 20 misplaced
    run -1 dfs c fsck /nvme
    [[ $output == *"misplaced"* ]]
    counted() { [ "$(status_num c misplaced)" -gt 0 ]; }
    wait_until 20 counted
    dfs c storage set none /nvme
    wait_until 20 healthy c /nvme
}

@test "placement: a dead server's copies are made again by the same rules" {
    dfs c storage set ssd:2,hdd:1,strict /db
    placed() { labels_are /db/f "hdd ssd ssd" && dfs c fsck /db; }
    wait_until 60 placed
    dead=$(dfs c stat --json /db/f | jq -r '[.extents[0].servers[].host] | map(select(. != "block-3" and . != "block-6")) | .[0]')
    kill_hard c "$dead"
    wait_until 20 servers_in_state c dead 1
    elsewhere() { [[ " $(hosts /db/f) " != *" $dead "* ]] && placed; }
    wait_until 60 elsewhere
    cluster c --no-mount
    wait_until 30 servers_in_state c live 6
    wait_until 60 healthy c
}
