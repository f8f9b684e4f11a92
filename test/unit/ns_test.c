/* What commands about names do, one story per case. */
#include <linux/fs.h>

#include "test/unit/ns_rig.h"

#define ROOT INODE_ROOT

static struct rig r;
static uint64_t orphaned; /* last inode_orphaned */

static void on_orphan(void *arg, uint64_t ino)
{
    (void)arg;
    orphaned = ino;
}

static void root_mode(uint32_t mode)
{
    struct setattr_req req = { .ino = ROOT, .valid = SET_MODE, .mode = mode };

    CHECK_INT(do_setattr(&r, &req, NULL), 0);
}

static void make_gives_a_new_inode(void)
{
    struct attr before, f, d, got, root;

    root_mode(0777);
    before = rig_stat(&r, ROOT);
    r.hdr.uid = 10;
    r.hdr.gid = 20;
    f = rig_mkfile(&r, ROOT, "file");
    CHECK_INT(f.mode, S_IFREG | 0644);
    CHECK_INT(f.nlink, 1);
    CHECK_INT(f.uid, 10);
    CHECK_INT(f.gid, 20);
    CHECK_INT(f.size, 0);
    CHECK_INT(f.repl, 2); /* the default of the batch */
    CHECK(f.mtime == r.head.now_ns && f.atime == f.mtime && f.ctime == f.mtime);
    d = rig_mkdir(&r, ROOT, "dir");
    CHECK_INT(d.nlink, 2);
    CHECK_INT(d.parent, ROOT);
    CHECK_INT(d.repl, 0);
    root = rig_stat(&r, ROOT);
    CHECK_INT(root.nlink, before.nlink + 1);
    CHECK_INT(root.data_version, before.data_version + 2);
    CHECK(root.mtime == r.head.now_ns && root.ctime == r.head.now_ns);
    CHECK(root.atime == before.atime);
    CHECK_INT(rig_lookup(&r, ROOT, "file", &got), 0);
    CHECK_INT(got.ino, f.ino);
    CHECK_INT(rig_lookup(&r, d.ino, "..", &got), 0);
    CHECK_INT(got.ino, ROOT);
    CHECK_INT(rig_lookup(&r, d.ino, ".", &got), 0);
    CHECK_INT(got.ino, d.ino);
    CHECK_INT(rig_lookup(&r, ROOT, "nothing", NULL), DFS_ENOENT);
    CHECK_INT(rig_lookup(&r, f.ino, "x", NULL), DFS_ENOTDIR);
    CHECK_INT(rig_lookup(&r, 12345, "x", NULL), DFS_ESTALE);
    r.hdr.uid = r.hdr.gid = 0;
    root_mode(0755);
}

static void make_of_an_existing_name(void)
{
    struct make_req req = { .parent = ROOT, .name = slice_str("old"), .mode = S_IFREG | 0600 };
    struct make_rep rep;
    struct attr f = rig_mkfile(&r, ROOT, "old");

    CHECK_INT(do_make(&r, &req, &rep), 0);
    CHECK_INT(rep.existed, 1);
    CHECK_INT(rig_attr(rep.attr).ino, f.ino);
    CHECK_INT(rig_attr(rep.attr).mode, S_IFREG | 0644); /* as it was */
    req.flags = MAKE_EXCL;
    CHECK_INT(do_make(&r, &req, &rep), DFS_EEXIST);
    req.flags = 0;
    req.mode = S_IFDIR | 0755;
    CHECK_INT(do_make(&r, &req, &rep), DFS_EEXIST);
    rig_mkdir(&r, ROOT, "olddir");
    req.name = slice_str("olddir");
    CHECK_INT(do_make(&r, &req, &rep), DFS_EEXIST);
    req.mode = S_IFREG;
    CHECK_INT(do_make(&r, &req, &rep), DFS_EISDIR);
    CHECK_INT(rig_make(&r, ROOT, "oldfifo", S_IFIFO | 0644, NULL), 0);
    req.name = slice_str("oldfifo");
    CHECK_INT(do_make(&r, &req, &rep), DFS_EEXIST);
    req.name = slice_str("fresh");
    CHECK_INT(do_make(&r, &req, &rep), 0);
    CHECK_INT(rep.existed, 0);
}

