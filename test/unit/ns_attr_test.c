/* Attributes, extended attributes, directories read in pages. */
#include <sys/xattr.h>

#include "test/unit/ns_rig.h"

#define ROOT INODE_ROOT

static struct rig r;

static int set(uint64_t ino, struct setattr_req req, struct attr *ret)
{
    struct setattr_rep rep;
    int err;

    req.ino = ino;
    err = do_setattr(&r, &req, &rep);
    if (err == 0) {
        *ret = rig_attr(rep.attr);
    }
    return err;
}

static void setattr_changes_what_it_is_told(void)
{
    struct attr f = rig_mkfile(&r, ROOT, "sf");
    struct attr a;

    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_MODE, .mode = 06755 }, &a), 0);
    CHECK_INT(a.mode, S_IFREG | 06755);
    CHECK(a.ctime == r.head.now_ns && a.mtime == f.mtime);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_KILL_SUID }, &a), 0);
    CHECK_INT(a.mode, S_IFREG | 0755);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_MODE, .mode = 06745 }, &a), 0);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_UID, .uid = 5 }, &a), 0);
    CHECK_INT(a.mode, S_IFREG | 02745); /* sgid without group execute means locking */
    CHECK_INT(a.uid, 5);
    CHECK_INT(set(f.ino,
                  (struct setattr_req){ .valid = SET_ATIME | SET_MTIME, .atime = -5, .mtime = 7 },
                  &a),
              0);
    CHECK(a.atime == -5 && a.mtime == 7 && a.ctime == r.head.now_ns);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_ATIME_NOW | SET_MTIME_NOW }, &a), 0);
    CHECK(a.atime == r.head.now_ns && a.mtime == r.head.now_ns);
    f = a;
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = 0 }, &a), 0);
    CHECK(a.version == f.version && a.ctime == f.ctime);
    CHECK_INT(set(77777, (struct setattr_req){ .valid = 0 }, &a), DFS_ESTALE);
}

static void truncate_grows_and_limits(void)
{
    struct attr f = rig_mkfile(&r, ROOT, "tf");
    struct attr a;

    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_SIZE, .size = 1 << 20 }, &a), 0);
    CHECK_INT(a.size, 1 << 20);
    CHECK_INT(a.bytes, 0); /* a hole */
    CHECK(a.mtime == r.head.now_ns && a.ctime == r.head.now_ns);
    CHECK_INT(a.data_version, f.data_version + 1);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_SIZE | SET_MTIME, .mtime = 3 }, &a), 0);
    CHECK_INT(a.size, 0);
    CHECK_INT(a.mtime, 3);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_SIZE, .size = LIMIT_FILE_SIZE }, &a),
              0);
    CHECK_INT(
        set(f.ino, (struct setattr_req){ .valid = SET_SIZE, .size = LIMIT_FILE_SIZE + 1 }, &a),
        DFS_EFBIG);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_SIZE, .size = UINT64_MAX }, &a),
              DFS_EFBIG);
    CHECK_INT(set(ROOT, (struct setattr_req){ .valid = SET_SIZE }, &a), DFS_EISDIR);
    CHECK_INT(rig_make(&r, ROOT, "tfifo", S_IFIFO | 0644, &f), 0);
    CHECK_INT(set(f.ino, (struct setattr_req){ .valid = SET_SIZE }, &a), DFS_EINVAL);
}

static int setx(uint64_t ino, const char *name, const void *p, size_t n, uint8_t flags)
{
    return do_setxattr(
        &r,
        &(struct setxattr_req){
            .ino = ino, .name = slice_str(name), .value = slice_of(p, n), .flags = flags },
        NULL);
}

/* The value as text, or the error's name. */
static const char *getx(uint64_t ino, const char *name)
{
    static char text[256];
    struct getxattr_rep value;
    int err =
        ask_getxattr(&r, &(struct getxattr_req){ .ino = ino, .name = slice_str(name) }, &value);

    if (err != 0) {
        return err_name(err);
    }
    snprintf(text, sizeof(text), "%.*s", (int)value.value.len, (const char *)value.value.p);
    return text;
}

