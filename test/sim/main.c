/* sim [FIRST_SEED [COUNT]]: runs the cluster once per seed (1 to 50 without arguments); TAP on stdout.
 *
 * A run: 40 virtual seconds of clients at work under lost, late and repeated messages, crashes of the
 * master, of block servers (by kill or by power cut) and of clients, cut links, paused servers, lost
 * volumes, servers that are decommissioned, taken back or in maintenance; then the faults stop, and
 * within 90 s every operation has ended, every block has its copies, no more and no less, servers
 * that are to be emptied are; this stays so, everything reads back as written, counts are right, and
 * a second database made from the same log is the same.
 */
#include <unistd.h>

#include "test/sim/cluster.h"

#define WORK_SEC   40
#define AFTER_SEC  120 /* nothing happens, and nothing changes */
#define SETTLE_SEC 90
#define SEEDS      50u /* without arguments; the environment's SIM_SEEDS says another number */

static void server_back(void *arg, uint64_t unused)
{
    (void)unused;
    server_boot(arg);
}

static void master_back(void *arg, uint64_t unused)
{
    struct cluster *cl = arg;

    (void)unused;
    master_boot(cl->master);
}

static void client_back(void *arg, uint64_t unused)
{
    (void)unused;
    client_boot(arg);
}

static void heal_link(void *arg, uint64_t pair)
{
    struct cluster *cl = arg;

    cl->sim.cut[pair >> 8][pair & 0xff] = false;
}

static int servers_up(const struct cluster *cl)
{
    int n = 0;

    for (uint32_t i = 1; i <= SIM_SERVERS; i++) {
        n += cl->sim.nodes[server_node(i)].up;
    }
    return n;
}

/* SIGSTOP, for long enough to be declared dead or not. */
static void pause_server(struct cluster *cl)
{
    struct sim *s = &cl->sim;
    uint32_t id = 1 + (uint32_t)sim_below(s, SIM_SERVERS);

    if (s->nodes[server_node(id)].up && servers_up(cl) > 3) {
        sim_trace(s, "server %u: paused", id);
        s->nodes[server_node(id)].paused_us = s->now_us + sim_below(s, 15 * SIM_SEC);
    }
}

/* One server at a time is to be emptied; the next time it is taken back. */
static void decommission(struct cluster *cl)
{
    const struct server_rec leave = { .intent = INTENT_DECOMMISSION }, stay = { 0 };
    struct sim *s = &cl->sim;

    if (!s->nodes[SIM_MASTER].up) {
        return;
    }
    if (cl->leaving != 0) {
        master_intend(cl->master, cl->leaving, INTENT_FIELD_INTENT, &stay);
        cl->leaving = 0;
    } else {
        cl->leaving = 1 + (uint32_t)sim_below(s, SIM_SERVERS);
        master_intend(cl->master, cl->leaving, INTENT_FIELD_INTENT, &leave);
    }
}

/* A server is put into maintenance, and stopped a moment later. */
static void stop_server(void *arg, uint64_t id)
{
    struct cluster *cl = arg;

    if (cl->sim.nodes[server_node((uint32_t)id)].up && servers_up(cl) > 3) {
        server_crash(&cl->servers[id], false);
        sim_after(&cl->sim, -1, 8 * SIM_SEC, server_back, &cl->servers[id], 0);
    }
}

static void maintain(struct cluster *cl)
{
    struct sim *s = &cl->sim;
    uint32_t id = 1 + (uint32_t)sim_below(s, SIM_SERVERS);
    struct server_rec want = { .maintenance = MAINTENANCE_ASKED,
                               .until_ns = (int64_t)(s->now_us + 12 * SIM_SEC) * 1000 };

    if (s->nodes[SIM_MASTER].up) {
        master_intend(cl->master, id, INTENT_FIELD_MAINTENANCE, &want);
        sim_after(s, -1, SIM_SEC, stop_server, cl, id);
    }
}

/* Unsynced bytes are promised to survive one power cut at a time: does another server that is up
 * have all that this one would lose? */
