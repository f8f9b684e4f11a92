/* The happy path: under the node's lock the range is cut into what is buffered (copied at once),
 * holes (zeroed) and pieces of blocks; those are fetched without the lock, checked and done.
 *
 * What can fail:
 *   a server (hung, slow, gone, wrong sums, too    the next copy at once; it is asked last for a while
 *   short)
 *   all copies                                     the masters are asked where they are now; again,
 *                                                  until the deadline, or for SURE_MS when servers
 *                                                  that are well say that they have none that is good
 *   the block is not known any more                the file was changed: its extents are asked for
 *                                                  and the range is read again
 */
#include "fs/client/reader.h"

#include "cluster/base/base.h"

#include "cluster/base/crc32c.h"
#include "cluster/base/fault.h"
#include "cluster/base/log.h"

#include "fs/client/client_int.h"
#include "fs/client/lent.h"
#include "fs/client/writer.h"

#define PIECES        64
#define DOUBT_MS      500
#define FIRST_BYTE_MS 2000 /* then the next copy is tried */
#define HUNG_MS       400  /* for the first byte, before it is asked whether the server hangs */
#define PAUSE_MS      50   /* before all copies are tried again; doubled */
#define PAUSE_MAX_MS  1000
#define SURE_MS       2000
#define SUMS_MAX      (PACKET_BYTES / CHUNK_BYTES + 2)

struct piece {
    uint64_t block;
    uint32_t off;
    uint32_t len;
    uint8_t *dst;
};

/* ---- one copy ---- */

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The bytes of an answer: whole chunks from base on, of which [p->off, p->off + p->len) is wanted. */
static int take_chunks(struct conn *conn, const struct piece *p, uint32_t base, uint32_t len,
                       uint64_t deadline_ms)
{
    uint8_t sums[SUMS_MAX * 4];
    uint8_t edge[CHUNK_BYTES];
    uint32_t count = (len + CHUNK_BYTES - 1) / CHUNK_BYTES;
    uint32_t end = p->off + p->len;
    bool good = true;
    int err = conn_recv_data(conn, sums, (size_t)count * 4, deadline_ms);

    for (uint32_t i = 0; i < count && err == 0;) {
        uint32_t at = base + i * CHUNK_BYTES;
        uint32_t size = MIN(CHUNK_BYTES, base + len - at);

        if (at < p->off || at + size > end) { /* only a part of this chunk is wanted */
            uint32_t from = MAX(at, p->off);
            uint32_t to = MIN(at + size, end);

            err = conn_recv_data(conn, edge, size, deadline_ms);
            good = good && (err != 0 || crc32c(0, edge, size) == get_u32(sums + (size_t)i * 4));
            if (err == 0 && from < to) {
                memcpy(p->dst + (from - p->off), edge + (from - at), to - from);
            }
            i++;
            continue;
        }
        uint32_t whole = MIN((end - at) / CHUNK_BYTES, count - i);

        whole = MAX(whole, 1); /* the last chunk of a replica may be short */
        uint32_t bytes = MIN(whole * CHUNK_BYTES, base + len - at);
        uint8_t *dst = p->dst + (at - p->off);

        err = conn_recv_data(conn, dst, bytes, deadline_ms);
        for (uint32_t k = 0; k < whole && err == 0; k++) {
            uint32_t part = MIN(CHUNK_BYTES, bytes - k * CHUNK_BYTES);

            good = good && crc32c(0, dst + (size_t)k * CHUNK_BYTES, part) ==
                               get_u32(sums + (size_t)(i + k) * 4);
        }
        i += whole;
    }
    return err != 0 || good ? err : DFS_ECHECKSUM;
}

static int first_byte(struct client *c, uint32_t node, struct conn *conn, struct frame *f,
                      struct slice *msg, uint64_t first_ms)
{
    int err = conn_recv(conn, f, msg, MIN(first_ms, clock_mono_ms() + HUNG_MS));

