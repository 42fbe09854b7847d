/*
 * api_promote.h - a replica becomes the primary: the steps of hyperwal_promote()
 *
 *   R-hyper/ replica, position, mirror ...          it is a replica
 *            next/ key, log                         the key of the log that is to go on
 *            promoted/ key, log, segments           decided: genesis, and the switch
 *   R-hyper.OLDKEY/ mirror ...                      the old log is kept
 *   R-hyper/ key, log, segments, replica            still a replica
 *   R-hyper/ key, log, segments                     a primary, as soon as `replica` is gone
 *
 * Whoever is interrupted before `promoted` is there may go on following; after that the next call
 * does the rest.
 */
#ifndef HW_API_PROMOTE_H
#define HW_API_PROMOTE_H

#include "api_log.h"
#include "api_remote.h"
#include "capture/capture.h"

enum { HW_PROMOTION_PEERS_MAX = 32 };

struct hw_promotion {
    struct hw_env *env;
    char *path, *dir;                          /* owned; full, and path-hyper */
    char *next, *ready;                        /* owned; dir/next, dir/promoted */
    char *sources;                             /* owned: what `peers` points into */
    const char *peers[HW_PROMOTION_PEERS_MAX]; /* URLs, the first of them those of the replica */
    unsigned peer_count, source_count;
    const char *from; /* the primary that is to hand over; NULL: none */
    bool is_forced;
    hyperwal_progress progress;
    void *progress_ctx;
    struct hyperwal_node *node; /* owned; NULL: not needed */
    struct hw_replica_info info;
    struct hw_beginning begin; /* of the log that is to go on */
};

/*
 * Apply what there is of the old log, at the sources and peers that can be reached.  HW_EBUSY: one
 * of them has more, or is a primary that goes on, and nobody forces it.
 */
enum hw_status hw_promotion_catch_up(struct hw_promotion *promotion,
                                     struct hw_error *err) HW_MUST_CHECK;
/*
 * The primary `from` ends its log in favour of the one in `next`, and all of it is applied.  A
 * failure: it stays the primary, or it ended its log and the next call goes on from there; the
 * message says which.
 */
enum hw_status hw_promotion_hand_over(struct hw_promotion *promotion,
                                      struct hw_error *err) HW_MUST_CHECK;
/*
 * The key of the log in `next`, made if there is none.  HW_EFORK: the old primary handed over to
 * it, it is a copy, and nobody forces it.  The replica's lock is held, and its info is there.
 */
enum hw_status hw_promotion_prepare(struct hw_promotion *promotion, uint8_t key[HW_KEY_SIZE],
                                    struct hw_error *err) HW_MUST_CHECK;
/* Genesis and switch; from here on there is no way back. */
enum hw_status hw_promotion_decide(struct hw_promotion *promotion,
                                   struct hw_error *err) HW_MUST_CHECK;
/* The rest, from wherever an earlier call was interrupted.  The replica's lock is held. */
enum hw_status hw_promotion_finish(struct hw_promotion *promotion,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
