/* Manifests of all versions, and which signatures they accept, against the vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/signature.h"
#include "support/json.h"

static void assert_hex(const struct json *string, const uint8_t *bytes, size_t size)
{
    size_t expected_size;
    uint8_t *expected = json_hex(string, &expected_size);

    assert_int_equal(size, expected_size);
    assert_memory_equal(bytes, expected, size);
    free(expected);
}

static void check_fields(const struct json *fields, const struct hw_manifest *manifest)
{
    const struct json *signer = json_get(fields, "signers")->first;
    const struct json *prologue = json_find(fields, "prologue");
    const struct json *linked = json_find(fields, "linked");
    const struct json *user_data = json_find(fields, "userData");

    assert_int_equal(manifest->version, json_integer(fields, "version"));
    assert_int_equal(manifest->quorum, json_integer(fields, "quorum"));
    assert_int_equal(manifest->allow_patch, json_bool(fields, "allowPatch"));
    assert_int_equal(manifest->signer_count, json_get(fields, "signers")->count);
    for (unsigned i = 0; i < manifest->signer_count; i++, signer = signer->next) {
        assert_hex(json_get(signer, "namespace"), manifest->signers[i].name_space, HW_HASH_SIZE);
        assert_hex(json_get(signer, "publicKey"), manifest->signers[i].public_key,
                   HW_PUBLIC_KEY_SIZE);
    }
    assert_int_equal(manifest->has_prologue, prologue != NULL);
    if (prologue != NULL) {
        assert_hex(json_get(prologue, "hash"), manifest->prologue_hash, HW_HASH_SIZE);
        assert_int_equal(manifest->prologue_length, json_integer(prologue, "length"));
    }
    assert_int_equal(manifest->linked.size, linked == NULL ? 0 : HW_HASH_SIZE * linked->count);
    assert_int_equal(manifest->has_user_data, user_data != NULL);
    if (user_data != NULL)
        assert_hex(user_data, manifest->user_data.bytes, manifest->user_data.size);
}

static void every_manifest_is_read_and_written_as_in_the_vectors(void **state)
{
    struct json *json = json_load("manifests.json");
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(json, "manifests")->first; at != NULL; at = at->next) {
        struct hw_manifest manifest;
        struct hw_buffer encoded = {0};
        uint8_t key[HW_HASH_SIZE];
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);
        struct hw_slice slice = {bytes, size};

        assert_int_equal(hw_manifest_decode(slice, &manifest, NULL), HW_OK);
        check_fields(json_get(at, "manifest"), &manifest);
        hw_manifest_encode(&manifest, &encoded);
        assert_int_equal(encoded.size, size);
        assert_memory_equal(encoded.bytes, bytes, size);
        hw_manifest_key(slice, key);
        assert_hex(json_get(at, "key"), key, sizeof(key));

        for (size_t cut = 0; cut < size; cut++) /* no prefix is a manifest */
            assert_int_not_equal(hw_manifest_decode((struct hw_slice){bytes, cut}, &manifest, NULL),
                                 HW_OK);
        hw_buffer_release(&encoded);
        free(bytes);
        seen++;
    }
    assert_int_equal(seen, 14);
    json_free(json);
}

static void what_is_not_a_manifest_is_refused(void **state)
{
    static const uint8_t newer[] = {4, 0, 0, 1, 0};
    static const uint8_t other_hash[] = {1, 0, 1, 1, 0};
    static const uint8_t many[] = {1, 0, 0, 1, 65};
    static const uint8_t trailing[] = {1, 0, 0, 0, 0, 9};
    struct hw_manifest manifest;

    (void)state;
    assert_int_equal(hw_manifest_decode((struct hw_slice){newer, sizeof(newer)}, &manifest, NULL),
                     HW_EVERSION);
    assert_int_equal(
        hw_manifest_decode((struct hw_slice){other_hash, sizeof(other_hash)}, &manifest, NULL),
        HW_EVERSION);
    assert_int_equal(hw_manifest_decode((struct hw_slice){many, sizeof(many)}, &manifest, NULL),
                     HW_ELIMIT);
    assert_int_equal(
        hw_manifest_decode((struct hw_slice){trailing, sizeof(trailing)}, &manifest, NULL),
        HW_EPROTOCOL);
}

