#include "fs/cli/jobs.h"

#include <pthread.h>

#define QUEUE_MAX   64
#define THREADS_MAX 16

struct jobs {
    job_fn *fn;
    void *arg;
    pthread_mutex_t mu; /* guards all below */
    pthread_cond_t filled;
    pthread_cond_t emptied;
    void *queue[QUEUE_MAX];
    int head;
    int count;
    bool ending;
    pthread_t thread[THREADS_MAX];
    int threads;
};

static void *run(void *arg)
{
    struct jobs *j = arg;

    pthread_mutex_lock(&j->mu);
    for (;;) {
        if (j->count > 0) {
            void *item = j->queue[j->head];

            j->head = (j->head + 1) % QUEUE_MAX;
            j->count--;
            pthread_cond_signal(&j->emptied);
            pthread_mutex_unlock(&j->mu);
            j->fn(j->arg, item);
            pthread_mutex_lock(&j->mu);
        } else if (j->ending) {
            break;
        } else {
            pthread_cond_wait(&j->filled, &j->mu);
        }
    }
    pthread_mutex_unlock(&j->mu);
    return NULL;
}

struct jobs *jobs_start(int threads, job_fn *fn, void *arg)
{
    struct jobs *j = x_alloc(sizeof(*j));

    j->fn = fn;
    j->arg = arg;
    pthread_mutex_init(&j->mu, NULL);
    pthread_cond_init(&j->filled, NULL);
    pthread_cond_init(&j->emptied, NULL);
    while (j->threads < MIN(threads, THREADS_MAX) &&
           pthread_create(&j->thread[j->threads], NULL, run, j) == 0) {
        j->threads++;
    }
    return j;
}

void jobs_add(struct jobs *j, void *item)
{
    if (j->threads == 0) { /* no thread could be had */
        j->fn(j->arg, item);
        return;
    }
    pthread_mutex_lock(&j->mu);
    while (j->count == QUEUE_MAX) {
        pthread_cond_wait(&j->emptied, &j->mu);
    }
    j->queue[(j->head + j->count++) % QUEUE_MAX] = item;
    pthread_cond_signal(&j->filled);
    pthread_mutex_unlock(&j->mu);
}

void jobs_finish(struct jobs *j)
{
    if (j == NULL) {
        return;
    }
    pthread_mutex_lock(&j->mu);
    j->ending = true;
    pthread_cond_broadcast(&j->filled);
    pthread_mutex_unlock(&j->mu);
    for (int i = 0; i < j->threads; i++) {
        pthread_join(j->thread[i], NULL);
    }
    pthread_mutex_destroy(&j->mu);
    pthread_cond_destroy(&j->filled);
    pthread_cond_destroy(&j->emptied);
    free(j);
}
