/* The core: commands become log entries, applied entries become answers.
 *
 * Happy path: the clients' descriptor is readable -> every command that has arrived is put into one
 * batch -> the batch is a log entry -> it is on disk -> the state machine applies it -> each
 * command is answered from inside the application, after its write (master_keep.c: which need not be
 * committed). Meanwhile the next batch gathers; a large one does not wait for the end, so that two
 * entries are in flight at most.
 *
 * Failures: a command that cannot go into the log (not the leader, malformed, no servers for a block)
 * is answered at once; one whose entry was not accepted gets DFS_ENOTLEADER and may be sent again
 * under the same number. A log that cannot be written ends the process: nothing more is answered.
 */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"
#include "cluster/base/metrics.h"
#include "cluster/base/rng.h"

#include "fs/role/master_int.h"

#define IN_FLIGHT  2u
#define SECOND_MIN 32u /* commands: a smaller batch waits for the one under way, and grows */
#define FULL_PAUSE 4u  /* full batches that wait before clients are listened to no longer */
#define HDR_BYTES  64u /* what ns_batch_add() adds to a command, at most */

enum rpc_kind { KIND_NONE, KIND_QUERY, KIND_COMMAND, KIND_LOG, KIND_BLOCK, KIND_CONTROL };

static enum rpc_kind rpc_kind(uint16_t type)
{
    switch (type) {
#define REC(name)
#define F(type, field)
#define END_REC(name)
#define ARG(type, field)
#define RET(type, field)
#define END(name)
#define RPC(name, id, kind) \
    case (id):              \
        return KIND_##kind;
#include "replication/rpc.def"

#include "fs/rpc.def"
#undef REC
#undef F
#undef END_REC
#undef ARG
#undef RET
#undef END
#undef RPC
    default:
        return KIND_NONE;
    }
}

/* ---- batches ---- */

static struct batch *batch_new(void)
{
    struct batch *b = x_alloc(sizeof(*b));

    list_init(&b->list);
    wire_out_init(&b->out, LIMIT_BATCH_BYTES + KIB);
    return b;
}

static void batch_free(struct batch *b)
{
    if (b != NULL) {
        wire_out_fini(&b->out);
        free(b->items);
        free(b);
    }
}

static void answer(struct master *m, const struct batch_item *it, int status, struct slice reply)
{
    if (it->cmd != NULL) {
        it->cmd->done(it->cmd, status, reply);
    } else if (m->rpc != NULL) {
        rpc_reply(rpc_server_command_loop(m->rpc), it->token, status, reply);
    }
}

static void answer_all(struct master *m, struct batch *b, int status)
{
    for (uint32_t i = 0; i < b->count; i++) {
        answer(m, &b->items[i], status, SLICE_EMPTY);
    }
    batch_free(b);
}

static void close_gather(struct core *c)
{
    list_push_back(&c->full, &c->gather->list);
    c->full_count++;
    c->gather = batch_new();
}

int64_t master_now_ns(struct master *m)
{
    struct core *c = &m->core;
    int64_t ns;

    pthread_mutex_lock(&c->mu);
    ns = fs_time_now(&c->time, clock_wall_ns(), clock_mono_us());
    pthread_mutex_unlock(&c->mu);
    return ns;
}

static void batch_begin(struct master *m, struct batch *b)
{
    struct ns_batch_head head = { .repl_default = (uint8_t)atomic_load(&m->replication),
                                  .lease_ms = (uint32_t)m->conf->session_lease,
                                  .block_size = (uint32_t)m->conf->block_size };

    head.now_ns = master_now_ns(m);
    ns_batch_begin(&b->out, &head);
}

static int add(struct master *m, const struct ns_command *cmd, const struct batch_item *item)
{
    struct core *c = &m->core;
    size_t bytes = cmd->hdr.len + cmd->msg.len + cmd->choice.len + HDR_BYTES;
    struct batch *b;

    if (bytes > LIMIT_BATCH_BYTES) {
        return DFS_ETOOBIG;
    }
    if (c->gather->count == LIMIT_BATCH_COMMANDS ||
        c->gather->out.len + bytes > LIMIT_BATCH_BYTES) {
        close_gather(c);
    }
    b = c->gather;
    if (b->count == 0) {
        batch_begin(m, b);
    }
    if (b->count == b->cap) {
        b->cap = MAX(b->cap * 2, 16);
        b->items = x_realloc(b->items, b->cap * sizeof(*b->items));
    }
    ns_batch_add(&b->out, cmd);
    b->items[b->count++] = *item;
    return DFS_OK;
}

