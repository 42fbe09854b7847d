/*
 * The file `position` of a replica: a header and a ring of records.
 *
 *   header   0 "hwrplpos" | 8 version u32 | 12 records u32 | 16 zeros | 56 check
 *   record   0 ordinal u64 | 8 seq u64 | 16 sum u64 | 24 salts | 32 frame u32 | 36 checksum 2*u32 |
 *           44 page count u32 | 48 flags u8, epoch u24 | 52 boot u32 | 56 check
 *
 * Both have 64 bytes, little-endian, and a check of 8 bytes by the WAL's checksum; record n is at
 * 64 * (1 + (n - 1) % 4096), and never crosses a sector.
 */
#include <stdlib.h>
#include <string.h>

#include "apply/replica_internal.h"
#include "base/alloc.h"
#include "base/bytes.h"

enum { SLOT_SIZE = 64, CHECKED_SIZE = 56, VERSION = 1 };
enum { FILE_SIZE = SLOT_SIZE * (1 + HW_POSITION_RECORDS) };

static const char magic[8] = {'h', 'w', 'r', 'p', 'l', 'p', 'o', 's'};

struct hw_positions {
    struct hw_file *file; /* owned */
    uint64_t next_ordinal;
    uint64_t synced_ordinal; /* records below are durable */
    bool is_in_doubt;        /* a sync failed: those from there on may not be what is read */
    uint32_t epoch, boot;
};

static void check_of(const uint8_t *slot, uint8_t out[8])
{
    uint32_t sum[2] = {0x68777270, VERSION}; /* an empty slot does not check */

    hw_wal_checksum(false, slot, CHECKED_SIZE, sum);
    hw_put_le32(out, sum[0]);
    hw_put_le32(out + 4, sum[1]);
}

static bool slot_checks(const uint8_t *slot)
{
    uint8_t check[8];

    check_of(slot, check);
    return memcmp(check, slot + CHECKED_SIZE, sizeof(check)) == 0;
}

static void record_encode(const struct hw_replica_record *record, uint8_t slot[SLOT_SIZE])
{
    hw_put_le64(slot, record->ordinal);
    hw_put_le64(slot + 8, record->seq);
    hw_put_le64(slot + 16, record->sum);
    memcpy(slot + 24, record->at.salts, sizeof(record->at.salts));
    hw_put_le32(slot + 32, record->at.frame);
    hw_put_le32(slot + 36, record->at.checksum[0]);
    hw_put_le32(slot + 40, record->at.checksum[1]);
    hw_put_le32(slot + 44, record->page_count);
    hw_put_le32(slot + 48, record->flags | record->epoch << 8);
    hw_put_le32(slot + 52, record->boot);
    check_of(slot, slot + CHECKED_SIZE);
}

/* False: no record, or a torn one, or one that is not in its place. */
static bool record_decode(const uint8_t slot[SLOT_SIZE], uint32_t number,
                          struct hw_replica_record *out)
{
    struct hw_replica_record record = {
        .ordinal = hw_get_le64(slot),
        .seq = hw_get_le64(slot + 8),
        .sum = hw_get_le64(slot + 16),
        .at.frame = hw_get_le32(slot + 32),
        .at.checksum = {hw_get_le32(slot + 36), hw_get_le32(slot + 40)},
        .page_count = hw_get_le32(slot + 44),
        .flags = slot[48],
        .epoch = hw_get_le32(slot + 48) >> 8,
        .boot = hw_get_le32(slot + 52),
    };

    if (!slot_checks(slot) || record.ordinal == 0 ||
        (record.ordinal - 1) % HW_POSITION_RECORDS != number)
        return false;
    memcpy(record.at.salts, slot + 24, sizeof(record.at.salts));
    *out = record;
    return true;
}

static uint64_t slot_offset(uint64_t ordinal)
{
    return SLOT_SIZE * (1 + (ordinal - 1) % HW_POSITION_RECORDS);
}

/* ------------------------------------------------------------------------------- reading */

static int newest_first(const void *a, const void *b)
{
    const struct hw_replica_record *x = a, *y = b;

    return x->ordinal > y->ordinal ? -1 : x->ordinal < y->ordinal;
}

