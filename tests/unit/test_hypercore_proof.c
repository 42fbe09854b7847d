/*
 * Proofs, against the vectors: a server of ours must answer each request with the very bytes of the
 * real one, and a reader of ours must end in the state of the real one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/core_log.h"
#include "support/proof_server.h"

struct reader {
    struct store store;
    struct hw_proof_reader view;
    struct hw_authority authority;
    uint8_t *manifest; /* owned: what its authority was decoded from */
    struct hw_reorg reorg;
    bool in_reorg;
    uint8_t signature[1024];
    size_t signature_size;
};

/* ---------------------------------------------------------------------------------- reader */

static void reader_init(struct reader *reader, const struct server *server, bool knows)
{
    *reader = (struct reader){.in_reorg = false};
    reader->view.source = (struct hw_node_source){store_get, &reader->store};
    memcpy(reader->view.key, server->authority.key, HW_HASH_SIZE);
    if (knows && !server->authority.is_compat) {
        reader->authority = server->authority;
        reader->view.authority = &reader->authority;
    }
}

static void reader_store(struct reader *reader, const struct hw_nodes *nodes)
{
    for (size_t i = 0; i < hw_nodes_count(nodes); i++)
        store_put(&reader->store, hw_nodes_at(nodes, i));
}

static void reader_adopt(struct reader *reader, const struct hw_proof *proof,
                         const struct hw_roots *roots, uint64_t fork)
{
    reader->view.roots = *roots;
    reader->view.fork = fork;
    if (proof->has_upgrade) {
        reader->signature_size = proof->signature.size;
        memcpy(reader->signature, proof->signature.bytes, proof->signature.size);
    }
}

static enum hw_status reader_reorg(struct reader *reader, const struct hw_proof *proof)
{
    enum hw_status status = reader->in_reorg
                                ? hw_reorg_feed(&reader->view, &reader->reorg, proof, NULL)
                                : hw_reorg_begin(&reader->view, proof, &reader->reorg, NULL);

    if (status != HW_OK)
        return status;
    if (proof->has_upgrade) { /* the signature comes with the first answer only */
        reader->signature_size = proof->signature.size;
        memcpy(reader->signature, proof->signature.bytes, proof->signature.size);
    }
    reader->in_reorg = !reader->reorg.is_done;
    if (reader->in_reorg)
        return HW_OK;
    store_cut(&reader->store, reader->reorg.common);
    reader_store(reader, &reader->reorg.nodes);
    reader->view.roots = reader->reorg.roots;
    reader->view.fork = reader->reorg.fork;
    return HW_OK;
}

static enum hw_status reader_take(struct reader *reader, const struct hw_proof *proof)
{
    struct hw_proof_outcome outcome;
    enum hw_status status;

    if (proof->fork > reader->view.fork && (reader->in_reorg || proof->has_upgrade))
        return reader_reorg(reader, proof);
    status = hw_proof_check(&reader->view, proof, &outcome, NULL);
    if (status != HW_OK)
        return status;
    reader_store(reader, &outcome.nodes);
    if (outcome.is_upgrade)
        reader_adopt(reader, proof, &outcome.roots, proof->fork);
    if (outcome.has_authority) {
        reader->authority = outcome.authority;
        reader->view.authority = &reader->authority;
    }
    hw_proof_outcome_release(&outcome);
    return HW_OK;
}

