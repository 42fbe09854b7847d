/*
 * Mirrors against the vectors of proofs: one that takes the real answers ends with the roots and
 * the nodes of the real reader, and with the blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/mirror_internal.h"
#include "support/core_log.h"
#include "support/proof_server.h"

struct taker {
    struct hw_core *mirror;
    struct hw_reorg reorg;
    bool in_reorg;
    struct hw_buffer signature, manifest; /* of the answer that began it */
    struct hw_error err;
};

static void taker_open(struct taker *taker, const struct server *server, bool knows)
{
    *taker = (struct taker){.in_reorg = false};
    assert_status(hw_core_create_mirror(hw_env_posix(), NULL, server->authority.key, &taker->mirror,
                                        &taker->err),
                  HW_OK, &taker->err);
    if (knows && server->manifest != NULL)
        assert_status(hw_mirror_set_authority(
                          taker->mirror, (struct hw_slice){server->manifest, server->manifest_size},
                          &taker->err),
                      HW_OK, &taker->err);
}

static void taker_close(struct taker *taker)
{
    hw_reorg_release(&taker->reorg);
    hw_buffer_release(&taker->signature);
    hw_buffer_release(&taker->manifest);
    hw_core_close(taker->mirror);
}

static enum hw_status begin_reorg(struct taker *taker, const struct hw_proof_reader *reader,
                                  const struct hw_proof *proof)
{
    hw_buffer_clear(&taker->signature);
    hw_buffer_clear(&taker->manifest);
    hw_buffer_add(&taker->signature, proof->signature.bytes, proof->signature.size);
    hw_buffer_add(&taker->manifest, proof->manifest.bytes, proof->manifest.size);
    return hw_reorg_begin(reader, proof, &taker->reorg, &taker->err);
}

static enum hw_status take_reorg(struct taker *taker, const struct hw_proof *proof)
{
    struct hw_proof_reader reader;
    enum hw_status status = hw_core_reader(taker->mirror, &reader, &taker->err);

    if (status == HW_OK)
        status = taker->in_reorg ? hw_reorg_feed(&reader, &taker->reorg, proof, &taker->err)
                                 : begin_reorg(taker, &reader, proof);
    if (status != HW_OK)
        return status;
    taker->in_reorg = !taker->reorg.is_done;
    if (taker->in_reorg)
        return HW_OK;
    status =
        hw_core_reorg(taker->mirror, &taker->reorg,
                      (struct hw_slice){taker->signature.bytes, taker->signature.size},
                      (struct hw_slice){taker->manifest.bytes, taker->manifest.size}, &taker->err);
    hw_reorg_release(&taker->reorg);
    return status;
}

static enum hw_status take(struct taker *taker, const struct hw_proof *proof)
{
    struct hw_accepted accepted;
    enum hw_status status = hw_core_accept(taker->mirror, proof, &accepted, &taker->err);

    return status == HW_EFORK ? take_reorg(taker, proof) : status;
}

static void check_nodes(const struct json *expected, struct taker *taker, const char *name)
{
    const struct json *stored = json_get(expected, "storedNodes")->first;

    for (uint64_t i = 0; i < NODES_MAX; i++) {
        struct hw_node node;
        bool is_proven, is_expected = stored != NULL && stored->integer == i;
        bool held = hw_mirror_node(taker->mirror, i, &node, &is_proven, NULL) == HW_OK;

        if (is_expected)
            stored = stored->next;
        if (held != is_expected)
            fail_msg("%s: node %llu is %sstored", name, (unsigned long long)i,
                     is_expected ? "not " : "");
    }
}

static void check_state(const struct json *expected, struct taker *taker, const char *name)
{
    struct hw_core_head head = hw_core_head(taker->mirror);
    const struct json *signature = json_find(expected, "signature");
    uint8_t tree_hash[HW_HASH_SIZE];

    assert_int_equal(head.length, json_integer(expected, "length"));
    assert_int_equal(head.byte_length, json_integer(expected, "byteLength"));
    assert_int_equal(head.fork, json_integer(expected, "fork"));
    json_hex_fixed(json_get(expected, "treeHash"), tree_hash, sizeof(tree_hash));
    assert_memory_equal(head.tree_hash, tree_hash, sizeof(tree_hash));
    check_nodes(expected, taker, name);
    if (signature != NULL && !taker->in_reorg) {
        size_t size;
        uint8_t *bytes = json_hex(signature, &size);

        assert_int_equal(taker->mirror->mirror->signature.size, size);
        assert_memory_equal(taker->mirror->mirror->signature.bytes, bytes, size);
        free(bytes);
    }
}

