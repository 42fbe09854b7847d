/* Implements hypercore/overtaken.h. */
#include "hypercore/overtaken.h"

#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum { VERSION = 1, SUM_AT = 64, FILE_SIZE = 72, SUM_SIZE = 8 };

static const uint8_t magic[8] = {'h', 'w', 'o', 'v', 'e', 'r', '1', '\n'};

/* ---------------------------------------------------------------------------------- the proof */

static enum hw_status no_node(void *ctx, uint64_t index, struct hw_node *out, struct hw_error *err)
{
    (void)ctx;
    (void)index;
    (void)out;
    return hw_fail(err, HW_ENOTFOUND, "proof: no node is taken as known");
}

enum hw_status hw_overtaken_check(struct hw_core *core, const struct hw_proof *proof,
                                  uint64_t *length, struct hw_error *err)
{
    struct hw_authority authority = {.is_compat = false};
    struct hw_proof_reader reader = {
        .fork = proof->fork, .source = {no_node, NULL}, .authority = &authority};
    struct hw_proof_outcome outcome = {.is_upgrade = false};
    enum hw_status status;

    if (!proof->has_upgrade || proof->upgrade_start != 0 || proof->upgrade_length == 0 ||
        proof->has_block || proof->has_hash || proof->has_seek)
        return hw_fail(err, HW_EPROTOCOL, "proof: not an upgrade from 0 alone");
    if (core->mirror != NULL) { /* NULL: they come along, or it is false */
        reader.authority = core->mirror->has_authority ? &core->mirror->authority : NULL;
    } else {
        status = hw_manifest_decode((struct hw_slice){core->log.manifest, core->log.manifest_size},
                                    &authority.manifest, err);
        if (status != HW_OK)
            return status;
        memcpy(authority.key, core->identity.key, HW_HASH_SIZE);
    }
    memcpy(reader.key, core->identity.key, HW_HASH_SIZE);
    status = hw_proof_check(&reader, proof, &outcome, err);
    if (status == HW_OK)
        *length = outcome.roots.length;
    hw_proof_outcome_release(&outcome);
    return status;
}

/* ----------------------------------------------------------------------------------- the file */

static void checksum(const uint8_t bytes[FILE_SIZE], uint8_t out[SUM_SIZE])
{
    struct hw_slice part = {bytes, SUM_AT};
    uint8_t hash[HW_HASH_SIZE];

    hw_hash(&part, 1, hash);
    memcpy(out, hash, SUM_SIZE);
}

static enum hw_status decode(const char *path, const uint8_t *bytes, size_t size,
                             struct hw_overtaken *out, struct hw_error *err)
{
    uint8_t expected[SUM_SIZE];

    if (size == FILE_SIZE)
        checksum(bytes, expected);
    if (size != FILE_SIZE || memcmp(bytes, magic, sizeof(magic)) != 0 ||
        memcmp(bytes + SUM_AT, expected, SUM_SIZE) != 0)
        return hw_fail(err, HW_ECORRUPT,
                       "%s: damaged: a peer has more of this log than there is here, and what it "
                       "has cannot be told any more; restore the file, or remove it, which lets "
                       "that peer prove it again",
                       path);
    if (hw_get_le32(bytes + 8) != VERSION)
        return hw_fail(err, HW_EVERSION, "%s: format %u, this program knows %d: upgrade it", path,
                       (unsigned)hw_get_le32(bytes + 8), VERSION);
    out->fork = hw_get_le64(bytes + 16);
    out->length = hw_get_le64(bytes + 24);
    memcpy(out->peer, bytes + 32, sizeof(out->peer));
    return HW_OK;
}

static enum hw_status no_memory(const char *dir, struct hw_error *err)
{
    return hw_fail(err, HW_ENOMEM, "%s: no memory to look who has more of it", dir);
}

enum hw_status hw_overtaken_read(struct hw_env *env, const char *dir, struct hw_overtaken *out,
                                 struct hw_error *err)
{
    uint8_t bytes[FILE_SIZE];
    char *path = hw_format("%s/overtaken", dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return no_memory(dir, err);
    status = hw_env_read_file(env, path, bytes, sizeof(bytes), &size, err);
    if (status == HW_ELIMIT || status == HW_OK)
        status = decode(path, bytes, status == HW_OK ? size : 0, out, err);
    hw_free(path);
    return status;
}

enum hw_status hw_overtaken_write(struct hw_env *env, const char *dir,
                                  const struct hw_overtaken *overtaken, struct hw_error *err)
{
    struct hw_core_head shown = {.fork = overtaken->fork, .length = overtaken->length};
    struct hw_overtaken there;
    uint8_t bytes[FILE_SIZE] = {0};
    char *path;
    enum hw_status status = hw_overtaken_read(env, dir, &there, err);

    /* A damaged one says nothing, and is written anew; another may be the higher one. */
    if (status != HW_OK && status != HW_ENOTFOUND && status != HW_ECORRUPT)
        return status;
    if (status == HW_OK && (hw_overtaken_is_above(there.fork, there.length, &shown) ||
                            (there.fork == shown.fork && there.length == shown.length)))
        return HW_OK;
    path = hw_format("%s/overtaken", dir);
    if (path == NULL)
        return no_memory(dir, err);
    memcpy(bytes, magic, sizeof(magic));
    hw_put_le32(bytes + 8, VERSION);
    hw_put_le64(bytes + 16, overtaken->fork);
    hw_put_le64(bytes + 24, overtaken->length);
    memcpy(bytes + 32, overtaken->peer, sizeof(overtaken->peer));
    checksum(bytes, bytes + SUM_AT);
    status = hw_env_replace_file(env, path, bytes, sizeof(bytes), 0, err);
    hw_free(path);
    return status;
}

enum hw_status hw_overtaken_remove(struct hw_env *env, const char *dir, struct hw_error *err)
{
    char *path = hw_format("%s/overtaken", dir);
    enum hw_status status;

    if (path == NULL)
        return no_memory(dir, err);
    status = env->ops->remove(env, path, err);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err);
    hw_free(path);
    return status == HW_ENOTFOUND ? HW_OK : status;
}

enum hw_status hw_overtaken_allows(struct hw_env *env, const char *dir,
                                   const struct hw_core_head *head, struct hw_error *err)
{
    struct hw_overtaken there = {0};
    enum hw_status status = hw_overtaken_read(env, dir, &there, err);

    if (status == HW_ENOTFOUND)
        return HW_OK;
    if (status != HW_OK || !hw_overtaken_is_above(there.fork, there.length, head))
        return status;
    return hw_fail(err, HW_EFORK,
                   "%s: a follower has %llu blocks of fork %llu, here are %llu of fork %llu: "
                   "restore the log, or stop its writers and adopt it (hyperwal init --adopt)",
                   dir, (unsigned long long)there.length, (unsigned long long)there.fork,
                   (unsigned long long)head->length, (unsigned long long)head->fork);
}
