#include "cluster/base/err.h"

struct row {
    int wire;
    int no;
    enum err_retry retry;
    const char *name;
    const char *text;
};

static const struct row rows[] = {
#define ERR(name, wire, no, http, java, retry, text) { (wire), (no), RETRY_##retry, #name, (text) },
#include "cluster/base/err.def"
#undef ERR
};

static const struct row *find(int err)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].wire == err) {
            return &rows[i];
        }
    }
    return NULL;
}

int err_errno(int err)
{
    const struct row *r;

    if (err == DFS_OK) {
        return 0;
    }
    r = find(err);
    return r != NULL ? r->no : EIO;
}

int err_from_errno(int no)
{
    if (no == 0) {
        return DFS_OK;
    }
    if (no == EMFILE || no == ENFILE) {
        return DFS_EBUSY; /* no descriptors left: nothing is wrong with the file */
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        /* EIO and EAGAIN stand in several rows; the plain ones are meant. */
        if (rows[i].no == no && rows[i].wire != DFS_ECHECKSUM && rows[i].wire != DFS_ENOTLEADER) {
            return rows[i].wire;
        }
    }
    return DFS_EIO;
}

const char *err_text(int err)
{
    const struct row *r = find(err);

    return err == DFS_OK ? "success" : r != NULL ? r->text : "unknown error";
}

const char *err_name(int err)
{
    const struct row *r = find(err);

    return err == DFS_OK ? "OK" : r != NULL ? r->name : "?";
}

enum err_retry err_retry(int err)
{
    const struct row *r = find(err);

    return r != NULL ? r->retry : RETRY_NEVER;
}
