#include "cluster/store/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/wire/wire.h"

#define MAGIC          "DFSKVCP1"
#define MAGIC_BYTES    8
#define PAGE_BYTES_MAX 65536
#define FILE_BYTES_MAX (PAGE_BYTES_MAX + 64)

/* LMDB 0.9's meta page: the page header begins with the page's own number, the meta record behind
 * the header with this magic; the transaction is its last field. */
#define META_MAGIC_AT 16
#define META_TXNID_AT 144
#define META_MAGIC    UINT32_C(0xbeefc0de)

void checkpoint_fini(struct checkpoint *c)
{
    free(c->meta);
    *c = (struct checkpoint){ 0 };
}

static bool meta_is_of(const uint8_t *meta, uint64_t txnid)
{
    uint32_t magic;
    uint64_t have;

    memcpy(&magic, meta + META_MAGIC_AT, sizeof(magic));
    memcpy(&have, meta + META_TXNID_AT, sizeof(have));
    return magic == META_MAGIC && have == txnid;
}

int checkpoint_take(struct checkpoint *c, MDB_env *env, const char *data, struct why *why)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    uint8_t *meta;
    int err;
    int fd;

    mdb_env_info(env, &info);
    mdb_env_stat(env, &stat);
    mdb_env_get_fd(env, &fd);
    if (fstat(fd, &st) != 0) {
        return why_set(why, DFS_EIO, "%s: %s", data, strerror(errno));
    }
    meta = x_alloc(stat.ms_psize);
    err = io_pread(fd, meta, stat.ms_psize, (info.me_last_txnid & 1) * stat.ms_psize);
    if (err == 0 && !meta_is_of(meta, info.me_last_txnid)) {
        err = DFS_EDAMAGED;
    }
    if (err != 0) {
        free(meta);
        return why_set(why, err, "%s: meta page: %s", data, err_text(err));
    }
    free(c->meta);
    *c = (struct checkpoint){
        .page_bytes = stat.ms_psize,
        .txnid = info.me_last_txnid,
        .file_bytes = (uint64_t)st.st_size,
        .meta = meta,
    };
    return 0;
}

int checkpoint_write(const struct checkpoint *c, const char *path, struct why *why)
{
    struct wire_out out;
    int err = FAULT("kv.checkpoint.write");

    if (err != 0) {
        return why_set(why, err, "%s: %s", path, err_text(err));
    }
    wire_out_init(&out, FILE_BYTES_MAX);
    wire_put_raw(&out, MAGIC, MAGIC_BYTES);
    wire_put_u32(&out, c->page_bytes);
    wire_put_u64(&out, c->txnid);
    wire_put_u64(&out, c->file_bytes);
    wire_put_bytes(&out, slice_of(c->meta, c->page_bytes));
    wire_put_u32(&out, crc32c(0, out.p, out.len));
    ASSERT(out.err == 0);
    err = io_write_file(path, out.p, out.len, 0600, why);
    wire_out_fini(&out);
    return err;
}

int checkpoint_decode(struct slice file, struct checkpoint *ret)
{
    struct wire_in in = wire_in_of(file);
    struct slice magic = wire_take(&in, MAGIC_BYTES);
    struct checkpoint c = { .page_bytes = wire_get_u32(&in) };
    struct slice meta;
    uint32_t crc;

    c.txnid = wire_get_u64(&in);
    c.file_bytes = wire_get_u64(&in);
    meta = wire_get_bytes(&in);
    crc = wire_get_u32(&in);
    if (in.err != 0 || in.left != 0 || memcmp(magic.p, MAGIC, MAGIC_BYTES) != 0 ||
        meta.len != c.page_bytes || meta.len < 512 ||
        crc != crc32c(0, file.p, file.len - sizeof(crc)) || !meta_is_of(meta.p, c.txnid)) {
        return DFS_EDAMAGED;
    }
    c.meta = x_alloc(meta.len);
    memcpy(c.meta, meta.p, meta.len);
    *ret = c;
    return 0;
}

int checkpoint_read(struct checkpoint *ret, const char *path, struct why *why)
{
    char *p = NULL;
    size_t len = 0;
    int err = io_read_file(path, FILE_BYTES_MAX, &p, &len, why);

    if (err == DFS_ENOENT) {
        return why_set(why, DFS_EDAMAGED, "%s is missing: the database beside it cannot be opened",
                       path);
    }
    if (err == 0) {
        err = checkpoint_decode(slice_of(p, len), ret);
        free(p);
    } else if (err != DFS_ETOOBIG) {
        return err;
    }
    return err != 0 ? why_set(why, DFS_EDAMAGED, "%s is damaged", path) : 0;
}

int checkpoint_restore(const struct checkpoint *c, const char *data, struct why *why)
{
    uint8_t *page;
    struct stat st;
    int err = 0;
    int fd = open(data, O_RDWR | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        return why_set(why, DFS_EDAMAGED, "%s is missing", data);
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        err = why_set(why, err_from_errno(errno), "%s: %s", data, strerror(errno));
        io_close(fd);
        return err;
    }
    if ((uint64_t)st.st_size < c->file_bytes) {
        io_close(fd);
        return why_set(why, DFS_EDAMAGED, "%s is damaged: %jd bytes long, %ju expected", data,
                       (intmax_t)st.st_size, (uintmax_t)c->file_bytes);
    }
    page = x_alloc(c->page_bytes);
    memcpy(page, c->meta, c->page_bytes);
    for (uint64_t pgno = 0; err == 0 && pgno < 2; pgno++) {
        memcpy(page, &pgno, sizeof(pgno));
        err = FAULT("kv.restore.write");
        err = err != 0 ? err : io_pwrite(fd, page, c->page_bytes, pgno * c->page_bytes);
    }
    free(page);
    io_close(fd);
    return err != 0 ? why_set(why, err, "%s: %s", data, err_text(err)) : 0;
}
