/* The small files of a mirror: what is decoded is written as the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "hypercore/mirror_file.h"

static void check_info(struct hw_slice bytes)
{
    struct hw_mirror_info info;
    struct hw_buffer encoded = {0};

    if (hw_mirror_info_decode(bytes, &info, NULL) != HW_OK)
        return;
    hw_mirror_info_encode(&info, &encoded);
    if (encoded.size != bytes.size || memcmp(encoded.bytes + 24, bytes.bytes + 24, 40) != 0)
        abort(); /* the flags may say what we do not know */
    hw_buffer_release(&encoded);
}

static void check_head(struct hw_slice bytes)
{
    struct hw_mirror_head head;
    struct hw_buffer encoded = {0};

    if (!hw_mirror_head_decode(bytes, &head))
        return;
    hw_mirror_head_encode(&head, &encoded);
    if (encoded.size > bytes.size || memcmp(encoded.bytes, bytes.bytes, encoded.size) != 0)
        abort();
    hw_buffer_release(&encoded);
}

static void check_node(struct hw_slice bytes)
{
    uint8_t encoded[HW_MIRROR_NODE_SIZE];
    struct hw_node node;
    bool is_proven;

    if (bytes.size < HW_MIRROR_NODE_SIZE ||
        !hw_mirror_node_decode(bytes.bytes, bytes.bytes[0], &node, &is_proven))
        return;
    hw_mirror_node_encode(&node, is_proven, encoded);
    if (memcmp(encoded, bytes.bytes, sizeof(encoded)) != 0)
        abort();
}

/* A changed byte fails the checksum; with it made right again, the fields are looked at. */
static void check_resealed(struct hw_slice bytes, void (*check)(struct hw_slice bytes))
{
    struct hw_slice part = {bytes.bytes, bytes.size - 8};
    uint8_t hash[HW_HASH_SIZE];
    uint8_t *copy;

    hw_hash(&part, 1, hash);
    copy = malloc(bytes.size);
    if (copy == NULL)
        return;
    memcpy(copy, bytes.bytes, part.size);
    memcpy(copy + part.size, hash, 8);
    check((struct hw_slice){copy, bytes.size});
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_slice all = {bytes, size};

    check_info(all);
    check_head(all);
    check_node(all);
    if (size > 8) {
        check_resealed(all, check_info);
        check_resealed(all, check_head);
    }
    return 0;
}
