/* A cluster in one process on virtual time: events, network, crashes, all from one seed.
 *
 * Nothing here knows what dfs is. A node is something that receives messages and can crash; what is
 * scheduled for a node dies with the incarnation that scheduled it.
 */
#ifndef DFS_TEST_SIM_SIM_H
#define DFS_TEST_SIM_SIM_H

#include "cluster/base/base.h"

#define SIM_NODES 32

struct sim_msg {
    int from;
    int to;
    uint16_t type;
    uint64_t id; /* request id, chosen by the sender */
    bool reply;
    int status;
    struct slice body;
};

typedef void sim_receive(void *arg, const struct sim_msg *m);
typedef void sim_fn(void *arg, uint64_t n);

struct sim_node {
    bool up;
    uint32_t incarnation;
    uint64_t paused_us; /* until then it neither receives nor acts: stopped by a signal */
    sim_receive *receive;
    void *arg;
};

struct sim_event {
    uint64_t at_us;
    uint64_t order; /* ties are broken by the order of scheduling */
    int node;       /* -1: the world itself; never dies */
    uint32_t incarnation;
    sim_fn *fn;
    void *arg;
    uint64_t n;
    struct sim_msg msg; /* when fn is NULL */
};

struct sim_faults {
    double drop; /* of a message */
    double duplicate;
    uint64_t delay_min_us;
    uint64_t delay_max_us;
};

struct sim {
    uint64_t seed;
    uint64_t rng[2];
    uint64_t now_us;
    uint64_t order;
    struct sim_event *heap;
    size_t count;
    size_t cap;
    struct sim_node nodes[SIM_NODES];
    bool cut[SIM_NODES][SIM_NODES]; /* messages from -> to vanish */
    struct sim_faults faults;
    uint64_t delivered, dropped, duplicated, crashes;
    bool verbose;
};

void sim_init(struct sim *s, uint64_t seed);
void sim_fini(struct sim *s);
uint64_t sim_rand(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t n); /* 0..n-1 */
bool sim_chance(struct sim *s, double p);

/* Runs fn(arg, n) after delay_us unless the node crashes before; node -1 never does. */
void sim_after(struct sim *s, int node, uint64_t delay_us, sim_fn *fn, void *arg, uint64_t n);
/* The body is copied. Lost when either end is down or cut off, by chance, or when the receiver
 * crashes in between; may arrive twice and in any order. */
void sim_send(struct sim *s, const struct sim_msg *m);
/* On a connection (TCP): in order, never dropped or repeated; `lane` orders messages between the
 * same two nodes. Returns the time of arrival; lost only by a crash or a cut. */
void sim_stream(struct sim *s, const struct sim_msg *m, uint64_t *lane_us);

void sim_up(struct sim *s, int node, sim_receive *fn, void *arg);
void sim_crash(struct sim *s, int node);

/* Handles events until the time is reached; false when stop() said so before. */
void sim_run_until(struct sim *s, uint64_t until_us);
/* The next event; false when there is none. */
bool sim_step(struct sim *s);

/* Ends the program with the seed, the virtual time and a sentence. */
NORETURN void sim_fail(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
void sim_trace(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
