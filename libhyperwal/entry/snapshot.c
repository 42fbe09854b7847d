/*
 * Page groups and snapshot indexes of entry/entry.h.
 *
 *   group body: group uint | page_count uint | seq - base_seq uint | zstd frame
 *   index body: page_size uint | page_count uint | sum le64 | seq - least_base uint |
 *               seq - greatest_base uint | group_count uint | first_group uint | groups_here uint |
 *               groups_here times: block_seq, base_seq, each as difference from the one before
 *               (the first from the index's own seq), zigzag, uint
 */
#include <assert.h>

#include "base/alloc.h"
#include "entry/delta.h"
#include "entry/entry.h"

struct hw_group_coder {
    struct hw_delta_encoder *encoder; /* owned; made when it is first needed: readers never do */
    struct hw_delta_decoder *decoder; /* owned; the same */
};

/* No database has more pages, so none has more groups. */
enum { GROUP_COUNT_MAX = UINT32_MAX / HW_GROUP_PAGES + 1 };

enum hw_status hw_group_coder_new(struct hw_group_coder **out, struct hw_error *err)
{
    struct hw_group_coder *coder = hw_zalloc(sizeof(*coder));

    if (coder == NULL)
        return hw_fail(err, HW_ENOMEM, "group coder: no memory");
    *out = coder;
    return HW_OK;
}

void hw_group_coder_free(struct hw_group_coder *coder)
{
    if (coder == NULL)
        return;
    hw_delta_encoder_free(coder->encoder);
    hw_delta_decoder_free(coder->decoder);
    hw_free(coder);
}

enum hw_status hw_group_encode(struct hw_group_coder *coder, const struct hw_group *group,
                               uint64_t seq, const void *pages, struct hw_buffer *out,
                               struct hw_error *err)
{
    struct hw_slice none = {NULL, 0};
    struct hw_slice content = {pages, (size_t)group->page_count * group->page_size};
    size_t start = out->size;
    enum hw_status status = HW_OK;

    assert(group->page_count > 0 && group->page_count <= HW_GROUP_PAGES);
    assert(group->base_seq < seq && group->group < GROUP_COUNT_MAX);
    if (coder->encoder == NULL)
        status = hw_delta_encoder_new(&coder->encoder, err);
    if (status != HW_OK)
        return status;
    hw_buffer_add_uint(out, group->group);
    hw_buffer_add_uint(out, group->page_count);
    hw_buffer_add_uint(out, seq - group->base_seq);
    if (out->failed)
        status = hw_fail(err, HW_ENOMEM, "page group %u: no memory", group->group);
    else
        status = hw_delta_compress(coder->encoder, none, content, SIZE_MAX, out, err);
    if (status != HW_OK) {
        out->size = start;
        out->failed = false;
    }
    return status;
}

enum hw_status hw_group_peek(struct hw_cursor *cursor, uint64_t seq, uint32_t page_size,
                             struct hw_group *out)
{
    uint64_t group = hw_cursor_uint(cursor), page_count = hw_cursor_uint(cursor);
    uint64_t back = hw_cursor_uint(cursor);

    if (cursor->failed || group >= GROUP_COUNT_MAX || page_count == 0 ||
        page_count > HW_GROUP_PAGES || back == 0 || back > seq)
        return HW_ECORRUPT;
    *out = (struct hw_group){.page_size = page_size,
                             .group = (uint32_t)group,
                             .page_count = (uint32_t)page_count,
                             .base_seq = seq - back};
    return HW_OK;
}

enum hw_status hw_group_decode(struct hw_group_coder *coder, struct hw_cursor *cursor, uint64_t seq,
                               uint32_t page_size, struct hw_group *out, void *pages,
                               struct hw_error *err)
{
    struct hw_slice none = {NULL, 0}, frame;
    enum hw_status status = HW_OK;
    struct hw_group group;

    assert(hw_entry_page_size_ok(page_size));
    if (hw_group_peek(cursor, seq, page_size, &group) != HW_OK)
        return hw_fail(err, HW_ECORRUPT, "page group: bad beginning");
    if (coder->decoder == NULL)
        status = hw_delta_decoder_new(&coder->decoder, err);
    if (status != HW_OK)
        return status;
    frame = (struct hw_slice){cursor->next, hw_cursor_left(cursor)};
    status = hw_delta_expand(coder->decoder, none, frame, pages,
                             (size_t)group.page_count * page_size, err);
    if (status != HW_OK)
        return hw_prefix(err, status, "page group %u", group.group);
    *out = group;
    return HW_OK;
}

