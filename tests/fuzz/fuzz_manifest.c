/* A manifest, and a signature under it: decoding, writing again, checking. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "hypercore/signature.h"

/* What was decoded is written as bytes that decode to the same. */
static void check_rewritten(const struct hw_manifest *manifest)
{
    struct hw_buffer encoded = {0}, again = {0};
    struct hw_manifest decoded;

    hw_manifest_encode(manifest, &encoded);
    if (hw_manifest_decode((struct hw_slice){encoded.bytes, encoded.size}, &decoded, NULL) != HW_OK)
        abort();
    hw_manifest_encode(&decoded, &again);
    if (again.size != encoded.size || memcmp(again.bytes, encoded.bytes, again.size) != 0)
        abort();
    hw_buffer_release(&encoded);
    hw_buffer_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_authority authority = {.is_compat = false};
    struct hw_roots roots = {0};
    struct hw_node leaf;
    size_t cut = size == 0 ? 0 : bytes[0] % size; /* manifest before it, signature behind it */

    if (hw_manifest_decode((struct hw_slice){bytes, size}, &authority.manifest, NULL) == HW_OK)
        check_rewritten(&authority.manifest);
    if (size < 2 ||
        hw_manifest_decode((struct hw_slice){bytes + 1, cut}, &authority.manifest, NULL) != HW_OK)
        return 0;
    hw_node_leaf(0, (struct hw_slice){bytes, 1}, &leaf);
    hw_roots_push(&roots, &leaf, NULL, NULL);
    if (hw_authority_check(&authority, &roots, 0,
                           (struct hw_slice){bytes + 1 + cut, size - 1 - cut}, NULL) == HW_OK &&
        !authority.manifest.has_prologue)
        abort(); /* nobody signs by chance; a prologue's hash can be found by watching memcmp */
    return 0;
}
