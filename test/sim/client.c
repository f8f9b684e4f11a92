/* A client: one operation after the other in a directory of its own, through the real writing session.
 * Every command is repeated under its number until it is answered, so the client always knows what
 * the namespace must look like; files whose state a crash left open are not looked at again. */
#include <sys/stat.h>

#include "test/sim/client_int.h"

void client_step_later(void *arg, uint64_t unused)
{
    (void)unused;
    client_step(arg);
}

/* ---- calls to the master ---- */

static void call_again(void *arg, uint64_t id)
{
    struct sim_client *c = arg;

    if (!c->call_open || c->call_id != id) {
        return;
    }
    sim_send(&c->cl->sim, &(struct sim_msg){ .from = client_node(c->index),
                                             .to = SIM_MASTER,
                                             .type = c->call_type,
                                             .id = id,
                                             .body = wire_out_slice(&c->call_body) });
    sim_after(&c->cl->sim, client_node(c->index), CALL_MS * SIM_MS, call_again, c, id);
}

void client_call(struct sim_client *c, uint16_t type, const struct wire_out *msg)
{
    struct call_hdr hdr = { .session = c->session, .slot = 0, .seq = ++c->seq };
    struct wire_out h;

    ASSERT(!c->call_open && msg->err == 0);
    wire_out_init(&h, LIMIT_MSG);
    call_hdr_put(&h, &hdr);
    wire_out_reset(&c->call_body);
    wire_put_bytes(&c->call_body, wire_out_slice(&h));
    wire_put_bytes(&c->call_body, wire_out_slice(msg));
    wire_out_fini(&h);
    c->call_type = type;
    c->call_id = ++c->next_id;
    c->call_open = true;
    call_again(c, c->call_id);
}

/* ---- checking ---- */

/* The file's extents, from any answer that has them, against the model and against every replica
 * that a reader may choose. With `must`, some replica has to have the bytes. */
static void check_file(struct sim_client *c, const struct model *f, const struct attr *a,
                       struct wire_list extents, struct wire_list blocks, bool must)
{
    struct sim *s = &c->cl->sim;
    uint8_t *got = x_alloc(FILE_MAX);
    struct wire_in in = wire_in_of(extents.items);

    if (a->size != f->size) {
        sim_fail(s, "client %d: %s is %ju bytes, not %u", c->index, f->name, (uintmax_t)a->size,
                 f->size);
    }
    for (uint32_t i = 0; i < extents.count; i++) {
        struct wire_in bin = wire_in_of(blocks.items);
        struct block_loc b = { 0 };
        struct extent e;
        bool found = false;

        if (extent_get(&in, &e) != 0) {
            sim_fail(s, "undecodable extent");
        }
        for (uint32_t k = 0; k < blocks.count && b.block != e.block; k++) {
            (void)block_loc_get(&bin, &b);
        }
        if (b.block != e.block) {
            sim_fail(s, "client %d: %s names block %ju, which is not located", c->index, f->name,
                     (uintmax_t)e.block);
        }
        bin = wire_in_of(b.nodes.items);
        for (uint32_t k = 0; k < b.nodes.count; k++) {
            struct node_addr n;
            struct sim_replica *r;

            (void)node_addr_get(&bin, &n);
            r = server_find(&c->cl->servers[n.node], e.block);
            if (!s->nodes[server_node(n.node)].up || r == NULL ||
                r->rule.len < e.block_off + e.len) {
                continue;
            }
            found = true;
            if (memcmp(r->bytes + e.block_off, f->bytes + e.off, MIN(e.len, f->size - e.off)) !=
                0) {
                sim_fail(s, "client %d: wrong bytes in %s at %ju: block %ju at %u on server %u",
                         c->index, f->name, (uintmax_t)e.off, (uintmax_t)e.block, e.block_off,
                         n.node);
            }
            memcpy(got + e.off, r->bytes + e.block_off, e.len);
        }
        if (!found) {
            if (must) {
                sim_fail(s, "client %d: no copy of block %ju of %s holds %u+%ju", c->index,
                         (uintmax_t)e.block, f->name, e.block_off, (uintmax_t)e.len);
            }
            free(got);
            return;
        }
    }
    if (memcmp(got, f->bytes, f->size) != 0) {
        sim_fail(s, "client %d: %s has a hole where bytes were written", c->index, f->name);
    }
    free(got);
}

