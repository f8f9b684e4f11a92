#include "test/sim/sim.h"

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* xoroshiro128+; the seed is spread by splitmix64. */
uint64_t sim_rand(struct sim *s)
{
    uint64_t a = s->rng[0], b = s->rng[1], r = a + b;

    b ^= a;
    s->rng[0] = rotl(a, 24) ^ b ^ b << 16;
    s->rng[1] = rotl(b, 37);
    return r;
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
    return n == 0 ? 0 : (sim_rand(s) >> 11) % n;
}

bool sim_chance(struct sim *s, double p)
{
    return (double)(sim_rand(s) >> 11) / (double)(UINT64_C(1) << 53) < p;
}

void sim_init(struct sim *s, uint64_t seed)
{
    uint64_t x = seed;

    *s = (struct sim){ .seed = seed };
    for (int i = 0; i < 2; i++) {
        uint64_t z = x += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        s->rng[i] = z ^ z >> 31;
    }
    s->faults = (struct sim_faults){ .delay_min_us = 50, .delay_max_us = 500 };
    s->verbose = getenv("DFS_SIM_VERBOSE") != NULL;
}

void sim_fini(struct sim *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free((void *)(uintptr_t)s->heap[i].msg.body.p);
    }
    free(s->heap);
    s->heap = NULL;
    s->count = 0;
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push(struct sim *s, struct sim_event e)
{
    size_t i;

    e.order = s->order++;
    if (s->count == s->cap) {
        s->cap = s->cap != 0 ? s->cap * 2 : 256;
        s->heap = x_realloc(s->heap, s->cap * sizeof(*s->heap));
    }
    for (i = s->count++; i > 0 && before(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        s->heap[i] = s->heap[(i - 1) / 2];
    }
    s->heap[i] = e;
}

static struct sim_event pop(struct sim *s)
{
    struct sim_event top = s->heap[0], last = s->heap[--s->count];
    size_t i = 0;

    for (;;) {
        size_t c = 2 * i + 1;

        if (c >= s->count) {
            break;
        }
        if (c + 1 < s->count && before(&s->heap[c + 1], &s->heap[c])) {
            c++;
        }
        if (!before(&s->heap[c], &last)) {
            break;
        }
        s->heap[i] = s->heap[c];
        i = c;
    }
    s->heap[i] = last;
    return top;
}

void sim_after(struct sim *s, int node, uint64_t delay_us, sim_fn *fn, void *arg, uint64_t n)
{
    push(s, (struct sim_event){ .at_us = s->now_us + delay_us,
                                .node = node,
                                .incarnation = node >= 0 ? s->nodes[node].incarnation : 0,
                                .fn = fn,
                                .arg = arg,
                                .n = n });
}

static void deliver_at(struct sim *s, const struct sim_msg *m, uint64_t at_us)
{
    struct sim_event e = {
        .at_us = at_us, .node = m->to, .incarnation = s->nodes[m->to].incarnation, .msg = *m
    };
    uint8_t *copy = x_alloc(m->body.len);

    if (m->body.len != 0) {
        memcpy(copy, m->body.p, m->body.len);
    }
    e.msg.body.p = copy;
    push(s, e);
}

static uint64_t delay(struct sim *s)
{
    return s->faults.delay_min_us +
           sim_below(s, s->faults.delay_max_us - s->faults.delay_min_us + 1);
}

void sim_send(struct sim *s, const struct sim_msg *m)
{
    if (!s->nodes[m->to].up || s->cut[m->from][m->to] || sim_chance(s, s->faults.drop)) {
        s->dropped++;
        return;
    }
    deliver_at(s, m, s->now_us + delay(s));
    if (sim_chance(s, s->faults.duplicate)) {
        s->duplicated++;
        deliver_at(s, m, s->now_us + delay(s) * 10);
    }
}

void sim_stream(struct sim *s, const struct sim_msg *m, uint64_t *lane_us)
{
    uint64_t at_us;

    if (!s->nodes[m->to].up || s->cut[m->from][m->to]) {
        s->dropped++;
        return;
    }
    at_us = s->now_us + delay(s);
    *lane_us = MAX(*lane_us + 1, at_us);
    deliver_at(s, m, *lane_us);
}

void sim_up(struct sim *s, int node, sim_receive *fn, void *arg)
{
    ASSERT(node >= 0 && node < SIM_NODES && !s->nodes[node].up);
    s->nodes[node].up = true;
    s->nodes[node].incarnation++;
    s->nodes[node].receive = fn;
    s->nodes[node].arg = arg;
}

void sim_crash(struct sim *s, int node)
{
    ASSERT(s->nodes[node].up);
    s->nodes[node].up = false;
    s->nodes[node].paused_us = 0;
    s->nodes[node].incarnation++;
    s->crashes++;
}

bool sim_step(struct sim *s)
{
    struct sim_event e;
    bool alive;

    if (s->count == 0) {
        return false;
    }
    e = pop(s);
    ASSERT(e.at_us >= s->now_us);
    s->now_us = e.at_us;
    alive = e.node < 0 || (s->nodes[e.node].up && s->nodes[e.node].incarnation == e.incarnation);
    if (alive && e.node >= 0 && s->nodes[e.node].paused_us > s->now_us) {
        e.at_us = s->nodes[e.node].paused_us;
        push(s, e);
        return true;
    }
    if (e.fn != NULL) {
        if (alive) {
            e.fn(e.arg, e.n);
        }
        return true;
    }
    if (alive && !s->cut[e.msg.from][e.msg.to]) {
        s->delivered++;
        s->nodes[e.node].receive(s->nodes[e.node].arg, &e.msg);
    } else {
        s->dropped++;
    }
    free((void *)(uintptr_t)e.msg.body.p);
    return true;
}

void sim_run_until(struct sim *s, uint64_t until_us)
{
    while (s->count > 0 && s->heap[0].at_us <= until_us) {
        sim_step(s);
    }
    s->now_us = MAX(s->now_us, until_us);
}

static void say(struct sim *s, FILE *to, const char *fmt, va_list ap)
{
    fprintf(to, "# seed %ju t=%ju.%06ju ", (uintmax_t)s->seed, (uintmax_t)(s->now_us / 1000000),
            (uintmax_t)(s->now_us % 1000000));
    vfprintf(to, fmt, ap);
    fputc('\n', to);
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(s, stdout, fmt, ap);
    va_end(ap);
    printf("not ok - seed %ju (run it alone: DFS_SIM_VERBOSE=1 sim %ju 1)\n", (uintmax_t)s->seed,
           (uintmax_t)s->seed);
    fflush(stdout);
    exit(1);
}

void sim_trace(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (!s->verbose) {
        return;
    }
    va_start(ap, fmt);
    say(s, stdout, fmt, ap);
    va_end(ap);
}
