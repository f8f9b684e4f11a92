#include "replication/path/write_window.h"

#include "cluster/base/err.h"

const struct window_entry *window_oldest(const struct write_window *w)
{
    return w->count != 0 ? &w->ring[w->head] : NULL;
}

void window_push(struct write_window *w, const struct window_entry *e)
{
    ASSERT(w->count < WINDOW_MAX);
    w->ring[(w->head + w->count) % WINDOW_MAX] = *e;
    w->count++;
}

int window_answer(struct write_window *w, uint64_t down_id, uint32_t status, uint32_t end,
                  struct window_entry *ret)
{
    const struct window_entry *e = window_oldest(w);

    if (status != 0) {
        return status <= INT32_MAX ? (int)status : DFS_EMALFORMED;
    }
    if (e == NULL || e->down_id != down_id || e->end != end) {
        return DFS_EMALFORMED;
    }
    *ret = *e;
    w->head = (w->head + 1) % WINDOW_MAX;
    w->count--;
    return 0;
}
