/* What a process needs to serve a mount that another one served before it. */
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/daemon.h"
#include "cluster/base/io.h"
#include "cluster/base/log.h"

#include "fs/mount/internal.h"

#define PATIENCE_MS     3000u /* with masters that do not answer, before requests are refused */
#define REFUSE_EVERY_MS 100u
#define REQUEST_BYTES   (2 * MIB) /* more than any request of the kernel */

/* The kernel greets a connection once. What it said is kept for those who take over: libfuse wants to
 * hear it, and the kernel takes no notice of a second answer. */
struct greeting {
    uint64_t root; /* the inode that is mounted, whatever became of its path */
    uint32_t len;
    uint8_t bytes[HANDLES_SPARE - 16];
};

int takeover_greet(struct mount *m, struct why *why)
{
    struct greeting *kept = handles_spare(m->handles);
    struct fuse_buf buf = { .mem = NULL };
    int n;

    if (m->guard.resumed) {
        buf.mem = kept->bytes;
        buf.size = kept->len;
        fuse_session_process_buf(m->se, &buf);
        return 0;
    }
    do {
        n = fuse_session_receive_buf(m->se, &buf);
    } while (n == -EINTR);
    if (n <= 0 || (size_t)n > sizeof(kept->bytes)) {
        free(buf.mem);
        return why_set(why, DFS_EIO, "the kernel's greeting on %s: %s", m->o->dir,
                       n < 0 ? strerror(-n) : "not understood");
    }
    kept->root = m->root;
    kept->len = (uint32_t)n;
    memcpy(kept->bytes, buf.mem, (size_t)n);
    buf.size = (size_t)n;
    init_ext_start(m, buf.mem, buf.size);
    fuse_session_process_buf(m->se, &buf);
    free(buf.mem);
    return guard_hand(&m->guard, fuse_session_fd(m->se), handles_fd(m->handles));
}

/* ---- while no master answers ---- */

/* Requests that a descriptor has taken end with an error when it is closed. So nobody waits for a
 * mount that nobody serves yet. */
static void refuse_waiting(const struct mount *m)
{
    uint32_t connection = (uint32_t)m->guard.fuse;
    uint8_t *p = x_alloc(REQUEST_BYTES);
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &connection) == 0) {
        while (read(fd, p, REQUEST_BYTES) > 0) {
        }
    }
    io_close(fd);
    free(p);
}

static void *refuse_main(void *arg)
{
    struct mount *m = arg;
    uint64_t from = clock_mono_ms() + PATIENCE_MS;

    while (!atomic_load(&m->connected)) {
        if (clock_mono_ms() >= from) {
            refuse_waiting(m);
        }
        usleep(REFUSE_EVERY_MS * 1000);
    }
    return NULL;
}

/* Goes on with the session that the process before has left, or opens one. */
static int connect_once(struct mount *m, const char *name, struct why *why)
{
    struct slice left;
    int err = handles_left(m->handles, &left);

    if (err == 0) {
        err = client_resume(m->conf, name, left, &m->client, why);
        if (err != 0) {
            log_event(LOG_ERROR, "mount.session_lost", "dir=\"%s\" err=\"%s\"", m->o->dir,
                      err_text(err));
        }
        free((void *)(uintptr_t)left.p);
    }
    return err == 0 ? 0 : client_open(m->conf, name, &m->client, why);
}

static int connect_until(struct mount *m, const char *name, struct attr *ret_root, struct why *why)
{
    const struct greeting *kept = handles_spare(m->handles);

    for (;;) {
        int err = m->client == NULL ? connect_once(m, name, why) : 0;

        if (err == 0) {
            err = client_getattr(m->client, &cred_root, kept->root, ret_root);
            why_set(why, err, "the mount's root: %s", err_text(err));
        }
        if (err == DFS_ESTALE ||
            err == DFS_ENOENT) { /* it was removed: that is for programs to see */
            *ret_root = (struct attr){ .ino = kept->root, .mode = S_IFDIR };
            err = 0;
        }
        if (err == 0) {
            return 0;
        }
        if (daemon_wait(m->signals, 0) == DAEMON_STOP) {
            m->stopped = true;
            return err;
        }
        log_event(LOG_WARN, "mount.waits", "dir=\"%s\" err=\"%s\"", m->o->dir,
                  why != NULL && why->text[0] != '\0' ? why->text : err_text(err));
    }
}

int takeover_connect(struct mount *m, const char *name, struct attr *ret_root, struct why *why)
{
    pthread_t refuser;
    bool refuses = pthread_create(&refuser, NULL, refuse_main, m) == 0;
    int err = connect_until(m, name, ret_root, why);

    m->root = ret_root->ino;
    atomic_store(&m->connected, true);
    if (refuses) {
        (void)pthread_join(refuser, NULL);
    }
    return err;
}

/* ---- open files ---- */

/* The predecessor's handle gets an object here. adopt_mu is held. */
static int adopt_locked(struct mount *m, uint64_t fh, void **ret)
{
    struct handle what;
    int err = handles_look(m->handles, fh, &what);

    if (err == 0 && (what.flags & O_DIRECTORY) != 0) {
        *ret = dirh_adopt(what.ino);
    } else if (err == 0) {
        err = fileh_adopt(m, fh, &what, ret);
    }
    if (err == 0) {
        handles_put(m->handles, fh, *ret);
    }
    return err;
}

int takeover_handle(struct mount *m, uint64_t fh, void **ret)
{
    void *obj = handles_get(m->handles, fh);
    int err = 0;

    if (obj == NULL) {
        (void)pthread_mutex_lock(&m->adopt_mu);
        obj = handles_get(m->handles, fh);
        err = obj == NULL ? adopt_locked(m, fh, &obj) : 0;
        (void)pthread_mutex_unlock(&m->adopt_mu);
    }
    if (err == 0) {
        *ret = obj;
    }
    return err;
}

/* All of them, before the predecessor's session ends: then files without a name would go. */
static void *adopt_all(void *arg)
{
    struct mount *m = arg;
    uint64_t fh = 0;
    unsigned count = 0;

    while ((fh = handles_next_orphan(m->handles, fh + 1)) != 0 && !atomic_load(&m->loop_done)) {
        void *obj;
        int err = takeover_handle(m, fh, &obj);

        if (err != 0) {
            log_event(LOG_WARN, "mount.handle_lost", "handle=%ju err=\"%s\"", (uintmax_t)fh,
                      err_text(err));
        }
        count++;
    }
    log_event(LOG_INFO, "mount.resumed", "dir=\"%s\" handles=%u", m->o->dir, count);
    return NULL;
}

void takeover_start(struct mount *m)
{
    if (m->guard.resumed) {
        m->adopting = true;
        ASSERT(pthread_create(&m->adopter, NULL, adopt_all, m) == 0);
    }
}

void takeover_stop(struct mount *m)
{
    if (m->adopting) {
        (void)pthread_join(m->adopter, NULL);
        m->adopting = false;
    }
}
