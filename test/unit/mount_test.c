#include "cluster/base/base.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"

#include "fs/mount/options.h"
#include "fs/mount/point.h"

#include "test/unit/tap.h"

/* ---- sources ---- */

static void source_is(const char *text, const char *want_masters, const char *want_path)
{
    char *masters = NULL, *path = NULL;

    CHECK_INT(options_source(text, &masters, &path, NULL), 0);
    CHECK(masters != NULL && strcmp(masters, want_masters) == 0);
    CHECK(path != NULL && strcmp(path, want_path) == 0);
    free(masters);
    free(path);
}

static void a_source_names_masters_and_a_path(void)
{
    source_is("127.0.0.1:9700:/a/b", "127.0.0.1:9700", "/a/b");
    source_is("m1:/", "m1:9600", "/");
    source_is("m1,m2:77,m3:/x", "m1:9600,m2:77,m3:9600", "/x");
    source_is("[::1]:/x/", "[::1]:9600", "/x");
    source_is("[::1]:9700:/x:/y//", "[::1]:9700", "/x:/y");
}

static void a_source_that_is_none_is_refused(void)
{
    static const char *const bad[] = { "",       "m1",       "/a",   ":/a",         "m1:9600",
                                       "m1:0:/", "m1:xx:/a", ",:/a", "m1:99999:/a", "::1:/a" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *masters = NULL, *path = NULL;
        struct why why = { "" };

        CHECK_INT(options_source(bad[i], &masters, &path, &why), DFS_EINVAL);
        CHECK(why.text[0] != '\0' && masters == NULL && path == NULL);
    }
}

/* ---- options ---- */

static void options_go_where_they_belong(void)
{
    struct options o = { 0 };

    CHECK_INT(
        options_add(&o, "ro,noatime,_netdev,x-systemd.automount,user=tim,nofail", false, NULL), 0);
    CHECK_INT(options_add(&o, "nonempty,conf=/c,log=syslog,pid_file=/p,cache=1GiB", false, NULL),
              0);
    CHECK_INT(
        options_add(&o, "client.timeout=5s,noallow_other,conf=/d,attr_timeout=2", false, NULL), 0);
    CHECK(strcmp(o.kernel, "ro,noatime") == 0);
    CHECK(strcmp(o.conf_file, "/d") == 0);
    CHECK(strcmp(o.log, "syslog") == 0 && strcmp(o.pid_file, "/p") == 0);
    CHECK_INT(o.set_count, 3);
    CHECK(strcmp(o.sets[2], "client.attr_timeout=2s") == 0);
    CHECK(strcmp(o.sets[0], "client.cache=1GiB") == 0);
    CHECK(strcmp(o.sets[1], "client.timeout=5s") == 0);
    CHECK(o.nonempty && o.no_allow_other && !o.allow_other);
    options_fini(&o);
}

static void root_is_squashed_to_whom_the_options_say(void)
{
    struct options o = OPTIONS_INIT;

    CHECK_INT(options_add(&o, "no_root_squash", false, NULL), 0);
    CHECK(!o.root_squash);
    CHECK_INT(options_add(&o, "root_squash", false, NULL), 0);
    CHECK(o.root_squash && o.anon_uid == ID_NOBODY && o.anon_gid == ID_NOBODY);
    CHECK_INT(options_add(&o, "anonuid=1000,anongid=4294967294", false, NULL), 0);
    CHECK(o.anon_uid == 1000 && o.anon_gid == 4294967294);
    CHECK_INT(options_add(&o, "anonuid=nobody", false, NULL), DFS_EINVAL);
    CHECK_INT(options_add(&o, "anonuid=", false, NULL), DFS_EINVAL);
    CHECK_INT(options_add(&o, "anongid=4294967295", false, NULL), DFS_EINVAL);
    CHECK_INT(options_add(&o, "anongid=99999999999", false, NULL), DFS_EINVAL);
    options_fini(&o);
}

static void unknown_options_are_refused_unless_sloppy(void)
{
    struct options o = { 0 };
    struct why why = { "" };

    CHECK_INT(options_add(&o, "ro,frobnicate", false, &why), DFS_EINVAL);
    CHECK(strstr(why.text, "frobnicate") != NULL);
    CHECK_INT(options_add(&o, "frob=1", false, NULL), DFS_EINVAL);
    CHECK_INT(options_add(&o, "frobnicate,frob=1,nodev", true, NULL), 0);
    CHECK(strcmp(o.kernel, "ro,nodev") == 0);
    options_fini(&o);
}

