/* Who may do what: tables of decisions, and the same through the state machine. */
#include "fs/ns/perm.h"

#include <linux/fs.h>

#include "test/unit/ns_rig.h"

#define ROOT INODE_ROOT
#define ANN  1000 /* owns what there is, in group 100 */
#define BOB  1001 /* in group 100 and 200 */
#define EVE  1002 /* in group 300 */

static struct rig r;

static struct call_hdr caller(uint32_t uid)
{
    static const uint32_t bobs[] = { 200, 100 };
    struct call_hdr who = { .uid = uid, .gid = uid == 0 ? 0 : uid == ANN ? 100 : 300 };

    if (uid == BOB) {
        who.gid = 201;
        who.groups = slice_of(bobs, sizeof(bobs));
    }
    return who;
}

/* ---- decisions ---- */

static void permission_bits(void)
{
    static const struct {
        uint32_t mode;
        unsigned want;
        int root, ann, bob, eve; /* 1: may */
    } cases[] = {
        { S_IFREG | 0000, PERM_READ, 1, 0, 0, 0 },
        { S_IFREG | 0000, PERM_EXEC, 0, 0, 0, 0 },
        { S_IFREG | 0001, PERM_EXEC, 1, 0, 0, 1 },
        { S_IFDIR | 0000, PERM_EXEC | PERM_WRITE, 1, 0, 0, 0 },
        { S_IFREG | 0400, PERM_READ, 1, 1, 0, 0 },
        { S_IFREG | 0040, PERM_READ, 1, 0, 1, 0 }, /* the owner is not looked at as a member */
        { S_IFREG | 0004, PERM_READ, 1, 0, 0, 1 }, /* a member not as one of the others */
        { S_IFREG | 0044, PERM_READ, 1, 0, 1, 1 },
        { S_IFREG | 0640, PERM_READ | PERM_WRITE, 1, 1, 0, 0 },
        { S_IFREG | 0660, PERM_READ | PERM_WRITE, 1, 1, 1, 0 },
        { S_IFREG | 0246, PERM_READ | PERM_WRITE, 1, 0, 0, 1 },
        { S_IFDIR | 0771, PERM_EXEC, 1, 1, 1, 1 },
        { S_IFDIR | 0771, PERM_EXEC | PERM_WRITE, 1, 1, 1, 0 },
        { S_IFREG | 0000, 0, 1, 1, 1, 1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const int want[] = { cases[i].root, cases[i].ann, cases[i].bob, cases[i].eve };
        const uint32_t uids[] = { 0, ANN, BOB, EVE };
        struct attr a = { .mode = cases[i].mode, .uid = ANN, .gid = 100 };

        for (size_t u = 0; u < 4; u++) {
            struct call_hdr who = caller(uids[u]);

            if (perm_check(&who, &a, NULL, cases[i].want) != (want[u] ? 0 : DFS_EACCES)) {
                printf("# mode %o, want %u, user %u\n", a.mode, cases[i].want, who.uid);
                CHECK(false);
            }
        }
    }
}

static void access_lists(void)
{
    static const struct acl acl = { .count = 8,
                                    .e = { { ACL_USER_OBJ, 6, 0 },
                                           { ACL_USER, 4, BOB },
                                           { ACL_USER, 7, 1003 },
                                           { ACL_GROUP_OBJ, 0, 0 },
                                           { ACL_GROUP, 4, 300 },
                                           { ACL_GROUP, 2, 301 },
                                           { ACL_MASK, 6, 0 },
                                           { ACL_OTHER, 6, 0 } } };
    const struct attr a = { .mode = S_IFREG | 0666, .uid = ANN, .gid = 100, .flags = ATTR_ACL };
    const struct attr empty_mask = { .mode = S_IFREG | 0606, .uid = ANN, .gid = 100 };
    static const uint32_t both[] = { 300, 301 };
    struct call_hdr who = caller(BOB);

    CHECK_INT(perm_check(&who, &a, &acl, PERM_READ), 0);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_WRITE), DFS_EACCES); /* named: nothing else counts */
    who = caller(1003);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_WRITE), 0);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_EXEC), DFS_EACCES); /* masked */
    who = caller(EVE);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_READ), 0);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_WRITE), DFS_EACCES); /* a member, so no other */
    who.groups = slice_of(both, sizeof(both));
    CHECK_INT(perm_check(&who, &a, &acl, PERM_WRITE), 0);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_READ | PERM_WRITE), DFS_EACCES); /* one must do */
    who = (struct call_hdr){ .uid = 2000, .gid = 100 };
    CHECK_INT(perm_check(&who, &a, &acl, PERM_READ), DFS_EACCES);
    who.gid = 2000;
    CHECK_INT(perm_check(&who, &a, &acl, PERM_READ | PERM_WRITE), 0);
    who = caller(ANN);
    CHECK_INT(perm_check(&who, &a, &acl, PERM_WRITE), 0);
    who = caller(BOB);
    CHECK_INT(perm_check(&who, &empty_mask, &acl, PERM_WRITE), DFS_EACCES); /* by the mode */
}

