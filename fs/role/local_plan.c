/* What a call of dfs local asks for, added to what the directory remembers. */
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "fs/role/local_dir.h"

#define MASTER_PORTS 4 /* clients, control plane, log, metrics */

#define BLOCK_PORTS 2 /* data, metrics */

static size_t count_role(const struct local *l, enum local_role role)
{
    size_t n = 0;

    for (size_t i = 0; i < l->count; i++) {
        n += l->procs[i].role == role;
    }
    return n;
}

/* A slot behind the last process of the role; those behind move up. */
static struct local_proc *add_proc(struct local *l, enum local_role role)
{
    size_t number = count_role(l, role) + 1;
    size_t at = 0;

    ASSERT(l->count < LOCAL_PROCS_MAX);
    while (at < l->count && l->procs[at].role <= role) {
        at++;
    }
    memmove(&l->procs[at + 1], &l->procs[at], (l->count - at) * sizeof(l->procs[0]));
    l->count++;
    local_proc_init(&l->procs[at], l->dir, role, (unsigned)number);
    l->procs[at].added = true;
    local_proc_arg(&l->procs[at], "dfs");
    local_proc_arg(&l->procs[at], "%s", local_role_name(role));
    local_proc_arg(&l->procs[at], "--conf");
    local_proc_arg(&l->procs[at], "%s/dfs.conf", l->dir);
    return &l->procs[at];
}

static int add_master(struct local *l, struct why *why)
{
    uint16_t port = local_free_ports(MASTER_PORTS);
    struct local_proc *p;
    char addr[32];

    if (port == 0) {
        return why_set(why, DFS_EBUSY, "no free ports on 127.0.0.1");
    }
    snprintf(addr, sizeof(addr), "127.0.0.1:%u", port);
    p = add_proc(l, LOCAL_MASTER);
    local_proc_arg(p, "--set");
    local_proc_arg(p, "master.listen=%s", addr);
    local_proc_arg(p, "--set");
    local_proc_arg(p, "master.data=%s/data/%s", l->dir, p->name);
    return local_conf_set_masters(&l->conf, addr, why);
}

/* PATH/block-N of each volume path, comma separated; made when missing, or named as it is. */
static int volumes_of(const struct local_options *o, const char *name, bool make, char **ret,
                      struct why *why)
{
    char *all = x_strdup("");
    int err = 0;

    for (size_t i = 0; err == 0 && i < o->volume_count; i++) {
        char *path = x_printf("%s/%s", o->volumes[i], name);
        char *real = NULL;
        char *next;

        err = make ? io_mkdir_p(path, 0755, why) : 0;
        if (err == 0 && (real = realpath(path, NULL)) == NULL && !make) {
            real = x_strdup(path);
        }
        if (err == 0 && (real == NULL || strpbrk(real, ",\n") != NULL)) {
            err = why_set(why, DFS_EINVAL, "%s: not usable as a volume's path", path);
        }
        if (err == 0) {
            next = x_printf("%s%s%s", all, i > 0 ? "," : "", real);
            free(all);
            all = next;
        }
        free(real);
        free(path);
    }
    if (err != 0) {
        free(all);
        return err;
    }
    *ret = all;
    return 0;
}

/* Item i of a comma separated list, from the front again behind its end. */
static struct slice item_of(const char *list, size_t i)
{
    size_t count = 1;
    const char *p = list;

    for (const char *c = list; *c != '\0'; c++) {
        count += *c == ',';
    }
    for (i %= count; i > 0; i--) {
        p = strchr(p, ',') + 1;
    }
    return slice_of(p, strcspn(p, ","));
}

static void place_block(struct local_proc *p, const struct local_options *o, size_t index)
{
    if (o->racks != 0) {
        local_proc_arg(p, "--set");
        local_proc_arg(p, "block.rack=rack-%zu", index % o->racks + 1);
    }
    if (o->labels != NULL) {
        struct slice label = item_of(o->labels, index);

        local_proc_arg(p, "--set");
        local_proc_arg(p, "block.label=%.*s", (int)label.len, (const char *)label.p);
    }
}

static int add_block(struct local *l, const struct local_options *o, struct why *why)
{
    struct local_proc *p;
    char *volumes;
    uint16_t port = local_free_ports(BLOCK_PORTS);
    int err;

    if (port == 0) {
        return why_set(why, DFS_EBUSY, "no free ports on 127.0.0.1");
    }
    p = add_proc(l, LOCAL_BLOCK);
    err = volumes_of(o, p->name, true, &volumes, why);
    if (err != 0) {
        return err;
    }
    local_proc_arg(p, "--set");
    local_proc_arg(p, "block.listen=127.0.0.1:%u", port);
    local_proc_arg(p, "--set");
    local_proc_arg(p, "block.host=%s", p->name);
    local_proc_arg(p, "--set");
    local_proc_arg(p, "block.data=%s/data/%s", l->dir, p->name);
    if (o->volume_count > 0) {
        local_proc_arg(p, "--set");
        local_proc_arg(p, "block.volumes=%s", volumes);
    }
    free(volumes);
    place_block(p, o, count_role(l, LOCAL_BLOCK) - 1);
    return 0;
}

