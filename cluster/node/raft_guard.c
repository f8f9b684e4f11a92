#include "cluster/node/raft_guard.h"

static struct raft_guard *guard_of(struct raft_io *io)
{
    struct raft *r = io->data;

    return r->data;
}

static void set_leading(struct raft_guard *g, bool leading)
{
    if (g->leading != leading) {
        g->leading = leading;
        if (g->leads != NULL) {
            g->leads(g->arg, leading);
        }
    }
}

static void on_barrier(struct raft_barrier *b, int status)
{
    struct raft_guard *g = b->data;

    if (status == 0) {
        set_leading(g, true);
    }
}

void raft_guard_look(struct raft_guard *g)
{
    if (raft_state(g->raft) != RAFT_LEADER) {
        set_leading(g, false);
        return;
    }
    if (g->term == g->raft->current_term) {
        return;
    }
    g->index = raft_last_index(g->raft) + 1;
    g->barrier.data = g;
    if (raft_barrier(g->raft, &g->barrier, on_barrier) == 0) {
        g->term = g->raft->current_term;
    }
}

static void on_tick(struct raft_io *io)
{
    struct raft_guard *g = guard_of(io);

    g->tick(io);
    raft_guard_look(g);
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
    struct raft_guard *g = guard_of(io);
    struct raft *r = g->raft;

    if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT && raft_state(r) == RAFT_LEADER &&
        (g->term != r->current_term || r->last_stored < g->index)) {
        g->dropped++;
        return;
    }
    g->recv(io, m);
    raft_guard_look(g);
}

static int on_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct raft_guard *g = guard_of(io);

    g->tick = tick;
    g->recv = recv;
    return g->start(io, msecs, on_tick, on_recv);
}

static void on_closed(struct raft_io *io)
{
    struct raft_guard *g = guard_of(io);
    raft_io_close_cb closed = g->closed;

    g->closed = NULL;
    if (closed != NULL) {
        closed(io);
    }
}

static void on_close(struct raft_io *io, raft_io_close_cb closed)
{
    struct raft_guard *g = guard_of(io);

    g->closed = closed;
    g->close(io, on_closed);
}

void raft_guard_install(struct raft_guard *g, struct raft *raft)
{
    g->raft = raft;
    g->start = raft->io->start;
    g->close = raft->io->close;
    raft->data = g;
    raft->io->start = on_start;
    raft->io->close = on_close;
}