static void set_attributes(void)
{
    static const struct {
        uint32_t mode;
        uint32_t valid;
        uint32_t uid, gid;
        int ann, bob, eve;
    } cases[] = {
        { 0666, SET_MODE, 0, 0, 0, DFS_EPERM, DFS_EPERM },
        { 0666, SET_UID, ANN, 0, 0, DFS_EPERM, DFS_EPERM },
        { 0666, SET_UID, EVE, 0, DFS_EPERM, DFS_EPERM, DFS_EPERM },
        { 0666, SET_GID, 0, 100, 0, DFS_EPERM, DFS_EPERM },
        { 0666, SET_GID, 0, 200, DFS_EPERM, DFS_EPERM, DFS_EPERM },
        { 0620, SET_SIZE, 0, 0, 0, 0, DFS_EACCES },
        { 0060, SET_SIZE, 0, 0, DFS_EACCES, 0, DFS_EACCES },
        { 0666, SET_ATIME, 0, 0, 0, DFS_EPERM, DFS_EPERM },
        { 0666, SET_MTIME | SET_ATIME_NOW, 0, 0, 0, DFS_EPERM, DFS_EPERM },
        { 0666, SET_MTIME_NOW, 0, 0, 0, DFS_EPERM, DFS_EPERM },
        { 0060, SET_ATIME_NOW | SET_MTIME_NOW, 0, 0, 0, 0, DFS_EACCES },
        { 0660, SET_SIZE | SET_MTIME_NOW, 0, 0, 0, 0, DFS_EACCES },
        { 0000, SET_KILL_SUID, 0, 0, 0, 0, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const int want[] = { 0, cases[i].ann, cases[i].bob, cases[i].eve };
        const uint32_t uids[] = { 0, ANN, BOB, EVE };
        struct attr a = { .mode = S_IFREG | cases[i].mode, .uid = ANN, .gid = 100 };
        struct setattr_req req = { .valid = cases[i].valid,
                                   .uid = cases[i].uid,
                                   .gid = cases[i].gid };

        for (size_t u = 0; u < 4; u++) {
            struct call_hdr who = caller(uids[u]);

            if (perm_setattr(&who, &a, NULL, &req) != want[u]) {
                printf("# case %zu, user %u\n", i, who.uid);
                CHECK(false);
            }
        }
    }
}

static void set_id_bits(void)
{
    static const struct {
        uint32_t uid;
        uint32_t mode, valid, asked, want;
    } cases[] = {
        { ANN, S_IFREG | 0755, SET_MODE, 06755, S_IFREG | 06755 },
        { ANN, S_IFREG | 06755, SET_UID, 0, S_IFREG | 0755 },
        { ANN, S_IFREG | 06745, SET_GID, 0, S_IFREG | 02745 },
        { 0, S_IFREG | 06755, SET_UID | SET_GID, 0, S_IFREG | 0755 },
        { 0, S_IFDIR | 06755, SET_UID | SET_GID, 0, S_IFDIR | 06755 },
        { EVE, S_IFREG | 06777, SET_SIZE, 0, S_IFREG | 0777 },
        { EVE, S_IFREG | 06767, SET_SIZE, 0, S_IFREG | 0767 }, /* not a member */
        { BOB, S_IFREG | 06767, SET_SIZE, 0, S_IFREG | 02767 },
        { 0, S_IFREG | 06777, SET_SIZE, 0, S_IFREG | 06777 },
        { 0, S_IFREG | 06777, SET_KILL_SUID, 0, S_IFREG | 0777 },
        { EVE, S_IFDIR | 06777, SET_ATIME_NOW, 0, S_IFDIR | 06777 },
    };
    struct attr a = { .mode = S_IFREG | 0755, .uid = EVE, .gid = 100 };
    struct setattr_req req = { .valid = SET_MODE, .mode = 06711 };
    struct call_hdr who = caller(EVE);

    CHECK_INT(perm_setattr_mode(&who, &a, &req),
              S_IFREG | 04711); /* chmod by a stranger to the group */
    who = caller(0);
    CHECK_INT(perm_setattr_mode(&who, &a, &req), S_IFREG | 06711);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        who = caller(cases[i].uid);
        a = (struct attr){ .mode = cases[i].mode, .uid = ANN, .gid = 100 };
        req = (struct setattr_req){ .valid = cases[i].valid, .mode = cases[i].asked };
        CHECK_INT(perm_setattr_mode(&who, &a, &req), cases[i].want);
    }
}

