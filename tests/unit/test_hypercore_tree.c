/* Hashes, roots, keys and signatures of a growing log, against the vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/hypercore.h"
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

static void namespaces_are_derived_from_their_names(void **state)
{
    const uint8_t *const values[] = {hw_namespace_tree, NULL, NULL, hw_namespace_manifest,
                                     hw_namespace_default};
    struct json *json = json_load("constants.json");
    const struct json *names = json_get(json, "namespaces");
    uint8_t family[HW_HASH_SIZE], value[HW_HASH_SIZE];
    struct hw_slice name = {(const uint8_t *)"hypercore", 9};

    (void)state;
    hw_hash(&name, 1, family);
    assert_hex(json_get(names, "hypercore name hash"), family, sizeof(family));
    for (uint8_t i = 0; i < 5; i++) {
        struct hw_slice parts[2] = {{family, sizeof(family)}, {&i, 1}};

        hw_hash(parts, 2, value);
        if (values[i] != NULL)
            assert_memory_equal(values[i], value, sizeof(value));
    }
    assert_hex(json_get(names, "TREE"), hw_namespace_tree, HW_HASH_SIZE);
    assert_hex(json_get(names, "MANIFEST"), hw_namespace_manifest, HW_HASH_SIZE);
    assert_hex(json_get(names, "DEFAULT_NAMESPACE"), hw_namespace_default, HW_HASH_SIZE);
    json_free(json);
}

static void keys_are_those_of_the_vectors(void **state)
{
    struct json *json = json_load("constants.json");
    uint8_t bytes[HW_HASH_SIZE], public_key[HW_PUBLIC_KEY_SIZE], secret_key[HW_SECRET_KEY_SIZE];

    (void)state;
    for (const struct json *at = json_get(json, "discoveryKey")->first; at != NULL; at = at->next) {
        uint8_t discovery_key[HW_HASH_SIZE];

        json_hex_fixed(json_get(at, "key"), bytes, sizeof(bytes));
        hw_discovery_key(bytes, discovery_key);
        assert_hex(json_get(at, "discoveryKey"), discovery_key, sizeof(discovery_key));
    }
    for (const struct json *at = json_get(json, "keyPairs")->first; at != NULL; at = at->next) {
        json_hex_fixed(json_get(at, "seed"), bytes, sizeof(bytes));
        hw_key_pair_from_seed(bytes, public_key, secret_key);
        assert_hex(json_get(at, "publicKey"), public_key, sizeof(public_key));
        assert_hex(json_get(at, "secretKey"), secret_key, sizeof(secret_key));
    }
    json_free(json);
}

static void ids_are_written_and_read(void **state)
{
    struct json *json = json_load("tree.json");
    const struct json *v1 = json_get(json, "v1");
    uint8_t key[HW_HASH_SIZE], parsed[HW_HASH_SIZE];
    char id[HW_KEY_ID_SIZE + 1], hex[2 * HW_KEY_SIZE + 1];

    (void)state;
    json_hex_fixed(json_get(v1, "key"), key, sizeof(key));
    hw_key_id_format(key, id);
    assert_string_equal(id, json_text(v1, "id"));
    hw_key_format(key, hex);
    assert_string_equal(hex, json_text(v1, "key"));
    assert_true(hw_key_parse(id, parsed));
    assert_memory_equal(parsed, key, sizeof(key));
    assert_true(hw_key_parse(hex, parsed));
    assert_memory_equal(parsed, key, sizeof(key));
    id[HW_KEY_ID_SIZE - 1] = '9'; /* bits beyond the key */
    assert_false(hw_key_parse(id, parsed));
    id[HW_KEY_ID_SIZE - 1] = 'l'; /* not a digit */
    assert_false(hw_key_parse(id, parsed));
    hex[5] = 'g';
    assert_false(hw_key_parse(hex, parsed));
    assert_false(hw_key_parse("", parsed));
    json_free(json);
}

