/* Every message of the three rpc.def tables as one list, for tests that go over all of them. */
#ifndef DFS_TEST_WIRE_CODECS_H
#define DFS_TEST_WIRE_CODECS_H

#include "cluster/wire/wire.h"

struct codec {
    const char *name; /* "lookup req", "lookup rep", "attr" */
    uint32_t id;      /* of an RPC; 0 for items of lists */
    /* Decodes in and encodes the result; the decoder's error, or the encoder's. */
    int (*again)(struct slice in, struct wire_out *out);
    /* Encodes a message in which every field has a value of its own. */
    void (*fill)(struct wire_out *out);
};

extern const struct codec codecs[];
extern const size_t codec_count;

#endif
