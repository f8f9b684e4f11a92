/* A write of the simulated client: packets down a chain by the real writing session, then a commit. */
#include "fs/client/extmap.h"

#include "test/sim/client_int.h"

void client_drive_later(void *arg, uint64_t unused)
{
    (void)unused;
    client_drive(arg);
}

static struct chain *chain_of(struct sim_client *c, uint64_t block)
{
    for (size_t i = 0; i < c->chain_count; i++) {
        if (c->chains[i].block == block) {
            return &c->chains[i];
        }
    }
    sim_fail(&c->cl->sim, "client %d: no chain for block %ju", c->index, (uintmax_t)block);
}

/* Whom the transport would blame: the first in the chain that is away. */
static uint32_t suspect(struct sim_client *c, const struct chain *ch)
{
    struct sim *s = &c->cl->sim;
    int from = client_node(c->index);

    for (uint32_t i = 0; i < ch->count; i++) {
        int n = server_node(ch->nodes[i]);

        if (!s->nodes[n].up || s->cut[from][n] || s->cut[n][from]) {
            return ch->nodes[i];
        }
        from = n;
    }
    return ch->nodes[sim_below(s, ch->count)];
}

static void write_timeout(void *arg, uint64_t token)
{
    struct sim_client *c = arg;

    if (!c->waiting || c->wait_token != token) {
        return;
    }
    c->waiting = false;
    if (c->act.what == WCORE_SYNC_COPIES) { /* a survivor is gone too: the block loses it */
        struct chain *ch = chain_of(c, c->act.block);
        struct wire_out refs;
        uint32_t bad = 0;

        for (uint32_t i = 0; i < ch->count; i++) {
            if ((c->sync_todo & 1u << i) != 0) {
                bad = ch->nodes[i];
                ch->nodes[i] = ch->nodes[--ch->count];
                break;
            }
        }
        if (ch->count == 0) {
            sim_trace(&c->cl->sim, "client %d: block %ju has lost every copy", c->index,
                      (uintmax_t)c->act.block);
            c->files[c->file].exists = false; /* unknown from here on */
            wcore_fini(&c->w);
            c->w_live = false;
            c->stage = ST_IDLE;
            sim_after(&c->cl->sim, client_node(c->index), SIM_MS, client_step_later, c, 0);
            return;
        }
        wire_out_init(&refs, LIMIT_MSG);
        node_ref_put(&refs, &(struct node_ref){ .node = bad });
        CALL(c, block_seal, .block = c->act.block, .len = c->act.len,
             .bad = wire_out_list(&refs, 1));
        wire_out_fini(&refs);
        return;
    }
    {
        struct chain *ch = chain_of(c, c->act.block);

        wcore_failed(&c->w, c->act.block, suspect(c, ch));
        client_drive(c);
    }
}

static void await(struct sim_client *c, uint64_t ms)
{
    c->waiting = true;
    sim_after(&c->cl->sim, client_node(c->index), ms * SIM_MS, write_timeout, c, ++c->wait_token);
}

static void send_packet(struct sim_client *c, const struct chain *ch, struct sim_packet *p)
{
    struct wire_out out;
    int to = server_node(ch->nodes[0]);

    p->block = ch->block;
    p->client = (uint32_t)client_node(c->index);
    p->chain_count = ch->count;
    memcpy(p->chain, ch->nodes, sizeof(p->chain));
    wire_out_init(&out, LIMIT_MSG);
    packet_put(&out, p);
    sim_stream(&c->cl->sim,
               &(struct sim_msg){ .from = client_node(c->index),
                                  .to = to,
                                  .type = RPC_block_packet,
                                  .id = ++c->next_id,
                                  .body = wire_out_slice(&out) },
               &c->lane[to]);
    wire_out_fini(&out);
}

static struct pending *pending_of(struct sim_client *c, uint64_t id)
{
    for (size_t i = 0; i < c->pend_count; i++) {
        if (c->pend[i].id == id) {
            return &c->pend[i];
        }
    }
    sim_fail(&c->cl->sim, "client %d: unknown packet", c->index);
}

/* An answer that is here already, for the action that waits; false when there is none. */
bool client_take_answer(struct sim_client *c)
{
    for (size_t i = 0; i < c->answer_count; i++) {
        struct answer a = c->answers[i];

        if (a.block != c->act.block) {
            continue;
        }
        memmove(&c->answers[i], &c->answers[i + 1],
                (--c->answer_count - i) * sizeof(c->answers[0]));
        if (a.status != 0 || wcore_answered(&c->w, a.block, a.end) != 0) {
            wcore_failed(&c->w, a.block, a.bad);
        }
        return true;
    }
    return false;
}

