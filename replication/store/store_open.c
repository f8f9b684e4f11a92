/* Opening a store: identity, volumes, scan; and closing it. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/rng.h"

#include "replication/rule.h"
#include "replication/store/recover.h"
#include "replication/store/store_impl.h"

#define FDS_LIMIT      1000u
#define STORE_PATH_MAX 4096u

/* ---- scanning ---- */

struct scan {
    struct store *store;
    struct volume *vol;
    struct store_found found;
    pthread_t thread;
    int err;
    struct why why;
};

static void add_found(struct store_found *sum, const struct store_found *f)
{
    sum->replicas += f->replicas;
    sum->open += f->open;
    sum->removed += f->removed;
    sum->cut += f->cut;
    sum->cut_bytes += f->cut_bytes;
    sum->shortened += f->shortened;
    sum->damaged += f->damaged;
    sum->duplicates += f->duplicates;
}

static void add_unusable(struct store *s, uint64_t block, struct volume *vol,
                         const struct replica *spare)
{
    struct store_unusable *u = x_alloc(sizeof(*u));

    *u = (struct store_unusable){ .block = block, .vol = vol, .spare = spare != NULL };
    u->len = spare != NULL ? spare->len : 0;
    list_init(&u->link);
    pthread_mutex_lock(&s->mu);
    list_push_back(&s->unusable, &u->link);
    pthread_mutex_unlock(&s->mu);
    if (spare != NULL) {
        atomic_fetch_add(&s->spares, 1);
    }
}

/* Puts a found replica into the index, or drops it when the block is there already and longer. The
 * file of the loser stays for the time being. */
static void add_replica(struct scan *sc, struct replica *r)
{
    struct store_stripe *st = store_stripe_of(sc->store, r->block);
    struct replica *old, *loser = NULL;

    pthread_mutex_lock(&st->lock.mu);
    old = store_find_locked(st, r->block);
    if (old == NULL) {
        store_index_add_locked(st, r);
    } else if (old->len >= r->len) {
        loser = r;
    } else {
        store_index_remove_locked(st, old);
        store_index_add_locked(st, r);
        loser = old;
    }
    pthread_mutex_unlock(&st->lock.mu);
    if (loser != NULL) {
        sc->found.duplicates++;
        add_unusable(sc->store, loser->block, loser->vol, loser);
        store_put(sc->store, loser);
    }
    if (loser != r && !replica_clean(r)) {
        replica_mark_dirty(r);
    }
}

static void take_in(struct scan *sc, uint64_t block, const struct recovered *f)
{
    struct replica *r = store_replica_new(sc->store, block, sc->vol, f->state);

    r->len = f->len;
    r->tail_sum = f->tail_sum;
    r->tail_known = f->tail_known;
    r->mark = f->mark;
    r->synced = f->durable ? f->len : 0;
    r->named = f->durable;
    r->seal_unsaved = f->state == RULE_SEALED && !f->durable;
    atomic_fetch_add(&sc->vol->used, f->len);
    atomic_fetch_add(&sc->vol->blocks, 1);
    sc->found.replicas++;
    sc->found.open += f->state == RULE_OPEN ? 1 : 0;
    sc->found.cut += f->cut != 0 ? 1 : 0;
    sc->found.cut_bytes += f->cut;
    sc->found.shortened += f->missing != 0 ? 1 : 0;
    add_replica(sc, r);
}

static void scan_file(struct scan *sc, int dir_fd, const char *name, uint64_t block)
{
    const uint8_t *cluster = sc->store->id.has_cluster ? sc->store->id.cluster : NULL;
    struct recovered f = { 0 };
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC);
    int err = fd < 0 ? err_from_errno(errno) : recover_replica(fd, block, cluster, &f);

    io_close(fd);
    if (err != 0) {
        sc->found.damaged++;
        atomic_fetch_add(&sc->vol->damaged, 1);
        add_unusable(sc->store, block, sc->vol, NULL);
        store_report_bad(sc->store, block, err);
    } else if (f.verdict == RECOVER_REMOVE) {
        sc->found.removed++;
        unlinkat(dir_fd, name, 0);
    } else {
        take_in(sc, block, &f);
    }
}

