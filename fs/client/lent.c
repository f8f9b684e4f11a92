/* The happy path: the block's file is known -> sums and data come from the page cache -> the sums are
 * right. The first read of a block asks for its file.
 *
 * What can fail, always with the ordinary way left:
 *   no server of the block is on this machine, or it does not lend    not asked again for a while
 *   not in the page cache                                             this read only
 *   wrong sums; a file that is too short                              the file is given back, and not
 *                                                                     asked for for a while
 */
#include "fs/client/lent.h"

#include <linux/magic.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cluster/base/crc32c.h"
#include "cluster/base/fault.h"
#include "cluster/net/conn.h"

#include "replication/store/layout.h"

#include "fs/client/client_int.h"

#define FILES_MAX 1024
#define KEEP_MS   3000  /* unused; and before one is asked for again that was not to be had */
#define RENEW_MS  30000 /* in use, too: it may have been moved or removed */
#define GROWN_MS  200   /* before the length of an open replica is asked for again */
#define ASK_MS    400
#define SUMS_MAX  (PACKET_BYTES / CHUNK_BYTES + 2)

struct lent {
    struct hnode by_block;
    struct list lru; /* used least lately first */
    uint64_t block;
    int fd;         /* -1: not to be had */
    int flags;      /* of preadv2() */
    uint32_t len;   /* of the replica when it was lent; of an open one its whole chunks */
    bool dropped;   /* out of the table; closed by its last user */
    uint32_t users; /* that read right now */
    uint64_t asked_ms;
    uint64_t used_ms;
};

struct lents {
    struct client *c;
    pthread_mutex_t mu; /* guards all below, and the files but for what is constant in them */
    struct htab files;
    struct list lru;
    _Atomic uint64_t bytes;
};

struct lents *lents_new(struct client *c)
{
    struct lents *l = x_alloc(sizeof(*l));

    l->c = c;
    pthread_mutex_init(&l->mu, NULL);
    htab_init(&l->files);
    list_init(&l->lru);
    return l;
}

static void file_free(struct lent *f)
{
    if (f->fd >= 0) {
        close(f->fd);
    }
    free(f);
}

static void drop_locked(struct lents *l, struct lent *f)
{
    if (f->dropped) {
        return;
    }
    f->dropped = true;
    htab_remove(&l->files, &f->by_block);
    list_remove(&f->lru);
    if (f->users == 0) {
        file_free(f);
    }
}

void lents_free(struct lents *l)
{
    struct list *item;

    if (l == NULL) {
        return;
    }
    while ((item = list_first(&l->lru)) != NULL) {
        drop_locked(l, CONTAINER_OF(item, struct lent, lru));
    }
    htab_fini(&l->files);
    pthread_mutex_destroy(&l->mu);
    free(l);
}

void lents_tick(struct lents *l)
{
    uint64_t now_ms = clock_mono_ms();
    struct list *item;

    pthread_mutex_lock(&l->mu);
    while ((item = list_first(&l->lru)) != NULL) {
        struct lent *f = CONTAINER_OF(item, struct lent, lru);

        if (now_ms - f->used_ms < KEEP_MS) {
            break;
        }
        drop_locked(l, f);
    }
    pthread_mutex_unlock(&l->mu);
}

uint64_t lents_bytes(const struct lents *l)
{
    return atomic_load(&l->bytes);
}

static struct lent *find_locked(const struct lents *l, uint64_t block)
{
    struct hnode *h = htab_find(&l->files, htab_mix(block));

    while (h != NULL && CONTAINER_OF(h, struct lent, by_block)->block != block) {
        h = htab_next(h);
    }
    return h != NULL ? CONTAINER_OF(h, struct lent, by_block) : NULL;
}

static void add_locked(struct lents *l, struct lent *f)
{
    struct lent *other = find_locked(l, f->block);
    struct list *oldest = list_first(&l->lru);

    if (other != NULL) { /* another thread was asking, too; the newer one knows more */
        drop_locked(l, other);
    } else if (l->files.count >= FILES_MAX && oldest != NULL) {
        drop_locked(l, CONTAINER_OF(oldest, struct lent, lru));
    }
    f->asked_ms = f->used_ms = clock_mono_ms();
    htab_add(&l->files, &f->by_block, htab_mix(f->block));
    list_push_back(&l->lru, &f->lru);
}

static struct lent *file_new(uint64_t block)
{
    struct lent *f = x_alloc(sizeof(*f));

    f->block = block;
    f->fd = -1;
    list_init(&f->lru);
    return f;
}