static void verify_one(struct sim_client *c, const struct model *f, struct ns_reader *rd)
{
    struct call_hdr hdr = { .session = c->session };
    struct open_rep rep;
    struct attr a;
    struct wire_out req, out;
    struct wire_in in;
    int err;

    wire_out_init(&req, LIMIT_MSG);
    wire_out_init(&out, LIMIT_MSG);
    open_req_put(&req, &(struct open_req){ .ino = f->ino, .max_extents = 4096 });
    err = ns_query(rd, &hdr, RPC_open, wire_out_slice(&req), NULL, NULL, &out);
    if (err != 0 || open_rep_get(wire_out_slice(&out), &rep) != 0) {
        sim_fail(&c->cl->sim, "client %d: %s: %s", c->index, f->name, err_text(err));
    }
    in = wire_in_of(rep.attr);
    (void)attr_get(&in, &a);
    check_file(c, f, &a, rep.extents, rep.blocks, true);
    wire_out_fini(&req);
    wire_out_fini(&out);
}

void client_verify(struct sim_client *c)
{
    struct ns_reader *rd = ns_reader_new(master_ns(c->cl->master));

    for (size_t i = 0; i < FILES; i++) {
        if (c->files[i].exists) {
            verify_one(c, &c->files[i], rd);
        }
    }
    for (size_t i = 0; i < c->old_count; i++) {
        verify_one(c, &c->old[i], rd);
    }
    ns_reader_free(rd);
}

/* ---- operations ---- */

static size_t some_file(struct sim_client *c)
{
    size_t i = sim_below(&c->cl->sim, FILES);

    for (size_t k = 0; k < FILES; k++) {
        if (c->files[(i + k) % FILES].exists) {
            return (i + k) % FILES;
        }
    }
    return FILES;
}

static void start_make(struct sim_client *c, size_t i)
{
    struct model *f = &c->files[i];

    c->file = i;
    c->stage = ST_MAKE;
    snprintf(f->name, sizeof(f->name), "f%ju", (uintmax_t)++c->made);
    CALL(c, make, .parent = c->dir, .name = slice_str(f->name), .mode = S_IFREG | 0644,
         .flags = MAKE_EXCL);
}

/* Makes the name, which others may have made, or removes what it has made. */
static void call_mutex(struct sim_client *c, bool lock)
{
    char name[32];

    snprintf(name, sizeof(name), "mutex-%d", c->cl->mutex.number);
    c->stage = lock ? ST_LOCK : ST_UNLOCK;
    c->call_mutex = c->cl->mutex.number;
    if (lock) {
        CALL(c, make, .parent = INODE_ROOT, .name = slice_str(name), .mode = S_IFREG | 0644,
             .flags = MAKE_EXCL);
    } else {
        c->cl->mutex.holder = -1; /* from now on others may make it */
        CALL(c, unlink, .parent = INODE_ROOT, .name = slice_str(name));
    }
}

