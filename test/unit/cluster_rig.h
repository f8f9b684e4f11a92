/* A whole cluster in this process: a master without a log (ns.h behind the real event loops), three
 * real block servers on loopback, and trouble on request. */
#ifndef DFS_TEST_UNIT_CLUSTER_RIG_H
#define DFS_TEST_UNIT_CLUSTER_RIG_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/clock.h"
#include "cluster/base/log.h"
#include "cluster/net/rpc_loop.h"

#include "replication/path/blk_server.h"

#include "fs/client/client.h"

#include "test/unit/ns_rig.h"

#define CR_SERVERS     3u
#define CR_QUERY_LOOPS 2
#define CR_FREE        GIB /* what statfs tells */

struct cluster_rig {
    struct rig ns; /* guarded by: mu, but for queries */
    pthread_mutex_t mu;
    struct ns_reader *readers[CR_QUERY_LOOPS];
    struct rpc_server *rpc;
    pthread_t master;
    atomic_bool stopping;
    struct {
        struct store *store;
        struct blk_server *srv;
        atomic_bool down; /* gets no new blocks, is read last */
    } server[CR_SERVERS];
    struct conf *conf;
    /* trouble, counted down: */
    atomic_int not_leader; /* calls answered with DFS_ENOTLEADER */
    atomic_int mute;       /* commands carried out and not answered */
    atomic_bool no_servers;
    atomic_int commands, allocs, commits;
};

static struct cluster_rig cr;

static uint8_t cr_state(void *arg, uint32_t node)
{
    (void)arg;
    return node >= 1 && node <= CR_SERVERS && atomic_load(&cr.server[node - 1].down) ? MEMBER_DEAD
                                                                                     : MEMBER_LIVE;
}

static bool cr_avoided(const struct block_alloc_req *q, uint32_t node)
{
    struct wire_in in = wire_in_of(q->avoid.items);
    struct node_ref ref;

    for (uint32_t i = 0; i < q->avoid.count && node_ref_get(&in, &ref) == 0; i++) {
        if (ref.node == node) {
            return true;
        }
    }
    return false;
}

/* As many live servers as wanted, another first one each time. */
static void cr_choose(struct slice msg, struct wire_out *choice)
{
    static uint32_t turn;
    struct block_alloc_req q;
    struct wire_out nodes, choices;
    uint32_t count = 0;
    uint32_t first = turn++;

    wire_out_init(&nodes, 256);
    wire_out_init(&choices, 256);
    CHECK_INT(block_alloc_req_get(msg, &q), 0);
    uint32_t want = q.want != 0 ? q.want : cr.ns.head.repl_default;

    for (uint32_t i = 0; i < CR_SERVERS && count < want && !atomic_load(&cr.no_servers); i++) {
        uint32_t node = 1 + (first + i) % CR_SERVERS;

        if (!atomic_load(&cr.server[node - 1].down) && !cr_avoided(&q, node)) {
            node_ref_put(&nodes, &(struct node_ref){ .node = node });
            count++;
        }
    }
    if (count > 0) {
        block_choice_put(&choices, &(struct block_choice){ .nodes = wire_out_list(&nodes, count) });
    }
    wire_put_list(choice, wire_out_list(&choices, count > 0));
    wire_out_fini(&nodes);
    wire_out_fini(&choices);
    atomic_fetch_add(&cr.allocs, 1);
}

static bool cr_take(atomic_int *left)
{
    if (atomic_load(left) <= 0) {
        return false;
    }
    atomic_fetch_sub(left, 1);
    return true;
}

static struct slice cr_split(struct slice msg, struct slice *ret_hdr, struct call_hdr *hdr)
{
    struct wire_in in = wire_in_of(msg);

    CHECK_INT(call_hdr_get(&in, hdr), 0);
    *ret_hdr = slice_of(msg.p, msg.len - in.left);
    return slice_of(in.p, in.left);
}

static void cr_on_command(void *arg, struct rpc_loop *loop, struct rpc_token token,
                          struct slice msg)
{
    struct call_hdr hdr;
    struct ns_command cmd = { .type = token.type };