static void names_are_checked(void)
{
    char longest[LIMIT_NAME + 2];
    struct make_req req = { .parent = ROOT, .mode = S_IFREG, .name = slice_of("a\0b", 3) };

    memset(longest, 'n', sizeof(longest));
    longest[LIMIT_NAME + 1] = '\0';
    CHECK_INT(rig_make(&r, ROOT, longest, S_IFREG, NULL), DFS_ENAMETOOLONG);
    CHECK_INT(rig_lookup(&r, ROOT, longest, NULL), DFS_ENAMETOOLONG);
    longest[LIMIT_NAME] = '\0';
    CHECK_INT(rig_make(&r, ROOT, longest, S_IFREG, NULL), 0);
    CHECK_INT(rig_lookup(&r, ROOT, longest, NULL), 0);
    CHECK_INT(rig_make(&r, ROOT, "\xff\xfe not UTF-8", S_IFREG, NULL), 0);
    CHECK_INT(rig_make(&r, ROOT, "", S_IFREG, NULL), DFS_ENOENT);
    CHECK_INT(rig_make(&r, ROOT, ".", S_IFREG, NULL), DFS_EEXIST);
    CHECK_INT(rig_make(&r, ROOT, "..", S_IFDIR, NULL), DFS_EEXIST);
    CHECK_INT(rig_make(&r, ROOT, "...", S_IFREG, NULL), 0);
    CHECK_INT(rig_make(&r, ROOT, "a/b", S_IFREG, NULL), DFS_EINVAL);
    CHECK_INT(do_make(&r, &req, NULL), DFS_EINVAL);
    CHECK_INT(rig_unlink(&r, ROOT, ".", 1), DFS_EINVAL);
    CHECK_INT(rig_unlink(&r, ROOT, "..", 1), DFS_ENOTEMPTY);
    CHECK_INT(rig_unlink(&r, ROOT, "..", 0), DFS_EISDIR);
    CHECK_INT(rig_unlink(&r, ROOT, "", 0), DFS_ENOENT);
    CHECK_INT(rig_rename(&r, ROOT, ".", ROOT, "x", 0), DFS_EINVAL);
    CHECK_INT(rig_rename(&r, ROOT, "...", ROOT, "..", 0), DFS_EINVAL);
    CHECK_INT(rig_rename(&r, ROOT, "...", ROOT, "", 0), DFS_ENOENT);
}

static void special_files_and_symlinks(void)
{
    struct make_req req = {
        .parent = ROOT, .name = slice_str("dev"), .mode = S_IFCHR | 0600, .rdev = 0x503
    };
    struct make_rep rep;
    struct readlink_rep link;
    struct attr a;
    char target[LIMIT_SYMLINK + 1];

    CHECK_INT(do_make(&r, &req, &rep), 0);
    CHECK_INT(rig_attr(rep.attr).rdev, 0x503);
    req.mode = 0644; /* no type */
    req.name = slice_str("typeless");
    CHECK_INT(do_make(&r, &req, &rep), DFS_EINVAL);
    memset(target, 't', sizeof(target));
    req.mode = S_IFLNK | 0777;
    req.name = slice_str("link");
    CHECK_INT(do_make(&r, &req, &rep), DFS_ENOENT); /* no target */
    req.target = slice_of(target, LIMIT_SYMLINK + 1);
    CHECK_INT(do_make(&r, &req, &rep), DFS_ENAMETOOLONG);
    req.target = slice_of(target, LIMIT_SYMLINK);
    CHECK_INT(do_make(&r, &req, &rep), 0);
    a = rig_attr(rep.attr);
    CHECK_INT(a.size, LIMIT_SYMLINK);
    CHECK_INT(ask_readlink(&r, &(struct readlink_req){ .ino = a.ino }, &link), 0);
    CHECK(slice_eq(link.target, req.target));
    CHECK_INT(ask_readlink(&r, &(struct readlink_req){ .ino = ROOT }, &link), DFS_EINVAL);
}

static void a_setgid_directory_hands_down_its_group(void)
{
    uint32_t groups[] = { 5, 77 };
    struct attr d, f;

    CHECK_INT(rig_make(&r, ROOT, "sgid", S_IFDIR | S_ISGID | 0777, &d), 0);
    CHECK_INT(
        do_setattr(&r, &(struct setattr_req){ .ino = d.ino, .valid = SET_GID, .gid = 77 }, NULL),
        0);
    CHECK_INT(rig_stat(&r, d.ino).mode, S_IFDIR | S_ISGID | 0777); /* kept on directories */
    r.hdr.uid = 9;
    r.hdr.gid = 9;
    CHECK_INT(rig_make(&r, d.ino, "sub", S_IFDIR | 0755, &f), 0);
    CHECK_INT(f.gid, 77);
    CHECK_INT(f.mode, S_IFDIR | S_ISGID | 0755);
    CHECK_INT(rig_make(&r, d.ino, "prog", S_IFREG | S_ISGID | 0775, &f), 0);
    CHECK_INT(f.gid, 77);
    CHECK_INT(f.mode, S_IFREG | 0775); /* 9 is not a member */
    r.hdr.groups = slice_of(groups, sizeof(groups));
    CHECK_INT(rig_make(&r, d.ino, "prog2", S_IFREG | S_ISGID | 0775, &f), 0);
    CHECK_INT(f.mode, S_IFREG | S_ISGID | 0775);
    r.hdr.groups = SLICE_EMPTY;
    r.hdr.uid = r.hdr.gid = 0;
}