static void attribute_namespaces(void)
{
    static const struct {
        const char *name;
        uint32_t mode;
        bool write;
        int root, ann, eve;
    } cases[] = {
        { "user.x", S_IFREG | 0600, false, 0, 0, DFS_EACCES },
        { "user.x", S_IFREG | 0604, true, 0, 0, DFS_EACCES },
        { "user.x", S_IFREG | 0602, true, 0, 0, 0 },
        { "user.x", S_IFLNK | 0777, false, DFS_ENODATA, DFS_ENODATA, DFS_ENODATA },
        { "user.x", S_IFIFO | 0777, true, DFS_EPERM, DFS_EPERM, DFS_EPERM },
        { "user.x", S_IFDIR | 0777, true, 0, 0, 0 },
        { "user.x", S_IFDIR | 01777, true, 0, 0, DFS_EPERM },
        { "user.x", S_IFDIR | 01777, false, 0, 0, 0 },
        { "user.", S_IFREG | 0777, true, DFS_EINVAL, DFS_EINVAL, DFS_EINVAL },
        { "trusted.x", S_IFREG | 0777, true, 0, DFS_EPERM, DFS_EPERM },
        { "trusted.x", S_IFREG | 0777, false, 0, DFS_ENODATA, DFS_ENODATA },
        { "security.x", S_IFREG | 0777, true, 0, DFS_EPERM, DFS_EPERM },
        { "security.x", S_IFREG | 0000, false, 0, 0, 0 },
        { "system.posix_acl_access", S_IFREG | 0000, false, 0, 0, 0 },
        { "system.posix_acl_access", S_IFREG | 0777, true, 0, 0, DFS_EPERM },
        { "system.posix_acl_default", S_IFLNK | 0777, true, DFS_ENOTSUP, DFS_ENOTSUP, DFS_ENOTSUP },
        { "system.posix_acl_accessx", S_IFREG | 0777, true, DFS_ENOTSUP, DFS_ENOTSUP, DFS_ENOTSUP },
        { "userx", S_IFREG | 0777, true, DFS_ENOTSUP, DFS_ENOTSUP, DFS_ENOTSUP },
        { "other.x", S_IFREG | 0777, false, DFS_ENOTSUP, DFS_ENOTSUP, DFS_ENOTSUP },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const int want[] = { cases[i].root, cases[i].ann, cases[i].eve };
        const uint32_t uids[] = { 0, ANN, EVE };
        struct attr a = { .mode = cases[i].mode, .uid = ANN, .gid = 100 };

        for (size_t u = 0; u < 3; u++) {
            struct call_hdr who = caller(uids[u]);
            int err = perm_xattr(&who, &a, NULL, slice_str(cases[i].name), cases[i].write);

            if (err != want[u]) {
                printf("# %s, mode %o, user %u: %d\n", cases[i].name, a.mode, who.uid, err);
                CHECK(false);
            }
        }
    }
}

