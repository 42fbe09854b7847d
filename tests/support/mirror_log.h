/*
 * support/mirror_log.h - mirrors of the logs of support/core_log.h, fed by their proofs
 */
#ifndef SUPPORT_MIRROR_LOG_H
#define SUPPORT_MIRROR_LOG_H

#include "hypercore/mirror.h"
#include "support/core_log.h"

/* Ask `from`, as one that holds what `to` does; what comes back is accepted.  No assertions. */
enum hw_status mirror_log_upgrade(struct hw_core *from, struct hw_core *to,
                                  struct hw_accepted *accepted, struct hw_error *err);
enum hw_status mirror_log_block(struct hw_core *from, struct hw_core *to, uint64_t index,
                                struct hw_accepted *accepted, struct hw_error *err);
/* Block `index`, the next of `to`, with the upgrade that brings it: as it is pushed. */
enum hw_status mirror_log_push(struct hw_core *from, struct hw_core *to,
                               struct hw_accepted *accepted, struct hw_error *err);
/* Take over the fork of `from`, which is above ours. */
enum hw_status mirror_log_reorg(struct hw_core *from, struct hw_core *to, struct hw_error *err);
/* The request for a block, with as many nodes as `to` wants. */
enum hw_status mirror_log_request(struct hw_core *to, uint64_t index, struct hw_proof_request *out,
                                  struct hw_error *err);

#endif
