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

/*
 * A target may define how its inputs are changed: a list of things is better changed thing by
 * thing.  In place, at most `capacity` bytes; the new size.  Else they are changed byte by byte.
 */
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t capacity, unsigned seed);
/* Whoever drives the target has this: change it byte by byte. */
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t capacity);

#endif
