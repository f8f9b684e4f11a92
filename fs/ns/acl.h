/* POSIX access control lists, in the kernel's form: what system.posix_acl_access and
 * system.posix_acl_default hold (posix_acl_xattr.h: a version, then tag, permissions and id of each
 * entry, little-endian). Values only: no database, no I/O, any thread.
 */
#ifndef DFS_FS_NS_ACL_H
#define DFS_FS_NS_ACL_H

#include "cluster/base/base.h"

#include "cluster/wire/wire.h"

/* The kernel reads a list into one page. */
#define ACL_BYTES_MAX 4096
#define ACL_HEAD      4
#define ACL_ENTRY     8
#define ACL_MAX       ((ACL_BYTES_MAX - ACL_HEAD) / ACL_ENTRY)

enum acl_tag {
    ACL_USER_OBJ = 0x01,
    ACL_USER = 0x02,
    ACL_GROUP_OBJ = 0x04,
    ACL_GROUP = 0x08,
    ACL_MASK = 0x10,
    ACL_OTHER = 0x20,
};

struct acl_entry {
    uint16_t tag;
    uint16_t perm; /* 4 read, 2 write, 1 execute or search */
    uint32_t id;   /* of ACL_USER and ACL_GROUP */
};

struct acl {
    size_t count; /* 0: no list */
    struct acl_entry e[ACL_MAX];
};

/* Only what the kernel would accept: entries in the order of their tags, ACL_USER_OBJ, ACL_GROUP_OBJ
 * and ACL_OTHER once each, ACL_MASK once when users or groups are named. A value that is empty or
 * without entries is no list (count 0).
 * DFS_EINVAL; DFS_ENOTSUP: another version; DFS_ETOOBIG: more than ACL_MAX entries. */
int acl_get(struct slice value, struct acl *ret);
/* ACL_HEAD + count * ACL_ENTRY bytes. */
void acl_put(struct wire_out *out, const struct acl *acl);

/* Takes the permissions that the list means for stat() over into *mode's lower nine bits. True when
 * these say everything that the list says. */
bool acl_to_mode(const struct acl *acl, uint32_t *mode);
/* chmod(2): user, other, and mask (group, where there is no mask) become mode's. */
void acl_chmod(struct acl *acl, uint32_t mode);
/* A directory's default list becomes the access list of something made in it with this mode: both
 * lose what the other does not grant. False: mode alone says it all. */
bool acl_inherit(struct acl *acl, uint32_t *mode);

#endif