static bool others_have(struct cluster *cl, const struct sim_server *v)
{
    for (const struct sim_replica *r = v->replicas; r != NULL; r = r->next) {
        bool found = r->synced >= r->rule.len;

        for (uint32_t i = 1; i <= SIM_SERVERS && !found; i++) {
            const struct sim_replica *o = server_find(&cl->servers[i], r->block);

            found = i != v->id && cl->sim.nodes[server_node(i)].up && o != NULL &&
                    o->rule.len >= r->rule.len;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static void crash_server(struct cluster *cl)
{
    struct sim *s = &cl->sim;
    struct sim_server *v = &cl->servers[1 + sim_below(s, SIM_SERVERS)];
    bool power;

    if (!s->nodes[server_node(v->id)].up || servers_up(cl) <= 3) {
        return;
    }
    power = sim_chance(s, 0.7) && others_have(cl, v);
    sim_trace(s, "server %u: %s", v->id, power ? "power cut" : "killed");
    server_crash(v, power);
    sim_after(s, -1, sim_below(s, 20 * SIM_SEC), server_back, v, 0);
}

static void fault(void *arg, uint64_t unused)
{
    struct cluster *cl = arg;
    struct sim *s = &cl->sim;
    uint64_t kind = sim_below(s, 100);

    (void)unused;
    if (s->now_us > WORK_SEC * SIM_SEC) {
        return;
    }
    if (kind < 25) {
        crash_server(cl);
    } else if (kind < 45 && s->nodes[SIM_MASTER].up) {
        sim_trace(s, "master: killed");
        master_crash(cl->master);
        sim_after(s, -1, sim_below(s, 3 * SIM_SEC), master_back, cl, 0);
    } else if (kind < 55) {
        int i = (int)sim_below(s, SIM_CLIENTS);

        if (s->nodes[client_node(i)].up) {
            sim_trace(s, "client %d: killed", i);
            sim_crash(s, client_node(i));
            sim_after(s, -1, sim_below(s, 2 * SIM_SEC), client_back, cl->clients[i], 0);
        }
    } else if (kind < 75) {
        uint64_t a = sim_below(s, 1 + SIM_SERVERS + SIM_CLIENTS);
        uint64_t b = sim_below(s, 1 + SIM_SERVERS + SIM_CLIENTS);

        if (a != b && !s->cut[a][b]) {
            sim_trace(s, "link %ju -> %ju: cut", (uintmax_t)a, (uintmax_t)b);
            s->cut[a][b] = true;
            sim_after(s, -1, sim_below(s, 8 * SIM_SEC), heal_link, cl, a << 8 | b);
        }
    } else if (kind < 82) {
        pause_server(cl);
    } else if (kind < 88) {
        decommission(cl);
    } else if (kind < 93) {
        maintain(cl);
    } else {
        uint32_t id = 1 + (uint32_t)sim_below(s, SIM_SERVERS);

        if (s->nodes[server_node(id)].up) {
            sim_trace(s, "server %u: loses a volume", id);
            server_lose_volume(&cl->servers[id]);
        }
    }
    sim_after(s, -1, sim_below(s, 2 * SIM_SEC), fault, cl, 0);
}

static void settle(struct cluster *cl)
{
    struct sim *s = &cl->sim;
    uint64_t end = s->now_us + SETTLE_SEC * SIM_SEC;
    char why[200] = "";
    bool idle = false, whole = false;

    s->faults.drop = 0;
    s->faults.duplicate = 0;
    memset(s->cut, 0, sizeof(s->cut));
    for (int i = 0; i < SIM_CLIENTS; i++) {
        client_quiesce(cl->clients[i]);
    }
    while (s->now_us < end && !(idle && whole)) {
        sim_run_until(s, s->now_us + SIM_SEC / 2);
        idle = true;
        for (int i = 0; i < SIM_CLIENTS; i++) {
            idle = idle && client_idle(cl->clients[i]);
        }
        whole = idle && s->nodes[SIM_MASTER].up && servers_up(cl) == SIM_SERVERS &&
                master_converged(cl->master, why, sizeof(why)) &&
                master_emptied(cl->master, why, sizeof(why));
    }
    if (!idle) {
        for (int i = 0; i < SIM_CLIENTS; i++) {
            client_describe(cl->clients[i], why, sizeof(why));
            printf("# %s\n", why);
        }
        sim_fail(s, "a client is still waiting %d s after the faults ended", SETTLE_SEC);
    }
    if (!whole) {
        sim_fail(s, "not converged %d s after the faults ended: %s", SETTLE_SEC, why);
    }
    sim_run_until(s, s->now_us + AFTER_SEC * SIM_SEC);
    if (!master_converged(cl->master, why, sizeof(why)) ||
        !master_emptied(cl->master, why, sizeof(why))) {
        sim_fail(s, "not converged any more %d s later: %s", AFTER_SEC, why);
    }
}

static void run(uint64_t seed, const char *dir)
{
    struct cluster *cl = x_alloc(sizeof(*cl));
    struct sim *s = &cl->sim;
    uint64_t ops = 0;

    sim_init(s, seed);
    cl->mutex.holder = -1;
    cl->dir = x_printf("%s/%ju", dir, (uintmax_t)seed);
    cl->master = master_new(cl, cl->dir);
    master_boot(cl->master);
    for (uint32_t i = 1; i <= SIM_SERVERS; i++) {
        cl->servers[i].cl = cl;
        cl->servers[i].id = i;
        server_boot(&cl->servers[i]);
        sim_run_until(s, s->now_us + 2 * SIM_SEC); /* ids are given in the order of arrival */
    }
    for (int i = 0; i < SIM_CLIENTS; i++) {
        cl->clients[i] = client_new(cl, i);
        client_boot(cl->clients[i]);
    }
    s->faults.drop = sim_chance(s, 0.5) ? 0.02 : 0;
    s->faults.duplicate = sim_chance(s, 0.5) ? 0.05 : 0;
    s->faults.delay_max_us = sim_chance(s, 0.3) ? 100 * SIM_MS : 2 * SIM_MS;
    sim_after(s, -1, 2 * SIM_SEC, fault, cl, 0);
    sim_run_until(s, s->now_us + WORK_SEC * SIM_SEC);
    settle(cl);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        client_verify(cl->clients[i]);
        ops += client_ops(cl->clients[i]);
    }
    client_verify_mutex(cl);
    master_check_quotas(cl->master);
    master_check_live(cl->master);
    master_check_audit(cl->master);
    master_check_log(cl->master);
    printf("ok - seed %ju: %ju operations, %ju crashes, %ju messages, %ju lost, %ju repeated\n",
           (uintmax_t)seed, (uintmax_t)ops, (uintmax_t)s->crashes, (uintmax_t)s->delivered,
           (uintmax_t)s->dropped, (uintmax_t)s->duplicated);
    fflush(stdout);
    sim_fini(s);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        client_free(cl->clients[i]);
    }
    for (uint32_t i = 1; i <= SIM_SERVERS; i++) {
        server_free(&cl->servers[i]);
    }
    master_free(cl->master);
    free(cl->dir);
    free(cl);
}

int main(int argc, char **argv)
{
    const char *seeds = getenv("SIM_SEEDS");
    uint64_t all = seeds != NULL ? strtoull(seeds, NULL, 10) : SEEDS;
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : all;
    /* in memory where that is possible: what a disk forgets is simulated anyway */
    char *dir = x_printf("%s/dfs-sim.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    char *cmd;
    int rc;

    if (mkdtemp(dir) == NULL) {
        perror("mkdtemp");
        return 1;
    }
    for (uint64_t i = 0; i < count; i++) {
        run(first + i, dir);
    }
    printf("1..%ju\n", (uintmax_t)count);
    cmd = x_printf("rm -rf '%s'", dir);
    rc = system(cmd);
    free(cmd);
    free(dir);
    return rc != 0;
}
