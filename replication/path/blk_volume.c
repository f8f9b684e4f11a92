/* Operators' orders about this server's volumes. */
#include "replication/path/blk_impl.h"

static int obey(struct store *s, const struct block_volume_req *req, struct why *why)
{
    char *path = x_strndup((const char *)req->path.p, req->path.len);
    int err;

    switch (req->op) {
    case VOLUME_ADD:
        err = store_volume_add(s, path, why);
        break;
    case VOLUME_REMOVE:
        err = store_volume_remove(s, path, why);
        break;
    case VOLUME_KEEP:
        err = store_volume_keep(s, path, why);
        break;
    default:
        err = why_set(why, DFS_EUNKNOWNRPC, "an order that this server does not know");
        break;
    }
    log_event(LOG_INFO, "block.volume", "op=%d path=\"%s\" err=\"%s\"", (int)req->op, path,
              err_text(err));
    free(path);
    return err;
}

int blk_volume_serve(struct blk_conn *c, const struct frame *f, struct slice msg)
{
    struct block_volume_req req;
    struct block_volume_rep rep = { 0 };
    struct why why = { "" };
    int err = block_volume_req_get(msg, &req);

    if (err != 0) {
        return err;
    }
    if (req.path.len > VOLUME_PATH_MAX || memchr(req.path.p, '\0', req.path.len) != NULL) {
        return DFS_EMALFORMED;
    }
    err = obey(c->server->store, &req, &why);
    rep.refused = err != 0;
    rep.text = slice_str(err == 0 ? "" : why.text[0] != '\0' ? why.text : err_text(err));
    wire_out_reset(&c->out);
    block_volume_rep_put(&c->out, &rep);
    return blk_reply(c, f, 0, NULL, 0);
}
