/* Implements node/committer.h: the thread, its connection, and what it reads in the log. */
#include "node/committer.h"

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/capture.h"
#include "env/thread.h"
#include "node/fences.h"
#include "node/ledger.h"

enum {
    NS_PER_MS = 1000000,
    BUSY_MS = 2000,    /* for SQLite's lock ... */
    PAUSE_MAX_MS = 10, /* ... looked at so often */
    BEHIND_MS = 5000,  /* for the log to have what was committed before */
    LOGGED_MS = 10000, /* for the log to have the transaction */
    HOLD_MS = 250,     /* that local writers are kept out for one who is late again and again */
    IDLE_MS = 10000,   /* without a job: the connection is closed */
    FENCES_AT_ONCE = 1000,
    CHECKPOINT_FRAMES = 1000,
    UNCHANGED_MAX = 1000, /* blocks that are looked at for a commit that seems to be late */
};

struct hw_committer {
    struct hw_env *env;
    struct hw_bell *bell;         /* borrowed */
    char *vfs, *path, *dir, *uri; /* owned */
    struct hw_thread thread;
    _Atomic uint32_t word; /* counts what there is to look at; the thread sleeps on it */
    atomic_bool is_hurried;

    struct hw_mutex mutex; /* guards the next three */
    struct hw_job *todo, *done;
    bool is_ending;

    /* The thread's. */
    sqlite3 *db;
    unsigned depth; /* how often it entered SQLite as a guest */
    uint64_t busy_since_ns;
    bool is_held; /* counts in `depth` */
    uint64_t held_until_ns;
    struct hw_vfs_head head; /* if held */
    struct hw_ledger ledger;
};

void hw_job_free(struct hw_job *job)
{
    if (job == NULL)
        return;
    hw_spool_release(&job->spool);
    hw_free(job);
}

static enum hw_write_status status_of(enum hw_status status)
{
    switch ((int)status) {
    case HW_OK:
        return HW_WRITE_OK;
    case HW_AGAIN:
        return HW_WRITE_STALE;
    case HW_EBUSY:
    case HW_ETIMEOUT:
        return HW_WRITE_BUSY;
    case HW_ECORRUPT:
        return HW_WRITE_INVALID;
    case HW_EREADONLY:
        return HW_WRITE_NOWHERE;
    default:
        return HW_WRITE_FAILED;
    }
}

/* ------------------------------------------------------------------------- the connection */

/* A path in a URI: what is not plain is written in hex. */
static void add_escaped(struct hw_buffer *out, const char *text)
{
    static const char hex[] = "0123456789abcdef";

    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            strchr("/._-", c) != NULL) {
            hw_buffer_add_u8(out, c);
        } else {
            hw_buffer_add_u8(out, '%');
            hw_buffer_add_u8(out, (uint8_t)hex[c >> 4]);
            hw_buffer_add_u8(out, (uint8_t)hex[c & 15]);
        }
    }
}

/* Is it where the log lies that nobody gave a directory? */
static bool is_beside(const char *path, const char *dir)
{
    size_t size = strlen(path);

    return strncmp(dir, path, size) == 0 && strcmp(dir + size, "-hyper") == 0;
}

static char *uri_of(const char *path, const char *dir)
{
    struct hw_buffer uri = {0};

    hw_buffer_add(&uri, "file:", 5);
    add_escaped(&uri, path);
    if (!is_beside(path, dir)) {
        hw_buffer_add(&uri, "?log=", 5);
        add_escaped(&uri, dir);
    }
    hw_buffer_add_u8(&uri, 0);
    if (uri.failed)
        hw_buffer_release(&uri);
    return (char *)uri.bytes;
}

static uint32_t *word_of(struct hw_committer *c)
{
    return (uint32_t *)(uintptr_t)&c->word; /* as the system's calls want it */
}

static void enter(struct hw_committer *c)
{
    if (c->depth++ == 0)
        hw_vfs_guest_enter();
}

static void leave(struct hw_committer *c)
{
    if (--c->depth == 0)
        hw_vfs_guest_leave();
}