static void hard_links_share_an_inode(void)
{
    struct attr f = rig_mkfile(&r, ROOT, "l1");
    struct attr d = rig_mkdir(&r, ROOT, "ld");
    struct link_req req = { .ino = f.ino, .parent = d.ino, .name = slice_str("l2") };
    struct link_rep rep;
    struct attr got;

    CHECK_INT(do_link(&r, &req, &rep), 0);
    got = rig_attr(rep.attr);
    CHECK_INT(got.nlink, 2);
    CHECK(got.ctime == r.head.now_ns && got.mtime == f.mtime);
    CHECK(rig_stat(&r, d.ino).mtime == r.head.now_ns);
    CHECK_INT(do_link(&r, &req, &rep), DFS_EEXIST);
    req = (struct link_req){ .ino = d.ino, .parent = ROOT, .name = slice_str("dirlink") };
    CHECK_INT(do_link(&r, &req, &rep), DFS_EPERM);
    req = (struct link_req){ .ino = 99999, .parent = ROOT, .name = slice_str("x") };
    CHECK_INT(do_link(&r, &req, &rep), DFS_ESTALE);
    orphaned = 0;
    CHECK_INT(rig_unlink(&r, ROOT, "l1", 0), 0);
    CHECK_INT(rig_stat(&r, f.ino).nlink, 1);
    CHECK_INT(orphaned, 0);
    CHECK_INT(rig_unlink(&r, d.ino, "l2", 0), 0);
    CHECK_INT(orphaned, f.ino);
    CHECK_INT(rig_stat(&r, f.ino).nlink, 0); /* somebody may have it open */
    req = (struct link_req){ .ino = f.ino, .parent = ROOT, .name = slice_str("again") };
    CHECK_INT(do_link(&r, &req, &rep), DFS_ENOENT);
}

static void unlink_and_rmdir(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "ud");
    struct attr f = rig_mkfile(&r, d.ino, "uf");
    struct attr root = rig_stat(&r, ROOT);
    struct unlink_rep rep;

    CHECK_INT(rig_unlink(&r, ROOT, "ud", 0), DFS_EISDIR);
    CHECK_INT(rig_unlink(&r, ROOT, "ud", 1), DFS_ENOTEMPTY);
    CHECK_INT(rig_unlink(&r, d.ino, "uf", 1), DFS_ENOTDIR);
    CHECK_INT(rig_unlink(&r, d.ino, "none", 0), DFS_ENOENT);
    CHECK_INT(rig_unlink(&r, f.ino, "x", 0), DFS_ENOTDIR);
    CHECK_INT(do_unlink(&r, &(struct unlink_req){ .parent = d.ino, .name = slice_str("uf") }, &rep),
              0);
    CHECK_INT(rep.ino, f.ino);
    CHECK_INT(rep.nlink, 0);
    CHECK(rig_stat(&r, f.ino).ctime == r.head.now_ns);
    CHECK(rig_stat(&r, d.ino).mtime == r.head.now_ns);
    CHECK_INT(rig_unlink(&r, ROOT, "ud", 1), 0);
    CHECK_INT(rig_stat(&r, ROOT).nlink, root.nlink - 1);
    CHECK_INT(rig_stat(&r, d.ino).nlink, 0);
    /* a directory that is gone takes nothing any more */
    CHECK_INT(rig_make(&r, d.ino, "late", S_IFREG, NULL), DFS_ENOENT);
    rig_mkfile(&r, ROOT, "mover");
    CHECK_INT(rig_rename(&r, ROOT, "mover", d.ino, "late", 0), DFS_ENOENT);
    CHECK_INT(rig_lookup(&r, d.ino, "x", NULL), DFS_ENOENT);
}