    if (err != DFS_ETIMEOUT || conn_broken(conn) || clock_mono_ms() >= first_ms) {
        return err;
    }
    return peers_hung(c->peers, &node, 1) != 0 ? err : conn_recv(conn, f, msg, first_ms);
}

/* PACKET_BYTES at most. */
static int ask(struct client *c, uint32_t node, struct conn *conn, const struct piece *p,
               uint64_t first_ms, uint64_t deadline_ms)
{
    struct block_read_req q = { .block = p->block, .offset = p->off, .len = p->len };
    struct block_read_rep r;
    struct frame f = { .type = RPC_block_read, .req_id = p->block + p->off };
    struct wire_out out;
    struct slice msg;
    int err = FAULT("client.read.send");

    wire_out_init(&out, 256);
    block_read_req_put(&out, &q);
    err = err != 0 ? err : conn_send(conn, &f, wire_out_slice(&out), NULL, 0, first_ms);
    wire_out_fini(&out);
    err = err != 0 ? err : first_byte(c, node, conn, &f, &msg, first_ms);
    if (err != 0) {
        return err;
    }
    if (f.status != 0) {
        return f.data_len == 0 ? (int)f.status : DFS_EMALFORMED;
    }
    if (f.type != RPC_block_read || f.req_id != p->block + p->off ||
        block_read_rep_get(msg, &r) != 0 || r.offset % CHUNK_BYTES != 0 || r.offset > p->off ||
        r.len > PACKET_BYTES + CHUNK_BYTES ||
        f.data_len != r.len + (r.len + CHUNK_BYTES - 1) / CHUNK_BYTES * 4) {
        return DFS_EMALFORMED;
    }
    err = take_chunks(conn, p, r.offset, r.len, deadline_ms);
    return err == 0 && r.offset + r.len < p->off + p->len ? DFS_EOFFSET : err;
}

/* From one server; an idle connection may be stale, so a lost one is tried afresh. patience_ms: for the
 * first byte. */
static int fetch_from(struct client *c, uint32_t node, const struct piece *p, uint64_t patience_ms,
                      uint64_t deadline_ms)
{
    uint64_t first_ms = MIN(deadline_ms, clock_mono_ms() + patience_ms);
    uint64_t greeted_ms =
        MIN(first_ms, clock_mono_ms() + peers_greeting_ms(c->peers, node, patience_ms / 3));

    for (bool fresh = false;; fresh = true) {
        struct conn *conn = NULL;
        bool reused;
        int err = peers_connect(c->peers, node, fresh, greeted_ms, &conn, &reused);

        if (err != 0) {
            return err;
        }
        atomic_fetch_add(&c->read_requests, 1);
        err = ask(c, node, conn, p, first_ms, deadline_ms);
        if (err == 0 || (err_retry(err) == RETRY_REPLICA && !conn_broken(conn) &&
                         err != DFS_ETIMEOUT && err != DFS_ECONN)) {
            peers_release(c->peers, node, conn);
        } else {
            conn_close(conn);
        }
        if (err != DFS_ECONN || !reused) {
            return err;
        }
    }
}

/* Bytes came that do not match their sums: that server is asked to check its copy, and tells the
 * masters itself, because the fault may as well be this machine's. Once, without patience. */
static void doubt(struct client *c, uint32_t node, uint64_t block)
{
    struct block_check_req q = { .block = block };
    uint64_t deadline_ms = clock_mono_ms() + DOUBT_MS;
    struct conn *conn = NULL;
    struct wire_out out;
    struct slice rep;
    bool reused;

    if (peers_connect(c->peers, node, false, deadline_ms, &conn, &reused) != 0) {
        return;
    }
    wire_out_init(&out, 64);
    block_check_req_put(&out, &q);
    if (conn_call(conn, RPC_block_check, wire_out_slice(&out), &rep, deadline_ms) == DFS_OK) {
        peers_release(c->peers, node, conn);
    } else {
        conn_close(conn); /* its answer may still come */
    }
    wire_out_fini(&out);
}