/* SQLite's busy handler: it has no lock then that a forked child could miss. */
static int wait_for_lock(void *ctx, int count)
{
    struct hw_committer *c = ctx;
    uint64_t now = c->env->ops->monotonic_ns(c->env);
    uint32_t seen = atomic_load(&c->word);

    if (count == 0)
        c->busy_since_ns = now;
    if (atomic_load(&c->is_hurried) || now - c->busy_since_ns >= (uint64_t)BUSY_MS * NS_PER_MS)
        return 0;
    hw_vfs_guest_leave();
    c->env->ops->wait_word(c->env, word_of(c), seen,
                           (uint64_t)(count < PAUSE_MAX_MS ? count + 1 : PAUSE_MAX_MS) * NS_PER_MS);
    hw_vfs_guest_enter();
    return 1;
}

static void let_go(struct hw_committer *c)
{
    if (!c->is_held)
        return;
    hw_vfs_let_go(c->db);
    c->is_held = false;
    leave(c);
}

static void database_close(struct hw_committer *c)
{
    enter(c);
    let_go(c);
    (void)sqlite3_close(c->db); /* it has no statements: cannot be busy */
    c->db = NULL;
    leave(c);
}

/* A connection that has read: SQLite has recovered the WAL, and capture knows it. */
static enum hw_status database_open(struct hw_committer *c, struct hw_error *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_URI;
    enum hw_status status = HW_OK;
    int code;

    if (c->db != NULL)
        return HW_OK;
    enter(c);
    code = hw_vfs_guest_open(c->uri, &c->db, flags, c->vfs);
    if (code == SQLITE_OK)
        code = sqlite3_busy_handler(c->db, wait_for_lock, c);
    if (code == SQLITE_OK)
        code = sqlite3_exec(c->db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        status = hw_fail(err, code == SQLITE_BUSY ? HW_EBUSY : HW_EIO,
                         "the database cannot be opened: %s",
                         c->db == NULL ? sqlite3_errstr(code) : sqlite3_errmsg(c->db));
        database_close(c);
    }
    leave(c);
    return status;
}

static enum hw_status hold(struct hw_committer *c, struct hw_error *err)
{
    enum hw_status status = database_open(c, err);

    if (status != HW_OK || c->is_held)
        return status;
    enter(c);
    status = hw_vfs_hold(c->db, BEHIND_MS, &c->head, err);
    c->is_held = status == HW_OK;
    if (!c->is_held)
        leave(c);
    return status;
}

/* As SQLite does it after a commit; what cannot be done is done after the next one. */
static void checkpoint(struct hw_committer *c)
{
    struct hw_capture *capture = NULL;
    struct hw_capture_place now;

    if (c->db == NULL || c->is_held ||
        sqlite3_file_control(c->db, "main", HW_FCNTL_CAPTURE, &capture) != SQLITE_OK ||
        capture == NULL)
        return;
    hw_capture_place(capture, &now);
    if (now.wal_frames < CHECKPOINT_FRAMES)
        return;
    enter(c);
    (void)sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    leave(c);
}

/* ----------------------------------------------------------------------------------- jobs */

/*
 * So far blocks from `seq` on, up to the newest transaction of the held head, changed nothing.  The
 * write lock is held meanwhile: who is far behind is late.
 */
static uint64_t unchanged_end(struct hw_committer *c, uint64_t seq)
{
    return c->head.seq - seq < UNCHANGED_MAX ? hw_ledger_unchanged_end(&c->ledger, seq, c->head.seq)
                                             : seq;
}

struct parts {
    const struct hw_spool *spool;
    uint64_t offset;
    struct hw_buffer room;
};

static enum hw_status next_part(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    struct parts *parts = ctx;

    return hw_spool_read(parts->spool, &parts->offset, &parts->room, body, err);
}

/* Durable in the log, and where. */
static void confirm(struct hw_committer *c, struct hw_job *job)
{
    enum hw_status status = hw_vfs_logged(c->db, LOGGED_MS, &job->error);

    if (status == HW_OK)
        status = hw_ledger_find(&c->ledger, &job->message.id, &job->seq, &job->error);
    job->status = status == HW_OK ? HW_WRITE_OK : HW_WRITE_UNKNOWN;
}

