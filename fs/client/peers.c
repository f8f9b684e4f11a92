#include "fs/client/peers.h"

#include "cluster/base/base.h"

#include <pthread.h>

#include "cluster/base/clock.h"
#include "cluster/base/htab.h"
#include "cluster/base/log.h"
#include "cluster/net/sock_local.h"

#define IDLE_MAX   8
#define BAD_MS     5000
#define BAD_MAX_MS 40000 /* marked again soon after it had been: twice as long each time */
#define CONNECT_MS 2000
#define KNOWN_MS   50 /* for the greeting of a server that was found hanging */
#define OTHERS     2  /* that are asked when no server of a chain greets */

struct peer {
    struct hnode by_node;
    uint32_t node;
    uint8_t state; /* enum member_state, as the master said last */
    bool local;
    bool far; /* not reached by a unix socket */
    char *addr;
    char *host;
    uint64_t bad_until_ms;
    uint64_t bad_ms; /* for how long it was marked bad last */
    bool hangs;      /* while it is bad: it did not greet */
    struct conn *idle[IDLE_MAX];
    int idle_count;
};

struct loc {
    struct hnode by_block;
    struct list lru; /* oldest first */
    struct where where;
};

struct peers {
    char *host;
    struct slice cluster;
    pthread_mutex_t mu; /* guards all below */
    struct htab peers;
    struct htab locs;
    struct list lru;
    size_t locs_max;
    uint32_t max_node;
};

struct peers *peers_new(const char *host, struct slice cluster, size_t locs_max)
{
    struct peers *p = x_alloc(sizeof(*p));

    p->host = x_strdup(host);
    p->cluster = cluster;
    p->locs_max = locs_max;
    pthread_mutex_init(&p->mu, NULL);
    htab_init(&p->peers);
    htab_init(&p->locs);
    list_init(&p->lru);
    return p;
}

static void drop_idle(struct peer *x)
{
    while (x->idle_count > 0) {
        conn_close(x->idle[--x->idle_count]);
    }
}

void peers_free(struct peers *p)
{
    struct hnode *n;

    if (p == NULL) {
        return;
    }
    while ((n = htab_pop(&p->peers)) != NULL) {
        struct peer *x = CONTAINER_OF(n, struct peer, by_node);

        drop_idle(x);
        free(x->addr);
        free(x->host);
        free(x);
    }
    while ((n = htab_pop(&p->locs)) != NULL) {
        free(CONTAINER_OF(n, struct loc, by_block));
    }
    htab_fini(&p->peers);
    htab_fini(&p->locs);
    pthread_mutex_destroy(&p->mu);
    free(p->host);
    free(p);
}

static struct peer *find_peer(const struct peers *p, uint32_t node)
{
    struct hnode *n = htab_find(&p->peers, htab_mix(node));

    while (n != NULL && CONTAINER_OF(n, struct peer, by_node)->node != node) {
        n = htab_next(n);
    }
    return n != NULL ? CONTAINER_OF(n, struct peer, by_node) : NULL;
}

static struct loc *find_loc(const struct peers *p, uint64_t block)
{
    struct hnode *n = htab_find(&p->locs, htab_mix(block));

    while (n != NULL && CONTAINER_OF(n, struct loc, by_block)->where.block != block) {
        n = htab_next(n);
    }
    return n != NULL ? CONTAINER_OF(n, struct loc, by_block) : NULL;
}

static void set_text(char **to, struct slice s)
{
    if (*to == NULL || !slice_eq(slice_str(*to), s)) {
        free(*to);
        *to = x_strndup((const char *)s.p, s.len);
    }
}

static void learn_peer(struct peers *p, const struct node_addr *a)
{
    struct peer *x = find_peer(p, a->node);

    if (x == NULL) {
        x = x_alloc(sizeof(*x));
        x->node = a->node;
        htab_add(&p->peers, &x->by_node, htab_mix(a->node));
        p->max_node = MAX(p->max_node, a->node);
    }
    x->state = a->state;
    if (x->addr == NULL || !slice_eq(slice_str(x->addr), a->addr)) {
        drop_idle(x); /* it moved */
        x->far = false;
        set_text(&x->addr, a->addr);
    }
    set_text(&x->host, a->host);
    x->local = strcmp(x->host, p->host) == 0;
}

static struct loc *make_loc(struct peers *p, uint64_t block)
{
    struct loc *l = find_loc(p, block);

    if (l == NULL && p->locs.count >= p->locs_max) {
        l = CONTAINER_OF(list_first(&p->lru), struct loc, lru);
        htab_remove(&p->locs, &l->by_block);
        htab_add(&p->locs, &l->by_block, htab_mix(block));
    } else if (l == NULL) {
        l = x_alloc(sizeof(*l));
        list_init(&l->lru);
        htab_add(&p->locs, &l->by_block, htab_mix(block));
    }
    list_remove(&l->lru);
    list_push_back(&p->lru, &l->lru);
    l->where = (struct where){ .block = block };
    return l;
}

