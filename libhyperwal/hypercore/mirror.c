/* Implements create, sync and the head of hypercore/mirror.h, and how a mirror is opened. */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum { TRIES = 16 }; /* looks at a head that is being written */

bool hw_core_is_mirror(const struct hw_core *core)
{
    return core->mirror != NULL;
}

enum hw_status hw_mirror_check_writable(const struct hw_core *core, struct hw_error *err)
{
    if (core->mirror == NULL || core->mode != HW_CORE_MIRROR)
        return hw_fail(err, HW_EREADONLY, "%s: not a mirror that is open for writing", core->dir);
    if (core->is_poisoned)
        return hw_fail(err, HW_EBROKEN,
                       "%s: an earlier sync failed: close the mirror and open it again", core->dir);
    return HW_OK;
}

/* -------------------------------------------------------------------------------- authority */

enum hw_status hw_mirror_set_authority(struct hw_core *core, struct hw_slice manifest,
                                       struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    struct hw_authority authority = {.is_compat = manifest.size == 0};
    struct hw_buffer copy = {0};
    enum hw_status status = HW_OK;

    memcpy(authority.key, core->identity.key, HW_HASH_SIZE);
    hw_buffer_add(&copy, manifest.bytes, manifest.size);
    if (copy.failed) {
        hw_buffer_release(&copy);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the manifest", core->dir);
    }
    if (manifest.size > 0)
        status =
            hw_manifest_decode((struct hw_slice){copy.bytes, copy.size}, &authority.manifest, err);
    if (status != HW_OK) {
        hw_buffer_release(&copy);
        return status;
    }
    hw_buffer_release(&mirror->manifest);
    mirror->manifest = copy; /* moved */
    mirror->authority = authority;
    mirror->has_authority = true;
    return HW_OK;
}

/* ------------------------------------------------------------------------- the file `mirror` */

enum hw_status hw_mirror_exists(struct hw_core *core, bool *out, struct hw_error *err)
{
    struct hw_file_stat stat;
    char *path = hw_format("%s/mirror", core->dir);
    enum hw_status status;

    *out = false;
    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to look for a mirror", core->dir);
    status = core->env->ops->stat(core->env, path, &stat, err);
    hw_free(path);
    *out = status == HW_OK;
    return status == HW_ENOTFOUND ? HW_OK : status;
}

