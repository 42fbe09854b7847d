/*
 * base/alloc.h - memory: the one process-wide hook, so that a test can fail the n-th allocation
 */
#ifndef HW_BASE_ALLOC_H
#define HW_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* NULL if there is no memory, or if the hook says so.  A size of 0 gives a valid pointer. */
void *hw_alloc(size_t size) __attribute__((malloc));
void *hw_zalloc(size_t size) __attribute__((malloc));
void *hw_realloc(void *memory, size_t size); /* NULL: `memory` is as it was */
void hw_free(void *memory);
char *hw_strdup(const char *text);
/* A formatted string, owned by the caller; NULL if there is no memory. */
char *hw_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * For tests: `allow` is asked before each allocation, and false makes it fail.  NULL: all succeed.
 * Set while no other thread runs.
 */
void hw_alloc_set_hook(bool (*allow)(void *ctx, size_t size), void *ctx);

/* Allocations not yet freed; counted only while a hook is set. */
long hw_alloc_live(void);

#endif