static int removex(uint64_t ino, const char *name)
{
    return do_removexattr(&r, &(struct removexattr_req){ .ino = ino, .name = slice_str(name) },
                          NULL);
}

static void the_bytes_of_attributes_are_bounded(void)
{
    static const uint8_t big[LIMIT_XATTR_VALUE] = { 1 };
    struct attr f = rig_mkfile(&r, ROOT, "bounded");
    char name[32];

    for (unsigned int i = 0; i < LIMIT_XATTR_BYTES / LIMIT_XATTR_VALUE; i++) {
        snprintf(name, sizeof(name), "user.%u", i);
        CHECK_INT(setx(f.ino, name, big, sizeof(big), 0), 0);
    }
    CHECK_INT(setx(f.ino, "user.more", big, 1, 0), DFS_ETOOBIG);
    CHECK_INT(setx(f.ino, "user.none", big, 0, 0), 0);
    CHECK_INT(setx(f.ino, "user.5", big, 100, 0), 0);
    CHECK_INT(setx(f.ino, "user.5", big, 101, 0), 0);
    CHECK_INT(setx(f.ino, "user.more", big, 60000, 0), 0);
}

static void attributes_that_are_made(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "vd"), f = rig_mkfile(&r, d.ino, "vf");
    uint64_t b = rig_alloc(&r, 1);
    struct extent e = { .off = 4096, .len = 10, .block = b };
    struct listxattr_rep names;
    char want[64];

    snprintf(want, sizeof(want), "%ju", (uintmax_t)f.ino);
    CHECK_STR(getx(f.ino, "dfs.inode"), want);
    CHECK_STR(getx(f.ino, "dfs.replication"), "2");
    CHECK_STR(getx(d.ino, "dfs.replication"), "0");
    CHECK_INT(setx(d.ino, "dfs.replication", "3", 1, 0), 0);
    CHECK_INT(rig_stat(&r, d.ino).repl, 3);
    CHECK_INT(removex(d.ino, "dfs.replication"), 0);
    CHECK_INT(rig_stat(&r, d.ino).repl, 0);
    CHECK_INT(setx(d.ino, "dfs.replication", "17", 2, 0), DFS_EINVAL);
    CHECK_INT(setx(d.ino, "dfs.replication", "many", 4, 0), DFS_EINVAL);
    CHECK_STR(getx(f.ino, "dfs.blocks"), "");
    CHECK_INT(rig_commit(&r,
                         (struct rig_commit){
                             .ino = f.ino, .extents = &e, .count = 1, .block = b, .len = 10 },
                         NULL),
              0);
    snprintf(want, sizeof(want), "4096 10 %ju 0 10.0.0.1:9700,10.0.0.2:9700\n", (uintmax_t)b);
    CHECK_STR(getx(f.ino, "dfs.blocks"), want);
    CHECK_STR(getx(d.ino, "dfs.blocks"), err_name(DFS_ENODATA));
    CHECK_STR(getx(f.ino, "dfs.nonsense"), err_name(DFS_ENODATA));
    CHECK_INT(setx(f.ino, "dfs.nonsense", "1", 1, 0), DFS_ENOTSUP);
    CHECK_INT(setx(f.ino, "dfs.inode", "1", 1, 0), DFS_EPERM);
    CHECK_INT(removex(f.ino, "dfs.inode"), DFS_EPERM);
    CHECK_INT(ask_listxattr(&r, &(struct listxattr_req){ .ino = f.ino }, &names), 0);
    CHECK_INT(names.names.len, 0);
}

