/* Implements hypercore/manifest.h. */
#include "hypercore/manifest.h"

#include <string.h>

enum { FLAG_PATCH = 1, FLAG_PROLOGUE = 2, FLAG_LINKED = 4, FLAG_USER_DATA = 8, VERSION_MAX = 3 };
enum { V0_STATIC = 0, V0_ONE = 1, V0_MANY = 2 }; /* the shapes of version 0 */

void hw_manifest_default(const uint8_t public_key[HW_PUBLIC_KEY_SIZE], struct hw_manifest *out)
{
    *out = (struct hw_manifest){.version = 1, .quorum = 1, .signer_count = 1};
    memcpy(out->signers[0].name_space, hw_namespace_default, HW_HASH_SIZE);
    memcpy(out->signers[0].public_key, public_key, HW_PUBLIC_KEY_SIZE);
}

/* ------------------------------------------------------------------------------- encoding */

static void encode_signers(const struct hw_manifest *manifest, struct hw_buffer *out)
{
    for (unsigned i = 0; i < manifest->signer_count; i++) {
        hw_buffer_add_uint(out, 0); /* Ed25519 */
        hw_buffer_add(out, manifest->signers[i].name_space, HW_HASH_SIZE);
        hw_buffer_add(out, manifest->signers[i].public_key, HW_PUBLIC_KEY_SIZE);
    }
}

static void encode_version_0(const struct hw_manifest *manifest, struct hw_buffer *out)
{
    bool is_one = manifest->signer_count == 1 && manifest->quorum == 1 && !manifest->allow_patch;

    hw_buffer_add_uint(out, 0); /* BLAKE2b */
    if (manifest->signer_count == 0) {
        hw_buffer_add_uint(out, V0_STATIC);
        hw_buffer_add(out, manifest->prologue_hash, HW_HASH_SIZE);
        return;
    }
    hw_buffer_add_uint(out, is_one ? V0_ONE : V0_MANY);
    if (!is_one) {
        hw_buffer_add_uint(out, manifest->allow_patch ? 1 : 0);
        hw_buffer_add_uint(out, manifest->quorum);
        hw_buffer_add_uint(out, manifest->signer_count);
    }
    encode_signers(manifest, out);
}

void hw_manifest_encode(const struct hw_manifest *manifest, struct hw_buffer *out)
{
    unsigned flags =
        (manifest->allow_patch ? FLAG_PATCH : 0U) | (manifest->has_prologue ? FLAG_PROLOGUE : 0U) |
        (manifest->has_linked ? FLAG_LINKED : 0U) | (manifest->has_user_data ? FLAG_USER_DATA : 0U);

    hw_buffer_add_uint(out, manifest->version);
    if (manifest->version == 0) {
        encode_version_0(manifest, out);
        return;
    }
    hw_buffer_add_uint(out, flags);
    hw_buffer_add_uint(out, 0); /* BLAKE2b */
    hw_buffer_add_uint(out, manifest->quorum);
    hw_buffer_add_uint(out, manifest->signer_count);
    encode_signers(manifest, out);
    if (manifest->has_prologue) {
        hw_buffer_add(out, manifest->prologue_hash, HW_HASH_SIZE);
        hw_buffer_add_uint(out, manifest->prologue_length);
    }
    if (manifest->has_linked) {
        hw_buffer_add_uint(out, manifest->linked.size / HW_HASH_SIZE);
        hw_buffer_add(out, manifest->linked.bytes, manifest->linked.size);
    }
    if (manifest->has_user_data) {
        hw_buffer_add_uint(out, manifest->user_data.size);
        hw_buffer_add(out, manifest->user_data.bytes, manifest->user_data.size);
    }
}

/* ------------------------------------------------------------------------------- decoding */

static void copy_fixed(struct hw_cursor *cursor, uint8_t out[HW_HASH_SIZE])
{
    const uint8_t *bytes = hw_cursor_bytes(cursor, HW_HASH_SIZE);

    if (bytes != NULL)
        memcpy(out, bytes, HW_HASH_SIZE);
}

static struct hw_slice take_slice(struct hw_cursor *cursor, uint64_t count, size_t each)
{
    struct hw_slice slice = {NULL, 0};

