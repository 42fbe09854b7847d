/*
 * The file `fences` in a log's directory: fencing numbers of leases that may have been given away.
 *
 *   slot at byte 0 and slot at byte 512, written in turn, so that a torn one leaves the other:
 *      magic "hwfences" | turn le64 | limit le64 | check le64 of the 24 bytes before
 *
 * A new file gets the record of turn 0 and limit 0 first, and no number is given before that is
 * durable and the second slot is written: a file that ends before that slot has given none.  Where
 * one slot cannot be read, nobody knows whether it was torn or has gone bad: the numbers that it
 * would have had are passed over.
 * Numbers below the limit may be in use by somebody.  Two servers of one database take theirs under
 * the lock of the file.
 */
#include <string.h>

#include "base/alloc.h"
#include "entry/entry.h"
#include "node/fences.h"

enum { SLOT_SIZE = 512, RECORD_SIZE = 32 };

static const uint8_t magic[8] = {'h', 'w', 'f', 'e', 'n', 'c', 'e', 's'};

struct slot {
    bool is_valid;
    uint64_t turn, limit;
};

bool hw_fences_decode(const uint8_t bytes[HW_FENCES_RECORD_SIZE], uint64_t *turn, uint64_t *limit)
{
    if (memcmp(bytes, magic, sizeof(magic)) != 0 ||
        hw_get_le64(bytes + 24) != hw_page_sum(1, bytes, 24))
        return false;
    *turn = hw_get_le64(bytes + 8);
    *limit = hw_get_le64(bytes + 16);
    return true;
}

static enum hw_status read_slot(struct hw_file *file, unsigned i, struct slot *out,
                                struct hw_error *err)
{
    uint8_t bytes[RECORD_SIZE];
    enum hw_status status =
        file->env->ops->read_at(file, (uint64_t)i * SLOT_SIZE, bytes, sizeof(bytes), err);

    *out = (struct slot){.is_valid = false};
    if (status == HW_OK)
        out->is_valid = hw_fences_decode(bytes, &out->turn, &out->limit);
    return status == HW_END ? HW_OK : status;
}

static enum hw_status write_slot(struct hw_file *file, uint64_t turn, uint64_t limit,
                                 struct hw_error *err)
{
    uint8_t bytes[RECORD_SIZE];
    enum hw_status status;

    memcpy(bytes, magic, sizeof(magic));
    hw_put_le64(bytes + 8, turn);
    hw_put_le64(bytes + 16, limit);
    hw_put_le64(bytes + 24, hw_page_sum(1, bytes, 24));
    status = file->env->ops->write_at(file, (turn % 2) * SLOT_SIZE, bytes, sizeof(bytes), err);
    return status == HW_OK ? file->env->ops->sync(file, err) : status;
}

static enum hw_status take(struct hw_file *file, uint64_t count, uint64_t *first,
                           struct hw_error *err)
{
    struct slot slots[2], newest = {.is_valid = false};
    bool is_whole = true;
    struct hw_file_stat stat;
    enum hw_status status = file->env->ops->lock(file, true, err);

    if (status == HW_OK)
        status = file->env->ops->stat_file(file, &stat, err);
    for (unsigned i = 0; i < 2 && status == HW_OK; i++) {
        status = read_slot(file, i, &slots[i], err);
        is_whole = is_whole && slots[i].is_valid;
        if (status == HW_OK && slots[i].is_valid &&
            (!newest.is_valid || slots[i].turn > newest.turn))
            newest = slots[i];
    }
    if (status == HW_OK && newest.is_valid &&
        (newest.turn == UINT64_MAX || newest.limit > UINT64_MAX / 2))
        newest.is_valid = false; /* nobody ever took so many */
    if (newest.is_valid && !is_whole && stat.size > SLOT_SIZE)
        newest.limit += count;
    if (status == HW_OK && !newest.is_valid)
        status = stat.size <= SLOT_SIZE
                     ? write_slot(file, 0, 0, err)
                     : hw_fail(err, HW_ECORRUPT,
                               "the file `fences' of the log is damaged: no lease is "
                               "given before it is removed");
    if (status == HW_OK)
        status = write_slot(file, newest.turn + 1, newest.limit + count, err);
    if (status == HW_OK)
        *first = newest.limit;
    return status;
}

enum hw_status hw_fences_take(struct hw_env *env, const char *dir, uint64_t count, uint64_t *first,
                              struct hw_error *err)
{
    char *path = hw_format("%s/fences", dir);
    struct hw_file *file = NULL;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the path of a file");
    status = env->ops->open(env, path,
                            HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
                            &file, err);
    if (status == HW_OK)
        status = take(file, count, first, err);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err); /* the first time: its name */
    env->ops->close(file);
    hw_free(path);
    return status;
}
