#include "fs/client/streams.h"

#include "cluster/base/base.h"

#include <pthread.h>
#include <sys/uio.h>

#include "cluster/base/clock.h"
#include "cluster/base/crc32c.h"
#include "cluster/base/fault.h"
#include "cluster/base/log.h"

#define POOL_MAX    8u
#define ROOM_MIN    (64u << 10) /* a block with less is full */
#define IDLE_MS     5000
#define OPEN_MS     5000
#define DOUBT_MS    600  /* without a sign of life: is it a server that hangs? */
#define RELEASE_MAX 1024 /* blocks in one commit */
#define SUMS_MAX    (PACKET_BYTES / CHUNK_BYTES + 1)

struct streams {
    struct meta *meta;
    struct peers *peers;
    char *host;
    pthread_mutex_t mu;            /* guards all below */
    struct stream *pool[POOL_MAX]; /* used last at the end */
    size_t pool_count;
    struct ended *ended;
    size_t ended_count;
    size_t ended_cap;
};

struct streams *streams_new(struct meta *meta, struct peers *peers, const char *host)
{
    struct streams *ss = x_alloc(sizeof(*ss));

    ss->meta = meta;
    ss->peers = peers;
    ss->host = x_strdup(host);
    pthread_mutex_init(&ss->mu, NULL);
    return ss;
}

void streams_free(struct streams *ss)
{
    if (ss == NULL) {
        return;
    }
    for (size_t i = 0; i < ss->pool_count; i++) {
        stream_close(ss->pool[i]);
    }
    free(ss->ended);
    free(ss->host);
    pthread_mutex_destroy(&ss->mu);
    free(ss);
}

void stream_close(struct stream *s)
{
    if (s != NULL) {
        conn_close(s->conn);
        wire_out_fini(&s->out);
        free(s);
    }
}

/* ---- the pool ---- */

static struct stream *pool_remove_locked(struct streams *ss, size_t i)
{
    struct stream *s = ss->pool[i];

    ss->pool_count--;
    memmove(&ss->pool[i], &ss->pool[i + 1], (ss->pool_count - i) * sizeof(struct stream *));
    return s;
}

struct stream *streams_take(struct streams *ss, uint8_t want, uint16_t rule, uint32_t len)
{
    uint64_t session = meta_session(ss->meta);
    struct stream *found = NULL;

    pthread_mutex_lock(&ss->mu);
    for (size_t i = ss->pool_count; i > 0 && found == NULL; i--) {
        const struct stream *s = ss->pool[i - 1];

        if (s->want == want && s->rule == rule && s->session == session &&
            s->limit - s->off >= len && !peers_known_hung(ss->peers, s->chain, s->chain_count)) {
            found = pool_remove_locked(ss, i - 1);
        }
    }
    pthread_mutex_unlock(&ss->mu);
    return found;
}

static void ended_locked(struct streams *ss, uint64_t session, uint64_t block, uint32_t len)
{
    if (ss->ended_count == ss->ended_cap) {
        ss->ended_cap = ss->ended_cap == 0 ? 16 : ss->ended_cap * 2;
        ss->ended = x_realloc(ss->ended, ss->ended_cap * sizeof(*ss->ended));
    }
    ss->ended[ss->ended_count++] = (struct ended){ session, block, len, false };
}

void streams_ended(struct streams *ss, uint64_t block, uint32_t len)
{
    pthread_mutex_lock(&ss->mu);
    ended_locked(ss, meta_session(ss->meta), block, len);
    pthread_mutex_unlock(&ss->mu);
}

void streams_end(struct streams *ss, struct stream *s, uint32_t len)
{
    pthread_mutex_lock(&ss->mu);
    ended_locked(ss, s->session, s->block, len);
    pthread_mutex_unlock(&ss->mu);
    stream_close(s);
}

void streams_give(struct streams *ss, struct stream *s)
{
    struct stream *out = s;

    if (s == NULL) {
        return;
    }
    s->idle_since_ms = clock_mono_ms();
    pthread_mutex_lock(&ss->mu);
    if (s->limit - s->off >= ROOM_MIN && s->session == meta_session(ss->meta)) {
        out = ss->pool_count == POOL_MAX ? pool_remove_locked(ss, 0) : NULL;
        ss->pool[ss->pool_count++] = s;
    }
    pthread_mutex_unlock(&ss->mu);
    if (out != NULL) {
        streams_end(ss, out, out->off);
    }
}

