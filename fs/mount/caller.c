/* On whose behalf: user, group, supplementary groups, as the masters are to see them.
 *
 * The kernel tells user and group with every request, the other groups only in /proc. Reading them
 * costs about as much as the way to the master and back; so what was read is used again for a second,
 * for the same thread with the same user and group: no process id comes around in that time, and who
 * changes only its supplementary groups is believed the old ones for as long as attributes are.
 */
#include <fcntl.h>

#include "cluster/base/clock.h"
#include "cluster/base/io.h"

#include "fs/mount/internal.h"

#define SLOTS        256
#define TRUST_MS     1000
#define STATUS_BYTES (LIMIT_GROUPS * 11 + 4096) /* of /proc/PID/status until behind the groups */

struct slot {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    uint64_t until_ms;
    uint32_t count;
    uint32_t *ids; /* LIMIT_GROUPS of them, once used */
};

struct groups {
    pthread_mutex_t mu;
    struct slot slots[SLOTS]; /* guarded by: mu; by the thread's id */
};

const struct cred cred_root = { 0 };

struct groups *groups_new(void)
{
    struct groups *g = x_alloc(sizeof(*g));

    ASSERT(pthread_mutex_init(&g->mu, NULL) == 0);
    return g;
}

void groups_free(struct groups *g)
{
    if (g == NULL) {
        return;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        free(g->slots[i].ids);
    }
    (void)pthread_mutex_destroy(&g->mu);
    free(g);
}

/* The ids behind "Groups:"; what does not fit is left out, the largest ids. */
static uint32_t parse(const char *status, uint32_t ret[LIMIT_GROUPS])
{
    const char *p = strstr(status, "\nGroups:");
    uint32_t count = 0;

    if (p == NULL) {
        return 0;
    }
    p += strlen("\nGroups:");
    while (count < LIMIT_GROUPS) {
        char *end;
        unsigned long id;

        p += strspn(p, "\t ");
        if (*p < '0' || *p > '9') {
            break;
        }
        id = strtoul(p, &end, 10);
        if (*end == '\0') {
            break; /* perhaps cut off */
        }
        ret[count++] = (uint32_t)id;
        p = end;
    }
    return count;
}

static uint32_t read_groups(pid_t pid, uint32_t ret[LIMIT_GROUPS])
{
    char path[40], text[STATUS_BYTES];
    size_t len = 0;
    uint32_t count = 0;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && io_read_some(fd, text, sizeof(text) - 1, &len) == 0) {
        text[len] = '\0';
        count = parse(text, ret);
    }
    io_close(fd);
    return count;
}

static uint32_t groups_of(struct groups *g, const struct fuse_ctx *ctx, uint32_t ret[LIMIT_GROUPS])
{
    struct slot *s = &g->slots[(uint32_t)ctx->pid % SLOTS];
    uint64_t now = clock_mono_ms();
    uint32_t count = 0;
    bool known;

    (void)pthread_mutex_lock(&g->mu);
    known = s->pid == ctx->pid && s->uid == ctx->uid && s->gid == ctx->gid && now < s->until_ms;
    if (known && s->count != 0) {
        count = s->count;
        memcpy(ret, s->ids, count * sizeof(*ret));
    }
    (void)pthread_mutex_unlock(&g->mu);
    if (known) {
        return count;
    }
    count = read_groups(ctx->pid, ret);
    (void)pthread_mutex_lock(&g->mu);
    if (s->ids == NULL) {
        s->ids = x_alloc(LIMIT_GROUPS * sizeof(*s->ids));
    }
    memcpy(s->ids, ret, count * sizeof(*ret));
    s->pid = ctx->pid;
    s->uid = ctx->uid;
    s->gid = ctx->gid;
    s->count = count;
    s->until_ms = now + TRUST_MS;
    (void)pthread_mutex_unlock(&g->mu);
    return count;
}

bool caller_squashed(fuse_req_t req)
{
    return mount_of(req)->o->root_squash && fuse_req_ctx(req)->uid == 0;
}

struct cred caller_ids(fuse_req_t req)
{
    const struct mount_options *o = mount_of(req)->o;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct cred cr = { .uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask };

    if (o->root_squash) {
        cr.uid = cr.uid == 0 ? o->anon_uid : cr.uid;
        cr.gid = cr.gid == 0 || ctx->uid == 0 ? o->anon_gid : cr.gid;
    }
    return cr;
}

void caller_of(fuse_req_t req, struct caller *ret)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct mount *m = mount_of(req);

    ret->cr = caller_ids(req);
    ret->cr.groups = ret->groups;
    if (ctx->uid == 0 || ctx->pid == 0) {
        return; /* root needs no groups; of a process of elsewhere they are not known */
    }
    ret->cr.group_count = groups_of(m->groups, ctx, ret->groups);
    for (uint32_t i = 0; m->o->root_squash && i < ret->cr.group_count; i++) {
        ret->groups[i] = ret->groups[i] == 0 ? m->o->anon_gid : ret->groups[i];
    }
}