int peers_learn(struct peers *p, struct wire_list blocks)
{
    struct wire_in in = wire_in_of(blocks.items);

    pthread_mutex_lock(&p->mu);
    for (uint32_t i = 0; i < blocks.count && in.err == 0; i++) {
        struct block_loc b;

        if (block_loc_get(&in, &b) != 0) {
            break;
        }
        struct wire_in nodes = wire_in_of(b.nodes.items);
        struct loc *l = make_loc(p, b.block);

        for (uint32_t k = 0; k < b.nodes.count && k < LIMIT_REPLICATION; k++) {
            struct node_addr a;

            if (node_addr_get(&nodes, &a) != 0 || a.addr.len >= ADDR_TEXT || a.host.len > 255) {
                in.err = DFS_EMALFORMED;
                break;
            }
            learn_peer(p, &a);
            l->where.node[l->where.count++] = a.node;
        }
    }
    pthread_mutex_unlock(&p->mu);
    return in.err;
}

static int cost(const struct peers *p, uint32_t node, uint64_t now_ms)
{
    const struct peer *x = find_peer(p, node);

    if (x == NULL) {
        return 1000;
    }
    return (x->bad_until_ms > now_ms ? 100 : 0) +
           (x->state == MEMBER_LIVE      ? 0
            : x->state == MEMBER_SUSPECT ? 20
                                         : 200) +
           (x->local ? 0 : 1);
}

bool peers_where(struct peers *p, uint64_t block, struct where *ret)
{
    uint64_t now_ms = clock_mono_ms();
    struct loc *l;

    pthread_mutex_lock(&p->mu);
    l = find_loc(p, block);
    if (l != NULL && l->where.count == 0) {
        l = NULL;
    }
    if (l != NULL) {
        list_remove(&l->lru);
        list_push_back(&p->lru, &l->lru);
        *ret = l->where;
        for (uint32_t i = 1; i < ret->count; i++) { /* stable: the master's order counts */
            for (uint32_t k = i;
                 k > 0 && cost(p, ret->node[k], now_ms) < cost(p, ret->node[k - 1], now_ms); k--) {
                uint32_t swap = ret->node[k];

                ret->node[k] = ret->node[k - 1];
                ret->node[k - 1] = swap;
            }
        }
    }
    pthread_mutex_unlock(&p->mu);
    return l != NULL;
}

void peers_forget(struct peers *p, uint64_t block, uint32_t node)
{
    struct loc *l;

    pthread_mutex_lock(&p->mu);
    l = find_loc(p, block);
    if (l != NULL && node == 0) {
        l->where.count = 0;
    }
    for (uint32_t i = 0; l != NULL && i < l->where.count; i++) {
        if (l->where.node[i] == node) {
            l->where.count--;
            memmove(&l->where.node[i], &l->where.node[i + 1],
                    (l->where.count - i) * sizeof(l->where.node[0]));
        }
    }
    pthread_mutex_unlock(&p->mu);
}

static void mark_bad_locked(struct peer *x)
{
    uint64_t now_ms = clock_mono_ms();

    if (now_ms >= x->bad_until_ms) {
        bool again = x->bad_ms != 0 && now_ms - x->bad_until_ms < x->bad_ms;

        x->bad_ms = again ? MIN(x->bad_ms * 2, (uint64_t)BAD_MAX_MS) : BAD_MS;
        x->hangs = false;
    }
    x->bad_until_ms = now_ms + x->bad_ms;
    drop_idle(x);
}

void peers_mark_bad(struct peers *p, uint32_t node)
{
    struct peer *x;

    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    if (x != NULL) {
        mark_bad_locked(x);
    }
    pthread_mutex_unlock(&p->mu);
}

uint32_t peers_bad(struct peers *p, struct wire_out *out)
{
    uint64_t now_ms = clock_mono_ms();
    uint32_t count = 0;

    pthread_mutex_lock(&p->mu);
    HTAB_FOREACH (n, &p->peers) {
        const struct peer *x = CONTAINER_OF(n, struct peer, by_node);

        if (x->bad_until_ms > now_ms) {
            node_ref_put(out, &(struct node_ref){ .node = x->node });
            count++;
        }
    }
    pthread_mutex_unlock(&p->mu);
    return count;
}

bool peers_addr(struct peers *p, uint32_t node, struct peer_addr *ret)
{
    const struct peer *x;

    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    if (x != NULL) {
        ret->node = node;
        ret->state = x->state;
        memcpy(ret->addr, x->addr, strlen(x->addr) + 1);
        memcpy(ret->host, x->host, strlen(x->host) + 1);
    }
    pthread_mutex_unlock(&p->mu);
    return x != NULL;
}

