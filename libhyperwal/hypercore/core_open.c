/* Implements create, open, adopt and close of hypercore/hypercore.h. */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"
#include "hypercore/overtaken.h"
#include "hypercore/storage_memory.h"

enum { REWRITE_PART = 64 << 10 };

/* --------------------------------------------------------------------------- small things */

const struct hw_core_identity *hw_core_identity(const struct hw_core *core)
{
    return &core->identity;
}

struct hw_core_head hw_core_head(const struct hw_core *core)
{
    struct hw_core_head head = {
        .length = core->roots.length,
        .byte_length = core->roots.byte_length,
        .fork = core->fork,
    };

    memcpy(head.tree_hash, core->tree_hash, HW_KEY_SIZE);
    return head;
}

uint64_t hw_core_length(const struct hw_core *core)
{
    return core->roots.length;
}

struct hw_slice hw_core_note(const struct hw_core *core)
{
    return (struct hw_slice){core->note, core->note_size};
}

static uint64_t file_size(struct hw_env *env, char *path)
{
    struct hw_file_stat stat;
    uint64_t size = 0;

    if (path != NULL && env->ops->stat(env, path, &stat, NULL) == HW_OK)
        size = stat.size;
    hw_free(path);
    return size;
}

uint64_t hw_core_stored_bytes(const struct hw_core *core)
{
    struct hw_segment_list list = {0};
    uint64_t sum;

    if (core->mirror != NULL)
        return hw_mirror_stored_bytes(core);
    sum = file_size(core->env, hw_format("%s/tree", core->dir));
    sum += file_size(core->env, hw_format("%s/log", core->dir));
    sum += file_size(core->env, hw_format("%s/key", core->dir));
    if (hw_segment_list(core->env, core->dir, &list, NULL) != HW_OK)
        return sum; /* a figure for people: less is better than nothing */
    for (size_t i = 0; i < list.count; i++) {
        if (list.identities[i] == core->end.segment)
            sum += core->end.offset; /* without what is only reserved */
        else
            sum += file_size(core->env, hw_segment_path(core->dir, list.identities[i]));
    }
    hw_segment_list_release(&list);
    return sum;
}

void hw_core_drop_old(struct hw_core *core)
{
    core->env->ops->close(core->old);
    core->old = NULL;
    core->old_identity = 0;
}

void hw_core_free(struct hw_core *core)
{
    if (core == NULL)
        return;
    hw_mirror_free(core);
    core->env->ops->close(core->segment);
    hw_core_drop_old(core);
    hw_free(core->ahead.window);
    hw_tree_file_close(&core->tree);
    hw_segment_scan_release(&core->scan);
    hw_buffer_release(&core->batch.record);
    hw_buffer_release(&core->batch.sizes);
    hw_buffer_release(&core->batch.leaves);
    hw_buffer_release(&core->scratch);
    hw_storage_memory_free(core->memory);
    hw_free(core->dir);
    hw_wipe(core->secret_key, sizeof(core->secret_key));
    hw_free(core);
}

enum hw_status hw_core_new(struct hw_env *env, const char *dir, enum hw_core_mode mode,
                           struct hw_core **out, struct hw_error *err)
{
    struct hw_core *core = hw_zalloc(sizeof(*core));

    hw_crypto_init();
    if (core == NULL)
        return hw_fail(err, HW_ENOMEM, "log: no memory to open it");
    core->mode = mode;
    core->env = env;
    core->limit = UINT64_MAX;
    core->segment_size = dir == NULL ? HW_CORE_MEMORY_SEGMENT_SIZE : HW_CORE_SEGMENT_SIZE;
    if (dir == NULL) {
        core->memory = hw_storage_memory_new(env);
        core->env = core->memory == NULL ? env : core->memory;
    }
    core->dir = hw_strdup(dir == NULL ? "memory" : dir);
    if (core->dir == NULL || (dir == NULL && core->memory == NULL)) {
        hw_core_free(core);
        return hw_fail(err, HW_ENOMEM, "log: no memory to open it");
    }
    hw_roots_hash(&core->roots, core->tree_hash);
    *out = core;
    return HW_OK;
}

/* Key pair, manifest and keys from the seed, for a new log. */
static enum hw_status make_identity(struct hw_core *core, const uint8_t seed[HW_SEED_SIZE],
                                    struct hw_error *err)
{
    struct hw_manifest manifest;
    struct hw_buffer encoded = {0};