/* bad: what it holds is not right. */
static void unuse(struct lents *l, struct lent *f, bool bad)
{
    pthread_mutex_lock(&l->mu);
    f->users--;
    if (f->dropped && f->users == 0) {
        file_free(f);
    } else if (bad) {
        add_locked(l, file_new(f->block)); /* in its place: none */
    }
    pthread_mutex_unlock(&l->mu);
}

/* ---- asking for a file ---- */

/* In memory there is no disk to wait for, and older kernels have no RWF_NOWAIT there. */
static int read_flags(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC ? 0 : RWF_NOWAIT;
}

/* A server that hangs is found out here, and not again on the ordinary way. */
static void doubt(struct client *c, uint32_t node, int err)
{
    if (err == DFS_ETIMEOUT) {
        (void)peers_hung(c->peers, &node, 1);
    }
}

/* One server; -1: it does not lend. */
static int ask(struct client *c, uint32_t node, uint64_t block, uint32_t *ret_len)
{
    struct block_lend_req q = { .block = block };
    uint64_t deadline_ms = clock_mono_ms() + ASK_MS;
    struct block_lend_rep r;
    struct conn *conn = NULL;
    struct wire_out out;
    struct slice rep = SLICE_EMPTY;
    bool reused;
    int fd = -1;
    int err = peers_connect(c->peers, node, false, deadline_ms, &conn, &reused);

    if (err != 0) {
        doubt(c, node, err);
        return -1;
    }
    wire_out_init(&out, 64);
    block_lend_req_put(&out, &q);
    err = conn_call_fd(conn, RPC_block_lend, wire_out_slice(&out), &rep, &fd, deadline_ms);
    if (err == 0 && block_lend_rep_get(rep, &r) == 0) {
        *ret_len = r.state == REPLICA_SEALED ? r.len : r.len - r.len % CHUNK_BYTES;
    } else if (fd >= 0) {
        close(fd);
        fd = -1;
    }
    if (err == DFS_EPERM || err == DFS_EUNKNOWNRPC) {
        peers_far(c->peers, node); /* it will not lend the next one either */
    }
    doubt(c, node, err);
    if (err == DFS_ETIMEOUT || err == DFS_EINTR) {
        conn_close(conn); /* its answer may still come, and with it a descriptor */
    } else {
        peers_release(c->peers, node, conn);
    }
    wire_out_fini(&out);
    return fd;
}

/* With one user. */
static struct lent *borrow(struct lents *l, uint64_t block)
{
    struct lent *f = file_new(block);
    struct where where = { 0 };

    (void)peers_where(l->c->peers, block, &where);
    for (uint32_t i = 0; i < where.count && f->fd < 0; i++) {
        if (peers_may_be_near(l->c->peers, where.node[i])) {
            f->fd = ask(l->c, where.node[i], block, &f->len);
        }
    }
    f->flags = f->fd >= 0 ? read_flags(f->fd) : 0;
    f->users = 1;
    pthread_mutex_lock(&l->mu);
    add_locked(l, f);
    pthread_mutex_unlock(&l->mu);
    return f;
}

/* The file of a block, with one more user; NULL: there is none that has bytes from off on. */
static struct lent *use(struct lents *l, uint64_t block, uint32_t off, uint32_t end)
{
    uint64_t now_ms = clock_mono_ms();
    struct lent *f;
    bool ask_now;

    pthread_mutex_lock(&l->mu);
    f = find_locked(l, block);
    ask_now = f == NULL || now_ms - f->asked_ms >= (f->fd < 0 ? KEEP_MS : RENEW_MS) ||
              (f->fd >= 0 && f->len < end && now_ms - f->asked_ms >= GROWN_MS);
    if (!ask_now && f->fd >= 0) {
        list_remove(&f->lru);
        list_push_back(&l->lru, &f->lru);
        f->used_ms = now_ms;
    }
    if (!ask_now) {
        f->users++;
    }
    pthread_mutex_unlock(&l->mu);
    f = ask_now ? borrow(l, block) : f;
    if (f->fd < 0 || f->len <= off) {
        unuse(l, f, false);
        return NULL;
    }
    return f;
}

/* ---- reading ---- */

/* What of a range of chunks is wanted: in between directly, at the edges by way of a chunk. */
struct part {
    uint32_t at;    /* of the first chunk */
    uint32_t bytes; /* of all chunks; the last one may be cut by the replica's end */
    uint32_t from;  /* wanted */
    uint32_t to;
    uint8_t *dst; /* for `from` */
    uint8_t head[CHUNK_BYTES];
    uint8_t tail[CHUNK_BYTES];
    uint32_t sums[SUMS_MAX];
};

