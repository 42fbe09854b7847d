/*
 * vfs/vfs.h - the shim that SQLite calls: VFS "hyperwal" on top of another one
 */
#ifndef HW_VFS_VFS_H
#define HW_VFS_VFS_H

#include <stdbool.h>

#include "base/error.h"
#include "base/sqlite.h"
#include "env/env.h"

struct hw_vfs_options {
    const char *name;  /* NULL: "hyperwal"; copied */
    sqlite3_vfs *base; /* NULL: the default VFS found now; borrowed for ever */
    struct hw_env *env;
    bool threaded;     /* captures get a thread; false: steps run inside the calls (tests) */
    bool make_default;
};

/* Register; a name that is registered by us already is left as it is (HW_OK). */
enum hw_status hw_vfs_register(const struct hw_vfs_options *options,
                               struct hw_error *err) HW_MUST_CHECK;

/* SQLite's result code for a status: vague nowhere. */
int hw_vfs_code(enum hw_status status);

/* File controls of our own, for api.c: the PRAGMAs answer the same. */
enum {
    HW_FCNTL_CAPTURE = 0x48570001, /* void *: struct hw_capture **, NULL for a replica */
};

#endif
