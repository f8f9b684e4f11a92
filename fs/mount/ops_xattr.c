/* Extended attributes. */
#include <sys/xattr.h>
#include <unistd.h>

#include "cluster/base/version.h"

#include "fs/mount/internal.h"

static int check(const char *name)
{
    return strlen(name) <= LIMIT_XATTR_NAME ? 0 : DFS_ERANGE;
}

/* Made by the masters, also of inodes that have no attributes. */
static bool is_virtual(const char *name)
{
    return strncmp(name, "dfs.", 4) == 0;
}

/* The attribute flag without which there is none of this name. */
static uint8_t flag_of(const char *name)
{
    return strcmp(name, "system.posix_acl_access") == 0    ? ATTR_ACL
           : strcmp(name, "system.posix_acl_default") == 0 ? ATTR_ACL_DEFAULT
                                                           : ATTR_XATTRS;
}

static void reply_bytes(fuse_req_t req, fuse_ino_t node, const char *op, int err, const void *p,
                        size_t cap, size_t len)
{
    if (err != 0) {
        reply_err(req, op, node, err);
    } else if (cap == 0) {
        fuse_reply_xattr(req, len);
    } else {
        fuse_reply_buf(req, p, len);
    }
}

/* What the mount tells of itself; false: it is another attribute. */
static bool about_mount(fuse_ino_t node, const char *name, char *p, size_t cap, size_t *ret_len)
{
    char text[64] = "";

    if (node == FUSE_ROOT_ID && strcmp(name, MOUNT_XATTR_PID) == 0) {
        (void)snprintf(text, sizeof(text), "%d", (int)getpid());
    } else if (node == FUSE_ROOT_ID && strcmp(name, MOUNT_XATTR_VERSION) == 0) {
        (void)snprintf(text, sizeof(text), "%s", DFS_VERSION);
    } else {
        return false;
    }
    *ret_len = strlen(text);
    memcpy(p, text, MIN(cap, *ret_len));
    return true;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
    struct mount *m = mount_of(req);
    size_t cap = MIN(size, LIMIT_XATTR_VALUE), len = 0;
    void *p = thread_buffer();
    struct caller who;
    int err = check(name);

    if (about_mount(node, name, p, cap, &len)) {
        reply_bytes(req, node, "getxattr", cap != 0 && cap < len ? DFS_ERANGE : 0, p, cap, len);
        return;
    }
    if (err == 0 && !is_virtual(name) && xattr_memo_none(m, to_ino(m, node), flag_of(name))) {
        err = DFS_ENODATA;
    }
    if (err == 0) {
        caller_of(req, &who);
        err = client_getxattr(m->client, &who.cr, to_ino(m, node), slice_str(name), p, cap, &len);
    }
    reply_bytes(req, node, "getxattr", err, p, cap, len);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
    struct mount *m = mount_of(req);
    size_t cap = MIN(size, LIMIT_XATTR_LIST), len = 0;
    void *p = thread_buffer();
    struct caller who;
    int err = 0;

    if (!xattr_memo_none(m, to_ino(m, node), ATTR_XATTRS)) {
        caller_of(req, &who);
        err = client_listxattr(m->client, &who.cr, to_ino(m, node), p, cap, &len);
    }
    reply_bytes(req, node, "listxattr", err, p, cap, len);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value,
                        size_t size, int flags)
{
    struct mount *m = mount_of(req);
    uint64_t ino = to_ino(m, node);
    struct caller who;
    int err = check(name);

    if (err == 0 && size > LIMIT_XATTR_VALUE) {
        err = DFS_ERANGE;
    }
    if (err == 0) {
        caller_of(req, &who);
        err = client_setxattr(m->client, &who.cr, ino, slice_str(name), slice_of(value, size),
                              (uint8_t)(flags & (XATTR_CREATE | XATTR_REPLACE)));
        err = err == DFS_ETOOBIG ? DFS_ENOSPC : err; /* the names of all of them are too long */
        xattr_memo_forget(m, ino);
        touch(m, ino);
    }
    reply_err(req, "setxattr", node, err);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name)
{
    struct mount *m = mount_of(req);
    uint64_t ino = to_ino(m, node);
    struct caller who;
    int err = check(name);

    if (err == 0) {
        caller_of(req, &who);
        if (strcmp(name, "security.capability") == 0 && !caller_squashed(req)) {
            who.cr = cred_root; /* the kernel's doing when somebody writes, or checked by it */
        }
        err = client_removexattr(m->client, &who.cr, ino, slice_str(name));
        xattr_memo_forget(m, ino);
        touch(m, ino);
    }
    reply_err(req, "removexattr", node, err);
}

void drop_capability(struct mount *m, uint64_t ino)
{
    const struct slice name = slice_str("security.capability");
    uint8_t value[64];
    size_t len;

    if (!xattr_memo_none(m, ino, ATTR_XATTRS) &&
        client_getxattr(m->client, &cred_root, ino, name, value, sizeof(value), &len) !=
            DFS_ENODATA) {
        (void)client_removexattr(m->client, &cred_root, ino, name);
        touch(m, ino);
    }
}

void ops_add_xattr(struct fuse_lowlevel_ops *ops)
{
    ops->getxattr = op_getxattr;
    ops->listxattr = op_listxattr;
    ops->setxattr = op_setxattr;
    ops->removexattr = op_removexattr;
}