/* The pieces of memory that chunks go to, in order. Returns how many. */
static int pieces(struct part *p, struct iovec iov[3])
{
    uint32_t end = p->at + p->bytes;
    uint32_t first = MIN(CHUNK_BYTES, p->bytes);
    uint32_t last = (p->bytes - 1) % CHUNK_BYTES + 1;
    uint32_t at = p->at;
    int n = 0;

    if (p->from > p->at || (p->bytes <= CHUNK_BYTES && p->to < end)) {
        iov[n++] = (struct iovec){ p->head, first };
        at += first;
    }
    if (at < end && p->to < end) {
        uint32_t whole = end - last - at;

        if (whole > 0) {
            iov[n++] = (struct iovec){ p->dst + (at - p->from), whole };
        }
        iov[n++] = (struct iovec){ p->tail, last };
    } else if (at < end) {
        iov[n++] = (struct iovec){ p->dst + (at - p->from), end - at };
    }
    return n;
}

/* Bytes at the start of the chunks whose sums are right. */
static uint32_t check(const struct part *p, const struct iovec *iov, int count)
{
    uint32_t good = 0;
    uint32_t k = 0;

    for (int i = 0; i < count; i++) {
        for (size_t done = 0; done < iov[i].iov_len; done += CHUNK_BYTES) {
            size_t n = MIN(CHUNK_BYTES, iov[i].iov_len - done);

            if (crc32c(0, (const uint8_t *)iov[i].iov_base + done, n) != p->sums[k++]) {
                return good;
            }
            good += (uint32_t)n;
        }
    }
    return good;
}

/* The wanted bytes of chunks that came by way of an edge. */
static void take_edges(const struct part *p, const struct iovec *iov, int count)
{
    uint32_t at = p->at;

    for (int i = 0; i < count; i++) {
        uint32_t from = MAX(at, p->from);
        uint32_t to = MIN(at + (uint32_t)iov[i].iov_len, p->to);
        const uint8_t *src = iov[i].iov_base;

        if ((src == p->head || src == p->tail) && from < to) {
            memcpy(p->dst + (from - p->from), src + (from - at), to - from);
        }
        at += (uint32_t)iov[i].iov_len;
    }
}

/* One part, inside one group. Returns the wanted bytes that are there; *ret_bad: a sum is wrong. */
static uint32_t read_part(const struct lent *f, struct part *p, bool *ret_bad)
{
    uint32_t count = layout_chunks_touched(p->at, p->bytes);
    struct iovec sums = { p->sums, (size_t)count * sizeof(p->sums[0]) };
    struct iovec iov[3];
    int n = pieces(p, iov);
    ssize_t got = preadv2(f->fd, &sums, 1, (off_t)layout_sum_at(p->at / CHUNK_BYTES), f->flags);
    uint32_t good;

    if (got != (ssize_t)sums.iov_len) {
        return 0;
    }
    got = preadv2(f->fd, iov, n, (off_t)layout_data_at(p->at), f->flags);
    if (got != (ssize_t)p->bytes) {
        return 0;
    }
    good = FAULT("client.lent.check") != 0 ? 0 : check(p, iov, n);
    *ret_bad = good < p->bytes;
    take_edges(p, iov, n);
    good = MIN(p->at + good, p->to);
    return good > p->from ? good - p->from : 0;
}

uint32_t lents_read(struct lents *l, uint64_t block, uint32_t off, uint32_t len, uint8_t *dst)
{
    uint32_t end = off + MIN(len, PACKET_BYTES);
    struct part p;
    uint32_t done = 0;
    bool bad = false;
    struct lent *f = use(l, block, off, end);

    if (f == NULL) {
        return 0;
    }
    end = MIN(end, f->len);
    while (off + done < end && !bad) {
        uint32_t stop;
        uint32_t k;

        p.from = off + done;
        p.at = p.from - p.from % CHUNK_BYTES;
        p.to = MIN(end, p.at - p.at % LAYOUT_GROUP_BYTES + LAYOUT_GROUP_BYTES);
        stop = MIN((p.to + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES, f->len);
        p.bytes = stop - p.at;
        p.dst = dst + done;
        k = read_part(f, &p, &bad);
        done += k;
        if (k < p.to - p.from) {
            break;
        }
    }
    unuse(l, f, bad);
    atomic_fetch_add(&l->bytes, done);
    return done;
}
