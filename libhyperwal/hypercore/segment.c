/* Implements the files of hypercore/segment.h; record.c and scan.c have the rest. */
#include "hypercore/segment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { VERSION = 1, CHECKSUM_AT = 96 };

static const uint8_t magic[8] = {'h', 'w', 's', 'e', 'g', 'm', '1', '\n'};

static void header_checksum(const uint8_t *bytes, uint8_t out[8])
{
    struct hw_slice part = {bytes, CHECKSUM_AT};
    uint8_t hash[HW_HASH_SIZE];

    hw_hash(&part, 1, hash);
    memcpy(out, hash, 8);
}

void hw_segment_header_encode(const struct hw_segment_header *header,
                              uint8_t out[HW_SEGMENT_HEADER_SIZE])
{
    memcpy(out, magic, sizeof(magic));
    hw_put_le32(out + 8, VERSION);
    hw_put_le32(out + 12, header->identity);
    hw_put_le64(out + 16, header->first);
    hw_put_le64(out + 24, header->start);
    hw_put_le64(out + 32, header->fork);
    memcpy(out + 40, header->tree_hash, HW_HASH_SIZE);
    memcpy(out + 72, header->discovery_key, sizeof(header->discovery_key));
    memcpy(out + 80, header->salt, sizeof(header->salt));
    header_checksum(out, out + CHECKSUM_AT);
}

enum hw_status hw_segment_header_decode(const uint8_t bytes[HW_SEGMENT_HEADER_SIZE],
                                        struct hw_segment_header *out, struct hw_error *err)
{
    uint8_t checksum[8];

    header_checksum(bytes, checksum);
    if (memcmp(bytes, magic, sizeof(magic)) != 0 || memcmp(checksum, bytes + CHECKSUM_AT, 8) != 0)
        return HW_END;
    if (hw_get_le32(bytes + 8) != VERSION)
        return hw_fail(err, HW_EVERSION, "segment of format %u, this program knows %d: upgrade it",
                       (unsigned)hw_get_le32(bytes + 8), VERSION);
    out->identity = hw_get_le32(bytes + 12);
    out->first = hw_get_le64(bytes + 16);
    out->start = hw_get_le64(bytes + 24);
    out->fork = hw_get_le64(bytes + 32);
    memcpy(out->tree_hash, bytes + 40, HW_HASH_SIZE);
    memcpy(out->discovery_key, bytes + 72, sizeof(out->discovery_key));
    memcpy(out->salt, bytes + 80, sizeof(out->salt));
    memcpy(out->checksum, checksum, sizeof(out->checksum));
    return HW_OK;
}

char *hw_segment_path(const char *dir, uint32_t identity)
{
    uint32_t generation = hw_segment_generation(identity);

    if (generation == 0)
        return hw_format("%s/%08u.seg", dir, (unsigned)hw_segment_number(identity));
    return hw_format("%s/%08u.%u.seg", dir, (unsigned)hw_segment_number(identity),
                     (unsigned)generation);
}

/* ----------------------------------------------------------------------------------- list */

struct listing {
    struct hw_buffer found; /* uint32_t each */
};

/* Digits of `text` as a number; where they end. */
static const char *parse_number(const char *text, uint32_t *out)
{
    uint32_t value = 0;

    while (*text >= '0' && *text <= '9' && value <= HW_SEGMENT_NUMBER_MAX)
        value = value * 10 + (uint32_t)(*text++ - '0');
    *out = value;
    return text;
}

static bool list_name(void *ctx, const char *name)
{
    struct listing *listing = ctx;
    uint32_t number, generation = 0, identity;
    const char *rest = parse_number(name, &number);

    if (rest != name + 8 || number == 0)
        return true;
    if (rest[0] == '.' && rest[1] >= '1' && rest[1] <= '9') {
        rest = parse_number(rest + 1, &generation);
        if (generation > HW_SEGMENT_GENERATION_MAX)
            return true;
    }
    if (strcmp(rest, ".seg") != 0)
        return true;
    identity = hw_segment_identity(number, generation);
    hw_buffer_add(&listing->found, &identity, sizeof(identity));
    return true;
}

