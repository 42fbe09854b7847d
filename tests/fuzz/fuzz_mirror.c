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

static void check_items(struct hw_slice bytes)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_buffer encoded = {0}, scratch = {0};
    struct hw_mirror_item item = {.block = 0};

    while (hw_mirror_item_decode(&cursor, &item, NULL) == HW_OK)
        hw_mirror_item_encode(&item, &scratch, &encoded);
    if (encoded.size > 0 && memcmp(encoded.bytes, bytes.bytes, encoded.size) != 0)
        abort();
    hw_buffer_release(&encoded);
    hw_buffer_release(&scratch);
}

static void check_tail(struct hw_slice bytes)
{
    uint8_t header[HW_MIRROR_TAIL_HEADER_SIZE];
    uint64_t fork;

    if (bytes.size < sizeof(header) + 4 || !hw_mirror_tail_decode(bytes.bytes, &fork))
        return;
    hw_mirror_tail_begin(fork, bytes.bytes + 8, header);
    if (memcmp(header, bytes.bytes, sizeof(header)) != 0)
        abort();
    check_items(
        (struct hw_slice){bytes.bytes + sizeof(header) + 4, bytes.size - sizeof(header) - 4});
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
    check_items(all);
    check_tail(all);
    if (size > 8) {
        check_resealed(all, check_info);
        check_resealed(all, check_head);
    }
    return 0;
}