void streams_end_idle(struct streams *ss)
{
    for (;;) {
        struct stream *s;

        pthread_mutex_lock(&ss->mu);
        s = ss->pool_count > 0 ? pool_remove_locked(ss, 0) : NULL;
        pthread_mutex_unlock(&ss->mu);
        if (s == NULL) {
            return;
        }
        streams_end(ss, s, s->off);
    }
}

static int by_block(const void *pa, const void *pb)
{
    const struct ended *a = pa;
    const struct ended *b = pb;

    return a->block < b->block ? -1 : a->block > b->block;
}

size_t streams_tick(struct streams *ss, struct ended **ret)
{
    uint64_t now_ms = clock_mono_ms();
    struct stream *old[POOL_MAX];
    size_t old_count = 0;
    size_t count;

    pthread_mutex_lock(&ss->mu);
    for (size_t i = ss->pool_count; i > 0; i--) {
        const struct stream *s = ss->pool[i - 1];

        if (now_ms - s->idle_since_ms > IDLE_MS || conn_readable(s->conn)) {
            ended_locked(ss, s->session, s->block, s->off);
            old[old_count++] = pool_remove_locked(ss, i - 1);
        }
    }
    *ret = ss->ended;
    count = ss->ended_count;
    ss->ended = NULL;
    ss->ended_count = ss->ended_cap = 0;
    pthread_mutex_unlock(&ss->mu);
    while (old_count > 0) {
        stream_close(old[--old_count]);
    }
    if (count > 0) {
        qsort(*ret, count, sizeof(**ret), by_block);
    }
    return count;
}

static int release_some(struct streams *ss, const struct ended *e, size_t count, uint64_t session,
                        uint64_t deadline_ms)
{
    struct wire_out blocks;
    struct meta_call call;
    struct commit_req q = { 0 };
    struct slice rep;
    uint32_t n = 0;
    int err;

    wire_out_init(&blocks, LIMIT_MSG);
    for (size_t i = 0; i < count; i++) {
        struct commit_block b = { .block = e[i].block, .len = e[i].len, .seal = 1 };

        if (!e[i].held && e[i].session == session) { /* a lost session's are the masters' to end */
            commit_block_put(&blocks, &b);
            n++;
        }
    }
    err = n == 0 ? DFS_OK : meta_begin(ss->meta, META_BOUND, NULL, deadline_ms, &call);
    if (err == 0 && n != 0) {
        q.blocks = wire_out_list(&blocks, n);
        commit_req_put(call.out, &q);
        err = meta_run(&call, RPC_commit, &rep);
        meta_end(&call);
    }
    wire_out_fini(&blocks);
    return err;
}

void streams_release(struct streams *ss, struct ended *e, size_t count, uint64_t deadline_ms)
{
    uint64_t session = meta_session(ss->meta);

    for (size_t i = 0; i < count; i += RELEASE_MAX) {
        size_t n = MIN(count - i, (size_t)RELEASE_MAX);
        int err = release_some(ss, e + i, n, session, deadline_ms);
        bool again = err == DFS_ETIMEOUT || err == DFS_ECONN;

        if (err != 0 && !again) {
            log_event(LOG_WARN, "client.release", "block=%ju count=%zu err=%s",
                      (uintmax_t)e[i].block, n, err_name(err));
        }
        pthread_mutex_lock(&ss->mu);
        for (size_t k = i; k < i + n; k++) {
            if (again || e[k].held) {
                ended_locked(ss, e[k].session, e[k].block, e[k].len);
            }
        }
        pthread_mutex_unlock(&ss->mu);
    }
    free(e);
}

/* ---- opening ---- */

/* Labels of the volumes that a new block's copies are to land on. */
struct labels {
    uint32_t count;
    struct {
        uint32_t node;
        char label[LIMIT_LABEL + 1];
    } of[LIMIT_CHAIN];
};

static int take_labels(struct wire_list nodes, struct labels *ret)
{
    struct wire_in in = wire_in_of(nodes.items);
    int err = nodes.count > LIMIT_CHAIN ? DFS_EMALFORMED : 0;

    ret->count = 0;
    for (uint32_t i = 0; err == 0 && i < nodes.count; i++) {
        struct node_addr a;

        err = node_addr_get(&in, &a);
        if (err == 0 && a.label.len != 0) {
            ret->of[ret->count].node = a.node;
            snprintf(ret->of[ret->count++].label, LIMIT_LABEL + 1, "%.*s", (int)a.label.len,
                     (const char *)a.label.p);
        }
    }
    return err;
}

