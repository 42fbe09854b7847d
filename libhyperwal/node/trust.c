/*
 * May servers be told that a mirror holds what it seems to hold?  After a crash of the machine, or
 * a failed sync, bits may say that a block is there whose bytes were lost.  Before such blocks
 * count they are read, which checks them, and what does not check is fetched again.  After a failed
 * sync they are written once more, too: the page cache has them, and the disk perhaps never will.
 *
 *   mirror.lock   boot id 16 | from u64    in this boot, all that seems held from there on is;
 *                                          UINT64_MAX: a sync failed in this boot
 */
#include <string.h>

#include "base/bytes.h"
#include "node/hub_internal.h"

enum { NOTE_SIZE = 24, BLOCKS_A_ROUND = 64, BYTES_A_ROUND = 4 << 20 };

static void note_write(struct hw_mirror *mirror, const uint8_t note[NOTE_SIZE])
{
    struct hw_error err = {0};

    /* Without it the blocks are read once more the next time. */
    if (mirror->hub->env->ops->write_at(mirror->lock, 0, note, NOTE_SIZE, &err) != HW_OK)
        hw_env_log(mirror->hub->env, HW_LOG_WARN, "event=mirror_unnoted reason=\"%s\"",
                   err.message);
}

void trust_load(struct hw_mirror *mirror, uint64_t length)
{
    struct hw_env *env = mirror->hub->env;
    uint8_t note[NOTE_SIZE], boot_id[16];

    mirror->unchecked_end = length;
    mirror->unstored_from = UINT64_MAX;
    if (env->ops->boot_id(env, boot_id, NULL) != HW_OK || /* then all is checked */
        env->ops->read_at(mirror->lock, 0, note, sizeof(note), NULL) != HW_OK ||
        memcmp(note, boot_id, sizeof(boot_id)) != 0)
        return;
    if (hw_get_le64(note + 16) == UINT64_MAX)
        mirror->unstored_from = 0; /* who was here before us knew better from where */
    else if (hw_get_le64(note + 16) < length)
        mirror->unchecked_end = hw_get_le64(note + 16);
}

void trust_note_lost(struct hw_mirror *mirror)
{
    uint8_t note[NOTE_SIZE] = {0};

    if (mirror->hub->env->ops->boot_id(mirror->hub->env, note, NULL) == HW_OK)
        hw_put_le64(note + 16, UINT64_MAX);
    note_write(mirror, note);
}

void trust_lose(struct hw_mirror *mirror)
{
    mirror->unchecked_end = hw_core_length(mirror->log->core);
    if (mirror->unstored_from == UINT64_MAX) /* else what was durable before the first failure is */
        mirror->unstored_from = mirror->durable;
    trust_note_lost(mirror);
}

static void trust_gain(struct hw_mirror *mirror)
{
    struct hw_env *env = mirror->hub->env;
    uint8_t note[NOTE_SIZE];

    mirror->unchecked_end = 0;
    mirror->unstored_from = UINT64_MAX;
    if (env->ops->boot_id(env, note, NULL) != HW_OK)
        return; /* they are read once more the next time */
    hw_put_le64(note + 16, mirror->tail);
    note_write(mirror, note);
}

/*
 * Read it, and store it again if it is to be.  HW_EMISSING: it is not what it should be, and the
 * core says from now on that it has not got it.
 */
static enum hw_status block_check(struct hw_mirror *mirror, uint64_t block, size_t *bytes)
{
    struct hub_log *log = mirror->log;
    enum hw_status status = hw_core_read(log->core, block, &mirror->scratch, NULL);

    *bytes += mirror->scratch.size;
    if (status == HW_OK && block >= mirror->unstored_from) {
        mirror->is_dirty = true;
        status = hw_core_store_again(
            log->core, block, (struct hw_slice){mirror->scratch.bytes, mirror->scratch.size}, NULL);
    }
    if (mirror->scratch.capacity > BYTES_A_ROUND)
        hw_buffer_release(&mirror->scratch);
    return status;
}

static void fetch_again(struct hw_mirror *mirror, uint64_t block)
{
    struct hw_error err = {0};

    if (hw_replication_want(mirror->log->replication, block, block + 1, &err) != HW_OK)
        mirror_broken(mirror, &err);
}

bool trust_check(struct hw_mirror *mirror, uint64_t end)
{
    struct hub_log *log = mirror->log;
    size_t bytes = 0;
    bool is_held = false;
    enum hw_status status;

    if (end > mirror->unchecked_end)
        end = mirror->unchecked_end;
    for (unsigned i = 0; mirror->complete < end; i++) {
        if (i == BLOCKS_A_ROUND || bytes >= BYTES_A_ROUND) {
            mirror->check_ns = 0; /* goes on in the next round */
            return false;
        }
        status = hw_core_is_held(log->core, mirror->complete, &is_held, NULL);
        if (status == HW_OK && !is_held)
            return false;
        if (status == HW_OK)
            status = block_check(mirror, mirror->complete, &bytes);
        if (status == HW_EMISSING || status == HW_ECORRUPT) {
            fetch_again(mirror, mirror->complete);
            return false;
        }
        if (status != HW_OK) { /* it may be as it should be */
            mirror->check_ns = hub_now(mirror->hub) + HUB_UNREADABLE_NS;
            return false;
        }
        mirror->complete++;
    }
    if (mirror->unchecked_end != 0 && mirror->complete >= mirror->unchecked_end)
        trust_gain(mirror);
    return true;
}