/* PATH whose last part is the root of a mount without a process: only its parent can be asked. */
static char *dead_mountpoint(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == NULL ? x_strdup(".") : x_strndup(path, (size_t)(slash - path) + 1);
    char *real = realpath(parent, NULL);
    char *full = NULL;

    if (real != NULL) {
        full =
            x_printf("%s/%s", strcmp(real, "/") == 0 ? "" : real, slash == NULL ? path : slash + 1);
    }
    free(real);
    free(parent);
    return full;
}

/* The absolute path; the directory is made when its parent exists. */
static int mountpoint_of(const char *path, bool *ret_made, char **ret, struct why *why)
{
    bool made = mkdir(path, 0755) == 0;
    char *real = realpath(path, NULL);

    if (real == NULL && errno == ENOTCONN) {
        real = dead_mountpoint(path);
    }
    if (real == NULL) {
        return why_set(why, DFS_EINVAL, "mount point %s: %s", path, strerror(errno));
    }
    if (strchr(real, '\n') != NULL) {
        free(real);
        return why_set(why, DFS_EINVAL, "mount point %s: has a line break in it", path);
    }
    *ret_made = made;
    *ret = real;
    return 0;
}

static int plan_mount(struct local *l, const char *path, struct why *why)
{
    struct local_proc *p;
    bool made = false;
    char *real = NULL;
    int err = mountpoint_of(path, &made, &real, why);

    if (err != 0) {
        return err;
    }
    for (size_t i = 0; i < l->count; i++) {
        if (l->procs[i].role == LOCAL_MOUNT &&
            strcmp(local_proc_mountpoint(&l->procs[i]), real) == 0) {
            free(real);
            return 0;
        }
    }
    p = add_proc(l, LOCAL_MOUNT);
    local_proc_arg(p, "--set");
    local_proc_arg(p, "client.metrics=127.0.0.1:0");
    p->made_mountpoint = made;
    local_proc_arg(p, "--pid-file");
    local_proc_arg(p, "%s/run/%s.pid", l->dir, p->name);
    local_proc_arg(p, "--keep-pid-file");
    local_proc_arg(p, "--foreground");
    local_proc_arg(p, "%s", real);
    free(real);
    return 0;
}

/* A block server keeps the volumes it was born with. */
static int check_volumes(const struct local *l, const struct local_options *o, struct why *why)
{
    for (size_t i = 0; i < l->count && o->volume_count > 0; i++) {
        const struct local_proc *p = &l->procs[i];
        const char *has = local_proc_setting(p, "block.volumes");
        char *want;
        int err;

        if (p->role != LOCAL_BLOCK) {
            continue;
        }
        err = volumes_of(o, p->name, false, &want, why);
        if (err == 0 && strcmp(has != NULL ? has : "", want) != 0) {
            err = why_set(why, DFS_EINVAL, "%s already has its volumes: %s", p->name,
                          has != NULL ? has : "(below the cluster's directory)");
        }
        if (err != 0) {
            return err;
        }
        free(want);
    }
    return 0;
}

static int plan_conf(struct local *l, const struct local_options *o, struct why *why)
{
    char number[16];
    int err = 0;

    snprintf(number, sizeof(number), "%u",
             o->replication != 0 ? o->replication : LOCAL_REPLICATION_DEFAULT);
    if (o->replication != 0 || !local_conf_existed(&l->conf)) {
        err = local_conf_set(&l->conf, "replication", number, why);
    }
    if (err == 0 && o->conf != NULL) {
        err = local_conf_merge(&l->conf, o->conf, why);
    }
    for (size_t i = 0; err == 0 && i < o->set_count; i++) {
        err = local_conf_assign(&l->conf, o->sets[i], why);
    }
    return err;
}

int local_plan(struct local *l, const struct local_options *o, struct why *why)
{
    size_t have = count_role(l, LOCAL_BLOCK);
    size_t blocks = o->blocks != 0 ? o->blocks : have != 0 ? have : LOCAL_BLOCKS_DEFAULT;
    int err = 0;

    if (blocks < have) {
        return why_set(why, DFS_EINVAL, "--blocks %zu: the cluster already has %zu block servers",
                       blocks, have);
    }
    if (blocks > LOCAL_LIST_MAX || o->mount_count + count_role(l, LOCAL_MOUNT) > LOCAL_LIST_MAX) {
        return why_set(why, DFS_EINVAL, "at most %d block servers and %d mounts", LOCAL_LIST_MAX,
                       LOCAL_LIST_MAX);
    }
    err = plan_conf(l, o, why);
    err = err != 0 ? err : check_volumes(l, o, why);
    if (err == 0 && count_role(l, LOCAL_MASTER) == 0) {
        err = add_master(l, why);
    }
    for (; err == 0 && have < blocks; have++) {
        err = add_block(l, o, why);
    }
    for (size_t i = 0; err == 0 && i < o->mount_count; i++) {
        err = plan_mount(l, o->mounts[i], why);
    }
    return err;
}
