/*
 * hypercore/overtaken.h - somebody has more of a log than the log itself
 *
 * A log that came back from a backup, or whose disk lost its tail, is shorter than what its signer
 * once signed, and followers have the rest.  To go on would sign a second tree for the same length.
 * So a peer's proof of more is kept in the file `overtaken`, and until the log has as much again,
 * or a fork above (hw_core_adopt()), it does not open for writing.
 *
 *   0       8         12  16     24       32    64         72
 *   | magic | version | 0 | fork | length | peer | checksum |
 *
 * A signature of the log's own key over a tree that begins at block 0 is the proof: whether it
 * continues what is here does not matter.
 */
#ifndef HW_HYPERCORE_OVERTAKEN_H
#define HW_HYPERCORE_OVERTAKEN_H

#include "hypercore/hypercore.h"
#include "hypercore/proof.h"

struct hw_overtaken {
    uint64_t fork, length;     /* of the tree that was shown */
    uint8_t peer[HW_KEY_SIZE]; /* who showed it */
};

/* Is this more than a log has? */
static inline bool hw_overtaken_is_above(uint64_t fork, uint64_t length,
                                         const struct hw_core_head *head)
{
    return fork > head->fork || (fork == head->fork && length > head->length);
}

/*
 * Does the answer, to a request for an upgrade from 0, show a tree that the signers of this log
 * signed, whether or not it has to do with the core's own?  *length: of that tree.  HW_EPROOF: it
 * is false.  HW_EPROTOCOL: not such an answer.
 */
enum hw_status hw_overtaken_check(struct hw_core *core, const struct hw_proof *proof,
                                  uint64_t *length, struct hw_error *err) HW_MUST_CHECK;

/* The file in the log's directory.  HW_ENOTFOUND: there is none.  HW_ECORRUPT, HW_EVERSION. */
enum hw_status hw_overtaken_read(struct hw_env *env, const char *dir, struct hw_overtaken *out,
                                 struct hw_error *err) HW_MUST_CHECK;
/* Write it, durably, unless what is there says as much. */
enum hw_status hw_overtaken_write(struct hw_env *env, const char *dir,
                                  const struct hw_overtaken *overtaken,
                                  struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_overtaken_remove(struct hw_env *env, const char *dir,
                                   struct hw_error *err) HW_MUST_CHECK;
/* May a log with this head be written?  HW_EFORK: not any more; the message says why. */
enum hw_status hw_overtaken_allows(struct hw_env *env, const char *dir,
                                   const struct hw_core_head *head,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
