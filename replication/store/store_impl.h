/* What the files of the store share; nobody else includes it. */
#ifndef DFS_REPLICATION_STORE_STORE_IMPL_H
#define DFS_REPLICATION_STORE_STORE_IMPL_H

#include "replication/store/store.h"
#include "replication/store/syncer.h"
#include "replication/store/volume_list.h"

#define STORE_STRIPES 64u

struct store_stripe {
    struct replica_lock lock;
    struct htab index; /* guarded by: lock */
};

struct store {
    char *dir;
    int lock_fd;
    struct identity id;
    struct replica_env env;
    struct store_stripe stripes[STORE_STRIPES];
    struct volume *volumes[LIMIT_VOLUMES]; /* slots are filled in order and never again */
    struct syncer *syncers[LIMIT_VOLUMES];
    _Atomic size_t volume_count;
    uint64_t reserve;
    char *label;             /* of volumes that have none of their own */
    bool opened;             /* volumes that come now are scanned while others are used */
    pthread_mutex_t admin;   /* held while a volume comes or goes */
    struct volume_list list; /* guarded by: admin, as all below */
    pthread_cond_t drain_cv; /* monotonic clock */
    pthread_t drain;
    bool draining; /* the thread runs */
    _Atomic bool stopping;
    pthread_mutex_t mu;
    struct replica_bad *bad; /* STORE_BAD_MAX; guarded by: mu */
    size_t bad_count;        /* guarded by: mu */
    struct list unusable;    /* struct store_unusable; guarded by: mu */
    _Atomic size_t spares;   /* spare ones among them */
};

/* A file that is not used: the start could not make sense of it, or (spare) the block is on two volumes.
 * Kept until its block is to be deleted here, or another copy of it is made; a spare one until the
 * one that is used was read and found right. */
struct store_unusable {
    struct list link;
    struct volume *vol;
    uint64_t block;
    uint32_t len; /* of a spare one: counted as used of its volume */
    bool spare;
    bool asked; /* for the check of the one that is used */
};

struct store_stripe *store_stripe_of(struct store *s, uint64_t block);
struct replica *store_find_locked(struct store_stripe *st, uint64_t block);
/* A replica that is in nobody's hands yet: one reference, for the index. */
struct replica *store_replica_new(struct store *s, uint64_t block, struct volume *v,
                                  enum rule_state state);
void store_index_add_locked(struct store_stripe *st, struct replica *r);
/* Out of the index; the index's reference is the caller's then. */
void store_index_remove_locked(struct store_stripe *st, struct replica *r);
/* Removes a replica, file and all; the caller has a reference of its own. It stays in the index as gone
 * until the file is: a new one of the same name would be removed in its place. */
void store_remove(struct store *s, struct replica *r);
/* The stripe's lock is held, so that no new file can have the same name. */
void store_unusable_remove_locked(struct store *s, uint64_t block);

/* The volume for the next replica, with this label if there is one; NULL: none has room. */
struct volume *store_choose_volume(struct store *s, struct slice label);
/* Opens one more volume, takes in what is on it, writes the identities. admin is held. */
int store_volume_join(struct store *s, const char *spec, struct why *why);
int store_save_identity(struct store *s, struct why *why);
/* Goes on with volumes that were leaving when the server stopped; ends that. */
int store_drain_resume(struct store *s, struct why *why);
void store_drain_stop(struct store *s);

#endif