/* ---- any copy ---- */

int reader_locate(struct client *c, uint64_t block, uint64_t deadline_ms)
{
    struct locate_req q;
    struct locate_rep r;
    struct wire_out list;
    struct meta_call call;
    struct slice rep;
    int err = meta_begin(c->meta, META_QUERY, NULL, deadline_ms, &call);

    if (err != 0) {
        return err;
    }
    wire_out_init(&list, 64);
    block_ref_put(&list, &(struct block_ref){ .block = block });
    q.blocks = wire_out_list(&list, 1);
    locate_req_put(call.out, &q);
    err = meta_run(&call, RPC_locate, &rep);
    err = err != 0 ? err : locate_rep_get(rep, &r);
    if (err == 0) {
        err = r.blocks.count == 0 ? DFS_ENOBLOCK : peers_learn(c->peers, r.blocks);
    }
    meta_end(&call);
    wire_out_fini(&list);
    return err;
}

/* A server that is well says that its copy is of no use. */
static bool final(int err)
{
    return err == DFS_ENOBLOCK || err == DFS_EOFFSET || err == DFS_ECHECKSUM ||
           err == DFS_EDAMAGED || err == DFS_EIO || err == DFS_EVOLUME;
}

/* Every known copy once. *ret_sure: all of them are of no use, and will not be. */
static int try_copies(struct client *c, const struct piece *p, uint64_t patience_ms,
                      uint64_t deadline_ms, bool *ret_sure)
{
    struct where where;
    int err = DFS_EMISSING;

    *ret_sure = false;
    if (!peers_where(c->peers, p->block, &where)) {
        return err;
    }
    *ret_sure = true;
    for (uint32_t i = 0; i < where.count; i++) {
        err = fetch_from(c, where.node[i], p, patience_ms, deadline_ms);
        if (err == 0 || err == DFS_EINTR) {
            return err;
        }
        *ret_sure = *ret_sure && final(err);
        atomic_fetch_add(&c->read_failovers, 1);
        log_event(LOG_INFO, "client.read", "block=%ju off=%u node=%u err=%s", (uintmax_t)p->block,
                  p->off, where.node[i], err_name(err));
        if (err == DFS_ENOBLOCK || err == DFS_EOFFSET || err == DFS_ECHECKSUM) {
            peers_forget(c->peers, p->block, where.node[i]);
            if (err == DFS_ECHECKSUM) {
                doubt(c, where.node[i], p->block);
            }
        } else {
            peers_mark_bad(c->peers, where.node[i]);
        }
    }
    return err;
}

static int fetch_piece(struct client *c, const struct piece *p, uint64_t deadline_ms)
{
    uint64_t patience_ms = FIRST_BYTE_MS;
    uint64_t began_ms = clock_mono_ms();
    uint64_t unsure_ms = began_ms; /* when there was hope last */
    uint64_t wait_ms = PAUSE_MS;
    bool sure;
    int err = try_copies(c, p, patience_ms, deadline_ms, &sure);

    while (err != 0) {
        bool over;
        int asked;

        if (err == DFS_EINTR || cancel_now(began_ms, clock_mono_ms())) {
            return DFS_EINTR;
        }
        asked = atomic_load(&c->ending) ? DFS_ENOBLOCK : reader_locate(c, p->block, deadline_ms);

        if (asked == DFS_ENOBLOCK) {
            return asked;
        }
        patience_ms *= 2;
        err = asked != 0 ? asked : try_copies(c, p, patience_ms, deadline_ms, &sure);
        unsure_ms = asked != 0 || !sure ? clock_mono_ms() : unsure_ms;
        over = clock_mono_ms() - unsure_ms >= SURE_MS;
        if (err != 0 && (over || !pause_ms(wait_ms, deadline_ms))) {
            log_event(LOG_WARN, "client.read", "block=%ju err=%s", (uintmax_t)p->block,
                      err_name(err));
            return err == DFS_ETIMEOUT ? err : DFS_EMISSING;
        }
        wait_ms = MIN(wait_ms * 2, PAUSE_MAX_MS);
    }
    return DFS_OK;
}

