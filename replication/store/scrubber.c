/* The happy path of a volume: a pass begins, its replicas are checked in the order of their ids, it
 * ends, and rests until the next one is due. What can happen:
 *   a restart               the pass goes on at the replica it had come to (scrub_file.h)
 *   an order                the pass begins anew
 *   a replica comes or goes those behind the cursor are for the next pass; what is gone is passed over
 *   the volume fails        its thread waits: only a restart brings a volume back
 */
#include "replication/store/scrubber.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/log.h"

#include "replication/store/scrub.h"
#include "replication/store/scrub_file.h"
#include "replication/store/scrub_plan.h"
#include "replication/store/store_impl.h"

#define BATCH       1024u  /* replicas of one look at the index */
#define SAVE_MS     30000u /* a crash repeats as much of a pass */
#define YIELD_MS    20u    /* to clients, before one read */
#define LOOK_MS     60000u /* a thread that has nothing to do looks this often */
#define WINDOW_MS   2000u  /* over which the rate is measured */
#define WAITING_MAX 65536u
#define SPARES_MAX  16u /* waiting when checks for the sake of spare files are added */
#define AT_END      UINT64_MAX
#define NICE        15

/* One volume. */
struct lane {
    struct scrubber *s;
    struct volume *vol;
    pthread_t thread;
    /* the thread's own */
    struct scrub_plan plan;
    uint64_t *ids;
    size_t count, at;
    uint64_t saved_ms;
    uint64_t window_ms, window_bytes;
    struct scrub_state state; /* written under mu; cursor AT_END: resting */
    uint64_t left;            /* guarded by: mu, as the next */
    uint64_t rate;
};

struct scrubber {
    struct scrubber_conf conf;
    pthread_mutex_t mu;
    pthread_cond_t cv; /* monotonic clock */
    struct lane *lanes[LIMIT_VOLUMES];
    size_t count;     /* guarded by: mu, as all below */
    uint64_t order;   /* number of the last one */
    uint64_t *blocks; /* to be checked at once: a ring of WAITING_MAX */
    size_t first, waiting;
    pthread_t checker;
    bool checking; /* the checker runs */
    bool stop;
};

static uint64_t wall_ms(void)
{
    return (uint64_t)(clock_wall_ns() / NS_PER_MS);
}

/* Only when nobody else wants the disk, where the kernel's scheduler knows that. */
static void be_humble(void)
{
    const int who_process = 1, class_idle = 3, class_shift = 13;

    (void)!syscall(SYS_ioprio_set, who_process, 0, class_idle << class_shift);
    (void)!setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
}

static void wait_locked(struct scrubber *s, uint64_t ms)
{
    uint64_t at = clock_mono_ms() + ms;
    struct timespec t = { .tv_sec = (time_t)(at / 1000), .tv_nsec = (long)(at % 1000 * NS_PER_MS) };

    pthread_cond_timedwait(&s->cv, &s->mu, &t);
}

/* Clients come first, for a moment: the promise counts, too. */
static void yield_locked(struct scrubber *s)
{
    if (s->conf.busy != NULL && s->conf.busy(s->conf.arg)) {
        wait_locked(s, YIELD_MS);
    }
}

/* ---- passes ---- */

/* Before this start and since. */
static uint64_t found(const struct lane *l)
{
    return l->state.found + atomic_load(&l->vol->damaged);
}

static void save(struct lane *l)
{
    struct scrub_state state;
    struct why why = { "" };

    pthread_mutex_lock(&l->s->mu);
    state = l->state;
    state.found = found(l);
    pthread_mutex_unlock(&l->s->mu);
    l->saved_ms = clock_mono_ms();
    if (!volume_is_out(l->vol) && scrub_file_save(l->vol->path, &state, &why) != 0) {
        log_event(LOG_WARN, "scrub.not_saved", "volume=\"%s\" err=\"%s\"", l->vol->path, why.text);
    }
}

static void forget_ids(struct lane *l)
{
    free(l->ids);
    l->ids = NULL;
    l->count = l->at = 0;
}

static uint64_t elapsed_locked(struct lane *l)
{
    uint64_t now = wall_ms();

    l->state.began_ms = MIN(l->state.began_ms, now); /* the clock was set back */
    return now - l->state.began_ms;
}

/* Begins a pass when one is due; false: it is resting. */
static bool pass_locked(struct lane *l)
{
    struct scrubber *s = l->s;
    bool ordered = s->order > l->state.order;

    if (ordered || l->state.began_ms == 0 ||
        (l->state.cursor == AT_END && elapsed_locked(l) >= scrub_plan_pass_ms(&l->plan))) {
        l->state.cursor = 0;
        l->state.began_ms = wall_ms();
        l->state.done = 0;
        l->state.order = s->order;
        l->state.ordered = ordered;
        l->plan.rate = 0;
        forget_ids(l);
    }
    l->plan.ordered = l->state.ordered != 0;
    return l->state.cursor != AT_END;
}

