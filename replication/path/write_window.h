/* Packets of a write stream that were passed on and are not answered yet: what a server in the
 * middle of a chain remembers, as pure functions.
 *
 * Packets go down in order and are written here in order, so the answer that comes from behind is
 * always for the oldest one, and can be given to the front as it comes.
 */
#ifndef DFS_REPLICATION_PATH_WRITE_WINDOW_H
#define DFS_REPLICATION_PATH_WRITE_WINDOW_H

#include "cluster/base/base.h"

#define WINDOW_MAX 64u

struct window_entry {
    uint64_t req_id;  /* of the packet as it came */
    uint64_t down_id; /* as it was passed on */
    uint64_t sent_ms; /* when */
    uint32_t end;     /* offset behind its bytes */
    bool last;        /* seals the replica */
};

struct write_window {
    struct window_entry ring[WINDOW_MAX];
    uint32_t head;
    uint32_t count;
};

static inline bool window_full(const struct write_window *w)
{
    return w->count == WINDOW_MAX;
}

/* The oldest packet; NULL when all are answered. */
const struct window_entry *window_oldest(const struct write_window *w);
/* w is not full. */
void window_push(struct write_window *w, const struct window_entry *e);

/* An answer from behind. On DFS_OK *ret is the packet that is answered by it and leaves the window.
 * Errors: DFS_EMALFORMED (not the answer that is due: the stream is out of step), or the status;
 * then nothing changes and the stream is over. */
int window_answer(struct write_window *w, uint64_t down_id, uint32_t status, uint32_t end,
                  struct window_entry *ret);

#endif
