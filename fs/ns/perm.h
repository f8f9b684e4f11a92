/* Who may do what: POSIX permissions as decisions over values, without a database.
 *
 * The caller is the call_hdr that came with a request. User 0 may do everything, but execute a file
 * that nobody may execute. acl is the inode's access list, or NULL when it has none; where it has one,
 * its mode's group bits are the list's mask.
 *
 * Errors are those of Linux: DFS_EACCES where permission bits refuse, DFS_EPERM where only the owner
 * (or nobody but root) may.
 */
#ifndef DFS_FS_NS_PERM_H
#define DFS_FS_NS_PERM_H

#include "cluster/msgs.h"

#include "fs/msgs.h"
#include "fs/ns/acl.h"

bool perm_is_root(const struct call_hdr *who);
/* Its own group or one of the others it is in. */
bool perm_in_group(const struct call_hdr *who, uint32_t gid);
/* The inode's owner, or root. */
bool perm_is_owner(const struct call_hdr *who, const struct attr *a);

/* want: PERM_READ, PERM_WRITE, PERM_EXEC, all of them at once. */
int perm_check(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
               unsigned want);
/* May the name of a be taken out of dir, as far as the sticky bit goes? */
int perm_sticky(const struct call_hdr *who, const struct attr *dir, const struct attr *a);
int perm_setattr(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
                 const struct setattr_req *req);
/* What a's mode is after a permitted setattr: as asked for, or without set-id bits that a change of
 * owner, a write or a truncate takes away. */
uint32_t perm_setattr_mode(const struct call_hdr *who, const struct attr *a,
                           const struct setattr_req *req);

/* The mode of a file whose content the caller changes. */
uint32_t perm_without_set_id(const struct call_hdr *who, const struct attr *a);

enum xattr_space {
    XATTR_NONE, /* of a namespace that is not kept */
    XATTR_USER,
    XATTR_TRUSTED,
    XATTR_SECURITY,
    XATTR_ACL_ACCESS,
    XATTR_ACL_DEFAULT,
};
enum xattr_space xattr_space(struct slice name);
/* Also DFS_ENOTSUP (no such namespace, a symlink's list), DFS_EINVAL (nothing behind the dot), and
 * DFS_ENODATA where reading must not even tell whether there is one. */
int perm_xattr(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
               struct slice name, bool write);

#endif