static void start_op(struct sim_client *c)
{
    struct sim *s = &c->cl->sim;
    size_t i = some_file(c), kind = sim_below(s, 100);
    struct model *f;

    if (c->cl->mutex.holder == c->index) {
        call_mutex(c, false);
        return;
    }
    if (c->quiesce) {
        c->stage = ST_QUIET;
        return;
    }
    c->ops++;
    if (sim_chance(s, 0.15)) {
        call_mutex(c, true);
        return;
    }
    if (i == FILES || (kind < 15 && !c->files[sim_below(s, FILES)].exists)) {
        for (i = 0; c->files[i].exists; i = (i + 1) % FILES) {
        }
        start_make(c, i);
        return;
    }
    c->file = i;
    f = &c->files[i];
    if (kind < 60) {
        client_plan_write(c);
    } else if (kind < 75) {
        c->stage = ST_READ;
        CALL(c, open, .ino = f->ino, .max_extents = 4096);
    } else if (kind < 82) {
        c->stage = ST_TRUNCATE;
        c->size = (uint32_t)sim_below(s, MIN(f->size + 5000, FILE_MAX));
        CALL(c, setattr, .ino = f->ino, .valid = SET_SIZE, .size = c->size);
    } else if (kind < 88) {
        c->stage = ST_UNLINK;
        CALL(c, unlink, .parent = c->dir, .name = slice_str(f->name));
    } else if (kind < 94) {
        c->stage = ST_RENAME;
        c->other = some_file(c); /* over it when it is another one, else to a new name */
        if (c->other == i) {
            char name[32];

            snprintf(name, sizeof(name), "r%ju", (uintmax_t)++c->made);
            CALL(c, rename, .parent = c->dir, .name = slice_str(f->name), .new_parent = c->dir,
                 .new_name = slice_str(name));
        } else {
            CALL(c, rename, .parent = c->dir, .name = slice_str(f->name), .new_parent = c->dir,
                 .new_name = slice_str(c->files[c->other].name));
        }
    } else if (kind < 96) {
        c->stage = ST_QUOTA; /* limits that are never reached: what is charged must be right */
        CALL(c, quota_set, .ino = sim_below(s, 2) == 0 ? c->dir : INODE_ROOT,
             .valid = QUOTA_BYTES | QUOTA_INODES, .bytes = UINT64_C(1) << 40, .inodes = 1 << 20);
    } else {
        c->stage = ST_SETREP;
        c->repl = (uint8_t)(1 + sim_below(s, 3));
        if (c->repl == 1) {
            c->repl = 2; /* one copy and a power cut: nothing could be promised */
        }
        CALL(c, setrep, .ino = f->ino, .repl = c->repl);
    }
}

void client_step(struct sim_client *c)
{
    if (c->stage == ST_SESSION) {
        c->session = 0;
        CALL(c, session_open, .host = slice_str("sim"), .name = slice_str("sim"));
    } else if (c->stage == ST_DIR) {
        char name[32];

        snprintf(name, sizeof(name), "c%d-%d", c->index, c->generation);
        CALL(c, make, .parent = INODE_ROOT, .name = slice_str(name), .mode = S_IFDIR | 0755,
             .flags = MAKE_EXCL);
    } else if (c->stage == ST_IDLE) {
        start_op(c);
    }
}

static void later(struct sim_client *c, uint64_t ms)
{
    sim_after(&c->cl->sim, client_node(c->index), ms * SIM_MS, client_step_later, c, 0);
}

static void on_reply_write(struct sim_client *c, const struct sim_msg *m)
{
    if (m->status == DFS_ESESSION) { /* everything again, in a new session and new blocks */
        wcore_fini(&c->w);
        c->w_live = false;
        c->stage = ST_SESSION;
        client_step(c);
        return;
    }
    if (m->type == RPC_block_alloc) {
        client_on_alloc(c, m->status, m->body);
        return;
    }
    ASSERT(m->type == RPC_block_seal);
    if (m->status != 0) {
        sim_fail(&c->cl->sim, "client %d: sealing block %ju at %u: %s", c->index,
                 (uintmax_t)c->act.block, c->act.len, err_text(m->status));
    }
    if (c->act.what == WCORE_SEAL) {
        wcore_sealed(&c->w, c->act.block);
    }
    client_drive(c);
}