    (void)arg;
    if (cr_take(&cr.not_leader)) {
        rpc_reply(loop, token, DFS_ENOTLEADER, SLICE_EMPTY);
        return;
    }
    pthread_mutex_lock(&cr.mu);
    cmd.msg = cr_split(msg, &cmd.hdr, &hdr);
    wire_out_reset(&cr.ns.choice);
    if (token.type == RPC_block_alloc) {
        cr_choose(cmd.msg, &cr.ns.choice);
        cmd.choice = wire_out_slice(&cr.ns.choice);
    }
    atomic_fetch_add(&cr.commands, 1);
    atomic_fetch_add(&cr.commits, token.type == RPC_commit);
    cr.ns.head.now_ns = MAX(cr.ns.head.now_ns, clock_wall_ns());
    rig_begin(&cr.ns);
    ns_batch_add(&cr.ns.batch, &cmd);
    ns_batch_end(&cr.ns.batch, 1);
    rig_apply(&cr.ns);
    wire_out_reset(&cr.ns.choice);
    if (!cr_take(&cr.mute)) {
        rpc_reply(loop, token, cr.ns.status, wire_out_slice(&cr.ns.reply));
    }
    pthread_mutex_unlock(&cr.mu);
}

static void cr_on_query(void *arg, struct rpc_loop *loop, struct rpc_token token, struct slice msg)
{
    struct call_hdr hdr;
    struct slice raw;
    struct slice req = cr_split(msg, &raw, &hdr);
    struct wire_out rep;
    int err;

    (void)arg;
    wire_out_init(&rep, LIMIT_MSG);
    if (token.type == RPC_session_ping) {
        session_ping_rep_put(&rep, &(struct session_ping_rep){ .epoch = 7, .lease_ms = 30000 });
        err = 0;
    } else if (token.type == RPC_statfs) {
        statfs_rep_put(&rep, &(struct statfs_rep){ .total_bytes = CR_FREE, .free_bytes = CR_FREE });
        err = 0;
    } else {
        err =
            ns_query(cr.readers[rpc_loop_index(loop)], &hdr, token.type, req, cr_state, NULL, &rep);
    }
    rpc_reply(loop, token, err, wire_out_slice(&rep));
    wire_out_fini(&rep);
}

static void *cr_run(void *arg)
{
    struct rpc_loop *loop = rpc_server_command_loop(cr.rpc);
    struct pollfd p = { .fd = rpc_loop_fd(loop), .events = POLLIN };

    while (!atomic_load(&cr.stopping)) {
        (void)poll(&p, 1, 20);
        rpc_loop_step(loop);
    }
    return arg;
}

static void cr_server_start(uint32_t i)
{
    char dir[128];
    char addr[64];
    uint8_t uuid[16] = { (uint8_t)(i + 1) };
    char host[256] = "";
    struct store_conf sc = { .dir = dir };
    struct blk_server_conf bc = { .listen = "127.0.0.1:0", .connections = 64 };
    struct store_found found;
    struct why why = { "" };

    (void)gethostname(host, sizeof(host) - 1);
    snprintf(dir, sizeof(dir), "%s/s%u", tap_tmp(), i + 1);
    CHECK_INT(store_open(&sc, &cr.server[i].store, &found, &why), 0);
    CHECK_INT(store_adopt(cr.server[i].store, rig_cluster, i + 1, &why), 0);
    bc.store = cr.server[i].store;
    CHECK_INT(blk_server_start(&bc, &cr.server[i].srv, &why), 0);
    CHECK_INT(blk_server_serve(cr.server[i].srv, rig_cluster, i + 1, &why), 0);
    snprintf(addr, sizeof(addr), "127.0.0.1:%u", blk_server_port(cr.server[i].srv));
    pthread_mutex_lock(&cr.mu);
    CHECK_INT(do_map_server(&cr.ns,
                            &(struct map_server_req){ .uuid = slice_of(uuid, 16),
                                                      .addr = slice_str(addr),
                                                      .host = slice_str(host) },
                            NULL),
              0);
    pthread_mutex_unlock(&cr.mu);
    atomic_store(&cr.server[i].down, false);
}