int peers_connect(struct peers *p, uint32_t node, bool fresh, uint64_t deadline_ms,
                  struct conn **ret, bool *ret_reused)
{
    char addr[ADDR_TEXT];
    struct conn *c = NULL;
    struct peer *x;
    int err = DFS_OK;

    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    if (x == NULL) {
        err = DFS_ENOENT;
    } else {
        if (!fresh && x->idle_count > 0) {
            c = x->idle[--x->idle_count];
        }
        memcpy(addr, x->addr, strlen(x->addr) + 1);
    }
    pthread_mutex_unlock(&p->mu);
    *ret_reused = c != NULL;
    if (err == 0 && c == NULL) {
        err = conn_open_hello(addr, HELLO_BLOCK, p->cluster,
                              MIN(deadline_ms, clock_mono_ms() + CONNECT_MS), &c, NULL, NULL);
    }
    if (err == 0) {
        *ret = c;
    }
    if (err == 0 && !*ret_reused && !sock_is_local(conn_fd(c))) {
        peers_far(p, node);
    }
    return err;
}

bool peers_may_be_near(struct peers *p, uint32_t node)
{
    const struct peer *x;
    bool near;

    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    near = x != NULL && !x->far;
    pthread_mutex_unlock(&p->mu);
    return near;
}

void peers_far(struct peers *p, uint32_t node)
{
    struct peer *x;

    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    if (x != NULL) {
        x->far = true;
    }
    pthread_mutex_unlock(&p->mu);
}

void peers_release(struct peers *p, uint32_t node, struct conn *c)
{
    struct peer *x;

    if (c == NULL) {
        return;
    }
    if (conn_broken(c)) {
        conn_close(c);
        return;
    }
    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    if (x != NULL && x->idle_count < IDLE_MAX) {
        x->idle[x->idle_count++] = c;
        c = NULL;
    }
    pthread_mutex_unlock(&p->mu);
    conn_close(c);
}

/* ---- servers that hang ---- */

bool peers_known_hung(struct peers *p, const uint32_t *node, uint32_t count)
{
    uint64_t now_ms = clock_mono_ms();
    bool hangs = false;

    pthread_mutex_lock(&p->mu);
    for (uint32_t i = 0; i < count; i++) {
        const struct peer *x = find_peer(p, node[i]);

        hangs = hangs || (x != NULL && x->hangs && now_ms < x->bad_until_ms);
    }
    pthread_mutex_unlock(&p->mu);
    return hangs;
}

uint64_t peers_greeting_ms(struct peers *p, uint32_t node, uint64_t usual_ms)
{
    return peers_known_hung(p, &node, 1) ? MIN(usual_ms, (uint64_t)KNOWN_MS) : usual_ms;
}

/* A hello on a connection of its own. DFS_ETIMEOUT: there was none; any other error is somebody's. */
static int ping(struct peers *p, uint32_t node)
{
    uint64_t patience_ms = peers_greeting_ms(p, node, PEERS_PING_MS);
    struct conn *conn = NULL;
    bool reused;
    int err = peers_connect(p, node, true, clock_mono_ms() + patience_ms, &conn, &reused);

    conn_close(conn);
    return err;
}

static uint32_t others(struct peers *p, const uint32_t *node, uint32_t count, uint32_t *ret)
{
    uint64_t now_ms = clock_mono_ms();
    uint32_t found = 0;

    pthread_mutex_lock(&p->mu);
    HTAB_FOREACH (n, &p->peers) {
        const struct peer *x = CONTAINER_OF(n, struct peer, by_node);
        bool asked = x->state != MEMBER_LIVE || x->bad_until_ms > now_ms;

        for (uint32_t i = 0; i < count; i++) {
            asked = asked || node[i] == x->node;
        }
        if (!asked && found < OTHERS) {
            ret[found++] = x->node;
        }
    }
    pthread_mutex_unlock(&p->mu);
    return found;
}

static void mark_hung(struct peers *p, uint32_t node)
{
    struct peer *x;

    pthread_mutex_lock(&p->mu);
    x = find_peer(p, node);
    if (x != NULL) {
        mark_bad_locked(x);
        x->hangs = true;
    }
    pthread_mutex_unlock(&p->mu);
    log_event(LOG_INFO, "client.hung", "node=%u", node);
}

uint32_t peers_hung(struct peers *p, const uint32_t *node, uint32_t count)
{
    uint32_t hung[LIMIT_REPLICATION];
    uint32_t other[OTHERS];
    uint32_t hung_count = 0;
    uint32_t other_count;
    bool heard = false;

    ASSERT(count <= LIMIT_REPLICATION);
    for (uint32_t i = 0; i < count; i++) {
        int err = ping(p, node[i]);

        if (err == DFS_EINTR) {
            return 0;
        }
        heard = heard || err == 0;
        if (err == DFS_ETIMEOUT) {
            hung[hung_count++] = node[i];
        }
    }
    /* Nobody greets: is it this machine's network, or its processors? */
    other_count = hung_count > 0 && !heard ? others(p, node, count, other) : 0;
    for (uint32_t i = 0; i < other_count && !heard; i++) {
        heard = ping(p, other[i]) == 0;
    }
    if (!heard) {
        return 0;
    }
    for (uint32_t i = 0; i < hung_count; i++) {
        mark_hung(p, hung[i]);
    }
    return hung_count > 0 ? hung[0] : 0;
}
