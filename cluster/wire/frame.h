/* One frame format for every transport: TCP streams, unix sockets, nng messages.
 *
 *   offset size
 *        0    4  magic "DFS1"
 *        4    2  type: an RPC id of one of the rpc.def tables
 *        6    2  flags: FRAME_REPLY
 *        8    4  status of a reply: 0 or a DFS_E* number
 *       12    4  bytes of the message part
 *       16    4  bytes of the data part (bulk; carries checksums of its own)
 *       20    8  request id, chosen by the caller, repeated in the reply
 *       28    4  CRC32C over bytes 0-27 and the message part
 *       32       message part, then data part
 *
 * A frame is refused by its sizes before anything is allocated.
 */
#ifndef DFS_CLUSTER_WIRE_FRAME_H
#define DFS_CLUSTER_WIRE_FRAME_H

#include "cluster/base/limits.h"
#include "cluster/wire/wire.h"

#define FRAME_HEADER_BYTES 32
#define FRAME_REPLY        0x0001

struct frame {
    uint16_t type;
    uint16_t flags;
    uint32_t status;
    uint32_t msg_len;
    uint32_t data_len;
    uint64_t req_id;
    uint32_t crc; /* as found by frame_header_get; computed by frame_header_put */
};

/* Writes the header for f and its message part; f->msg_len must be msg.len. */
void frame_header_put(uint8_t out[FRAME_HEADER_BYTES], const struct frame *f, struct slice msg);

/* Reads a header. Errors: DFS_EMALFORMED (no frame of ours), DFS_ETOOBIG (over
 * LIMIT_MSG or LIMIT_DATA). The message part is checked by frame_check(). */
int frame_header_get(const uint8_t in[FRAME_HEADER_BYTES], struct frame *ret);

/* DFS_OK, or DFS_ECHECKSUM when header and message do not match their sum. */
int frame_check(const uint8_t header[FRAME_HEADER_BYTES], struct slice msg);

#endif
