#include "fs/client/silence.h"

#include <pthread.h>
#include <stdatomic.h>

#include "fs/client/client.h"
#include "fs/client/wait.h"

#define LOOK_MS 200

static struct {
    atomic_bool on; /* fn is set; for ever */
    client_silence_fn *fn;
    void *arg;
    pthread_mutex_t mu; /* guards all below */
    uint32_t calls;     /* under way */
    uint64_t since_ms;  /* of the first of them, or of the last answer */
    bool told;
    bool watched; /* the thread runs */
} silence = { .mu = PTHREAD_MUTEX_INITIALIZER };

static void *watch(void *unused UNUSED)
{
    for (;;) {
        pthread_mutex_lock(&silence.mu);
        if (silence.calls > 0 && !silence.told &&
            clock_mono_ms() - silence.since_ms >= SILENCE_MS) {
            silence.told = true;
            silence.fn(silence.arg);
        }
        pthread_mutex_unlock(&silence.mu);
        (void)pause_ms(LOOK_MS, UINT64_MAX);
    }
    return NULL;
}

void client_on_silence(client_silence_fn *fn, void *arg)
{
    if (!atomic_load(&silence.on)) {
        silence.fn = fn;
        silence.arg = arg;
        atomic_store(&silence.on, true);
    }
}

void silence_begin(void)
{
    pthread_t t;

    if (!atomic_load(&silence.on)) {
        return;
    }
    pthread_mutex_lock(&silence.mu);
    if (silence.calls++ == 0) {
        silence.since_ms = clock_mono_ms();
    }
    if (!silence.watched) {
        silence.watched = pthread_create(&t, NULL, watch, NULL) == 0 && pthread_detach(t) == 0;
    }
    pthread_mutex_unlock(&silence.mu);
}

void silence_end(int err)
{
    if (!atomic_load(&silence.on)) {
        return;
    }
    pthread_mutex_lock(&silence.mu);
    silence.calls--;
    if (err != DFS_ETIMEOUT) {
        silence.since_ms = clock_mono_ms();
        silence.told = false;
    }
    pthread_mutex_unlock(&silence.mu);
}