    hw_key_pair_from_seed(seed, core->public_key, core->secret_key);
    hw_manifest_default(core->public_key, &manifest);
    hw_manifest_encode(&manifest, &encoded);
    if (encoded.failed) {
        hw_buffer_release(&encoded);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the manifest", core->dir);
    }
    memcpy(core->log.manifest, encoded.bytes, encoded.size);
    core->log.manifest_size = encoded.size;
    hw_manifest_key((struct hw_slice){encoded.bytes, encoded.size}, core->log.key);
    hw_buffer_release(&encoded);
    memcpy(core->identity.key, core->log.key, HW_KEY_SIZE);
    hw_discovery_key(core->identity.key, core->identity.discovery_key);
    return HW_OK;
}

/* Keys from the log file, for one that exists. */
static enum hw_status load_identity(struct hw_core *core, struct hw_error *err)
{
    struct hw_manifest manifest;
    enum hw_status status = hw_log_file_read(core->env, core->dir, &core->log, err);

    if (status != HW_OK)
        return status;
    status = hw_manifest_decode((struct hw_slice){core->log.manifest, core->log.manifest_size},
                                &manifest, err);
    if (status != HW_OK)
        return hw_prefix(err, status == HW_EPROTOCOL ? HW_ECORRUPT : status, "%s/log", core->dir);
    if (manifest.version != 1 || manifest.signer_count != 1 || manifest.quorum != 1)
        return hw_fail(err, HW_EVERSION, "%s/log: not a manifest of version 1 with one signer",
                       core->dir);
    memcpy(core->public_key, manifest.signers[0].public_key, HW_PUBLIC_KEY_SIZE);
    memcpy(core->identity.key, core->log.key, HW_KEY_SIZE);
    hw_discovery_key(core->identity.key, core->identity.discovery_key);
    return HW_OK;
}

static enum hw_status load_secret_key(struct hw_core *core, struct hw_error *err)
{
    uint8_t seed[HW_SEED_SIZE], public_key[HW_PUBLIC_KEY_SIZE];
    enum hw_status status = hw_key_file_read(core->env, core->dir, seed, err);

    if (status == HW_OK) {
        hw_key_pair_from_seed(seed, public_key, core->secret_key);
        if (memcmp(public_key, core->public_key, sizeof(public_key)) != 0)
            status = hw_fail(err, HW_EREADONLY,
                             "%s/key: not the key of this log, or damaged: restore it from a copy",
                             core->dir);
    }
    hw_wipe(seed, sizeof(seed));
    return status;
}

static bool same_place(const struct hw_log_file *one, const struct hw_log_file *other)
{
    return memcmp(one->machine_id, other->machine_id, sizeof(one->machine_id)) == 0 &&
           one->device == other->device && one->inode == other->inode;
}

bool hw_core_is_at_home(struct hw_core *core)
{
    struct hw_log_file here;

    return hw_log_file_locate(core->env, core->dir, &here, NULL) == HW_OK &&
           same_place(&here, &core->log);
}

static enum hw_status check_place(struct hw_core *core, struct hw_error *err)
{
    struct hw_log_file here;
    enum hw_status status = hw_log_file_locate(core->env, core->dir, &here, err);

    if (status != HW_OK)
        return status;
    if (!same_place(&here, &core->log))
        return hw_fail(err, HW_EFORK,
                       "%s: the log is a copy, or was moved here: writing both would make two "
                       "histories; adopt it (hyperwal init --adopt) if the original is gone",
                       core->dir);
    return HW_OK;
}

/* --------------------------------------------------------------------------------- create */

/* A directory with segments and no log file lost something: do not cover it up. */
static enum hw_status check_empty(struct hw_core *core, struct hw_error *err)
{
    struct hw_segment_list list = {0};
    struct hw_file_stat stat;
    bool is_mirror = false;
    char *path = hw_format("%s/log", core->dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to make a log", core->dir);
    status = core->env->ops->stat(core->env, path, &stat, err);
    hw_free(path);
    if (status == HW_OK)
        return hw_fail(err, HW_EEXIST, "%s: there is a log already", core->dir);
    if (status == HW_ENOTFOUND)
        status = hw_mirror_exists(core, &is_mirror, err);
    if (status != HW_OK)
        return status;
    if (is_mirror)
        return hw_fail(err, HW_EEXIST, "%s: there is a mirror of another log", core->dir);
    status = hw_segment_list(core->env, core->dir, &list, err);
    if (status == HW_OK && list.count > 0)
        status = hw_fail(err, HW_EEXIST,
                         "%s: there are segments without their log file: restore "
                         "the file `log`, or move them away",
                         core->dir);
    hw_segment_list_release(&list);
    return status;
}

static enum hw_status create_files(struct hw_core *core, struct hw_error *err)
{
    const struct hw_env_ops *ops = core->env->ops;
    uint8_t seed[HW_SEED_SIZE];
    enum hw_status status;