int reader_fetch(struct client *c, uint64_t block, uint32_t off, uint32_t len, uint8_t *dst,
                 uint64_t deadline_ms)
{
    int err = DFS_OK;

    for (uint32_t done = 0; done < len && err == 0;) {
        uint32_t here =
            c->lents != NULL ? lents_read(c->lents, block, off + done, len - done, dst + done) : 0;
        struct piece p = { block, off + done + here, MIN(len - done, PACKET_BYTES) - here,
                           dst + done + here };

        err = p.len > 0 ? fetch_piece(c, &p, deadline_ms) : DFS_OK;
        done += here + p.len;
    }
    return err;
}

/* ---- a range of a file ---- */

/* Cuts [off, off + len) into pieces to fetch; the rest of it is filled in at once. Returns how many
 * bytes are covered: less than len when there are too many pieces. */
static size_t plan_locked(const struct node *n, uint8_t *p, uint64_t off, size_t len,
                          struct piece *pieces, int *ret_count)
{
    size_t done = 0;
    int count = 0;

    while (done < len && count < PIECES) {
        uint64_t pos = off + done;
        uint64_t run;
        const uint8_t *buffered = writer_peek_locked(n, pos, &run);
        size_t k = (size_t)MIN(run, len - done);
        struct extent e;

        if (buffered != NULL) {
            memcpy(p + done, buffered, k);
        } else if (!extmap_find(&n->map, pos, &e) || e.off >= pos + k) {
            memset(p + done, 0, k);
        } else if (e.off > pos) {
            k = (size_t)(e.off - pos);
            memset(p + done, 0, k);
        } else {
            k = (size_t)MIN(k, e.len - (pos - e.off));
            pieces[count++] = (struct piece){ e.block, e.block_off + (uint32_t)(pos - e.off),
                                              (uint32_t)k, p + done };
        }
        done += k;
    }
    *ret_count = count;
    return done;
}

static int read_some(struct node *n, uint8_t *p, size_t len, uint64_t off, size_t *ret_len,
                     uint64_t deadline_ms)
{
    struct piece pieces[PIECES];
    int count = 0;
    size_t done = 0;
    uint64_t size;
    int err = node_fetch_locked(n, off, off + len, deadline_ms);

    if (err != 0) {
        return err;
    }
    size = node_visible_locked(n);
    if (off < size) {
        done = plan_locked(n, p, off, (size_t)MIN(len, size - off), pieces, &count);
    }
    pthread_mutex_unlock(&n->mu);
    for (int i = 0; i < count && err == 0; i++) {
        err = reader_fetch(n->c, pieces[i].block, pieces[i].off, pieces[i].len, pieces[i].dst,
                           deadline_ms);
    }
    if (err == 0) {
        *ret_len = done;
    }
    return err;
}

int reader_read(struct node *n, void *p, size_t len, uint64_t off, size_t *ret_len,
                uint64_t deadline_ms)
{
    uint8_t *to = p;
    size_t done = 0;

    while (done < len) {
        size_t k = 0;
        int err = read_some(n, to + done, len - done, off + done, &k, deadline_ms);

        if (err == DFS_ENOBLOCK && !atomic_load(&n->c->ending) && clock_mono_ms() < deadline_ms) {
            pthread_mutex_lock(&n->mu);
            n->stale = true;
            pthread_mutex_unlock(&n->mu);
            continue;
        }
        if (err != 0) {
            return err == DFS_ENOBLOCK ? DFS_EMISSING : err;
        }
        if (k == 0) {
            break;
        }
        done += k;
    }
    *ret_len = done;
    return DFS_OK;
}
