/*
 * node/fences.h - fencing numbers that outlive a server: the file `fences` in a log's directory
 */
#ifndef HW_NODE_FENCES_H
#define HW_NODE_FENCES_H

#include "env/env.h"

enum { HW_FENCES_RECORD_SIZE = 32 };

/*
 * `count` numbers that nobody was given before: from *first on.  They are used up from now on, also
 * after a crash.  HW_ECORRUPT: the file is damaged.
 */
enum hw_status hw_fences_take(struct hw_env *env, const char *dir, uint64_t count, uint64_t *first,
                              struct hw_error *err) HW_MUST_CHECK;
/* One record of the file; false: it is none. */
bool hw_fences_decode(const uint8_t bytes[HW_FENCES_RECORD_SIZE], uint64_t *turn, uint64_t *limit);

#endif
