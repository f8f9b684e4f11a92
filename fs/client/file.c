/* Handles: what programs hold while they read and write. */
#include "cluster/base/base.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "fs/client/client_int.h"
#include "fs/client/commit.h"
#include "fs/client/readahead.h"
#include "fs/client/reader.h"
#include "fs/client/writer.h"

static struct file *handle_new(struct node *n, int flags)
{
    struct file *f = x_alloc(sizeof(*f));

    f->node = n;
    f->flags = flags;
    f->writes = (flags & O_ACCMODE) != O_RDONLY;
    pthread_mutex_init(&f->mu, NULL);
    pthread_mutex_lock(&n->mu);
    f->error_seq = n->error_told || n->error_seq == 0 ? n->error_seq : n->error_seq - 1;
    pthread_mutex_unlock(&n->mu);
    pthread_mutex_lock(&n->c->mu);
    n->handles++;
    n->writers += f->writes;
    pthread_mutex_unlock(&n->c->mu);
    return f;
}

/* Fresh attributes and extents into the node; *ret_again: they were overtaken by newer ones. */
static int ask_open(struct node *n, const struct cred *cr, unsigned access, uint64_t deadline_ms,
                    bool *ret_again)
{
    struct client *c = n->c;
    struct open_req q = { .ino = n->ino, .max_extents = OPEN_EXTENTS, .access = (uint8_t)access };
    struct open_rep r;
    struct meta_call call;
    struct slice rep;
    struct attr a;
    int err = meta_begin(c->meta, META_QUERY, cr, deadline_ms, &call);

    if (err != 0) {
        return err;
    }
    open_req_put(call.out, &q);
    err = meta_run(&call, RPC_open, &rep);
    err = err != 0 ? err : open_rep_get(rep, &r);
    if (err == 0) {
        struct wire_in in = wire_in_of(r.attr);

        err = attr_get(&in, &a);
    }
    err = err != 0 ? err : peers_learn(c->peers, r.blocks);
    if (err == 0) {
        pthread_mutex_lock(&n->mu);
        *ret_again = !node_learn_locked(n, &a, r.extents, r.more != 0, 0, true);
        pthread_mutex_unlock(&n->mu);
    }
    meta_end(&call);
    return err;
}

static int refresh(struct node *n, const struct cred *cr, unsigned access, uint64_t deadline_ms)
{
    bool again = true;
    int err = DFS_OK;

    while (err == 0 && again) {
        err = clock_mono_ms() < deadline_ms ? ask_open(n, cr, access, deadline_ms, &again)
                                            : DFS_ETIMEOUT;
    }
    return err;
}

/* Is the content another one than when this client knew the inode last? */
static bool changed(struct node *n, uint64_t before)
{
    struct client *c = n->c;
    const struct seen *s = &c->seen[htab_mix(n->ino) % SEEN_SLOTS];
    uint64_t now;
    bool old, known;

    pthread_mutex_lock(&n->mu);
    now = n->attr.data_version;
    old = n->foreign != n->renewed;
    pthread_mutex_unlock(&n->mu);
    if (old || before != 0) {
        return old || now != before;
    }
    pthread_mutex_lock(&c->mu);
    known = s->ino == n->ino && s->data_version == now;
    pthread_mutex_unlock(&c->mu);
    return !known;
}

/* What a handle with these flags will do. */
static unsigned access_of(int flags)
{
    unsigned want = (flags & O_TRUNC) != 0 ? PERM_WRITE : 0;

    if ((flags & FILE_EXEC) != 0) {
        return PERM_EXEC; /* also of a program that cannot be read */
    }
    switch (flags & O_ACCMODE) {
    case O_RDONLY:
        return want | PERM_READ;
    case O_WRONLY:
        return PERM_WRITE;
    default:
        return PERM_READ | PERM_WRITE;
    }
}

int file_open(struct client *c, const struct cred *cr, uint64_t ino, int flags, struct file **ret,
              struct attr *ret_attr, bool *ret_changed)
{
    uint64_t deadline_ms = client_deadline(c);
    struct node *n = node_get(c, ino);
    uint64_t before;
    int err;

    client_reopening(c, ino);
    pthread_mutex_lock(&n->mu);
    before = n->stale ? 0 : n->attr.data_version;
    pthread_mutex_unlock(&n->mu);
    err = refresh(n, cr, access_of(flags), deadline_ms);
    pthread_mutex_lock(&n->mu);
    if (err == 0 && S_ISDIR(n->attr.mode)) {
        err = DFS_EISDIR;
    }
    pthread_mutex_unlock(&n->mu);
    if (err == 0 && (flags & O_TRUNC) != 0) {
        struct setattr_req q = { .ino = ino, .valid = SET_SIZE };
        struct attr a;

        err = client_setattr(c, cr, &q, &a);
    }
    if (err != 0) {
        node_put(n);
        return err;
    }
    if (ret_changed != NULL) {
        *ret_changed = changed(n, before);
    }
    if (ret_attr != NULL) {
        pthread_mutex_lock(&n->mu);
        *ret_attr = n->attr;
        node_overlay_locked(n, ret_attr);
        pthread_mutex_unlock(&n->mu);
        atime_overlay(c, ret_attr);
    }
    *ret = handle_new(n, flags);
    return DFS_OK;
}