static void quotas_as_attributes(void)
{
    struct attr d = rig_mkdir(&r, ROOT, "qd"), e = rig_mkdir(&r, d.ino, "qe");
    char want[64];

    snprintf(want, sizeof(want), "%ju", (uintmax_t)d.ino);
    CHECK_STR(getx(d.ino, "dfs.quota.bytes"), err_name(DFS_ENODATA));
    CHECK_INT(setx(d.ino, "dfs.quota.bytes", "10KiB", 5, 0), 0);
    CHECK_INT(setx(d.ino, "dfs.quota.inodes", "7", 1, 0), 0);
    CHECK_INT(do_quota_step(&r, &(struct quota_step_req){ .max = 10 }, NULL), 0);
    CHECK_STR(getx(d.ino, "dfs.quota.bytes"), "10240");
    CHECK_STR(getx(d.ino, "dfs.quota.inodes"), "7");
    CHECK_STR(getx(d.ino, "dfs.quota.used_inodes"), "2");
    CHECK_STR(getx(d.ino, "dfs.quota.used_bytes"), "0");
    CHECK_STR(getx(e.ino, "dfs.quota.directory"), want);
    CHECK_STR(getx(e.ino, "dfs.quota.bytes"), err_name(DFS_ENODATA));
    CHECK_INT(removex(d.ino, "dfs.quota.bytes"), 0);
    CHECK_STR(getx(d.ino, "dfs.quota.bytes"), "0");
    r.hdr.uid = 7;
    CHECK_INT(setx(d.ino, "dfs.quota.bytes", "1", 1, 0), DFS_EPERM);
    r.hdr.uid = 0;
}

static void extended_attributes(void)
{
    static const uint8_t big[LIMIT_XATTR_VALUE + 1] = { 1 };
    struct attr f = rig_mkfile(&r, ROOT, "xf");
    struct attr g = rig_mkfile(&r, ROOT, "xg");
    struct getxattr_rep value;
    struct listxattr_rep names;
    struct getxattr_req get = { .ino = f.ino, .name = slice_str("user.a") };

    CHECK_INT(ask_getxattr(&r, &get, &value), DFS_ENODATA);
    CHECK_INT(setx(f.ino, "user.a", "1", 1, XATTR_REPLACE), DFS_ENODATA);
    CHECK_INT(setx(f.ino, "user.a", "1", 1, XATTR_CREATE), 0);
    CHECK_INT(setx(f.ino, "user.a", "2", 1, XATTR_CREATE), DFS_EEXIST);
    CHECK_INT(setx(f.ino, "user.a", "33", 2, XATTR_REPLACE), 0);
    CHECK_INT(setx(f.ino, "user.b", "", 0, 0), 0);
    CHECK_INT(setx(g.ino, "user.g", "g", 1, 0), 0);
    CHECK_INT(setx(f.ino, "user.big", big, LIMIT_XATTR_VALUE, 0), 0);
    CHECK_INT(setx(f.ino, "user.big", big, LIMIT_XATTR_VALUE + 1, 0), DFS_ETOOBIG);
    CHECK_INT(setx(f.ino, "", "1", 1, 0), DFS_ERANGE);
    CHECK_INT(setx(f.ino, "user.", "1", 1, 0), DFS_EINVAL);
    CHECK_INT(setx(f.ino, "os2.a", "1", 1, 0), DFS_ENOTSUP);
    CHECK(rig_stat(&r, f.ino).ctime != f.ctime);
    CHECK_INT(rig_stat(&r, f.ino).flags, ATTR_XATTRS);
    CHECK_INT(ask_getxattr(&r, &get, &value), 0);
    CHECK(slice_eq(value.value, slice_str("33")));
    CHECK_INT(ask_listxattr(&r, &(struct listxattr_req){ .ino = f.ino }, &names), 0);
    CHECK(slice_eq(names.names, slice_of("user.a\0user.b\0user.big", 23)));
    CHECK_INT(
        do_removexattr(&r, &(struct removexattr_req){ .ino = f.ino, .name = slice_str("user.no") },
                       NULL),
        DFS_ENODATA);
    CHECK_INT(do_removexattr(
                  &r, &(struct removexattr_req){ .ino = g.ino, .name = slice_str("user.g") }, NULL),
              0);
    CHECK_INT(rig_stat(&r, g.ino).flags, 0);
    CHECK_INT(ask_listxattr(&r, &(struct listxattr_req){ .ino = g.ino }, &names), 0);
    CHECK_INT(names.names.len, 0);
}