static void send_commit(struct sim_client *c)
{
    struct model *f = &c->files[c->file];
    struct wire_out blocks, extents, files;
    struct commit_block b;
    struct wcore_packet p;
    struct extmap map = { 0 };
    struct extent e;
    uint32_t n_blocks = 0;
    uint64_t size = f->size;

    wire_out_init(&blocks, LIMIT_MSG);
    wire_out_init(&extents, LIMIT_MSG);
    wire_out_init(&files, LIMIT_MSG);
    while (wcore_retire(&c->w, &p)) {
        struct pending *q = pending_of(c, p.id);

        q->block = p.block;
        q->block_off = p.off;
    }
    for (size_t i = 0; i < c->pend_count; i++) {
        struct pending *q = &c->pend[i];

        ASSERT(q->block != 0);
        extmap_insert(
            &map, &(struct extent){
                      .off = q->off, .len = q->len, .block = q->block, .block_off = q->block_off });
        size = MAX(size, q->off + q->len);
    }
    for (uint64_t off = 0; extmap_find(&map, off, &e); off = e.off + e.len) {
        extent_put(&extents, &e);
    }
    if (wcore_open_block(&c->w) != NULL) {
        wcore_detach(&c->w);
    }
    if (c->left.block != 0) {
        commit_block_put(&blocks, &c->left);
        n_blocks++;
    }
    c->leaves = (struct commit_block){ 0 };
    for (size_t i = 0; wcore_uncommitted(&c->w, &i, &b);) {
        /* one may stay open for a while: sealed by the next commit, or when the session ends */
        if (!chain_of(c, b.block)->ended && c->leaves.block == 0 && sim_chance(&c->cl->sim, 0.3)) {
            c->leaves = (struct commit_block){ .block = b.block, .len = b.len, .seal = 1 };
        }
        b.seal = c->leaves.block != b.block;
        commit_block_put(&blocks, &b);
        n_blocks++;
        chain_of(c, b.block)->ended = false;
    }
    for (size_t i = 0; i < c->chain_count; i++) { /* given up before anything was acknowledged */
        if (c->chains[i].ended) {
            commit_block_put(&blocks, &(struct commit_block){ .block = c->chains[i].block,
                                                              .len = c->chains[i].len,
                                                              .seal = 1 });
            n_blocks++;
        }
    }
    commit_file_put(
        &files, &(struct commit_file){ .ino = f->ino,
                                       .size = size,
                                       .extents = wire_out_list(&extents, (uint32_t)map.count) });
    extmap_clear(&map);
    c->stage = ST_COMMIT;
    CALL(c, commit, .blocks = wire_out_list(&blocks, n_blocks), .files = wire_out_list(&files, 1));
    wire_out_fini(&blocks);
    wire_out_fini(&extents);
    wire_out_fini(&files);
}

void client_drive(struct sim_client *c)
{
    for (;;) {
        struct sim_packet p = { 0 };
        struct chain *ch;

        c->act = wcore_next(&c->w, c->sync ? WCORE_SYNC : WCORE_DRAIN);
        sim_trace(&c->cl->sim, "client %d: action %d block %ju at %u+%u bad %u", c->index,
                  (int)c->act.what, (uintmax_t)c->act.block, c->act.off, c->act.len, c->act.bad);
        switch (c->act.what) {
        case WCORE_IDLE:
            send_commit(c);
            return;
        case WCORE_ALLOC: {
            struct wire_out refs;

            wire_out_init(&refs, LIMIT_MSG);
            node_ref_put(&refs, &(struct node_ref){ .node = c->avoid });
            CALL(c, block_alloc, .want = c->files[c->file].repl, .kind = BLOCK_STREAM, .count = 1,
                 .avoid = wire_out_list(&refs, c->avoid != 0));
            wire_out_fini(&refs);
            return;
        }
        case WCORE_SEND:
            ch = chain_of(c, c->act.block);
            p.offset = c->act.off;
            p.flags = c->act.flags;
            if (c->act.id != 0) {
                struct pending *q = pending_of(c, c->act.id);

                p.data = slice_of(q->bytes, q->len);
            }
            send_packet(c, ch, &p);
            wcore_sent(&c->w, &c->act);
            break;
        case WCORE_AWAIT:
            if (!client_take_answer(c)) {
                await(c, 3000);
                return;
            }
            break;
        case WCORE_SEAL: {
            struct wire_out refs;

            ch = chain_of(c, c->act.block);
            for (uint32_t i = 0; i < ch->count; i++) { /* survivors keep their order */
                if (ch->nodes[i] == c->act.bad) {
                    memmove(&ch->nodes[i], &ch->nodes[i + 1],
                            (--ch->count - i) * sizeof(ch->nodes[0]));
                    break;
                }
            }
            c->avoid = c->act.bad;
            ch->ended = true;
            ch->len = c->act.len;
            wire_out_init(&refs, LIMIT_MSG);
            node_ref_put(&refs, &(struct node_ref){ .node = c->act.bad });
            CALL(c, block_seal, .block = c->act.block, .len = c->act.len,
                 .bad = wire_out_list(&refs, c->act.bad != 0));
            wire_out_fini(&refs);
            return;
        }
        case WCORE_SYNC_COPIES: {
            struct wire_out out;

            ch = chain_of(c, c->act.block);
            c->sync_todo = (1u << ch->count) - 1;
            wire_out_init(&out, LIMIT_MSG);
            block_sync_req_put(
                &out, &(struct block_sync_req){ .block = c->act.block, .len = c->act.len });
            for (uint32_t i = 0; i < ch->count; i++) {
                sim_send(&c->cl->sim, &(struct sim_msg){ .from = client_node(c->index),
                                                         .to = server_node(ch->nodes[i]),
                                                         .type = RPC_block_sync,
                                                         .id = c->act.block << 8 | i,
                                                         .body = wire_out_slice(&out) });
            }
            wire_out_fini(&out);
            await(c, 2000);
            return;
        }
        }
    }
}

