/* Volumes that come and go while the server runs.
 *
 * Added: opened and scanned, in sight of writers only then. Leaving: gets nothing new, and a thread
 * moves what is on it to the server's other volumes, so that no block has a copy less meanwhile;
 * when it is empty it is let go. A failed one is let go at once. Every step is in the list of
 * volumes (volume_list.h) before it is taken, so that a restart goes on with it.
 */
#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/log.h"
#include "cluster/base/text.h"

#include "replication/store/store_impl.h"

#define DRAIN_BATCH   64u
#define DRAIN_WAIT_MS 500u /* when nothing could be moved: what is being written has to end */

static struct volume *find(struct store *s, const char *spec)
{
    const char *path = volume_list_path(spec);

    for (size_t i = 0; i < s->volume_count; i++) {
        if (!atomic_load(&s->volumes[i]->detached) && strcmp(s->volumes[i]->path, path) == 0) {
            return s->volumes[i];
        }
    }
    return NULL;
}

/* ---- leaving ---- */

/* It is empty, or has failed. admin is held. */
static int detach_locked(struct store *s, struct volume *v, struct why *why)
{
    int err = 0;

    volume_list_drop(&s->list, NOTE_LEAVING, v->path);
    if (volume_list_has(&s->list, NOTE_ADDED, v->path)) {
        volume_list_drop(&s->list, NOTE_ADDED, v->path);
    } else {
        err = volume_list_set(&s->list, NOTE_REMOVED, v->path);
    }
    err = err != 0 ? err : volume_list_save(s->dir, &s->list, why);
    if (err != 0) {
        return err;
    }
    atomic_store(&v->detached, true);
    err = store_save_identity(s, why);
    io_close(v->lock_fd);
    v->lock_fd = -1;
    log_event(LOG_INFO, "volume.removed", "path=\"%s\" failed=%d", v->path,
              (int)atomic_load(&v->failed));
    return err;
}

/* Up to max sealed replicas on it, with references; damaged ones wait for the masters, who replace
 * them. *ret_any: there are some, of any kind. */
