/*
 * vfs/layer.h - a file of ours on top of a file of another VFS
 *
 *     SQLite ──▶ struct that begins with a hw_layer ──▶ layer.below, right behind that struct
 *
 * Every call is passed down as it is, but for the methods that the struct's owner puts into
 * layer.methods in the place of those.  The shim, the ground and the files with holes are such.
 */
#ifndef HW_VFS_LAYER_H
#define HW_VFS_LAYER_H

#include <stddef.h>

#include "base/sqlite.h"

struct hw_layer {
    sqlite3_file file;          /* first: what SQLite holds; points to `methods` */
    sqlite3_io_methods methods; /* those that the file below has, and no others */
    sqlite3_file *below;
};

/*
 * Before anything else: a struct of `size` bytes, which hw_layer is the first member of, is all
 * zeros, which is nothing that SQLite would close.
 */
void hw_layer_init(struct hw_layer *layer, size_t size);
/*
 * xOpen of the file below.  A failure closes what it left open, and gives its code.  `layer` is not
 * for SQLite yet: hw_layer_fill() comes when nothing can fail any more.
 */
int hw_layer_open(struct hw_layer *layer, sqlite3_vfs *base, const char *name, int flags,
                  int *out_flags);
/*
 * The methods of the file below, which is open, each passing its call down; the owner's come after.
 */
void hw_layer_fill(struct hw_layer *layer);

#endif
