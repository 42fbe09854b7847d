/* Implements entry/delta.h; the only file that knows zstd. */
#define ZSTD_STATIC_LINKING_ONLY /* for allocation through hw_alloc */
#include "entry/delta.h"

#include <assert.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/alloc.h"

/*
 * Measured with commits of 1 to 8 pages (kv, insert, order entry): higher levels than 3 gain 1 to 3
 * % of the bytes and cost two to ten times the time.  Rewritten tables, whose matches lie a whole
 * prefix away, shrink by a third at level 5 for little more time.
 */
enum { LEVEL = 3, LEVEL_LONG_PREFIX = 5, LONG_PREFIX = 128 << 10 };
enum { WINDOW_LOG_MIN = 10, WINDOW_LOG_MAX = 23 }; /* 8 MiB: a full block and its prefix */

struct hw_delta_encoder {
    ZSTD_CCtx *context; /* owned */
};

struct hw_delta_decoder {
    ZSTD_DCtx *context; /* owned */
};

static void *zstd_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return hw_alloc(size);
}

static void zstd_free(void *ctx, void *memory)
{
    (void)ctx;
    hw_free(memory);
}

static const ZSTD_customMem memory_hooks = {zstd_alloc, zstd_free, NULL};

static bool failed(size_t code, ZSTD_ErrorCode error)
{
    return ZSTD_isError(code) && ZSTD_getErrorCode(code) == error;
}

enum hw_status hw_delta_encoder_new(struct hw_delta_encoder **out, struct hw_error *err)
{
    struct hw_delta_encoder *encoder = hw_alloc(sizeof(*encoder));

    if (encoder == NULL)
        return hw_fail(err, HW_ENOMEM, "delta encoder: no memory");
    encoder->context = ZSTD_createCCtx_advanced(memory_hooks);
    if (encoder->context == NULL) {
        hw_free(encoder);
        return hw_fail(err, HW_ENOMEM, "delta encoder: no memory for zstd");
    }
    *out = encoder;
    return HW_OK;
}

void hw_delta_encoder_free(struct hw_delta_encoder *encoder)
{
    if (encoder == NULL)
        return;
    (void)ZSTD_freeCCtx(encoder->context); /* cannot fail for a context of ours */
    hw_free(encoder);
}

static int window_log(size_t size)
{
    int log = WINDOW_LOG_MIN;

    while (log < WINDOW_LOG_MAX && ((size_t)1 << log) < size)
        log++;
    return log;
}

/* Parameters hold for one frame; the order of the calls does not matter to zstd. */
static size_t configure(ZSTD_CCtx *context, struct hw_slice prefix, struct hw_slice content)
{
    static const struct {
        ZSTD_cParameter name;
        int value;
    } fixed[] = {{ZSTD_c_checksumFlag, 1}, {ZSTD_c_contentSizeFlag, 1}, {ZSTD_c_dictIDFlag, 0}};
    int level = prefix.size > LONG_PREFIX ? LEVEL_LONG_PREFIX : LEVEL;
    size_t code = ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters);

    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]) && !ZSTD_isError(code); i++)
        code = ZSTD_CCtx_setParameter(context, fixed[i].name, fixed[i].value);
    if (!ZSTD_isError(code))
        code = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(code))
        code = ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog,
                                      window_log(prefix.size + content.size));
    if (!ZSTD_isError(code) && prefix.size > 0)
        code = ZSTD_CCtx_refPrefix(context, prefix.bytes, prefix.size);
    return code;
}

enum hw_status hw_delta_compress(struct hw_delta_encoder *encoder, struct hw_slice prefix,
                                 struct hw_slice content, size_t size_max, struct hw_buffer *out,
                                 struct hw_error *err)
{
    size_t bound = ZSTD_compressBound(content.size);
    size_t capacity = size_max < bound ? size_max : bound;
    size_t code;

    assert(content.size > 0);
    if (hw_buffer_reserve(out, capacity) != HW_OK)
        return hw_fail(err, HW_ENOMEM, "delta encoder: no memory for %zu bytes", capacity);
    code = configure(encoder->context, prefix, content);
    if (!ZSTD_isError(code))
        code = ZSTD_compress2(encoder->context, out->bytes + out->size, capacity, content.bytes,
                              content.size);
    if (failed(code, ZSTD_error_dstSize_tooSmall))
        return HW_END;
    if (failed(code, ZSTD_error_memory_allocation))
        return hw_fail(err, HW_ENOMEM, "delta encoder: no memory for zstd");
    if (ZSTD_isError(code))
        return hw_fail(err, HW_EMISUSE, "delta encoder: zstd says %s", ZSTD_getErrorName(code));
    out->size += code;
    return HW_OK;
}

enum hw_status hw_delta_decoder_new(struct hw_delta_decoder **out, struct hw_error *err)
{
    struct hw_delta_decoder *decoder = hw_alloc(sizeof(*decoder));

    if (decoder == NULL)
        return hw_fail(err, HW_ENOMEM, "delta decoder: no memory");
    decoder->context = ZSTD_createDCtx_advanced(memory_hooks);
    if (decoder->context == NULL) {
        hw_free(decoder);
        return hw_fail(err, HW_ENOMEM, "delta decoder: no memory for zstd");
    }
    *out = decoder;
    return HW_OK;
}

void hw_delta_decoder_free(struct hw_delta_decoder *decoder)
{
    if (decoder == NULL)
        return;
    (void)ZSTD_freeDCtx(decoder->context); /* cannot fail for a context of ours */
    hw_free(decoder);
}

enum hw_status hw_delta_expand(struct hw_delta_decoder *decoder, struct hw_slice prefix,
                               struct hw_slice frame, void *content, size_t size,
                               struct hw_error *err)
{
    size_t code;

    /* zstd would take several frames, and skip some: what is signed has one way to be read. */
    if (ZSTD_getFrameContentSize(frame.bytes, frame.size) != size ||
        ZSTD_findFrameCompressedSize(frame.bytes, frame.size) != frame.size)
        return hw_fail(err, HW_ECORRUPT, "not one zstd frame of %zu bytes", size);
    code = ZSTD_DCtx_reset(decoder->context, ZSTD_reset_session_and_parameters);
    if (!ZSTD_isError(code) && prefix.size > 0)
        code = ZSTD_DCtx_refPrefix(decoder->context, prefix.bytes, prefix.size);
    if (!ZSTD_isError(code))
        code = ZSTD_decompressDCtx(decoder->context, content, size, frame.bytes, frame.size);
    /* The prefix belongs to the caller: leave nothing behind that points to it. */
    (void)ZSTD_DCtx_reset(decoder->context, ZSTD_reset_session_and_parameters);
    if (failed(code, ZSTD_error_memory_allocation))
        return hw_fail(err, HW_ENOMEM, "delta decoder: no memory for zstd");
    if (ZSTD_isError(code))
        return hw_fail(err, HW_ECORRUPT, "zstd says %s", ZSTD_getErrorName(code));
    if (code != size)
        return hw_fail(err, HW_ECORRUPT, "%zu bytes expanded, not %zu", code, size);
    return HW_OK;
}