static void rename_moves_and_replaces(void)
{
    struct attr a = rig_mkdir(&r, ROOT, "ra");
    struct attr b = rig_mkdir(&r, ROOT, "rb");
    struct attr f = rig_mkfile(&r, a.ino, "f");
    struct attr g = rig_mkfile(&r, b.ino, "g");
    struct attr d = rig_mkdir(&r, a.ino, "d");
    struct attr e = rig_mkdir(&r, b.ino, "e");
    struct attr got;
    struct rename_rep rep;

    CHECK_INT(do_rename(&r,
                        &(struct rename_req){ .parent = a.ino,
                                              .name = slice_str("f"),
                                              .new_parent = b.ino,
                                              .new_name = slice_str("g") },
                        &rep),
              0);
    CHECK_INT(rep.ino, f.ino);
    CHECK_INT(rep.replaced, g.ino);
    CHECK_INT(orphaned, g.ino);
    CHECK_INT(rig_stat(&r, g.ino).nlink, 0);
    CHECK_INT(rig_lookup(&r, a.ino, "f", NULL), DFS_ENOENT);
    CHECK_INT(rig_lookup(&r, b.ino, "g", &got), 0);
    CHECK_INT(got.ino, f.ino);
    CHECK(got.ctime == r.head.now_ns && got.mtime == f.mtime);
    CHECK(rig_stat(&r, a.ino).mtime == r.head.now_ns);
    CHECK(rig_stat(&r, b.ino).mtime == r.head.now_ns);
    /* types must agree */
    CHECK_INT(rig_rename(&r, b.ino, "g", b.ino, "e", 0), DFS_EISDIR);
    CHECK_INT(rig_rename(&r, b.ino, "e", b.ino, "g", 0), DFS_ENOTDIR);
    /* a directory over an empty one */
    rig_mkfile(&r, e.ino, "inside");
    CHECK_INT(rig_rename(&r, a.ino, "d", b.ino, "e", 0), DFS_ENOTEMPTY);
    CHECK_INT(rig_unlink(&r, e.ino, "inside", 0), 0);
    CHECK_INT(rig_stat(&r, a.ino).nlink, 3);
    CHECK_INT(rig_rename(&r, a.ino, "d", b.ino, "e", 0), 0);
    CHECK_INT(rig_stat(&r, a.ino).nlink, 2);
    CHECK_INT(rig_stat(&r, b.ino).nlink, 3);
    CHECK_INT(rig_stat(&r, e.ino).nlink, 0);
    CHECK_INT(rig_stat(&r, d.ino).parent, b.ino);
    CHECK_INT(rig_lookup(&r, d.ino, "..", &got), 0);
    CHECK_INT(got.ino, b.ino);
    CHECK_INT(rig_rename(&r, a.ino, "none", b.ino, "e", 0), DFS_ENOENT);
    CHECK_INT(rig_rename(&r, 98765, "x", b.ino, "e", 0), DFS_ESTALE);
    CHECK_INT(rig_rename(&r, f.ino, "x", b.ino, "e", 0), DFS_ENOTDIR);
}

static void rename_within_one_directory(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "rw");
    struct attr sub = rig_mkdir(&r, d.ino, "sub");
    struct attr got;

    rig_mkfile(&r, d.ino, "one");
    CHECK_INT(rig_rename(&r, d.ino, "sub", d.ino, "sub2", 0), 0);
    CHECK_INT(rig_stat(&r, d.ino).nlink, 3);
    CHECK_INT(rig_lookup(&r, d.ino, "sub2", &got), 0);
    CHECK_INT(got.ino, sub.ino);
    rig_mkdir(&r, d.ino, "sub");
    CHECK_INT(rig_stat(&r, d.ino).nlink, 4);
    CHECK_INT(rig_rename(&r, d.ino, "sub2", d.ino, "sub", 0), 0);
    CHECK_INT(rig_stat(&r, d.ino).nlink, 3);
    CHECK_INT(rig_rename(&r, d.ino, "one", d.ino, "one", 0), 0); /* itself */
    CHECK_INT(rig_lookup(&r, d.ino, "one", NULL), 0);
}