static size_t collect(struct store *s, const struct volume *v, struct replica **ret, size_t max,
                      bool *ret_any)
{
    size_t n = 0;

    *ret_any = false;
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct store_stripe *st = &s->stripes[i];

        pthread_mutex_lock(&st->lock.mu);
        HTAB_FOREACH (node, &st->index) {
            struct replica *r = CONTAINER_OF(node, struct replica, node);

            if (r->vol != v) {
                continue;
            }
            *ret_any = true;
            if (n < max && r->sm.now == RULE_SEALED && !r->is_dirty && r->damage == 0) {
                r->refs++;
                ret[n++] = r;
            }
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
    return n;
}

/* Moves a batch. True when something was moved. */
static bool drain_some(struct store *s, struct volume *v)
{
    struct replica *batch[DRAIN_BATCH];
    bool moved = false, any;
    size_t n = collect(s, v, batch, DRAIN_BATCH, &any);

    for (size_t i = 0; i < n; i++) {
        struct volume *to =
            atomic_load(&s->stopping) ? NULL : store_choose_volume(s, slice_str(v->label));
        int err = to != NULL ? replica_move(batch[i], to) : DFS_ENOSPC;

        moved = moved || err == 0;
        if (err == DFS_ECHECKSUM || err == DFS_EIO) {
            store_damaged(s, batch[i], err);
        }
        store_put(s, batch[i]);
    }
    return moved;
}

/* Nothing depends on it: empty, or failed and given up by the masters. */
static bool is_done(struct store *s, const struct volume *v)
{
    bool any = false;

    if (!atomic_load(&v->failed)) {
        collect(s, v, NULL, 0, &any);
    }
    return !any;
}

static struct volume *next_leaving(struct store *s)
{
    for (size_t i = 0; i < s->volume_count; i++) {
        struct volume *v = s->volumes[i];

        if (atomic_load(&v->leaving) && !atomic_load(&v->detached)) {
            return v;
        }
    }
    return NULL;
}

static void wait_a_moment(struct store *s)
{
    uint64_t at = clock_mono_ms() + DRAIN_WAIT_MS;
    struct timespec t = { .tv_sec = (time_t)(at / 1000), .tv_nsec = (long)(at % 1000 * NS_PER_MS) };

    pthread_mutex_lock(&s->admin);
    if (!atomic_load(&s->stopping)) {
        pthread_cond_timedwait(&s->drain_cv, &s->admin, &t);
    }
    pthread_mutex_unlock(&s->admin);
}

static void *drain_run(void *arg)
{
    struct store *s = arg;
    struct why why;

    while (!atomic_load(&s->stopping)) {
        struct volume *v = next_leaving(s);

        if (v == NULL || (!drain_some(s, v) && !is_done(s, v))) {
            wait_a_moment(s);
            continue;
        }
        pthread_mutex_lock(&s->admin);
        if (atomic_load(&v->leaving) && is_done(s, v) && detach_locked(s, v, &why) != 0) {
            log_event(LOG_WARN, "volume.remove", "path=\"%s\" err=\"%s\"", v->path, why.text);
        }
        pthread_mutex_unlock(&s->admin);
    }
    return NULL;
}

/* admin is held. */
static int start_drain_locked(struct store *s, struct why *why)
{
    if (!s->draining && pthread_create(&s->drain, NULL, drain_run, s) != 0) {
        return why_set(why, DFS_ENOMEM, "cannot start a thread");
    }
    s->draining = true;
    pthread_cond_signal(&s->drain_cv);
    return 0;
}

void store_drain_stop(struct store *s)
{
    pthread_mutex_lock(&s->admin);
    atomic_store(&s->stopping, true);
    pthread_cond_signal(&s->drain_cv);
    pthread_mutex_unlock(&s->admin);
    if (s->draining) {
        pthread_join(s->drain, NULL);
    }
}

int store_drain_resume(struct store *s, struct why *why)
{
    bool any = false;
    int err = 0;

    pthread_mutex_lock(&s->admin);
    for (size_t i = 0; i < s->volume_count; i++) {
        if (volume_list_has(&s->list, NOTE_LEAVING, s->volumes[i]->path)) {
            atomic_store(&s->volumes[i]->leaving, true);
            any = true;
        }
    }
    err = any ? start_drain_locked(s, why) : 0;
    pthread_mutex_unlock(&s->admin);
    return err;
}

/* Can the others take what is on it? */
static int check_leave(struct store *s, const struct volume *v, struct why *why)
{
    char need[TEXT_NUMBER], have[TEXT_NUMBER];
    uint64_t room = 0, used = atomic_load(&v->used);
    size_t others = 0;

    for (size_t i = 0; i < s->volume_count; i++) {
        struct volume *o = s->volumes[i];

        if (o != v && !atomic_load(&o->detached) && !atomic_load(&o->leaving) &&
            !atomic_load(&o->failed)) {
            others++;
            room += volume_free(o);
        }
    }
    if (others == 0) {
        return why_set(why, DFS_EINVAL,
                       "is the server's only volume: add another one first, or decommission the "
                       "server");
    }
    if (room < used) {
        return why_set(why, DFS_ENOSPC,
                       "holds %s, and the server's other volumes have %s free: add a volume first",
                       text_bytes(used, need), text_bytes(room, have));
    }
    return 0;
}

int store_volume_remove(struct store *s, const char *path, struct why *why)
{
    struct volume *v;
    int err = 0;

    pthread_mutex_lock(&s->admin);
    v = find(s, path);
    if (v == NULL) {
        err = why_set(why, DFS_ENOENT, "is no volume of this server");
    } else if (atomic_load(&v->failed)) {
        err = detach_locked(s, v, why);
    } else if (!atomic_load(&v->leaving)) {
        err = check_leave(s, v, why);
        err = err != 0 ? err : volume_list_set(&s->list, NOTE_LEAVING, v->path);
        err = err != 0 ? err : volume_list_save(s->dir, &s->list, why);
        if (err == 0) {
            atomic_store(&v->leaving, true);
            err = start_drain_locked(s, why);
        }
    }
    pthread_mutex_unlock(&s->admin);
    return err;
}

int store_volume_keep(struct store *s, const char *path, struct why *why)
{
    struct volume *v;
    int err = 0;

    pthread_mutex_lock(&s->admin);
    v = find(s, path);
    if (v == NULL || !atomic_load(&v->leaving)) {
        err = why_set(why, DFS_EINVAL, "is not being removed");
    } else {
        volume_list_drop(&s->list, NOTE_LEAVING, v->path);
        err = volume_list_save(s->dir, &s->list, why);
        atomic_store(&v->leaving, err != 0);
    }
    pthread_mutex_unlock(&s->admin);
    return err;
}

int store_volume_add(struct store *s, const char *spec, struct why *why)
{
    const char *path = volume_list_path(spec);
    int err;

    pthread_mutex_lock(&s->admin);
    if (path[0] != '/' || strchr(spec, '\n') != NULL || strchr(spec, ',') != NULL) {
        err = why_set(why, DFS_EINVAL, "want the path of a directory on the server, from /");
    } else if (find(s, spec) != NULL) {
        err = why_set(why, DFS_EEXIST, "is a volume of this server already");
    } else {
        err = store_volume_join(s, spec, why);
    }
    if (err == 0) {
        if (volume_list_has(&s->list, NOTE_REMOVED, path)) {
            volume_list_drop(&s->list, NOTE_REMOVED, path);
        } else {
            err = volume_list_set(&s->list, NOTE_ADDED, spec);
        }
        err = err != 0 ? err : volume_list_save(s->dir, &s->list, why);
    }
    if (err == 0) {
        log_event(LOG_INFO, "volume.added", "path=\"%s\"", path);
    }
    pthread_mutex_unlock(&s->admin);
    return err;
}
