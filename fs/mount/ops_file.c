/* Content: open, create, read, write, flush, fsync, lseek. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/log.h"
#include "cluster/base/metrics.h"

#include "fs/mount/internal.h"

#define FILE_TAG   0x66696c65u
#define COPY_BYTES (1u << 30) /* told of in one answer of copy_file_range */
#define READ_TRIES 16         /* while the file grows under it */

struct fileh {
    uint32_t tag;
    struct file *f;
    uint64_t fh; /* the kernel's number for it */
    bool append;
    atomic_uint_fast64_t writes; /* begun through it */
    bool can_write;
    bool sync; /* opened with O_SYNC or O_DSYNC */
    pthread_mutex_t mu;
    struct file *plain; /* guarded by: mu; a second handle without O_APPEND, NULL until needed */
};

static struct fileh *fileh_of(const struct fuse_file_info *fi)
{
    struct fileh *h = (struct fileh *)(uintptr_t)fi->fh;

    ASSERT(h != NULL && h->tag == FILE_TAG);
    return h;
}

uint64_t fileh_number(const struct fuse_file_info *fi)
{
    return fileh_of(fi)->fh;
}

bool fileh_owes(const void *obj)
{
    const struct fileh *h = obj;

    ASSERT(h->tag == FILE_TAG);
    return file_owes(h->f);
}

static struct fileh *fileh_new(struct file *f, int flags)
{
    struct fileh *h = x_alloc(sizeof(*h));

    h->tag = FILE_TAG;
    h->f = f;
    h->append = (flags & O_APPEND) != 0;
    h->can_write = (flags & O_ACCMODE) != O_RDONLY;
    h->sync = (flags & (O_SYNC | O_DSYNC)) != 0;
    ASSERT(pthread_mutex_init(&h->mu, NULL) == 0);
    return h;
}

/* Only the masters know where what is appended goes: no page has it. */
static bool past_pages(const struct fileh *h)
{
    return h->append && h->can_write;
}

static void fileh_free(struct fileh *h)
{
    if (h->plain != NULL) {
        file_close(h->plain);
    }
    file_close(h->f);
    (void)pthread_mutex_destroy(&h->mu);
    h->tag = 0;
    free(h);
}

/* What was written before is safe from this process's end, if nothing was written meanwhile. */
static int settled(struct mount *m, struct fileh *h, uint64_t writes, int err)
{
    if (err == 0 && writes == atomic_load(&h->writes)) {
        handles_dirty(m->handles, h->fh, false);
    }
    return err;
}

/* The kernel's number; DFS_ENFILE when too many are open. */
static int number(struct mount *m, struct fileh *h, struct fuse_file_info *fi)
{
    int err = handles_add(m->handles, file_ino(h->f), fi->flags, h, &h->fh);

    fi->fh = h->fh;
    return err;
}

static int open_flags(int flags)
{
    return flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_NOATIME | FILE_EXEC);
}

/* What the kernel has in its pages it does not ask for: opening it to read counts as reading it. */
static void note_access(struct mount *m, fuse_ino_t node, struct fileh *h,
                        const struct fuse_file_info *fi, uint64_t size)
{
    bool reads = (fi->flags & O_ACCMODE) != O_WRONLY;

    if (reads && fi->keep_cache && size != 0 && file_accessed(h->f)) {
        (void)fuse_lowlevel_notify_inval_inode(m->se, node, -1, 0); /* attributes only */
    }
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    bool changed = true;
    struct fileh *h;
    struct caller who;
    struct file *f;
    struct attr a;
    int err;

    caller_of(req, &who);
    err = file_open(m->client, &who.cr, node, open_flags(fi->flags), &f, &a, &changed);
    if (err != 0) {
        reply_err(req, "open", node, err);
        return;
    }
    if ((fi->flags & O_TRUNC) != 0) {
        touch(m, node);
    }
    xattr_memo_put(m, &a);
    h = fileh_new(f, fi->flags);
    err = number(m, h, fi);
    if (err != 0) {
        fileh_free(h);
        reply_err(req, "open", node, err);
        return;
    }
    fi->keep_cache = !changed && (fi->flags & O_DIRECT) == 0; /* then none are left */
    fi->direct_io = past_pages(h);
    note_access(m, node, h, fi, a.size);
    if (fuse_reply_open(req, fi) == -ENOENT) { /* interrupted: nobody will release it */
        (void)handles_remove(m->handles, h->fh);
        fileh_free(h);
    }
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    struct fuse_entry_param e;
    bool existed = false;
    struct fileh *h;
    struct caller who;
    struct file *f;
    struct attr a;
    int err = name_check(name);

    caller_of(req, &who);
    if (err == 0) {
        err = file_create(m->client, &who.cr, to_ino(m, parent), slice_str(name),
                          S_IFREG | (mode & 07777), open_flags(fi->flags) | (fi->flags & O_EXCL),
                          &f, &a, &existed);
        touch(m, to_ino(m, parent));
    }
    if (err != 0) {
        reply_err(req, "create", parent, err);
        return;
    }
    attr_to_entry(m, &a, &e);
    h = fileh_new(f, fi->flags);
    err = number(m, h, fi);
    if (err != 0) {
        fileh_free(h);
        reply_err(req, "create", parent, err);
        return;
    }
    fi->keep_cache = !existed;
    fi->direct_io = past_pages(h);
    if (fuse_reply_create(req, &e, fi) == -ENOENT) {
        (void)handles_remove(m->handles, h->fh);
        fileh_free(h);
    }
}

