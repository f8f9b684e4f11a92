/* Segment, all little-endian: u64 format (1); then batches of u32 CRC of the head, u32 CRC of the
 * data, the head: u64 count, count times (u64 term, u8 type, 3 unused, u32 bytes), the data. */
#include "cluster/node/raft_files.h"

#include <dirent.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/node/raft_reached.h"

#define SEGMENT_MAX (64 * MIB)
#define BATCH_MAX   (SEGMENT_MAX / 32) /* entries that libraft accepts in one */

#define SNAPSHOT_MAX    (1 * MIB) /* with the voters' addresses */
#define SNAPSHOT_FORMAT 1
#define SNAPSHOT_META_HEAD \
    32 /* u64 format, checksum, index of the voters' entry, bytes that follow */
#define FRAME_MAGIC 0x184d2204u

#define METADATA_BYTES 32 /* format, version, term, vote: u64 each */

/* CRC-32 with polynomial 0x04c11db7, most significant bit first, neither inverted nor reflected. */
static uint32_t crc32_msb(const uint8_t *p, size_t n)
{
    static uint32_t table[256]; /* one thread only: before anything else starts */
    uint32_t crc = 0;

    for (uint32_t i = 0; table[255] == 0 && i < 256; i++) {
        uint32_t c = i << 24;

        for (int bit = 0; bit < 8; bit++) {
            c = (c & 0x80000000u) != 0 ? (c << 1) ^ 0x04c11db7u : c << 1;
        }
        table[i] = c;
    }
    for (size_t i = 0; i < n; i++) {
        crc = (crc << 8) ^ table[(crc >> 24) ^ p[i]];
    }
    return crc;
}

static uint64_t get_le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

/* The batch at the start of s: its bytes, 0 when there is no intact one. */
static size_t batch_bytes(struct slice s)
{
    uint64_t count, head, data = 0;

    if (s.len < 16) {
        return 0;
    }
    count = get_le(s.p + 8, 8);
    if (count == 0 || count > BATCH_MAX || (head = 8 + 16 * count) > s.len - 8 ||
        crc32_msb(s.p + 8, head) != get_le(s.p, 4)) {
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        data += get_le(s.p + 16 + 16 * i + 12, 4);
    }
    if (data > s.len - 8 - head || crc32_msb(s.p + 8 + head, data) != get_le(s.p + 4, 4)) {
        return 0;
    }
    return 8 + head + data;
}

static struct slice from(struct slice s, size_t at)
{
    return slice_of(s.p + at, s.len - at);
}

void raft_segment_scan(struct slice content, struct raft_segment *ret)
{
    size_t at = 8, n;

    *ret = (struct raft_segment){ 0 };
    while (at < content.len && (n = batch_bytes(from(content, at))) != 0) {
        ret->entries += get_le(content.p + at + 8, 8);
        at += n;
    }
    ret->good_end = MIN(at, content.len);
    while (at + 16 <= content.len) {
        n = batch_bytes(from(content, at));
        ret->beyond += n != 0;
        at += n != 0 ? n : 8; /* entries are padded to 8 bytes, so batches start at multiples */
    }
}

/* What the files say of the log. */
struct found {
    bool metadata;
    uint64_t closed;   /* last entry in closed segments */
    uint64_t snapshot; /* of the newest snapshot */
    uint64_t open;     /* entries in open segments, which do not say where they begin */
};

static int check_open_segment(const char *dir, const char *name, unsigned int in_flight,
                              struct found *f, struct why *why)
{
    char *path = x_printf("%s/%s", dir, name);
    char *text = NULL;
    size_t len = 0;
    struct raft_segment seg;
    int err = io_read_file(path, SEGMENT_MAX, &text, &len, why);

    if (err == DFS_OK && len >= 8) {
        raft_segment_scan(slice_of(text, len), &seg);
        f->open += seg.entries;
        if (seg.beyond > in_flight) {
            err = why_set(why, DFS_EDAMAGED,
                          "%s: the log is damaged at byte %zu; %u intact entries behind it would "
                          "be lost",
                          path, seg.good_end, seg.beyond);
        }
    }
    free(text);
    free(path);
    return err;
}

/* libraft takes a cut file for one that a crash left half-written; there are two of them for that. */
static bool metadata_whole(const char *dir, const char *name)
{
    char *path = x_printf("%s/%s", dir, name);
    char *text = NULL;
    size_t len = 0;
    bool whole =
        io_read_file(path, METADATA_BYTES, &text, &len, NULL) == 0 && len == METADATA_BYTES;

    free(text);
    free(path);
    return whole;
}

