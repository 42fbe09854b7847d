/* Implements base/alloc.h. */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool (*allow_hook)(void *ctx, size_t size); /* set by tests only, before threads start */
static void *allow_ctx;
static atomic_long live;

static bool allowed(size_t size)
{
    return allow_hook == NULL || allow_hook(allow_ctx, size);
}

static void *counted(void *memory)
{
    if (memory != NULL && allow_hook != NULL)
        atomic_fetch_add(&live, 1);
    return memory;
}

void *hw_alloc(size_t size)
{
    return allowed(size) ? counted(malloc(size == 0 ? 1 : size)) : NULL;
}

void *hw_zalloc(size_t size)
{
    return allowed(size) ? counted(calloc(1, size == 0 ? 1 : size)) : NULL;
}

void *hw_realloc(void *memory, size_t size)
{
    if (memory == NULL)
        return hw_alloc(size);
    return allowed(size) ? realloc(memory, size == 0 ? 1 : size) : NULL;
}

void hw_free(void *memory)
{
    if (memory != NULL && allow_hook != NULL)
        atomic_fetch_sub(&live, 1);
    free(memory);
}

char *hw_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = hw_alloc(size);

    if (copy != NULL)
        memcpy(copy, text, size);
    return copy;
}

char *hw_format(const char *format, ...)
{
    va_list args;
    char *text;
    int size;

    va_start(args, format);
    size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (size < 0)
        return NULL;
    text = hw_alloc((size_t)size + 1);
    if (text == NULL)
        return NULL;
    va_start(args, format);
    (void)vsnprintf(text, (size_t)size + 1, format, args);
    va_end(args);
    return text;
}

void hw_alloc_set_hook(bool (*allow)(void *ctx, size_t size), void *ctx)
{
    allow_hook = allow;
    allow_ctx = ctx;
    atomic_store(&live, 0);
}

long hw_alloc_live(void)
{
    return atomic_load(&live);
}