static void run_commit(struct hw_committer *c, struct hw_job *job)
{
    struct parts parts = {.spool = &job->spool};
    struct hw_vfs_commit commit = {
        .origin = job->message.id,
        .sum_before = job->message.sum_before,
        .sum_after = job->message.sum_after,
        .page_count = (uint32_t)job->message.page_count,
        .next = next_part,
        .ctx = &parts,
    };
    uint64_t base = hw_origin_base(&commit.origin);
    bool is_perhaps = false;
    enum hw_status status = hold(c, &job->error);

    if (status == HW_OK && commit.sum_before == c->head.sum && c->head.seq != UINT64_MAX &&
        c->head.seq >= base)
        commit.unchanged_to = unchanged_end(c, base);
    if (status == HW_OK)
        status = hw_vfs_commit(c->db, &c->head, &commit, &is_perhaps, &job->error);
    let_go(c);
    hw_buffer_release(&parts.room);
    job->status = is_perhaps ? HW_WRITE_UNKNOWN : status_of(status);
    if (status == HW_OK)
        confirm(c, job);
    else if (job->status == HW_WRITE_FAILED || is_perhaps)
        database_close(c); /* it begins anew */
}

static enum hw_status no_part(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    (void)ctx;
    (void)body;
    (void)err;
    return HW_END;
}

/*
 * What is not in the log may still come: by another server of the database, or at a recovery, if
 * whoever wrote it into the WAL died before he published it.  So the place that it would have is
 * given to a transaction with an id of its own that changes nothing.
 */
static enum hw_status take_place(struct hw_committer *c, struct hw_job *job)
{
    const uint8_t *log =
        job->message.id.bytes + HW_ORIGIN_SIZE - HW_ORIGIN_CHANCE_SIZE - HW_ORIGIN_LOG_SIZE;
    struct hw_vfs_commit nothing = {.next = no_part};
    bool is_perhaps = false;
    enum hw_status status = hold(c, &job->error);

    if (status == HW_OK) /* once more: now nobody commits */
        status = hw_ledger_find(&c->ledger, &job->message.id, &job->seq, &job->error);
    if (status == HW_AGAIN && c->is_held) {
        nothing.origin = hw_origin_make(0, c->head.length, log, log + HW_ORIGIN_LOG_SIZE);
        nothing.sum_before = nothing.sum_after = c->head.sum;
        nothing.page_count = c->head.page_count;
        status = hw_vfs_commit(c->db, &c->head, &nothing, &is_perhaps, &job->error);
        let_go(c);
        if (status == HW_OK)
            status = hw_vfs_logged(c->db, LOGGED_MS, &job->error);
        if (status == HW_OK)
            status = hw_ledger_find(&c->ledger, &job->message.id, &job->seq, &job->error);
    }
    let_go(c);
    if (status < 0 && status != HW_EBUSY)
        database_close(c); /* it begins anew */
    return status;
}

static void run_question(struct hw_committer *c, struct hw_job *job)
{
    enum hw_status status;

    let_go(c);
    status = database_open(c, &job->error);
    if (status == HW_OK)
        status = hw_vfs_logged(c->db, BEHIND_MS, &job->error);
    if (status == HW_OK)
        status = hw_ledger_find(&c->ledger, &job->message.id, &job->seq, &job->error);
    if (status == HW_AGAIN)
        status = take_place(c, job);
    job->status = status == HW_OK    ? HW_WRITE_OK
                  : status == HW_END ? HW_WRITE_NOT
                                     : HW_WRITE_UNKNOWN;
}

static void run_job(struct hw_committer *c, struct hw_job *job)
{
    enum hw_status status = HW_OK;

    switch (job->kind) {
    case HW_JOB_FENCES:
        status = hw_fences_take(c->env, c->dir, FENCES_AT_ONCE, &job->fence, &job->error);
        job->status = status_of(status);
        job->fence_limit = job->fence + FENCES_AT_ONCE + 1;
        break;
    case HW_JOB_HOLD:
        status = hold(c, &job->error);
        job->status = status_of(status);
        job->length = c->head.length;
        c->held_until_ns = c->env->ops->monotonic_ns(c->env) + (uint64_t)HOLD_MS * NS_PER_MS;
        break;
    case HW_JOB_COMMIT:
        run_commit(c, job);
        break;
    case HW_JOB_QUESTION:
        run_question(c, job);
        break;
    }
}

/* --------------------------------------------------------------------------------- thread */

static struct hw_job *take_job(struct hw_committer *c, bool *is_ending)
{
    struct hw_job *job;

    hw_mutex_lock(&c->mutex);
    *is_ending = c->is_ending;
    job = c->todo;
    if (job != NULL && !*is_ending)
        c->todo = job->next;
    hw_mutex_unlock(&c->mutex);
    return *is_ending ? NULL : job;
}

static void append_job(struct hw_job **list, struct hw_job *job)
{
    while (*list != NULL)
        list = &(*list)->next;
    job->next = NULL;
    *list = job;
}

