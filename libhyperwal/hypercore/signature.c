/* Implements hypercore/signature.h. */
#include "hypercore/signature.h"

#include <string.h>

enum { NODE_SIZE_MIN = 2 + HW_HASH_SIZE };

size_t hw_signable(const uint8_t *context, const uint8_t tree_hash[HW_HASH_SIZE], uint64_t length,
                   uint64_t fork, uint8_t out[HW_SIGNABLE_SIZE])
{
    uint8_t *next = out;

    memcpy(next, hw_namespace_tree, HW_HASH_SIZE);
    next += HW_HASH_SIZE;
    if (context != NULL) {
        memcpy(next, context, HW_HASH_SIZE);
        next += HW_HASH_SIZE;
    }
    memcpy(next, tree_hash, HW_HASH_SIZE);
    hw_put_le64(next + HW_HASH_SIZE, length);
    hw_put_le64(next + HW_HASH_SIZE + 8, fork);
    return (size_t)(next - out) + HW_HASH_SIZE + 16;
}

void hw_envelope_of_one(const uint8_t signature[HW_SIGNATURE_SIZE], uint8_t out[HW_ENVELOPE_SIZE])
{
    out[0] = 1; /* proofs */
    out[1] = 0; /* signer */
    memcpy(out + 2, signature, HW_SIGNATURE_SIZE);
    out[2 + HW_SIGNATURE_SIZE] = 0; /* patch */
    out[3 + HW_SIGNATURE_SIZE] = 0; /* nodes */
}

/* Does `signer` (NULL: the key itself, compat) sign the tree with these roots? */
static bool signs(const struct hw_authority *authority, const struct hw_signer *signer,
                  const struct hw_roots *roots, uint64_t fork, const uint8_t *signature)
{
    uint8_t tree_hash[HW_HASH_SIZE], signable[HW_SIGNABLE_SIZE];
    const uint8_t *context = NULL;
    const uint8_t *public_key = authority->key;
    struct hw_slice message = {signable, 0};

    if (signer != NULL) {
        context = authority->manifest.version == 0 ? signer->name_space : authority->key;
        public_key = signer->public_key;
    }
    hw_roots_hash(roots, tree_hash);
    message.size = hw_signable(context, tree_hash, roots->length, fork, signable);
    return hw_signature_fits(public_key, message, signature);
}

/* ------------------------------------------------------------------------------- envelope */

struct vote { /* one proof of an envelope */
    uint64_t signer;
    const uint8_t *signature; /* borrowed */
    uint64_t patch;           /* blocks that the signed tree is longer */
};

static struct vote vote_decode(struct hw_cursor *cursor, unsigned version)
{
    uint64_t flags = version == 0 ? hw_cursor_uint(cursor) : 0;
    struct vote vote = {.signer = hw_cursor_uint(cursor)};

    vote.signature = hw_cursor_bytes(cursor, HW_SIGNATURE_SIZE);
    if (version > 0) {
        vote.patch = hw_cursor_uint(cursor);
        return vote;
    }
    if ((flags & 1) == 0)
        return vote;
    (void)hw_cursor_uint(cursor); /* start: that of the tree at hand */
    vote.patch = hw_cursor_uint(cursor);
    for (uint64_t nodes = hw_cursor_uint(cursor); nodes > 0 && !cursor->failed; nodes--)
        (void)hw_cursor_uint(cursor); /* places in the patch array, which is searched by index */
    return vote;
}

static bool node_decode(struct hw_cursor *cursor, struct hw_node *out)
{
    const uint8_t *hash;

    out->index = hw_cursor_uint(cursor);
    out->size = hw_cursor_uint(cursor);
    hash = hw_cursor_bytes(cursor, HW_HASH_SIZE);
    if (hash == NULL)
        return false;
    memcpy(out->hash, hash, HW_HASH_SIZE);
    return true;
}