int fileh_adopt(struct mount *m, uint64_t fh, const struct handle *what, void **ret)
{
    struct file *f;
    struct fileh *h;
    int err = file_open(m->client, &cred_root, what->ino,
                        what->flags & (O_ACCMODE | O_APPEND | O_NOATIME), &f, NULL, NULL);

    if (err != 0) {
        return err;
    }
    h = fileh_new(f, what->flags);
    h->fh = fh;
    if (what->lost) {
        log_event(LOG_ERROR, "mount.data_lost", "inode=%ju handle=%ju", (uintmax_t)what->ino,
                  (uintmax_t)fh);
    }
    file_adopted(f, what->lost);
    *ret = h;
    return 0;
}

static void op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    locks_release(mount_of(req), node, fi, fileh_number(fi));
    fileh_free(fileh_of(fi));
    fuse_reply_err(req, 0);
}

struct read_answer {
    fuse_req_t req;
    struct read_view view;
    size_t len;
};

static void answer_read(void *arg)
{
    struct read_answer *r = arg;

    metric_add(METRIC_mount_read, r->len);
    fuse_reply_buf(r->req, (const char *)r->view.p, r->len);
}

/* More follows what was read: it goes to memory of our own. */
static void leave_view(struct mount *m, struct read_answer *r, uint8_t *own)
{
    if (r->view.page != NULL) {
        memcpy(own, r->view.p, r->len);
        client_end_view(m->client, &r->view);
        r->view.p = own;
    }
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    struct read_answer r = { .req = req };
    uint8_t *own = (uint8_t *)thread_buffer();
    struct fileh *h = fileh_of(fi);
    struct file *f = h->f;
    bool sent = false;
    int err;

    if (past_pages(h)) { /* it may be a page of a mapping */
        file_cached(f);
    } else if ((fi->flags & O_DIRECT) == 0) {
        file_paged(f);
    }
    size = MIN(size, WRITE_BYTES);
    err = file_read_view(f, own, size, (uint64_t)off, &r.view, &r.len);
    /* Behind the end the kernel fills its page with zeros. So the end has to be where it is told. */
    for (int i = 0; err == 0 && r.len < size; i++) {
        size_t k = 0;

        sent = file_ends_at(f, (uint64_t)off + r.len, answer_read, &r);
        if (sent || i == READ_TRIES) {
            break;
        }
        leave_view(m, &r, own);
        err = file_read(f, own + r.len, size - r.len, (uint64_t)off + r.len, &k);
        r.len += k;
    }
    if (err != 0) {
        reply_err(req, "read", node, err);
    } else if (!sent) {
        answer_read(&r);
    }
    client_end_view(m->client, &r.view);
}

/* Pages of a shared mapping have their place in the file, also when the kernel sends them through a
 * handle that appends. */
static int plain_handle(struct mount *m, struct fileh *h, struct file **ret)
{
    int err = 0;

    (void)pthread_mutex_lock(&h->mu);
    if (h->plain == NULL) {
        err = file_open(m->client, &cred_root, file_ino(h->f), O_WRONLY, &h->plain, NULL, NULL);
    }
    *ret = h->plain;
    (void)pthread_mutex_unlock(&h->mu);
    return err;
}

static int write_for_caller(fuse_req_t req, fuse_ino_t node, struct file *f, const char *buf,
                            size_t size, off_t off)
{
    struct cred cr = caller_ids(req);
    struct caller who;
    int err;

    if (!file_loses_set_id(f, &cr)) {
        return file_write(f, &cr, buf, size, (uint64_t)off);
    }
    caller_of(req, &who);
    err = file_write(f, &who.cr, buf, size, (uint64_t)off);
    /* Where no page is written the kernel leaves the bits to us, and goes on with those it knows. */
    (void)fuse_lowlevel_notify_inval_inode(mount_of(req)->se, node, -1, 0);
    return err;
}

