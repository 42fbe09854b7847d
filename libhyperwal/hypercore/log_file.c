/* Implements hypercore/log_file.h. */
#include "hypercore/log_file.h"

#include <string.h>

#include "base/alloc.h"

enum { VERSION = 1, FIXED_SIZE = 88, CHECKSUM_SIZE = 8 };
enum { FILE_MAX = FIXED_SIZE + HW_LOG_MANIFEST_MAX + CHECKSUM_SIZE };

static const uint8_t magic[8] = {'h', 'w', 'l', 'o', 'g', 'f', '1', '\n'};

static void checksum(const uint8_t *bytes, size_t size, uint8_t out[CHECKSUM_SIZE])
{
    struct hw_slice part = {bytes, size};
    uint8_t hash[HW_HASH_SIZE];

    hw_hash(&part, 1, hash);
    memcpy(out, hash, CHECKSUM_SIZE);
}

static enum hw_status decode(const char *path, const uint8_t *bytes, size_t size,
                             struct hw_log_file *out, struct hw_error *err)
{
    uint8_t expected[CHECKSUM_SIZE];
    uint32_t manifest_size;

    if (size < FIXED_SIZE + CHECKSUM_SIZE || memcmp(bytes, magic, sizeof(magic)) != 0)
        return hw_fail(err, HW_ECORRUPT, "%s: not a log file: restore it from a copy", path);
    if (hw_get_le32(bytes + 8) != VERSION)
        return hw_fail(err, HW_EVERSION, "%s: format %u, this program knows %d: upgrade it", path,
                       (unsigned)hw_get_le32(bytes + 8), VERSION);
    manifest_size = hw_get_le32(bytes + 12);
    checksum(bytes, size - CHECKSUM_SIZE, expected);
    if (manifest_size != size - FIXED_SIZE - CHECKSUM_SIZE || manifest_size > HW_LOG_MANIFEST_MAX ||
        memcmp(expected, bytes + size - CHECKSUM_SIZE, CHECKSUM_SIZE) != 0)
        return hw_fail(err, HW_ECORRUPT, "%s: bad checksum: restore it from a copy", path);
    memcpy(out->machine_id, bytes + 16, sizeof(out->machine_id));
    out->device = hw_get_le64(bytes + 32);
    out->inode = hw_get_le64(bytes + 40);
    out->first_kept = hw_get_le64(bytes + 48);
    memcpy(out->key, bytes + 56, HW_HASH_SIZE);
    memcpy(out->manifest, bytes + FIXED_SIZE, manifest_size);
    out->manifest_size = manifest_size;
    return HW_OK;
}

enum hw_status hw_log_file_read(struct hw_env *env, const char *dir, struct hw_log_file *out,
                                struct hw_error *err)
{
    uint8_t bytes[FILE_MAX], key[HW_HASH_SIZE];
    char *path = hw_format("%s/log", dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open the log", dir);
    status = hw_env_read_file(env, path, bytes, sizeof(bytes), &size, err);
    if (status == HW_ELIMIT)
        status = hw_fail(err, HW_ECORRUPT, "%s: too large for a log file", path);
    if (status == HW_OK)
        status = decode(path, bytes, size, out, err);
    if (status != HW_OK)
        goto done;
    hw_manifest_key((struct hw_slice){out->manifest, out->manifest_size}, key);
    if (memcmp(key, out->key, sizeof(key)) != 0)
        status = hw_fail(err, HW_ECORRUPT, "%s: the manifest is not that of the key", path);
done:
    hw_free(path);
    return status;
}

enum hw_status hw_log_file_write(struct hw_env *env, const char *dir, const struct hw_log_file *log,
                                 struct hw_error *err)
{
    uint8_t bytes[FILE_MAX] = {0};
    size_t size = FIXED_SIZE + log->manifest_size;
    char *path = hw_format("%s/log", dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to write the log file", dir);
    memcpy(bytes, magic, sizeof(magic));
    hw_put_le32(bytes + 8, VERSION);
    hw_put_le32(bytes + 12, (uint32_t)log->manifest_size);
    memcpy(bytes + 16, log->machine_id, sizeof(log->machine_id));
    hw_put_le64(bytes + 32, log->device);
    hw_put_le64(bytes + 40, log->inode);
    hw_put_le64(bytes + 48, log->first_kept);
    memcpy(bytes + 56, log->key, HW_HASH_SIZE);
    memcpy(bytes + FIXED_SIZE, log->manifest, log->manifest_size);
    checksum(bytes, size, bytes + size);
    status = hw_env_replace_file(env, path, bytes, size + CHECKSUM_SIZE, 0, err);
    hw_free(path);
    return status;
}

/* -------------------------------------------------------------------------------- the key */

enum hw_status hw_key_file_read(struct hw_env *env, const char *dir, uint8_t seed[HW_SEED_SIZE],
                                struct hw_error *err)
{
    char *path = hw_format("%s/key", dir);
    struct hw_file_stat stat;
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to read the key", dir);
    status = env->ops->stat(env, path, &stat, err);
    if (status == HW_ENOTFOUND) {
        status = hw_fail(err, HW_EREADONLY,
                         "%s: no such file: a log without its key is a mirror, "
                         "which only follows",
                         path);
        goto done;
    }
    if (status != HW_OK)
        goto done;
    if ((stat.mode & 077) != 0) {
        status = hw_fail(err, HW_EREADONLY,
                         "%s: others may read the secret key (mode %03o): chmod 600 it", path,
                         (unsigned)stat.mode);
        goto done;
    }
    status = hw_env_read_file(env, path, seed, HW_SEED_SIZE, &size, err);
    if (status == HW_ELIMIT || (status == HW_OK && size != HW_SEED_SIZE))
        status = hw_fail(err, HW_EREADONLY, "%s: not a key of %d bytes: restore it from a copy",
                         path, HW_SEED_SIZE);
done:
    hw_free(path);
    return status;
}

enum hw_status hw_key_file_write(struct hw_env *env, const char *dir,
                                 const uint8_t seed[HW_SEED_SIZE], struct hw_error *err)
{
    char *path = hw_format("%s/key", dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to write the key", dir);
    status = hw_env_replace_file(env, path, seed, HW_SEED_SIZE, HW_OPEN_PRIVATE, err);
    hw_free(path);
    return status;
}

enum hw_status hw_log_file_locate(struct hw_env *env, const char *dir, struct hw_log_file *log,
                                  struct hw_error *err)
{
    char *path = hw_format("%s/key", dir);
    struct hw_file_stat stat;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to look at the key", dir);
    status = env->ops->stat(env, path, &stat, err);
    hw_free(path);
    if (status != HW_OK)
        return status;
    log->device = stat.device;
    log->inode = stat.inode;
    return env->ops->machine_id(env, log->machine_id, err);
}