/* What was in an answer is held; and all that is held is what the server has. */
static void check_blocks(struct taker *taker, const struct server *server,
                         const struct hw_proof *received, const char *name)
{
    struct hw_buffer out = {0};

    if (received->has_block && !taker->in_reorg &&
        !hw_core_has(taker->mirror, received->block_index))
        fail_msg("%s: block %llu is not held", name, (unsigned long long)received->block_index);
    for (uint64_t i = 0; i < hw_core_length(taker->mirror) && !taker->in_reorg; i++) {
        if (!hw_core_has(taker->mirror, i) || i >= server->roots.length)
            continue;
        assert_status(hw_core_read(taker->mirror, i, &out, &taker->err), HW_OK, &taker->err);
        assert_int_equal(out.size, server->sizes[i]);
        assert_memory_equal(out.bytes, server->blocks[i], out.size);
    }
    hw_buffer_release(&out);
}

static void do_request(const char *name, const struct json *step, const struct server *server,
                       struct taker *taker)
{
    struct hw_proof received = {0};
    enum hw_status status;
    uint8_t *bytes;
    size_t size;

    if (json_find(step, "refused") != NULL)
        return;
    bytes = json_hex(json_get(step, "response_hex"), &size);
    assert_int_equal(hw_proof_decode((struct hw_slice){bytes, size}, &received, NULL), HW_OK);
    status = take(taker, &received);
    if (status != HW_OK)
        fail_msg("%s: %s: %s", name, hw_status_name(status), taker->err.message);
    check_state(json_get(step, "reader"), taker, name);
    check_blocks(taker, server, &received, name);
    hw_proof_release(&received);
    free(bytes);
}

static void a_mirror_takes_every_case_of_the_vectors(void **state)
{
    struct json *json = json_load("proofs.json");
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(json, "cases")->first; at != NULL; at = at->next) {
        struct server *server = calloc(1, sizeof(*server));
        struct taker taker;

        server_load(json, at, server);
        taker_open(&taker, server, json_bool(at, "readerStartsWithManifest"));
        for (const struct json *step = json_get(at, "steps")->first; step != NULL;
             step = step->next) {
            if (strcmp(json_text(step, "do"), "request") == 0)
                do_request(json_text(at, "name"), step, server, &taker);
            else
                server_step(server, step);
        }
        assert_status(hw_core_verify(taker.mirror, NULL, NULL, &taker.err), HW_OK, &taker.err);
        taker_close(&taker);
        server_release(server);
        free(server);
        seen++;
    }
    assert_int_equal(seen, 49);
    json_free(json);
}

/* From an empty mirror, as the rejected cases that need no roots have it. */
static void a_mirror_refuses_every_false_answer_of_the_vectors(void **state)
{
    struct json *json = json_load("proofs.json");
    const struct json *rejected = json_get(json, "rejected");
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(rejected, "cases")->first; at != NULL; at = at->next) {
        struct server *server = calloc(1, sizeof(*server));
        struct hw_proof proof = {0};
        struct taker taker;
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "response_hex"), &size);
        enum hw_status status;

        server_load(json, rejected, server);
        taker_open(&taker, server, true);
        status = hw_proof_decode((struct hw_slice){bytes, size}, &proof, NULL);
        if (status == HW_OK)
            status = take(&taker, &proof);
        if (status != HW_EPROOF && status != HW_EPROTOCOL)
            fail_msg("%s: %s", json_text(at, "name"), hw_status_name(status));
        assert_int_equal(hw_core_length(taker.mirror), 0);
        for (uint64_t i = 0; i < NODES_MAX; i++) {
            struct hw_node node;
            bool is_proven;

            assert_int_equal(hw_mirror_node(taker.mirror, i, &node, &is_proven, NULL),
                             HW_ENOTFOUND);
        }
        hw_proof_release(&proof);
        taker_close(&taker);
        server_release(server);
        free(server);
        free(bytes);
        seen++;
    }
    assert_int_equal(seen, 15);
    json_free(json);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mirror_takes_every_case_of_the_vectors),
        cmocka_unit_test(a_mirror_refuses_every_false_answer_of_the_vectors),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/mirror_vectors", tests, NULL, NULL);
}