/* An entry under way. */
struct flight {
    struct list list;
    struct master *m;
    struct batch *b;
    uint64_t sent_us;
};

/* For those who watch how long the log takes. */
static void note_oldest(struct core *c)
{
    struct list *l = c->flights.next;

    atomic_store(&c->pending_since_us,
                 l == &c->flights ? 0 : CONTAINER_OF(l, struct flight, list)->sent_us);
}

static void on_done(void *arg, int status)
{
    struct flight *f = arg;
    struct master *m = f->m;

    m->core.in_flight--;
    list_remove(&f->list);
    note_oldest(&m->core);
    metric_observe(METRIC_batch_time, clock_mono_us() - f->sent_us);
    if (status != DFS_OK) {
        answer_all(m, f->b, status);
    } else {
        batch_free(f->b);
    }
    free(f);
    master_core_pump(m);
}

static void on_clients(uv_poll_t *p, int status, int events);

void master_core_pump(struct master *m)
{
    struct core *c = &m->core;

    while (c->in_flight < IN_FLIGHT) {
        struct list *l = list_pop_front(&c->full);
        struct batch *b = l != NULL ? CONTAINER_OF(l, struct batch, list) : c->gather;
        struct flight *f;

        /* Writes of the log follow each other anyway: few commands are done sooner by one than by two. */
        if (b->count == 0 || (l == NULL && c->in_flight > 0 && b->count < SECOND_MIN)) {
            break;
        }
        if (l != NULL) {
            c->full_count--;
        } else {
            c->gather = batch_new();
        }
        ns_batch_end(&b->out, b->count);
        master_room_take(m, b->out.len);
        f = x_alloc(sizeof(*f));
        f->m = m;
        f->b = b;
        list_init(&f->list);
        list_push_back(&c->flights, &f->list);
        f->sent_us = clock_mono_us();
        note_oldest(c);
        metric_add(METRIC_commands, b->count);
        c->in_flight++;
        raft_node_submit(m->node, &b->out, on_done, f);
    }
    if (m->serving && c->paused != (c->full_count >= FULL_PAUSE)) {
        c->paused = !c->paused;
        if (c->paused) {
            uv_poll_stop(&c->clients);
        } else {
            uv_poll_start(&c->clients, UV_READABLE, on_clients);
        }
    }
}

/* ---- applying ---- */

static void on_session_ended(void *arg, uint64_t session)
{
    struct master *m = arg;

    pthread_mutex_lock(&m->sessions_mu);
    sessions_end(&m->sessions, session);
    pthread_mutex_unlock(&m->sessions_mu);
    events_end(&m->events, session);
    master_locks_end(m, session);
}

static void on_rule_added(void *arg, uint16_t number, struct slice text)
{
    struct master *m = arg;

    pthread_mutex_lock(&m->map_mu);
    if (m->repair != NULL) { /* NULL: replay; all are loaded afterwards */
        repair_set_rule(m->repair, number, text);
    }
    pthread_mutex_unlock(&m->map_mu);
}

/* What the leader remembers of a command that was done, before the client learns of it. */
static void remember(struct master *m, const struct batch_item *it, struct slice reply)
{
    struct session_open_rep opened;
    struct make_rep made;
    struct attr attr;
    struct wire_in in;

    if (it->opens && make_rep_get(reply, &made) == DFS_OK) {
        in = wire_in_of(made.attr);
        if (attr_get(&in, &attr) == DFS_OK) {
            pthread_mutex_lock(&m->sessions_mu);
            sessions_open(&m->sessions, it->session, attr.ino, NULL);
            pthread_mutex_unlock(&m->sessions_mu);
        }
    } else if (it->token.type == RPC_session_open &&
               session_open_rep_get(reply, &opened) == DFS_OK) {
        pthread_mutex_lock(&m->sessions_mu);
        sessions_add(&m->sessions, opened.session, clock_mono_ms());
        pthread_mutex_unlock(&m->sessions_mu);
        master_locks_session(m, opened.session, true);
    }
}