/* ---- through the state machine ---- */

static void act_as(uint32_t uid)
{
    struct call_hdr who = caller(uid);

    r.hdr.uid = who.uid;
    r.hdr.gid = who.gid;
    r.hdr.groups = who.groups;
}

/* A directory of ANN's, and a file "f" of hers in it. */
static struct attr place(const char *name, uint32_t mode)
{
    struct setattr_req to_ann = { .valid = SET_UID | SET_GID, .uid = ANN, .gid = 100 };
    struct attr d, f;

    act_as(0);
    CHECK_INT(rig_make(&r, ROOT, name, S_IFDIR | mode, &d), 0);
    f = rig_mkfile(&r, d.ino, "f");
    to_ann.ino = d.ino;
    CHECK_INT(do_setattr(&r, &to_ann, NULL), 0);
    to_ann.ino = f.ino;
    CHECK_INT(do_setattr(&r, &to_ann, NULL), 0);
    return d;
}

static int make_device(uint64_t parent, uint64_t rdev)
{
    struct make_req req = { .parent = parent,
                            .name = slice_str("dev"),
                            .mode = S_IFCHR | 0600,
                            .rdev = rdev,
                            .flags = MAKE_EXCL };

    return do_make(&r, &req, NULL);
}

static void names_need_the_directory(void)
{
    struct attr d = place("names", 0755), out = place("out", 0777), sub, a;
    struct readdir_req list = { .ino = d.ino, .max_bytes = 1000 };
    struct link_req to = { .parent = d.ino, .name = slice_str("l") };

    CHECK_INT(rig_lookup(&r, out.ino, "f", &a), 0);
    to.ino = a.ino;
    act_as(EVE);
    CHECK_INT(rig_lookup(&r, d.ino, "f", NULL), 0);
    CHECK_INT(ask_readdir(&r, &list, NULL), 0);
    CHECK_INT(rig_make(&r, d.ino, "n", S_IFREG | 0644, NULL), DFS_EACCES);
    CHECK_INT(rig_make(&r, d.ino, "f", S_IFREG | 0644, NULL), DFS_EEXIST);
    CHECK_INT(do_link(&r, &to, NULL), DFS_EACCES);
    CHECK_INT(rig_unlink(&r, d.ino, "f", 0), DFS_EACCES);
    CHECK_INT(rig_unlink(&r, d.ino, "none", 0), DFS_ENOENT);
    CHECK_INT(rig_rename(&r, d.ino, "f", out.ino, "g", 0), DFS_EACCES);
    CHECK_INT(rig_rename(&r, out.ino, "f", d.ino, "g", 0), DFS_EACCES);
    CHECK_INT(rig_rename(&r, out.ino, "f", d.ino, "f", 0), DFS_EACCES);
    CHECK_INT(rig_rename(&r, d.ino, "none", out.ino, "g", 0), DFS_ENOENT);
    CHECK_INT(make_device(out.ino, 0x103), DFS_EPERM);
    CHECK_INT(make_device(out.ino, 0), 0);
    act_as(ANN);
    CHECK_INT(rig_make(&r, d.ino, "sub", S_IFDIR | 0700, &sub), 0);
    act_as(EVE);
    CHECK_INT(rig_lookup(&r, sub.ino, "x", NULL), DFS_EACCES);
    list.ino = sub.ino;
    CHECK_INT(ask_readdir(&r, &list, NULL), DFS_EACCES);
    CHECK_INT(rig_make(&r, sub.ino, "x", S_IFREG | 0644, NULL), DFS_EACCES);
    CHECK_INT(rig_unlink(&r, sub.ino, "x", 0), DFS_EACCES);
    CHECK_INT(rig_rename(&r, sub.ino, "x", out.ino, "y", 0), DFS_EACCES);
    act_as(0);
    CHECK_INT(rig_make(&r, sub.ino, "x", S_IFREG | 0644, NULL), 0);
    CHECK_INT(make_device(d.ino, 0x103), 0);
}

