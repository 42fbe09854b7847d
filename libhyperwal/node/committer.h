/*
 * node/committer.h - the thread that commits what comes from afar into one database
 *
 *     hub's loop ──job──▶ todo ──▶ thread: SQLite, WAL, log ──▶ done ──ring──▶ hub's loop
 *
 * It may wait for locks and disks, so it is not the hub's.  It has a connection of its own, opened
 * with the first job and closed when nothing came for a while: a guest (vfs/vfs.h), as the process
 * may be that of an application which has the database open itself.
 *
 * Threads: all functions from the hub's, with its mutex; the thread never takes that one.
 */
#ifndef HW_NODE_COMMITTER_H
#define HW_NODE_COMMITTER_H

#include "base/buffer.h"
#include "base/origin.h"
#include "env/bell.h"
#include "env/env.h"
#include "vfs/vfs.h"
#include "wire/write_message.h"

enum { HW_SPOOL_MEMORY = 1 << 20, HW_SPOOL_MAX = 1 << 30 }; /* bytes */

/* The parts of a transaction as they came: in memory, and beyond HW_SPOOL_MEMORY in a file. */
struct hw_spool {
    struct hw_buffer bytes; /* le32 size, part, ... */
    struct hw_file *file;   /* owned; NULL: all is in `bytes` */
    uint64_t size;          /* in all */
    uint64_t count;         /* parts */
};
/* `path` is the file, which is made when it is needed.  HW_ELIMIT: more than HW_SPOOL_MAX. */
enum hw_status hw_spool_add(struct hw_spool *spool, struct hw_env *env, const char *path,
                            struct hw_slice part, struct hw_error *err) HW_MUST_CHECK;
void hw_spool_release(struct hw_spool *spool);
/* Part after part: from *offset on, which moves; `room` is filled.  HW_END: that was all. */
enum hw_status hw_spool_read(const struct hw_spool *spool, uint64_t *offset, struct hw_buffer *room,
                             struct hw_slice *part, struct hw_error *err) HW_MUST_CHECK;

enum hw_job_kind {
    HW_JOB_FENCES,   /* -> fence: all at or below it may have been used; limit: raised on disk */
    HW_JOB_HOLD,     /* keep local writers out, until a commit or for a moment -> length */
    HW_JOB_COMMIT,   /* message, spool -> status, seq */
    HW_JOB_QUESTION, /* message -> status, seq */
};
struct hw_job {
    struct hw_job *next;
    enum hw_job_kind kind;
    uint64_t client;                 /* who asked, for the caller */
    struct hw_write_message message; /* what it asked; its body is not used */
    struct hw_spool spool;           /* owned */

    enum hw_write_status status;
    uint64_t fence, fence_limit, length, seq;
    struct hw_error error; /* words, if status is not OK */
};
void hw_job_free(struct hw_job *job); /* NULL does nothing */

struct hw_committer;
/* `path` is the database, `dir` its log; `vfs` the shim's name.  The bell is rung for news. */
enum hw_status hw_committer_start(struct hw_env *env, struct hw_bell *bell, const char *vfs,
                                  const char *path, const char *dir, struct hw_committer **out,
                                  struct hw_error *err) HW_MUST_CHECK;
/* Waits for the job under way; what was not begun is dropped.  NULL does nothing. */
void hw_committer_stop(struct hw_committer *committer);
/* From now on it does not wait for those who have the database locked. */
void hw_committer_hurry(struct hw_committer *committer);
void hw_committer_do(struct hw_committer *committer, struct hw_job *job); /* moved */
/* A job that is done, the caller's now; NULL: none. */
struct hw_job *hw_committer_done(struct hw_committer *committer);

#endif
