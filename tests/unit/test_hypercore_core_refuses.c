/* What a log refuses: files that are another's or too large, limits, calls that make no sense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror.h"
#include "hypercore/mirror_internal.h"
#include "hypercore/overtaken.h"
#include "sim/sim.h"
#include "support/core_log.h"

struct world {
    struct hw_error err;
    struct sim *sim;
    struct hw_env *env;
    struct hw_core *core; /* for writing, of 5 blocks; NULL: closed */
};

static int setup(void **state)
{
    struct world *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return 1;
    f->sim = sim_new(0);
    f->env = sim_env(f->sim);
    assert_ok(hw_core_create(f->env, "/log", &f->core, &f->err));
    assert_ok(core_log_append(f->core, 5, "note", &f->err));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct world *f = *state;

    hw_core_close(f->core);
    assert_int_equal(sim_open_handles(f->sim), 0);
    sim_free(f->sim);
    free(f);
    return 0;
}

static void close_log(struct world *f)
{
    hw_core_close(f->core);
    f->core = NULL;
}

static void assert_says(struct world *f, enum hw_status status, enum hw_status expected,
                        const char *message)
{
    assert_status(status, expected, &f->err);
    if (strstr(f->err.message, message) == NULL)
        fail_msg("'%s' is not in '%s'", message, f->err.message);
}

static void assert_open_says(struct world *f, enum hw_core_mode mode, enum hw_status expected,
                             const char *message)
{
    struct hw_core *core = NULL;

    assert_says(f, hw_core_open(f->env, "/log", mode, UINT64_MAX, &core, &f->err), expected,
                message);
    assert_null(core);
}

/* ------------------------------------------------------------------------------------- files */

static void a_key_that_is_not_this_logs_is_refused(void **state)
{
    struct world *f = *state;
    uint8_t key[33];
    size_t size;

    close_log(f);
    memcpy(key, sim_file_bytes(f->sim, "/log/key", &size), 32);
    assert_int_equal(size, 32);
    sim_file_truncate(f->sim, "/log/key", 31);
    assert_open_says(f, HW_CORE_WRITE, HW_EREADONLY, "not a key of 32 bytes");
    key[32] = 0;
    assert_ok(hw_env_replace_file(f->env, "/log/key", key, 33, HW_OPEN_PRIVATE, &f->err));
    assert_open_says(f, HW_CORE_WRITE, HW_EREADONLY, "not a key of 32 bytes");
    key[0] ^= 1;
    assert_ok(hw_env_replace_file(f->env, "/log/key", key, 32, HW_OPEN_PRIVATE, &f->err));
    assert_open_says(f, HW_CORE_WRITE, HW_EREADONLY, "not the key of this log");
}

static void a_log_file_that_is_not_a_logs_is_corrupt(void **state)
{
    static const uint8_t large[8192];
    struct hw_log_file log;
    struct world *f = *state;

    close_log(f);
    assert_ok(hw_log_file_read(f->env, "/log", &log, &f->err));
    sim_file_put(f->sim, "/log/log", large, sizeof(large));
    assert_open_says(f, HW_CORE_READ, HW_ECORRUPT, "too large");
    log.key[0] ^= 1;
    assert_ok(hw_log_file_write(f->env, "/log", &log, &f->err));
    assert_open_says(f, HW_CORE_READ, HW_ECORRUPT, "the manifest is not that of the key");
    log.manifest_size--;
    hw_manifest_key((struct hw_slice){log.manifest, log.manifest_size}, log.key);
    assert_ok(hw_log_file_write(f->env, "/log", &log, &f->err));
    assert_open_says(f, HW_CORE_READ, HW_ECORRUPT, "/log");
}

static void a_log_of_two_signers_is_of_another_version(void **state)
{
    struct world *f = *state;
    struct hw_manifest manifest;
    struct hw_buffer encoded = {0};
    struct hw_log_file log;

    hw_manifest_default(f->core->public_key, &manifest);
    manifest.signers[1] = manifest.signers[0];
    manifest.signer_count = 2;
    close_log(f);
    assert_ok(hw_log_file_read(f->env, "/log", &log, &f->err));
    hw_manifest_encode(&manifest, &encoded);
    memcpy(log.manifest, encoded.bytes, encoded.size);
    log.manifest_size = encoded.size;
    hw_manifest_key((struct hw_slice){encoded.bytes, encoded.size}, log.key);
    hw_buffer_release(&encoded);
    assert_ok(hw_log_file_write(f->env, "/log", &log, &f->err));
    assert_open_says(f, HW_CORE_READ, HW_EVERSION, "one signer");
}

