/* Room that quotas leave, so that a write that will not fit fails itself, and not its fsync or close.
 *
 * What is known is a hint: the masters' answer of a second ago, less what was written since. The
 * commit decides. */
#include "fs/client/room.h"

#include "cluster/base/base.h"

#include "fs/client/client_int.h"
#include "fs/client/writer.h"

#define FRESH_MS 1000
#define NEAR     (256 * MIB) /* with less room what is not committed is counted, too */

static struct room *slot(struct client *c, uint64_t quota)
{
    return &c->rooms.slot[quota % ROOM_SLOTS];
}

void rooms_init(struct rooms *r)
{
    pthread_mutex_init(&r->mu, NULL);
}

void rooms_fini(struct rooms *r)
{
    pthread_mutex_destroy(&r->mu);
}

/* False: it is not known to fit. */
static bool take(struct client *c, uint64_t quota, uint64_t bytes)
{
    struct room *s = slot(c, quota);
    bool fits;

    pthread_mutex_lock(&c->rooms.mu);
    fits = s->quota == quota && clock_mono_ms() < s->until_ms && s->left >= bytes;
    if (fits) {
        s->left -= bytes;
    }
    pthread_mutex_unlock(&c->rooms.mu);
    return fits;
}

static void narrow(void *arg, const struct quota_info *q)
{
    uint64_t *left = arg;

    if (q->limit_bytes != 0) {
        *left = MIN(*left, q->limit_bytes - MIN(q->used_bytes, q->limit_bytes));
    }
}

/* What the masters say now. */
static int ask(struct node *n, uint64_t *ret)
{
    uint64_t left = UINT64_MAX;
    int err = client_quota_get(n->c, NULL, n->ino, false, narrow, &left);

    if (err == 0) {
        *ret = left;
    }
    return err;
}

static void learn(struct client *c, uint64_t quota, uint64_t left)
{
    struct room *s = slot(c, quota);

    pthread_mutex_lock(&c->rooms.mu);
    *s = (struct room){ .quota = quota, .left = left, .until_ms = clock_mono_ms() + FRESH_MS };
    pthread_mutex_unlock(&c->rooms.mu);
}

int room_take(struct node *n, uint64_t off, size_t len)
{
    uint64_t end = off + len, left, quota, size;

    pthread_mutex_lock(&n->mu);
    quota = n->attr.quota;
    size = n->size;
    pthread_mutex_unlock(&n->mu);
    if (quota == 0 || end <= size || take(n->c, quota, end - MAX(off, size))) {
        return DFS_OK;
    }
    if (ask(n, &left) != 0) {
        return DFS_OK;
    }
    if (left < NEAR) {
        int err = writer_flush(n, false, client_deadline(n->c));

        if (err != 0) {
            return err;
        }
        if (ask(n, &left) != 0) {
            return DFS_OK;
        }
    }
    learn(n->c, quota, left);
    return take(n->c, quota, end - MAX(off, size)) ? DFS_OK : DFS_EDQUOT;
}