static void step_encode(uint64_t from, uint64_t to, struct hw_buffer *out)
{
    uint64_t step = to - from;

    hw_buffer_add_uint(out, step << 1 ^ (step >> 63 == 0 ? 0 : UINT64_MAX)); /* zigzag */
}

static uint64_t step_decode(uint64_t from, struct hw_cursor *cursor)
{
    uint64_t zigzag = hw_cursor_uint(cursor);

    return from + (zigzag >> 1 ^ ((zigzag & 1) == 0 ? 0 : UINT64_MAX));
}

void hw_snapshot_encode(const struct hw_snapshot *snapshot, uint64_t seq,
                        const struct hw_snapshot_group *groups, struct hw_buffer *out)
{
    struct hw_snapshot_group before = {seq, seq};

    assert(snapshot->least_base <= snapshot->greatest_base && snapshot->greatest_base < seq);
    assert(snapshot->groups_here <= HW_SNAPSHOT_GROUPS_MAX);
    hw_buffer_add_uint(out, snapshot->page_size);
    hw_buffer_add_uint(out, snapshot->page_count);
    hw_buffer_add_le64(out, snapshot->sum);
    hw_buffer_add_uint(out, seq - snapshot->least_base);
    hw_buffer_add_uint(out, seq - snapshot->greatest_base);
    hw_buffer_add_uint(out, snapshot->group_count);
    hw_buffer_add_uint(out, snapshot->first_group);
    hw_buffer_add_uint(out, snapshot->groups_here);
    for (uint32_t i = 0; i < snapshot->groups_here; i++) {
        step_encode(before.block_seq, groups[i].block_seq, out);
        step_encode(before.base_seq, groups[i].base_seq, out);
        before = groups[i];
    }
}

static bool groups_decode(struct hw_cursor *cursor, uint64_t seq,
                          const struct hw_snapshot *snapshot, struct hw_snapshot_group *groups)
{
    struct hw_snapshot_group group = {seq, seq};

    for (uint32_t i = 0; i < snapshot->groups_here; i++) {
        group.block_seq = step_decode(group.block_seq, cursor);
        group.base_seq = step_decode(group.base_seq, cursor);
        if (cursor->failed || group.block_seq == 0 || group.block_seq >= seq ||
            group.base_seq < snapshot->least_base || group.base_seq > snapshot->greatest_base)
            return false;
        groups[i] = group;
    }
    return hw_cursor_left(cursor) == 0;
}

enum hw_status hw_snapshot_peek(struct hw_cursor *cursor, uint64_t seq, struct hw_snapshot *out)
{
    uint64_t page_size = hw_cursor_uint(cursor), page_count = hw_cursor_uint(cursor);
    uint64_t sum = hw_cursor_le64(cursor);
    uint64_t least = hw_cursor_uint(cursor), greatest = hw_cursor_uint(cursor);
    uint64_t group_count = hw_cursor_uint(cursor), first = hw_cursor_uint(cursor);
    uint64_t here = hw_cursor_uint(cursor);

    if (cursor->failed || page_size > UINT32_MAX || !hw_entry_page_size_ok((uint32_t)page_size) ||
        page_count > UINT32_MAX || group_count > GROUP_COUNT_MAX || greatest == 0 ||
        greatest > least || least > seq || here > HW_SNAPSHOT_GROUPS_MAX || first > group_count ||
        here > group_count - first)
        return HW_ECORRUPT;
    *out = (struct hw_snapshot){.page_size = (uint32_t)page_size,
                                .page_count = (uint32_t)page_count,
                                .sum = sum,
                                .least_base = seq - least,
                                .greatest_base = seq - greatest,
                                .group_count = (uint32_t)group_count,
                                .first_group = (uint32_t)first,
                                .groups_here = (uint32_t)here};
    return HW_OK;
}

enum hw_status hw_snapshot_decode(struct hw_cursor *cursor, uint64_t seq, struct hw_snapshot *out,
                                  struct hw_snapshot_group *groups)
{
    struct hw_snapshot snapshot;
    enum hw_status status = hw_snapshot_peek(cursor, seq, &snapshot);

    if (status != HW_OK)
        return status;
    if (!groups_decode(cursor, seq, &snapshot, groups))
        return HW_ECORRUPT;
    *out = snapshot;
    return HW_OK;
}