static void a_reader_notices_another_log_in_its_place(void **state)
{
    struct world *f = *state;
    struct hw_core *reader = NULL, *other = NULL;
    struct hw_log_file log;

    assert_ok(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &reader, &f->err));
    assert_ok(hw_core_refresh_kept(reader, &f->err));
    assert_ok(hw_core_create(f->env, "/other", &other, &f->err));
    hw_core_close(other);
    assert_ok(hw_log_file_read(f->env, "/other", &log, &f->err));
    assert_ok(hw_log_file_write(f->env, "/log", &log, &f->err));
    assert_says(f, hw_core_refresh_kept(reader, &f->err), HW_EFORK, "another log");
    sim_file_remove(f->sim, "/log/log");
    assert_status(hw_core_refresh_kept(reader, &f->err), HW_ENOTFOUND, &f->err);
    hw_core_close(reader);
}

static void what_a_newer_program_wrote_of_a_peer_says_so(void **state)
{
    struct hw_overtaken overtaken = {.fork = 3, .length = 7};
    struct world *f = *state;
    uint8_t bytes[72], hash[HW_HASH_SIZE];
    struct hw_slice part = {bytes, 64};
    size_t size;

    assert_ok(hw_overtaken_write(f->env, "/log", &overtaken, &f->err));
    memcpy(bytes, sim_file_bytes(f->sim, "/log/overtaken", &size), sizeof(bytes));
    assert_int_equal(size, sizeof(bytes));
    bytes[8]++;
    hw_hash(&part, 1, hash);
    memcpy(bytes + 64, hash, 8);
    sim_file_put(f->sim, "/log/overtaken", bytes, sizeof(bytes));
    assert_says(f, hw_overtaken_read(f->env, "/log", &overtaken, &f->err), HW_EVERSION, "upgrade");
    close_log(f);
    assert_open_says(f, HW_CORE_WRITE, HW_EVERSION, "upgrade");
}

/* ------------------------------------------------------------------------------------ limits */

static void a_block_larger_than_peers_take_is_refused(void **state)
{
    struct world *f = *state;
    size_t size = HW_BLOCK_SIZE_MAX + 1;
    uint8_t *block = calloc(1, size);

    assert_ok(hw_core_batch_begin(f->core, &f->err));
    assert_says(f, hw_core_batch_add(f->core, block, size, &f->err), HW_ELIMIT, "a block of");
    hw_core_batch_abort(f->core);
    core_log_check_all(f->core, 5);
    free(block);
}

static void a_log_has_an_end(void **state)
{
    struct world *f = *state;

    assert_ok(hw_core_batch_begin(f->core, &f->err));
    f->core->batch.roots.length = HW_TREE_LENGTH_MAX;
    assert_says(f, hw_core_batch_add(f->core, "x", 1, &f->err), HW_ELIMIT, "the log is full");
    hw_core_batch_abort(f->core);

    f->core->end.segment = HW_SEGMENT_NUMBER_MAX;
    assert_says(f, hw_core_rotate(f->core, 0, &f->err), HW_ELIMIT, "no more segment numbers");
}

static void forks_have_an_end(void **state)
{
    struct hw_overtaken overtaken = {.fork = INT64_MAX, .length = 7};
    struct world *f = *state;

    assert_ok(hw_overtaken_write(f->env, "/log", &overtaken, &f->err));
    close_log(f);
    assert_says(f, hw_core_adopt(f->env, "/log", &f->err), HW_ELIMIT, "no fork is left");
}

/* ------------------------------------------------------------------------------------- calls */

static void a_writer_knows_its_log_without_looking(void **state)
{
    struct world *f = *state;

    assert_ok(hw_core_refresh(f->core, 2, &f->err));
    assert_ok(hw_core_refresh_kept(f->core, &f->err));
    assert_int_equal(hw_core_length(f->core), 5);
}

