#include "replication/store/scrub_plan.h"

#define BURST       (1 * MIB) /* read at once after a pause, at most */
#define WAIT_MAX_MS 60000u    /* what is stored may change meanwhile */

void scrub_plan_init(struct scrub_plan *p, uint64_t period_ms, uint64_t ceiling, uint64_t now_ms)
{
    *p = (struct scrub_plan){ .period_ms = period_ms, .ceiling = ceiling, .stepped_ms = now_ms };
}

uint64_t scrub_plan_pass_ms(const struct scrub_plan *p)
{
    return MAX(p->period_ms / 2, 1);
}

uint64_t scrub_plan_rate(struct scrub_plan *p, uint64_t elapsed_ms, uint64_t left)
{
    uint64_t pass = scrub_plan_pass_ms(p);
    uint64_t target = pass - pass / 16;
    uint64_t least = pass / 16 + 1;
    uint64_t time = MAX(target > elapsed_ms ? target - elapsed_ms : 0, least);
    uint64_t rate = left / time * 1000 + left % time * 1000 / time;

    /* Near its end a pass goes on as before; one that is late does not slow down any more. */
    p->rate = time == least ? MAX(p->rate, rate) : rate;
    return p->ordered ? MAX(p->ceiling, 1) : MAX(p->rate, 1);
}

uint64_t scrub_plan_wait(struct scrub_plan *p, uint64_t now_ms, uint64_t rate)
{
    uint64_t passed = now_ms > p->stepped_ms ? MIN(now_ms - p->stepped_ms, WAIT_MAX_MS) : 0;
    int64_t most = (int64_t)(BURST * 1000);

    rate = MIN(rate, UINT64_C(1) << 40);
    p->stepped_ms = now_ms;
    p->allowance = MIN(p->allowance + (int64_t)(passed * rate), most);
    if (p->allowance > 0) {
        return 0;
    }
    return MIN((uint64_t)-p->allowance / rate + 1, WAIT_MAX_MS);
}

void scrub_plan_took(struct scrub_plan *p, uint32_t bytes)
{
    p->allowance -= (int64_t)bytes * 1000;
}
