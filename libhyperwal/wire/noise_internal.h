/*
 * wire/noise_internal.h - the single steps of the handshake, for wire/noise.c and its tests
 *
 * Names as in the Noise Protocol Framework, chapter 5.2.
 */
#ifndef HW_WIRE_NOISE_INTERNAL_H
#define HW_WIRE_NOISE_INTERNAL_H

#include "wire/noise.h"

enum { HW_NOISE_MAC_SIZE = 16 };

/*
 * The point `public_key` times the scalar of `own`, encoded.  False: not a point of the large
 * group, or the result says nothing.
 */
bool hw_noise_dh(const struct hw_identity *own, const uint8_t public_key[HW_IDENTITY_KEY_SIZE],
                 uint8_t out[HW_IDENTITY_KEY_SIZE]);

void hw_noise_mix_hash(struct hw_noise *noise, struct hw_slice data);
void hw_noise_mix_key(struct hw_noise *noise, const uint8_t dh[HW_IDENTITY_KEY_SIZE]);
/* `out` has room for the plain bytes and, once there is a key, a MAC; what was written. */
size_t hw_noise_encrypt_and_hash(struct hw_noise *noise, struct hw_slice plain, uint8_t *out);
/* The reverse; `out` may be NULL if nobody wants to know.  False: altered. */
bool hw_noise_decrypt_and_hash(struct hw_noise *noise, struct hw_slice sealed, uint8_t *out);

#endif
