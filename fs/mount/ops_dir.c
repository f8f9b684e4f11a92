/* Reading directories.
 *
 * A handle keeps one page of the master's entries. The kernel continues at the offset of the last
 * entry it took: that is where the handle stands, unless somebody sought; then the page is dropped
 * and the next one starts behind that cookie. Offsets are 0 start, 1 behind ".", 2 behind "..", the
 * master's cookies beyond.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/client/memory.h"
#include "fs/mount/internal.h"

#define DIR_TAG      0x64697268u
#define FIRST_COOKIE 3 /* smaller ones are told as this: they are not seen in practice */

struct dirh {
    uint32_t tag;
    pthread_mutex_t mu; /* guards the rest: the kernel may send several reads of one handle */
    uint64_t ino;
    uint64_t at; /* offset that the kernel will go on with */
    int err;     /* the next page could not be had: told once what is here is read */
    struct dir_page page;
    size_t pos; /* of its entries: the next one */
};

static struct dirh *dirh_of(struct fuse_file_info *fi)
{
    struct dirh *h = (struct dirh *)(uintptr_t)fi->fh;

    ASSERT(h != NULL && h->tag == DIR_TAG);
    return h;
}

static void dirh_free(struct dirh *h)
{
    (void)pthread_mutex_destroy(&h->mu);
    dir_page_fini(&h->page);
    h->tag = 0;
    free(h);
}

/* Whoever opened a directory may read it, whatever happens to its mode: the kernel has checked that
 * the caller may, unless it takes it for somebody else than the masters do. */
static int check_open(fuse_req_t req, fuse_ino_t node)
{
    struct mount *m = mount_of(req);
    struct caller who;

    if (!caller_squashed(req)) {
        return 0;
    }
    caller_of(req, &who);
    return client_access(m->client, &who.cr, to_ino(m, node), PERM_READ);
}

void *dirh_adopt(uint64_t ino)
{
    struct dirh *h = x_alloc(sizeof(*h));

    h->tag = DIR_TAG;
    h->ino = ino;
    ASSERT(pthread_mutex_init(&h->mu, NULL) == 0);
    return h;
}

static void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    int err = check_open(req, node);
    struct dirh *h;
    uint64_t fh;

    if (err != 0) {
        reply_err(req, "opendir", node, err);
        return;
    }
    h = dirh_adopt(to_ino(m, node));
    err = handles_add(m->handles, h->ino, fi->flags | O_DIRECTORY, h, &fi->fh);
    fh = fi->fh;
    if (err != 0) {
        dirh_free(h);
        reply_err(req, "opendir", node, err);
    } else if (fuse_reply_open(req, fi) == -ENOENT) { /* interrupted: nobody will release it */
        dirh_free(handles_remove(m->handles, fh));
    }
}

static void op_releasedir(fuse_req_t req, fuse_ino_t node UNUSED, struct fuse_file_info *fi)
{
    dirh_free(dirh_of(fi));
    fuse_reply_err(req, 0);
}

/* Every change of a directory is durable before it is answered. */
static void op_fsyncdir(fuse_req_t req, fuse_ino_t node UNUSED, int datasync UNUSED,
                        struct fuse_file_info *fi UNUSED)
{
    fuse_reply_err(req, 0);
}

/* ---- pages ---- */

static bool take_entry(void *arg, const struct dir_entry *e, const struct attr *attr)
{
    struct dir_page *p = arg;
    struct dir_page_entry *to;

    if (p->count == p->cap) {
        p->cap = MAX(64, p->cap * 2);
        p->entries = x_realloc(p->entries, p->cap * sizeof(*p->entries));
    }
    if (p->names_cap - p->names_len <= e->name.len) {
        p->names_cap = MAX(p->names_cap * 2, p->names_len + e->name.len + 4096);
        p->names = x_realloc(p->names, p->names_cap);
    }
    to = &p->entries[p->count++];
    *to = (struct dir_page_entry){
        .off = MAX(e->cookie, FIRST_COOKIE),
        .name = p->names_len,
        .mode = e->mode,
        .has_attr = attr != NULL,
        .attr.ino = e->ino,
    };
    if (attr != NULL) {
        to->attr = *attr;
    }
    memcpy(p->names + p->names_len, e->name.p, e->name.len);
    p->names_len += e->name.len;
    p->names[p->names_len++] = '\0';
    return true;
}

/* Of the pages of all open directories. */
static _Atomic size_t pages_bytes;

static void count_page(struct dir_page *p)
{
    size_t bytes = p->cap * sizeof(*p->entries) + p->names_cap;

    atomic_fetch_add(&pages_bytes, bytes - p->counted);
    p->counted = bytes;
}

/* Nothing of its entries is left, in memory either. */
static void empty_page(struct dir_page *p)
{
    struct dir_page rest = { .cookie = p->cookie, .eof = p->eof };

    dir_page_fini(p);
    *p = rest;
}

int dir_page_read(struct mount *m, uint64_t ino, bool plus, struct dir_page *page)
{
    bool few = atomic_load(&pages_bytes) > memory_dirs(m->conf->client_cache);
    int err;

    if (few) {
        empty_page(page);
    }
    page->count = page->names_len = 0;
    page->touch = touch_now(m);
    err = client_readdir(m->client, &cred_root, ino, &page->cookie, plus, few, take_entry, page,
                         &page->eof);
    count_page(page);
    return err;
}

