#include "fs/role/local_dir.h"

#include <limits.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define LOCK_MS 120000 /* another call may be stopping a cluster that is slow to flush */
#define POLL_US 20000

static int resolve_dir(struct local *l, const char *dir, struct why *why)
{
    char *real = realpath(dir, NULL);

    if (real == NULL) {
        return why_set(why, err_from_errno(errno), "%s: %s", dir, strerror(errno));
    }
    if (strlen(real) + NAME_MAX >= sizeof(l->dir) || strchr(real, '\n') != NULL) {
        free(real);
        return why_set(why, DFS_EINVAL, "%s: this path cannot hold a cluster", dir);
    }
    snprintf(l->dir, sizeof(l->dir), "%s", real);
    free(real);
    return 0;
}

static int take_lock(struct local *l, volatile int *stop, struct why *why)
{
    char *path = x_printf("%s/run/lock", l->dir);
    uint64_t deadline = clock_mono_ms() + LOCK_MS;
    bool told = false;
    int err;

    while ((err = io_lock_file(path, &l->lock, why)) == DFS_EBUSY) {
        if (!told) {
            fprintf(stderr, "waiting for another dfs local on %s\n", l->dir);
            told = true;
        }
        if ((stop != NULL && *stop != 0) || clock_mono_ms() > deadline) {
            break;
        }
        usleep(POLL_US);
    }
    free(path);
    return err;
}

static int load_procs(struct local *l, struct why *why)
{
    for (int role = LOCAL_MASTER; role <= LOCAL_MOUNT; role++) {
        for (unsigned n = 1; l->count < LOCAL_PROCS_MAX; n++) {
            struct local_proc *p = &l->procs[l->count];
            int err;

            local_proc_init(p, l->dir, (enum local_role)role, n);
            err = local_proc_load(p, why);
            if (err == DFS_ENOENT) {
                break;
            }
            if (err != 0) {
                local_proc_fini(p);
                return err;
            }
            l->count++;
        }
    }
    return 0;
}

int local_open(struct local *l, const char *dir, bool lock, volatile int *stop, struct why *why)
{
    char *path;
    int err = resolve_dir(l, dir, why);

    if (err == 0 && lock) {
        err = take_lock(l, stop, why);
    }
    if (err != 0) {
        return err;
    }
    path = x_printf("%s/dfs.conf", l->dir);
    err = local_conf_load(&l->conf, path, why);
    free(path);
    return err != 0 ? err : load_procs(l, why);
}

struct local *local_new(void)
{
    struct local *l = x_alloc(sizeof(*l));

    l->lock = -1;
    return l;
}

void local_free(struct local *l)
{
    if (l == NULL) {
        return;
    }
    for (size_t i = 0; i < l->count; i++) {
        local_proc_fini(&l->procs[i]);
    }
    local_conf_fini(&l->conf);
    if (l->lock >= 0) {
        close(l->lock);
    }
    free(l);
}
