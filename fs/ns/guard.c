/* Permissions and access lists on records: fetches what fs/ns/perm.h decides over, and keeps lists and
 * modes in step. */
#include <sys/stat.h>

#include "fs/ns/ns_core.h"

static const struct slice access_name = { (const uint8_t *)"system.posix_acl_access", 23 };
static const struct slice default_name = { (const uint8_t *)"system.posix_acl_default", 24 };

/* A list that the inode's flags say is there. */
static int get_list(const struct ns_view *v, uint64_t ino, struct slice name, struct acl *ret)
{
    struct slice value;
    int err = ns_xattr_get(v, ino, name, &value);

    err = err != 0 ? err : acl_get(value, ret);
    return err == 0 && ret->count != 0 ? 0 : ns_is_fatal(err) ? err : DFS_EDAMAGED;
}

/* The access list where it matters: the owner and root go by the mode. */
static int list_for(const struct ns_view *v, const struct call_hdr *who, const struct attr *a,
                    struct acl *buf, const struct acl **ret)
{
    int err;

    *ret = NULL;
    if ((a->flags & ATTR_ACL) == 0 || perm_is_owner(who, a)) {
        return 0;
    }
    err = get_list(v, a->ino, access_name, buf);
    if (err == 0) {
        *ret = buf;
    }
    return err;
}

int ns_may(const struct ns_view *v, const struct call_hdr *who, const struct attr *a, unsigned want)
{
    const struct acl *acl;
    struct acl buf;
    int err = list_for(v, who, a, &buf, &acl);

    return err != 0 ? err : perm_check(who, a, acl, want);
}

int ns_may_set(const struct ns_view *v, const struct call_hdr *who, const struct attr *a,
               const struct setattr_req *req)
{
    const struct acl *acl;
    struct acl buf;
    int err = list_for(v, who, a, &buf, &acl);

    return err != 0 ? err : perm_setattr(who, a, acl, req);
}

int ns_may_xattr(const struct ns_view *v, const struct call_hdr *who, const struct attr *a,
                 struct slice name, bool write)
{
    const struct acl *acl;
    struct acl buf;
    int err = list_for(v, who, a, &buf, &acl);

    return err != 0 ? err : perm_xattr(who, a, acl, name, write);
}

int ns_may_remove(const struct ns_tx *tx, const struct attr *dir, const struct attr *a)
{
    int err = ns_may(&tx->v, &tx->hdr, dir, PERM_WRITE | PERM_EXEC);

    return err != 0 ? err : perm_sticky(&tx->hdr, dir, a);
}

/* ---- lists ---- */

static int put_list(struct ns_tx *tx, uint64_t ino, struct slice name, const struct acl *acl)
{
    uint8_t value[ACL_BYTES_MAX];
    struct wire_out out = wire_out_over(value, sizeof(value));

    acl_put(&out, acl);
    ASSERT(out.err == 0);
    return ns_xattr_put(tx, ino, name, wire_out_slice(&out));
}

/* Puts or removes, and a's flag says which. */
static int set_list(struct ns_tx *tx, struct attr *a, uint8_t flag, struct slice name,
                    const struct acl *acl)
{
    if (acl->count != 0) {
        a->flags |= flag | ATTR_XATTRS;
        return put_list(tx, a->ino, name, acl);
    }
    if ((a->flags & flag) == 0) {
        return 0;
    }
    a->flags &= (uint8_t)~flag;
    return ns_xattr_del(tx, a->ino, name);
}

int ns_acl_set(struct ns_tx *tx, struct attr *a, enum xattr_space space, struct slice value)
{
    struct acl acl;
    int err = acl_get(value, &acl);

    if (err != 0) {
        return err;
    }
    if (space == XATTR_ACL_DEFAULT) {
        if (!S_ISDIR(a->mode) && acl.count != 0) {
            return DFS_EACCES;
        }
        return set_list(tx, a, ATTR_ACL_DEFAULT, default_name, &acl);
    }
    if (acl.count != 0) {
        if (acl_to_mode(&acl, &a->mode)) {
            acl.count = 0;
        }
        if (!perm_is_root(&tx->hdr) && !perm_in_group(&tx->hdr, a->gid)) {
            a->mode &= ~(uint32_t)S_ISGID;
        }
    }
    return set_list(tx, a, ATTR_ACL, access_name, &acl);
}

int ns_acl_chmod(struct ns_tx *tx, const struct attr *a)
{
    struct acl acl;
    int err;

    if ((a->flags & ATTR_ACL) == 0) {
        return 0;
    }
    err = get_list(&tx->v, a->ino, access_name, &acl);
    if (err != 0) {
        return err;
    }
    acl_chmod(&acl, a->mode);
    return put_list(tx, a->ino, access_name, &acl);
}

int ns_acl_inherit(const struct ns_tx *tx, const struct attr *dir, uint32_t umask, struct attr *a,
                   struct ns_acls *ret)
{
    int err;

    ret->access = false;
    ret->dflt = false;
    if (S_ISLNK(a->mode)) {
        return 0;
    }
    if ((dir->flags & ATTR_ACL_DEFAULT) == 0) {
        a->mode &= ~(umask & 0777);
        return 0;
    }
    err = get_list(&tx->v, dir->ino, default_name, &ret->list[1]);
    if (err != 0) {
        return err;
    }
    ret->list[0] = ret->list[1];
    ret->access = acl_inherit(&ret->list[0], &a->mode);
    ret->dflt = S_ISDIR(a->mode);
    a->flags |= (ret->access ? ATTR_ACL | ATTR_XATTRS : 0) |
                (ret->dflt ? ATTR_ACL_DEFAULT | ATTR_XATTRS : 0);
    return 0;
}

int ns_acl_add(struct ns_tx *tx, uint64_t ino, const struct ns_acls *acls)
{
    int err = acls->access ? put_list(tx, ino, access_name, &acls->list[0]) : 0;

    return err == 0 && acls->dflt ? put_list(tx, ino, default_name, &acls->list[1]) : err;
}
