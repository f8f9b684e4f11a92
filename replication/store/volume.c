#include "replication/store/volume.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"
#include "cluster/base/rng.h"

#define LOOK_EVERY_MS   1000u
#define LOOK_BELOW      (256 * MIB) /* less than this free: look before every take */
#define HANGS_US        UINT64_C(3000000)
#define READ_ERRORS_MAX 8u /* unreadable replicas that a volume may have */

const char *volume_replica_path(const struct volume *v, uint64_t block, char buf[REPLICA_PATH_MAX])
{
    snprintf(buf, REPLICA_PATH_MAX, "%s/blocks/%02x/%016" PRIx64, v->path, (unsigned)(block & 0xff),
             block);
    return buf;
}

void volume_look(struct volume *v)
{
    uint64_t avail = 0;
    struct statvfs s;
    bool told = statvfs(v->path, &s) == 0;

    if (told) {
        avail = (uint64_t)s.f_bavail * s.f_frsize;
    } else {
        volume_write_failed(v, err_from_errno(errno), "ask for its space");
    }
    pthread_mutex_lock(&v->mu);
    v->looked_ms = clock_mono_ms();
    if (told) {
        v->total = (uint64_t)s.f_blocks * s.f_frsize;
    }
    v->free_bytes = avail > v->reserve ? avail - v->reserve : 0;
    pthread_mutex_unlock(&v->mu);
}

int volume_take(struct volume *v, uint64_t bytes)
{
    uint64_t now = clock_mono_ms();
    int err = 0;
    bool look;

    if (atomic_load(&v->failed)) {
        return DFS_EVOLUME;
    }
    pthread_mutex_lock(&v->mu);
    look = v->looked_ms == 0 || now - v->looked_ms >= LOOK_EVERY_MS || v->free_bytes < LOOK_BELOW;
    pthread_mutex_unlock(&v->mu);
    if (look) {
        volume_look(v);
    }
    pthread_mutex_lock(&v->mu);
    if (v->free_bytes < bytes) {
        err = DFS_ENOSPC;
    } else {
        v->free_bytes -= bytes;
    }
    pthread_mutex_unlock(&v->mu);
    return err;
}

bool volume_hangs(const struct volume *v)
{
    return latency_stuck_us(&v->latency, clock_mono_us()) >= HANGS_US;
}

uint64_t volume_free(struct volume *v)
{
    uint64_t n;

    if (volume_is_out(v) || atomic_load(&v->joining) || atomic_load(&v->leaving)) {
        return 0;
    }
    pthread_mutex_lock(&v->mu);
    n = v->free_bytes;
    pthread_mutex_unlock(&v->mu);
    return volume_hangs(v) ? MIN(n, MIB) : n;
}

uint64_t volume_total(struct volume *v)
{
    uint64_t n;

    pthread_mutex_lock(&v->mu);
    n = v->total;
    pthread_mutex_unlock(&v->mu);
    return n;
}

static void fail(struct volume *v, int err, const char *what)
{
    pthread_mutex_lock(&v->mu);
    if (!atomic_load(&v->failed)) {
        why_set(&v->failure, err, "%s: %s", what, err_text(err));
        atomic_store(&v->failed, true);
    }
    pthread_mutex_unlock(&v->mu);
}

int volume_write_failed(struct volume *v, int err, const char *what)
{
    if (err == DFS_ENOSPC || err == DFS_EDQUOT) {
        return DFS_ENOSPC;
    }
    if (err == DFS_EBUSY) {
        return err;
    }
    atomic_fetch_add(&v->errors, 1);
    fail(v, err, what);
    return DFS_EVOLUME;
}

int volume_read_failed(struct volume *v, int err, const char *what)
{
    if (atomic_fetch_add(&v->errors, 1) + 1 >= READ_ERRORS_MAX) {
        fail(v, err, what);
    }
    return DFS_EIO;
}

void volume_failure(struct volume *v, struct why *ret)
{
    pthread_mutex_lock(&v->mu);
    *ret = v->failure;
    pthread_mutex_unlock(&v->mu);
}

bool volume_is_there(const struct volume *v)
{
    char path[REPLICA_PATH_MAX];

    snprintf(path, sizeof(path), "%s/dfs-volume", v->path);
    return access(path, F_OK) == 0;
}

/* Tells the file system to spread the directories below: replicas are unrelated to each other. */
static void spread_directories(const char *blocks)
{
    int fd = open(blocks, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int flags = 0;

    if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_TOPDIR_FL;
        (void)!ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    io_close(fd);
}

static int make_blocks(struct volume *v, struct why *why)
{
    char path[REPLICA_PATH_MAX];
    int err;

    snprintf(path, sizeof(path), "%s/blocks", v->path);
    if (access(path, F_OK) == 0) {
        return 0;
    }
    err = io_mkdir_p(path, 0755, why);
    if (err == 0) {
        spread_directories(path);
        err = io_sync_parent(path, why);
    }
    return err;
}

int volume_make_dir(struct volume *v, uint64_t block)
{
    char path[REPLICA_PATH_MAX];

    snprintf(path, sizeof(path), "%s/blocks/%02x", v->path, (unsigned)(block & 0xff));
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        return err_from_errno(errno);
    }
    return io_sync_parent(path, NULL);
}

