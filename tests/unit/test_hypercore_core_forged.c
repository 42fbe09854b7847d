/* Segments whose checksums are right and whose content is not: nobody takes them for the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

enum { BLOCKS = 60, RECORDS_MAX = 32, SIZES_MAX = 64 };

/* A segment taken apart, to be changed and written again. */
struct forged_record {
    struct hw_record record;
    uint8_t data[4096], note[HW_NOTE_SIZE_MAX], signature[HW_SIGNATURE_SIZE];
    uint32_t sizes[SIZES_MAX];
};

struct world {
    struct hw_error err;
    struct sim *sim;
    struct hw_env *env;
    struct hw_segment_header header;
    struct forged_record records[RECORDS_MAX];
    size_t count;
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

    sim_reset(f->sim, 1);
    assert_ok(hw_core_create(f->env, "/log", &core, &f->err));
    core->segment_size = 3000;
    for (unsigned i = 0; i < BLOCKS / 3; i++)
        assert_ok(core_log_append(core, 3, "note", &f->err));
    hw_core_close(core);
}

static void keep_record(struct world *f, const struct hw_record *record)
{
    struct forged_record *kept = &f->records[f->count++];
    struct hw_slice sizes = record->sizes;
    uint32_t used = 0;

    assert_in_range(f->count, 1, RECORDS_MAX);
    assert_in_range(record->count, 0, SIZES_MAX);
    kept->record = *record;
    memcpy(kept->data, record->data.bytes, record->data_size);
    for (uint32_t i = 0; i < record->count; i++) {
        assert_true(hw_record_next_size(record, &sizes, i, used, &kept->sizes[i]));
        used += kept->sizes[i];
    }
    if (record->kind == HW_RECORD_COMMIT) {
        memcpy(kept->note, record->note.bytes, record->note.size);
        memcpy(kept->signature, record->signature.bytes, HW_SIGNATURE_SIZE);
    }
}

static void take_apart(struct world *f, uint32_t number)
{
    struct hw_segment_scan scan = {0};
    struct hw_file *file = NULL;
    struct hw_record record;

    f->count = 0;
    assert_ok(hw_segment_open(f->env, "/log", number, false, NULL, &f->header, &file, &f->err));
    hw_segment_scan_start(&scan, file, HW_SEGMENT_HEADER_SIZE, f->header.checksum);
    while (hw_segment_scan_next(&scan, &record, &f->err) == HW_OK)
        keep_record(f, &record);
    hw_segment_scan_release(&scan);
    f->env->ops->close(file);
    assert_true(f->count > 2);
}

static void add_record(struct forged_record *kept, uint8_t chain[HW_SEGMENT_CHAIN_SIZE],
                       struct hw_buffer *out)
{
    struct hw_record *record = &kept->record;
    uint8_t head[HW_RECORD_HEAD_MAX], *head_end = head + sizeof(head);
    struct hw_buffer tail = {0}, hashes = {0};
    uint32_t used = 0;
    size_t head_size;

    record->note.bytes = kept->note;
    record->signature.bytes = kept->signature;
    hw_record_tail_encode(record, kept->sizes, &tail);
    head_size = hw_record_head_encode(record, head_end);
    record->size = (uint32_t)(head_size + record->data_size + tail.size + HW_SEGMENT_CHAIN_SIZE);
    head_size = hw_record_head_encode(record, head_end);
    for (uint32_t i = 0; i < record->count; i++) {
        struct hw_node leaf;

        hw_node_leaf(record->first + i, (struct hw_slice){kept->data + used, kept->sizes[i]},
                     &leaf);
        hw_buffer_add(&hashes, leaf.hash, HW_HASH_SIZE);
        used += kept->sizes[i];
    }
    hw_record_checksum(chain, (struct hw_slice){head_end - head_size, head_size},
                       (struct hw_slice){hashes.bytes, hashes.size},
                       (struct hw_slice){tail.bytes, tail.size}, chain);
    hw_buffer_add(out, head_end - head_size, head_size);
    hw_buffer_add(out, kept->data, record->data_size);
    hw_buffer_add(out, tail.bytes, tail.size);
    hw_buffer_add(out, chain, HW_SEGMENT_CHAIN_SIZE);
    hw_buffer_release(&tail);
    hw_buffer_release(&hashes);
}

/* As it is now, with right checksums. */
static void put_together(struct world *f, uint32_t number)
{
    uint8_t header[HW_SEGMENT_HEADER_SIZE], chain[HW_SEGMENT_CHAIN_SIZE];
    char *path = hw_segment_path("/log", number);
    struct hw_buffer bytes = {0};

    hw_segment_header_encode(&f->header, header);
    memcpy(chain, header + sizeof(header) - sizeof(chain), sizeof(chain));
    hw_buffer_add(&bytes, header, sizeof(header));
    for (size_t i = 0; i < f->count; i++)
        add_record(&f->records[i], chain, &bytes);
    sim_file_put(f->sim, path, bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
    hw_free(path);
}

/* Opening or verifying says so. */
static void assert_found(struct world *f, enum hw_status expected, const char *message)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err);

    if (status == HW_OK)
        status = hw_core_verify(core, NULL, NULL, &f->err);
    hw_core_close(core);
    assert_status(status, expected, &f->err);
    if (strstr(f->err.message, message) == NULL)
        fail_msg("'%s' is not in '%s'", message, f->err.message);
}