/* All records of the file.  HW_END: not such a file, or a damaged one. */
static enum hw_status records_read(struct hw_file *file, struct hw_replica_record **out,
                                   uint32_t *count, struct hw_error *err)
{
    struct hw_replica_record *records = NULL;
    uint8_t *bytes = hw_alloc(FILE_SIZE);
    uint32_t found = 0;
    enum hw_status status;

    records = hw_alloc(HW_POSITION_RECORDS * sizeof(*records));
    if (bytes == NULL || records == NULL) {
        status = hw_fail(err, HW_ENOMEM, "replica: no memory to read its position");
        goto done;
    }
    status = file->env->ops->read_at(file, 0, bytes, FILE_SIZE, err); /* HW_END: zeros behind it */
    if (status < 0)
        goto done;
    status = HW_END;
    if (memcmp(bytes, magic, sizeof(magic)) != 0 || !slot_checks(bytes))
        goto done;
    if (hw_get_le32(bytes + 8) != VERSION || hw_get_le32(bytes + 12) != HW_POSITION_RECORDS) {
        status = hw_fail(err, HW_EVERSION, "replica: position file of version %u: upgrade hyperwal",
                         (unsigned)hw_get_le32(bytes + 8));
        goto done;
    }
    for (uint32_t i = 0; i < HW_POSITION_RECORDS; i++) {
        if (record_decode(bytes + SLOT_SIZE * (1 + i), i, &records[found]))
            found++;
    }
    qsort(records, found, sizeof(*records), newest_first);
    *out = records;
    *count = found;
    records = NULL;
    status = HW_OK;

done:
    hw_free(bytes);
    hw_free(records);
    return status;
}

enum hw_status hw_positions_load(struct hw_positions *positions, struct hw_replica_record **out,
                                 uint32_t *count, struct hw_error *err)
{
    enum hw_status status = records_read(positions->file, out, count, err);

    if (status != HW_END)
        return status;
    *out = NULL;
    *count = 0;
    return HW_OK;
}

enum hw_status hw_positions_peek(struct hw_env *env, const char *dir, struct hw_replica_record *out,
                                 struct hw_error *err)
{
    char *path = hw_format("%s/position", dir);
    struct hw_replica_record *records = NULL;
    struct hw_file *file = NULL;
    uint32_t count = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory to read its position");
    status = env->ops->open(env, path, HW_OPEN_READ, &file, err);
    if (status == HW_ENOTFOUND)
        status = HW_END;
    if (status == HW_OK)
        status = records_read(file, &records, &count, err);
    if (status == HW_OK && count == 0)
        status = HW_END;
    if (status == HW_OK)
        *out = records[0];
    if (file != NULL)
        env->ops->close(file);
    hw_free(records);
    hw_free(path);
    return status;
}

/* ------------------------------------------------------------------------------- writing */

static enum hw_status header_write(struct hw_positions *positions, struct hw_error *err)
{
    uint8_t header[SLOT_SIZE] = {0};

    memcpy(header, magic, sizeof(magic));
    hw_put_le32(header + 8, VERSION);
    hw_put_le32(header + 12, HW_POSITION_RECORDS);
    check_of(header, header + CHECKED_SIZE);
    return positions->file->env->ops->write_at(positions->file, 0, header, sizeof(header), err);
}

enum hw_status hw_positions_reset(struct hw_positions *positions, struct hw_error *err)
{
    const struct hw_env_ops *ops = positions->file->env->ops;
    enum hw_status status = ops->truncate(positions->file, 0, err);

    if (status == HW_OK)
        status = ops->allocate(positions->file, FILE_SIZE, err);
    if (status == HW_OK)
        status = header_write(positions, err);
    if (status == HW_OK)
        status = ops->sync(positions->file, err);
    if (status == HW_OK) {
        positions->next_ordinal = positions->synced_ordinal = 1;
        positions->is_in_doubt = false;
    }
    return status;
}

static enum hw_status positions_begin(struct hw_positions *positions, struct hw_error *err)
{
    struct hw_replica_record *records = NULL;
    uint32_t count = 0;
    enum hw_status status = records_read(positions->file, &records, &count, err);

    if (status == HW_END)
        return hw_positions_reset(positions, err);
    if (status != HW_OK)
        return status;
    positions->next_ordinal = count > 0 ? records[0].ordinal + 1 : 1;
    hw_free(records);
    return hw_positions_sync(positions, err); /* who wrote them may not have come to it */
}

enum hw_status hw_positions_open(struct hw_env *env, const char *dir, uint32_t epoch,
                                 struct hw_positions **out, struct hw_error *err)
{
    struct hw_positions *positions = hw_zalloc(sizeof(*positions));
    char *path = hw_format("%s/position", dir);
    uint8_t boot_id[16];
    enum hw_status status = HW_OK;