static void rename_onto_the_same_inode_does_nothing(void)
{
    struct attr f = rig_mkfile(&r, ROOT, "same1");
    uint64_t before;

    CHECK_INT(
        do_link(&r, &(struct link_req){ .ino = f.ino, .parent = ROOT, .name = slice_str("same2") },
                NULL),
        0);
    before = rig_stat(&r, ROOT).version;
    CHECK_INT(rig_rename(&r, ROOT, "same1", ROOT, "same2", 0), 0);
    CHECK_INT(rig_lookup(&r, ROOT, "same1", NULL), 0);
    CHECK_INT(rig_lookup(&r, ROOT, "same2", NULL), 0);
    CHECK_INT(rig_stat(&r, f.ino).nlink, 2);
    CHECK_INT(rig_stat(&r, ROOT).version, before);
    CHECK_INT(rig_rename(&r, ROOT, "same1", ROOT, "same2", RENAME_NOREPLACE), DFS_EEXIST);
}

static void rename_flags(void)
{
    struct attr a = rig_mkdir(&r, ROOT, "xa");
    struct attr b = rig_mkdir(&r, ROOT, "xb");
    struct attr f = rig_mkfile(&r, a.ino, "f");
    struct attr d = rig_mkdir(&r, b.ino, "d");
    struct attr got;

    rig_mkfile(&r, d.ino, "full");
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "d", RENAME_NOREPLACE), DFS_EEXIST);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "no", RENAME_EXCHANGE), DFS_ENOENT);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "d", RENAME_EXCHANGE | RENAME_NOREPLACE),
              DFS_EINVAL);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "d", RENAME_WHITEOUT), DFS_EINVAL);
    CHECK_INT(rig_rename(&r, a.ino, "f", b.ino, "d", RENAME_EXCHANGE), 0);
    CHECK_INT(rig_lookup(&r, a.ino, "f", &got), 0);
    CHECK_INT(got.ino, d.ino);
    CHECK_INT(got.parent, a.ino);
    CHECK_INT(rig_lookup(&r, b.ino, "d", &got), 0);
    CHECK_INT(got.ino, f.ino);
    CHECK_INT(rig_stat(&r, a.ino).nlink, 3);
    CHECK_INT(rig_stat(&r, b.ino).nlink, 2);
    CHECK_INT(rig_lookup(&r, d.ino, "full", NULL), 0);
    CHECK_INT(rig_rename(&r, a.ino, "f", a.ino, "new", RENAME_NOREPLACE), 0);
    CHECK_INT(rig_rename(&r, ROOT, "xa", ROOT, "xb", RENAME_EXCHANGE), 0); /* one parent */
    CHECK_INT(rig_lookup(&r, ROOT, "xa", &got), 0);
    CHECK_INT(got.ino, b.ino);
    CHECK_INT(rig_stat(&r, a.ino).nlink, 3);
}

static void rename_into_itself_is_refused(void)
{
    struct attr a = rig_mkdir(&r, ROOT, "ia");
    struct attr b = rig_mkdir(&r, a.ino, "b");
    struct attr c = rig_mkdir(&r, b.ino, "c");

    CHECK_INT(rig_rename(&r, ROOT, "ia", c.ino, "x", 0), DFS_EINVAL);
    CHECK_INT(rig_rename(&r, ROOT, "ia", a.ino, "x", 0), DFS_EINVAL);
    CHECK_INT(rig_rename(&r, b.ino, "c", ROOT, "ia", 0), DFS_ENOTEMPTY);
    CHECK_INT(rig_rename(&r, b.ino, "c", ROOT, "ia", RENAME_EXCHANGE), DFS_EINVAL);
    CHECK_INT(rig_rename(&r, b.ino, "c", a.ino, "c", 0), 0); /* upwards is fine */
    CHECK_INT(rig_stat(&r, c.ino).parent, a.ino);
    CHECK_INT(rig_stat(&r, a.ino).nlink, 4);
}

int main(void)
{
    struct ns_events ev = { .inode_orphaned = on_orphan };

    rig_start(&r, "ns");
    ns_set_events(r.ns, &ev);
    tap_run("make gives a new inode", make_gives_a_new_inode);
    tap_run("make of an existing name", make_of_an_existing_name);
    tap_run("names are checked", names_are_checked);
    tap_run("special files and symlinks", special_files_and_symlinks);
    tap_run("a setgid directory hands down its group", a_setgid_directory_hands_down_its_group);
    tap_run("hard links share an inode", hard_links_share_an_inode);
    tap_run("unlink and rmdir", unlink_and_rmdir);
    tap_run("rename moves and replaces", rename_moves_and_replaces);
    tap_run("rename within one directory", rename_within_one_directory);
    tap_run("rename onto the same inode does nothing", rename_onto_the_same_inode_does_nothing);
    tap_run("rename flags", rename_flags);
    tap_run("rename into itself is refused", rename_into_itself_is_refused);
    rig_fini(&r);
    return tap_done();
}
