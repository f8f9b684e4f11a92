#include "fs/ns/perm.h"

#include <sys/stat.h>

bool perm_is_root(const struct call_hdr *who)
{
    return who->uid == 0;
}

bool perm_in_group(const struct call_hdr *who, uint32_t gid)
{
    struct wire_in in = wire_in_of(who->groups);

    if (who->gid == gid) {
        return true;
    }
    while (in.err == 0 && in.left != 0) {
        if (wire_get_u32(&in) == gid && in.err == 0) {
            return true;
        }
    }
    return false;
}

bool perm_is_owner(const struct call_hdr *who, const struct attr *a)
{
    return perm_is_root(who) || who->uid == a->uid;
}

/* May set-group-id be given to, or kept on, a file of this group? */
static bool may_set_group(const struct call_hdr *who, uint32_t gid)
{
    return perm_is_root(who) || perm_in_group(who, gid);
}

static bool grants(unsigned perm, unsigned want)
{
    return (perm & want) == want;
}

/* The caller is not the owner. The first entry that fits decides; of several groups, any that
 * grants. */
static bool list_grants(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
                        unsigned want)
{
    unsigned mask = a->mode >> 3 & 7;
    bool member = false;

    for (size_t i = 0; i < acl->count; i++) {
        const struct acl_entry *e = &acl->e[i];

        if (e->tag == ACL_USER && e->id == who->uid) {
            return grants(e->perm & mask, want);
        }
        if ((e->tag == ACL_GROUP_OBJ && perm_in_group(who, a->gid)) ||
            (e->tag == ACL_GROUP && perm_in_group(who, e->id))) {
            member = true;
            if (grants(e->perm, want)) {
                return grants(mask, want);
            }
        }
    }
    return !member && grants(a->mode & 7, want);
}

static bool mode_grants(const struct call_hdr *who, const struct attr *a, unsigned want)
{
    unsigned group = a->mode >> 3 & 7, other = a->mode & 7;

    if (((group ^ other) & want) == 0) {
        return grants(other, want); /* whoever it is */
    }
    return grants(perm_in_group(who, a->gid) ? group : other, want);
}

int perm_check(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
               unsigned want)
{
    bool ok;

    if (perm_is_root(who)) {
        ok = (want & PERM_EXEC) == 0 || S_ISDIR(a->mode) || (a->mode & 0111) != 0;
    } else if (who->uid == a->uid) {
        ok = grants(a->mode >> 6 & 7, want);
    } else if (acl != NULL &&
               (a->mode & S_IRWXG) != 0) { /* Linux asks no list with an empty mask */
        ok = list_grants(who, a, acl, want);
    } else {
        ok = mode_grants(who, a, want);
    }
    return ok ? 0 : DFS_EACCES;
}

int perm_sticky(const struct call_hdr *who, const struct attr *dir, const struct attr *a)
{
    bool ok = (dir->mode & S_ISVTX) == 0 || perm_is_owner(who, a) || perm_is_owner(who, dir);

    return ok ? 0 : DFS_EPERM;
}

/* ---- attributes ---- */

static int check_owner_change(const struct call_hdr *who, const struct attr *a,
                              const struct setattr_req *req)
{
    bool owner = perm_is_owner(who, a);

    if ((req->valid & SET_UID) != 0 && (!owner || req->uid != a->uid)) {
        return DFS_EPERM;
    }
    if ((req->valid & SET_GID) != 0 &&
        (!owner || (req->gid != a->gid && !perm_in_group(who, req->gid)))) {
        return DFS_EPERM;
    }
    return 0;
}

/* Any time is the owner's to set; "both now" is also a writer's. */
static int check_times(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
                       uint32_t valid)
{
    const uint32_t now = SET_ATIME_NOW | SET_MTIME_NOW;

    if ((valid & (SET_ATIME | SET_MTIME | now)) == 0 || perm_is_owner(who, a)) {
        return 0;
    }
    if ((valid & (SET_ATIME | SET_MTIME)) != 0) {
        return DFS_EPERM;
    }
    if ((valid & SET_SIZE) != 0) {
        return 0; /* a truncate brings its time along */
    }
    return (valid & now) == now ? perm_check(who, a, acl, PERM_WRITE) : DFS_EPERM;
}