static void a_segment_put_together_again_is_the_same(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;
    const uint8_t *bytes;
    size_t size, size_before;
    uint8_t *before;

    make_log(f);
    bytes = sim_file_bytes(f->sim, "/log/00000002.seg", &size_before);
    before = malloc(size_before);
    memcpy(before, bytes, size_before);
    take_apart(f, 2);
    put_together(f, 2);
    bytes = sim_file_bytes(f->sim, "/log/00000002.seg", &size);
    assert_in_range(size, 1, size_before); /* without the room kept ahead */
    assert_memory_equal(bytes, before, size);
    free(before);
    assert_ok(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err));
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    hw_core_close(core);
}

static void a_record_out_of_place_is_found(void **state)
{
    struct world *f = *state;

    make_log(f);
    take_apart(f, 2);
    f->records[1].record.start++;
    put_together(f, 2);
    assert_found(f, HW_ECORRUPT, "00000002.seg: the record at");

    make_log(f);
    take_apart(f, 2);
    f->records[1].record.kind = HW_RECORD_KEPT; /* there are none where nothing was pruned */
    put_together(f, 2);
    assert_found(f, HW_ECORRUPT, "is out of place");
}

static void a_block_that_is_not_that_of_the_tree_is_found(void **state)
{
    struct world *f = *state;

    make_log(f);
    take_apart(f, 2);
    f->records[1].data[0] ^= 1;
    put_together(f, 2);
    assert_found(f, HW_ECORRUPT, "is not that of the tree");
}

static void a_batch_that_the_key_did_not_sign_is_found(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;
    uint32_t last = 4;

    make_log(f);
    take_apart(f, 2);
    f->records[1].signature[5] ^= 1;
    put_together(f, 2);
    assert_found(f, HW_EPROOF, "not signed by the log's key");

    make_log(f);
    take_apart(f, last);
    f->records[f->count - 1].signature[5] ^= 1;
    put_together(f, last);
    assert_status(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err),
                  HW_ECORRUPT, &f->err);
    assert_non_null(strstr(f->err.message, "the newest batch, of length 60, is not signed"));
}

static void a_segment_that_does_not_continue_the_tree_is_found(void **state)
{
    struct world *f = *state;

    make_log(f);
    take_apart(f, 2);
    f->header.tree_hash[0] ^= 1;
    put_together(f, 2);
    assert_found(f, HW_ECORRUPT, "00000002.seg: does not continue the tree");
}

/* The header and nothing behind it, which no crash leaves: the first record is made with it. */
static void a_segment_without_a_batch_is_an_error(void **state)
{
    struct world *f = *state;

    make_log(f);
    take_apart(f, 4);
    f->count = 0;
    put_together(f, 4);
    assert_found(f, HW_ECORRUPT, "00000004.seg: no whole batch at 104");
    make_log(f);
    for (uint32_t number = 1; number <= 4; number++) {
        take_apart(f, number);
        f->count = 0;
        put_together(f, number);
    }
    assert_found(f, HW_ECORRUPT, "no whole batch at 104");
}

/* Somebody put a changed tree file in its place while it was open. */
static void a_tree_that_changes_under_a_reader_is_found(void **state)
{
    struct world *f = *state;
    struct hw_core *core = NULL;
    enum { SLOT_SIZE = 80 };

    for (size_t at = 0; at < SLOT_SIZE; at += 8) {
        enum hw_status status;

        make_log(f);
        assert_ok(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err));
        sim_file_flip(f->sim, "/log/tree", SLOT_SIZE * 11 + at, 0x40);
        status = hw_core_verify(core, NULL, NULL, &f->err);
        if (status != HW_OK) /* its place is checked when the block is read */
            assert_status(status, HW_ECORRUPT, &f->err);
        hw_core_close(core);
    }
}

static void a_segment_of_a_newer_format_says_so(void **state)
{
    struct world *f = *state;
    uint8_t header[HW_SEGMENT_HEADER_SIZE], hash[HW_HASH_SIZE];
    struct hw_core *core = NULL;
    struct hw_slice part = {header, sizeof(header) - 8};

    make_log(f);
    take_apart(f, 4);
    put_together(f, 4);
    hw_segment_header_encode(&f->header, header);
    header[8]++;
    hw_hash(&part, 1, hash);
    memcpy(header + part.size, hash, 8);
    for (size_t i = 0; i < sizeof(header); i++) {
        size_t size;

        sim_file_flip(f->sim, "/log/00000004.seg", i,
                      header[i] ^ sim_file_bytes(f->sim, "/log/00000004.seg", &size)[i]);
    }
    assert_status(hw_core_open(f->env, "/log", HW_CORE_READ, UINT64_MAX, &core, &f->err),
                  HW_EVERSION, &f->err);
    assert_non_null(strstr(f->err.message, "upgrade it"));
}

int main(void)
{
#define SIM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SIM(a_segment_put_together_again_is_the_same),
        SIM(a_record_out_of_place_is_found),
        SIM(a_block_that_is_not_that_of_the_tree_is_found),
        SIM(a_batch_that_the_key_did_not_sign_is_found),
        SIM(a_segment_that_does_not_continue_the_tree_is_found),
        SIM(a_segment_without_a_batch_is_an_error),
        SIM(a_tree_that_changes_under_a_reader_is_found),
        SIM(a_segment_of_a_newer_format_says_so),
    };

    return cmocka_run_group_tests_name("hypercore/core_forged", tests, NULL, NULL);
}
