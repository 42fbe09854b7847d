/*
 * hypercore/log_file.h - the file `log`: what a log is, and where it may be written
 *
 *   0       8         12         16        32       40      48           56    88         n
 *   | magic | version | manifest | machine | device | inode | first kept | key | manifest | sum
 *   |       |         | size     | id      | of the key file|            |     |          | 8 bytes
 *
 * Replaced as a whole.  A directory without it holds no log.
 */
#ifndef HW_HYPERCORE_LOG_FILE_H
#define HW_HYPERCORE_LOG_FILE_H

#include "env/env.h"
#include "hypercore/manifest.h"

enum { HW_LOG_MANIFEST_MAX = 1024 }; /* bytes */

struct hw_log_file {
    uint8_t machine_id[16];
    uint64_t device, inode; /* of the key file on that machine */
    uint64_t first_kept;    /* block */
    uint8_t key[HW_HASH_SIZE];
    uint8_t manifest[HW_LOG_MANIFEST_MAX];
    size_t manifest_size;
};

/* HW_ENOTFOUND: no log.  HW_ECORRUPT, HW_EVERSION. */
enum hw_status hw_log_file_read(struct hw_env *env, const char *dir, struct hw_log_file *out,
                                struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_log_file_write(struct hw_env *env, const char *dir, const struct hw_log_file *log,
                                 struct hw_error *err) HW_MUST_CHECK;

/* The seed of the signer.  HW_EREADONLY: there is none, or others can read it. */
enum hw_status hw_key_file_read(struct hw_env *env, const char *dir, uint8_t seed[HW_SEED_SIZE],
                                struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_key_file_write(struct hw_env *env, const char *dir,
                                 const uint8_t seed[HW_SEED_SIZE],
                                 struct hw_error *err) HW_MUST_CHECK;
/* Fill in machine, device and inode as they are here. */
enum hw_status hw_log_file_locate(struct hw_env *env, const char *dir, struct hw_log_file *log,
                                  struct hw_error *err) HW_MUST_CHECK;

#endif
