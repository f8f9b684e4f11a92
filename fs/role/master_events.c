/* What sessions hear of.
 *
 * Who asks for a name, attributes or a listing may remember the answer, and is a watcher of that inode
 * from then on; so is who changed it. Applying a batch gathers what it changed; after its answers are
 * out, watchers and those who have it open are told. Requests for events are held and answered on
 * the query loops' threads.
 */
#include <sys/stat.h>

#include "cluster/base/clock.h"

#include "fs/role/master_int.h"

#define WATCHERS_MAX 64 /* of one inode, that are told */

int master_events_poll(struct master *m, struct rpc_loop *loop, struct rpc_token token,
                       const struct call_hdr *hdr, struct slice msg, struct wire_out *rep,
                       bool *ret_held)
{
    uint64_t now = clock_mono_ms();
    struct session_poll_req req;
    int err = session_poll_req_get(msg, &req);

    if (err != DFS_OK) {
        return err;
    }
    /* Together: a session that ends takes its queue with it. */
    pthread_mutex_lock(&m->sessions_mu);
    err = sessions_ping(&m->sessions, hdr->session, now)
              ? events_poll(&m->events, hdr->session, &req, loop, token, now, rep, ret_held)
              : DFS_ESESSION;
    pthread_mutex_unlock(&m->sessions_mu);
    return err;
}

void master_events_on_woken(void *arg, struct rpc_loop *loop)
{
    struct master *m = arg;
    struct wire_out *rep = &m->queries[rpc_loop_index(loop)].rep;
    struct rpc_token token;
    int status;

    wire_out_reset(rep);
    while (events_answer(&m->events, loop, &token, &status, rep)) {
        status = status != DFS_OK ? status : rep->err;
        rpc_reply(loop, token, status, status == DFS_OK ? wire_out_slice(rep) : SLICE_EMPTY);
        wire_out_reset(rep);
    }
}

/* ---- watching ---- */

#define CASE(name, field)                                           \
    case RPC_##name: {                                              \
        struct name##_req req;                                      \
                                                                    \
        return name##_req_get(msg, &req) == DFS_OK ? req.field : 0; \
    }

/* The inode that a question is about; 0: none that anybody would remember. */
static uint64_t asked(uint16_t type, struct slice msg)
{
    switch (type) {
        CASE(lookup, parent) /* the directory, also for a name that is not there */
        CASE(getattr, ino)
        CASE(readdir, ino)
        CASE(getxattr, ino)
        CASE(listxattr, ino)
        CASE(open, ino)
    default:
        return 0;
    }
}

#undef CASE

void master_events_watch(struct master *m, uint64_t session, uint16_t type, struct slice msg)
{
    uint64_t ino = events_wanted(&m->events) ? asked(type, msg) : 0;

    if (ino != 0) {
        watches_add(m->watches, session, ino);
    }
}

void master_events_watch_found(struct master *m, uint64_t session, struct slice lookup_rep)
{
    struct lookup_rep r;
    struct wire_in in;
    struct attr a;

    if (events_wanted(&m->events) && lookup_rep_get(lookup_rep, &r) == DFS_OK) {
        in = wire_in_of(r.attr);
        if (attr_get(&in, &a) == DFS_OK) {
            watches_add(m->watches, session, a.ino);
        }
    }
}

/* ---- telling ---- */

static struct news *add_news(struct core *c)
{
    if (c->news_count == c->news_cap) {
        c->news_cap = MAX(c->news_cap * 2, 64);
        c->news = x_realloc(c->news, c->news_cap * sizeof(*c->news));
    }
    return &c->news[c->news_count++];
}

void master_events_on_inode(void *arg, uint64_t session, const struct attr *a)
{
    struct master *m = arg;

    if (events_wanted(&m->events)) {
        *add_news(&m->core) = (struct news){ .kind = EVENT_INODE,
                                             .session = session,
                                             .ino = a->ino,
                                             .arg = S_ISREG(a->mode) ? a->data_version : 0 };
    }
}

void master_events_on_entry(void *arg, uint64_t session, uint64_t parent, struct slice name)
{
    struct master *m = arg;
    struct core *c = &m->core;

    if (events_wanted(&m->events)) {
        *add_news(c) = (struct news){ .kind = EVENT_ENTRY,
                                      .session = session,
                                      .ino = parent,
                                      .name_at = (uint32_t)c->names.len,
                                      .name_len = (uint32_t)name.len };
        wire_put_raw(&c->names, name.p, name.len);
    }
}

struct telling {
    struct events *events;
    struct event ev;
    uint64_t except;
};

static void tell_opener(void *arg, uint64_t session)
{
    struct telling *t = arg;

    if (session != t->except) {
        events_post(t->events, session, &t->ev);
    }
}

struct sharing {
    struct telling telling;
    bool fresh;
    bool others;
};

static void tell_shared(void *arg, uint64_t session)
{
    struct sharing *s = arg;

    s->others = s->others || session != s->telling.except;
    if (s->fresh) {
        tell_opener(&s->telling, session);
    }
}

void master_events_opened_locked(struct master *m, uint64_t session, uint64_t ino, bool fresh)
{
    struct sharing s = { .telling = { .events = &m->events,
                                      .ev = { .kind = EVENT_SHARED, .ino = ino },
                                      .except = session },
                         .fresh = fresh };

    if (!events_wanted(&m->events)) {
        return;
    }
    sessions_each_open(&m->sessions, ino, tell_shared, &s);
    if (s.others) {
        events_post(&m->events, session, &s.telling.ev);
    }
}

static void tell(struct master *m, const struct news *n)
{
    uint64_t who[WATCHERS_MAX];
    struct telling t = { .events = &m->events, .except = n->session };
    size_t count = watches_tell(m->watches, n->ino, n->session, who, WATCHERS_MAX);

    t.ev = (struct event){ .kind = n->kind, .ino = n->ino, .arg = n->arg };
    if (n->name_len != 0) {
        t.ev.name = slice_of(m->core.names.p + n->name_at, n->name_len);
    }
    for (size_t i = 0; i < count; i++) {
        events_post(&m->events, who[i], &t.ev);
    }
    if (n->kind == EVENT_INODE && n->arg != 0) {
        sessions_each_open(&m->sessions, n->ino, tell_opener, &t);
    }
    if (n->session != 0) { /* the answer told it how things are now */
        watches_add(m->watches, n->session, n->ino);
    }
}

void master_events_tell(struct master *m)
{
    struct core *c = &m->core;

    if (c->news_count == 0) {
        return;
    }
    pthread_mutex_lock(&m->sessions_mu);
    for (size_t i = 0; i < c->news_count && c->names.err == 0; i++) {
        tell(m, &c->news[i]);
    }
    pthread_mutex_unlock(&m->sessions_mu);
    c->news_count = 0;
    wire_out_reset(&c->names);
}
