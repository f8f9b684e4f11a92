#include "cluster/net/hello.h"

/* Neighbouring versions talk. */
static bool version_ok(uint32_t v)
{
    return v >= 1 && v + 1 >= DFS_PROTOCOL && v <= DFS_PROTOCOL + 1;
}

static bool cluster_ok(struct slice a, struct slice b)
{
    return a.len == 0 || b.len == 0 || slice_eq(a, b);
}

int hello_answer(struct slice msg, unsigned purposes, struct slice cluster, uint32_t node,
                 struct wire_out *rep, uint8_t *ret_purpose)
{
    struct hello_rep r = { .version = DFS_PROTOCOL, .cluster = cluster, .node = node };
    struct hello_req q;

    if (hello_req_get(msg, &q) != 0 || (q.cluster.len != 0 && q.cluster.len != CLUSTER_ID_BYTES)) {
        return DFS_EMALFORMED;
    }
    hello_rep_put(rep, &r);
    if (!version_ok(q.version)) {
        return DFS_EVERSION;
    }
    if (!cluster_ok(q.cluster, cluster)) {
        return DFS_EWRONGCLUSTER;
    }
    if (q.purpose >= 32 || (purposes & HELLO_BIT(q.purpose)) == 0) {
        return DFS_EINVAL;
    }
    *ret_purpose = q.purpose;
    return rep->err;
}

int hello_judge(const char *peer, int status, struct slice msg, struct slice cluster,
                uint32_t *ret_node, struct why *why)
{
    struct hello_rep r;
    int bad = hello_rep_get(msg, &r);

    if (bad == 0 && (status == DFS_EVERSION || !version_ok(r.version))) {
        return why_set(why, DFS_EVERSION, "%s speaks protocol version %" PRIu32 ", this is %d",
                       peer, r.version, DFS_PROTOCOL);
    }
    if (bad == 0 && (status == DFS_EWRONGCLUSTER || !cluster_ok(cluster, r.cluster))) {
        return why_set(why, DFS_EWRONGCLUSTER, "%s belongs to another cluster", peer);
    }
    if (status == DFS_EINVAL) {
        return why_set(why, status,
                       "%s plays another role (a block server's address in place of a master's, or "
                       "the other way round)",
                       peer);
    }
    if (status != 0 || bad != 0) {
        return why_set(why, status != 0 ? status : bad, "%s: %s", peer,
                       err_text(status != 0 ? status : bad));
    }
    if (ret_node != NULL) {
        *ret_node = r.node;
    }
    return DFS_OK;
}