static void pass_ended(struct lane *l)
{
    uint64_t took;

    pthread_mutex_lock(&l->s->mu);
    took = elapsed_locked(l);
    l->state.ended_ms = MAX(wall_ms(), 1);
    l->state.cursor = AT_END;
    l->state.ordered = 0;
    l->rate = 0;
    pthread_mutex_unlock(&l->s->mu);
    log_event(LOG_INFO, "scrub.pass",
              "volume=\"%s\" bytes=%" PRIu64 " ms=%" PRIu64 " found=%" PRIu64, l->vol->path,
              l->state.done, took, found(l));
    save(l);
}

static void measure_locked(struct lane *l, uint32_t bytes)
{
    uint64_t now = clock_mono_ms();

    l->window_bytes += bytes;
    if (now - l->window_ms >= WINDOW_MS) {
        l->rate = l->window_bytes * 1000 / (now - l->window_ms);
        l->window_ms = now;
        l->window_bytes = 0;
    }
}

/* scrub_pace_fn: waits until it is this volume's turn. */
static int pace(void *arg, uint32_t bytes)
{
    struct lane *l = arg;
    struct scrubber *s = l->s;
    uint64_t ms = 1;
    int err = 0;

    pthread_mutex_lock(&s->mu);
    yield_locked(s);
    while (err == 0 && ms != 0) {
        uint64_t rate = scrub_plan_rate(&l->plan, elapsed_locked(l), l->left);

        ms = scrub_plan_wait(&l->plan, clock_mono_ms(), rate);
        err = s->stop ? DFS_ESHUTDOWN : s->order > l->state.order ? DFS_EINTR : 0;
        if (err == 0 && ms != 0) {
            wait_locked(s, ms);
        }
    }
    if (err == 0) {
        scrub_plan_took(&l->plan, bytes);
        measure_locked(l, bytes);
    }
    pthread_mutex_unlock(&s->mu);
    return err;
}

static void tell(struct scrubber *s, struct replica *r, int err)
{
    if (scrub_is_damage(err)) {
        store_damaged(s->conf.store, r, err);
    } else if (err == 0) {
        store_checked(s->conf.store, r);
    }
}

/* Checks one replica of the pass; false: it has to be checked again. */
static bool check_one(struct lane *l, uint64_t block, uint64_t *ret_bytes)
{
    struct scrubber *s = l->s;
    struct replica *r;
    int err = store_get(s->conf.store, block, &r);

    *ret_bytes = 0;
    if (err != 0) {
        return err == DFS_ENOBLOCK;
    }
    if (r->vol == l->vol) {
        *ret_bytes = layout_file_bytes(replica_look(r).len);
        err = scrub_replica(r, pace, l);
        tell(s, r, err);
    }
    store_put(s->conf.store, r);
    return err != DFS_ESHUTDOWN && err != DFS_EINTR && err != DFS_EVOLUME;
}

/* The next replica of the pass. */
static void step(struct lane *l)
{
    uint64_t bytes, left;

    if (l->at == MIN(l->count, BATCH)) {
        forget_ids(l);
        l->count = store_ids(l->s->conf.store, l->vol, l->state.cursor, &l->ids, &left);
        pthread_mutex_lock(&l->s->mu);
        l->left = left;
        pthread_mutex_unlock(&l->s->mu);
    }
    if (l->count == 0) {
        pass_ended(l);
        return;
    }
    if (check_one(l, l->ids[l->at], &bytes)) {
        pthread_mutex_lock(&l->s->mu);
        l->state.cursor = l->ids[l->at++] + 1;
        l->state.done += bytes;
        l->left -= MIN(bytes, l->left);
        pthread_mutex_unlock(&l->s->mu);
    }
    if (clock_mono_ms() - l->saved_ms >= SAVE_MS) {
        save(l);
    }
}

static void *lane_run(void *arg)
{
    struct lane *l = arg;
    struct scrubber *s = l->s;

    be_humble();
    pthread_mutex_lock(&s->mu);
    while (!s->stop) {
        if (volume_is_out(l->vol) || !pass_locked(l)) {
            uint64_t elapsed = elapsed_locked(l);
            uint64_t due = scrub_plan_pass_ms(&l->plan);

            wait_locked(s, MIN(due > elapsed ? due - elapsed : LOOK_MS, LOOK_MS));
            continue;
        }
        pthread_mutex_unlock(&s->mu);
        step(l);
        pthread_mutex_lock(&s->mu);
    }
    pthread_mutex_unlock(&s->mu);
    save(l);
    forget_ids(l);
    return NULL;
}

/* ---- single replicas ---- */

static int pace_check(void *arg, uint32_t bytes UNUSED)
{
    struct scrubber *s = arg;
    bool stop;

    pthread_mutex_lock(&s->mu);
    yield_locked(s);
    stop = s->stop;
    pthread_mutex_unlock(&s->mu);
    return stop ? DFS_ESHUTDOWN : 0;
}

static void check_block(struct scrubber *s, uint64_t block)
{
    struct replica *r;

    if (store_get(s->conf.store, block, &r) == 0) {
        tell(s, r, scrub_replica(r, pace_check, s));
        store_put(s->conf.store, r);
    }
}