static void a_reader_whose_log_is_gone_is_of_no_use_until_it_is_back(void **state)
{
    struct world *f = *state;
    struct hw_core *reader = NULL;
    struct hw_buffer out = {0};

    assert_ok(hw_core_open(f->env, "/log", HW_CORE_READ, 5, &reader, &f->err));
    assert_says(f, hw_core_refresh(reader, 9, &f->err), HW_ECORRUPT,
                "9 blocks are said to be there, 5 are");
    assert_says(f, hw_core_read(reader, 1, &out, &f->err), HW_EBROKEN, "did not find blocks");
    assert_status(hw_core_refresh(reader, 9, &f->err), HW_ECORRUPT, &f->err);
    assert_status(hw_core_refresh(reader, 6, &f->err), HW_ECORRUPT, &f->err);
    assert_ok(core_log_append(f->core, 4, "back", &f->err));
    assert_status(hw_core_read(reader, 1, &out, &f->err), HW_EBROKEN, &f->err);
    assert_ok(hw_core_refresh(reader, 9, &f->err));
    core_log_check_all(reader, 9);
    hw_core_close(reader);
}

static void bits_beyond_the_log_are_not_set(void **state)
{
    struct world *f = *state;
    uint32_t bits[40];

    memset(bits, 0xff, sizeof(bits));
    assert_ok(hw_core_bits(f->core, 0, 40, bits, &f->err));
    assert_int_equal(bits[0], 0x1f);
    for (size_t i = 1; i < 40; i++)
        assert_int_equal(bits[i], 0);
}

static void what_cannot_be_read_is_not_said_to_be_missing(void **state)
{
    struct sim_fault fault = {
        .kind = SIM_EIO, .operations = SIM_READ, .path = "tree", .at = 1, .for_ever = true};
    struct world *f = *state;
    struct hw_core *reader = NULL;
    uint64_t found, checked;
    uint32_t bits;
    bool is_held;

    assert_ok(hw_core_open(f->env, "/log", HW_CORE_READ, 5, &reader, &f->err));
    sim_set_fault(f->sim, &fault);
    assert_int_equal(hw_core_bits(reader, 0, 1, &bits, &f->err), HW_EIO);
    assert_int_equal(hw_core_find(reader, 0, 5, false, &found, &checked, &f->err), HW_EIO);
    assert_int_equal(hw_core_is_held(reader, 1, &is_held, &f->err), HW_EIO);
    assert_false(hw_core_has(reader, 1));
    sim_set_fault(f->sim, NULL);
    assert_ok(hw_core_bits(reader, 0, 1, &bits, &f->err));
    assert_int_equal(bits, 0x1f);
    assert_ok(hw_core_find(reader, 0, 5, false, &found, &checked, &f->err));
    assert_int_equal(found, 5);
    assert_true(hw_core_has(reader, 1));
    hw_core_close(reader);
}

static void only_a_mirror_takes_proofs(void **state)
{
    struct world *f = *state;
    struct hw_proof_request request = {.fork = 1, .has_block = true};
    struct hw_proof_reader reader;
    struct hw_proof proof = {0};
    uint64_t levels;

    assert_says(f, hw_core_reader(f->core, &reader, &f->err), HW_EMISUSE, "only a mirror");
    assert_says(f, hw_core_missing_nodes(f->core, 0, &levels, &f->err), HW_EMISUSE,
                "only a mirror");
    assert_says(f, hw_core_prove(f->core, &request, &proof, &f->err), HW_EFORK, "fork 1");
    hw_proof_release(&proof);
}

static void nothing_is_released_and_closed_without_harm(void **state)
{
    (void)state;
    hw_core_close(NULL);
    hw_core_free(NULL);
    hw_proof_release(NULL);
}

int main(void)
{
#define SIM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SIM(a_key_that_is_not_this_logs_is_refused),
        SIM(a_log_file_that_is_not_a_logs_is_corrupt),
        SIM(a_log_of_two_signers_is_of_another_version),
        SIM(a_reader_notices_another_log_in_its_place),
        SIM(what_a_newer_program_wrote_of_a_peer_says_so),
        SIM(a_block_larger_than_peers_take_is_refused),
        SIM(a_log_has_an_end),
        SIM(forks_have_an_end),
        SIM(a_writer_knows_its_log_without_looking),
        SIM(a_reader_whose_log_is_gone_is_of_no_use_until_it_is_back),
        SIM(bits_beyond_the_log_are_not_set),
        SIM(what_cannot_be_read_is_not_said_to_be_missing),
        SIM(only_a_mirror_takes_proofs),
        SIM(nothing_is_released_and_closed_without_harm),
    };

    return cmocka_run_group_tests_name("hypercore/core_refuses", tests, NULL, NULL);
}
