/*
 * entry/delta.h - compress bytes against bytes that the reader has too
 *
 * One zstd frame with content size and checksum; a prefix is what the reader is known to hold, and
 * is addressed like content that came before.  Nothing here allocates once a coder has seen its
 * largest input.  Private to entry/.
 */
#ifndef HW_ENTRY_DELTA_H
#define HW_ENTRY_DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/error.h"

struct hw_delta_encoder;
enum hw_status hw_delta_encoder_new(struct hw_delta_encoder **out,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_delta_encoder_free(struct hw_delta_encoder *encoder);
/*
 * Append the frame of `content` to *out.  HW_END: it would take more than `size_max` bytes, and
 * nothing was appended.
 */
enum hw_status hw_delta_compress(struct hw_delta_encoder *encoder, struct hw_slice prefix,
                                 struct hw_slice content, size_t size_max, struct hw_buffer *out,
                                 struct hw_error *err) HW_MUST_CHECK;

struct hw_delta_decoder;
enum hw_status hw_delta_decoder_new(struct hw_delta_decoder **out,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_delta_decoder_free(struct hw_delta_decoder *decoder);
/*
 * Exactly one frame of exactly `size` bytes of content, or HW_ECORRUPT (content is then
 * undefined).
 */
enum hw_status hw_delta_expand(struct hw_delta_decoder *decoder, struct hw_slice prefix,
                               struct hw_slice frame, void *content, size_t size,
                               struct hw_error *err) HW_MUST_CHECK;

#endif
