/* Damaged copies: what is remembered of them, and how a pass over a volume finds its replicas. */
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/log.h"

#include "replication/store/store_impl.h"

void store_damaged(struct store *s, struct replica *r, int status)
{
    struct store_stripe *st = store_stripe_of(s, r->block);
    bool first, lost;

    pthread_mutex_lock(&st->lock.mu);
    first = r->damage == 0;
    r->damage = status;
    lost = status == DFS_ENOBLOCK && r->sm.now == RULE_SEALED && !r->writer &&
           store_find_locked(st, r->block) == r;
    pthread_mutex_unlock(&st->lock.mu);
    if (first) {
        atomic_fetch_add(&r->vol->damaged, 1);
        log_event(LOG_ERROR, "replica.damaged", "block=%" PRIu64 " volume=\"%s\" err=\"%s\"",
                  r->block, r->vol->path, err_text(status));
    }
    store_report_bad(s, r->block, status);
    if (lost) {
        store_remove(s, r);
    }
}

void store_tell_damaged(struct store *s)
{
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct store_stripe *st = &s->stripes[i];

        pthread_mutex_lock(&st->lock.mu);
        HTAB_FOREACH (node, &st->index) {
            const struct replica *r = CONTAINER_OF(node, struct replica, node);

            if (r->damage != 0 && r->sm.now != RULE_GONE) {
                store_report_bad(s, r->block, r->damage);
            }
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
}

/* Takes the next file of this block that is not used out of the list; spare_of: only spare ones, of a
 * replica on this volume. NULL: there is none (more). */
static struct store_unusable *take_unusable(struct store *s, uint64_t block,
                                            const struct volume *spare_of)
{
    struct store_unusable *found = NULL;

    pthread_mutex_lock(&s->mu);
    LIST_FOREACH (l, &s->unusable) {
        struct store_unusable *u = CONTAINER_OF(l, struct store_unusable, link);

        if (u->block == block && (spare_of == NULL || (u->spare && u->vol != spare_of))) {
            found = u;
            list_remove(&u->link);
            break;
        }
    }
    pthread_mutex_unlock(&s->mu);
    return found;
}

static void remove_unusable(struct store *s, struct store_unusable *u)
{
    char path[REPLICA_PATH_MAX];

    unlink(volume_replica_path(u->vol, u->block, path));
    if (u->spare) {
        atomic_fetch_sub(&s->spares, 1);
        atomic_fetch_sub(&u->vol->used, u->len);
        atomic_fetch_sub(&u->vol->blocks, 1);
    }
    free(u);
}

void store_unusable_remove_locked(struct store *s, uint64_t block)
{
    struct store_unusable *u;

    while ((u = take_unusable(s, block, NULL)) != NULL) {
        remove_unusable(s, u);
    }
}

void store_checked(struct store *s, struct replica *r)
{
    struct store_unusable *u;

    if (atomic_load(&s->spares) == 0 || replica_look(r).state != RULE_SEALED) {
        return;
    }
    while ((u = take_unusable(s, r->block, r->vol)) != NULL) {
        log_event(LOG_INFO, "replica.spare", "block=%" PRIu64 " volume=\"%s\"", u->block,
                  u->vol->path);
        remove_unusable(s, u);
    }
}

bool store_next_spare(struct store *s, uint64_t *ret_block)
{
    bool found = false;

    if (atomic_load(&s->spares) == 0) {
        return false;
    }
    pthread_mutex_lock(&s->mu);
    LIST_FOREACH (l, &s->unusable) {
        struct store_unusable *u = CONTAINER_OF(l, struct store_unusable, link);

        if (u->spare && !u->asked) {
            u->asked = found = true;
            *ret_block = u->block;
            break;
        }
    }
    pthread_mutex_unlock(&s->mu);
    return found;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

size_t store_ids(struct store *s, const struct volume *v, uint64_t from, uint64_t **ret,
                 uint64_t *ret_bytes)
{
    uint64_t *all = NULL;
    uint64_t bytes = 0;
    size_t n = 0, cap = 0;

    for (size_t i = 0; i < STORE_STRIPES; i++) {
        struct store_stripe *st = &s->stripes[i];

        pthread_mutex_lock(&st->lock.mu);
        HTAB_FOREACH (node, &st->index) {
            const struct replica *r = CONTAINER_OF(node, struct replica, node);

            if (r->vol != v || r->block < from) {
                continue;
            }
            if (n == cap) {
                cap = MAX(cap * 2, 256);
                all = x_realloc(all, cap * sizeof(*all));
            }
            all[n++] = r->block;
            bytes += layout_file_bytes(r->len);
        }
        pthread_mutex_unlock(&st->lock.mu);
    }
    if (n != 0) {
        qsort(all, n, sizeof(*all), by_id);
    }
    *ret = all;
    *ret_bytes = bytes;
    return n;
}