static int compare_identities(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    uint32_t x = hw_segment_number(a), y = hw_segment_number(b);

    if (x != y)
        return x < y ? -1 : 1;
    return a < b ? -1 : a > b;
}

enum hw_status hw_segment_list(struct hw_env *env, const char *dir, struct hw_segment_list *out,
                               struct hw_error *err)
{
    struct listing listing = {0};
    enum hw_status status = env->ops->list(env, dir, list_name, &listing, err);

    if (status == HW_OK && listing.found.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to list the segments", dir);
    if (status != HW_OK) {
        hw_buffer_release(&listing.found);
        return status;
    }
    out->count = listing.found.size / sizeof(uint32_t);
    out->identities = (uint32_t *)(void *)listing.found.bytes; /* moved; malloc'ed, so aligned */
    if (out->count > 0)
        qsort(out->identities, out->count, sizeof(uint32_t), compare_identities);
    return HW_OK;
}

void hw_segment_list_release(struct hw_segment_list *list)
{
    hw_free(list->identities);
    *list = (struct hw_segment_list){0};
}

/* -------------------------------------------------------------------------- create, open */

enum hw_status
hw_segment_create(struct hw_env *env, const char *dir, const struct hw_segment_header *header,
                  enum hw_status (*fill)(void *ctx, struct hw_file *file, struct hw_error *err),
                  void *ctx, struct hw_file **out, struct hw_error *err)
{
    uint8_t bytes[HW_SEGMENT_HEADER_SIZE];
    char *path = hw_segment_path(dir, header->identity);
    char *aside = path == NULL ? NULL : hw_format("%s.tmp", path);
    struct hw_file *file = NULL;
    enum hw_status status;

    if (aside == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for a segment", dir);
        goto done;
    }
    status = env->ops->open(env, aside, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file, err);
    if (status != HW_OK)
        goto done;
    hw_segment_header_encode(header, bytes);
    status = env->ops->truncate(file, 0, err); /* a crash may have left one */
    if (status == HW_OK)
        status = env->ops->write_at(file, 0, bytes, sizeof(bytes), err);
    if (status == HW_OK && fill != NULL)
        status = fill(ctx, file, err);
    if (status == HW_OK)
        status = env->ops->sync(file, err);
    if (status == HW_OK)
        status = env->ops->rename(env, aside, path, err);
    if (status != HW_OK) {
        (void)env->ops->remove(env, aside, NULL); /* else the next open does */
        goto done;
    }
    status = env->ops->sync_dir(env, dir, err);
    if (status != HW_OK)
        goto done;
    *out = file;
    file = NULL;
done:
    env->ops->close(file);
    hw_free(aside);
    hw_free(path);
    return status;
}

enum hw_status hw_segment_open(struct hw_env *env, const char *dir, uint32_t identity,
                               bool writable, const uint8_t *discovery_key,
                               struct hw_segment_header *header, struct hw_file **out,
                               struct hw_error *err)
{
    uint8_t bytes[HW_SEGMENT_HEADER_SIZE];
    char *path = hw_segment_path(dir, identity);
    struct hw_file *file = NULL;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open a segment", dir);
    status = env->ops->open(env, path, HW_OPEN_READ | (writable ? HW_OPEN_WRITE : 0U), &file, err);
    if (status != HW_OK)
        goto done;
    status = env->ops->read_at(file, 0, bytes, sizeof(bytes), err);
    if (status < 0)
        goto done;
    status = hw_segment_header_decode(bytes, header, err);
    if (status < 0) {
        status = hw_prefix(err, status, "%s", path);
        goto done;
    }
    if (status == HW_END || header->identity != identity ||
        (discovery_key != NULL &&
         memcmp(header->discovery_key, discovery_key, sizeof(header->discovery_key)) != 0)) {
        status =
            hw_fail(err, HW_ECORRUPT,
                    "%s: header is damaged or of another log: restore the file from a copy", path);
        goto done;
    }
    *out = file;
    file = NULL;
done:
    env->ops->close(file);
    hw_free(path);
    return status;
}
