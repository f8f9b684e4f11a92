# A file of 2 GiB, by its checksum.
load lib

setup_file() {
    tmp_make
    fuse_usable || return 0
    # two copies and some room; memory if there is enough of it
    if [ -n "$(in_memory 6)" ]; then
        EXTRA=$(mktemp -d "$(in_memory 6)/dfs-story.XXXXXX")
        export EXTRA
        cluster c "${QUICK[@]}" --volume "$EXTRA"
    else
        cluster c "${QUICK[@]}"
    fi
}

teardown_file() {
    tmp_remove
}

setup() {
    require_fuse
    M=$T/c.mnt
}

# The same bytes every time, faster than they are written: AES over zeroes.
two_gib() {
    openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt </dev/zero 2>/dev/null | head -c $((2 << 30))
}

@test "big: 2 GiB written, synced and read have one checksum" {
    two_gib | tee >(sha256sum | cut -d ' ' -f 1 >"$T/want") | dd of="$M/big" bs=1M conv=fsync iflag=fullblock status=none
    [ "$(stat -c %s "$M/big")" = $((2 << 30)) ]
    wait_until 5 test -s "$T/want"
    umount "$M"
    wait_until 30 gone "$(pid_of c mount-1)"
    cluster c
    [ "$(sha256sum <"$M/big" | cut -d ' ' -f 1)" = "$(cat "$T/want")" ]
}

@test "big: any part of it can be read" {
    cmp <(dd if="$M/big" bs=1M skip=1500 count=3 status=none) \
        <(two_gib | tail -c +$((1500 * 1048576 + 1)) | head -c 3145728)
}

@test "big: removed, its space comes back" {
    before=$(free_bytes "$M")
    rm "$M/big"
    more_free() { [ "$(free_bytes "$M")" -gt $((before + (1 << 30))) ]; }
    wait_until 30 more_free
}