struct applying {
    struct master *m;
    struct batch *b;
};

static void on_reply(void *arg, uint32_t i, int status, struct slice reply)
{
    struct applying *a = arg;
    const struct batch_item *it = &a->b->items[i];

    if (status == DFS_OK && it->cmd == NULL) {
        remember(a->m, it, reply);
    }
    answer(a->m, it, status, reply);
}

/* The time in a batch's head: behind its format. */
static int64_t batch_time(struct slice entry)
{
    struct wire_in in = wire_in_of(entry);

    wire_get_u8(&in);
    return wire_get_i64(&in);
}

int master_core_apply(void *arg, uint64_t index, struct slice entry, void *submitted,
                      struct why *why)
{
    struct master *m = arg;
    struct core *c = &m->core;
    struct flight *f = submitted;
    struct applying a = { m, f != NULL ? f->b : NULL };
    int err;

    c->applying_ns = batch_time(entry);
    pthread_mutex_lock(&c->mu);
    fs_time_reach(&c->time, c->applying_ns, clock_mono_us());
    c->batches_begun++;
    pthread_mutex_unlock(&c->mu);
    err = ns_apply(m->ns, index, entry, f != NULL ? on_reply : NULL, &a, why);
    pthread_mutex_lock(&c->mu);
    c->batches_answered++;
    pthread_cond_broadcast(&c->answered);
    pthread_mutex_unlock(&c->mu);
    c->applying_ns = 0;
    if (err == DFS_OK) {
        master_keep_applied(m);
    }
    master_events_tell(m);
    return err;
}

void master_core_wait_answered(struct master *m)
{
    struct core *c = &m->core;
    uint64_t begun;

    pthread_mutex_lock(&c->mu);
    begun = c->batches_begun;
    while (c->batches_answered < begun) {
        pthread_cond_wait(&c->answered, &c->mu);
    }
    pthread_mutex_unlock(&c->mu);
}

/* ---- commands of clients ---- */

/* Servers for each block; as many blocks as there are servers for. */
static int choose(struct master *m, const struct block_alloc_req *req, struct wire_out *out)
{
    uint32_t avoid[LIMIT_CHAIN * 4], nodes[LIMIT_REPLICATION];
    struct placement_ask ask = {
        .copies = req->want != 0 ? req->want : atomic_load(&m->replication),
        .bytes = m->conf->block_size,
        .host = req->host,
        .avoid = avoid,
        .rule = repair_rule(m->repair, req->rule),
    };
    struct wire_in in = wire_in_of(req->avoid.items);
    struct wire_out list, choice;
    uint32_t made = 0;
    int err = DFS_OK;

    if (ask.copies > LIMIT_REPLICATION || req->count == 0 || req->count > LIMIT_ALLOC ||
        req->avoid.count > ARRAY_LEN(avoid)) {
        return DFS_EINVAL;
    }
    for (uint32_t i = 0; i < req->avoid.count; i++) {
        struct node_ref n;

        if (node_ref_get(&in, &n) != DFS_OK) {
            return DFS_EMALFORMED;
        }
        avoid[ask.avoid_count++] = n.node;
    }
    wire_out_init(&list, 64 * KIB);
    wire_out_init(&choice, KIB);
    while (err == DFS_OK && made < req->count) {
        struct block_choice bc;
        size_t n = 0;

        err = placement_pick(&m->members, &ask, &m->core.rng, nodes, &n);
        /* Just started: do not settle for less while servers are on their way. */
        if (n < ask.copies && members_expected(&m->members, clock_mono_ms())) {
            err = DFS_ENOSERVERS;
        }
        if (err != DFS_OK) {
            break;
        }
        wire_out_reset(&choice);
        for (size_t i = 0; i < n; i++) {
            node_ref_put(&choice, &(struct node_ref){ nodes[i] });
        }
        bc.nodes = wire_out_list(&choice, (uint32_t)n);
        block_choice_put(&list, &bc);
        made++;
    }
    wire_put_list(out, wire_out_list(&list, made));
    wire_out_fini(&list);
    wire_out_fini(&choice);
    return made != 0 ? DFS_OK : err;
}

