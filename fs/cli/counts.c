#include "fs/cli/counts.h"

#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/rng.h"

#define POLL_FIRST_US (5 * 1000)
#define POLL_US       (200 * 1000)

static int ask(const struct remote *r, const struct audit_req *q, struct counts *c)
{
    struct wire_out msg;
    struct why why = { "" };
    int err;

    wire_out_init(&msg, KIB);
    wire_out_reset(&c->reply);
    audit_req_put(&msg, q);
    err = client_admin(r->cli->conf, RPC_audit, wire_out_slice(&msg), &c->reply, &why);
    err = err != DFS_OK ? err : audit_rep_get(wire_out_slice(&c->reply), &c->rep);
    wire_out_fini(&msg);
    if (err == DFS_EBUSY) {
        return cli_error(r->cli, "the counts are being checked for somebody else: try again later");
    }
    err = err == DFS_OK && c->rep.running == 0 ? (int)c->rep.status : err;
    return err != DFS_OK ? cli_fail(r->cli, err, &why, "the check of the counts") : CLI_DONE;
}

int counts_check(const struct remote *r, bool repair, struct counts *ret)
{
    const struct audit_req q = { .token = rng_system_u64() | 1, .repair = repair };
    useconds_t pause = POLL_FIRST_US;
    int status;

    *ret = (struct counts){ 0 };
    wire_out_init(&ret->reply, LIMIT_MSG);
    while ((status = ask(r, &q, ret)) == CLI_DONE && ret->rep.running != 0) {
        usleep(pause);
        pause = MIN(pause * 2, POLL_US);
    }
    return status;
}

void counts_fini(struct counts *c)
{
    wire_out_fini(&c->reply);
}