    ops->random(core->env, seed, sizeof(seed));
    status = make_identity(core, seed, err);
    if (status == HW_OK)
        status = hw_key_file_write(core->env, core->dir, seed, err);
    hw_wipe(seed, sizeof(seed));
    if (status == HW_OK)
        status = hw_tree_file_open(core->env, core->dir, true, &core->tree, err);
    if (status == HW_OK)
        status = ops->truncate(core->tree.file, 0, err); /* a crash may have left one */
    if (status == HW_OK)
        status = hw_log_file_locate(core->env, core->dir, &core->log, err);
    /* Last: with this file the directory holds a log. */
    if (status == HW_OK)
        status = hw_log_file_write(core->env, core->dir, &core->log, err);
    return status;
}

/* The directory, and its name in the one above. */
enum hw_status hw_core_make_dir(struct hw_core *core, struct hw_error *err)
{
    const struct hw_env_ops *ops = core->env->ops;
    const char *slash = strrchr(core->dir, '/');
    char *above =
        slash == NULL
            ? hw_strdup(".")
            : hw_format("%.*s", slash == core->dir ? 1 : (int)(slash - core->dir), core->dir);
    enum hw_status status;

    if (above == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to make it", core->dir);
    status = ops->make_dir(core->env, core->dir, err);
    if (status == HW_OK || status == HW_EEXIST) /* perhaps made just before a crash */
        status = ops->sync_dir(core->env, above, err);
    hw_free(above);
    return status == HW_OK ? check_empty(core, err) : status;
}

enum hw_status hw_core_create(struct hw_env *env, const char *dir, struct hw_core **out,
                              struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_new(env, dir, HW_CORE_WRITE, &core, err);

    if (status != HW_OK)
        return status;
    status = hw_core_make_dir(core, err);
    if (status == HW_OK)
        status = create_files(core, err);
    if (status != HW_OK) {
        hw_core_free(core);
        return status;
    }
    *out = core;
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- open */

static bool remove_aside(void *ctx, const char *name)
{
    struct hw_core *core = ctx;
    size_t size = strlen(name);
    char *path;

    if (size < 8 || strcmp(name + size - 8, ".seg.tmp") != 0)
        return true;
    path = hw_format("%s/%s", core->dir, name);
    if (path != NULL)
        (void)core->env->ops->remove(core->env, path, NULL); /* only room is lost */
    hw_free(path);
    return true;
}

/*
 * The newest batch, written anew: after a sync that failed it may be in the page cache alone, and
 * what is not written, the next sync does not write.  All before it was synced with success.
 */
static enum hw_status rewrite_newest(struct hw_core *core, struct hw_error *err)
{
    const struct hw_env_ops *ops = core->env->ops;
    bool is_here = core->before.segment == core->end.segment;
    uint64_t at = is_here ? core->before.offset : HW_SEGMENT_HEADER_SIZE;
    uint8_t *bytes = hw_alloc(REWRITE_PART);
    enum hw_status status = HW_OK;

    if (bytes == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open it", core->dir);
    while (status == HW_OK && at < core->end.offset) {
        uint64_t left = core->end.offset - at;
        size_t part = left < REWRITE_PART ? (size_t)left : REWRITE_PART;

        status = ops->read_at(core->segment, at, bytes, part, err);
        if (status == HW_END)
            status = hw_fail(err, HW_EIO, "%s: a segment shrank while it was read", core->dir);
        if (status == HW_OK)
            status = ops->write_at(core->segment, at, bytes, part, err);
        at += part;
    }
    hw_free(bytes);
    return status;
}

/* Make the log on disk what the walk found: nothing torn behind it, all of it durable. */
static enum hw_status settle(struct hw_core *core, struct hw_error *err)
{
    const struct hw_env_ops *ops = core->env->ops;
    struct hw_file_stat stat;
    enum hw_status status = ops->list(core->env, core->dir, remove_aside, core, err);

    if (status == HW_OK) /* a writer that was killed may have made a segment and not said so */
        status = ops->sync_dir(core->env, core->dir, err);
    if (status != HW_OK || core->segment == NULL)
        return status;
    status = ops->stat_file(core->segment, &stat, err);
    if (status != HW_OK)
        return status;
    if (stat.size > core->end.offset)
        status = ops->truncate(core->segment, core->end.offset, err);
    core->allocated = core->end.offset;
    if (status == HW_OK)
        status = rewrite_newest(core, err);
    if (status == HW_OK)
        status = ops->sync(core->segment, err);
    if (status == HW_OK)
        status = hw_tree_file_flush(&core->tree, err);
    return status;
}

static enum hw_status open_parts(struct hw_core *core, bool adopt, struct hw_error *err)
{
    bool writable = core->mode == HW_CORE_WRITE;
    enum hw_status status = load_identity(core, err);

    if (status == HW_OK && writable)
        status = load_secret_key(core, err);
    if (status == HW_OK && writable && !adopt)
        status = check_place(core, err);
    if (status != HW_OK)
        return status;
    status = hw_tree_file_open(core->env, core->dir, writable, &core->tree, err);
    if (status == HW_ENOTFOUND)
        return hw_fail(err, HW_ECORRUPT,
                       "%s/tree: missing; opening the log for writing makes it "
                       "anew from the segments",
                       core->dir);
    if (status != HW_OK)
        return status;
    status = hw_core_find_end(core, adopt, err);
    if (status == HW_OK && writable && !adopt) {
        struct hw_core_head head = hw_core_head(core);

        status = hw_overtaken_allows(core->env, core->dir, &head, err);
    }
    if (status == HW_OK && writable)
        status = settle(core, err);
    return status;
}

/* There is no log: a mirror, perhaps. */
static enum hw_status open_mirror(struct hw_core *core, struct hw_error *err)
{
    bool is_mirror = false;
    enum hw_status status = hw_mirror_exists(core, &is_mirror, err);

    if (status != HW_OK)
        return status;
    if (!is_mirror)
        return hw_fail(err, HW_ENOTFOUND, "%s: there is no log", core->dir);
    if (core->mode == HW_CORE_WRITE)
        return hw_fail(err, HW_EREADONLY, "%s: a mirror of somebody else's log, which only follows",
                       core->dir);
    return hw_mirror_open(core, err);
}

static enum hw_status core_open(struct hw_env *env, const char *dir, enum hw_core_mode mode,
                                uint64_t limit, bool adopt, struct hw_core **out,
                                struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_new(env, dir, mode, &core, err);

    if (status != HW_OK)
        return status;
    core->limit = mode == HW_CORE_WRITE ? UINT64_MAX : limit;
    status = mode == HW_CORE_MIRROR ? HW_ENOTFOUND : open_parts(core, adopt, err);
    if (status == HW_ENOTFOUND)
        status = open_mirror(core, err);
    if (status != HW_OK) {
        hw_core_free(core);
        return status;
    }
    *out = core;
    return HW_OK;
}

enum hw_status hw_core_open(struct hw_env *env, const char *dir, enum hw_core_mode mode,
                            uint64_t limit, struct hw_core **out, struct hw_error *err)
{
    return core_open(env, dir, mode, limit, false, out, err);
}

/* Take over what is open under a fork above all that were seen. */
static enum hw_status adopt(struct hw_core *core, uint64_t seen, struct hw_error *err)
{
    uint64_t fork = seen > core->fork ? seen : core->fork;
    enum hw_status status;

    if (fork >= INT64_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: no fork is left above %llu", core->dir,
                       (unsigned long long)fork);
    /* The fork first: should it end here, the copy is still not one that may be written. */
    status = hw_core_rotate(core, fork + 1, err);
    if (status == HW_OK)
        status = hw_log_file_locate(core->env, core->dir, &core->log, err);
    if (status == HW_OK)
        status = hw_log_file_write(core->env, core->dir, &core->log, err);
    if (status == HW_OK) /* below the new fork it means nothing any more */
        status = hw_overtaken_remove(core->env, core->dir, err);
    return status;
}

enum hw_status hw_core_adopt(struct hw_env *env, const char *dir, struct hw_error *err)
{
    struct hw_overtaken overtaken = {.fork = 0};
    struct hw_core *core = NULL;
    enum hw_status status = hw_overtaken_read(env, dir, &overtaken, err);

    if (status == HW_OK || status == HW_ENOTFOUND)
        status = core_open(env, dir, HW_CORE_WRITE, UINT64_MAX, true, &core, err);
    if (status != HW_OK)
        return status;
    status = adopt(core, overtaken.fork, err);
    hw_core_close(core);
    return status;
}

void hw_core_close(struct hw_core *core)
{
    if (core == NULL)
        return;
    hw_core_batch_abort(core);
    if (core->mode == HW_CORE_WRITE && !core->is_poisoned && core->is_changed &&
        core->memory == NULL) {
        /* Both only make the next open faster, and the files smaller: failures are no loss. */
        (void)core->env->ops->truncate(core->segment, core->end.offset, NULL);
        (void)hw_core_sync_tree(core, NULL);
    }
    hw_core_free(core);
}