/* Find a node of the envelope by index; ctx is a cursor at the first one. */
static bool patch_take(void *ctx, uint64_t index, struct hw_node *out)
{
    struct hw_cursor cursor = *(const struct hw_cursor *)ctx;

    while (node_decode(&cursor, out)) {
        if (out->index == index)
            return true;
    }
    return false;
}

static bool vote_counts(const struct hw_authority *authority, const struct hw_roots *roots,
                        uint64_t fork, const struct vote *vote, struct hw_cursor *nodes)
{
    const struct hw_signer *signer = &authority->manifest.signers[vote->signer];
    struct hw_roots longer;

    if (vote->patch == 0 || !authority->manifest.allow_patch)
        return signs(authority, signer, roots, fork, vote->signature);
    if (vote->patch > HW_TREE_LENGTH_MAX - roots->length)
        return false;
    longer = *roots;
    return hw_roots_upgrade(&longer, roots->length + vote->patch, patch_take, NULL, nodes) ==
               HW_OK &&
           signs(authority, signer, &longer, fork, vote->signature);
}

/* Step over the proofs, so that *cursor stands at the nodes; false: malformed. */
static bool votes_skip(struct hw_cursor *cursor, uint64_t count, unsigned version)
{
    uint64_t nodes;

    for (uint64_t i = 0; i < count && !cursor->failed; i++)
        (void)vote_decode(cursor, version);
    nodes = hw_cursor_uint(cursor);
    return !cursor->failed && nodes <= hw_cursor_left(cursor) / NODE_SIZE_MIN;
}

static bool envelope_check(const struct hw_authority *authority, const struct hw_roots *roots,
                           uint64_t fork, struct hw_slice signature)
{
    const struct hw_manifest *manifest = &authority->manifest;
    struct hw_cursor cursor = hw_cursor(signature.bytes, signature.size), nodes;
    uint64_t count = hw_cursor_uint(&cursor);
    bool seen[HW_SIGNERS_MAX] = {false};

    if (manifest->quorum == 0 || count < manifest->quorum ||
        manifest->quorum > manifest->signer_count)
        return false;
    nodes = cursor;
    if (!votes_skip(&nodes, count, manifest->version))
        return false;
    for (uint64_t i = 0; i < manifest->quorum; i++) {
        struct vote vote = vote_decode(&cursor, manifest->version);

        if (cursor.failed || vote.signer >= manifest->signer_count || seen[vote.signer])
            return false;
        seen[vote.signer] = true;
        if (!vote_counts(authority, roots, fork, &vote, &nodes))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------------------------- check */

static bool prologue_fits(const struct hw_manifest *manifest, const struct hw_roots *roots)
{
    uint8_t tree_hash[HW_HASH_SIZE];

    hw_roots_hash(roots, tree_hash);
    return roots->length == manifest->prologue_length &&
           memcmp(tree_hash, manifest->prologue_hash, HW_HASH_SIZE) == 0;
}

enum hw_status hw_authority_check(const struct hw_authority *authority,
                                  const struct hw_roots *roots, uint64_t fork,
                                  struct hw_slice signature, struct hw_error *err)
{
    const struct hw_manifest *manifest = &authority->manifest;
    bool is_bare = authority->is_compat || (manifest->version == 0 && manifest->signer_count == 1 &&
                                            !manifest->allow_patch);
    bool fits;

    if (!authority->is_compat && manifest->has_prologue &&
        roots->length <= manifest->prologue_length)
        fits = prologue_fits(manifest, roots);
    else if (is_bare)
        fits = signature.size == HW_SIGNATURE_SIZE &&
               signs(authority, authority->is_compat ? NULL : &manifest->signers[0], roots, fork,
                     signature.bytes);
    else
        fits = envelope_check(authority, roots, fork, signature);
    if (!fits)
        return hw_fail(err, HW_EPROOF, "length %llu, fork %llu: not signed by the log's signers",
                       (unsigned long long)roots->length, (unsigned long long)fork);
    return HW_OK;
}
