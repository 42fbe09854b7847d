/* Implements vfs/layer.h. */
#include "vfs/layer.h"

#include <stdbool.h>
#include <string.h>

static sqlite3_file *below_of(sqlite3_file *file)
{
    return ((struct hw_layer *)file)->below;
}

static int layer_close(sqlite3_file *file)
{
    sqlite3_file *below = below_of(file);

    file->pMethods = NULL;
    return below->pMethods->xClose(below);
}

static int layer_read(sqlite3_file *file, void *out, int size, sqlite3_int64 offset)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xRead(below, out, size, offset);
}

static int layer_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 offset)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xWrite(below, bytes, size, offset);
}

static int layer_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xTruncate(below, size);
}

static int layer_sync(sqlite3_file *file, int flags)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xSync(below, flags);
}

static int layer_size(sqlite3_file *file, sqlite3_int64 *out)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xFileSize(below, out);
}

static int layer_lock(sqlite3_file *file, int level)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xLock(below, level);
}

static int layer_unlock(sqlite3_file *file, int level)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xUnlock(below, level);
}

static int layer_check_reserved_lock(sqlite3_file *file, int *out)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xCheckReservedLock(below, out);
}

static int layer_control(sqlite3_file *file, int op, void *argument)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xFileControl(below, op, argument);
}

static int layer_sector_size(sqlite3_file *file)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xSectorSize(below);
}

static int layer_device_characteristics(sqlite3_file *file)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xDeviceCharacteristics(below);
}

static int layer_shm_map(sqlite3_file *file, int region, int size, int extend,
                         void volatile **memory)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xShmMap(below, region, size, extend, memory);
}

static int layer_shm_lock(sqlite3_file *file, int first, int count, int flags)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xShmLock(below, first, count, flags);
}

static void layer_shm_barrier(sqlite3_file *file)
{
    sqlite3_file *below = below_of(file);

    below->pMethods->xShmBarrier(below);
}

static int layer_shm_unmap(sqlite3_file *file, int delete_flag)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xShmUnmap(below, delete_flag);
}

static int layer_fetch(sqlite3_file *file, sqlite3_int64 offset, int size, void **out)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xFetch(below, offset, size, out);
}

static int layer_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *memory)
{
    sqlite3_file *below = below_of(file);

    return below->pMethods->xUnfetch(below, offset, memory);
}

void hw_layer_init(struct hw_layer *layer, size_t size)
{
    memset(layer, 0, size);
    layer->below = (sqlite3_file *)(void *)((char *)layer + size);
    layer->below->pMethods = NULL;
}

int hw_layer_open(struct hw_layer *layer, sqlite3_vfs *base, const char *name, int flags,
                  int *out_flags)
{
    int code = hw_sqlite_open(base, name, layer->below, flags, out_flags);

    if (code != SQLITE_OK && layer->below->pMethods != NULL) {
        (void)layer->below->pMethods->xClose(layer->below); /* `code` is what went wrong */
        layer->below->pMethods = NULL;
    }
    return code;
}

/*
 * SQLite decides by the version and by single methods whether it maps memory, whether WAL is
 * possible, how large a sector is: the table is a mirror.
 */
void hw_layer_fill(struct hw_layer *layer)
{
    const sqlite3_io_methods *below = layer->below->pMethods;
    bool has_shm = below->iVersion >= 2, has_fetch = below->iVersion >= 3;

    layer->methods = (sqlite3_io_methods){
        .iVersion = has_fetch ? 3 : below->iVersion,
        .xClose = layer_close,
        .xRead = layer_read,
        .xWrite = layer_write,
        .xTruncate = layer_truncate,
        .xSync = layer_sync,
        .xFileSize = layer_size,
        .xLock = layer_lock,
        .xUnlock = layer_unlock,
        .xCheckReservedLock = layer_check_reserved_lock,
        .xFileControl = layer_control,
        .xSectorSize = below->xSectorSize == NULL ? NULL : layer_sector_size,
        .xDeviceCharacteristics =
            below->xDeviceCharacteristics == NULL ? NULL : layer_device_characteristics,
        .xShmMap = has_shm && below->xShmMap != NULL ? layer_shm_map : NULL,
        .xShmLock = has_shm && below->xShmLock != NULL ? layer_shm_lock : NULL,
        .xShmBarrier = has_shm && below->xShmBarrier != NULL ? layer_shm_barrier : NULL,
        .xShmUnmap = has_shm && below->xShmUnmap != NULL ? layer_shm_unmap : NULL,
        .xFetch = has_fetch && below->xFetch != NULL ? layer_fetch : NULL,
        .xUnfetch = has_fetch && below->xUnfetch != NULL ? layer_unfetch : NULL,
    };
    layer->file.pMethods = &layer->methods;
}