/* As kill -9 would: connections break at once, the master notices. */
static UNUSED void cr_server_stop(uint32_t i)
{
    atomic_store(&cr.server[i].down, true);
    blk_server_stop(cr.server[i].srv);
    store_close(cr.server[i].store);
    cr.server[i].srv = NULL;
    cr.server[i].store = NULL;
}

static UNUSED void cr_start(uint32_t block_size, const char *timeout)
{
    static int number;
    struct rpc_server_conf rc = { .listen = "127.0.0.1:0",
                                  .query_loops = CR_QUERY_LOOPS,
                                  .on_query = cr_on_query,
                                  .on_command = cr_on_command,
                                  .cluster = slice_of(rig_cluster, 16) };
    struct why why = { "" };
    char name[32];
    char set[64];

    memset(&cr, 0, sizeof(cr));
    (void)log_configure("off", NULL);
    pthread_mutex_init(&cr.mu, NULL);
    snprintf(name, sizeof(name), "ns%d", number++);
    rig_init(&cr.ns, name);
    cr.ns.head.block_size = block_size;
    CHECK_INT(
        do_ns_init(&cr.ns, &(struct ns_init_req){ .cluster = slice_of(rig_cluster, 16) }, NULL), 0);
    for (int i = 0; i < CR_QUERY_LOOPS; i++) {
        cr.readers[i] = ns_reader_new(cr.ns.ns);
    }
    for (uint32_t i = 0; i < CR_SERVERS; i++) {
        cr_server_start(i);
    }
    CHECK_INT(rpc_server_start(&rc, &cr.rpc, &why), 0);
    pthread_create(&cr.master, NULL, cr_run, NULL);
    cr.conf = conf_new();
    snprintf(set, sizeof(set), "masters=127.0.0.1:%u", rpc_server_port(cr.rpc));
    CHECK_INT(conf_set(cr.conf, set, &why), 0);
    snprintf(set, sizeof(set), "client.timeout=%s", timeout);
    CHECK_INT(conf_set(cr.conf, set, &why), 0);
}

static UNUSED void cr_stop(void)
{
    char cmd[128];

    atomic_store(&cr.stopping, true);
    pthread_join(cr.master, NULL);
    rpc_server_stop(cr.rpc);
    for (uint32_t i = 0; i < CR_SERVERS; i++) {
        if (cr.server[i].srv != NULL) {
            cr_server_stop(i);
        }
        snprintf(cmd, sizeof(cmd), "rm -rf '%s/s%u'", tap_tmp(), i + 1);
        CHECK_INT(system(cmd), 0);
    }
    for (int i = 0; i < CR_QUERY_LOOPS; i++) {
        ns_reader_free(cr.readers[i]);
    }
    rig_fini(&cr.ns);
    conf_free(cr.conf);
    pthread_mutex_destroy(&cr.mu);
}

/* Ends every session, as if their leases were over. */
static UNUSED void cr_expire_sessions(uint64_t first, uint64_t last)
{
    struct wire_out list;

    wire_out_init(&list, 4096);
    for (uint64_t s = first; s <= last; s++) {
        session_ref_put(&list, &(struct session_ref){ .session = s });
    }
    pthread_mutex_lock(&cr.mu);
    CHECK_INT(
        do_session_expire(&cr.ns,
                          &(struct session_expire_req){
                              .sessions = wire_out_list(&list, (uint32_t)(last - first + 1)) },
                          NULL),
        0);
    pthread_mutex_unlock(&cr.mu);
    wire_out_fini(&list);
}

static UNUSED struct client *cr_client(void)
{
    struct client *c = NULL;
    struct why why = { "" };
    int err = client_open(cr.conf, "test", &c, &why);

    if (err != 0) {
        printf("# client_open: %s %s\n", err_name(err), why.text);
        exit(1);
    }
    return c;
}

#endif
