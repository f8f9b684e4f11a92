/* A session that goes on in another process: the next version of the program, under the open files of
 * a mount. What the masters and block servers know stays as it is; what they cannot tell (numbers of
 * commands, locks that are held) is written down. */
#include "cluster/base/base.h"

#include "cluster/base/log.h"

#include "fs/client/client_int.h"
#include "fs/client/locks_int.h"
#include "fs/client/writer.h"

#define LEFT_VERSION 1u
#define LEFT_BYTES   (64 * MIB)

/* ---- locks ---- */

static void leave_held(const struct held *h, struct wire_out *out)
{
    for (struct list *i = h->ranges.next; i != &h->ranges; i = i->next) {
        const struct lock_range *r = CONTAINER_OF(i, struct lock_range, list);
        uint64_t handle = 0;

        for (struct list *j = h->users.next; j != &h->users; j = j->next) {
            const struct held_user *u = CONTAINER_OF(j, struct held_user, list);

            handle = u->owner == r->owner ? u->handle : handle;
        }
        wire_put_u8(out, 1);
        wire_put_u64(out, h->ino);
        wire_put_u64(out, r->owner);
        wire_put_u64(out, handle);
        wire_put_u64(out, r->first);
        wire_put_u64(out, r->last);
        wire_put_u32(out, r->pid);
        wire_put_u8(out, h->kind);
        wire_put_u8(out, r->type);
    }
}

static void locks_leave(struct client *c, struct wire_out *out)
{
    struct locks *l = c->locks;

    wire_put_u64(out, l->seq);
    wire_put_u64(out, l->tickets);
    HTAB_FOREACH (n, &l->held) {
        leave_held(CONTAINER_OF(n, struct held, h), out);
    }
    wire_put_u8(out, 0);
}

int locks_resume(struct client *c, struct wire_in *in)
{
    struct locks *l = c->locks;

    l->session = meta_session(c->meta);
    l->seq = wire_get_u64(in);
    l->tickets = wire_get_u64(in);
    while (wire_get_u8(in) != 0) {
        struct lock_want w = { .ino = wire_get_u64(in) };

        w.owner = wire_get_u64(in);
        w.handle = wire_get_u64(in);
        w.first = wire_get_u64(in);
        w.last = wire_get_u64(in);
        w.pid = wire_get_u32(in);
        w.kind = wire_get_u8(in);
        w.type = wire_get_u8(in);
        if (in->err != 0 || w.first > w.last || w.type == LOCK_NONE) {
            return DFS_EMALFORMED;
        }
        pthread_mutex_lock(&l->mu);
        locks_note_set_locked(c, &w);
        pthread_mutex_unlock(&l->mu);
    }
    return in->err;
}

/* ---- the rest ---- */

/* No file holds a block open any more, and the masters know of all that ended. */
static void give_blocks_back(struct client *c)
{
    size_t count;
    struct node **nodes = node_all(c, &count);

    for (size_t i = 0; i < count; i++) {
        writer_release(nodes[i]);
        node_put(nodes[i]);
    }
    free(nodes);
    streams_end_idle(c->streams);
    (void)client_commit_pass(c, true);
}

void client_leave(struct client *c, struct wire_out *out)
{
    struct meta_left left;

    client_stop(c);
    give_blocks_back(c);
    client_tell(c);
    meta_leave(c->meta, &left);
    wire_out_init(out, LEFT_BYTES);
    wire_put_u32(out, LEFT_VERSION);
    wire_put_u64(out, left.session);
    wire_put_u64(out, left.seq);
    wire_put_u32(out, left.lease_ms);
    wire_put_u32(out, left.block_size);
    wire_put_raw(out, left.cluster, sizeof(left.cluster));
    wire_put_u64(out, c->epoch_session == left.session ? c->epoch : 0);
    wire_put_u32(out, (uint32_t)c->closed_count);
    for (size_t i = 0; i < c->closed_count; i++) {
        wire_put_u64(out, c->closed[i]);
    }
    locks_leave(c, out);
    client_free(c);
}

static int left_get(struct wire_in *in, struct meta_left *ret)
{
    if (wire_get_u32(in) != LEFT_VERSION) {
        return DFS_EVERSION;
    }
    ret->session = wire_get_u64(in);
    ret->seq = wire_get_u64(in);
    ret->lease_ms = wire_get_u32(in);
    ret->block_size = wire_get_u32(in);
    struct slice cluster = wire_take(in, sizeof(ret->cluster));

    if (in->err != 0 || ret->session == 0 || ret->block_size == 0) {
        return DFS_EMALFORMED;
    }
    memcpy(ret->cluster, cluster.p, sizeof(ret->cluster));
    return DFS_OK;
}

int client_resume(const struct conf *conf, const char *name, struct slice from, struct client **ret,
                  struct why *why)
{
    struct wire_in in = wire_in_of(from);
    struct meta_left left;
    struct client *c;
    int err = left_get(&in, &left);

    err = err != 0 ? err : client_start(conf, name, &left, &in, &c, why);
    if (err != 0) {
        return why_set(why, err, "a session that was left: %s", err_text(err));
    }
    *ret = c;
    return DFS_OK;
}