/* A probe file, because permission bits tell nothing about a file system that went read-only. */
static int check_writable(const struct volume *v, struct why *why)
{
    char path[REPLICA_PATH_MAX];
    int fd, no;

    snprintf(path, sizeof(path), "%s/dfs-probe", v->path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    no = errno;
    if (FAULT("volume.probe") != 0 && fd >= 0) {
        io_close(fd);
        fd = -1;
        no = EROFS;
    }
    if (fd < 0) {
        return why_set(why, err_from_errno(no), "not writable: %s", strerror(no));
    }
    io_close(fd);
    unlink(path);
    return 0;
}

static int gone(struct why *why)
{
    return why_set(why, DFS_ENOENT,
                   "held blocks before and is empty now: is its disk mounted? "
                   "(to start it empty, remove its line from dfs-server)");
}

static int check_identity(struct volume *v, const uint8_t *known, struct identity *ret_id,
                          struct why *why)
{
    char path[REPLICA_PATH_MAX];
    struct identity id = { 0 };
    int err;

    snprintf(path, sizeof(path), "%s/dfs-volume", v->path);
    err = identity_load(path, &id, why);
    if (err == DFS_ENOENT) {
        v->fresh = true;
        rng_system(v->uuid, sizeof(v->uuid));
        memset(ret_id, 0, sizeof(*ret_id));
        return 0;
    }
    if (err != 0) {
        return err;
    }
    if (!id.has_volume) {
        return why_set(why, DFS_EDAMAGED, "%s: no volume line", path);
    }
    if (known != NULL && memcmp(known, id.volume, UUID_BYTES) != 0) {
        return why_set(why, DFS_EDAMAGED, "is another volume than the one that was here before");
    }
    memcpy(v->uuid, id.volume, sizeof(v->uuid));
    *ret_id = id;
    return 0;
}

int volume_open(const char *path, const uint8_t *known, uint64_t reserve, struct volume **ret,
                struct identity *ret_id, struct why *why)
{
    struct volume *v = x_alloc(sizeof(*v));
    char file[REPLICA_PATH_MAX];
    int err;

    v->path = x_strdup(path);
    v->lock_fd = -1;
    v->reserve = reserve;
    pthread_mutex_init(&v->mu, NULL);
    if (strlen(path) > VOLUME_PATH_MAX) {
        err = why_set(why, DFS_ENAMETOOLONG, "the path is too long");
        goto out;
    }
    if (known == NULL) {
        err = io_mkdir_p(path, 0755, why);
    } else {
        /* Before anything is written to what may be an empty mount point. */
        snprintf(file, sizeof(file), "%s/dfs-volume", path);
        err = access(file, F_OK) == 0 || errno != ENOENT ? 0 : gone(why);
    }
    if (err != 0) {
        goto out;
    }
    err = check_writable(v, why);
    if (err != 0) {
        goto out;
    }
    snprintf(file, sizeof(file), "%s/dfs-volume.lock", path);
    err = io_lock_file(file, &v->lock_fd, why);
    if (err == DFS_EBUSY) {
        why_set(why, err, "a running block server uses it");
    }
    if (err != 0) {
        goto out;
    }
    err = check_identity(v, known, ret_id, why);
    if (err != 0) {
        goto out;
    }
    err = make_blocks(v, why);
    volume_look(v);
    if (err == 0 && v->fresh && volume_free(v) == 0) {
        err = why_set(why, DFS_ENOSPC, "full: no space above the %" PRIu64 " MiB of block.reserve",
                      reserve / MIB);
    }
out:
    if (err != 0) {
        why_prefix(why, "volume %s", path);
        volume_close(v);
        return err;
    }
    *ret = v;
    return 0;
}

struct volume *volume_of_failed(const char *path, const uint8_t uuid[UUID_BYTES], int err,
                                const struct why *why)
{
    struct volume *v = x_alloc(sizeof(*v));

    v->path = x_strdup(path);
    memcpy(v->uuid, uuid, sizeof(v->uuid));
    v->lock_fd = -1;
    v->open_err = err;
    why_set(&v->failure, err, "%s", why != NULL ? why->text : err_text(err));
    pthread_mutex_init(&v->mu, NULL);
    atomic_store(&v->errors, 1);
    atomic_store(&v->failed, true);
    return v;
}

void volume_close(struct volume *v)
{
    if (v == NULL) {
        return;
    }
    io_close(v->lock_fd);
    pthread_mutex_destroy(&v->mu);
    free(v->path);
    free(v);
}

int volume_adopt(struct volume *v, const struct identity *of, struct why *why)
{
    struct identity id = { .has_cluster = of->has_cluster, .has_volume = true };
    char path[REPLICA_PATH_MAX];

    memcpy(id.cluster, of->cluster, sizeof(id.cluster));
    memcpy(id.server, of->server, sizeof(id.server));
    memcpy(id.volume, v->uuid, sizeof(id.volume));
    snprintf(path, sizeof(path), "%s/dfs-volume", v->path);
    return identity_save(path, &id, why);
}
