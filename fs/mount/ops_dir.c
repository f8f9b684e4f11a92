/* Reading directories.
 *
 * A handle keeps one page of the master's entries. The kernel continues at the offset of the last
 * entry it took: that is where the handle stands, unless somebody sought; then the page is dropped
 * and the next one starts behind that cookie. Offsets are 0 start, 1 behind ".", 2 behind "..", the
 * master's cookies beyond.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/mount/internal.h"

#define DIR_TAG      0x64697268u
#define FIRST_COOKIE 3 /* smaller ones are told as this: they are not seen in practice */

struct dirh_entry {
    uint64_t off; /* continue behind this entry */
    size_t name;  /* where it starts in names, ended by a zero byte */
    uint32_t mode;
    bool has_attr;
    struct attr attr; /* only ino without has_attr */
};

struct dirh {
    uint32_t tag;
    pthread_mutex_t mu; /* guards the rest: the kernel may send several reads of one handle */
    uint64_t ino;
    uint64_t at;     /* offset that the kernel will go on with */
    uint64_t cookie; /* where the next page starts */
    bool eof;        /* no page behind this one */
    int err;         /* the next page could not be had: told once what is here is read */
    uint64_t touch;  /* touch_now() before the page was asked for */
    struct dirh_entry *entries;
    size_t pos, count, cap;
    char *names;
    size_t names_len, names_cap;
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
    free(h->entries);
    free(h->names);
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

static bool take_entry(void *arg, const struct dir_entry *e, const struct attr *attr)
{
    struct dirh *h = arg;
    struct dirh_entry *to;

    if (h->count == h->cap) {
        h->cap = MAX(64, h->cap * 2);
        h->entries = x_realloc(h->entries, h->cap * sizeof(*h->entries));
    }
    if (h->names_cap - h->names_len <= e->name.len) {
        h->names_cap = MAX(h->names_cap * 2, h->names_len + e->name.len + 4096);
        h->names = x_realloc(h->names, h->names_cap);
    }
    to = &h->entries[h->count++];
    *to = (struct dirh_entry){
        .off = MAX(e->cookie, FIRST_COOKIE),
        .name = h->names_len,
        .mode = e->mode,
        .has_attr = attr != NULL,
        .attr.ino = e->ino,
    };
    if (attr != NULL) {
        to->attr = *attr;
    }
    memcpy(h->names + h->names_len, e->name.p, e->name.len);
    h->names_len += e->name.len;
    h->names[h->names_len++] = '\0';
    return true;
}

static void seek_locked(struct dirh *h, uint64_t off)
{
    h->at = off;
    h->cookie = off >= FIRST_COOKIE ? off : 0;
    h->eof = false;
    h->err = 0;
    h->pos = h->count = 0;
}

static int next_page_locked(struct mount *m, struct dirh *h, bool plus)
{
    h->pos = h->count = h->names_len = 0;
    h->touch = touch_now(m);
    return client_readdir(m->client, &cred_root, h->ino, &h->cookie, plus, take_entry, h, &h->eof);
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
                      const struct dirh_entry *d)
{
    struct fuse_entry_param e = { 0 };

    if (d->has_attr && !touched_since(m, h->ino, h->touch) &&
        !touched_since(m, d->attr.ino, h->touch) &&
        !(S_ISREG(d->mode) && client_content_old(m->client, d->attr.ino, NULL))) {
        attr_to_entry(m, &d->attr, &e);
    } else {
        e.attr.st_ino = to_node(m, d->attr.ino);
        e.attr.st_mode = d->mode;
    }
    return put(o, h->names + d->name, &e, d->off);
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
        if (h->pos < h->count) {
            if (!put_entry(m, o, h, &h->entries[h->pos])) {
                return 0;
            }
            h->at = h->entries[h->pos++].off;
        } else if (h->eof) {
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