static void sticky_directories(void)
{
    struct attr d = place("sticky", 01777), out = place("sticky2", 0777);

    act_as(EVE);
    CHECK_INT(rig_make(&r, d.ino, "eves", S_IFREG | 0666, NULL), 0);
    CHECK_INT(rig_unlink(&r, d.ino, "f", 0), DFS_EPERM);
    CHECK_INT(rig_rename(&r, d.ino, "f", out.ino, "g", 0), DFS_EPERM);
    CHECK_INT(rig_rename(&r, d.ino, "eves", d.ino, "f", 0), DFS_EPERM);
    CHECK_INT(rig_rename(&r, out.ino, "f", d.ino, "f", RENAME_EXCHANGE), DFS_EPERM);
    CHECK_INT(rig_rename(&r, d.ino, "eves", d.ino, "eves2", 0), 0);
    act_as(BOB);
    CHECK_INT(rig_unlink(&r, d.ino, "eves2", 0), DFS_EPERM);
    act_as(ANN); /* the directory is hers */
    CHECK_INT(rig_unlink(&r, d.ino, "eves2", 0), 0);
    act_as(0);
}

static void a_directory_that_moves_is_written(void)
{
    struct attr d = place("moves", 0777), out = place("moves2", 0777);
    struct setattr_req ro = { .valid = SET_MODE, .mode = 0555 };
    struct attr sub;

    act_as(EVE);
    CHECK_INT(rig_make(&r, d.ino, "sub", S_IFDIR | 0755, &sub), 0);
    ro.ino = sub.ino;
    CHECK_INT(do_setattr(&r, &ro, NULL), 0);
    CHECK_INT(rig_rename(&r, d.ino, "sub", d.ino, "sub2", 0), 0);
    CHECK_INT(rig_rename(&r, d.ino, "sub2", out.ino, "sub", 0), DFS_EACCES);
    CHECK_INT(rig_rename(&r, out.ino, "f", d.ino, "sub2", RENAME_EXCHANGE), DFS_EACCES);
    act_as(0);
    CHECK_INT(rig_rename(&r, d.ino, "sub2", out.ino, "sub", 0), 0);
}

static int open_for(uint64_t ino, unsigned want)
{
    struct open_req req = { .ino = ino, .max_extents = 1, .access = (uint8_t)want };

    return ask_open(&r, &req, NULL);
}

static void open_and_access(void)
{
    struct attr d = place("opens", 0755), f;
    struct setrep_req setrep = { .repl = 3 };

    CHECK_INT(rig_lookup(&r, d.ino, "f", &f), 0);
    setrep.ino = f.ino;
    act_as(EVE);
    CHECK_INT(open_for(f.ino, PERM_READ), 0);
    CHECK_INT(open_for(f.ino, PERM_READ | PERM_WRITE), DFS_EACCES);
    CHECK_INT(open_for(f.ino, PERM_EXEC), DFS_EACCES);
    CHECK_INT(open_for(f.ino, 0), 0);
    CHECK_INT(ask_permit(&r, &(struct permit_req){ .ino = f.ino, .want = PERM_READ }, NULL), 0);
    CHECK_INT(ask_permit(&r, &(struct permit_req){ .ino = f.ino, .want = PERM_WRITE }, NULL),
              DFS_EACCES);
    CHECK_INT(do_setrep(&r, &setrep, NULL), DFS_EPERM);
    act_as(ANN);
    CHECK_INT(open_for(f.ino, PERM_READ | PERM_WRITE), 0);
    CHECK_INT(do_setrep(&r, &setrep, NULL), 0);
    act_as(0);
}

/* ---- lists ---- */

