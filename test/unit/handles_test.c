#include "fs/mount/handles.h"

#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/err.h"

#include "test/unit/tap.h"

static int things[3];

static struct handles *fresh(void)
{
    struct handles *h = NULL;

    CHECK_INT(handles_open(-1, &h, NULL), 0);
    return h;
}

static void numbers_find_their_objects(void)
{
    struct handles *h = fresh();
    struct handle what;
    uint64_t a, b, c;

    CHECK_INT(handles_add(h, 7, O_RDWR, &things[0], &a), 0);
    CHECK_INT(handles_add(h, 8, O_RDONLY, &things[1], &b), 0);
    CHECK(a != 0 && b != 0 && a != b);
    CHECK(handles_get(h, a) == &things[0]);
    CHECK(handles_get(h, b) == &things[1]);
    CHECK(handles_get(h, 0) == NULL);
    CHECK(handles_get(h, b + 1) == NULL);
    CHECK_INT(handles_look(h, b + 1, &what), DFS_ESTALE);
    CHECK(handles_remove(h, a) == &things[0]);
    CHECK(handles_remove(h, a) == NULL);
    CHECK_INT(handles_look(h, a, &what), DFS_ESTALE);
    CHECK_INT(handles_add(h, 9, O_RDONLY, &things[2], &c), 0);
    CHECK_INT(c, a); /* numbers are used again */
    handles_close(h);
}

static void another_process_takes_over(void)
{
    struct handles *h = fresh();
    struct handles *next = NULL;
    struct handle what;
    uint64_t a, b, c, d;

    CHECK_INT(handles_add(h, 7, O_RDWR | O_APPEND, &things[0], &a), 0);
    CHECK_INT(handles_add(h, 8, O_RDONLY, &things[1], &b), 0);
    CHECK_INT(handles_add(h, 9, O_WRONLY, &things[2], &c), 0);
    handles_dirty(h, a, true);
    handles_dirty(h, c, true);
    handles_dirty(h, c, false);
    strcpy(handles_spare(h), "hello");
    (void)handles_remove(h, b);

    CHECK_INT(handles_open(dup(handles_fd(h)), &next, NULL), 0);
    CHECK_STR((char *)handles_spare(next), "hello");
    CHECK(handles_get(next, a) == NULL);
    CHECK_INT(handles_look(next, a, &what), 0);
    CHECK_INT(what.ino, 7);
    CHECK_INT(what.flags, O_RDWR | O_APPEND);
    CHECK(what.lost);
    CHECK_INT(handles_look(next, b, &what), DFS_ESTALE);
    CHECK_INT(handles_look(next, c, &what), 0);
    CHECK(!what.lost);
    CHECK_INT(handles_next_orphan(next, 1), a);
    handles_put(next, a, &things[1]);
    CHECK(handles_get(next, a) == &things[1]);
    CHECK_INT(handles_next_orphan(next, 1), c);
    CHECK_INT(handles_next_orphan(next, c + 1), 0);
    CHECK_INT(handles_add(next, 10, O_RDONLY, &things[0], &d), 0);
    CHECK_INT(d, b);                        /* the one that was free */
    CHECK(handles_remove(next, c) == NULL); /* never used here, and gone all the same */
    CHECK_INT(handles_look(next, c, &what), DFS_ESTALE);
    handles_close(next);
    handles_close(h);
}

/* What was lost of an inode is missing whoever syncs it. */
static void all_handles_of_an_inode_tell(void)
{
    struct handles *h = fresh();
    struct handles *next = NULL;
    struct handle what;
    uint64_t a, b, c;

    CHECK_INT(handles_add(h, 7, O_RDWR, &things[0], &a), 0);
    CHECK_INT(handles_add(h, 8, O_RDWR, &things[1], &b), 0);
    CHECK_INT(handles_add(h, 7, O_RDWR, &things[2], &c), 0);
    handles_dirty(h, a, true);
    CHECK_INT(handles_open(dup(handles_fd(h)), &next, NULL), 0);
    CHECK_INT(handles_look(next, a, &what), 0);
    CHECK(what.lost);
    CHECK_INT(handles_look(next, b, &what), 0);
    CHECK(!what.lost);
    CHECK_INT(handles_look(next, c, &what), 0);
    CHECK(what.lost);
    handles_close(next);
    handles_close(h);
}

static void other_memory_is_refused(void)
{
    struct handles *h = NULL;
    struct why why = { "" };
    int fd = open("/dev/zero", O_RDWR);

    CHECK(fd >= 0);
    CHECK_INT(handles_open(fd, &h, &why), DFS_EDAMAGED);
    CHECK(why.text[0] != '\0');
}

int main(void)
{
    tap_run("numbers find their objects", numbers_find_their_objects);
    tap_run("another process takes over", another_process_takes_over);
    tap_run("all handles of an inode tell what was lost of it", all_handles_of_an_inode_tell);
    tap_run("other memory is refused", other_memory_is_refused);
    return tap_done();
}