static struct slice label_of(const struct labels *l, uint32_t node)
{
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->of[i].node == node) {
            return slice_str(l->of[i].label);
        }
    }
    return SLICE_EMPTY;
}

/* A block and where it is to go. */
static int allocate(struct streams *ss, struct stream *s, uint8_t kind, struct wire_list avoid,
                    uint64_t deadline_ms, struct labels *ret_labels)
{
    struct block_alloc_req q = { .want = s->want,
                                 .kind = kind,
                                 .count = 1,
                                 .host = slice_str(ss->host),
                                 .avoid = avoid,
                                 .rule = s->rule };
    struct block_alloc_rep r;
    struct block_loc loc;
    struct meta_call call;
    struct slice rep;
    int err = meta_begin(ss->meta, META_COMMAND, NULL, deadline_ms, &call);

    if (err != 0) {
        return err;
    }
    block_alloc_req_put(call.out, &q);
    err = meta_run(&call, RPC_block_alloc, &rep);
    if (err == 0) {
        err = block_alloc_rep_get(rep, &r);
    }
    if (err == 0) {
        struct wire_in in = wire_in_of(r.blocks.items);

        err = r.blocks.count != 1 ? DFS_EMALFORMED : block_loc_get(&in, &loc);
    }
    if (err == 0) {
        s->block = loc.block;
        s->session = call.session;
        err = peers_learn(ss->peers, r.blocks);
        err = err != 0 ? err : take_labels(loc.nodes, ret_labels);
    }
    meta_end(&call);
    return err;
}

/* Not on servers that were bad lately, unless there are no others. */
static int allocate_well(struct streams *ss, struct stream *s, uint8_t kind, uint64_t deadline_ms,
                         struct labels *ret_labels)
{
    struct wire_out avoid;
    uint32_t count;
    int err;

    wire_out_init(&avoid, LIMIT_MSG);
    count = peers_bad(ss->peers, &avoid);
    err = allocate(ss, s, kind, wire_out_list(&avoid, count), deadline_ms, ret_labels);
    if (err == DFS_ENOSERVERS && count > 0) {
        err = allocate(ss, s, kind, wire_out_list(&avoid, 0), deadline_ms, ret_labels);
    }
    wire_out_fini(&avoid);
    return err;
}

uint32_t stream_blame(const struct stream *s)
{
    return s->hung != 0 ? s->hung : s->chain[0];
}

/* A wait for the chain lasts. */
static bool in_vain(void *arg)
{
    struct stream *s = arg;

    s->hung = peers_hung(s->peers, s->chain, s->chain_count);
    return s->hung != 0;
}

static int connect_first(struct stream *s, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t patience_ms = peers_greeting_ms(s->peers, s->chain[0], DOUBT_MS);
        uint64_t until_ms = MIN(deadline_ms, clock_mono_ms() + patience_ms);
        bool reused;
        int err = peers_connect(s->peers, s->chain[0], true, until_ms, &s->conn, &reused);

        if (err == 0) {
            conn_doubt(s->conn, DOUBT_MS, in_vain, s);
        }
        if (err != DFS_ETIMEOUT || until_ms == deadline_ms || in_vain(s)) {
            return err;
        }
    }
}

/* Asks the first server to open the block here and behind it. *ret_bad: who is to blame. */
static int open_chain(struct streams *ss, struct stream *s, const struct labels *labels,
                      uint64_t deadline_ms, uint32_t *ret_bad)
{
    struct block_write_open_req q = { .block = s->block };
    struct block_write_open_rep r = { 0 };
    struct peer_addr a;
    struct where where;
    struct wire_out chain;
    struct slice rep = SLICE_EMPTY;
    int err;

    if (!peers_where(ss->peers, s->block, &where)) {
        return DFS_ENOSERVERS;
    }
    memcpy(s->chain, where.node, sizeof(s->chain));
    s->chain_count = where.count;
    err = connect_first(s, deadline_ms);
    if (err != 0) {
        *ret_bad = stream_blame(s);
        return err;
    }
    wire_out_init(&chain, LIMIT_MSG);
    for (uint32_t i = 1; i < where.count; i++) {
        if (peers_addr(ss->peers, where.node[i], &a)) {
            node_addr_put(&chain, &(struct node_addr){ .node = a.node,
                                                       .state = a.state,
                                                       .addr = slice_str(a.addr),
                                                       .host = slice_str(a.host),
                                                       .label = label_of(labels, a.node) });
        }
    }
    q.node = s->chain[0];
    q.label = label_of(labels, s->chain[0]);
    q.chain = wire_out_list(&chain, where.count - 1);
    wire_out_reset(&s->out);
    block_write_open_req_put(&s->out, &q);
    err = s->out.err != 0 ? s->out.err
                          : conn_call(s->conn, RPC_block_write_open, wire_out_slice(&s->out), &rep,
                                      deadline_ms);
    *ret_bad = stream_blame(s);
    if (err != 0 && rep.p != NULL && block_write_open_rep_get(rep, &r) == 0 && r.bad_node != 0) {
        *ret_bad = r.bad_node;
    }
    wire_out_fini(&chain);
    return err;
}