int perm_setattr(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
                 const struct setattr_req *req)
{
    int err;

    if (perm_is_root(who)) {
        return 0;
    }
    err = (req->valid & SET_SIZE) != 0 ? perm_check(who, a, acl, PERM_WRITE) : 0;
    err = err != 0 ? err : check_owner_change(who, a, req);
    if (err == 0 && (req->valid & SET_MODE) != 0 && !perm_is_owner(who, a)) {
        err = DFS_EPERM;
    }
    return err != 0 ? err : check_times(who, a, acl, req->valid);
}

uint32_t perm_without_set_id(const struct call_hdr *who, const struct attr *a)
{
    uint32_t mode = a->mode & ~(uint32_t)S_ISUID;

    /* sgid without group execute is not a privilege to take away from the group's members */
    if ((mode & S_IXGRP) != 0 || !may_set_group(who, a->gid)) {
        mode &= ~(uint32_t)S_ISGID;
    }
    return mode;
}

uint32_t perm_setattr_mode(const struct call_hdr *who, const struct attr *a,
                           const struct setattr_req *req)
{
    bool chowned = (req->valid & (SET_UID | SET_GID)) != 0 && !S_ISDIR(a->mode);
    bool written =
        (req->valid & SET_KILL_SUID) != 0 || ((req->valid & SET_SIZE) != 0 && !perm_is_root(who));
    uint32_t mode;

    if ((req->valid & SET_MODE) == 0) {
        return chowned || (written && S_ISREG(a->mode)) ? perm_without_set_id(who, a) : a->mode;
    }
    mode = (a->mode & S_IFMT) | (req->mode & 07777);
    if (!may_set_group(who, (req->valid & SET_GID) != 0 ? req->gid : a->gid)) {
        mode &= ~(uint32_t)S_ISGID;
    }
    return mode;
}

/* ---- extended attributes ---- */

static const struct {
    const char *prefix;
    enum xattr_space space;
    bool whole; /* the name, not only its beginning */
} spaces[] = {
    { "user.", XATTR_USER, false },
    { "trusted.", XATTR_TRUSTED, false },
    { "security.", XATTR_SECURITY, false },
    { "system.posix_acl_access", XATTR_ACL_ACCESS, true },
    { "system.posix_acl_default", XATTR_ACL_DEFAULT, true },
};

static size_t find_space(struct slice name)
{
    size_t i = 0;

    for (; i < ARRAY_LEN(spaces); i++) {
        size_t len = strlen(spaces[i].prefix);

        if (name.len >= len && memcmp(name.p, spaces[i].prefix, len) == 0 &&
            (!spaces[i].whole || name.len == len)) {
            break;
        }
    }
    return i;
}

enum xattr_space xattr_space(struct slice name)
{
    size_t i = find_space(name);

    return i < ARRAY_LEN(spaces) ? spaces[i].space : XATTR_NONE;
}

/* Whoever may read or write the file may read and write these. */
static int check_user(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
                      bool write)
{
    if (!S_ISREG(a->mode) && !S_ISDIR(a->mode)) {
        return write ? DFS_EPERM : DFS_ENODATA;
    }
    if (write && S_ISDIR(a->mode) && (a->mode & S_ISVTX) != 0 && !perm_is_owner(who, a)) {
        return DFS_EPERM;
    }
    return perm_check(who, a, acl, write ? PERM_WRITE : PERM_READ);
}

int perm_xattr(const struct call_hdr *who, const struct attr *a, const struct acl *acl,
               struct slice name, bool write)
{
    size_t i = find_space(name);

    if (i == ARRAY_LEN(spaces)) {
        return DFS_ENOTSUP;
    }
    if (!spaces[i].whole && name.len == strlen(spaces[i].prefix)) {
        return DFS_EINVAL;
    }
    switch (spaces[i].space) {
    case XATTR_USER:
        return check_user(who, a, acl, write);
    case XATTR_TRUSTED:
        return perm_is_root(who) ? 0 : write ? DFS_EPERM : DFS_ENODATA;
    case XATTR_SECURITY:
        return perm_is_root(who) || !write ? 0 : DFS_EPERM;
    default:
        if (S_ISLNK(a->mode)) {
            return DFS_ENOTSUP;
        }
        return perm_is_owner(who, a) || !write ? 0 : DFS_EPERM;
    }
}