static int set_list(uint64_t ino, const char *name, const struct acl *acl)
{
    uint8_t buf[ACL_BYTES_MAX];
    struct wire_out out = wire_out_over(buf, sizeof(buf));
    struct setxattr_req req = { .ino = ino, .name = slice_str(name) };

    acl_put(&out, acl);
    req.value = wire_out_slice(&out);
    return do_setxattr(&r, &req, NULL);
}

static int get_list(uint64_t ino, const char *name, struct acl *ret)
{
    struct getxattr_req req = { .ino = ino, .name = slice_str(name) };
    struct getxattr_rep rep;
    int err = ask_getxattr(&r, &req, &rep);

    return err != 0 ? err : acl_get(rep.value, ret);
}

#define ACCESS  "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static const struct acl for_eve = { .count = 5,
                                    .e = { { ACL_USER_OBJ, 7, 0 },
                                           { ACL_USER, 6, EVE },
                                           { ACL_GROUP_OBJ, 5, 0 },
                                           { ACL_MASK, 7, 0 },
                                           { ACL_OTHER, 0, 0 } } };

static void lists_are_kept_with_the_mode(void)
{
    static const struct acl minimal = {
        .count = 3, .e = { { ACL_USER_OBJ, 6, 0 }, { ACL_GROUP_OBJ, 4, 0 }, { ACL_OTHER, 4, 0 } }
    };
    struct attr d = place("lists", 0755), f;
    struct setattr_req chmod = { .valid = SET_MODE, .mode = 0640 };
    struct removexattr_req none = { .name = slice_str(ACCESS) };
    struct acl got;

    CHECK_INT(rig_lookup(&r, d.ino, "f", &f), 0);
    chmod.ino = none.ino = f.ino;
    act_as(EVE);
    CHECK_INT(set_list(f.ino, ACCESS, &for_eve), DFS_EPERM);
    CHECK_INT(open_for(f.ino, PERM_WRITE), DFS_EACCES);
    act_as(ANN);
    CHECK_INT(get_list(f.ino, ACCESS, &got), DFS_ENODATA);
    CHECK_INT(set_list(f.ino, ACCESS, &for_eve), 0);
    CHECK_INT(set_list(f.ino, DEFAULT, &for_eve), DFS_EACCES); /* a file */
    CHECK_INT(rig_stat(&r, f.ino).mode, S_IFREG | 0770);
    CHECK_INT(rig_stat(&r, f.ino).flags, ATTR_XATTRS | ATTR_ACL);
    act_as(EVE);
    CHECK_INT(open_for(f.ino, PERM_READ | PERM_WRITE), 0);
    act_as(ANN);
    CHECK_INT(do_setattr(&r, &chmod, NULL), 0);
    CHECK_INT(get_list(f.ino, ACCESS, &got), 0);
    CHECK_INT(got.e[0].perm, 6);
    CHECK_INT(got.e[2].perm, 5);
    CHECK_INT(got.e[3].perm, 4); /* the mask */
    act_as(EVE);
    CHECK_INT(open_for(f.ino, PERM_WRITE), DFS_EACCES);
    CHECK_INT(open_for(f.ino, PERM_READ), 0);
    act_as(ANN);
    CHECK_INT(set_list(f.ino, ACCESS, &minimal), 0);
    CHECK_INT(rig_stat(&r, f.ino).mode, S_IFREG | 0644);
    CHECK_INT(rig_stat(&r, f.ino).flags, 0);
    CHECK_INT(set_list(f.ino, ACCESS, &for_eve), 0);
    CHECK_INT(do_removexattr(&r, &none, NULL), 0);
    CHECK_INT(do_removexattr(&r, &none, NULL), 0); /* none is what was asked for */
    CHECK_INT(rig_stat(&r, f.ino).mode, S_IFREG | 0770);
    CHECK_INT(rig_stat(&r, f.ino).flags, 0);
    act_as(0);
}

