/*
 * support/core_log.h - logs with known blocks, for tests of the log and of what is above it
 *
 * Block i has bytes and a size that follow from i.
 */
#ifndef SUPPORT_CORE_LOG_H
#define SUPPORT_CORE_LOG_H

#include "hypercore/hypercore.h"

enum { CORE_LOG_BLOCK_MAX = 512 };

struct core_log { /* one directory of its own under /tmp */
    struct hw_env *env;
    char dir[64];
    struct hw_error err;
};

int core_log_setup(void **state); /* for cmocka: *state is a struct core_log */
int core_log_teardown(void **state);
void core_log_empty(struct core_log *f); /* remove what is in the directory */

/* Fails the test with the message of `err` unless `value` is `expected`. */
#define assert_status(value, expected, err)                                                        \
    core_log_assert((int)(value), (int)(expected), (err), #value, __FILE__, __LINE__)
#define assert_ok(call) assert_status(call, HW_OK, &f->err)
void core_log_assert(int value, int expected, const struct hw_error *err, const char *what,
                     const char *file, int line);

size_t core_log_block(uint64_t i, uint8_t out[CORE_LOG_BLOCK_MAX]);
/* One batch of the next `count` blocks. */
enum hw_status core_log_append(struct hw_core *core, unsigned count, const char *note,
                               struct hw_error *err);
/* Is block `i` there as it should be?  The status of reading it; HW_ECORRUPT: other bytes. */
enum hw_status core_log_check(struct hw_core *core, uint64_t i, struct hw_error *err);
/* All blocks of a log of `length`, and none beyond; asserts. */
void core_log_check_all(struct hw_core *core, uint64_t length);
void core_log_check_note(struct hw_core *core, const char *note);

#endif
