#include "cluster/store/trim.h"

#include <sys/mman.h>

#include "cluster/base/io.h"

#define PAGE       4096u
#define META_MAGIC 0xBEEFC0DEu
#define META_AT    16u /* behind the page's header */

/* Resident pages of files, in bytes; 0 when that cannot be known. */
static uint64_t resident_files(void)
{
    uint64_t all, files;

    return io_resident(&all, &files) == 0 ? files : 0;
}

/* Where LMDB has mapped its file; it does not tell. A value in a read transaction lies in a page, and
 * a page begins with its number. */
static uint8_t *mapping(struct kv *kv)
{
    uint8_t *base = NULL;
    MDB_cursor *cur = NULL;
    MDB_val key, val;
    MDB_txn *txn;
    uint32_t magic;
    uint64_t page_number;

    if (kv_read_begin(kv, &txn) != 0) {
        return NULL;
    }
    if (mdb_cursor_open(txn, kv_dbi(kv, 0), &cur) == 0 &&
        mdb_cursor_get(cur, &key, &val, MDB_FIRST) == 0) {
        uint8_t *page = (uint8_t *)key.mv_data - (uintptr_t)key.mv_data % PAGE;

        memcpy(&page_number, page, sizeof(page_number));
        base = page - page_number * PAGE;
    }
    mdb_cursor_close(cur);
    mdb_txn_abort(txn);
    if (base == NULL) {
        return NULL;
    }
    memcpy(&magic, base + META_AT, sizeof(magic));
    return magic == META_MAGIC ? base : NULL;
}

void trim(struct kv *kv, uint64_t max_bytes)
{
    uint8_t *base;
    MDB_envinfo info;
    MDB_stat st;

    if (resident_files() <= max_bytes || mdb_env_info(kv_env(kv), &info) != 0 ||
        mdb_env_stat(kv_env(kv), &st) != 0 || st.ms_psize != PAGE) {
        return;
    }
    base = mapping(kv);
    if (base != NULL) {
        madvise(base, (info.me_last_pgno + 1) * PAGE, MADV_DONTNEED);
    }
}
