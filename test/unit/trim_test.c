#include "cluster/store/trim.h"

#include "test/unit/tap.h"

#define KEYS 20000u

static void test_trim(void)
{
    static const char *const names[] = { "a", "b" };
    struct kv *kv = NULL;
    MDB_txn *txn = NULL;
    char text[64] = { 0 };

    CHECK_INT(kv_open(tap_tmp(), 64 * MIB, names, 2, &kv, NULL), 0);
    trim(kv, 0); /* nothing in it yet */
    CHECK_INT(kv_write_begin(kv, &txn), 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        MDB_val k = { sizeof(i), &i }, v = { sizeof(text), text };

        snprintf(text, sizeof(text), "value %u", i);
        CHECK_INT(mdb_put(txn, kv_dbi(kv, i % 2), &k, &v, 0), 0);
    }
    CHECK_INT(kv_commit(kv), 0);
    for (int round = 0; round < 3; round++) {
        CHECK_INT(kv_read_begin(kv, &txn), 0);
        trim(kv, 0); /* beside a reader */
        for (uint32_t i = 0; i < KEYS; i++) {
            MDB_val k = { sizeof(i), &i }, v;

            snprintf(text, sizeof(text), "value %u", i);
            CHECK(mdb_get(txn, kv_dbi(kv, i % 2), &k, &v) == 0 && v.mv_size == sizeof(text) &&
                  memcmp(v.mv_data, text, strlen(text)) == 0);
        }
        mdb_txn_abort(txn);
    }
    kv_close(kv);
}

static unsigned long resident_kib(void)
{
    unsigned long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");

    while (fgets(line, sizeof(line), f) != NULL && sscanf(line, "RssFile: %lu kB", &kib) != 1) {
    }
    fclose(f);
    return kib;
}

static void test_gives_back(void)
{
    static const char *const names[] = { "a" };
    unsigned long before, after;
    struct kv *kv = NULL;
    MDB_txn *txn = NULL;
    MDB_cursor *cur;
    MDB_val k, v;
    char dir[100], text[1000] = { 1 };

    snprintf(dir, sizeof(dir), "%s/big", tap_tmp());
    CHECK_INT(kv_open(dir, 128 * MIB, names, 1, &kv, NULL), 0);
    CHECK_INT(kv_write_begin(kv, &txn), 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        k = (MDB_val){ sizeof(i), &i };
        v = (MDB_val){ sizeof(text), text };
        CHECK_INT(mdb_put(txn, kv_dbi(kv, 0), &k, &v, 0), 0);
    }
    CHECK_INT(kv_commit(kv), 0);
    CHECK_INT(kv_read_begin(kv, &txn), 0);
    CHECK_INT(mdb_cursor_open(txn, kv_dbi(kv, 0), &cur), 0);
    while (mdb_cursor_get(cur, &k, &v, MDB_NEXT) == 0) {
        text[1] = *(const char *)v.mv_data;
    }
    mdb_cursor_close(cur);
    mdb_txn_abort(txn);
    before = resident_kib();
    trim(kv, UINT64_MAX);
    CHECK(resident_kib() + 2000 > before);
    trim(kv, MIB);
    after = resident_kib();
    CHECK(after + 10000 < before);
    kv_close(kv);
}

int main(void)
{
    tap_run("nothing is lost", test_trim);
    tap_run("memory is given back", test_gives_back);
    return tap_done();
}