static void the_default_manifest_is_that_of_the_vectors(void **state)
{
    struct json *json = json_load("tree.json");
    const struct json *v1 = json_get(json, "v1");
    uint8_t public_key[HW_PUBLIC_KEY_SIZE], key[HW_HASH_SIZE];
    struct hw_manifest manifest;
    struct hw_buffer encoded = {0};

    (void)state;
    json_hex_fixed(json_get(json_get(json, "keyPair"), "publicKey"), public_key,
                   sizeof(public_key));
    hw_manifest_default(public_key, &manifest);
    hw_manifest_encode(&manifest, &encoded);
    assert_int_equal(encoded.size, HW_MANIFEST_SIZE);
    assert_hex(json_get(v1, "manifest"), encoded.bytes, encoded.size);
    hw_manifest_key((struct hw_slice){encoded.bytes, encoded.size}, key);
    assert_hex(json_get(v1, "key"), key, sizeof(key));
    hw_buffer_release(&encoded);
    json_free(json);
}

/* ------------------------------------------------------------------------- a growing log */

struct signer {
    struct hw_authority authority;
    uint8_t secret_key[HW_SECRET_KEY_SIZE];
};

static void signer_load(const struct json *json, bool compat, struct signer *out)
{
    uint8_t seed[HW_SEED_SIZE], public_key[HW_PUBLIC_KEY_SIZE];

    *out = (struct signer){.authority.is_compat = compat};
    json_hex_fixed(json_get(json_get(json, "keyPair"), "seed"), seed, sizeof(seed));
    hw_key_pair_from_seed(seed, public_key, out->secret_key);
    hw_manifest_default(public_key, &out->authority.manifest);
    json_hex_fixed(json_get(json_get(json, compat ? "compat" : "v1"), "key"), out->authority.key,
                   HW_HASH_SIZE);
}

/* Sign this tree as the vectors did: same signable, same signature, and it is accepted. */
static void check_signature(const struct signer *signer, const struct hw_roots *roots,
                            uint64_t fork, const struct json *signable_hex,
                            const struct json *signature_hex)
{
    const uint8_t *context = signer->authority.is_compat ? NULL : signer->authority.key;
    uint8_t tree_hash[HW_HASH_SIZE], signable[HW_SIGNABLE_SIZE], bare[HW_SIGNATURE_SIZE];
    uint8_t envelope[HW_ENVELOPE_SIZE];
    struct hw_slice signature = {envelope, sizeof(envelope)};
    size_t size;

    hw_roots_hash(roots, tree_hash);
    size = hw_signable(context, tree_hash, roots->length, fork, signable);
    assert_hex(signable_hex, signable, size);
    if (signature_hex == NULL || signature_hex->kind == JSON_NULL)
        return;
    hw_sign(signer->secret_key, (struct hw_slice){signable, size}, bare);
    hw_envelope_of_one(bare, envelope);
    if (signer->authority.is_compat)
        signature = (struct hw_slice){bare, sizeof(bare)};
    assert_hex(signature_hex, signature.bytes, signature.size);
    assert_int_equal(hw_authority_check(&signer->authority, roots, fork, signature, NULL), HW_OK);
    assert_int_equal(hw_authority_check(&signer->authority, roots, fork + 1, signature, NULL),
                     HW_EPROOF);
}

static void push_block(struct hw_roots *roots, const struct json *hex)
{
    size_t size;
    uint8_t *bytes = json_hex(hex, &size);
    struct hw_node leaf;

    hw_node_leaf(roots->length, (struct hw_slice){bytes, size}, &leaf);
    hw_roots_push(roots, &leaf, NULL, NULL);
    free(bytes);
}

static void check_length(const struct json *line, const struct hw_roots *roots,
                         const struct signer signers[2])
{
    uint8_t tree_hash[HW_HASH_SIZE];
    const struct json *root = json_get(line, "roots")->first;

    assert_int_equal(json_integer(line, "length"), roots->length);
    assert_int_equal(json_integer(line, "byteLength"), roots->byte_length);
    assert_int_equal(json_get(line, "roots")->count, roots->count);
    for (unsigned i = 0; i < roots->count; i++, root = root->next)
        assert_int_equal(root->integer, roots->nodes[i].index);
    hw_roots_hash(roots, tree_hash);
    assert_hex(json_get(line, "treeHash"), tree_hash, sizeof(tree_hash));
    for (int i = 0; i < 2; i++) {
        const struct json *kind = json_get(line, i == 0 ? "v1" : "compat");

        check_signature(&signers[i], roots, 0, json_get(kind, "signable"),
                        json_find(kind, "signature"));
    }
}

