/* Evens out how full block servers are: chooses copies to move from the fullest to the emptiest.
 *
 * How full a server is: what copies use of that and what is free. While some server is further from
 * the mean of all than the threshold, copies move from the fullest server to the emptiest,
 * one byte rate for all, and only while repair has nothing to do. A move always brings both nearer to
 * each other, so that nothing moves to and fro; what is under way or done just now is counted in until
 * the servers' heartbeats show it. Hosts, racks and labels stay as well placed as before. The move
 * itself is repair's: the old copy goes when the new one is in the record.
 *
 * A step function: time and the server's blocks come in as arguments. Not thread-safe; no I/O.
 */
#ifndef DFS_REPLICATION_MAP_BALANCE_H
#define DFS_REPLICATION_MAP_BALANCE_H

#include "replication/map/repair.h"

#define BALANCE_MOVES 256u /* under way or not yet in heartbeats */
#define BALANCE_TIRED 64u

struct balance_conf {
    uint32_t threshold; /* percent; 0: never */
    uint64_t rate;      /* bytes per second over all servers; 0: no limit */
    uint64_t settle_ms; /* until heartbeats show a move that is done */
};

struct balance_move {
    uint64_t block;
    uint64_t ended_ms; /* 0: under way */
    uint32_t from, to, len;
};

struct balance {
    struct balance_conf conf;
    struct members *members;
    struct repair *repair;
    struct bucket bucket;
    struct meter meter;
    struct balance_move moves[BALANCE_MOVES];
    size_t move_count;
    uint32_t source; /* whose blocks are looked at; 0: nobody's */
    uint64_t from;   /* next of them */
    uint64_t began;  /* moves begun in this round over the source's blocks */
    struct {
        uint32_t node;
        uint64_t until_ms;
    } tired[BALANCE_TIRED]; /* a whole round over their blocks brought nothing */
    size_t tired_next;
};

struct balance_counts {
    uint64_t moving; /* copies under way */
    uint64_t bytes;  /* to be moved until all are within the threshold */
    uint64_t rate;   /* bytes per second of late */
};

/* members and repair are borrowed. */
void balance_init(struct balance *b, const struct balance_conf *conf, struct members *members,
                  struct repair *repair);
void balance_set(struct balance *b, uint32_t threshold, uint64_t rate);
void balance_get_counts(const struct balance *b, struct balance_counts *ret);

/* The server whose blocks are to be offered now, from *ret_from on in ascending order; 0: none. */
uint32_t balance_step(struct balance *b, uint64_t now_ms, uint64_t *ret_from);
/* One of them. False: no more for now. */
bool balance_offer(struct balance *b, uint64_t block, const struct block_rec *rec, uint64_t now_ms);
/* The server has no more blocks behind those offered. */
void balance_end_of_blocks(struct balance *b, uint64_t now_ms);

#endif
