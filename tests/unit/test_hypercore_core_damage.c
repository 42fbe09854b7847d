/* Damaged files, copied directories, keys that others can read: what the log says then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

enum { BLOCKS = 60 };

struct world {
    struct hw_error err;
    struct sim *sim;
    struct hw_env *env;
};

static int setup(void **state)
{
    struct world *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return 1;
    f->sim = sim_new(0);
    f->env = sim_env(f->sim);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct world *f = *state;

    sim_free(f->sim);
    free(f);
    return 0;
}

/* 60 blocks in 20 batches, in segments of about 3000 bytes. */
static void make_log(struct world *f)
{
    struct hw_core *core = NULL;

    assert_ok(hw_core_create(f->env, "/log", &core, &f->err));
    core->segment_size = 3000;
    for (unsigned i = 0; i < BLOCKS / 3; i++)
        assert_ok(core_log_append(core, 3, "note", &f->err));
    hw_core_close(core);
}

/*
 * A reader of a log that was tampered with: each block is right, or reading it fails.  Returns
 * whether anything was found wrong by open, read or verify.
 */
static bool is_noticed(struct world *f)
{
    struct hw_core *core = NULL;
    bool noticed = false;
    enum hw_status status = hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err);

    if (status != HW_OK)
        return true;
    if (hw_core_length(core) != BLOCKS)
        noticed = true; /* verification by those who know the length */
    for (uint64_t i = 0; i < hw_core_length(core); i++) {
        status = core_log_check(core, i, &f->err);
        if (status == HW_ECORRUPT)
            assert_null(strstr(f->err.message, "has other bytes")); /* never a wrong answer */
        noticed = noticed || status != HW_OK;
    }
    status = hw_core_verify(core, NULL, NULL, &f->err);
    assert_true(status <= 0);
    hw_core_close(core);
    return noticed || status != HW_OK;
}

static void a_flipped_byte_anywhere_is_never_a_wrong_answer(void **state)
{
    static const char *const names[] = {"/log/log", "/log/tree", "/log/00000001.seg",
                                        "/log/00000004.seg"};
    struct world *f = *state;

    make_log(f);
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        size_t size, missed = 0;

        assert_non_null(sim_file_bytes(f->sim, names[n], &size));
        for (size_t at = 0; at < size; at += n == 0 ? 1 : 3) {
            sim_file_flip(f->sim, names[n], at, 0x10);
            missed += !is_noticed(f);
            sim_file_flip(f->sim, names[n], at, 0x10);
        }
        /* What goes unnoticed is repaired in passing: an offset in a slot, the marker. */
        if (n != 1)
            assert_int_equal(missed, 0);
    }
    assert_false(is_noticed(f));
}

/* The writer cuts nothing that was durable: it refuses, and changes no byte of the segments. */
static void a_writer_does_not_cut_what_was_durable(void **state)
{
    struct world *f = *state;
    const char *name = "/log/00000004.seg";
    size_t size;
    uint8_t *copy;
    const uint8_t *bytes;

    make_log(f);
    bytes = sim_file_bytes(f->sim, name, &size);
    copy = malloc(size);
    for (size_t at = 0; at < size; at += 7) {
        struct hw_core *core = NULL;
        enum hw_status status;

        sim_file_flip(f->sim, name, at, 0x04);
        memcpy(copy, sim_file_bytes(f->sim, name, &size), size);
        status = hw_core_open(f->env, "/log", HW_CORE_WRITE, 0, &core, &f->err);
        if (status == HW_OK) { /* below the marker: found when it is read */
            assert_int_equal(hw_core_length(core), BLOCKS);
            hw_core_close(core);
        } else {
            assert_status(status, HW_ECORRUPT, &f->err);
        }
        bytes = sim_file_bytes(f->sim, name, &size);
        assert_memory_equal(bytes, copy, size);
        sim_file_flip(f->sim, name, at, 0x04);
    }
    free(copy);
}

static void a_truncated_segment_is_an_error_until_it_is_adopted(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;
    uint64_t length;
    size_t size;

    make_log(f);
    assert_non_null(sim_file_bytes(f->sim, "/log/00000004.seg", &size));
    sim_file_truncate(f->sim, "/log/00000004.seg", size - 5);
    for (int mode = HW_CORE_READ; mode <= HW_CORE_WRITE; mode++)
        assert_status(
            hw_core_open(f->env, "/log", (enum hw_core_mode)mode, UINT64_MAX, &core, &f->err),
            HW_ECORRUPT, &f->err);
    assert_non_null(strstr(f->err.message, "/log/00000004.seg"));
    assert_ok(hw_core_adopt(f->env, "/log", &f->err));
    assert_ok(hw_core_open(f->env, "/log", HW_CORE_WRITE, 0, &core, &f->err));
    length = hw_core_length(core);
    assert_int_equal(length, BLOCKS - 3);
    assert_int_equal(hw_core_head(core).fork, 1);
    assert_ok(core_log_append(core, 3, "again", &f->err));
    core_log_check_all(core, BLOCKS);
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    hw_core_close(core);
}

static void a_missing_file_is_named(void **state)
{
    static const char *const names[] = {"/log/00000001.seg", "/log/00000002.seg",
                                        "/log/00000004.seg"};
    struct world *f = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct hw_core *core = NULL;
        enum hw_status status;

        sim_reset(f->sim, 1);
        make_log(f);
        sim_file_remove(f->sim, names[i]);
        status = hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err);
        if (status == HW_OK) {
            status = hw_core_verify(core, NULL, NULL, &f->err);
            assert_non_null(strstr(f->err.message, names[i]));
        }
        assert_status(status, HW_ECORRUPT, &f->err);
        hw_core_close(core);
    }
}

