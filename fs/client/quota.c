/* Quotas: limits of directories, and what is charged to them. */
#include "fs/client/call.h"

DEFINE_CALL(quota_set)
DEFINE_CALL(quota_clear)
DEFINE_CALL(quota_get)
DEFINE_CALL(quota_list)

int client_quota_set(struct client *c, const struct cred *cr, const struct quota_set_req *want)
{
    struct quota_set_rep r;
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, want->ino);
    err = call_quota_set(c, META_COMMAND, cr, &call, want, &r);
    dir_news_drop(&c->news, want->ino);
    meta_end(&call);
    return err;
}

int client_quota_clear(struct client *c, const struct cred *cr, uint64_t ino)
{
    struct quota_clear_req q = { .ino = ino };
    struct quota_clear_rep r;
    struct meta_call call;
    int err;

    dir_news_drop(&c->news, ino);
    err = call_quota_clear(c, META_COMMAND, cr, &call, &q, &r);
    dir_news_drop(&c->news, ino);
    meta_end(&call);
    return err;
}

/* *ret_last: inode of the last one. */
static int each(struct wire_list quotas, client_quota_fn *fn, void *arg, uint64_t *ret_last)
{
    struct wire_in in = wire_in_of(quotas.items);
    struct quota_info q;
    int err = DFS_OK;

    for (uint32_t i = 0; i < quotas.count && err == 0; i++) {
        err = quota_info_get(&in, &q);
        if (err == 0) {
            *ret_last = q.ino;
            fn(arg, &q);
        }
    }
    return err;
}

int client_quota_get(struct client *c, const struct cred *cr, uint64_t ino, bool paths,
                     client_quota_fn *fn, void *arg)
{
    struct quota_get_req q = { .ino = ino, .paths = paths };
    struct quota_get_rep r;
    struct meta_call call;
    uint64_t last;
    int err = call_quota_get(c, META_QUERY, cr, &call, &q, &r);

    err = err != 0 ? err : each(r.quotas, fn, arg, &last);
    meta_end(&call);
    return err;
}

int client_quota_list(struct client *c, const struct cred *cr, client_quota_fn *fn, void *arg)
{
    struct quota_list_req q = { .after = 0 };
    bool more = true;
    int err = DFS_OK;

    while (err == 0 && more) {
        struct quota_list_rep r = { 0 };
        struct meta_call call;

        err = call_quota_list(c, META_QUERY, cr, &call, &q, &r);
        err = err != 0 ? err : each(r.quotas, fn, arg, &q.after);
        more = r.more != 0 && r.quotas.count != 0;
        meta_end(&call);
    }
    return err;
}
