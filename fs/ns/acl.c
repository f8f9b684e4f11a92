#include "fs/ns/acl.h"

#define VERSION 2

static bool has_id(uint16_t tag)
{
    return tag == ACL_USER || tag == ACL_GROUP;
}

/* Tags in order; those that must be there once, are. */
static bool valid(const struct acl *acl)
{
    uint16_t last = 0, seen = 0;

    for (size_t i = 0; i < acl->count; i++) {
        uint16_t tag = acl->e[i].tag;

        if (acl->e[i].perm > 7 || tag < last || (tag == last && !has_id(tag))) {
            return false;
        }
        last = tag;
        seen |= tag;
    }
    if ((seen & (ACL_USER | ACL_GROUP)) != 0 && (seen & ACL_MASK) == 0) {
        return false;
    }
    return (seen & (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)) ==
           (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER);
}

static bool known_tag(uint16_t tag)
{
    return tag != 0 && tag <= ACL_OTHER && (tag & (tag - 1)) == 0;
}

int acl_get(struct slice value, struct acl *ret)
{
    struct wire_in in = wire_in_of(value);
    size_t count;

    if (value.len == 0) {
        ret->count = 0;
        return 0;
    }
    if (wire_get_u32(&in) != VERSION) {
        return in.err != 0 ? DFS_EINVAL : DFS_ENOTSUP;
    }
    count = in.left / ACL_ENTRY;
    if (in.left % ACL_ENTRY != 0 || count > ACL_MAX) {
        return count > ACL_MAX ? DFS_ETOOBIG : DFS_EINVAL;
    }
    ret->count = count;
    for (size_t i = 0; i < count; i++) {
        struct acl_entry *e = &ret->e[i];

        e->tag = wire_get_u16(&in);
        e->perm = wire_get_u16(&in);
        e->id = wire_get_u32(&in);
        if (!known_tag(e->tag)) {
            return DFS_EINVAL;
        }
    }
    return count == 0 || valid(ret) ? 0 : DFS_EINVAL;
}

void acl_put(struct wire_out *out, const struct acl *acl)
{
    wire_put_u32(out, VERSION);
    for (size_t i = 0; i < acl->count; i++) {
        const struct acl_entry *e = &acl->e[i];

        wire_put_u16(out, e->tag);
        wire_put_u16(out, e->perm);
        wire_put_u32(out, has_id(e->tag) ? e->id : UINT32_MAX);
    }
}

static struct acl_entry *find(struct acl *acl, uint16_t tag)
{
    for (size_t i = 0; i < acl->count; i++) {
        if (acl->e[i].tag == tag) {
            return &acl->e[i];
        }
    }
    return NULL;
}

/* The entry that the group bits of the mode stand for. */
static struct acl_entry *group_class(struct acl *acl)
{
    struct acl_entry *mask = find(acl, ACL_MASK);

    return mask != NULL ? mask : find(acl, ACL_GROUP_OBJ);
}

bool acl_to_mode(const struct acl *acl, uint32_t *mode)
{
    uint32_t bits = 0, mask = 0;
    bool masked = false;

    for (size_t i = 0; i < acl->count; i++) {
        const struct acl_entry *e = &acl->e[i];

        switch (e->tag) {
        case ACL_USER_OBJ:
            bits |= (uint32_t)e->perm << 6;
            break;
        case ACL_GROUP_OBJ:
            bits |= (uint32_t)e->perm << 3;
            break;
        case ACL_OTHER:
            bits |= e->perm;
            break;
        case ACL_MASK:
            masked = true;
            mask = e->perm;
            break;
        default:
            break;
        }
    }
    if (masked) {
        bits = (bits & ~070u) | mask << 3;
    }
    *mode = (*mode & ~0777u) | bits;
    return !masked; /* nobody is named without a mask */
}

void acl_chmod(struct acl *acl, uint32_t mode)
{
    struct acl_entry *user = find(acl, ACL_USER_OBJ);
    struct acl_entry *group = group_class(acl);
    struct acl_entry *other = find(acl, ACL_OTHER);

    ASSERT(user != NULL && group != NULL && other != NULL);
    user->perm = mode >> 6 & 7;
    group->perm = mode >> 3 & 7;
    other->perm = mode & 7;
}

bool acl_inherit(struct acl *acl, uint32_t *mode)
{
    struct acl_entry *user = find(acl, ACL_USER_OBJ);
    struct acl_entry *group = group_class(acl);
    struct acl_entry *other = find(acl, ACL_OTHER);

    ASSERT(user != NULL && group != NULL && other != NULL);
    user->perm &= *mode >> 6 & 7;
    group->perm &= *mode >> 3 & 7;
    other->perm &= *mode & 7;
    *mode = (*mode & ~0777u) | (uint32_t)user->perm << 6 | (uint32_t)group->perm << 3 | other->perm;
    return acl->count > 3;
}
