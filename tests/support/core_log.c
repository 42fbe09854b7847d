/* Implements support/core_log.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/core_log.h"

int core_log_setup(void **state)
{
    struct core_log *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return 1;
    f->env = hw_env_posix();
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/hw-core-XXXXXX");
    *state = f;
    return mkdtemp(f->dir) == NULL;
}

static bool remove_name(void *ctx, const char *name)
{
    struct core_log *f = ctx;
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    (void)f->env->ops->remove(f->env, path, NULL);
    return true;
}

void core_log_empty(struct core_log *f)
{
    (void)f->env->ops->list(f->env, f->dir, remove_name, f, NULL);
}

int core_log_teardown(void **state)
{
    struct core_log *f = *state;

    core_log_empty(f);
    (void)f->env->ops->remove_dir(f->env, f->dir, NULL);
    free(f);
    return 0;
}

void core_log_assert(int value, int expected, const struct hw_error *err, const char *what,
                     const char *file, int line)
{
    char message[1024];

    if (value == expected)
        return;
    (void)snprintf(message, sizeof(message), "%s is %s, not %s: %s", what,
                   hw_status_name((enum hw_status)value), hw_status_name((enum hw_status)expected),
                   err->message);
    print_error("%s\n", message);
    _fail(file, line);
}

size_t core_log_block(uint64_t i, uint8_t out[CORE_LOG_BLOCK_MAX])
{
    size_t size = (size_t)(i * 37 % 300);

    for (size_t j = 0; j < size; j++)
        out[j] = (uint8_t)(i * 7 + j);
    return size;
}

enum hw_status core_log_append(struct hw_core *core, unsigned count, const char *note,
                               struct hw_error *err)
{
    uint8_t block[CORE_LOG_BLOCK_MAX];
    enum hw_status status = hw_core_batch_begin(core, err);

    if (status != HW_OK)
        return status;
    for (unsigned i = 0; i < count; i++) {
        size_t size = core_log_block(hw_core_batch_next(core), block);

        status = hw_core_batch_add(core, block, size, err);
        if (status != HW_OK) {
            hw_core_batch_abort(core);
            return status;
        }
    }
    return hw_core_batch_commit(core, note, strlen(note), err);
}

enum hw_status core_log_check(struct hw_core *core, uint64_t i, struct hw_error *err)
{
    struct hw_buffer out = {0};
    uint8_t block[CORE_LOG_BLOCK_MAX];
    size_t size = core_log_block(i, block);
    enum hw_status status = hw_core_read(core, i, &out, err);

    if (status == HW_OK && (out.size != size || memcmp(out.bytes, block, size) != 0))
        status = hw_fail(err, HW_ECORRUPT, "block %llu has other bytes", (unsigned long long)i);
    hw_buffer_release(&out);
    return status;
}

void core_log_check_all(struct hw_core *core, uint64_t length)
{
    struct hw_error err = {0};

    assert_int_equal(hw_core_length(core), length);
    for (uint64_t i = 0; i < length; i++)
        assert_status(core_log_check(core, i, &err), HW_OK, &err);
    assert_status(core_log_check(core, length, &err), HW_ENOTFOUND, &err);
}

void core_log_check_note(struct hw_core *core, const char *note)
{
    struct hw_slice slice = hw_core_note(core);

    assert_int_equal(slice.size, strlen(note));
    assert_memory_equal(slice.bytes, note, slice.size);
}
