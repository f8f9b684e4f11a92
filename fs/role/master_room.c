/* Room for metadata: on the master's disk, and below metadata.max.
 *
 * A log or a database that cannot grow ends the master, and removing things would need it. So what makes
 * the metadata grow is refused while there is still room for what makes it shrink, for what was
 * written before to be committed, and for the log.
 */
#include <sys/statvfs.h>

#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define STEP_MS    500
#define DISK_LEAST (128 * MIB) /* the log takes 40 MiB, the database up to 40 between checkpoints */
#define MAP_LEAST  (64 * MIB)
#define MAP_SHARE  8 /* of a small metadata.max no more than this part */
#define GROWTH     4 /* bytes that the database may grow by for each one of commands */

static uint64_t disk_room(const struct master *m)
{
    struct statvfs s;

    return statvfs(m->conf->master_data, &s) == 0 ? (uint64_t)s.f_bavail * s.f_frsize : UINT64_MAX;
}

static int64_t beyond(uint64_t room, uint64_t least)
{
    return (int64_t)MIN(room, (uint64_t)INT64_MAX) - (int64_t)least;
}

void master_room_init(struct master *m)
{
    atomic_store(&m->room, INT64_MAX);
}

void master_room_step(struct master *m, uint64_t now_ms)
{
    struct keeper *k = &m->keeper;
    uint64_t map_least = MIN(MAP_LEAST, m->conf->metadata_max / MAP_SHARE);
    uint64_t disk_least = DISK_LEAST, disk, map = UINT64_MAX;
    int64_t room;

    if (now_ms < k->next_room_ms) {
        return;
    }
    k->next_room_ms = now_ms + STEP_MS;
    if (k->no_room) { /* some more, before it is enough again */
        map_least += map_least / 4;
        disk_least += disk_least / 4;
    }
    disk = disk_room(m);
    (void)kv_room_bytes(ns_kv(m->ns), &map);
    room = MIN(beyond(disk, disk_least), beyond(map, map_least));
    atomic_store(&m->room, room);
    if (k->no_room != (room <= 0)) {
        k->no_room = room <= 0;
        log_event(k->no_room ? LOG_ERROR : LOG_INFO, k->no_room ? "master.no_room" : "master.room",
                  "data=%s disk_free=%ju metadata_free=%ju", m->conf->master_data, (uintmax_t)disk,
                  (uintmax_t)map);
    }
}

void master_room_take(struct master *m, size_t bytes)
{
    atomic_fetch_sub(&m->room, (int64_t)bytes * GROWTH);
}

bool master_room_refuses(const struct master *m, uint16_t type)
{
    switch (type) {
    case RPC_make:
    case RPC_link:
    case RPC_setxattr:
    case RPC_clone_range:
    case RPC_block_alloc:
        return atomic_load(&m->room) <= 0;
    default:
        return false;
    }
}
