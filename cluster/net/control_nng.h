/* What both ends of the control plane need from nng. Private to control.c.
 *
 * Three defects of nng 1.5 set the rules here:
 *  - Callbacks of an aio run on the thread that polls the sockets, and one that waits there stops
 *    all traffic of the process. So no callbacks: threads of ours wait for their operations.
 *  - A closed socket's memory is touched when operations on its contexts are still under way. So
 *    operations are ended by nng_aio_stop(), contexts closed by whoever uses them, and only then
 *    the socket closed.
 *  - nng_close() waits for ever when it meets a connection between a message's length and the
 *    rest of it. So a socket is closed when nothing is asked any more, and not waited for for ever.
 */
#ifndef DFS_CLUSTER_NET_CONTROL_NNG_H
#define DFS_CLUSTER_NET_CONTROL_NNG_H

#include "cluster/base/base.h"

#include <nng/nng.h>

#include "cluster/base/addr.h"
#include "cluster/wire/frame.h"

/* of a message, with nng's own header */
#define CONTROL_MESSAGE_MAX (FRAME_HEADER_BYTES + (size_t)LIMIT_MSG + 64)
#define CONTROL_URL_BYTES   (ADDR_TEXT + 8)

int control_err(int rv); /* the DFS_E* number of an nng error */
/* "host:port" as a URL. Errors: DFS_EINVAL. */
int control_url(const char *addr, char out[CONTROL_URL_BYTES], struct why *why);
/* A message that holds one frame; NULL: no memory. */
nng_msg *control_put(const struct frame *f, struct slice msg);
/* The other way. *ret_msg is borrowed from m. Errors: DFS_EMALFORMED, DFS_ETOOBIG,
 * DFS_ECHECKSUM. */
int control_get(nng_msg *m, struct frame *ret, struct slice *ret_msg);
/* One operation from start to end. The message of a failed send stays the caller's. */
int control_wait(nng_ctx ctx, nng_aio *aio, void (*op)(nng_ctx, nng_aio *), nng_duration within);
/* Closes a socket that nobody uses any more. */
void control_close(nng_socket sock);

#endif