/* Of writes that do not wait for each other the kernel leaves pages behind that somebody read before
 * they were done. */
static bool beside_pages(struct file *f, const struct fuse_file_info *fi)
{
    if ((fi->flags & O_DIRECT) == 0) {
        file_paged(f);
        return false;
    }
    return !fi->writepage && file_is_paged(f);
}

static void answer_write(fuse_req_t req, const struct attr *a)
{
    fuse_reply_write(req, a->size);
}

static void op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    struct fileh *h = fileh_of(fi);
    struct file *f = h->f;
    struct attr done = { .ino = file_ino(f), .mode = S_IFREG };
    int err = 0;

    atomic_fetch_add(&h->writes, 1);
    if (fi->writepage || !h->append) { /* an append is committed when it is answered */
        handles_dirty(m->handles, h->fh, true);
    }
    if (fi->writepage) {
        err = h->append ? plain_handle(m, h, &f) : 0;
        err = err != 0 ? err : file_write(f, &cred_root, buf, size, (uint64_t)off);
    } else {
        if (h->append) { /* past the pages: the kernel leaves that to us */
            drop_capability(m, to_ino(m, node));
        }
        err = write_for_caller(req, node, f, buf, size, off);
    }
    touch(m, node);
    if (err == 0 && !fi->writepage && (fi->flags & (O_SYNC | O_DSYNC)) != 0) {
        err = file_fsync(f);
    }
    if (err != 0) {
        reply_err(req, "write", node, err);
        return;
    }
    metric_add(METRIC_mount_written, size);
    if (beside_pages(f, fi)) {
        done.size = size;
        inval_range_answer(req, &done, off, size, answer_write);
        return;
    }
    /* The kernel takes an answered append for a longer file, as it does attributes. */
    done.size = size;
    if (f != h->f || !h->append || !inval_answer(req, &done, answer_write)) {
        answer_write(req, &done);
    }
}

static void op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    struct fileh *h = fileh_of(fi);
    uint64_t writes = atomic_load(&h->writes);

    int err = h->can_write ? settled(mount_of(req), h, writes, file_flush(h->f)) : 0;

    locks_close(mount_of(req), node, fi);
    reply_err(req, "flush", node, err);
}

static void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync UNUSED,
                     struct fuse_file_info *fi)
{
    struct fileh *h = fileh_of(fi);
    uint64_t writes = atomic_load(&h->writes);

    reply_err(req, "fsync", node, settled(mount_of(req), h, writes, file_fsync(h->f)));
}

/* ---- ranges ---- */

static void op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
                     struct fuse_file_info *fi)
{
    uint64_t found = 0;
    int err;

    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    err = off < 0 ? DFS_ENOENT
                  : file_seek(fileh_of(fi)->f, whence == SEEK_DATA, (uint64_t)off, &found);
    if (err == DFS_ENOENT) {
        fuse_reply_err(req, ENXIO);
    } else if (err != 0) {
        reply_err(req, "lseek", node, err);
    } else {
        fuse_reply_lseek(req, (off_t)found);
    }
}

static void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len,
                         struct fuse_file_info *fi)
{
    struct caller who;
    int err;

    caller_of(req, &who);
    err = file_fallocate(fileh_of(fi)->f, &who.cr, (uint32_t)mode, (uint64_t)off, (uint64_t)len);
    touch(mount_of(req), node);
    reply_err(req, "fallocate", node, err);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t node UNUSED, off_t off,
                               struct fuse_file_info *fi, fuse_ino_t to_node, off_t to_off,
                               struct fuse_file_info *to_fi, size_t len, int flags UNUSED)
{
    uint64_t done = 0;
    struct caller who;
    int err;

    caller_of(req, &who);
    err = file_clone(fileh_of(fi)->f, (uint64_t)off, fileh_of(to_fi)->f, &who.cr, (uint64_t)to_off,
                     MIN(len, COPY_BYTES), &done);
    touch(mount_of(req), to_node);
    if (err == 0 && fileh_of(to_fi)->sync) { /* the source's bytes may be in memory only */
        err = file_fsync(fileh_of(to_fi)->f);
    }
    if (err != 0) {
        reply_err(req, "copy_file_range", to_node, err);
    } else {
        fuse_reply_write(req, (size_t)done);
    }
}

void ops_add_file(struct fuse_lowlevel_ops *ops)
{
    ops->open = op_open;
    ops->create = op_create;
    ops->release = op_release;
    ops->read = op_read;
    ops->write = op_write;
    ops->flush = op_flush;
    ops->fsync = op_fsync;
    ops->lseek = op_lseek;
    ops->fallocate = op_fallocate;
    ops->copy_file_range = op_copy_file_range;
}