/* The roots of the first `length` blocks of the file. */
static void roots_of(const struct json *json, uint64_t length, struct hw_roots *out)
{
    const struct json *block = json_get(json, "blocks")->first;

    *out = (struct hw_roots){0};
    for (uint64_t i = 0; i < length; i++, block = block->next) {
        size_t size;
        uint8_t *bytes = json_hex(block, &size);
        struct hw_node leaf;

        hw_node_leaf(i, (struct hw_slice){bytes, size}, &leaf);
        hw_roots_push(out, &leaf, NULL, NULL);
        free(bytes);
    }
}

static void every_signature_is_accepted_or_refused_as_by_the_real_verifier(void **state)
{
    struct json *json = json_load("manifests.json");
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(json, "signatures")->first; at != NULL; at = at->next) {
        struct hw_authority authority = {.is_compat = false};
        struct hw_roots roots;
        uint8_t tree_hash[HW_HASH_SIZE];
        size_t size, signature_size;
        uint8_t *manifest = json_hex(json_get(at, "manifest"), &size);
        uint8_t *signature = json_hex(json_get(at, "signature"), &signature_size);
        struct hw_slice slice = {signature, signature_size};
        uint64_t fork = json_integer(at, "fork");
        enum hw_status status;

        assert_int_equal(
            hw_manifest_decode((struct hw_slice){manifest, size}, &authority.manifest, NULL),
            HW_OK);
        json_hex_fixed(json_get(at, "key"), authority.key, HW_HASH_SIZE);
        roots_of(json, json_integer(at, "length"), &roots);
        hw_roots_hash(&roots, tree_hash);
        assert_hex(json_get(at, "treeHash"), tree_hash, sizeof(tree_hash));
        status = hw_authority_check(&authority, &roots, fork, slice, NULL);
        if (status != (json_bool(at, "accepted") ? HW_OK : HW_EPROOF))
            fail_msg("%s: %s", json_text(at, "name"), hw_status_name(status));

        /* A prefix that is long enough to hold the quorum may do; a changed first byte may not. */
        for (slice.size = 0; slice.size + 2 < signature_size; slice.size += 3)
            assert_int_equal(hw_authority_check(&authority, &roots, fork, slice, NULL), HW_EPROOF);
        signature[signature_size / 2] ^= 1;
        slice.size = signature_size;
        status = hw_authority_check(&authority, &roots, fork, slice, NULL);
        assert_true(status == HW_OK ||
                    status == HW_EPROOF); /* the changed bit may be a spare one */
        free(manifest);
        free(signature);
        seen++;
    }
    assert_int_equal(seen, 10);
    json_free(json);
}

static void a_tree_of_the_prologue_needs_no_signature(void **state)
{
    struct json *json = json_load("manifests.json");
    struct hw_authority authority = {.manifest = {.version = 1, .has_prologue = true}};
    struct hw_roots roots;
    struct hw_slice none = {NULL, 0};

    (void)state;
    roots_of(json, 5, &roots);
    authority.manifest.prologue_length = 5;
    hw_roots_hash(&roots, authority.manifest.prologue_hash);
    assert_int_equal(hw_authority_check(&authority, &roots, 0, none, NULL), HW_OK);
    roots_of(json, 4, &roots);
    assert_int_equal(hw_authority_check(&authority, &roots, 0, none, NULL), HW_EPROOF);
    roots_of(json, 6, &roots);
    assert_int_equal(hw_authority_check(&authority, &roots, 0, none, NULL), HW_EPROOF);
    json_free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_manifest_is_read_and_written_as_in_the_vectors),
        cmocka_unit_test(what_is_not_a_manifest_is_refused),
        cmocka_unit_test(every_signature_is_accepted_or_refused_as_by_the_real_verifier),
        cmocka_unit_test(a_tree_of_the_prologue_needs_no_signature),
    };

    return cmocka_run_group_tests_name("hypercore/manifest", tests, NULL, NULL);
}