static void *checker_run(void *arg)
{
    struct scrubber *s = arg;

    be_humble();
    pthread_mutex_lock(&s->mu);
    while (!s->stop) {
        if (s->waiting == 0) {
            pthread_cond_wait(&s->cv, &s->mu);
            continue;
        }
        pthread_mutex_unlock(&s->mu);
        check_block(s, s->blocks[s->first]);
        pthread_mutex_lock(&s->mu);
        s->first = (s->first + 1) % WAITING_MAX;
        s->waiting--;
    }
    pthread_mutex_unlock(&s->mu);
    return NULL;
}

bool scrubber_check(struct scrubber *s, uint64_t block)
{
    bool known = false, room;

    pthread_mutex_lock(&s->mu);
    /* Many readers may meet the same copy at once. */
    for (size_t i = s->waiting > 16 ? s->waiting - 16 : 0; i < s->waiting; i++) {
        known = known || s->blocks[(s->first + i) % WAITING_MAX] == block;
    }
    room = known || s->waiting < WAITING_MAX;
    if (!known && room) {
        s->blocks[(s->first + s->waiting++) % WAITING_MAX] = block;
        pthread_cond_broadcast(&s->cv);
    }
    pthread_mutex_unlock(&s->mu);
    return room;
}

/* ---- life ---- */

static void add_lane(struct scrubber *s, struct volume *v)
{
    struct lane *l = x_alloc(sizeof(*l));

    l->s = s;
    l->vol = v;
    l->saved_ms = l->window_ms = clock_mono_ms();
    scrub_file_load(v->path, &l->state);
    scrub_plan_init(&l->plan, s->conf.period_ms, s->conf.ceiling, l->saved_ms);
    pthread_mutex_lock(&s->mu);
    s->order = MAX(s->order, l->state.order);
    if (pthread_create(&l->thread, NULL, lane_run, l) == 0) {
        s->lanes[s->count++] = l;
        l = NULL;
    }
    pthread_mutex_unlock(&s->mu);
    free(l);
}

void scrubber_look(struct scrubber *s)
{
    struct store *store = s->conf.store;
    uint64_t block;

    for (size_t i = 0; i < store->volume_count && s->count < LIMIT_VOLUMES; i++) {
        bool known = false;

        for (size_t k = 0; k < s->count; k++) {
            known = known || s->lanes[k]->vol == store->volumes[i];
        }
        if (!known && !volume_is_out(store->volumes[i])) {
            add_lane(s, store->volumes[i]);
        }
    }
    while (scrubber_waiting(s) < SPARES_MAX && store_next_spare(store, &block)) {
        scrubber_check(s, block);
    }
}

struct scrubber *scrubber_start(const struct scrubber_conf *conf)
{
    struct scrubber *s = x_alloc(sizeof(*s));
    pthread_condattr_t attr;

    s->conf = *conf;
    s->blocks = x_alloc(WAITING_MAX * sizeof(*s->blocks));
    pthread_mutex_init(&s->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->cv, &attr);
    pthread_condattr_destroy(&attr);
    s->checking = pthread_create(&s->checker, NULL, checker_run, s) == 0;
    if (!s->checking) {
        scrubber_free(s);
        return NULL;
    }
    scrubber_look(s);
    return s;
}

void scrubber_stop(struct scrubber *s)
{
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->mu);
    s->stop = true;
    pthread_cond_broadcast(&s->cv);
    pthread_mutex_unlock(&s->mu);
    for (size_t i = 0; i < s->count; i++) {
        pthread_join(s->lanes[i]->thread, NULL);
    }
    if (s->checking) {
        pthread_join(s->checker, NULL);
    }
}

void scrubber_free(struct scrubber *s)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        free(s->lanes[i]);
    }
    pthread_cond_destroy(&s->cv);
    pthread_mutex_destroy(&s->mu);
    free(s->blocks);
    free(s);
}

void scrubber_order(struct scrubber *s, uint64_t number)
{
    pthread_mutex_lock(&s->mu);
    if (number > s->order) {
        s->order = number;
        pthread_cond_broadcast(&s->cv);
    }
    pthread_mutex_unlock(&s->mu);
}

size_t scrubber_progress(struct scrubber *s, struct scrub_progress ret[LIMIT_VOLUMES])
{
    size_t n = 0;

    pthread_mutex_lock(&s->mu);
    for (size_t i = 0; i < s->count; i++) {
        const struct lane *l = s->lanes[i];

        if (volume_is_out(l->vol)) {
            continue;
        }
        ret[n++] = (struct scrub_progress){
            .path = l->vol->path,
            .ordered = l->state.ordered != 0,
            .order = l->state.order,
            .began_ms = l->state.began_ms,
            .ended_ms = l->state.ended_ms,
            .done = l->state.done,
            .total = l->state.done + l->left,
            .rate = l->rate,
            .found = found(l),
            .resting = l->state.cursor == AT_END,
        };
    }
    pthread_mutex_unlock(&s->mu);
    return n;
}

size_t scrubber_waiting(struct scrubber *s)
{
    size_t n;

    pthread_mutex_lock(&s->mu);
    n = s->waiting;
    pthread_mutex_unlock(&s->mu);
    return n;
}