static int take_command(struct master *m, struct rpc_token token, struct slice msg)
{
    struct batch_item item = { .token = token };
    struct wire_in in = wire_in_of(msg);
    struct ns_command cmd = { .type = token.type };
    struct block_alloc_req alloc;
    struct make_req make;
    struct call_hdr hdr;
    struct wire_out choice;
    int err;

    if (rpc_kind(token.type) != KIND_COMMAND) {
        return DFS_EUNKNOWNRPC;
    }
    if (!atomic_load(&m->leads)) {
        return DFS_ENOTLEADER;
    }
    err = call_hdr_get(&in, &hdr);
    if (err != DFS_OK) {
        return err;
    }
    cmd.hdr = slice_of(msg.p, msg.len - in.left);
    cmd.msg = slice_of(in.p, in.left);
    item.session = hdr.session;
    wire_out_init(&choice, 128 * KIB);
    if (token.type == RPC_make && make_req_get(cmd.msg, &make) == DFS_OK) {
        item.opens = (make.flags & MAKE_OPEN) != 0;
    } else if (token.type == RPC_block_alloc) {
        err = block_alloc_req_get(cmd.msg, &alloc);
        err = err == DFS_OK && master_room_refuses(m, token.type) ? DFS_ENOROOM : err;
        if (err == DFS_OK) {
            pthread_mutex_lock(&m->map_mu);
            err = choose(m, &alloc, &choice);
            pthread_mutex_unlock(&m->map_mu);
        }
    }
    if (token.type != RPC_block_alloc && master_room_refuses(m, token.type)) {
        wire_put_u8(&choice, 1); /* said by the state machine: it may have been done before */
    }
    cmd.choice = wire_out_slice(&choice);
    err = err != DFS_OK ? err : add(m, &cmd, &item);
    wire_out_fini(&choice);
    return err;
}

void master_core_on_command(void *arg, struct rpc_loop *loop, struct rpc_token token,
                            struct slice msg)
{
    int err = take_command(arg, token, msg);

    if (err != DFS_OK) {
        rpc_reply(loop, token, err, SLICE_EMPTY);
    }
}

static void on_clients(uv_poll_t *p, int status, int events)
{
    struct master *m = p->data;

    (void)status;
    (void)events;
    rpc_loop_step(rpc_server_command_loop(m->rpc));
    master_core_pump(m);
}

void master_core_serve(struct master *m)
{
    struct core *c = &m->core;

    uv_poll_init(&c->loop, &c->clients, rpc_loop_fd(rpc_server_command_loop(m->rpc)));
    c->clients.data = m;
    uv_poll_start(&c->clients, UV_READABLE, on_clients);
    m->serving = true;
}

/* ---- commands of our own ---- */

void master_core_submit(struct master *m, struct master_cmd *cmd)
{
    struct core *c = &m->core;
    bool closed;

    list_init(&cmd->list);
    pthread_mutex_lock(&c->mu);
    closed = c->closed;
    if (!closed) {
        list_push_back(&c->queue, &cmd->list);
    }
    pthread_mutex_unlock(&c->mu);
    if (closed) {
        cmd->done(cmd, DFS_ESHUTDOWN, SLICE_EMPTY);
    } else {
        uv_async_send(&c->wake);
    }
}

static struct master_cmd *next_cmd(struct core *c)
{
    struct list *l;

    pthread_mutex_lock(&c->mu);
    l = list_pop_front(&c->queue);
    pthread_mutex_unlock(&c->mu);
    return l != NULL ? CONTAINER_OF(l, struct master_cmd, list) : NULL;
}