static void default_lists_are_inherited(void)
{
    struct attr d = place("inherit", 0755), got, sub;
    struct make_req req = { .parent = d.ino, .umask = 077, .flags = MAKE_EXCL };
    struct make_rep rep;
    struct acl acl;

    req.name = slice_str("before");
    req.mode = S_IFREG | 0666;
    CHECK_INT(do_make(&r, &req, &rep), 0);
    CHECK_INT(rig_attr(rep.attr).mode, S_IFREG | 0600);
    CHECK_INT(set_list(d.ino, DEFAULT, &for_eve), 0);
    CHECK_INT(rig_stat(&r, d.ino).mode, S_IFDIR | 0755);
    CHECK_INT(rig_stat(&r, d.ino).flags, ATTR_XATTRS | ATTR_ACL_DEFAULT);
    req.name = slice_str("file");
    CHECK_INT(do_make(&r, &req, &rep), 0);
    got = rig_attr(rep.attr);
    CHECK_INT(got.mode, S_IFREG | 0660); /* no umask */
    CHECK_INT(got.flags, ATTR_XATTRS | ATTR_ACL);
    CHECK_INT(get_list(got.ino, ACCESS, &acl), 0);
    CHECK_INT(acl.count, 5);
    CHECK_INT(acl.e[1].perm, 6);
    CHECK_INT(acl.e[3].perm, 6);
    CHECK_INT(get_list(got.ino, DEFAULT, &acl), DFS_ENODATA);
    req.name = slice_str("sub");
    req.mode = S_IFDIR | 0777;
    CHECK_INT(do_make(&r, &req, &rep), 0);
    sub = rig_attr(rep.attr);
    CHECK_INT(sub.mode, S_IFDIR | 0770);
    CHECK_INT(sub.flags, ATTR_XATTRS | ATTR_ACL | ATTR_ACL_DEFAULT);
    CHECK_INT(get_list(sub.ino, DEFAULT, &acl), 0);
    CHECK_INT(acl.count, 5);
    CHECK_INT(rig_make(&r, sub.ino, "link", S_IFLNK | 0777, &got), 0);
    CHECK_INT(got.mode, S_IFLNK | 0777);
    CHECK_INT(got.flags, 0);
    CHECK_INT(
        do_removexattr(&r, &(struct removexattr_req){ .ino = sub.ino, .name = slice_str(DEFAULT) },
                       NULL),
        0);
    CHECK_INT(rig_stat(&r, sub.ino).flags, ATTR_XATTRS | ATTR_ACL);
}

static void trusted_names_are_for_root(void)
{
    struct attr d = place("trusted", 0755);
    struct setxattr_req set = { .ino = d.ino, .name = slice_str("trusted.t") };
    struct listxattr_req list = { .ino = d.ino };
    struct listxattr_rep names;

    CHECK_INT(do_setxattr(&r, &set, NULL), 0);
    set.name = slice_str("user.u");
    CHECK_INT(do_setxattr(&r, &set, NULL), 0);
    CHECK_INT(ask_listxattr(&r, &list, &names), 0);
    CHECK(slice_eq(names.names, slice_of("trusted.t\0user.u", 17)));
    act_as(ANN);
    CHECK_INT(ask_listxattr(&r, &list, &names), 0);
    CHECK(slice_eq(names.names, slice_of("user.u", 7)));
    act_as(0);
}

int main(void)
{
    tap_run("permission bits", permission_bits);
    tap_run("access lists", access_lists);
    tap_run("set attributes", set_attributes);
    tap_run("set-id bits", set_id_bits);
    tap_run("attribute namespaces", attribute_namespaces);
    rig_start(&r, "ns");
    tap_run("names need the directory", names_need_the_directory);
    tap_run("sticky directories", sticky_directories);
    tap_run("a directory that moves is written", a_directory_that_moves_is_written);
    tap_run("open and access", open_and_access);
    tap_run("lists are kept with the mode", lists_are_kept_with_the_mode);
    tap_run("default lists are inherited", default_lists_are_inherited);
    tap_run("trusted names are for root", trusted_names_are_for_root);
    rig_fini(&r);
    return tap_done();
}
