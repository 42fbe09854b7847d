/*
 * hypercore/storage_memory.h - files that live in memory: an ephemeral log touches no disk
 *
 * A world of its own behind the same seam, so that the log has one way to store things.  Clock,
 * chance and identity are those of the world around it.  Directories are not modelled.
 */
#ifndef HW_HYPERCORE_STORAGE_MEMORY_H
#define HW_HYPERCORE_STORAGE_MEMORY_H

#include "env/env.h"

/* `outer` is borrowed until free.  NULL: no memory. */
struct hw_env *hw_storage_memory_new(struct hw_env *outer);
/* All its files must be closed; NULL does nothing. */
void hw_storage_memory_free(struct hw_env *env);

#endif
