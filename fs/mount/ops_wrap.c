/* Around every operation: the kernel's number of an open file becomes what is behind it, and the
 * request tells libfuse how its work is broken off by Ctrl-C (cluster/base/cancel.h).
 *
 * libfuse may call back shortly after the answer, so what it is given lives as long as the thread. A
 * call that comes too late meets the thread's next request, which minds only if it waits for long. */
#include "cluster/base/cancel.h"

#include "fs/mount/internal.h"

static struct fuse_lowlevel_ops inner;
static _Thread_local struct cancel own;

static void on_interrupt(fuse_req_t req UNUSED, void *arg)
{
    struct cancel *c = arg;

    atomic_store(&c->asked, true);
}

static void begin(fuse_req_t req)
{
    atomic_store(&own.asked, false);
    cancel_begin(&own);
    fuse_req_interrupt_func(req, on_interrupt, &own);
}

/* False: it has been answered. */
static bool resolve(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, const char *op)
{
    void *obj;
    int err;

    if (fi == NULL) {
        return true;
    }
    err = takeover_handle(mount_of(req), fi->fh, &obj);
    if (err != 0) {
        reply_err(req, op, node, err);
        return false;
    }
    fi->fh = (uintptr_t)obj;
    return true;
}

/* WRAP(operation, (its parameters), (their names)) */
#define WRAP(op, params, args) \
    static void on_##op params \
    {                          \
        begin(req);            \
        inner.op args;         \
        cancel_end();          \
    }
/* The same for those with an open file: fi may be NULL. */
#define WRAP_FH(op, params, args)          \
    static void on_##op params             \
    {                                      \
        begin(req);                        \
        if (resolve(req, node, fi, #op)) { \
            inner.op args;                 \
        }                                  \
        cancel_end();                      \
    }

#define REQ  fuse_req_t req
#define NODE fuse_ino_t node
#define FI   struct fuse_file_info *fi

WRAP(lookup, (REQ, NODE, const char *name), (req, node, name))
WRAP_FH(getattr, (REQ, NODE, FI), (req, node, fi))
WRAP_FH(setattr, (REQ, NODE, struct stat *st, int set, FI), (req, node, st, set, fi))
WRAP(readlink, (REQ, NODE), (req, node))
WRAP(mknod, (REQ, NODE, const char *name, mode_t mode, dev_t dev), (req, node, name, mode, dev))
WRAP(mkdir, (REQ, NODE, const char *name, mode_t mode), (req, node, name, mode))
WRAP(unlink, (REQ, NODE, const char *name), (req, node, name))
WRAP(rmdir, (REQ, NODE, const char *name), (req, node, name))
WRAP(symlink, (REQ, const char *target, NODE, const char *name), (req, target, node, name))
WRAP(rename, (REQ, NODE, const char *name, fuse_ino_t to, const char *to_name, unsigned int flags),
     (req, node, name, to, to_name, flags))
WRAP(link, (REQ, NODE, fuse_ino_t to, const char *name), (req, node, to, name))
WRAP(open, (REQ, NODE, FI), (req, node, fi))
WRAP(create, (REQ, NODE, const char *name, mode_t mode, FI), (req, node, name, mode, fi))
WRAP_FH(read, (REQ, NODE, size_t size, off_t off, FI), (req, node, size, off, fi))
WRAP_FH(write, (REQ, NODE, const char *p, size_t size, off_t off, FI),
        (req, node, p, size, off, fi))
WRAP_FH(flush, (REQ, NODE, FI), (req, node, fi))
WRAP_FH(fsync, (REQ, NODE, int data, FI), (req, node, data, fi))
WRAP(opendir, (REQ, NODE, FI), (req, node, fi))
WRAP_FH(readdir, (REQ, NODE, size_t size, off_t off, FI), (req, node, size, off, fi))
WRAP_FH(readdirplus, (REQ, NODE, size_t size, off_t off, FI), (req, node, size, off, fi))
WRAP_FH(fsyncdir, (REQ, NODE, int data, FI), (req, node, data, fi))
WRAP(statfs, (REQ, NODE), (req, node))
WRAP(setxattr, (REQ, NODE, const char *name, const char *value, size_t size, int flags),
     (req, node, name, value, size, flags))
WRAP(getxattr, (REQ, NODE, const char *name, size_t size), (req, node, name, size))
WRAP(listxattr, (REQ, NODE, size_t size), (req, node, size))
WRAP(removexattr, (REQ, NODE, const char *name), (req, node, name))
WRAP_FH(fallocate, (REQ, NODE, int mode, off_t off, off_t len, FI), (req, node, mode, off, len, fi))
WRAP_FH(getlk, (REQ, NODE, FI, struct flock *lock), (req, node, fi, lock))
WRAP_FH(setlk, (REQ, NODE, FI, struct flock *lock, int wait), (req, node, fi, lock, wait))
WRAP_FH(flock, (REQ, NODE, FI, int what), (req, node, fi, what))
WRAP_FH(lseek, (REQ, NODE, off_t off, int whence, FI), (req, node, off, whence, fi))

static void on_copy_file_range(REQ, NODE, off_t off, FI, fuse_ino_t to, off_t to_off,
                               struct fuse_file_info *to_fi, size_t len, int flags)
{
    begin(req);
    if (resolve(req, node, fi, "copy_file_range") && resolve(req, to, to_fi, "copy_file_range")) {
        inner.copy_file_range(req, node, off, fi, to, to_off, to_fi, len, flags);
    }
    cancel_end();
}

/* The end of a handle, also of one that this process never used. */
static void end_handle(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi,
                       void (*op)(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi))
{
    void *obj = handles_remove(mount_of(req)->handles, fi->fh);

    if (obj == NULL) {
        if (op == inner.release) { /* it may have locks all the same */
            locks_release(mount_of(req), node, fi, fi->fh);
        }
        fuse_reply_err(req, 0);
        return;
    }
    begin(req);
    fi->fh = (uintptr_t)obj;
    op(req, node, fi);
    cancel_end();
}

static void on_release(REQ, NODE, FI)
{
    end_handle(req, node, fi, inner.release);
}

static void on_releasedir(REQ, NODE, FI)
{
    end_handle(req, node, fi, inner.releasedir);
}

void ops_wrap(struct fuse_lowlevel_ops *ops)
{
    inner = *ops;
#define PUT(op) ops->op = inner.op != NULL ? on_##op : NULL
    PUT(lookup);
    PUT(getattr);
    PUT(setattr);
    PUT(readlink);
    PUT(mknod);
    PUT(mkdir);
    PUT(unlink);
    PUT(rmdir);
    PUT(symlink);
    PUT(rename);
    PUT(link);
    PUT(open);
    PUT(create);
    PUT(read);
    PUT(write);
    PUT(flush);
    PUT(fsync);
    PUT(opendir);
    PUT(readdir);
    PUT(readdirplus);
    PUT(fsyncdir);
    PUT(statfs);
    PUT(setxattr);
    PUT(getxattr);
    PUT(listxattr);
    PUT(removexattr);
    PUT(fallocate);
    PUT(copy_file_range);
    PUT(lseek);
    PUT(release);
    PUT(releasedir);
    PUT(getlk);
    PUT(setlk);
    PUT(flock);
#undef PUT
}
