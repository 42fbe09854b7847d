/* Parts of a transaction on their way to the committer: hw_spool_*() of node/committer.h. */
#include <string.h>

#include "node/committer.h"

enum { SIZE_SIZE = 4 };

/* What is in memory goes to the file. */
static enum hw_status flush(struct hw_spool *spool, struct hw_env *env, const char *path,
                            struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (spool->file == NULL) {
        unsigned flags = HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_PRIVATE;

        (void)env->ops->remove(env, path, NULL); /* one that a crash left; or there is none */
        status = env->ops->open(env, path, flags, &spool->file, err);
        if (status != HW_OK)
            return status;
        (void)env->ops->remove(env, path, NULL); /* it ends with its descriptor */
    }
    status = env->ops->write_at(spool->file, spool->size - spool->bytes.size, spool->bytes.bytes,
                                spool->bytes.size, err);
    if (status == HW_OK)
        hw_buffer_clear(&spool->bytes);
    return status;
}

enum hw_status hw_spool_add(struct hw_spool *spool, struct hw_env *env, const char *path,
                            struct hw_slice part, struct hw_error *err)
{
    if (spool->size + part.size > HW_SPOOL_MAX)
        return hw_fail(err, HW_ELIMIT, "a transaction of more than %d MiB", HW_SPOOL_MAX >> 20);
    hw_buffer_add_le32(&spool->bytes, (uint32_t)part.size);
    hw_buffer_add(&spool->bytes, part.bytes, part.size);
    if (spool->bytes.failed)
        return hw_fail(err, HW_ENOMEM, "no memory for a transaction");
    spool->size += SIZE_SIZE + part.size;
    spool->count++;
    return spool->bytes.size > HW_SPOOL_MEMORY ? flush(spool, env, path, err) : HW_OK;
}

void hw_spool_release(struct hw_spool *spool)
{
    if (spool->file != NULL)
        spool->file->env->ops->close(spool->file);
    hw_buffer_release(&spool->bytes);
    *spool = (struct hw_spool){.file = NULL};
}

static enum hw_status read_at(const struct hw_spool *spool, uint64_t offset, void *out, size_t size,
                              struct hw_error *err)
{
    uint64_t in_file = spool->size - spool->bytes.size;

    if (offset >= in_file) { /* a part is in the file, or in memory: never in both */
        memcpy(out, spool->bytes.bytes + (offset - in_file), size);
        return HW_OK;
    }
    if (spool->file->env->ops->read_at(spool->file, offset, out, size, err) == HW_OK)
        return HW_OK;
    return hw_fail(err, HW_EIO, "the parts of a transaction cannot be read back");
}

enum hw_status hw_spool_read(const struct hw_spool *spool, uint64_t *offset, struct hw_buffer *room,
                             struct hw_slice *part, struct hw_error *err)
{
    uint8_t size_bytes[SIZE_SIZE], *bytes;
    uint32_t size;
    enum hw_status status;

    if (*offset == spool->size)
        return HW_END;
    status = read_at(spool, *offset, size_bytes, sizeof(size_bytes), err);
    if (status != HW_OK)
        return status;
    size = hw_get_le32(size_bytes);
    hw_buffer_clear(room);
    bytes = hw_buffer_extend(room, size);
    if (bytes == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a part of a transaction");
    status = read_at(spool, *offset + SIZE_SIZE, bytes, size, err);
    if (status != HW_OK)
        return status;
    *offset += SIZE_SIZE + size;
    *part = (struct hw_slice){bytes, size};
    return HW_OK;
}
