#include "fs/role/fs_time.h"

#define NS_PER_US 1000

int64_t fs_time_now(struct fs_time *t, int64_t wall_ns, uint64_t mono_us)
{
    int64_t slow = t->last_ns + (int64_t)(mono_us - t->last_us) * NS_PER_US / 2;

    t->last_ns = MAX(MAX(wall_ns, slow), t->last_ns + 1);
    t->last_us = mono_us;
    return t->last_ns;
}

void fs_time_reach(struct fs_time *t, int64_t ns, uint64_t mono_us)
{
    if (ns > t->last_ns) {
        t->last_ns = ns;
        t->last_us = mono_us;
    }
}
