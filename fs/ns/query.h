/* Inside of fs/ns: a reader, and the questions it answers. */
#ifndef DFS_FS_NS_QUERY_H
#define DFS_FS_NS_QUERY_H

#include "fs/ns/ns_core.h"

#define NS_BLOCK_SLOTS (2 * LIMIT_COMMIT_EXTENTS) /* a power of two */

struct ns_reader {
    struct ns_view v; /* txn: the view's, of the question being answered */
    struct kv_view view;
    const struct call_hdr *who; /* asks; of the question being answered */
    struct wire_out attr;
    struct wire_out list;
    struct wire_out blocks;
    struct wire_out nodes;
    ns_node_state_fn *state; /* of the question being answered */
    void *state_arg;
    uint64_t seen[NS_BLOCK_SLOTS]; /* hash set of the blocks listed; 0 = free */
};

/* What is committed: for what may take long, and for tasks. */
int ns_reader_begin(struct ns_reader *r);
/* All that was applied: for answers to clients. The writer may have to wait (kv_view_begin). */
int ns_reader_look(struct ns_reader *r);
void ns_reader_end(struct ns_reader *r);
/* Encoded, borrowed until the next call. */
struct slice ns_reader_attr(struct ns_reader *r, const struct attr *a);

int ns_ask_lookup(struct ns_reader *r, const struct lookup_req *req, struct lookup_rep *rep);
int ns_ask_getattr(struct ns_reader *r, const struct getattr_req *req, struct getattr_rep *rep);
int ns_ask_readlink(struct ns_reader *r, const struct readlink_req *req, struct readlink_rep *rep);
int ns_ask_readdir(struct ns_reader *r, const struct readdir_req *req, struct readdir_rep *rep);
int ns_ask_getxattr(struct ns_reader *r, const struct getxattr_req *req, struct getxattr_rep *rep);
int ns_ask_listxattr(struct ns_reader *r, const struct listxattr_req *req,
                     struct listxattr_rep *rep);
int ns_ask_permit(struct ns_reader *r, const struct permit_req *req, struct permit_rep *rep);
int ns_ask_open(struct ns_reader *r, const struct open_req *req, struct open_rep *rep);
int ns_ask_extents(struct ns_reader *r, const struct extents_req *req, struct extents_rep *rep);
int ns_ask_getstorage(struct ns_reader *r, const struct getstorage_req *req,
                      struct getstorage_rep *rep);
int ns_ask_locate(struct ns_reader *r, const struct locate_req *req, struct locate_rep *rep);
/* The value of a virtual attribute, borrowed until the next question; DFS_ENODATA. */
int ns_vattr_get(struct ns_reader *r, const struct attr *a, struct slice name, struct slice *ret);

int ns_ask_quota_get(struct ns_reader *r, const struct quota_get_req *req,
                     struct quota_get_rep *rep);
int ns_ask_quota_list(struct ns_reader *r, const struct quota_list_req *req,
                      struct quota_list_rep *rep);

#endif