/* Made by one at a time, and by him only who was told so. */
static void on_mutex(struct sim_client *c, const struct sim_msg *m)
{
    struct sim_mutex *x = &c->cl->mutex;
    struct sim *s = &c->cl->sim;
    bool lock = c->stage == ST_LOCK;

    if (lock ? m->status != 0 && m->status != DFS_EEXIST : m->status != 0) {
        sim_fail(s, "client %d: %s of the common name: %s", c->index, lock ? "make" : "unlink",
                 err_text(m->status));
    }
    if (lock && m->status == 0 && c->call_mutex == x->number) {
        if (x->holder >= 0) {
            sim_fail(s, "client %d made the name that client %d has made", c->index, x->holder);
        }
        x->holder = c->index;
    }
    c->stage = ST_IDLE;
    later(c, sim_below(s, 50));
}

/* Whoever dies at it leaves it in a state that nobody knows: the others go on with another name. */
static void leave_mutex(struct sim_client *c)
{
    struct sim_mutex *x = &c->cl->mutex;

    if (x->holder == c->index || c->stage == ST_LOCK || c->stage == ST_UNLOCK) {
        x->number++;
        x->holder = -1;
    }
}

void client_verify_mutex(struct cluster *cl)
{
    struct ns_reader *rd = ns_reader_new(master_ns(cl->master));
    struct call_hdr hdr = { 0 };
    struct wire_out req, out;
    char name[32];
    int err;

    wire_out_init(&req, 256);
    wire_out_init(&out, LIMIT_MSG);
    snprintf(name, sizeof(name), "mutex-%d", cl->mutex.number);
    lookup_req_put(&req, &(struct lookup_req){ .parent = INODE_ROOT, .name = slice_str(name) });
    err = ns_query(rd, &hdr, RPC_lookup, wire_out_slice(&req), NULL, NULL, &out);
    if (err != (cl->mutex.holder < 0 ? DFS_ENOENT : 0)) {
        sim_fail(&cl->sim, "%s: %s, though client %d has it", name, err_text(err),
                 cl->mutex.holder);
    }
    wire_out_fini(&req);
    wire_out_fini(&out);
    ns_reader_free(rd);
}

static void finish_op(struct sim_client *c, const struct sim_msg *m)
{
    struct model *f = &c->files[c->file];
    struct sim *s = &c->cl->sim;

    if (m->status != 0) {
        sim_fail(s, "client %d: stage %d on %s: %s", c->index, (int)c->stage, f->name,
                 err_text(m->status));
    }
    if (c->stage == ST_TRUNCATE) {
        if (c->size > f->size) {
            memset(f->bytes + f->size, 0, c->size - f->size);
        }
        f->size = c->size;
    } else if (c->stage == ST_UNLINK) {
        f->exists = false;
    } else if (c->stage == ST_RENAME && c->other == c->file) {
        snprintf(f->name, sizeof(f->name), "r%ju", (uintmax_t)c->made);
    } else if (c->stage == ST_RENAME) {
        struct model *o = &c->files[c->other];

        memcpy(f->name, o->name, sizeof(f->name));
        o->exists = false;
    } else if (c->stage == ST_SETREP) {
        f->repl = c->repl;
    } else if (c->stage == ST_READ) {
        struct open_rep rep;
        struct attr a;
        struct wire_in in;

        if (open_rep_get(m->body, &rep) != 0) {
            sim_fail(s, "undecodable answer to open");
        }
        in = wire_in_of(rep.attr);
        (void)attr_get(&in, &a);
        check_file(c, f, &a, rep.extents, rep.blocks, false);
    }
    c->stage = ST_IDLE;
    later(c, sim_below(s, 50));
}

static void on_made(struct sim_client *c, const struct sim_msg *m)
{
    struct make_rep rep;
    struct attr a;
    struct wire_in in;

    if (m->status != 0 || make_rep_get(m->body, &rep) != 0) {
        sim_fail(&c->cl->sim, "client %d: make: %s", c->index, err_text(m->status));
    }
    in = wire_in_of(rep.attr);
    (void)attr_get(&in, &a);
    if (c->stage == ST_DIR) {
        c->dir = a.ino;
    } else {
        struct model *f = &c->files[c->file];

        f->exists = true;
        f->ino = a.ino;
        f->size = 0;
        f->repl = a.repl;
        f->bytes = f->bytes != NULL ? f->bytes : x_alloc(FILE_MAX);
    }
    c->stage = ST_IDLE;
    later(c, sim_below(&c->cl->sim, 20));
}