static void the_tree_is_made_anew_from_the_segments(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;

    make_log(f);
    sim_file_remove(f->sim, "/log/tree");
    assert_status(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err),
                  HW_ECORRUPT, &f->err);
    assert_ok(hw_core_open(f->env, "/log", HW_CORE_WRITE, 0, &core, &f->err));
    core_log_check_all(core, BLOCKS);
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    hw_core_close(core);
    assert_false(is_noticed(f));
}

static void a_log_of_a_newer_format_says_so(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;

    make_log(f);
    sim_file_flip(f->sim, "/log/log", 8, 2);
    assert_status(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err),
                  HW_EVERSION, &f->err);
}

static void creating_over_a_log_fails(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;

    make_log(f);
    assert_status(hw_core_create(f->env, "/log", &core, &f->err), HW_EEXIST, &f->err);
    sim_file_remove(f->sim, "/log/log");
    assert_status(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err),
                  HW_ENOTFOUND, &f->err);
    assert_status(hw_core_create(f->env, "/log", &core, &f->err), HW_EEXIST, &f->err);
}

/* ------------------------------------------------------------------ key and place, real files */

static void copy_file(const char *from, const char *to, const char *name)
{
    char command[300];

    (void)snprintf(command, sizeof(command), "cp -p %s/%s %s/", from, name, to);
    assert_int_equal(system(command), 0);
}

static void a_copy_is_not_written_before_it_is_adopted(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;
    struct core_log *copy = NULL;
    void *copy_state = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 5, "n", &f->err));
    hw_core_close(core);
    assert_int_equal(core_log_setup(&copy_state), 0);
    copy = copy_state;
    copy_file(f->dir, copy->dir, "*");

    assert_status(hw_core_open(f->env, copy->dir, HW_CORE_WRITE, 0, &core, &f->err), HW_EFORK,
                  &f->err);
    assert_ok(hw_core_open(f->env, copy->dir, HW_CORE_READ, UINT64_MAX, &core, &f->err));
    core_log_check_all(core, 5);
    hw_core_close(core);
    for (uint64_t fork = 1; fork <= 2; fork++) {
        assert_ok(hw_core_adopt(f->env, copy->dir, &f->err));
        assert_ok(hw_core_open(f->env, copy->dir, HW_CORE_WRITE, 0, &core, &f->err));
        assert_int_equal(hw_core_head(core).fork, fork);
        assert_int_equal(hw_core_length(core), 5 + 3 * (fork - 1));
        assert_ok(core_log_append(core, 3, "n", &f->err));
        assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
        core_log_check_all(core, 5 + 3 * fork);
        hw_core_close(core);
    }
    core_log_teardown(&copy_state);
}

/* Copied file by file while it was written: the tree knows of a batch that the segment has not. */
static void a_copy_made_while_the_log_was_written_can_be_read(void **state)
{
    struct core_log *f = *state;
    struct core_log *copy = NULL;
    struct hw_core *core = NULL;
    void *copy_state = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 5, "early", &f->err));
    assert_int_equal(core_log_setup(&copy_state), 0);
    copy = copy_state;
    copy_file(f->dir, copy->dir, "00000001.seg");
    assert_ok(core_log_append(core, 5, "late", &f->err));
    copy_file(f->dir, copy->dir, "log");
    copy_file(f->dir, copy->dir, "tree");
    hw_core_close(core);

    assert_ok(hw_core_open(f->env, copy->dir, HW_CORE_READ, UINT64_MAX, &core, &f->err));
    core_log_check_all(core, 5);
    core_log_check_note(core, "early");
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    hw_core_close(core);
    core_log_teardown(&copy_state);
}

static void a_key_that_is_missing_or_open_to_others_makes_a_mirror(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;
    char path[128];

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 5, "n", &f->err));
    hw_core_close(core);
    (void)snprintf(path, sizeof(path), "%s/key", f->dir);
    assert_int_equal(chmod(path, 0640), 0);
    assert_status(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err), HW_EREADONLY,
                  &f->err);
    assert_non_null(strstr(f->err.message, "chmod 600"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    hw_core_close(core);
    assert_int_equal(remove(path), 0);
    assert_status(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err), HW_EREADONLY,
                  &f->err);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, UINT64_MAX, &core, &f->err));
    core_log_check_all(core, 5);
    assert_status(hw_core_batch_begin(core, &f->err), HW_EREADONLY, &f->err);
    hw_core_close(core);
}

int main(void)
{
#define SIM(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define REAL(name) cmocka_unit_test_setup_teardown(name, core_log_setup, core_log_teardown)
    const struct CMUnitTest tests[] = {
        SIM(a_flipped_byte_anywhere_is_never_a_wrong_answer),
        SIM(a_writer_does_not_cut_what_was_durable),
        SIM(a_truncated_segment_is_an_error_until_it_is_adopted),
        SIM(a_missing_file_is_named),
        SIM(the_tree_is_made_anew_from_the_segments),
        SIM(a_log_of_a_newer_format_says_so),
        SIM(creating_over_a_log_fails),
        REAL(a_copy_is_not_written_before_it_is_adopted),
        REAL(a_copy_made_while_the_log_was_written_can_be_read),
        REAL(a_key_that_is_missing_or_open_to_others_makes_a_mirror),
    };

    return cmocka_run_group_tests_name("hypercore/core_damage", tests, NULL, NULL);
}