int file_create(struct client *c, const struct cred *cr, uint64_t parent, struct slice name,
                uint32_t mode, int flags, struct file **ret, struct attr *ret_attr,
                bool *ret_existed)
{
    struct make_req q = { .parent = parent,
                          .name = name,
                          .mode = S_IFREG | (mode & 07777),
                          .flags = MAKE_OPEN | ((flags & O_EXCL) != 0 ? MAKE_EXCL : 0),
                          .umask = cr->umask };
    struct make_rep r;
    struct meta_call call;
    struct slice rep;
    struct attr a = { 0 };
    bool existed;
    uint64_t before = dir_news_before(&c->news, parent);
    int err = meta_begin(c->meta, META_COMMAND, cr, client_deadline(c), &call);

    if (err != 0) {
        return err;
    }
    make_req_put(call.out, &q);
    err = meta_run(&call, RPC_make, &rep);
    err = err != 0 ? err : make_rep_get(rep, &r);
    if (err == 0) {
        struct wire_in in = wire_in_of(r.attr);

        err = attr_get(&in, &a);
        existed = r.existed != 0;
        dir_news_put(&c->news, before, r.dir);
    }
    meta_end(&call);
    if (err != 0) {
        return err;
    }
    if (ret_existed != NULL) {
        *ret_existed = existed;
    }
    if (existed) {
        return file_open(c, cr, a.ino, flags, ret, ret_attr, NULL);
    }
    struct node *n = node_get(c, a.ino);

    pthread_mutex_lock(&n->mu);
    if (n->attr.version == 0) { /* nobody here was quicker to open it */
        n->attr = a;
        n->known = UINT64_MAX;
        n->synced_before = true;
    }
    pthread_mutex_unlock(&n->mu);
    if (ret_attr != NULL) {
        *ret_attr = a;
    }
    *ret = handle_new(n, flags);
    return DFS_OK;
}

bool file_owes(struct file *f)
{
    struct node *n = f->node;
    bool owes;

    pthread_mutex_lock(&n->mu);
    owes = f->error_seq != n->error_seq;
    pthread_mutex_unlock(&n->mu);
    return owes;
}

void file_adopted(struct file *f, bool lost)
{
    struct node *n = f->node;

    pthread_mutex_lock(&n->mu);
    if (n->foreign == 0) {
        node_foreign_locked(n);
    }
    if (lost && n->error_seq == 0) {
        node_fail_locked(n, DFS_EIO);
    }
    f->error_seq = lost ? 0 : f->error_seq;
    pthread_mutex_unlock(&n->mu);
}

void file_close(struct file *f)
{
    struct node *n;
    bool last;

    if (f == NULL) {
        return;
    }
    n = f->node;
    pthread_mutex_lock(&n->c->mu);
    n->handles--;
    n->writers -= f->writes;
    last = f->writes && n->writers == 0;
    pthread_mutex_unlock(&n->c->mu);
    if (last) {
        writer_release(n);
    }
    pthread_mutex_destroy(&f->mu);
    free(f);
    node_put(n);
}

uint64_t file_ino(const struct file *f)
{
    return f->node->ino;
}

bool file_accessed(struct file *f)
{
    struct node *n = f->node;
    struct attr a;

    if ((f->flags & O_NOATIME) != 0) {
        return false;
    }
    pthread_mutex_lock(&n->mu);
    a = n->attr;
    a.mtime = MAX(a.mtime, n->mtime);
    pthread_mutex_unlock(&n->mu);
    if (!atime_note(n->c, &a)) {
        return false;
    }
    pthread_mutex_lock(&n->mu);
    n->attr.atime = MAX(n->attr.atime, a.atime);
    pthread_mutex_unlock(&n->mu);
    return true;
}

/* Of fresh content. Who reads where an append is being put waits for it: only the masters know its
 * place. */
static int size_now(struct node *n, uint64_t end, uint64_t deadline_ms, uint64_t *ret)
{
    int err = DFS_OK;

    pthread_mutex_lock(&n->mu);
    while (n->appending && end > n->append_from &&
           cond_wait_until(&n->committed, &n->mu, deadline_ms) == 0) {
    }
    if (n->stale) {
        pthread_mutex_unlock(&n->mu);
        err = node_fetch(n, 0, 0, deadline_ms);
        pthread_mutex_lock(&n->mu);
    }
    *ret = node_visible_locked(n);
    pthread_mutex_unlock(&n->mu);
    return err;
}

void file_paged(struct file *f)
{
    if (!atomic_load(&f->node->paged)) {
        atomic_store(&f->node->paged, true);
    }
}

bool file_is_paged(const struct file *f)
{
    return atomic_load(&f->node->paged);
}

void file_cached(struct file *f)
{
    atomic_store(&f->node->cached, true);
}