static void every_length_has_the_tree_and_signatures_of_the_vectors(void **state)
{
    struct json *json = json_load("tree.json");
    const struct json *block = json_get(json, "blocks")->first;
    struct signer signers[2];
    struct hw_roots roots = {0};
    unsigned seen = 0;

    (void)state;
    signer_load(json, false, &signers[0]);
    signer_load(json, true, &signers[1]);
    for (const struct json *line = json_get(json, "lengths")->first; line != NULL;
         line = line->next) {
        check_length(line, &roots, signers);
        seen++;
        if (block == NULL)
            break;
        push_block(&roots, json_get(block, "hex"));
        block = block->next;
    }
    assert_int_equal(seen, 34);
    json_free(json);
}

struct made {
    struct hw_node nodes[128];
};

static void remember(void *ctx, const struct hw_node *node)
{
    ((struct made *)ctx)->nodes[node->index] = *node;
}

static void every_node_is_that_of_the_vectors(void **state)
{
    struct json *json = json_load("tree.json");
    struct hw_roots roots = {0};
    struct made made = {0};
    unsigned seen = 0;

    (void)state;
    for (const struct json *at = json_get(json, "blocks")->first; at != NULL; at = at->next) {
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);
        struct hw_node leaf;

        hw_node_leaf(roots.length, (struct hw_slice){bytes, size}, &leaf);
        assert_hex(json_get(at, "leafHash"), leaf.hash, sizeof(leaf.hash));
        remember(&made, &leaf);
        hw_roots_push(&roots, &leaf, remember, &made);
        free(bytes);
    }
    for (const struct json *at = json_get(json, "nodes")->first; at != NULL; at = at->next) {
        const struct hw_node *node = &made.nodes[json_integer(at, "index")];

        assert_int_equal(json_integer(at, "size"), node->size);
        assert_hex(json_get(at, "hash"), node->hash, sizeof(node->hash));
        seen++;
    }
    assert_int_equal(seen, 64);
    json_free(json);
}

/* The roots after truncation: those of a log of the first `length` blocks. */
static void rebuild(struct hw_roots *roots, const struct json *blocks, uint64_t length)
{
    const struct json *block = blocks->first;

    *roots = (struct hw_roots){0};
    for (uint64_t i = 0; i < length; i++, block = block->next)
        push_block(roots, json_get(block, "hex"));
}

static void forks_are_signed_as_in_the_vectors(void **state)
{
    struct json *json = json_load("tree.json");
    const struct json *fork = json_get(json, "fork"), *blocks = json_get(json, "blocks");
    struct signer signer;
    struct hw_roots roots = {0};
    unsigned seen = 0;

    (void)state;
    signer_load(json, false, &signer);
    for (const struct json *step = json_get(fork, "steps")->first; step != NULL;
         step = step->next) {
        uint64_t length = json_integer(step, "length");
        uint8_t tree_hash[HW_HASH_SIZE];

        if (roots.length == 6 && length == 10) {
            for (const struct json *at = json_get(fork, "other_blocks")->first; at != NULL;
                 at = at->next)
                push_block(&roots, at);
        } else {
            rebuild(&roots, blocks, length);
        }
        assert_int_equal(roots.byte_length, json_integer(step, "byteLength"));
        hw_roots_hash(&roots, tree_hash);
        assert_hex(json_get(step, "treeHash"), tree_hash, sizeof(tree_hash));
        check_signature(&signer, &roots, json_integer(step, "fork"), json_get(step, "signable"),
                        json_find(step, "signature"));
        seen++;
    }
    assert_int_equal(seen, 5);
    json_free(json);
}

static void the_empty_tree_has_its_hash(void **state)
{
    struct json *json = json_load("constants.json");
    struct hw_roots roots = {0};
    uint8_t tree_hash[HW_HASH_SIZE];

    (void)state;
    hw_roots_hash(&roots, tree_hash);
    assert_hex(json_get(json, "emptyTreeHash"), tree_hash, sizeof(tree_hash));
    json_free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(namespaces_are_derived_from_their_names),
        cmocka_unit_test(keys_are_those_of_the_vectors),
        cmocka_unit_test(ids_are_written_and_read),
        cmocka_unit_test(the_default_manifest_is_that_of_the_vectors),
        cmocka_unit_test(every_length_has_the_tree_and_signatures_of_the_vectors),
        cmocka_unit_test(every_node_is_that_of_the_vectors),
        cmocka_unit_test(forks_are_signed_as_in_the_vectors),
        cmocka_unit_test(the_empty_tree_has_its_hash),
    };

    return cmocka_run_group_tests_name("hypercore/tree", tests, NULL, NULL);
}
