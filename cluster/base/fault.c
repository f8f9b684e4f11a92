#include "cluster/base/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "cluster/base/err.h"

#define FAULTS_MAX 32

enum fault_act { ACT_ERROR, ACT_KILL, ACT_STOP, ACT_DELAY };

struct fault {
    char name[64];
    enum fault_act act;
    int err;
    unsigned long delay_ms;
    unsigned long skip;  /* passes still to let through */
    unsigned long times; /* hits still to make */
    bool always;
};

static pthread_once_t from_environment = PTHREAD_ONCE_INIT;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct fault armed[FAULTS_MAX]; /* guarded by: mu */
static atomic_int armed_count;         /* written under mu */

static int number(const char *text, unsigned long *ret)
{
    char *end;
    unsigned long v;

    errno = 0;
    v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0) {
        return DFS_EINVAL;
    }
    *ret = v;
    return 0;
}

static int parse_act(const char *text, struct fault *f)
{
    static const struct {
        const char *name;
        int err;
    } errors[] = {
#define ERR(name, wire, no, http, java, retry, text) { #name, (wire) },
#include "cluster/base/err.def"
#undef ERR
    };

    if (strcmp(text, "kill") == 0) {
        f->act = ACT_KILL;
        return 0;
    }
    if (strcmp(text, "stop") == 0) {
        f->act = ACT_STOP;
        return 0;
    }
    if (strncmp(text, "delay:", 6) == 0) {
        f->act = ACT_DELAY;
        return number(text + 6, &f->delay_ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        if (strcmp(text, errors[i].name) == 0) {
            f->act = ACT_ERROR;
            f->err = errors[i].err;
            return 0;
        }
    }
    return DFS_EINVAL;
}

/* "name=ERR skip=2 times=1"; cuts one up. */
static int parse_one(char *one, struct fault *ret, struct why *why)
{
    struct fault f = { .always = true };
    char *save = NULL;
    char *word = strtok_r(one, " ", &save);
    char *eq = word != NULL ? strchr(word, '=') : NULL;

    if (eq == NULL || eq == word || (size_t)(eq - word) >= sizeof(f.name)) {
        return why_set(why, DFS_EINVAL, "fault \"%s\": expected name=ERROR",
                       word != NULL ? word : "");
    }
    memcpy(f.name, word, (size_t)(eq - word));
    if (parse_act(eq + 1, &f) != 0) {
        return why_set(why, DFS_EINVAL, "fault %s: \"%s\" is no error name, kill, stop or delay:MS",
                       f.name, eq + 1);
    }
    while ((word = strtok_r(NULL, " ", &save)) != NULL) {
        int err = DFS_EINVAL;

        if (strncmp(word, "skip=", 5) == 0) {
            err = number(word + 5, &f.skip);
        } else if (strncmp(word, "times=", 6) == 0) {
            err = number(word + 6, &f.times);
            f.always = f.times == 0;
        }
        if (err != 0) {
            return why_set(why, err, "fault %s: \"%s\" is neither skip=N nor times=N", f.name,
                           word);
        }
    }
    *ret = f;
    return 0;
}

static int arm(const char *spec, struct why *why)
{
    struct fault list[FAULTS_MAX];
    char *copy = x_strdup(spec);
    char *save = NULL;
    int n = 0;
    int err = 0;

    for (char *one = strtok_r(copy, ";", &save); one != NULL && err == 0;
         one = strtok_r(NULL, ";", &save)) {
        err = n < FAULTS_MAX ? parse_one(one, &list[n], why)
                             : why_set(why, DFS_EINVAL, "more than %d faults", FAULTS_MAX);
        n++;
    }
    free(copy);
    if (err == 0) {
        pthread_mutex_lock(&mu);
        if (n > 0) {
            memcpy(armed, list, sizeof(list[0]) * (size_t)n);
        }
        atomic_store(&armed_count, n);
        pthread_mutex_unlock(&mu);
    }
    return err;
}

static void arm_from_environment(void)
{
    const char *spec = getenv("DFS_FAULT");
    struct why why;

    if (spec != NULL && arm(spec, &why) != 0) {
        fprintf(stderr, "dfs: DFS_FAULT: %s\n", why.text);
        exit(2);
    }
}

int fault_arm(const char *spec, struct why *why)
{
    pthread_once(&from_environment, arm_from_environment);
    return arm(spec, why);
}

/* Counts the pass; true with a copy in *ret when it is a hit. */
static bool pass(const char *name, struct fault *ret)
{
    bool hit = false;

    pthread_mutex_lock(&mu);
    for (int i = 0; i < atomic_load(&armed_count) && !hit; i++) {
        struct fault *f = &armed[i];

        if (strcmp(f->name, name) != 0) {
            continue;
        }
        if (f->skip > 0) {
            f->skip--;
        } else if (f->always || f->times > 0) {
            f->times -= f->always ? 0 : 1;
            *ret = *f;
            hit = true;
        }
    }
    pthread_mutex_unlock(&mu);
    return hit;
}

static int act(const struct fault *f)
{
    struct timespec t = { .tv_sec = (time_t)(f->delay_ms / 1000),
                          .tv_nsec = (long)(f->delay_ms % 1000) * 1000000 };

    switch (f->act) {
    case ACT_ERROR:
        return f->err;
    case ACT_KILL:
        kill(getpid(), SIGKILL);
        break;
    case ACT_STOP:
        kill(getpid(), SIGSTOP);
        break;
    case ACT_DELAY:
        nanosleep(&t, NULL);
        break;
    }
    return 0;
}

int fault_hit(const char *name)
{
    struct fault f;

    pthread_once(&from_environment, arm_from_environment);
    if (atomic_load_explicit(&armed_count, memory_order_relaxed) == 0 || !pass(name, &f)) {
        return 0;
    }
    return act(&f);
}