static void check_reader(const struct json *expected, const struct reader *reader, const char *name)
{
    const struct json *root = json_get(expected, "roots")->first;
    const struct json *stored = json_get(expected, "storedNodes")->first;
    const struct json *signature = json_find(expected, "signature");
    uint8_t tree_hash[HW_HASH_SIZE], expected_hash[HW_HASH_SIZE];

    assert_int_equal(reader->view.roots.length, json_integer(expected, "length"));
    assert_int_equal(reader->view.roots.byte_length, json_integer(expected, "byteLength"));
    assert_int_equal(reader->view.fork, json_integer(expected, "fork"));
    for (unsigned i = 0; i < reader->view.roots.count; i++, root = root->next)
        assert_int_equal(reader->view.roots.nodes[i].index, root->integer);
    assert_null(root);
    hw_roots_hash(&reader->view.roots, tree_hash);
    json_hex_fixed(json_get(expected, "treeHash"), expected_hash, sizeof(expected_hash));
    assert_memory_equal(tree_hash, expected_hash, sizeof(tree_hash));
    for (uint64_t i = 0; i < NODES_MAX; i++) {
        bool is_expected = stored != NULL && stored->integer == i;

        if (is_expected)
            stored = stored->next;
        if (reader->store.has[i] != is_expected)
            fail_msg("%s: node %llu is %sstored", name, (unsigned long long)i,
                     is_expected ? "not " : "");
    }
    if (signature != NULL && !reader->in_reorg) {
        size_t size;
        uint8_t *bytes = json_hex(signature, &size);

        assert_int_equal(reader->signature_size, size);
        assert_memory_equal(reader->signature, bytes, size);
        free(bytes);
    }
}

/* ----------------------------------------------------------------------------------- steps */

static void check_want(const struct json *result, const struct reader *reader)
{
    const struct json *want = json_find(result, "want"), *common = json_find(result, "ancestors");

    assert_int_equal(reader->in_reorg, want != NULL);
    if (want != NULL) {
        assert_int_equal(reader->reorg.want_start, json_integer(want, "start"));
        assert_int_equal(reader->reorg.want_end, json_integer(want, "end"));
        assert_int_equal(reader->reorg.want_nodes, json_integer(want, "nodes"));
    }
    if (common != NULL)
        assert_int_equal(reader->reorg.common, common->integer);
}

/*
 * JavaScript servers leave the seek section out when the node is not under the first root of the
 * log, and send the plain path; ours follows the rules.  Readers take both.
 */
static bool is_known_slip(const char *name)
{
    return strcmp(name, "seek with a hash request, as a reader at 13 does it") == 0;
}

static void do_request(const char *name, const struct json *step, struct server *server,
                       struct reader *reader)
{
    struct hw_proof_request request;
    struct hw_proof proof = {0}, received = {0};
    struct hw_buffer encoded = {0};
    size_t size;
    uint8_t *bytes;
    enum hw_status status;

    server_request(step, &request);
    status = server_answer(server, &request, &proof);
    if (json_find(step, "refused") != NULL) {
        assert_int_equal(status, HW_EPROTOCOL);
        return;
    }
    assert_int_equal(status, HW_OK);
    proof.id = request.id;
    hw_proof_encode(&proof, &encoded);
    bytes = json_hex(json_get(step, "response_hex"), &size);
    if (is_known_slip(name) && request.has_seek) {
        assert_true(proof.has_seek);
        assert_int_equal(hw_proof_decode((struct hw_slice){bytes, size}, &received, NULL), HW_OK);
        assert_int_equal(reader_take(reader, &received), HW_OK);
        assert_int_equal(reader_take(reader, &proof), HW_OK); /* ours leads to the same root */
        hw_proof_release(&received);
        goto done;
    }
    if (encoded.size != size || memcmp(encoded.bytes, bytes, size) != 0)
        fail_msg("%s: the answer is not that of the vectors", name);
    assert_int_equal(hw_proof_decode((struct hw_slice){bytes, size}, &received, NULL), HW_OK);
    status = reader_take(reader, &received);
    if (status != HW_OK)
        fail_msg("%s: %s", name, hw_status_name(status));
    check_want(json_get(step, "result"), reader);
    check_reader(json_get(step, "reader"), reader, name);
    hw_proof_release(&received);
done:
    if (!reader->in_reorg)
        hw_reorg_release(&reader->reorg);
    hw_buffer_release(&encoded);
    hw_proof_release(&proof);
    free(bytes);
}

static void do_step(const char *name, const struct json *step, struct server *server,
                    struct reader *reader)
{
    if (strcmp(json_text(step, "do"), "request") == 0)
        do_request(name, step, server, reader);
    else
        server_step(server, step);
}