/* "000000000000013f" in the directory 3f; false for anything else. */
static bool block_of_name(const char *name, unsigned dir, uint64_t *ret)
{
    uint64_t v = 0;

    for (int i = 0; i < 16; i++) {
        char c = name[i];

        if (c >= '0' && c <= '9') {
            v = v << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret = v;
    return name[16] == '\0' && (v & 0xff) == dir;
}

static int scan_dir(struct scan *sc, unsigned no)
{
    char path[REPLICA_PATH_MAX];
    struct dirent *e;
    uint64_t block;
    DIR *d;

    snprintf(path, sizeof(path), "%s/blocks/%02x", sc->vol->path, no);
    d = opendir(path);
    if (d == NULL && errno == ENOENT) {
        return 0; /* made with its first replica */
    }
    if (d == NULL) {
        return why_set(&sc->why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    for (errno = 0; (e = readdir(d)) != NULL; errno = 0) {
        if (block_of_name(e->d_name, no, &block)) {
            scan_file(sc, dirfd(d), e->d_name, block);
        }
    }
    if (errno != 0) {
        sc->err = why_set(&sc->why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    closedir(d);
    return sc->err;
}

static void *scan_run(void *arg)
{
    struct scan *sc = arg;

    for (unsigned i = 0; i < 256 && sc->err == 0 && !atomic_load(&sc->vol->failed); i++) {
        sc->err = scan_dir(sc, i);
    }
    return NULL;
}

static int scan_all(struct store *s, struct store_found *found, struct why *why)
{
    struct scan *scans = x_alloc(sizeof(*scans) * s->volume_count);
    size_t started = 0;
    int err = 0;

    for (size_t i = 0; i < s->volume_count && err == 0; i++) {
        scans[i].store = s;
        scans[i].vol = s->volumes[i];
        if (atomic_load(&s->volumes[i]->failed)) {
            found->volumes_failed++;
        }
        if (pthread_create(&scans[i].thread, NULL, scan_run, &scans[i]) != 0) {
            err = why_set(why, DFS_ENOMEM, "cannot start a thread");
            break;
        }
        started++;
    }
    for (size_t i = 0; i < started; i++) {
        pthread_join(scans[i].thread, NULL);
        add_found(found, &scans[i].found);
        if (scans[i].err == DFS_EIO) {
            /* A disk that cannot be listed is a failed one: the others go on. */
            volume_write_failed(scans[i].vol, DFS_EIO, scans[i].why.text);
            found->volumes_failed++;
        } else if (scans[i].err != 0 && err == 0) {
            err = scans[i].err;
            if (why != NULL) {
                *why = scans[i].why;
            }
        }
    }
    free(scans);
    return err;
}

/* ---- opening ---- */

static const uint8_t *known_uuid(const struct identity *id, const char *path)
{
    for (size_t i = 0; i < id->volume_count; i++) {
        if (strcmp(id->volumes[i].path, path) == 0) {
            return id->volumes[i].uuid;
        }
    }
    return NULL;
}

/* A volume's identity against the server's; a server that lost its own takes the volume's. One of
 * another server of the same cluster has been moved here with all that is on it: *ret_foreign. */
static int match_identity(struct store *s, bool fresh, const char *path, const struct identity *v,
                          bool *ret_foreign, struct why *why)
{
    char text[UUID_TEXT];

    if (fresh && s->volume_count == 0) {
        memcpy(s->id.server, v->server, UUID_BYTES);
        memcpy(s->id.cluster, v->cluster, CLUSTER_ID_BYTES);
        s->id.has_cluster = v->has_cluster;
    }
    if (v->has_cluster && s->id.has_cluster &&
        memcmp(v->cluster, s->id.cluster, CLUSTER_ID_BYTES) != 0) {
        return why_set(why, DFS_EWRONGCLUSTER, "volume %s: belongs to another cluster (%s)", path,
                       uuid_format(v->cluster, text));
    }
    *ret_foreign = memcmp(v->server, s->id.server, UUID_BYTES) != 0;
    if (*ret_foreign && !(v->has_cluster && s->id.has_cluster)) {
        return why_set(why, DFS_EWRONGCLUSTER, "volume %s: belongs to another block server (%s)",
                       path, uuid_format(v->server, text));
    }
    return 0;
}

/* What a disk that fails looks like, or one that is not there. Whatever may be a mistake of those who
 * started the server is not. */
static bool is_disk_failure(int err)
{
    return err == DFS_EIO || err == DFS_EROFS || err == DFS_ENOENT || err == DFS_EACCES;
}

static int open_volume(struct store *s, const char *spec, bool fresh, const struct store_conf *conf,
                       struct why *why)
{
    char label[LIMIT_LABEL + 1];
    struct identity id = { 0 };
    const uint8_t *known;
    const char *path;
    struct volume *v;
    int err = volume_spec_split(spec, conf->label, label, &path, why);

    if (err != 0) {
        return err;
    }
    for (size_t i = 0; i < s->volume_count; i++) {
        if (!atomic_load(&s->volumes[i]->detached) && strcmp(s->volumes[i]->path, path) == 0) {
            return why_set(why, DFS_ECONFIG, "volume %s: listed twice", path);
        }
    }
    if (s->volume_count == LIMIT_VOLUMES) {
        return why_set(why, DFS_ECONFIG, "more than %d volumes", LIMIT_VOLUMES);
    }
    known = known_uuid(&s->id, path);
    err = volume_open(path, known, conf->reserve, &v, &id, why);
    if (known != NULL && is_disk_failure(err) && !s->opened) {
        s->volumes[s->volume_count] = volume_of_failed(path, known, err, why);
        memcpy(s->volumes[s->volume_count]->label, label, sizeof(label));
        s->volume_count++;
        return 0;
    }
    if (err != 0) {
        return err;
    }
    err = v->fresh ? 0 : match_identity(s, fresh, path, &id, &v->foreign, why);
    identity_fini(&id);
    if (err != 0) {
        volume_close(v);
        return err;
    }
    memcpy(v->label, label, sizeof(v->label));
    atomic_store(&v->joining, s->opened);
    s->volumes[s->volume_count] = v;
    s->volume_count++;
    return 0;
}

/* Those that came by command; a removal is forgotten once the configuration names it no more. */
static int open_added(struct store *s, const char *configured, bool fresh,
                      const struct store_conf *conf, struct why *why)
{
    int err = 0;

    for (size_t i = s->list.count; i > 0; i--) {
        const struct volume_line *l = &s->list.lines[i - 1];

        if (l->note == NOTE_REMOVED && strstr(configured, l->spec) == NULL) {
            volume_list_drop(&s->list, NOTE_REMOVED, l->spec);
        }
    }
    for (size_t i = 0; i < s->list.count && err == 0; i++) {
        const struct volume_line *l = &s->list.lines[i];
        bool known = false;

        for (size_t k = 0; k < s->volume_count; k++) {
            known = known || strcmp(s->volumes[k]->path, volume_list_path(l->spec)) == 0;
        }
        if (l->note == NOTE_ADDED && !known) {
            err = open_volume(s, l->spec, fresh, conf, why);
        }
    }
    return err;
}

/* One failed disk of several does not keep a server from serving the others. */
static int check_any_works(const struct store *s, struct why *why)
{
    for (size_t i = 0; i < s->volume_count; i++) {
        if (!atomic_load(&s->volumes[i]->failed)) {
            return 0;
        }
    }
    return why_set(why, s->volumes[0]->open_err, "%s", s->volumes[0]->failure.text);
}

/* Unless it was removed by command. */
static int open_configured(struct store *s, const char *spec, bool fresh,
                           const struct store_conf *conf, struct why *why)
{
    return volume_list_has(&s->list, NOTE_REMOVED, spec) ? 0
                                                         : open_volume(s, spec, fresh, conf, why);
}

static int open_listed(struct store *s, const struct store_conf *conf, bool fresh, struct why *why)
{
    char *list = x_strdup(conf->volumes), *rest = list;
    const char *spec;
    int err = 0;

    while (err == 0 && (spec = volume_spec_next(&rest)) != NULL) {
        err = open_configured(s, spec, fresh, conf, why);
    }
    free(list);
    return err;
}

static int open_volumes(struct store *s, const struct store_conf *conf, bool fresh, struct why *why)
{
    bool listed = conf->volumes != NULL && *conf->volumes != '\0';
    char *own = x_printf("%s/volume", s->dir); /* commas and all: not a list */
    int err = listed ? open_listed(s, conf, fresh, why) : open_configured(s, own, fresh, conf, why);

    err = err != 0 ? err : open_added(s, listed ? conf->volumes : own, fresh, conf, why);
    free(own);
    if (err == 0 && s->volume_count == 0) {
        err = why_set(why, DFS_ECONFIG, "block.volumes: no directory in the list");
    }
    return err != 0 ? err : check_any_works(s, why);
}

/* The files on disk say the same already. */
static bool is_saved(const struct store *s, bool fresh)
{
    bool same = !fresh && s->id.volume_count == s->volume_count;

    for (size_t i = 0; i < s->volume_count && same; i++) {
        same = !s->volumes[i]->fresh && !s->volumes[i]->foreign &&
               strcmp(s->id.volumes[i].path, s->volumes[i]->path) == 0;
    }
    return same;
}

/* Writes down who owns what: first on the volumes, then in the server's own file. */
int store_save_identity(struct store *s, struct why *why)
{
    char path[STORE_PATH_MAX + 16];

    identity_fini(&s->id);
    for (size_t i = 0; i < s->volume_count; i++) {
        struct volume *v = s->volumes[i];
        struct identity_volume *line = &s->id.volumes[s->id.volume_count];
        int err;

        if (atomic_load(&v->detached)) {
            continue;
        }
        err = atomic_load(&v->failed) ? 0 : volume_adopt(v, &s->id, why);
        if (err != 0) {
            return err;
        }
        memcpy(line->uuid, v->uuid, sizeof(line->uuid));
        line->path = x_strdup(v->path);
        s->id.volume_count++;
    }
    snprintf(path, sizeof(path), "%s/dfs-server", s->dir);
    return identity_save(path, &s->id, why);
}

static int open_identity(struct store *s, bool *ret_fresh, struct why *why)
{
    char path[STORE_PATH_MAX + 16];
    int err = io_mkdir_p(s->dir, 0755, why);

    if (err != 0) {
        return err;
    }
    snprintf(path, sizeof(path), "%s/dfs-server.lock", s->dir);
    err = io_lock_file(path, &s->lock_fd, why);
    if (err == DFS_EBUSY) {
        return why_set(why, err, "%s: a running block server uses it", s->dir);
    }
    if (err != 0) {
        return err;
    }
    snprintf(path, sizeof(path), "%s/dfs-server", s->dir);
    err = identity_load(path, &s->id, why);
    *ret_fresh = err == DFS_ENOENT;
    if (*ret_fresh) {
        rng_system(s->id.server, sizeof(s->id.server));
        err = 0;
    }
    return err;
}

static struct syncer *syncer_of(const struct store *s, const struct replica *r)
{
    size_t i = 0;

    while (s->volumes[i] != r->vol) {
        i++;
    }
    return s->syncers[i];
}

static void much(void *arg, struct replica *r)
{
    syncer_hurry(syncer_of(arg, r), r);
}

static void dirty(void *arg, struct replica *r)
{
    struct store *s = arg;

    pthread_mutex_lock(&r->lock->mu);
    r->refs++;
    pthread_mutex_unlock(&r->lock->mu);
    syncer_add(syncer_of(s, r), r);
}

static void put(void *arg, struct replica *r)
{
    store_put(arg, r);
}

static struct store *store_new(const struct store_conf *conf)
{
    struct store *s = x_alloc(sizeof(*s));
    pthread_condattr_t attr;

    s->dir = x_strdup(conf->dir);
    s->lock_fd = -1;
    s->bad = x_alloc(sizeof(*s->bad) * STORE_BAD_MAX);
    s->env.dirty = dirty;
    s->env.much = much;
    s->env.arg = s;
    list_init(&s->unusable);
    fd_cache_init(&s->env.fds, FDS_LIMIT);
    pthread_mutex_init(&s->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    s->reserve = conf->reserve;
    s->label = x_strdup(conf->label != NULL ? conf->label : "");
    pthread_mutex_init(&s->admin, NULL);
    pthread_cond_init(&s->drain_cv, &attr);
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        pthread_mutex_init(&s->stripes[i].lock.mu, NULL);
        pthread_cond_init(&s->stripes[i].lock.cv, &attr);
        htab_init(&s->stripes[i].index);
    }
    pthread_condattr_destroy(&attr);
    return s;
}

int store_open(const struct store_conf *conf, struct store **ret, struct store_found *ret_found,
               struct why *why)
{
    struct store_found found = { 0 };
    struct store *s = store_new(conf);
    bool fresh = false;
    int err;

    err = strlen(s->dir) <= STORE_PATH_MAX
              ? open_identity(s, &fresh, why)
              : why_set(why, DFS_ENAMETOOLONG, "block.data: the path is too long");
    err = err != 0 ? err : volume_list_load(s->dir, &s->list, why);
    if (err == 0) {
        err = open_volumes(s, conf, fresh, why);
    }
    if (err == 0 && !is_saved(s, fresh)) {
        err = store_save_identity(s, why);
    }
    for (size_t i = 0; i < s->volume_count && err == 0; i++) {
        s->syncers[i] = syncer_start(put, s);
        if (s->syncers[i] == NULL) {
            err = why_set(why, DFS_ENOMEM, "cannot start a thread");
        }
    }
    if (err == 0) {
        memcpy(s->env.cluster, s->id.cluster, sizeof(s->env.cluster));
        err = scan_all(s, &found, why);
    }
    s->opened = err == 0;
    err = err != 0 ? err : store_drain_resume(s, why);
    if (err != 0) {
        store_close(s);
        return err;
    }
    *ret_found = found;
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    struct list *l;

    if (s == NULL) {
        return;
    }
    store_drain_stop(s);
    for (size_t i = 0; i < s->volume_count; i++) {
        syncer_stop(s->syncers[i]);
    }
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct hnode *n;

        while ((n = htab_pop(&s->stripes[i].index)) != NULL) {
            store_put(s, CONTAINER_OF(n, struct replica, node));
        }
        htab_fini(&s->stripes[i].index);
        pthread_cond_destroy(&s->stripes[i].lock.cv);
        pthread_mutex_destroy(&s->stripes[i].lock.mu);
    }
    for (size_t i = 0; i < s->volume_count; i++) {
        volume_close(s->volumes[i]);
    }
    while ((l = list_pop_front(&s->unusable)) != NULL) {
        free(CONTAINER_OF(l, struct store_unusable, link));
    }
    fd_cache_fini(&s->env.fds);
    identity_fini(&s->id);
    io_close(s->lock_fd);
    volume_list_fini(&s->list);
    free(s->label);
    pthread_cond_destroy(&s->drain_cv);
    pthread_mutex_destroy(&s->admin);
    pthread_mutex_destroy(&s->mu);
    free(s->bad);
    free(s->dir);
    free(s);
}

const struct identity *store_identity(const struct store *s)
{
    return &s->id;
}

int store_adopt(struct store *s, const uint8_t cluster[CLUSTER_ID_BYTES], uint32_t node,
                struct why *why)
{
    if (s->id.has_cluster && memcmp(s->id.cluster, cluster, CLUSTER_ID_BYTES) != 0) {
        return why_set(why, DFS_EWRONGCLUSTER, "%s: belongs to another cluster", s->dir);
    }
    if (s->id.has_cluster && s->id.node == node) {
        return 0;
    }
    s->id.has_cluster = true;
    s->id.node = node;
    memcpy(s->id.cluster, cluster, CLUSTER_ID_BYTES);
    memcpy(s->env.cluster, cluster, CLUSTER_ID_BYTES);
    return store_save_identity(s, why);
}

int store_volume_join(struct store *s, const char *spec, struct why *why)
{
    const struct store_conf conf = { .reserve = s->reserve, .label = s->label };
    size_t slot = s->volume_count;
    struct scan sc = { .store = s };
    int err;

    if (slot == LIMIT_VOLUMES) {
        return why_set(why, DFS_ENOSPC, "too many volumes came and went: restart the server");
    }
    s->syncers[slot] = syncer_start(put, s);
    if (s->syncers[slot] == NULL) {
        return why_set(why, DFS_ENOMEM, "cannot start a thread");
    }
    err = open_volume(s, spec, false, &conf, why);
    if (err != 0) {
        syncer_stop(s->syncers[slot]);
        s->syncers[slot] = NULL;
        return err;
    }
    sc.vol = s->volumes[slot];
    err = store_save_identity(s, why);
    if (err == 0) {
        scan_run(&sc);
    }
    if (sc.err != 0) {
        volume_write_failed(sc.vol, sc.err, sc.why.text);
        err = why_set(why, sc.err, "%s", sc.why.text);
    }
    atomic_store(&sc.vol->detached, err != 0);
    atomic_store(&sc.vol->joining, false);
    return err;
}