enum hw_status hw_mirror_write_info(struct hw_core *core, struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    struct hw_mirror_info info = {
        .is_compat = mirror->has_authority && mirror->authority.is_compat,
        .first_kept = mirror->first_kept,
        .manifest = {mirror->manifest.bytes, mirror->manifest.size},
    };
    char *path = hw_format("%s/mirror", core->dir);
    enum hw_status status;

    memcpy(info.key, core->identity.key, HW_HASH_SIZE);
    hw_mirror_info_encode(&info, &mirror->scratch);
    if (path == NULL || mirror->scratch.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to write the mirror's file", core->dir);
    else
        status = hw_env_replace_file(core->env, path, mirror->scratch.bytes, mirror->scratch.size,
                                     0, err);
    if (mirror->scratch.failed)
        hw_buffer_release(&mirror->scratch);
    hw_free(path);
    return status;
}

static void set_key(struct hw_core *core, const uint8_t key[HW_KEY_SIZE])
{
    memcpy(core->identity.key, key, HW_KEY_SIZE);
    hw_discovery_key(key, core->identity.discovery_key);
}

static enum hw_status info_adopt(struct hw_core *core, struct hw_slice bytes, struct hw_error *err)
{
    struct hw_mirror_info info;
    uint8_t key[HW_HASH_SIZE];
    enum hw_status status = hw_mirror_info_decode(bytes, &info, err);

    if (status != HW_OK)
        return status;
    set_key(core, info.key);
    core->mirror->first_kept = info.first_kept;
    if (info.manifest.size == 0 && !info.is_compat)
        return HW_OK; /* not known yet */
    hw_manifest_key(info.manifest, key);
    if (info.manifest.size > 0 && memcmp(key, info.key, sizeof(key)) != 0)
        return hw_fail(err, HW_ECORRUPT, "the manifest is not that of the key");
    status = hw_mirror_set_authority(core, info.manifest, err);
    return status == HW_EPROTOCOL ? HW_ECORRUPT : status;
}

static enum hw_status read_info(struct hw_core *core, struct hw_error *err)
{
    struct hw_buffer bytes = {0};
    char *path = hw_format("%s/mirror", core->dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL || hw_buffer_extend(&bytes, HW_MIRROR_FILE_MAX) == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to open the mirror", core->dir);
        goto done;
    }
    status = hw_env_read_file(core->env, path, bytes.bytes, bytes.size, &size, err);
    if (status == HW_ELIMIT)
        status = hw_fail(err, HW_ECORRUPT, "%s: too large for the file of a mirror", path);
    if (status != HW_OK)
        goto done;
    status = info_adopt(core, (struct hw_slice){bytes.bytes, size}, err);
    if (status != HW_OK)
        status = hw_prefix(err, status, "%s", path);
done:
    hw_buffer_release(&bytes);
    hw_free(path);
    return status;
}

/* ------------------------------------------------------------------------------- the head */

static enum hw_status copy_signature(const struct hw_core *core, struct hw_slice signature,
                                     struct hw_buffer *out, struct hw_error *err)
{
    hw_buffer_add(out, signature.bytes, signature.size);
    if (!out->failed)
        return HW_OK;
    hw_buffer_release(out);
    return hw_fail(err, HW_ENOMEM, "%s: no memory for the signature", core->dir);
}

/* It cannot fail: who wrote a head goes by it.  `signature`, the head's, is moved from. */
static void head_adopt(struct hw_core *core, const struct hw_mirror_head *head, unsigned slot,
                       const struct hw_buffer *signature)
{
    struct hw_core_mirror *mirror = core->mirror;

    if (head->fork != core->fork) {
        hw_mirror_forget_nodes(core);
        hw_mirror_drop_dats(core);
    }
    hw_buffer_release(&mirror->signature);
    mirror->signature = *signature;
    mirror->generation = head->generation;
    mirror->slot = slot;
    core->roots = head->roots;
    core->fork = head->fork;
    hw_roots_hash(&core->roots, core->tree_hash);
}

/* What the slots say their generations are; 0: empty. */
static enum hw_status read_generations(struct hw_core *core, uint64_t out[HW_MIRROR_SLOTS],
                                       struct hw_error *err)
{
    for (unsigned i = 0; i < HW_MIRROR_SLOTS; i++) {
        uint8_t bytes[8];
        enum hw_status status = core->env->ops->read_at(
            core->mirror->head, i * (uint64_t)HW_MIRROR_SLOT_SIZE + 8, bytes, sizeof(bytes), err);

        if (status < 0)
            return status;
        out[i] = hw_get_le64(bytes);
    }
    return HW_OK;
}

/* Take over the newest slot, if there is one beyond ours.  HW_AGAIN: those did not check. */
static enum hw_status look_at_head(struct hw_core *core, struct hw_error *err)
{
    struct hw_buffer *scratch = &core->mirror->scratch;
    uint64_t generations[HW_MIRROR_SLOTS] = {0};
    enum hw_status status = read_generations(core, generations, err);
    bool torn = false;

    while (status == HW_OK) {
        struct hw_mirror_head head;
        unsigned best = 0;

        for (unsigned i = 1; i < HW_MIRROR_SLOTS; i++)
            best = generations[i] > generations[best] ? i : best;
        if (generations[best] <= core->mirror->generation)
            return torn ? HW_AGAIN : HW_OK;
        hw_buffer_clear(scratch);
        if (hw_buffer_extend(scratch, HW_MIRROR_SLOT_SIZE) == NULL) {
            hw_buffer_release(scratch);
            return hw_fail(err, HW_ENOMEM, "%s: no memory for the head", core->dir);
        }
        status = core->env->ops->read_at(core->mirror->head, best * (uint64_t)HW_MIRROR_SLOT_SIZE,
                                         scratch->bytes, scratch->size, err);
        if (status < 0)
            return status;
        status = HW_OK;
        if (hw_mirror_head_decode((struct hw_slice){scratch->bytes, scratch->size}, &head) &&
            head.generation > core->mirror->generation) {
            struct hw_buffer signature = {0};

            status = copy_signature(core, head.signature, &signature, err);
            if (status == HW_OK)
                head_adopt(core, &head, best, &signature);
            return status;
        }
        generations[best] = 0;
        torn = true;
    }
    return status;
}

static enum hw_status load_head(struct hw_core *core, struct hw_error *err)
{
    enum hw_status status = HW_AGAIN;

    /* Torn by a crash, or being written just now: then it soon is not. */
    for (unsigned i = 0; i < TRIES && status == HW_AGAIN; i++)
        status = look_at_head(core, err);
    return status == HW_AGAIN ? HW_OK : status;
}

/* Not the newest slot, and not the one that is known to be on the disk. */
static unsigned slot_to_write(const struct hw_core_mirror *mirror)
{
    unsigned slot = 0;

    while (slot == mirror->slot || slot == mirror->pinned)
        slot++;
    return slot;
}

enum hw_status hw_mirror_write_head(struct hw_core *core, uint64_t fork,
                                    const struct hw_roots *roots, struct hw_slice signature,
                                    struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    struct hw_mirror_head head = {
        .generation = mirror->generation + 1,
        .fork = fork,
        .roots = *roots,
        .signature = signature,
    };
    unsigned slot = slot_to_write(mirror);
    struct hw_buffer copy = {0};
    enum hw_status status;

    hw_mirror_head_encode(&head, &mirror->scratch);
    if (mirror->scratch.failed) {
        hw_buffer_release(&mirror->scratch);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the head", core->dir);
    }
    status = copy_signature(core, signature, &copy, err);
    if (status != HW_OK)
        return status;
    mirror->head_dirty = true;
    status = core->env->ops->write_at(mirror->head, slot * (uint64_t)HW_MIRROR_SLOT_SIZE,
                                      mirror->scratch.bytes, mirror->scratch.size, err);
    if (status != HW_OK) {
        hw_buffer_release(&copy);
        mirror->generation++; /* a reader may have seen it all the same */
        hw_mirror_tail_spoil(core);
        return status;
    }
    head_adopt(core, &head, slot, &copy);
    hw_mirror_tail_head(core);
    return HW_OK;
}

/* --------------------------------------------------------------------- create, open, close */

static enum hw_status mirror_new(struct hw_core *core, struct hw_error *err)
{
    core->mirror = hw_zalloc(sizeof(*core->mirror));
    if (core->mirror == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a mirror", core->dir);
    core->mirror->slot = core->mirror->pinned = HW_MIRROR_SLOTS - 1;
    core->mirror->next = UINT64_MAX;
    return HW_OK;
}

void hw_mirror_free(struct hw_core *core)
{
    struct hw_core_mirror *mirror = core->mirror;

    if (mirror == NULL)
        return;
    hw_mirror_files_close(core);
    hw_buffer_release(&mirror->manifest);
    hw_buffer_release(&mirror->signature);
    hw_buffer_release(&mirror->scratch);
    hw_buffer_release(&mirror->order);
    hw_free(mirror);
    core->mirror = NULL;
}

/*
 * The head must be on the disk before another slot is written, and nodes of a fork before which an
 * older head would lie.  Written anew, for what a failed sync left in the page cache, no later sync
 * writes; and at its place, for we do not know which other slot is on the disk.
 */
static enum hw_status pin_head(struct hw_core *core, struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    const struct hw_mirror_head head = {
        .generation = mirror->generation,
        .fork = core->fork,
        .roots = core->roots,
        .signature = {mirror->signature.bytes, mirror->signature.size},
    };
    enum hw_status status;

    hw_mirror_head_encode(&head, &mirror->scratch);
    if (mirror->scratch.failed) {
        hw_buffer_release(&mirror->scratch);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the head", core->dir);
    }
    status = core->env->ops->write_at(mirror->head, mirror->slot * (uint64_t)HW_MIRROR_SLOT_SIZE,
                                      mirror->scratch.bytes, mirror->scratch.size, err);
    if (status == HW_OK)
        status = core->env->ops->sync(mirror->head, err);
    if (status == HW_OK)
        mirror->pinned = mirror->slot;
    return status;
}

/* Another writer was here before us, and may not have synced what it wrote. */
static enum hw_status take_over(struct hw_core *core, struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    enum hw_status status;

    mirror->nodes_dirty = mirror->have_dirty = mirror->names_dirty = mirror->dats_dirty = true;
    /* A crash may have kept bits of blocks beyond the head it kept, and not the blocks. */
    status = hw_mirror_cut_bits(core, core->roots.length, err);
    if (status == HW_OK && mirror->generation != 0)
        status = pin_head(core, err);
    return status == HW_OK ? hw_mirror_tail_replay(core, err) : status;
}

enum hw_status hw_mirror_open(struct hw_core *core, struct hw_error *err)
{
    enum hw_status status = mirror_new(core, err);

    if (status == HW_OK)
        status = read_info(core, err);
    if (status == HW_OK)
        status = hw_mirror_files_open(core, false, err);
    if (status == HW_OK)
        status = load_head(core, err);
    if (status != HW_OK || core->mode != HW_CORE_MIRROR)
        return status;
    return take_over(core, err);
}

enum hw_status hw_mirror_refresh(struct hw_core *core, struct hw_error *err)
{
    uint64_t generation = core->mirror->generation, fork = core->fork;
    enum hw_status status;

    if (core->mode == HW_CORE_MIRROR)
        return HW_OK; /* it knows */
    status = load_head(core, err);
    if (status != HW_OK || core->mirror->generation == generation)
        return status;
    if (!core->mirror->has_authority || core->fork != fork)
        status = read_info(core, err);
    return status;
}

enum hw_status hw_core_create_mirror(struct hw_env *env, const char *dir,
                                     const uint8_t key[HW_KEY_SIZE], struct hw_core **out,
                                     struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_new(env, dir, HW_CORE_MIRROR, &core, err);

    if (status != HW_OK)
        return status;
    status = hw_core_make_dir(core, err);
    if (status == HW_OK)
        status = mirror_new(core, err);
    if (status != HW_OK)
        goto fail;
    set_key(core, key);
    status = hw_mirror_files_open(core, true, err);
    /* Last: with this file the directory holds a mirror. */
    if (status == HW_OK)
        status = hw_mirror_write_info(core, err);
    if (status != HW_OK)
        goto fail;
    *out = core;
    return HW_OK;

fail:
    hw_core_free(core);
    return status;
}

static enum hw_status remove_file(struct hw_env *env, char *path, struct hw_error *err)
{
    enum hw_status status = path == NULL ? hw_fail(err, HW_ENOMEM, "no memory to remove a mirror")
                                         : env->ops->remove(env, path, err);

    hw_free(path);
    return status == HW_ENOTFOUND ? HW_OK : status;
}

enum hw_status hw_core_remove_mirror(struct hw_env *env, const char *dir, struct hw_error *err)
{
    static const char *const names[] = {"head", "nodes", "have", "tail"};
    struct hw_buffer numbers = {0};
    enum hw_status status = remove_file(env, hw_format("%s/mirror", dir), err);

    /* Without that file the rest is nothing; it must not come back after a crash. */
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && status == HW_OK; i++)
        status = remove_file(env, hw_format("%s/%s", dir, names[i]), err);
    if (status == HW_OK)
        status = hw_mirror_list_dats(env, dir, &numbers, err);
    for (size_t at = 0; status == HW_OK && at < numbers.size; at += sizeof(uint64_t)) {
        uint64_t number;

        memcpy(&number, numbers.bytes + at, sizeof(number));
        status = remove_file(env, hw_mirror_dat_path(dir, number), err);
    }
    hw_buffer_release(&numbers);
    return status;
}

enum hw_status hw_core_sync(struct hw_core *core, uint64_t *length, struct hw_error *err)
{
    bool done = false;
    enum hw_status status = hw_mirror_check_writable(core, err);

    if (status == HW_OK)
        status = hw_mirror_tail_sync(core, &done, err);
    if (status == HW_OK && !done) {
        status = hw_mirror_sync_files(core, err);
        if (status == HW_OK)
            hw_mirror_tail_grow(core);
    }
    if (status == HW_OK)
        *length = core->roots.length;
    return status;
}

void hw_core_set_fetcher(struct hw_core *core, const struct hw_core_fetcher *fetcher)
{
    if (core->mirror == NULL)
        return; /* a log has what it has */
    core->mirror->fetcher = fetcher == NULL ? (struct hw_core_fetcher){.fetch = NULL} : *fetcher;
}