static void on_commit(struct sim_client *c, const struct sim_msg *m)
{
    struct commit_rep rep;
    struct commit_result r;
    struct wire_in in;

    if (commit_rep_get(m->body, &rep) != 0) {
        sim_fail(&c->cl->sim, "client %d: commit: %s", c->index, err_text(m->status));
    }
    in = wire_in_of(rep.results.items);
    if (m->status != 0 || commit_result_get(&in, &r) != 0 || r.status != 0) {
        sim_fail(&c->cl->sim, "client %d: commit of %s: %s, %s", c->index, c->files[c->file].name,
                 err_text(m->status), err_text((int)r.status));
    }
    client_committed(c);
    c->stage = ST_IDLE;
    later(c, sim_below(&c->cl->sim, 50));
}

static void on_reply(struct sim_client *c, const struct sim_msg *m)
{
    if (!c->call_open || m->id != c->call_id) {
        return; /* an answer to a question that was answered before */
    }
    c->call_open = false;
    if (c->stage == ST_SESSION) {
        struct session_open_rep rep;

        if (m->status != 0 || session_open_rep_get(m->body, &rep) != 0) {
            later(c, 100);
            return;
        }
        c->session = rep.session;
        c->seq = 0;
        c->left.block = 0; /* sealed with the session before */
        if (c->pend_count != 0) {
            client_begin_write(c);
        } else {
            c->stage = c->dir == 0 ? ST_DIR : ST_IDLE;
            client_step(c);
        }
    } else if (m->status == DFS_ESESSION && c->stage != ST_WRITE && c->stage != ST_COMMIT) {
        sim_fail(&c->cl->sim, "client %d: its session ended while it was pinging", c->index);
    } else if (c->stage == ST_DIR || c->stage == ST_MAKE) {
        on_made(c, m);
    } else if (c->stage == ST_WRITE || m->status == DFS_ESESSION) {
        on_reply_write(c, m);
    } else if (c->stage == ST_COMMIT) {
        on_commit(c, m);
        c->pend_count = 0;
    } else if (c->stage == ST_LOCK || c->stage == ST_UNLOCK) {
        on_mutex(c, m);
    } else {
        finish_op(c, m);
    }
}

static void on_answer(struct sim_client *c, const struct sim_msg *m)
{
    struct sim_packet p;

    if (c->stage != ST_WRITE || !packet_get(m->body, &p) || (p.open && m->status == 0) ||
        c->answer_count == ARRAY_LEN(c->answers)) {
        return;
    }
    for (size_t i = 0; i < c->chain_count; i++) {
        if (c->chains[i].block == p.block) {
            c->answers[c->answer_count++] = (struct answer){
                .block = p.block, .status = m->status, .bad = p.bad, .end = p.offset
            };
            break;
        }
    }
    if (c->waiting && c->act.what == WCORE_AWAIT && client_take_answer(c)) {
        c->waiting = false;
        client_drive(c);
    }
}

static void on_synced(struct sim_client *c, const struct sim_msg *m)
{
    if (c->stage != ST_WRITE || !c->waiting || c->act.what != WCORE_SYNC_COPIES ||
        m->id >> 8 != c->act.block || m->status != 0) {
        return; /* a refusal shows as silence, and the copy is given up */
    }
    c->sync_todo &= ~(1u << (m->id & 0xff));
    if (c->sync_todo == 0) {
        c->waiting = false;
        wcore_synced(&c->w, c->act.block, c->act.len);
        client_drive(c);
    }
}

static void receive(void *arg, const struct sim_msg *m)
{
    struct sim_client *c = arg;

    if (m->type == RPC_block_packet) {
        on_answer(c, m);
    } else if (m->type == RPC_block_sync) {
        on_synced(c, m);
    } else if (m->type != RPC_session_ping) {
        on_reply(c, m);
    }
}

