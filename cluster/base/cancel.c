#include "cluster/base/cancel.h"

#define POLL_MS 100u

static _Thread_local struct {
    struct cancel *c;
    unsigned shields;
} own;

void cancel_begin(struct cancel *c)
{
    ASSERT(own.c == NULL && own.shields == 0);
    own.c = c;
}

void cancel_end(void)
{
    ASSERT(own.shields == 0);
    own.c = NULL;
}

void cancel_shield(void)
{
    own.shields++;
}

void cancel_unshield(void)
{
    ASSERT(own.shields > 0);
    own.shields--;
}

bool cancel_pending(void)
{
    return own.c != NULL && atomic_load_explicit(&own.c->asked, memory_order_relaxed);
}

uint64_t cancel_slice(uint64_t since_ms, uint64_t now_ms, uint64_t deadline_ms)
{
    uint64_t next;

    if (own.c == NULL || own.shields != 0) {
        return deadline_ms;
    }
    next = now_ms - since_ms < CANCEL_AFTER_MS ? since_ms + CANCEL_AFTER_MS : now_ms + POLL_MS;
    return MIN(deadline_ms, next);
}

bool cancel_now(uint64_t since_ms, uint64_t now_ms)
{
    return own.shields == 0 && now_ms - since_ms >= CANCEL_AFTER_MS && cancel_pending();
}