    if (positions == NULL || path == NULL)
        status = hw_fail(err, HW_ENOMEM, "replica: no memory for its position");
    if (status == HW_OK)
        status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE,
                                &positions->file, err);
    if (status == HW_OK)
        status = env->ops->boot_id(env, boot_id, err);
    if (status == HW_OK) {
        positions->boot = hw_get_le32(boot_id) ^ hw_get_le32(boot_id + 8);
        positions->epoch = epoch;
        status = positions_begin(positions, err);
        if (status != HW_OK)
            status = hw_prefix(err, status, "%s", path);
    }
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err);
    if (status == HW_OK)
        *out = positions;
    else
        hw_positions_close(positions);
    hw_free(path);
    return status;
}

void hw_positions_close(struct hw_positions *positions)
{
    if (positions == NULL)
        return;
    if (positions->file != NULL)
        positions->file->env->ops->close(positions->file);
    hw_free(positions);
}

enum hw_status hw_positions_modified(struct hw_positions *positions, int64_t *ns,
                                     struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = positions->file->env->ops->stat_file(positions->file, &stat, err);

    if (status == HW_OK)
        *ns = stat.modified_ns;
    return status;
}

enum hw_status hw_positions_append(struct hw_positions *positions,
                                   const struct hw_replica_record *record, struct hw_error *err)
{
    struct hw_replica_record stamped = *record;
    uint8_t slot[SLOT_SIZE];
    enum hw_status status;

    stamped.ordinal = positions->next_ordinal;
    stamped.epoch = positions->epoch;
    stamped.boot = positions->boot;
    record_encode(&stamped, slot);
    status = positions->file->env->ops->write_at(positions->file, slot_offset(stamped.ordinal),
                                                 slot, sizeof(slot), err);
    if (status == HW_OK)
        positions->next_ordinal++;
    return status;
}

/* Write the records once more that are there, in runs of them; a slot that has none is left. */
static enum hw_status records_renew(struct hw_positions *positions, struct hw_error *err)
{
    const struct hw_env_ops *ops = positions->file->env->ops;
    uint8_t *bytes = hw_alloc(FILE_SIZE);
    struct hw_replica_record record;
    enum hw_status status;

    if (bytes == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory to write its position anew");
    status = ops->read_at(positions->file, 0, bytes, FILE_SIZE, err); /* HW_END: zeros behind it */
    if (status == HW_END)
        status = HW_OK;
    if (status == HW_OK)
        status = header_write(positions, err);
    for (uint32_t i = 0, run = 0; status == HW_OK && i < HW_POSITION_RECORDS; i += run + 1) {
        const uint8_t *slots = bytes + SLOT_SIZE * (1 + (size_t)i);

        for (run = 0; i + run < HW_POSITION_RECORDS; run++) {
            if (!record_decode(slots + SLOT_SIZE * (size_t)run, i + run, &record))
                break;
        }
        if (run > 0)
            status = ops->write_at(positions->file, SLOT_SIZE * (1 + (uint64_t)i), slots,
                                   SLOT_SIZE * (size_t)run, err);
    }
    hw_free(bytes);
    return status;
}

/*
 * After a sync that failed the next one would say nothing of the records before it.  Those of a
 * follower before this one, whose sync may have failed, are not written again: without them the
 * state is only compared with the log, and a record that must be there is always a new one.
 */
enum hw_status hw_positions_sync(struct hw_positions *positions, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (positions->synced_ordinal == positions->next_ordinal)
        return HW_OK;
    if (positions->is_in_doubt)
        status = records_renew(positions, err);
    if (status == HW_OK)
        status = positions->file->env->ops->sync(positions->file, err);
    positions->is_in_doubt = status != HW_OK;
    if (status == HW_OK)
        positions->synced_ordinal = positions->next_ordinal;
    return status;
}

bool hw_positions_is_half_unsynced(const struct hw_positions *positions)
{
    return positions->next_ordinal - positions->synced_ordinal >= HW_POSITION_RECORDS / 2;
}

uint32_t hw_positions_boot(const struct hw_positions *positions)
{
    return positions->boot;
}

void hw_record_rebase(struct hw_replica_record *record, const struct hw_replica_base *base)
{
    if (record->epoch == base->epoch || record->seq == UINT64_MAX)
        return;
    record->seq =
        record->sum == base->sum && record->page_count == base->page_count ? base->seq : UINT64_MAX;
}
