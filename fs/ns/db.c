#include "fs/ns/ns_core.h"

bool ns_is_fatal(int err)
{
    return err == DFS_EIO || err == DFS_EDAMAGED || err == DFS_ENOSPC;
}

int ns_db_get(const struct ns_view *v, enum ns_db db, struct slice key, struct slice *ret)
{
    MDB_val k = key_val(key.p, key.len);
    MDB_val val;
    int rc = mdb_get(v->txn, v->ns->db[db], &k, &val);

    if (rc == 0) {
        *ret = key_slice(val);
    }
    return kv_err(rc);
}

static int put(struct ns_tx *tx, enum ns_db db, struct slice key, struct slice val, unsigned flags)
{
    MDB_val k = key_val(key.p, key.len);
    MDB_val d = key_val(val.p, val.len);

    return kv_err(mdb_put(tx->v.txn, tx->ns->db[db], &k, &d, flags));
}

int ns_db_put(struct ns_tx *tx, enum ns_db db, struct slice key, struct slice val)
{
    return put(tx, db, key, val, 0);
}

int ns_db_append(struct ns_tx *tx, enum ns_db db, struct slice key, struct slice val)
{
    return put(tx, db, key, val, MDB_APPEND);
}

int ns_db_del(struct ns_tx *tx, enum ns_db db, struct slice key)
{
    MDB_val k = key_val(key.p, key.len);

    return kv_err(mdb_del(tx->v.txn, tx->ns->db[db], &k, NULL));
}

static bool begins_with(MDB_val key, struct slice prefix)
{
    return key.mv_size >= prefix.len && memcmp(key.mv_data, prefix.p, prefix.len) == 0;
}

int ns_db_del_prefix(struct ns_tx *tx, enum ns_db db, struct slice prefix, ns_key_fn *fn)
{
    MDB_cursor *c;
    int err = 0;
    int rc = mdb_cursor_open(tx->v.txn, tx->ns->db[db], &c);

    if (rc != 0) {
        return kv_err(rc);
    }
    while (err == 0) {
        MDB_val key = key_val(prefix.p, prefix.len);
        MDB_val val;

        rc = mdb_cursor_get(c, &key, &val, MDB_SET_RANGE);
        if (rc != 0 || !begins_with(key, prefix)) {
            err = rc == MDB_NOTFOUND ? 0 : kv_err(rc);
            break;
        }
        err = fn != NULL ? fn(tx, key_slice(key)) : 0;
        err = err != 0 ? err : kv_err(mdb_cursor_del(c, 0));
    }
    mdb_cursor_close(c);
    return err;
}

int ns_db_each(const struct ns_view *v, enum ns_db db, struct slice from, ns_pair_fn *fn, void *arg)
{
    MDB_val key = key_val(from.p, from.len);
    MDB_val val;
    MDB_cursor *c;
    int err = 0;
    int rc = mdb_cursor_open(v->txn, v->ns->db[db], &c);

    if (rc != 0) {
        return kv_err(rc);
    }
    rc = mdb_cursor_get(c, &key, &val, from.len != 0 ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0 && fn(arg, key_slice(key), key_slice(val), &err) && err == 0) {
        rc = mdb_cursor_get(c, &key, &val, MDB_NEXT);
    }
    mdb_cursor_close(c);
    return err != 0 ? err : rc == MDB_NOTFOUND ? 0 : kv_err(rc);
}

uint64_t ns_db_count(const struct ns_view *v, enum ns_db db)
{
    MDB_stat stat;

    return mdb_stat(v->txn, v->ns->db[db], &stat) == 0 ? stat.ms_entries : 0;
}