void client_begin_write(struct sim_client *c)
{
    wcore_init(&c->w, 8u << 10);
    c->w_live = true;
    c->answer_count = 0;
    c->chain_count = 0;
    c->waiting = false;
    c->stage = ST_WRITE;
    for (size_t i = 0; i < c->pend_count; i++) {
        c->pend[i].block = 0;
        if (!wcore_add(&c->w, c->pend[i].id, c->pend[i].len)) {
            sim_fail(&c->cl->sim, "client %d: the writing session is full", c->index);
        }
    }
    client_drive(c);
}

void client_plan_write(struct sim_client *c)
{
    struct sim *s = &c->cl->sim;
    struct model *f = &c->files[c->file];
    size_t n = 1 + sim_below(s, WRITES);
    uint32_t size = f->size;

    c->sync = sim_chance(s, 0.5);
    c->pend_count = 0;
    for (size_t i = 0; i < n; i++) {
        struct pending *q = &c->pend[c->pend_count];
        uint32_t len = 1 + (uint32_t)sim_below(s, sim_chance(s, 0.3) ? 200 : 6000);
        uint32_t off = sim_chance(s, 0.6) ? size : (uint32_t)sim_below(s, size + 3000);

        if (off + len > FILE_MAX) {
            continue;
        }
        q->id = ++c->next_id;
        q->off = off;
        q->len = len;
        q->bytes = x_realloc(q->bytes, len);
        for (uint32_t k = 0; k < len; k++) {
            q->bytes[k] = (uint8_t)(1 + (q->id * 31 + off + k) % 255);
        }
        size = MAX(size, off + len);
        c->pend_count++;
    }
    if (c->pend_count == 0) {
        c->stage = ST_IDLE;
        client_step(c);
        return;
    }
    client_begin_write(c);
}

void client_on_alloc(struct sim_client *c, int status, struct slice body)
{
    struct block_alloc_rep rep;
    struct block_loc b;
    struct wire_in in;
    struct chain *ch;

    if (status != 0 || block_alloc_rep_get(body, &rep) != 0 || rep.blocks.count == 0) {
        c->avoid = 0;
        c->waiting = false;
        sim_after(&c->cl->sim, client_node(c->index), 300 * SIM_MS, client_drive_later, c, 0);
        return;
    }
    in = wire_in_of(rep.blocks.items);
    (void)block_loc_get(&in, &b);
    if (c->chain_count == ARRAY_LEN(c->chains)) {
        sim_fail(&c->cl->sim, "client %d: one write used %zu blocks", c->index, c->chain_count);
    }
    ch = &c->chains[c->chain_count++];
    *ch = (struct chain){ .block = b.block };
    in = wire_in_of(b.nodes.items);
    for (uint32_t i = 0; i < b.nodes.count; i++) {
        struct node_addr n;

        (void)node_addr_get(&in, &n);
        ch->nodes[ch->count++] = n.node;
    }
    /* Opening and the packets behind it go out together. A refused opening shows as a refused
     * packet; its own answer is not waited for. */
    send_packet(c, ch, &(struct sim_packet){ .open = true });
    wcore_opened(&c->w, b.block, 0, SIM_BLOCK_SIZE);
    client_drive(c);
}

void client_committed(struct sim_client *c)
{
    struct model *f = &c->files[c->file];

    c->left = c->leaves;

    for (size_t i = 0; i < c->pend_count; i++) {
        struct pending *q = &c->pend[i];

        if (q->off > f->size) {
            memset(f->bytes + f->size, 0, q->off - f->size);
        }
        memcpy(f->bytes + q->off, q->bytes, q->len);
        f->size = MAX(f->size, q->off + q->len);
    }
    wcore_fini(&c->w);
    c->w_live = false;
}