static void the_list_of_attribute_names_is_bounded(void)
{
    struct attr f = rig_mkfile(&r, ROOT, "xl");
    char name[LIMIT_XATTR_NAME + 1];
    int err = 0;
    int n = 0;

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    while (err == 0 && n < 300) {
        memcpy(name, "user.", 5);
        name[5] = (char)('a' + n % 16);
        name[6] = (char)('a' + n / 16);
        err = setx(f.ino, name, "v", 1, 0);
        n += err == 0;
    }
    CHECK_INT(err, DFS_ETOOBIG);
    CHECK_INT(n, LIMIT_XATTR_LIST / (LIMIT_XATTR_NAME + 1));
}

static void readdir_pages_show_every_name_once(void)
{
    enum { N = 500 };
    static uint8_t seen[N];
    struct attr d = rig_mkdir(&r, ROOT, "many");
    struct readdir_req req = { .ino = d.ino, .max_bytes = 1000 };
    struct readdir_rep rep;
    char name[16];
    int pages = 0, total = 0;

    memset(seen, 0, sizeof(seen));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        rig_mkfile(&r, d.ino, name);
    }
    do {
        struct wire_in in;

        req.plus = pages % 2 == 1;
        CHECK_INT(ask_readdir(&r, &req, &rep), 0);
        CHECK(rep.entries.items.len <= 1000);
        in = wire_in_of(rep.entries.items);
        for (uint32_t i = 0; i < rep.entries.count; i++) {
            struct dir_entry e;
            int n;

            CHECK_INT(dir_entry_get(&in, &e), 0);
            snprintf(name, sizeof(name), "%.*s", (int)e.name.len, (const char *)e.name.p);
            n = atoi(name + 1);
            CHECK(n >= 0 && n < N && seen[n]++ == 0);
            CHECK(e.cookie > req.cookie);
            CHECK_INT(e.mode & S_IFMT, S_IFREG);
            CHECK_INT(e.attr.len != 0, req.plus);
            CHECK(!req.plus || rig_attr(e.attr).ino == e.ino);
            req.cookie = e.cookie;
            total++;
        }
        if (pages == 3) { /* entries behind and before the cookie come and go */
            rig_unlink(&r, d.ino, name, 0);
            rig_mkfile(&r, d.ino, name);
        }
        pages++;
    } while (!rep.eof && pages < 200);
    CHECK_INT(total, N);
    CHECK(pages > 10);
    req = (struct readdir_req){ .ino = d.ino, .max_bytes = 0 };
    CHECK_INT(ask_readdir(&r, &req, &rep), 0);
    CHECK_INT(rep.entries.count, 1); /* a page is never empty */
    CHECK_INT(rep.eof, 0);
    req = (struct readdir_req){ .ino = rig_mkdir(&r, ROOT, "none").ino, .max_bytes = 1000 };
    CHECK_INT(ask_readdir(&r, &req, &rep), 0);
    CHECK_INT(rep.entries.count, 0);
    CHECK_INT(rep.eof, 1);
    req.ino = rig_mkfile(&r, ROOT, "nodir").ino;
    CHECK_INT(ask_readdir(&r, &req, &rep), DFS_ENOTDIR);
    req = (struct readdir_req){ .ino = d.ino, .cookie = UINT64_MAX };
    CHECK_INT(ask_readdir(&r, &req, &rep), DFS_EINVAL);
}