static void on_wake(uv_async_t *a)
{
    struct master *m = a->data;
    struct master_cmd *cmd;

    while ((cmd = next_cmd(&m->core)) != NULL) {
        struct ns_command nc = { .type = cmd->type, .msg = wire_out_slice(&cmd->msg) };
        struct batch_item item = { .cmd = cmd };
        int err = cmd->msg.err;

        if (cmd->type == MASTER_SETTLE) {
            master_keep_on_settle(m, cmd);
            continue;
        }
        err = err != DFS_OK ? err : add(m, &nc, &item);
        if (err != DFS_OK) {
            cmd->done(cmd, err, SLICE_EMPTY);
        }
    }
    master_core_pump(m);
}

struct call {
    struct master_cmd cmd;
    sem_t done;
    int status;
    struct wire_out *reply;
};

static void on_call_done(struct master_cmd *cmd, int status, struct slice reply)
{
    struct call *call = cmd->arg;

    call->status = status;
    if (status == DFS_OK && call->reply != NULL) {
        wire_put_raw(call->reply, reply.p, reply.len);
    }
    sem_post(&call->done);
}

int master_core_call(struct master *m, uint16_t type, struct slice msg, struct wire_out *reply)
{
    struct call call = { .cmd = { .type = type, .done = on_call_done, .arg = &call },
                         .reply = reply };

    sem_init(&call.done, 0, 0);
    wire_out_init(&call.cmd.msg, LIMIT_BATCH_BYTES);
    wire_put_raw(&call.cmd.msg, msg.p, msg.len);
    master_core_submit(m, &call.cmd);
    while (sem_wait(&call.done) != 0) {
        ASSERT(errno == EINTR);
    }
    sem_destroy(&call.done);
    wire_out_fini(&call.cmd.msg);
    return call.status;
}

/* ---- life ---- */

void master_core_init(struct master *m)
{
    struct core *c = &m->core;
    struct ns_events ev = { .map = { .arg = m, .block_changed = master_keep_on_block },
                            .session_ended = on_session_ended,
                            .inode_changed = master_events_on_inode,
                            .entry_changed = master_events_on_entry,
                            .rule_added = on_rule_added,
                            .arg = m };

    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->answered, NULL);
    list_init(&c->queue);
    list_init(&c->flights);
    list_init(&c->full);
    wire_out_init(&c->names, LIMIT_BATCH_BYTES);
    c->gather = batch_new();
    rng_init(&c->rng, rng_system_u64());
    uv_loop_init(&c->loop);
    uv_async_init(&c->loop, &c->wake, on_wake);
    c->wake.data = m;
    ns_set_events(m->ns, &ev);
    master_keep_init(m);
}

void master_core_close(struct master *m)
{
    struct core *c = &m->core;
    struct master_cmd *cmd;
    struct list *l;

    pthread_mutex_lock(&c->mu);
    c->closed = true;
    pthread_mutex_unlock(&c->mu);
    if (m->serving) {
        uv_poll_stop(&c->clients);
    }
    while ((cmd = next_cmd(c)) != NULL) {
        cmd->done(cmd, DFS_ESHUTDOWN, SLICE_EMPTY);
    }
    while ((l = list_pop_front(&c->full)) != NULL) {
        answer_all(m, CONTAINER_OF(l, struct batch, list), DFS_ESHUTDOWN);
    }
    answer_all(m, c->gather, DFS_ESHUTDOWN);
    c->gather = batch_new();
}

void master_core_abandon(struct master *m)
{
    LIST_FOREACH (l, &m->core.flights) {
        struct flight *f = CONTAINER_OF(l, struct flight, list);

        list_remove(&f->list); /* the log still knows it: it stays in memory */
        answer_all(m, f->b, DFS_EIO);
        f->b = NULL;
    }
}

void master_core_fini(struct master *m)
{
    struct core *c = &m->core;

    uv_close((uv_handle_t *)&c->wake, NULL);
    master_keep_fini(m);
    if (m->serving) {
        uv_close((uv_handle_t *)&c->clients, NULL);
    }
    uv_run(&c->loop, UV_RUN_NOWAIT);
    batch_free(c->gather);
    free(c->news);
    wire_out_fini(&c->names);
    pthread_mutex_destroy(&c->mu);
    pthread_cond_destroy(&c->answered);
}