static void every_case_is_answered_and_taken_as_in_the_vectors(void **state)
{
    struct json *json = json_load("proofs.json");
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(json, "cases")->first; at != NULL; at = at->next) {
        struct server *server = calloc(1, sizeof(*server));
        struct reader *reader = calloc(1, sizeof(*reader));

        server_load(json, at, server);
        reader_init(reader, server, json_bool(at, "readerStartsWithManifest"));
        for (const struct json *step = json_get(at, "steps")->first; step != NULL;
             step = step->next)
            do_step(json_text(at, "name"), step, server, reader);
        hw_reorg_release(&reader->reorg);
        server_release(server);
        free(server);
        free(reader);
        seen++;
    }
    assert_int_equal(seen, 49);
    json_free(json);
}

/* A reader that holds nothing, or the roots of 13 blocks, as the rejected cases want it. */
static void load_rejecting_reader(const struct json *file, const struct json *rejected,
                                  bool has_roots, struct server *server, struct reader *reader)
{
    server_load(file, rejected, server);
    for (const struct json *block = json_get(rejected, "blocks")->first; block != NULL;
         block = block->next) {
        size_t size;
        uint8_t *bytes = json_hex(block, &size);

        server_append(server, bytes, size);
    }
    reader_init(reader, server, true);
    if (!has_roots)
        return;
    reader->view.roots = server->roots;
    for (unsigned i = 0; i < server->roots.count; i++)
        store_put(&reader->store, &server->roots.nodes[i]);
}

static void every_false_answer_is_refused(void **state)
{
    struct json *json = json_load("proofs.json");
    const struct json *rejected = json_get(json, "rejected");
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(rejected, "cases")->first; at != NULL; at = at->next) {
        struct server *server = calloc(1, sizeof(*server));
        struct reader *reader = calloc(1, sizeof(*reader));
        struct hw_proof proof = {0};
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "response_hex"), &size);
        enum hw_status status;

        load_rejecting_reader(json, rejected, json_find(at, "readerLength") != NULL, server,
                              reader);
        status = hw_proof_decode((struct hw_slice){bytes, size}, &proof, NULL);
        if (status == HW_OK)
            status = reader_take(reader, &proof);
        if (status != HW_EPROOF && status != HW_EPROTOCOL)
            fail_msg("%s: %s", json_text(at, "name"), hw_status_name(status));
        hw_proof_release(&proof);
        server_release(server);
        free(server);
        free(reader);
        free(bytes);
        seen++;
    }
    assert_int_equal(seen, 15);
    json_free(json);
}

static void missing_nodes_are_counted_as_in_the_vectors(void **state)
{
    struct json *json = json_load("proofs.json");

    (void)state;
    for (const struct json *at = json_get(json, "missing_nodes_with_roots_only")->first; at != NULL;
         at = at->next) {
        struct server *server = calloc(1, sizeof(*server));
        struct reader *reader = calloc(1, sizeof(*reader));
        uint64_t length = json_integer(at, "length"), block = 0;

        for (uint64_t i = 0; i < length; i++)
            server_append(server, calloc(1, 1), 1);
        reader_init(reader, server, true);
        reader->view.roots = server->roots;
        for (unsigned i = 0; i < server->roots.count; i++)
            store_put(&reader->store, &server->roots.nodes[i]);
        for (const struct json *nodes = json_get(at, "block_nodes")->first; nodes != NULL;
             nodes = nodes->next, block++) {
            uint64_t missing;

            assert_int_equal(hw_proof_missing_nodes(&reader->view, 2 * block, &missing, NULL),
                             HW_OK);
            assert_int_equal(missing, nodes->integer);
        }
        assert_int_equal(block, length);
        server_release(server);
        free(server);
        free(reader);
    }
    json_free(json);
}