int streams_open(struct streams *ss, uint8_t want, uint16_t rule, uint8_t kind,
                 uint64_t deadline_ms, struct stream **ret, uint64_t *ret_block, uint32_t *ret_bad)
{
    struct stream *s = x_alloc(sizeof(*s));
    struct labels labels = { 0 };
    int err;

    *ret_block = 0;
    *ret_bad = 0;
    wire_out_init(&s->out, LIMIT_MSG);
    s->peers = ss->peers;
    s->want = want;
    s->rule = rule;
    s->limit = meta_block_size(ss->meta);
    err = allocate_well(ss, s, kind, deadline_ms, &labels);
    if (err == 0) {
        *ret_block = s->block;
        err = open_chain(ss, s, &labels, MIN(deadline_ms, clock_mono_ms() + OPEN_MS), ret_bad);
    }
    if (err != 0) {
        if (*ret_bad != 0) {
            peers_mark_bad(ss->peers, *ret_bad);
            log_event(LOG_INFO, "client.chain", "block=%ju bad=%u err=%s", (uintmax_t)s->block,
                      *ret_bad, err_name(err));
        }
        stream_close(s);
        return err;
    }
    *ret_block = 0;
    *ret_bad = 0;
    *ret = s;
    return DFS_OK;
}

/* ---- packets ---- */

/* A sum for each chunk of the block that the bytes touch. Returns how many bytes of sums. */
static size_t sum_chunks(uint8_t *sums, uint32_t off, const uint8_t *data, uint32_t len)
{
    size_t n = 0;

    for (uint32_t done = 0; done < len; n += 4) {
        uint32_t part = MIN(len - done, CHUNK_BYTES - (off + done) % CHUNK_BYTES);
        uint32_t crc = crc32c(0, data + done, part);

        for (int i = 0; i < 4; i++) {
            sums[n + (size_t)i] = (uint8_t)(crc >> (8 * i));
        }
        done += part;
    }
    return n;
}

int stream_send(struct stream *s, const uint8_t *data, uint32_t len, uint8_t flags,
                uint64_t deadline_ms)
{
    uint8_t sums[SUMS_MAX * 4];
    struct block_packet_req q = { .block = s->block, .offset = s->off, .len = len, .flags = flags };
    struct frame f = { .type = RPC_block_packet, .req_id = ++s->last_req };
    struct iovec iov[2] = { { sums, sum_chunks(sums, s->off, data, len) },
                            { (void *)(uintptr_t)data, len } };
    int err = FAULT("client.packet.send");

    wire_out_reset(&s->out);
    block_packet_req_put(&s->out, &q);
    if (err == 0) {
        err = conn_send(s->conn, &f, wire_out_slice(&s->out), iov, len > 0 ? 2 : 0, deadline_ms);
    }
    if (err == 0) {
        s->off += len;
    }
    return err;
}

int stream_recv(struct stream *s, uint64_t deadline_ms, uint32_t *ret_end, uint32_t *ret_bad)
{
    struct block_packet_rep r = { 0 };
    struct frame f;
    struct slice msg;
    int err = FAULT("client.packet.ack");

    if (err == 0) {
        err = conn_recv(s->conn, &f, &msg, deadline_ms);
    }
    *ret_bad = stream_blame(s);
    if (err != 0) {
        return err;
    }
    if (f.type != RPC_block_packet || (f.flags & FRAME_REPLY) == 0 || f.data_len != 0) {
        return DFS_EMALFORMED;
    }
    err = block_packet_rep_get(msg, &r);
    if (f.status != 0) {
        *ret_bad = err == 0 && r.bad_node != 0 ? r.bad_node : *ret_bad;
        return (int)f.status;
    }
    if (err == 0) {
        *ret_end = r.offset;
    }
    return err;
}