bool file_ends_at(struct file *f, uint64_t off, void (*fn)(void *arg), void *arg)
{
    struct node *n = f->node;
    bool ends;

    node_ref(n); /* with fn's answer the file may be closed, by another thread */
    pthread_mutex_lock(&n->mu);
    ends = n->size <= off;
    if (ends) {
        fn(arg);
    }
    pthread_mutex_unlock(&n->mu);
    node_put(n);
    return ends;
}

/* What a reader asks for from off on, cut at the end of the file; the bytes behind it are read ahead. */
static int read_begin(struct file *f, uint64_t off, uint64_t deadline_ms, size_t *len)
{
    struct node *n = f->node;
    uint64_t size = 0;
    int err = size_now(n, off + *len, deadline_ms, &size);

    (void)file_accessed(f);
    if (err != 0) {
        return err;
    }
    *len = off < size ? (size_t)MIN(*len, size - off) : 0;
    if (*len == 0) {
        return DFS_OK;
    }
    if (size > BUF_BYTES) {
        readahead_note(f, off, *len, size);
    } else if (*len < size && n->c->conf->read_ahead != 0) {
        readahead_load(n, 0, deadline_ms);
    }
    return DFS_OK;
}

static int read_in(struct node *n, uint8_t *to, size_t len, uint64_t off, uint64_t deadline_ms,
                   size_t *ret_len)
{
    size_t done = 0;

    while (done < len) {
        size_t k = readahead_read(n, to + done, len - done, off + done, deadline_ms);

        if (k == 0) {
            size_t want = len - done;

            if (atomic_load(&n->pages) > 0) { /* the next page may be there */
                want = MIN(want, BUF_BYTES - (size_t)((off + done) % BUF_BYTES));
            }
            int err = reader_read(n, to + done, want, off + done, &k, deadline_ms);

            if (err != 0) {
                return err;
            }
        }
        if (k == 0) {
            break; /* it was cut meanwhile */
        }
        done += k;
    }
    *ret_len = done;
    return DFS_OK;
}

int file_read(struct file *f, void *p, size_t len, uint64_t off, size_t *ret_len)
{
    uint64_t deadline_ms = client_deadline(f->node->c);
    int err = read_begin(f, off, deadline_ms, &len);

    return err != 0 ? err : read_in(f->node, p, len, off, deadline_ms, ret_len);
}

int file_read_view(struct file *f, void *p, size_t len, uint64_t off, struct read_view *ret_view,
                   size_t *ret_len)
{
    struct node *n = f->node;
    uint64_t deadline_ms = client_deadline(n->c);
    struct read_view v = { 0 };
    int err = read_begin(f, off, deadline_ms, &len);

    if (err != 0) {
        return err;
    }
    if (len > 0 && readahead_view(n, len, off, deadline_ms, &v) == len) {
        *ret_view = v;
        *ret_len = len;
        return DFS_OK;
    }
    client_end_view(n->c, &v);
    *ret_view = (struct read_view){ .p = p };
    return read_in(n, p, len, off, deadline_ms, ret_len);
}

void client_end_view(struct client *c, struct read_view *v)
{
    readahead_unview(c->ra, v);
}

bool file_loses_set_id(const struct file *f, const struct cred *cr)
{
    struct node *n = f->node;
    uint32_t mode;

    if (cr == NULL || cr->uid == 0) {
        return false;
    }
    pthread_mutex_lock(&n->mu);
    mode = n->attr.mode;
    pthread_mutex_unlock(&n->mu);
    return (mode & S_ISUID) != 0 || (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
}

/* Somebody without the right to keep them writes to a file with set-id bits. */
static int drop_privileges(const struct file *f, const struct cred *cr)
{
    struct setattr_req q = { .ino = f->node->ino, .valid = SET_KILL_SUID };
    struct attr a;

    return file_loses_set_id(f, cr) ? client_setattr(f->node->c, cr, &q, &a) : DFS_OK;
}

int file_write(struct file *f, const struct cred *cr, const void *p, size_t len, uint64_t off)
{
    int err = drop_privileges(f, cr);

    if (err != 0 || len == 0) {
        return err;
    }
    if ((f->flags & O_APPEND) != 0) {
        return writer_append(f->node, p, len); /* it is committed before it returns */
    }
    err = room_take(f->node, off, len);
    return err != 0 ? err : writer_write(f->node, p, len, off);
}

/* What went wrong since this handle was told last; once. */
static int latched(struct file *f)
{
    struct node *n = f->node;
    int err = DFS_OK;

    pthread_mutex_lock(&n->mu);
    pthread_mutex_lock(&f->mu);
    if (f->error_seq != n->error_seq) {
        err = n->error;
        f->error_seq = n->error_seq;
        n->error_told = true;
    }
    pthread_mutex_unlock(&f->mu);
    pthread_mutex_unlock(&n->mu);
    return err;
}

static int flush(struct file *f, bool sync)
{
    int err = writer_flush(f->node, sync, client_deadline(f->node->c));
    int late = latched(f);

    return err != 0 ? err : late;
}

int file_flush(struct file *f)
{
    return flush(f, false);
}

int file_fsync(struct file *f)
{
    return flush(f, true);
}
