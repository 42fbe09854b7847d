/*
 * fuzz/fuzz.h - what a fuzz target defines: feed one input to a decoder
 *
 * Any bytes must be borne: no crash, no hang, no memory beyond the documented limits.  The name is
 * libFuzzer's.
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size); /* 0 */

#endif