void dir_page_copy(struct dir_page *to, const struct dir_page *from)
{
    dir_page_fini(to);
    *to = *from;
    to->cap = from->count;
    to->names_cap = from->names_len;
    to->entries = x_alloc((from->count + 1) * sizeof(*to->entries));
    to->names = x_alloc(from->names_len + 1);
    if (from->count > 0) {
        memcpy(to->entries, from->entries, from->count * sizeof(*to->entries));
        memcpy(to->names, from->names, from->names_len);
    }
    to->counted = 0;
    count_page(to);
}

void dir_page_fini(struct dir_page *page)
{
    atomic_fetch_sub(&pages_bytes, page->counted);
    free(page->entries);
    free(page->names);
    *page = (struct dir_page){ 0 };
}

/* ---- answers ---- */

static void seek_locked(struct dirh *h, uint64_t off)
{
    h->at = off;
    h->page.cookie = off >= FIRST_COOKIE ? off : 0;
    h->page.eof = false;
    h->err = 0;
    h->pos = h->page.count = 0;
}

static int next_page_locked(struct mount *m, struct dirh *h, bool plus)
{
    bool late = false;
    int err;

    h->pos = 0;
    if (h->ino != m->root || h->page.cookie != 0) {
        return dir_page_read(m, h->ino, plus, &h->page);
    }
    err = keeper_get_list(m, &h->page, &late);
    if (err == 0 && late && !h->page.eof) {
        h->err = DFS_ETIMEOUT; /* of what is behind it nothing is known */
    }
    return err;
}

/* What the kernel is sent to, entry by entry. */
struct out {
    fuse_req_t req;
    char *p;
    size_t len, cap;
    bool plus;
};

/* false: it does not fit any more. */
static bool put(struct out *o, const char *name, const struct fuse_entry_param *e, uint64_t off)
{
    size_t room = o->cap - o->len;
    size_t need = o->plus
                      ? fuse_add_direntry_plus(o->req, o->p + o->len, room, name, e, (off_t)off)
                      : fuse_add_direntry(o->req, o->p + o->len, room, name, &e->attr, (off_t)off);

    if (need > room) {
        return false;
    }
    o->len += need;
    return true;
}

/* "." and "..": inode 0 in the entry means that the kernel shall not look at the attributes. */
static bool put_dot(struct out *o, const char *name, uint64_t off, fuse_ino_t node)
{
    struct fuse_entry_param e = { .attr = { .st_ino = node, .st_mode = S_IFDIR } };

    return put(o, name, &e, off);
}

/* The kernel takes attributes for news. Those of a page that lies here for a while may be older than
 * what this mount has done since: then the name alone is given. */
static bool put_entry(struct mount *m, struct out *o, const struct dirh *h,
                      const struct dir_page_entry *d)
{
    struct fuse_entry_param e = { 0 };

    if (d->has_attr && !touched_since(m, h->ino, h->page.touch) &&
        !touched_since(m, d->attr.ino, h->page.touch) &&
        !(S_ISREG(d->mode) && client_content_old(m->client, d->attr.ino, NULL))) {
        attr_to_entry(m, &d->attr, &e);
    } else {
        e.attr.st_ino = to_node(m, d->attr.ino);
        e.attr.st_mode = d->mode;
    }
    return put(o, h->page.names + d->name, &e, d->off);
}

static int fill_locked(struct mount *m, struct dirh *h, fuse_ino_t node, struct out *o)
{
    if (h->at == 0) {
        if (!put_dot(o, ".", 1, node)) {
            return DFS_EINVAL;
        }
        h->at = 1;
    }
    if (h->at == 1) {
        /* The parent's number costs a round trip and nobody looks at it: as FUSE says "unknown". */
        if (!put_dot(o, "..", 2, node == FUSE_ROOT_ID ? node : UINT32_MAX)) {
            return 0;
        }
        h->at = 2;
    }
    for (;;) {
        if (h->pos < h->page.count) {
            if (!put_entry(m, o, h, &h->page.entries[h->pos])) {
                return 0;
            }
            h->at = h->page.entries[h->pos++].off;
        } else if (h->page.eof) {
            empty_page(&h->page); /* an open directory needs no memory for what is told */
            h->pos = 0;
            return 0;
        } else {
            int err = h->err != 0 ? h->err : next_page_locked(m, h, o->plus);

            h->err = err != 0 && o->len > 0 ? err : 0;
            if (err != 0) {
                return o->len > 0 ? 0 : err;
            }
        }
    }
}

static void read_entries(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
                         struct fuse_file_info *fi, bool plus)
{
    struct out o = { req, thread_buffer(), 0, MIN(size, WRITE_BYTES), plus };
    struct mount *m = mount_of(req);
    struct dirh *h = dirh_of(fi);
    int err;

    (void)pthread_mutex_lock(&h->mu);
    if (off == 0 || (uint64_t)off != h->at) {
        seek_locked(h, (uint64_t)off);
    }
    err = fill_locked(m, h, node, &o);
    (void)pthread_mutex_unlock(&h->mu);
    if (err != 0) {
        reply_err(req, "readdir", node, err);
    } else {
        fuse_reply_buf(req, o.p, o.len);
    }
}

static void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    read_entries(req, node, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
                           struct fuse_file_info *fi)
{
    read_entries(req, node, size, off, fi, true);
}

void ops_add_dir(struct fuse_lowlevel_ops *ops)
{
    ops->opendir = op_opendir;
    ops->releasedir = op_releasedir;
    ops->fsyncdir = op_fsyncdir;
    ops->readdir = op_readdir;
    ops->readdirplus = op_readdirplus;
}