enum { CHURN = 3000, CHURN_STAYS = 3 }; /* every third name stays, the others come and go */

static void churn(uint64_t dir, unsigned *state, bool *there)
{
    char name[16];

    for (int i = 0; i < 20; i++) {
        unsigned n = (*state = *state * 1103515245u + 12345u) >> 8;

        n %= CHURN;
        if (n % CHURN_STAYS == 0) {
            continue;
        }
        snprintf(name, sizeof(name), "n%u", n);
        if (there[n]) {
            CHECK_INT(rig_unlink(&r, dir, name, 0), 0);
        } else {
            rig_mkfile(&r, dir, name);
        }
        there[n] = !there[n];
    }
}

/* The first name behind a cookie that is not one of those that come and go. */
static int next_that_stays(uint64_t dir, uint64_t cookie)
{
    struct readdir_req req = { .ino = dir, .cookie = cookie, .max_bytes = 2000 };
    struct readdir_rep rep;

    do {
        struct wire_in in;
        struct dir_entry e;

        CHECK_INT(ask_readdir(&r, &req, &rep), 0);
        in = wire_in_of(rep.entries.items);
        for (uint32_t i = 0; i < rep.entries.count; i++) {
            CHECK_INT(dir_entry_get(&in, &e), 0);
            if (atoi((const char *)e.name.p + 1) % CHURN_STAYS == 0) {
                return atoi((const char *)e.name.p + 1);
            }
            req.cookie = e.cookie;
        }
    } while (!rep.eof);
    return -1;
}

static void cookies_hold_while_entries_come_and_go(void)
{
    static uint8_t seen[CHURN];
    static bool there[CHURN];
    static uint64_t at[CHURN]; /* the cookie before each that stays */
    static int order[CHURN];
    struct attr d = rig_mkdir(&r, ROOT, "churn");
    struct readdir_req req = { .ino = d.ino, .max_bytes = 3000 };
    struct readdir_rep rep;
    unsigned state = 7;
    char name[16];
    int stays = 0;

    for (int i = 0; i < CHURN; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        rig_mkfile(&r, d.ino, name);
        there[i] = true;
    }
    do {
        struct wire_in in;

        CHECK_INT(ask_readdir(&r, &req, &rep), 0);
        in = wire_in_of(rep.entries.items);
        for (uint32_t i = 0; i < rep.entries.count; i++) {
            struct dir_entry e;
            int n;

            CHECK_INT(dir_entry_get(&in, &e), 0);
            n = atoi((const char *)e.name.p + 1);
            CHECK_INT(seen[n]++, 0);
            if (n % CHURN_STAYS == 0) {
                at[stays] = req.cookie;
                order[stays++] = n;
            }
            req.cookie = e.cookie;
        }
        churn(d.ino, &state, there);
    } while (!rep.eof);
    CHECK_INT(stays, CHURN / CHURN_STAYS);
    for (int i = 0; i < stays; i += 7) { /* seekdir: the same place, whatever is around it now */
        CHECK_INT(next_that_stays(d.ino, at[i]), order[i]);
        churn(d.ino, &state, there);
    }
}

int main(void)
{
    rig_start(&r, "ns");
    tap_run("setattr changes what it is told", setattr_changes_what_it_is_told);
    tap_run("truncate grows and limits", truncate_grows_and_limits);
    tap_run("the bytes of attributes are bounded", the_bytes_of_attributes_are_bounded);
    tap_run("attributes that are made", attributes_that_are_made);
    tap_run("quotas as attributes", quotas_as_attributes);
    tap_run("extended attributes", extended_attributes);
    tap_run("the list of attribute names is bounded", the_list_of_attribute_names_is_bounded);
    tap_run("readdir pages show every name once", readdir_pages_show_every_name_once);
    tap_run("cookies hold while entries come and go", cookies_hold_while_entries_come_and_go);
    rig_fini(&r);
    return tap_done();
}