    if (count > hw_cursor_left(cursor) / each) {
        cursor->failed = true;
        return slice;
    }
    slice.size = (size_t)count * each;
    slice.bytes = hw_cursor_bytes(cursor, slice.size);
    return slice;
}

static enum hw_status decode_signers(struct hw_cursor *cursor, uint64_t count,
                                     struct hw_manifest *out, struct hw_error *err)
{
    if (count > HW_SIGNERS_MAX)
        return hw_fail(err, HW_ELIMIT, "manifest: %llu signers, at most %d are understood",
                       (unsigned long long)count, HW_SIGNERS_MAX);
    for (unsigned i = 0; i < count && !cursor->failed; i++) {
        if (hw_cursor_uint(cursor) != 0)
            return hw_fail(err, HW_EVERSION, "manifest: signer %u is not of type Ed25519", i);
        copy_fixed(cursor, out->signers[i].name_space);
        copy_fixed(cursor, out->signers[i].public_key);
    }
    out->signer_count = (unsigned)count;
    return HW_OK;
}

static enum hw_status decode_version_0(struct hw_cursor *cursor, struct hw_manifest *out,
                                       struct hw_error *err)
{
    uint64_t hash = hw_cursor_uint(cursor), type = hw_cursor_uint(cursor);

    if (hash != 0 || type > V0_MANY)
        return hw_fail(err, HW_EVERSION, "manifest: version 0 of unknown hash or type");
    if (type == V0_STATIC) {
        out->has_prologue = true;
        copy_fixed(cursor, out->prologue_hash);
        return HW_OK;
    }
    out->quorum = 1;
    if (type == V0_ONE)
        return decode_signers(cursor, 1, out, err);
    out->allow_patch = (hw_cursor_uint(cursor) & 1) != 0;
    out->quorum = hw_cursor_uint(cursor);
    return decode_signers(cursor, hw_cursor_uint(cursor), out, err);
}

static enum hw_status decode_version_1(struct hw_cursor *cursor, struct hw_manifest *out,
                                       struct hw_error *err)
{
    uint64_t flags = hw_cursor_uint(cursor), hash = hw_cursor_uint(cursor);
    enum hw_status status;

    if (hash != 0)
        return hw_fail(err, HW_EVERSION, "manifest: hash function %llu is not BLAKE2b",
                       (unsigned long long)hash);
    out->allow_patch = (flags & FLAG_PATCH) != 0;
    out->has_prologue = (flags & FLAG_PROLOGUE) != 0;
    out->has_linked = (flags & FLAG_LINKED) != 0 && out->version >= 2;
    out->has_user_data = (flags & FLAG_USER_DATA) != 0 && out->version >= 2;
    out->quorum = hw_cursor_uint(cursor);
    status = decode_signers(cursor, hw_cursor_uint(cursor), out, err);
    if (status != HW_OK)
        return status;
    if (out->has_prologue) {
        copy_fixed(cursor, out->prologue_hash);
        out->prologue_length = hw_cursor_uint(cursor);
    }
    if (out->has_linked)
        out->linked = take_slice(cursor, hw_cursor_uint(cursor), HW_HASH_SIZE);
    if (out->has_user_data)
        out->user_data = take_slice(cursor, hw_cursor_uint(cursor), 1);
    return HW_OK;
}

enum hw_status hw_manifest_decode(struct hw_slice bytes, struct hw_manifest *out,
                                  struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_manifest manifest = {0};
    uint64_t version = hw_cursor_uint(&cursor);
    enum hw_status status;

    if (version > VERSION_MAX)
        return hw_fail(err, HW_EVERSION, "manifest: version %llu, this program knows up to %d",
                       (unsigned long long)version, VERSION_MAX);
    manifest.version = (unsigned)version;
    status = version == 0 ? decode_version_0(&cursor, &manifest, err)
                          : decode_version_1(&cursor, &manifest, err);
    if (status != HW_OK)
        return status;
    if (cursor.failed || hw_cursor_left(&cursor) > 0)
        return hw_fail(err, HW_EPROTOCOL, "manifest: %zu bytes that do not make one", bytes.size);
    *out = manifest;
    return HW_OK;
}

void hw_manifest_key(struct hw_slice encoded, uint8_t out[HW_HASH_SIZE])
{
    struct hw_slice parts[2] = {{hw_namespace_manifest, HW_HASH_SIZE}, encoded};

    hw_hash(parts, 2, out);
}
