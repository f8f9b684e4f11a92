/* Operators' requests: asked of each master in turn until one is the leader. */
#include "cluster/base/base.h"

#include "cluster/base/addr.h"
#include "cluster/net/control.h"

#include "fs/client/client_int.h"
#include "fs/client/silence.h"

#define STEP_MS  3000 /* for one master */
#define PAUSE_MS 100

static int ask_one(const char *addr, uint16_t type, struct slice msg, struct wire_out *rep,
                   uint64_t deadline_ms, struct why *why)
{
    struct control_client *cc;
    int err = control_client_open(addr, &cc, why);

    if (err != 0) {
        return err;
    }
    wire_out_reset(rep);
    err = control_call(cc, type, msg, rep, MIN(deadline_ms, clock_mono_ms() + STEP_MS));
    control_client_close(cc);
    return err;
}

int client_admin(const struct conf *conf, uint16_t type, struct slice msg, struct wire_out *rep,
                 struct why *why)
{
    uint64_t deadline_ms = clock_mono_ms() + conf->client_timeout;
    char addr[ADDR_TEXT];
    char *list;
    int err = addr_masters(conf->masters, MASTER_CONTROL, &list, why);

    if (err != 0) {
        return err;
    }
    silence_begin();
    for (int i = 0;; i++) {
        if (addr_nth(list, i, addr) == NULL) {
            i = 0;
            addr_nth(list, 0, addr);
        }
        err = ask_one(addr, type, msg, rep, deadline_ms, why);
        if (err_retry(err) != RETRY_LEADER && err != DFS_ETIMEOUT && err != DFS_ECONN) {
            break;
        }
        if (!pause_ms(PAUSE_MS, deadline_ms)) {
            err = why_set(why, DFS_ETIMEOUT, "no master answered at %s", list);
            break;
        }
    }
    silence_end(err);
    free(list);
    return err;
}
