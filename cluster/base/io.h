/* Files: whole reads and writes; replacing a file so that a crash leaves the old or the new one.
 *
 * Errors are DFS_E* codes made from errno (DFS_ENOENT, DFS_ENOSPC ...). Functions that take a `why`
 * name the path in it. Any thread.
 */
#ifndef DFS_CLUSTER_BASE_IO_H
#define DFS_CLUSTER_BASE_IO_H

#include "cluster/base/base.h"

#include <sys/types.h>

/* All n bytes, however many system calls it takes. A short file is DFS_EIO for the reads that must
 * be whole; io_pread_some and io_read_some stop at the end and tell how far they came. */
int io_pread(int fd, void *p, size_t n, uint64_t off);
int io_pwrite(int fd, const void *p, size_t n, uint64_t off);
int io_read(int fd, void *p, size_t n);
int io_write(int fd, const void *p, size_t n);
int io_pread_some(int fd, void *p, size_t n, uint64_t off, size_t *ret_len);
int io_read_some(int fd, void *p, size_t n, size_t *ret_len);

int io_fsync(int fd);
int io_fdatasync(int fd);
/* Closes (a negative fd is fine) and forgets errors: for descriptors that were read or synced. */
void io_close(int fd);

/* A whole small file, as text: NUL-terminated behind *ret_len bytes (ret_len may be NULL), to be
 * freed. DFS_ETOOBIG beyond max. */
int io_read_file(const char *path, size_t max, char **ret, size_t *ret_len, struct why *why);
/* Replaces path: temporary file beside it, fsync, rename, fsync of the directory. After an error
 * the old content is still there. */
int io_write_file(const char *path, const void *p, size_t n, mode_t mode, struct why *why);
/* Makes names created, renamed or removed in the directory durable. */
int io_sync_dir(const char *path, struct why *why);
/* The same for the directory that holds path. */
int io_sync_parent(const char *path, struct why *why);
/* path and all that is missing above it. Something else in its place is DFS_ENOTDIR. */
int io_mkdir_p(const char *path, mode_t mode, struct why *why);
/* Creates path if needed, locks it for this process (flock, not inherited by exec) and returns the
 * descriptor that holds the lock. DFS_EBUSY when somebody else has it and keeps it for a second. */
int io_lock_file(const char *path, int *ret_fd, struct why *why);

/* Bytes of this process that are in memory, and those of them that are pages of files. DFS_EIO. */
int io_resident(uint64_t *ret_all, uint64_t *ret_files);

#endif
