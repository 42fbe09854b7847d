/*
 * node/known.h - the servers that this user has met, and the keys by which they are known again
 *
 * In the manner of ssh's known_hosts, one server a line; the first contact writes it:
 *
 *     ADDRESS                 KEY       SINCE                     what is left is a comment
 *     tcp://db.example:4970   4f3c...   2026-11-29T10:00:00.000Z
 *
 * ADDRESS is what was dialed.  A server whose key is another one than that written here is not
 * spoken to.  Sockets of this machine are not written: who may make one there is the file system's
 * to say.  Nor is a file that is none: /dev/null knows nobody and keeps nothing.
 *
 * The file is replaced as a whole, by who holds the lock of PATH.lock, and so is read without.
 */
#ifndef HW_NODE_KNOWN_H
#define HW_NODE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "env/env.h"
#include "wire/noise.h"

enum { HW_KNOWN_TEXT_MAX = 8 << 20 }; /* bytes of the file */

struct hw_known_server {
    struct hw_slice address, since; /* borrowed from the text; since may be empty */
    uint8_t key[HW_IDENTITY_KEY_SIZE];
    unsigned line;        /* from 1 */
    struct hw_slice text; /* the whole line, with its end */
};
/*
 * The next server of a text, of which *rest is what was not looked at yet; *line counts, from 0.
 * HW_END: no more.  HW_EMISUSE: the line is malformed.
 */
enum hw_status hw_known_decode(struct hw_slice *rest, unsigned *line, struct hw_known_server *out,
                               struct hw_error *err) HW_MUST_CHECK;

/*
 * Is this the server that was known at this address?  One that was not is written down if
 * `remembers`, or if that fails *unwritten says why (HW_OK in it: it was not to be written, or it
 * was).  HW_EREFUSED: it is another one.  Also HW_EMISUSE for a malformed line, HW_EREADONLY if
 * others may write the file, and what reading gives: then it cannot be told.
 */
enum hw_status hw_known_check(struct hw_env *env, const char *path, const char *address,
                              const uint8_t key[HW_IDENTITY_KEY_SIZE], bool remembers,
                              struct hw_error *unwritten, struct hw_error *err) HW_MUST_CHECK;
/* Take out what is known at this address; *count: lines that were taken out. */
enum hw_status hw_known_forget(struct hw_env *env, const char *path, const char *address,
                               unsigned *count, struct hw_error *err) HW_MUST_CHECK;
/* All of them; stops if `each` returns false. */
enum hw_status hw_known_list(struct hw_env *env, const char *path,
                             bool (*each)(void *ctx, const struct hw_known_server *server),
                             void *ctx, struct hw_error *err) HW_MUST_CHECK;

#endif