/* Every flipped bit of an answer makes it false, or leaves what it says as it was. */
static void no_flipped_bit_passes(void **state)
{
    struct json *json = json_load("proofs.json");
    const struct json *rejected = json_get(json, "rejected");
    struct hw_proof_request request = {
        .has_block = true, .block_index = 9, .has_upgrade = true, .upgrade_length = 13};
    struct server *server = calloc(1, sizeof(*server));
    struct reader *reader = calloc(1, sizeof(*reader));
    struct hw_proof proof = {0};
    struct hw_buffer encoded = {0};

    (void)state;
    load_rejecting_reader(json, rejected, false, server, reader);
    assert_int_equal(server_answer(server, &request, &proof), HW_OK);
    hw_proof_encode(&proof, &encoded);
    for (size_t bit = 0; bit < 8 * encoded.size; bit++) {
        struct hw_proof changed = {0};
        struct hw_proof_outcome outcome = {0};
        enum hw_status status;

        encoded.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        status = hw_proof_decode((struct hw_slice){encoded.bytes, encoded.size}, &changed, NULL);
        if (status == HW_OK)
            status = hw_proof_check(&reader->view, &changed, &outcome, NULL);
        if (status == HW_OK && outcome.is_upgrade) { /* then it is the same tree */
            assert_int_equal(outcome.roots.length, 13);
            assert_memory_equal(outcome.roots.nodes[2].hash, server->roots.nodes[2].hash,
                                HW_HASH_SIZE);
            if (changed.has_block)
                assert_memory_equal(changed.block.bytes, server->blocks[9], server->sizes[9]);
        }
        hw_proof_outcome_release(&outcome);
        hw_proof_release(&changed);
        encoded.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    hw_buffer_release(&encoded);
    hw_proof_release(&proof);
    server_release(server);
    free(server);
    free(reader);
    json_free(json);
}

/* A reader that knows only the key gets a log of ours, block by block. */
static void a_log_of_ours_proves_its_blocks_to_a_reader(void **state)
{
    struct core_log *f = *state;
    struct reader *reader = calloc(1, sizeof(*reader));
    struct hw_core *core = NULL;
    uint8_t block[CORE_LOG_BLOCK_MAX];

    assert_ok(hw_core_create(f->env, NULL, &core, &f->err));
    for (unsigned i = 0; i < 10; i++)
        assert_ok(core_log_append(core, 1 + i % 7, "n", &f->err));
    reader->view.source = (struct hw_node_source){store_get, &reader->store};
    memcpy(reader->view.key, hw_core_identity(core)->key, HW_KEY_SIZE);
    for (uint64_t i = 0; i < hw_core_length(core); i++) {
        struct hw_proof_request request = {.has_block = true, .block_index = i};
        struct hw_proof proof = {0};
        size_t size = core_log_block(i, block);

        assert_ok(hw_proof_missing_nodes(&reader->view, 2 * i, &request.block_nodes, &f->err));
        if (i == 0) {
            request.has_upgrade = request.wants_manifest = true;
            request.upgrade_length = hw_core_length(core);
        }
        assert_ok(hw_core_prove(core, &request, &proof, &f->err));
        assert_int_equal(proof.block.size, size);
        assert_memory_equal(proof.block.bytes, block, size);
        assert_int_equal(reader_take(reader, &proof), HW_OK);
        if (i == 0) { /* what the manifest borrows must outlive the proof: ours has no such part */
            reader->authority.manifest.linked = reader->authority.manifest.user_data =
                (struct hw_slice){NULL, 0};
        }
        hw_proof_release(&proof);
    }
    assert_int_equal(reader->view.roots.length, hw_core_length(core));
    hw_core_close(core);
    free(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_answered_and_taken_as_in_the_vectors),
        cmocka_unit_test(every_false_answer_is_refused),
        cmocka_unit_test(missing_nodes_are_counted_as_in_the_vectors),
        cmocka_unit_test(no_flipped_bit_passes),
        cmocka_unit_test_setup_teardown(a_log_of_ours_proves_its_blocks_to_a_reader, core_log_setup,
                                        core_log_teardown),
    };

    return cmocka_run_group_tests_name("hypercore/proof", tests, NULL, NULL);
}