/* mount(8) hands over what the kernel's table says. */
static void remount_takes_what_the_kernel_said(void)
{
    struct options o = { 0 };

    CHECK_INT(options_add(&o, "user_id=0,noremount", true, NULL), 0);
    CHECK(!o.remount);
    CHECK_INT(options_add(&o, "ro,user_id=0,group_id=0,default_permissions,remount", false, NULL),
              0);
    CHECK(o.remount && strcmp(o.kernel, "ro") == 0);
    options_fini(&o);
}

static void too_many_settings_are_refused(void)
{
    struct options o = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(o.sets); i++) {
        CHECK_INT(options_add(&o, "cache=1GiB", false, NULL), 0);
    }
    CHECK_INT(options_add(&o, "cache=1GiB", false, NULL), DFS_EINVAL);
    options_fini(&o);
}

/* ---- mount points ---- */

static const char table[] =
    "21 26 0:19 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
    "40 26 0:50 / /mnt/my\\040dfs rw,relatime - fuse.dfs m1:9600:/ rw,user_id=0\n"
    "41 26 8:1 / /mnt/disk rw shared:9 master:2 - ext4 /dev/sda1 rw\n"
    "42 41 0:51 / /mnt/disk rw - fuse.dfs m1:/x rw\n"
    "garbage\n"
    "43 26 0:52 / /mnt/short rw\n"
    "44 26 0:53 / /mnt/other rw - fuse.sshfs h:/ rw\n";

static int find(const char *dir, struct point_info *ret)
{
    FILE *f = fmemopen((void *)(uintptr_t)table, sizeof(table) - 1, "r");
    int err = point_find_in(f, dir, ret);

    fclose(f);
    return err;
}

static void the_mount_table_is_read(void)
{
    struct point_info i = { 0 };

    CHECK_INT(find("/mnt/my dfs", &i), 0);
    CHECK(i.dfs && i.dev_major == 0 && i.dev_minor == 50);
    CHECK_INT(find("/mnt/disk", &i), 0); /* the one on top */
    CHECK(i.dfs && i.dev_minor == 51);
    CHECK_INT(find("/mnt/other", &i), 0);
    CHECK(!i.dfs);
    CHECK_INT(find("/mnt", &i), DFS_ENOENT);
    CHECK_INT(find("/mnt/short", &i), DFS_ENOENT);
}

static void mount_points_are_checked(void)
{
    char path[256], *real = NULL;
    struct why why = { "" };
    FILE *f;

    snprintf(path, sizeof(path), "%s/dir", tap_tmp());
    CHECK_INT(point_check(path, false, &real, &why), DFS_ENOENT);
    CHECK(strstr(why.text, path) != NULL);
    CHECK_INT(mkdir(path, 0755), 0);
    CHECK_INT(point_check(path, false, &real, &why), 0);
    free(real);
    strcat(path, "/");
    CHECK_INT(point_check(path, false, &real, &why), 0);
    CHECK(real[strlen(real) - 1] != '/');
    free(real);
    strcat(path, "file");
    f = fopen(path, "w");
    CHECK(f != NULL);
    fclose(f);
    real = NULL;
    CHECK_INT(point_check(path, false, &real, &why), DFS_ENOTDIR);
    *strrchr(path, '/') = '\0';
    CHECK_INT(point_check(path, false, &real, &why), DFS_ENOTEMPTY);
    CHECK(real == NULL);
    CHECK_INT(point_check(path, true, &real, &why), 0);
    free(real);
    CHECK_INT(point_check("", false, &real, &why), DFS_EINVAL);
}

int main(void)
{
    tap_run("a source names masters and a path", a_source_names_masters_and_a_path);
    tap_run("a source that is none is refused", a_source_that_is_none_is_refused);
    tap_run("options go where they belong", options_go_where_they_belong);
    tap_run("root is squashed to whom the options say", root_is_squashed_to_whom_the_options_say);
    tap_run("unknown options are refused unless sloppy", unknown_options_are_refused_unless_sloppy);
    tap_run("remount takes what the kernel said", remount_takes_what_the_kernel_said);
    tap_run("too many settings are refused", too_many_settings_are_refused);
    tap_run("the mount table is read", the_mount_table_is_read);
    tap_run("mount points are checked", mount_points_are_checked);
    return tap_done();
}
