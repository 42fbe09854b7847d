/*
 * hypercore/keep.h - a log gives its place to another one, and is kept beside it
 *
 *   app.db-hyper/                    the log that goes on
 *   app.db-hyper.0f1e2d3c4b5a6978/   one that was here before it: the first 16 digits of its
 *                                    key name it
 *
 * Nothing that was signed is thrown away: a log, or what is held of somebody else's, is moved file
 * by file, by renaming, and can be read in its new place like any other.  The file that makes the
 * directory a log (`log`, or `mirror`) goes last, so whoever was interrupted begins again.  The one
 * without which it is not signed (`key`), or opened (`head`), goes first, so nobody takes what is
 * left meanwhile for all that there is.
 */
#ifndef HW_HYPERCORE_KEEP_H
#define HW_HYPERCORE_KEEP_H

#include "hypercore/hypercore.h"

/* Where the log with this key is kept that was in `dir`; from hw_format(), NULL: no memory. */
char *hw_keep_dir(const char *dir, const uint8_t key[HW_KEY_SIZE]);

enum hw_keep_what { HW_KEEP_LOG, HW_KEEP_MIRROR };
/*
 * The key of the log that `dir` has, or of the log that it has a mirror of, by that one file alone.
 * HW_ENOTFOUND: it has none.
 */
enum hw_status hw_keep_key(struct hw_env *env, const char *dir, enum hw_keep_what what,
                           uint8_t key[HW_KEY_SIZE], struct hw_error *err) HW_MUST_CHECK;
/*
 * Move all files of the log, or of the mirror, from a directory to another one, which is made if it
 * is missing, and nothing else.  Nobody may have it open for writing.  HW_EEXIST: a file of that
 * name is there already; what was moved before that is moved.
 */
enum hw_status hw_keep_move(struct hw_env *env, const char *from, const char *to,
                            enum hw_keep_what what, struct hw_error *err) HW_MUST_CHECK;
/*
 * The same to where it is kept.  HW_OK: nothing of it is in `dir`, also after a power loss,
 * whichever call it was that moved it.
 */
enum hw_status hw_keep(struct hw_env *env, const char *dir, enum hw_keep_what what,
                       struct hw_error *err) HW_MUST_CHECK;
/*
 * A mirror that was to make room for another one, which was never there, is in its place again: the
 * one in `dir` of which a part is kept, or, where there is none, that of the log `key` (NULL: of
 * none), if it is kept.  So blocks are at hand that perhaps nobody else has, and no second mirror
 * of that log is begun, which would find its place taken when it is to be kept.  HW_OK also if
 * there is nothing to be done, or somebody feeds a mirror here now.
 */
enum hw_status hw_keep_mirror_back(struct hw_env *env, const char *dir, const uint8_t *key,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