/* The frame that libraft puts around a snapshot: u32 magic, flags, u8, u64 bytes if flag 8, u8; pieces,
 * each behind its u32 length; u32 0; u32 checksum if flag 4. It reads a cut one for ever. */
static bool frame_whole(struct slice s)
{
    size_t at, n;

    if (s.len < 7) {
        return false;
    }
    at = (s.p[4] & 8) != 0 ? 15 : 7;
    do {
        if (at + 4 > s.len) {
            return false;
        }
        n = (size_t)get_le(s.p + at, 4) & 0x7fffffff;
        at += 4 + n;
    } while (n != 0);
    return at + ((s.p[4] & 4) != 0 ? 4 : 0) == s.len;
}

/* An empty one is passed over by libraft. */
static int check_snapshot(const char *dir, const char *name, bool meta, struct why *why)
{
    char *path = x_printf("%s/%s", dir, name);
    char *text = NULL;
    size_t len = 0;
    int err = io_read_file(path, SNAPSHOT_MAX, &text, &len, why);
    struct slice s = slice_of(text, len);
    bool whole = err == DFS_OK;

    if (whole && meta) {
        whole = len >= SNAPSHOT_META_HEAD && get_le(s.p, 8) == SNAPSHOT_FORMAT &&
                len == SNAPSHOT_META_HEAD + get_le(s.p + 24, 8);
    } else if (whole && len != 0) {
        whole = len < 4 || get_le(s.p, 4) != FRAME_MAGIC || frame_whole(s);
    }
    if (!whole && (err == DFS_OK || err == DFS_ETOOBIG)) {
        err = why_set(why, DFS_EDAMAGED, "%s: the log's snapshot is damaged", path);
    }
    free(text);
    free(path);
    return err;
}

static int look_at(const char *dir, const char *name, unsigned int in_flight, struct found *f,
                   struct why *why)
{
    unsigned long long a, b, c;
    int end = 0;

    if (strncmp(name, "metadata", 8) == 0) {
        f->metadata = f->metadata || metadata_whole(dir, name);
    } else if (strncmp(name, "open-", 5) == 0) {
        return check_open_segment(dir, name, in_flight, f, why);
    } else if (sscanf(name, "snapshot-%llu-%llu-%llu%n", &a, &b, &c, &end) == 3 &&
               (name[end] == '\0' || strcmp(name + end, ".meta") == 0)) {
        f->snapshot = name[end] == '\0' ? MAX(f->snapshot, b) : f->snapshot;
        return check_snapshot(dir, name, name[end] != '\0', why);
    } else if (sscanf(name, "%llu-%llu%n", &a, &b, &end) == 2 && name[end] == '\0') {
        f->closed = MAX(f->closed, b);
    }
    return DFS_OK;
}

/* As libraft puts them together: open segments follow the closed ones. */
static uint64_t last_entry(const struct found *f)
{
    if (f->open == 0) {
        return MAX(f->closed, f->snapshot);
    }
    return f->open + (f->closed != 0 ? f->closed : f->snapshot);
}

int raft_files_check(const char *dir, unsigned int in_flight, struct why *why)
{
    DIR *d = opendir(dir);
    struct found f = { 0 };
    struct dirent *e;
    uint64_t reached = 0;
    int err = DFS_OK;

    if (d == NULL) {
        return why_set(why, err_from_errno(errno), "%s: %s", dir, strerror(errno));
    }
    while (err == DFS_OK && (e = readdir(d)) != NULL) {
        err = look_at(dir, e->d_name, in_flight, &f, why);
    }
    closedir(d);
    if (err == DFS_OK && !f.metadata) {
        err = why_set(why, DFS_EDAMAGED, "%s: the log's metadata files are missing or cut", dir);
    }
    err = err != DFS_OK ? err : raft_reached_read(dir, &reached, why);
    if (err == DFS_OK && last_entry(&f) < reached) {
        err = why_set(why, DFS_EDAMAGED,
                      "%s: the log ends at entry %" PRIu64 ", but entry %" PRIu64
                      " was applied: a segment (open-N, or the newest FIRST-LAST) is missing, cut "
                      "or damaged",
                      dir, last_entry(&f), reached);
    }
    return err;
}