static void ping(void *arg, uint64_t unused)
{
    struct sim_client *c = arg;
    struct call_hdr hdr = { .session = c->session };
    struct wire_out h, body;

    (void)unused;
    if (c->session != 0) {
        wire_out_init(&h, LIMIT_MSG);
        wire_out_init(&body, LIMIT_MSG);
        call_hdr_put(&h, &hdr);
        wire_put_bytes(&body, wire_out_slice(&h));
        wire_out_reset(&h);
        session_ping_req_put(&h, &(struct session_ping_req){ 0 });
        wire_put_bytes(&body, wire_out_slice(&h));
        sim_send(&c->cl->sim, &(struct sim_msg){ .from = client_node(c->index),
                                                 .to = SIM_MASTER,
                                                 .type = RPC_session_ping,
                                                 .body = wire_out_slice(&body) });
        wire_out_fini(&h);
        wire_out_fini(&body);
    }
    sim_after(&c->cl->sim, client_node(c->index), 2 * SIM_SEC, ping, c, 0);
}

struct sim_client *client_new(struct cluster *cl, int index)
{
    struct sim_client *c = x_alloc(sizeof(*c));

    c->cl = cl;
    c->index = index;
    wire_out_init(&c->call_body, LIMIT_MSG);
    return c;
}

void client_boot(struct sim_client *c)
{
    struct sim *s = &c->cl->sim;

    /* What the life before left behind stays to be checked, but for the file it was at. */
    for (size_t i = 0; i < FILES; i++) {
        struct model *f = &c->files[i];
        bool changing = c->pend_count != 0 || (c->stage >= ST_MAKE && c->stage < ST_LOCK);
        bool uncertain = changing && (i == c->file || (c->stage == ST_RENAME && i == c->other));

        if (f->exists && !uncertain) {
            c->old = x_realloc(c->old, (c->old_count + 1) * sizeof(*c->old));
            c->old[c->old_count++] = *f;
        } else {
            free(f->bytes);
        }
        *f = (struct model){ 0 };
    }
    if (c->w_live) {
        wcore_fini(&c->w);
        c->w_live = false;
    }
    leave_mutex(c);
    c->left.block = 0;
    c->pend_count = 0;
    c->call_open = false;
    c->waiting = false;
    c->session = 0;
    c->seq = 0;
    c->dir = 0;
    c->generation++;
    c->stage = ST_SESSION;
    memset(c->lane, 0, sizeof(c->lane));
    sim_up(s, client_node(c->index), receive, c);
    later(c, sim_below(s, 1000));
    sim_after(s, client_node(c->index), SIM_SEC, ping, c, 0);
}

void client_quiesce(struct sim_client *c)
{
    c->quiesce = true;
}

bool client_idle(const struct sim_client *c)
{
    return c->stage == ST_QUIET;
}

void client_describe(const struct sim_client *c, char *ret, size_t cap)
{
    snprintf(
        ret, cap,
        "client %d: %s, stage %d, operation %ju, call %s type %#x, waiting %d for action %d of "
        "block %ju",
        c->index, c->cl->sim.nodes[client_node(c->index)].up ? "up" : "down", (int)c->stage,
        (uintmax_t)c->ops, c->call_open ? "open" : "closed", c->call_type, c->waiting,
        (int)c->act.what, (uintmax_t)c->act.block);
}

uint64_t client_ops(const struct sim_client *c)
{
    return c->ops;
}

void client_free(struct sim_client *c)
{
    for (size_t i = 0; i < FILES; i++) {
        free(c->files[i].bytes);
    }
    for (size_t i = 0; i < c->old_count; i++) {
        free(c->old[i].bytes);
    }
    for (size_t i = 0; i < WRITES; i++) {
        free(c->pend[i].bytes);
    }
    if (c->w_live) {
        wcore_fini(&c->w);
    }
    free(c->old);
    wire_out_fini(&c->call_body);
    free(c);
}