static void put_done(struct hw_committer *c, struct hw_job *job)
{
    hw_mutex_lock(&c->mutex);
    append_job(&c->done, job);
    hw_mutex_unlock(&c->mutex);
    hw_bell_ring(c->bell);
}

/* Nothing to do: until a job comes, a hold ends, or the connection was idle for long. */
static void rest(struct hw_committer *c, uint32_t seen)
{
    uint64_t now = c->env->ops->monotonic_ns(c->env);
    uint64_t wait_ns = c->db == NULL ? UINT64_MAX : (uint64_t)IDLE_MS * NS_PER_MS;

    if (c->is_held)
        wait_ns = c->held_until_ns > now ? c->held_until_ns - now : 0;
    if (wait_ns > 0)
        c->env->ops->wait_word(c->env, word_of(c), seen, wait_ns);
    if (atomic_load(&c->word) != seen || c->db == NULL)
        return;
    if (!c->is_held && c->env->ops->monotonic_ns(c->env) - now >= wait_ns)
        database_close(c);
    if (c->is_held && c->env->ops->monotonic_ns(c->env) >= c->held_until_ns)
        let_go(c);
}

static void *thread_main(void *ctx)
{
    struct hw_committer *c = ctx;
    bool is_ending = false;

    while (!is_ending) {
        uint32_t seen = atomic_load(&c->word);
        struct hw_job *job = take_job(c, &is_ending);

        if (job != NULL) {
            bool is_commit = job->kind == HW_JOB_COMMIT;

            run_job(c, job);
            put_done(c, job);
            if (is_commit)
                checkpoint(c);
        } else if (!is_ending) {
            rest(c, seen);
        }
    }
    database_close(c);
    hw_ledger_close(&c->ledger);
    return NULL;
}

/* ------------------------------------------------------------------------ start, stop, jobs */

static void committer_free(struct hw_committer *c)
{
    hw_free(c->vfs);
    hw_free(c->path);
    hw_free(c->dir);
    hw_free(c->uri);
    hw_mutex_release(&c->mutex);
    hw_free(c);
}

enum hw_status hw_committer_start(struct hw_env *env, struct hw_bell *bell, const char *vfs,
                                  const char *path, const char *dir, struct hw_committer **out,
                                  struct hw_error *err)
{
    struct hw_committer *c = hw_zalloc(sizeof(*c)); /* owned */
    enum hw_status status = HW_OK;

    if (c == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to commit from afar");
    c->env = env;
    c->bell = bell;
    hw_mutex_init(&c->mutex);
    c->vfs = hw_strdup(vfs);
    c->path = hw_strdup(path);
    c->dir = hw_strdup(dir);
    c->ledger = (struct hw_ledger){.env = env, .dir = c->dir};
    c->uri = uri_of(path, dir);
    if (c->vfs == NULL || c->path == NULL || c->dir == NULL || c->uri == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to commit from afar");
    if (status == HW_OK)
        status = hw_thread_start(&c->thread, thread_main, c, err);
    if (status != HW_OK) {
        committer_free(c);
        return status;
    }
    *out = c;
    return HW_OK;
}

static void free_all(struct hw_job *jobs)
{
    while (jobs != NULL) {
        struct hw_job *job = jobs;

        jobs = job->next;
        hw_job_free(job);
    }
}

static void wake(struct hw_committer *c)
{
    atomic_fetch_add(&c->word, 1);
    c->env->ops->wake_word(c->env, word_of(c));
}

void hw_committer_hurry(struct hw_committer *c)
{
    atomic_store(&c->is_hurried, true);
    wake(c);
}

void hw_committer_stop(struct hw_committer *c)
{
    if (c == NULL)
        return;
    hw_mutex_lock(&c->mutex);
    c->is_ending = true;
    hw_mutex_unlock(&c->mutex);
    wake(c);
    hw_thread_join(&c->thread);
    free_all(c->todo);
    free_all(c->done);
    committer_free(c);
}

void hw_committer_do(struct hw_committer *c, struct hw_job *job)
{
    hw_mutex_lock(&c->mutex);
    append_job(&c->todo, job);
    hw_mutex_unlock(&c->mutex);
    wake(c);
}

struct hw_job *hw_committer_done(struct hw_committer *c)
{
    struct hw_job *job;

    hw_mutex_lock(&c->mutex);
    job = c->done;
    if (job != NULL)
        c->done = job->next;
    hw_mutex_unlock(&c->mutex);
    return job;
}
